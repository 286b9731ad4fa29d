//! Kinds of exchanges, and bindings.

use crate::model::{Arguments, Name};

/// The core exchange types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExchangeKind {
    /// The binding key equals the routing key.
    Direct,
    /// Every binding matches.
    Fanout,
    /// The binding key is a pattern of words.
    Topic,
    /// The binding's arguments are compared with the message's headers.
    Headers,
}

impl ExchangeKind {
    /// The kind that a declaration names.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "direct" => Some(Self::Direct),
            "fanout" => Some(Self::Fanout),
            "topic" => Some(Self::Topic),
            "headers" => Some(Self::Headers),
            _ => None,
        }
    }

    /// The name that declarations, listings and error texts use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
        }
    }
}

/// The destination of a binding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// A queue.
    Queue(Name),
    /// Another exchange of the same vhost.
    Exchange(Name),
}

/// A binding of one exchange. All three fields together are its identity, the types of its arguments included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The destination.
    pub destination: Destination,
    /// The key: exact, a pattern or without meaning, depending on the exchange's kind.
    pub routing_key: Name,
    /// The arguments. A headers exchange compares them, other kinds only keep them.
    pub arguments: Arguments,
}
