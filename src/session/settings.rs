//! What a session offers and allows.

use std::time::Duration;

/// The settings of a session, shared by all connections of a listener.
#[derive(Clone, Debug)]
pub(crate) struct SessionSettings {
    /// `product` of the server properties; some clients switch behaviour on it.
    pub product: String,
    /// `version` of the server properties; dotted numbers.
    pub version: String,
    /// `platform` of the server properties.
    pub platform: String,
    /// `information` of the server properties.
    pub information: String,
    /// `cluster_name` of the server properties.
    pub cluster_name: String,
    /// SASL mechanisms, in the order offered.
    pub mechanisms: Vec<String>,
    /// Channels per connection; 0 is no limit.
    pub channel_max: u16,
    /// Largest frame in bytes; 0 is no limit.
    pub frame_max: u32,
    /// Largest frame before tuning, and the least that a client may ask for.
    pub frame_min: u32,
    /// Heartbeat proposed, in seconds; 0 is none.
    pub heartbeat_seconds: u16,
    /// From accept to an open vhost.
    pub handshake_timeout: Duration,
    /// Largest message body in bytes.
    pub message_bytes_max: u64,
    /// Gets of one connection that wait for their answers at the same time.
    pub gets_in_flight_max: u32,
    /// Bytes of contents and transactions of one connection that are not complete.
    pub connection_unfinished_bytes_max: u64,
    /// The same of all connections.
    pub unfinished_bytes_max: u64,
    /// Consumers of one channel.
    pub channel_consumers_max: u32,
    /// Unacknowledged deliveries of a channel, beyond which it gets no more by basic.get.
    pub channel_unacked_max: u32,
    /// Bytes parked behind a waiting method above which the socket is not read.
    pub parked_bytes_max: usize,
}
