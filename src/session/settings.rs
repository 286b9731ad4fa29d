//! The settings of a session.

use std::time::Duration;

/// The server properties in connection.start.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerProperties {
    /// `product`; some clients switch behaviour on it.
    pub product: String,
    /// `version`; dotted numbers.
    pub version: String,
    /// `platform`.
    pub platform: String,
    /// `information`.
    pub information: String,
    /// `cluster_name`.
    pub cluster_name: String,
}

/// The settings of a session, shared by all connections of a listener.
#[derive(Clone, Debug)]
pub(crate) struct SessionSettings {
    /// What clients get in connection.start.
    pub properties: ServerProperties,
    /// SASL mechanisms, in the order offered.
    pub mechanisms: Vec<String>,
    /// Most channels of a connection; 0 is no limit.
    pub channel_max: u16,
    /// Largest frame in bytes; 0 is no limit.
    pub frame_max: u32,
    /// Largest frame before tune-ok, in bytes, and the lowest maximum that a client may negotiate.
    pub frame_min: u32,
    /// The proposed heartbeat in seconds; 0 is none.
    pub heartbeat_seconds: u16,
    /// How long the handshake may take, from accept to an open vhost.
    pub handshake_timeout: Duration,
    /// Largest message body in bytes.
    pub message_bytes_max: u64,
    /// Most gets of one connection that wait for their answers at the same time.
    pub gets_in_flight_max: u32,
    /// Most bytes of contents and transactions of one connection that are not complete.
    pub connection_unfinished_bytes_max: u64,
    /// Most such bytes of all connections.
    pub unfinished_bytes_max: u64,
    /// Most consumers of one channel.
    pub channel_consumers_max: u32,
    /// From this many unacknowledged deliveries on, a channel may not use basic.get.
    pub channel_unacked_max: u32,
    /// Above this many parked bytes the socket is not read.
    pub parked_bytes_max: usize,
}
