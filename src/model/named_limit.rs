//! Limits that refuse a request of a client, by the names of their settings, and how often each has refused one.

/// A limit that refuses. Limits that only make something wait, or move it to the store, are not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NamedLimit {
    /// Open connections.
    ConnectionsMax,
    /// The time from accept to connection.open.
    HandshakeTimeout,
    /// The size of a frame before tune-ok.
    InitialFrameMax,
    /// The size of a frame after tune-ok.
    FrameMax,
    /// Channels of a connection.
    ChannelsMax,
    /// The size of a message's body.
    MessageBytesMax,
    /// Contents and transactions of a connection that are not complete.
    ConnectionUnfinishedBytes,
    /// Contents and transactions of all connections that are not complete.
    UnfinishedBytes,
    /// Consumers of a channel.
    ChannelConsumersMax,
    /// Unacknowledged deliveries of a channel, when it asks for one more with basic.get.
    ChannelUnackedMax,
    /// Queues of a vhost.
    VhostQueuesMax,
    /// Exchanges of a vhost.
    VhostExchangesMax,
    /// Bindings of a vhost.
    VhostBindingsMax,
    /// Connections of the metrics listener.
    MetricsConnectionsMax,
}

impl NamedLimit {
    /// How many limits there are.
    pub const COUNT: usize = Self::ALL.len();

    /// All limits, each at the index of its discriminant.
    pub const ALL: [Self; 14] = [
        Self::ConnectionsMax,
        Self::HandshakeTimeout,
        Self::InitialFrameMax,
        Self::FrameMax,
        Self::ChannelsMax,
        Self::MessageBytesMax,
        Self::ConnectionUnfinishedBytes,
        Self::UnfinishedBytes,
        Self::ChannelConsumersMax,
        Self::ChannelUnackedMax,
        Self::VhostQueuesMax,
        Self::VhostExchangesMax,
        Self::VhostBindingsMax,
        Self::MetricsConnectionsMax,
    ];

    /// The name of its setting.
    pub const fn setting(self) -> &'static str {
        match self {
            Self::ConnectionsMax => "connections_max",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::InitialFrameMax => "initial_frame_max",
            Self::FrameMax => "frame_max",
            Self::ChannelsMax => "channels_max",
            Self::MessageBytesMax => "message_bytes_max",
            Self::ConnectionUnfinishedBytes => "limits.connection_unfinished_bytes",
            Self::UnfinishedBytes => "limits.unfinished_bytes",
            Self::ChannelConsumersMax => "limits.channel_consumers_max",
            Self::ChannelUnackedMax => "limits.channel_unacked_max",
            Self::VhostQueuesMax => "limits.vhost_queues_max",
            Self::VhostExchangesMax => "limits.vhost_exchanges_max",
            Self::VhostBindingsMax => "limits.vhost_bindings_max",
            Self::MetricsConnectionsMax => "metrics_connections_max",
        }
    }
}

/// How often each limit has refused something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals([u64; NamedLimit::COUNT]);

impl Refusals {
    /// Counts one more refusal.
    pub fn note(&mut self, limit: NamedLimit) {
        self.0[limit as usize] += 1;
    }

    /// Sets the count of a limit.
    pub fn set(&mut self, limit: NamedLimit, count: u64) {
        self.0[limit as usize] = count;
    }

    /// How often a limit has refused something.
    pub fn of(&self, limit: NamedLimit) -> u64 {
        self.0[limit as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_at_the_index_of_its_discriminant() {
        for (place, limit) in NamedLimit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, place);
        }
    }
}
