//! A disk in memory: what was written, what was flushed, and what there may be after a crash.
//!
//! Every change is recorded, so that the disk can be rebuilt as a crash at any moment would leave it. A file's content is
//! durable once the file is synced, its name once its folder is.

use crate::content::Content;
use prontomq::internals::model::random::Random;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The pieces that a torn write is torn into.
const SECTOR_BYTES: usize = 512;

/// A file, whatever its name.
pub(crate) type Inode = usize;

/// What happened to the disk.
#[derive(Clone)]
pub(crate) enum Op {
    Create {
        name: String,
        inode: Inode,
    },
    Delete {
        name: String,
    },
    SyncFolder,
    Write {
        inode: Inode,
        at: usize,
        bytes: Arc<[u8]>,
    },
    Truncate {
        inode: Inode,
        len: usize,
    },
    Sync {
        inode: Inode,
    },
    /// A sync that failed: what was to be flushed counts as clean, and is not.
    SyncFailed {
        inode: Inode,
    },
    /// A word of the test's.
    Mark(Mark),
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { name, inode } => write!(f, "create {inode} {name}"),
            Self::Delete { name } => write!(f, "delete {name}"),
            Self::SyncFolder => write!(f, "sync folder"),
            Self::Write { inode, at, bytes } => write!(f, "write {inode} at {at}, {} bytes", bytes.len()),
            Self::Truncate { inode, len } => write!(f, "truncate {inode} to {len}"),
            Self::Sync { inode } => write!(f, "sync {inode}"),
            Self::SyncFailed { inode } => write!(f, "sync {inode} failed"),
            Self::Mark(mark) => write!(f, "{mark:?}"),
        }
    }
}

/// Where a history stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The batch is being committed.
    Begun(u64),
    /// It is committed.
    Committed(u64),
    /// It is flushed, where a commit is not.
    Flushed(u64),
}

/// What fails next, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The write after so many others.
    Write(u32),
    /// The sync after so many others.
    Sync(u32),
    /// The read after so many others.
    Read(u32),
}

#[derive(Default)]
pub(crate) struct Lock {
    pub(crate) shared: usize,
    pub(crate) reserved: bool,
    pub(crate) pending: bool,
    pub(crate) exclusive: bool,
}

#[derive(Default)]
pub(crate) struct FileState {
    pub(crate) bytes: Content,
    pub(crate) lock: Lock,
    /// The shared memory of a log's index: regions, and its locks (-1 exclusive, else how many share it).
    pub(crate) regions: Vec<Box<[u64; 4096]>>,
    pub(crate) region_locks: [i32; 8],
    pub(crate) region_users: usize,
}

/// Everything on the disk.
pub(crate) struct State {
    pub(crate) names: BTreeMap<String, Inode>,
    pub(crate) files: Vec<FileState>,
    pub(crate) ops: Vec<Op>,
    pub(crate) fault: Fault,
    pub(crate) fired: bool,
    /// Bytes that all files may have together.
    pub(crate) budget: usize,
    /// Which process has it.
    pub(crate) life: u64,
    /// Shared memory of those before, for as long as they may look at it.
    left: Vec<Box<[u64; 4096]>>,
}

/// A disk.
pub(crate) struct Disk(Mutex<State>);

impl Disk {
    pub(crate) fn new(files: &Files) -> Arc<Self> {
        let mut names = BTreeMap::new();
        let mut states = Vec::new();
        for (name, bytes) in files {
            names.insert(name.clone(), states.len());
            states.push(FileState { bytes: bytes.clone(), ..FileState::default() });
        }
        Arc::new(Self(Mutex::new(State {
            names,
            files: states,
            ops: Vec::new(),
            fault: Fault::None,
            fired: false,
            budget: usize::MAX,
            life: 0,
            left: Vec::new(),
        })))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody else takes all that is left.
    pub(crate) fn fill(&self) {
        let mut state = self.state();
        state.budget = state.used();
    }

    pub(crate) fn mark(&self, mark: Mark) {
        self.state().ops.push(Op::Mark(mark));
    }
}

impl State {
    pub(crate) fn create(&mut self, name: &str) -> Inode {
        let inode = self.files.len();
        self.files.push(FileState::default());
        self.names.insert(name.to_owned(), inode);
        self.ops.push(Op::Create { name: name.to_owned(), inode });
        inode
    }

    /// The process that has it ends: its locks and its shared memory are no more.
    pub(crate) fn kill(&mut self) {
        self.life += 1;
        for file in &mut self.files {
            self.left.append(&mut file.regions);
            (file.lock, file.region_locks, file.region_users) = (Lock::default(), [0; 8], 0);
        }
    }

    pub(crate) fn used(&self) -> usize {
        self.names.values().map(|inode| self.files[*inode].bytes.len()).sum()
    }

    /// Whether it fails now.
    pub(crate) fn fails(&mut self, make: fn(u32) -> Fault) -> bool {
        if self.fault == make(0) {
            (self.fault, self.fired) = (Fault::None, true);
            return true;
        }
        let (Fault::Write(left) | Fault::Sync(left) | Fault::Read(left)) = self.fault else { return false };
        if self.fault == make(left) {
            self.fault = make(left - 1);
        }
        false
    }
}

/// A disk's files by name.
pub(crate) type Files = BTreeMap<String, Content>;

/// A change that is not durable yet.
#[derive(Clone, Copy)]
struct Pending {
    op: usize,
    inode: Inode,
}

/// The disk as it develops, op by op.
pub(crate) struct Replay<'a> {
    ops: &'a [Op],
    next: usize,
    written: BTreeMap<Inode, Content>,
    /// What is durable, if of writes whose sync failed nothing is.
    synced: BTreeMap<Inode, Content>,
    /// And if of those some sectors are.
    partly: BTreeMap<Inode, Content>,
    random: Random,
    names_written: BTreeMap<String, Inode>,
    names_synced: BTreeMap<String, Inode>,
    pending: Vec<Pending>,
    pending_names: Vec<usize>,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(base: &Files, ops: &'a [Op], seed: u64) -> Self {
        let names: BTreeMap<String, Inode> = base.keys().cloned().zip(0..).collect();
        let files: BTreeMap<Inode, Content> = (0..).zip(base.values().cloned()).collect();
        Self {
            ops,
            next: 0,
            written: files.clone(),
            synced: files.clone(),
            partly: files,
            random: Random::new(seed),
            names_written: names.clone(),
            names_synced: names,
            pending: Vec::new(),
            pending_names: Vec::new(),
        }
    }

    /// Takes the next op; none at the end.
    pub(crate) fn step(&mut self) -> Option<&'a Op> {
        let at = self.next;
        let op = self.ops.get(at)?;
        self.next += 1;
        match op {
            Op::Create { .. } | Op::Delete { .. } => {
                rename(&mut self.names_written, op);
                self.pending_names.push(at);
            }
            Op::SyncFolder => {
                for at in self.pending_names.drain(..) {
                    rename(&mut self.names_synced, &self.ops[at]);
                }
            }
            Op::Write { inode, .. } | Op::Truncate { inode, .. } => {
                change(self.written.entry(*inode).or_default(), op);
                self.pending.push(Pending { op: at, inode: *inode });
            }
            Op::Sync { inode } => {
                for pending in self.pending.extract_if(.., |pending| pending.inode == *inode) {
                    for to in [&mut self.synced, &mut self.partly] {
                        change(to.entry(*inode).or_default(), &self.ops[pending.op]);
                    }
                }
            }
            Op::SyncFailed { inode } => {
                // The system takes the pages for clean, and so does not write them any more. Lengths are safe in its journal.
                let lost =
                    |pending: &mut Pending| pending.inode == *inode && matches!(self.ops[pending.op], Op::Write { .. });
                for pending in self.pending.extract_if(.., lost) {
                    tear(self.partly.entry(*inode).or_default(), &self.ops[pending.op], &mut self.random);
                }
            }
            Op::Mark(_) => {}
        }
        Some(op)
    }

    fn files(names: &BTreeMap<String, Inode>, contents: &BTreeMap<Inode, Content>) -> Files {
        names.iter().map(|(name, inode)| (name.clone(), contents.get(inode).cloned().unwrap_or_default())).collect()
    }

    /// After the end of the process alone.
    pub(crate) fn all_written(&self) -> Files {
        Self::files(&self.names_written, &self.written)
    }

    /// After a loss of power, the disk having written nothing unasked.
    pub(crate) fn only_synced(&self) -> Files {
        Self::files(&self.names_synced, &self.synced)
    }

    /// After a loss of power, the disk having written some sectors of its own accord, and some names.
    pub(crate) fn torn(&mut self) -> Files {
        let mut names = self.names_synced.clone();
        let kept = self.random.next_u64() as usize % (self.pending_names.len() + 1);
        for at in &self.pending_names[..kept] {
            rename(&mut names, &self.ops[*at]);
        }
        let mut contents = self.partly.clone();
        for pending in &self.pending {
            tear(contents.entry(pending.inode).or_default(), &self.ops[pending.op], &mut self.random);
        }
        Self::files(&names, &contents)
    }
}

/// Does some of a change.
fn tear(to: &mut Content, op: &Op, random: &mut Random) {
    match op {
        Op::Write { at, bytes, .. } => {
            let (mut at, mut bytes) = (*at, &bytes[..]);
            while !bytes.is_empty() {
                let (piece, rest) = bytes.split_at(bytes.len().min(SECTOR_BYTES - at % SECTOR_BYTES));
                if random.next_u64().is_multiple_of(2) {
                    to.write(at, piece);
                }
                (at, bytes) = (at + piece.len(), rest);
            }
        }
        op if random.next_u64().is_multiple_of(2) => change(to, op),
        _ => {}
    }
}

fn rename(names: &mut BTreeMap<String, Inode>, op: &Op) {
    match op {
        Op::Create { name, inode } => _ = names.insert(name.clone(), *inode),
        Op::Delete { name } => _ = names.remove(name),
        _ => {}
    }
}

fn change(to: &mut Content, op: &Op) {
    match op {
        Op::Write { at, bytes, .. } => to.write(*at, bytes),
        Op::Truncate { len, .. } => to.resize(*len),
        _ => {}
    }
}
