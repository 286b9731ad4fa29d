//! What exchanges and bindings are, before anything is routed.

use crate::model::{Arguments, Name};

/// The core exchange types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExchangeKind {
    /// Binding key equals routing key.
    Direct,
    /// Every binding.
    Fanout,
    /// Binding key is a pattern of words.
    Topic,
    /// Binding arguments are compared with the message's headers.
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

/// Where a binding leads.
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
    /// Where it leads.
    pub destination: Destination,
    /// Its key: exact, a pattern or without meaning, as the exchange's kind has it.
    pub routing_key: Name,
    /// Its arguments; a headers exchange compares them, the others only keep them.
    pub arguments: Arguments,
}
