//! One input of the machine: a command or a local event.

use super::command::{Consume, QueueCommand};
use super::event::LocalEvent;

/// Inputs travel by value through inboxes: the two layers of enum take no byte more than the largest variant.
const _: () = assert!(size_of::<QueueInput>() == size_of::<Consume>());

/// An input of the machine.
#[derive(Clone, Debug)]
pub enum QueueInput {
    /// A request, which may come from another node.
    Command(QueueCommand),
    /// An event of the node that runs the queue.
    Local(LocalEvent),
}

impl QueueInput {
    /// Whether heads may be longer than their windows after the input.
    pub(super) fn may_exceed_heads(&self) -> bool {
        match self {
            Self::Command(command) => command.may_exceed_heads(),
            Self::Local(event) => event.may_exceed_heads(),
        }
    }
}

impl From<QueueCommand> for QueueInput {
    fn from(command: QueueCommand) -> Self {
        Self::Command(command)
    }
}

impl From<LocalEvent> for QueueInput {
    fn from(event: LocalEvent) -> Self {
        Self::Local(event)
    }
}
