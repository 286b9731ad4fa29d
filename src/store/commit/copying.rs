//! A copy of the store, taken on by a few pages between two commits: so it sees whole batches, never begins anew because of
//! them, and holds no read open that would keep the write-ahead log from being emptied.

use super::WriterHandle;
use super::store_runner::StoreRunner;
use crate::store::{CopyError, CopyProgress};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// Pages of one step: what a commit waits for, should it come up just then. 1 MiB of a SQLite file.
const PAGES_PER_STEP: u32 = 64;

/// What becomes of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyEvent {
    /// It has come so far; the last of these events says that it is done.
    Progress(CopyProgress),
    /// It was given up.
    Failed(CopyError),
}

/// Hears of a copy's progress, on the writer's thread; `false` gives the copy up, and is told nothing more.
pub type CopyHeard = Box<dyn FnMut(CopyEvent) -> bool + Send>;

/// The one copy that there can be.
#[derive(Default)]
pub(super) enum CopySlot {
    #[default]
    Free,
    Asked {
        target: PathBuf,
        heard: CopyHeard,
    },
    Running,
}

impl WriterHandle {
    /// Copies everything to `target` while the writer goes on committing. What is durable before this call is part of the
    /// copy, which holds whole batches only. It is not flushed.
    ///
    /// # Errors
    /// When another copy is under way, or the writer has stopped.
    pub fn copy(&self, target: PathBuf, heard: CopyHeard) -> Result<(), CopyError> {
        let shared = &self.life.shared;
        let mut inbox = shared.inbox();
        if inbox.machine.is_stopping() {
            return Err(CopyError::Stopping);
        }
        if !matches!(inbox.copy, CopySlot::Free) {
            return Err(CopyError::AlreadyRunning);
        }
        inbox.copy = CopySlot::Asked { target, heard };
        inbox.machine.set_copying(true);
        shared.wake_driver(inbox);
        Ok(())
    }
}

impl StoreRunner {
    /// Takes the copy that is asked for or under way one step further.
    pub(super) fn take_copy_on(&mut self) {
        self.begin_asked_copy();
        let Some(mut heard) = self.copy.take() else { return };
        let event = match self.step_copy(PAGES_PER_STEP) {
            Ok(progress) => CopyEvent::Progress(progress),
            Err(error) => CopyEvent::Failed(error),
        };
        let goes_on = matches!(&event, CopyEvent::Progress(progress) if !progress.is_done);
        if report(&mut heard, event) && goes_on {
            self.copy = Some(heard);
        } else {
            self.free_copy_slot();
        }
        // `heard` goes last: its owner may wait until nobody can call it any more.
    }

    fn begin_asked_copy(&mut self) {
        let shared = self.shared();
        let mut inbox = shared.inbox();
        if !matches!(inbox.copy, CopySlot::Asked { .. }) {
            return;
        }
        let CopySlot::Asked { target, mut heard } = std::mem::replace(&mut inbox.copy, CopySlot::Running) else {
            return;
        };
        drop(inbox);
        match self.begin_copy(&target) {
            Ok(()) => self.copy = Some(heard),
            Err(error) => {
                report(&mut heard, CopyEvent::Failed(error));
                self.free_copy_slot();
            }
        }
    }

    fn free_copy_slot(&mut self) {
        self.end_copy();
        let shared = self.shared();
        let mut inbox = shared.inbox();
        inbox.copy = CopySlot::Free;
        inbox.machine.set_copying(false);
    }

    /// The writer ends, and a copy with it.
    pub(super) fn give_copy_up(&mut self) {
        let slot = std::mem::take(&mut self.shared().inbox().copy);
        let asked = match slot {
            CopySlot::Asked { heard, .. } => Some(heard),
            CopySlot::Free | CopySlot::Running => None,
        };
        for mut heard in self.copy.take().into_iter().chain(asked) {
            report(&mut heard, CopyEvent::Failed(CopyError::Stopping));
        }
        self.end_copy();
    }
}

/// Whether the copy is to go on.
fn report(heard: &mut CopyHeard, event: CopyEvent) -> bool {
    catch_unwind(AssertUnwindSafe(|| heard(event))).unwrap_or_else(|_| {
        tracing::error!("whoever asked for a copy of the store panicked");
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

    /// Asks for a copy that goes on as long as `goes_on` says so; what it was told.
    fn copy(writer: &WriterHandle, target: &Path, goes_on: bool) -> Result<Receiver<CopyEvent>, CopyError> {
        let (told, events) = channel();
        writer.copy(target.to_owned(), Box::new(move |event| told.send(event).is_ok() && goes_on))?;
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
    fn a_store_without_a_file_and_a_target_that_cannot_be_are_told() {
        let told = |writer: &WriterHandle| -> Vec<_> {
            copy(writer, Path::new("/missing/folder/copy"), true).unwrap().into_iter().collect()
        };
        let memory = writer(MemoryStore::open(MemoryDisk::default()));
        let directory = TempDir::new().unwrap();
        let on_disk = writer_in(&directory);
        for _ in 0..2 {
            assert_eq!(told(&memory), [CopyEvent::Failed(CopyError::NotSupported)]);
            let events = told(&on_disk);
            assert!(matches!(&events[..], [CopyEvent::Failed(CopyError::Store(_))]), "{events:?}");
        }
    }

    #[test]
    fn whoever_wants_no_more_is_told_no_more() {
        let directory = TempDir::new().unwrap();
        let writer = writer_in(&directory);
        let events: Vec<_> = copy(&writer, &directory.path().join("copy"), false).unwrap().into_iter().collect();
        assert_eq!(events.len(), 1);
    }
}
