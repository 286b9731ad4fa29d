//! A copy of the store, made a few pages at a time between two commits. So it has whole batches, does not start over
//! because of them, and keeps no read open that would keep the write-ahead log from being emptied.

use crate::store::{CopyError, CopyProgress};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// Pages of one step, 1 MiB of a SQLite file. A commit may have to wait for one step.
pub(super) const PAGES_PER_STEP: u32 = 64;

/// The progress or the end of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyEvent {
    /// Its progress. The copy is done with the last of these events.
    Progress(CopyProgress),
    /// The copy has failed and has ended.
    Failed(CopyError),
}

/// Called with a copy's progress, on the writer's thread. `false` gives the copy up; there is no further call then.
pub type CopyListener = Box<dyn FnMut(CopyEvent) -> bool + Send>;

/// The state of the one copy that is possible at a time.
#[derive(Default)]
pub(super) enum CopySlot {
    #[default]
    Free,
    Requested {
        target: PathBuf,
        listener: CopyListener,
    },
    Running,
}

impl CopySlot {
    /// The copy that is requested, which runs from here on.
    pub(super) fn begin(&mut self) -> Option<(PathBuf, CopyListener)> {
        match std::mem::replace(self, Self::Running) {
            Self::Requested { target, listener } => Some((target, listener)),
            other => {
                *self = other;
                None
            }
        }
    }
}

/// Calls a listener; whether the copy is to go on.
pub(super) fn notify(listener: &mut CopyListener, event: CopyEvent) -> bool {
    catch_unwind(AssertUnwindSafe(|| listener(event))).unwrap_or_else(|_| {
        tracing::error!("the listener of a copy of the store panicked");
        false
    })
}

#[cfg(test)]
mod tests {
    use super::CopyEvent;
    use crate::store::commit::{WriterHandle, WriterSettings};
    use crate::store::memory::{MemoryDisk, MemoryStore};
    use crate::store::sqlite::{SqliteSettings, SqliteStore};
    use crate::store::{BatchNo, CopyError, Store, SystemClock};
    use std::path::Path;
    use std::sync::mpsc::{Receiver, channel};
    use tempfile::TempDir;

    fn writer(store: impl Store) -> WriterHandle {
        WriterHandle::start(Box::new(store), BatchNo(0), WriterSettings::default(), SystemClock::shared()).unwrap()
    }

    fn writer_in(directory: &TempDir) -> WriterHandle {
        writer(SqliteStore::open(&SqliteSettings::new(directory.path().join("data"))).unwrap())
    }

    /// Requests a copy that continues as long as `goes_on`. Returns the events of it.
    fn copy(writer: &WriterHandle, target: &Path, goes_on: bool) -> Result<Receiver<CopyEvent>, CopyError> {
        let (sender, events) = channel();
        writer.copy(target.to_owned(), Box::new(move |event| sender.send(event).is_ok() && goes_on))?;
        Ok(events)
    }

    fn is_done(event: &CopyEvent) -> bool {
        matches!(event, CopyEvent::Progress(progress) if progress.is_done && progress.pages_copied == progress.pages)
    }

    #[test]
    fn an_idle_writer_copies_to_the_end_and_then_again() {
        let directory = TempDir::new().unwrap();
        let writer = writer_in(&directory);
        for name in ["one", "two"] {
            let target = directory.path().join(name);
            let events: Vec<_> = copy(&writer, &target, true).unwrap().into_iter().collect();
            assert!(events.last().is_some_and(is_done), "{events:?}");
            assert!(target.is_file());
        }
        writer.stop().unwrap();
        assert_eq!(copy(&writer, &directory.path().join("three"), true).err(), Some(CopyError::Stopping));
    }

    #[test]
    fn a_store_without_a_file_and_a_target_that_cannot_be_written_are_reported() {
        let events_of = |writer: &WriterHandle| -> Vec<_> {
            copy(writer, Path::new("/missing/folder/copy"), true).unwrap().into_iter().collect()
        };
        let memory = writer(MemoryStore::open(MemoryDisk::default()));
        let directory = TempDir::new().unwrap();
        let on_disk = writer_in(&directory);
        for _ in 0..2 {
            assert_eq!(events_of(&memory), [CopyEvent::Failed(CopyError::NotSupported)]);
            let events = events_of(&on_disk);
            assert!(matches!(&events[..], [CopyEvent::Failed(CopyError::Store(_))]), "{events:?}");
        }
    }

    #[test]
    fn a_listener_that_gives_the_copy_up_is_not_called_again() {
        let directory = TempDir::new().unwrap();
        let writer = writer_in(&directory);
        let events: Vec<_> = copy(&writer, &directory.path().join("copy"), false).unwrap().into_iter().collect();
        assert_eq!(events.len(), 1);
    }
}
