//! The queue: who gets a message and when. Pure: inputs and the time go in, effects come out.
//!
//! - `state`: the machine; one `apply` per input.
//! - `entry`: one message in the queue, and the table of all of them.
//! - `level`: one priority level: head window, stored middle, tail.
//! - `consumers`: who is ready to take, in whose turn; `rings`: turns. `permits`: prefetch limits that belong to channels.
//! - `expiry`, `overflow`, `dead_letter`: what ends a message without a consumer.
//! - `pull`: what the store is given, and what it gave back; `scratch`: the same for transient messages beyond their budget.
//! - `input`, `effect`, `settings`: plain data at the seams.
//!
//! Frames, channels and the store's shape are not known here; neither are exchanges: a dead letter is only handed out.

mod consumers;
mod dead_letter;
mod deaths;
mod effect;
mod entry;
mod expiry;
mod input;
mod level;
mod overflow;
mod permits;
mod pull;
mod rings;
mod scratch;
mod settings;
mod state;
#[cfg(test)]
mod tests;

pub use dead_letter::DeadLetterReason;
pub use deaths::{dead_letter_copy, would_cycle};
pub use effect::{Counts, Effects, Pulled, QueueEffect};
pub use input::{Consume, Enqueue, LoadedRows, Origin, Outcome, QueueInput, Requester, Ticket};
pub use level::WindowLimits;
pub use permits::Permits;
pub use settings::{ConsumerLimits, HoldLimits, Overflow, QueueLimits, QueueSettings};
pub use state::{QueueMemory, QueueState};
