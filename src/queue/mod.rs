//! The queue: which consumer gets a message and when. Pure: inputs and the time go in, effects come out.
//!
//! - `machine`: the queue's state, made of parts; one `apply` per input.
//! - `contents`: the messages, with the parts that count them: `ready` (levels, and the next message), `durable` (messages on
//!   their way to the store; its `pull` makes the contributions to batches), `spill` (transient messages beyond their budget).
//!   `loading`: how messages come back from the stores; `expiry`, `overflow`, `dead_letter`: how a message ends without a
//!   consumer.
//! - `lending`: which message goes to which consumer or get, and how it comes back. `consumers`: whose turn it is; `rings`:
//!   turns; `permits`: prefetch limits that belong to channels.
//! - `life`: when a queue ends by itself, and its answers after that.
//! - `entry`: one message in the queue, and the table of all of them, which is made of `slab`s.
//! - `level`: one priority level: head window, stored `middle`, tail; with its `positions`, its `ceiling` and its `scratch_lane`.
//! - `due`: when rows fall due for the writer.
//! - `command`, `event`, `input`, `effect`, `settings`, `metrics`: plain data at the seams. `context`: the arguments of an
//!   input. `deaths`: the headers of dead letters.
//!
//! Each part owns its numbers, and debug builds check after every input that they agree with what they count
//! (`assert_invariants`). A part knows only the parts below it.
//!
//! Frames, channels and the store's shape are not known here; neither are exchanges: a dead letter is only handed out.

mod ceiling;
mod command;
mod consumers;
mod contents;
mod context;
mod dead_letter;
mod deaths;
mod due;
mod durable;
mod effect;
mod entry;
mod event;
mod expiry;
mod input;
mod lending;
mod level;
mod life;
mod loading;
mod machine;
mod metrics;
mod middle;
mod overflow;
mod permits;
mod positions;
mod ready;
mod rings;
mod scratch_lane;
mod settings;
mod slab;
mod spill;
#[cfg(test)]
mod tests;

pub use command::{Consume, Enqueue, Origin, QueueCommand, Requester};
pub use deaths::{DeadLetterReason, dead_letter_copy, would_cycle};
pub use effect::{Counts, Effects, Pulled, QueueEffect};
pub use event::{LoadedRows, LocalEvent, Ticket};
pub use input::QueueInput;
pub use machine::QueueState;
pub use metrics::{QueueMemory, QueueMetrics};
pub use permits::Permits;
pub use settings::{
    ChangeableSettings, ConsumerLimits, HoldLimits, Overflow, QueueLimits, QueueSettings, WindowLimits,
};
