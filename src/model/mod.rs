//! The types that all layers above the wire share: names, identifiers, messages, commands, notices and errors.
//!
//! Everything here is plain data. Nothing here acts: machines live in `session`, `routing` and `queue`.

pub mod arguments;
pub mod command;
pub mod error;
pub mod ids;
pub mod limit;
pub mod message;
pub mod named_limit;
pub mod names;
pub mod notice;
pub mod random;
pub mod reply_code;
pub mod settlement;
pub mod stored;
pub mod term;
pub mod time;

pub use arguments::Arguments;
pub use command::Command;
pub use error::{AmqpError, Scope};
pub use ids::{
    ChannelKey, ConnectionId, ConsumerKey, ConsumerSlot, Holder, Lane, LendId, Position, Promise, PromiseOwner,
    QueueId, RequestNo,
};
pub use limit::{LimitChange, LimitId, LimitKey};
pub use message::Message;
pub use named_limit::{NamedLimit, Refusals};
pub use names::Name;
pub use notice::{Answer, Delivery, Notice};
pub use reply_code::ReplyCode;
pub use settlement::SettleOutcome;
pub use time::{Clock, Monotonic, Now, WallMillis};
