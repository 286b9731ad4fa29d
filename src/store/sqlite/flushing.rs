//! SQLite's own layer of the system's files with one change: flushes are `fdatasync`, which leaves the file's times out.
//!
//! SQLite calls `fdatasync` only if it is compiled with `HAVE_FDATASYNC`, and a program that embeds the broker decides
//! how SQLite is compiled. The layer is SQLite's `unix` (or `unix-excl`) in all but this: database and log get a copy
//! of their table of methods in which the flush is another one. A file's length is data that `fdatasync` flushes. What
//! it does not flush is the name of a new file, so the first flush of each opened file is SQLite's own, which flushes
//! the directory too where that is due.
//!
//! SQLite does not hand out a file's descriptor, but has kept it at the same offset for many years. The number found
//! there is used only if it is a descriptor of that very file; otherwise flushes stay `fsync`.

#![expect(unsafe_code, reason = "SQLite is given its files through C functions")]

use rusqlite::ffi;
use rustix::fs::{fstat, stat};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{BorrowedFd, FromRawFd};
use std::ptr::null_mut;
use std::sync::OnceLock;

/// Where the index of the write-ahead log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogIndex {
    /// In a file beside the log: other processes can open the database.
    InFile,
    /// In this process's memory: they cannot.
    InMemory,
}

impl LogIndex {
    /// What SQLite calls its own layer.
    pub(super) fn of_sqlite(self) -> &'static CStr {
        match self {
            Self::InFile => c"unix",
            Self::InMemory => c"unix-excl",
        }
    }

    fn ours(self) -> &'static CStr {
        match self {
            Self::InFile => c"prontomq",
            Self::InMemory => c"prontomq-excl",
        }
    }
}

/// The name of the layer to open a database with; that of SQLite's own layer if ours cannot be registered. It exists
/// only on Linux: elsewhere SQLite has its reasons not to call `fdatasync`.
pub(super) fn layer(index: LogIndex) -> &'static str {
    static ARE_REGISTERED: OnceLock<bool> = OnceLock::new();
    let all = [LogIndex::InFile, LogIndex::InMemory];
    let name = if *ARE_REGISTERED.get_or_init(|| cfg!(target_os = "linux") && all.into_iter().all(register)) {
        index.ours()
    } else {
        index.of_sqlite()
    };
    name.to_str().expect("the names are ASCII")
}

/// Our layer, and SQLite's layer that it is made from.
#[repr(C)]
struct FlushingVfs {
    vfs: ffi::sqlite3_vfs,
    below: *mut ffi::sqlite3_vfs,
}

/// The beginning of an open file of SQLite's layer (`struct unixFile`).
#[repr(C)]
struct UnixFile {
    methods: *const ffi::sqlite3_io_methods,
    vfs: *mut ffi::sqlite3_vfs,
    inode: *mut c_void,
    descriptor: c_int,
}

type Flush = unsafe extern "C" fn(*mut ffi::sqlite3_file, c_int) -> c_int;

/// Our data behind an open file of SQLite's layer.
#[repr(C)]
struct FileTail {
    /// SQLite's methods with another flush. The file points to them.
    methods: ffi::sqlite3_io_methods,
    flush: Flush,
    descriptor: c_int,
    has_been_flushed: bool,
}

/// The offset of a `FileTail` from the beginning of a file of this size.
fn behind(file_bytes: c_int) -> usize {
    usize::try_from(file_bytes).unwrap_or(0).next_multiple_of(align_of::<FileTail>())
}

/// Registers the layer with SQLite. Returns whether that succeeded.
fn register(index: LogIndex) -> bool {
    // SAFETY: SQLite never removes its own layers. The new one is a copy of one of them, whose functions do not depend
    // on the layer that they are called for, and lives as long as the process.
    unsafe {
        let below = ffi::sqlite3_vfs_find(index.of_sqlite().as_ptr());
        if below.is_null() {
            return false;
        }
        let bytes = behind((*below).szOsFile) + size_of::<FileTail>();
        let vfs = ffi::sqlite3_vfs {
            szOsFile: c_int::try_from(bytes).unwrap_or(c_int::MAX),
            pNext: null_mut(),
            zName: index.ours().as_ptr(),
            xOpen: Some(open),
            ..*below
        };
        let layer = Box::leak(Box::new(FlushingVfs { vfs, below }));
        ffi::sqlite3_vfs_register((&raw mut *layer).cast(), 0) == ffi::SQLITE_OK
    }
}

/// Opens a file as SQLite's layer does, and changes its flush.
unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_in_use: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes the layer that was registered, which begins a `FlushingVfs`, and a file of the size that it
    // asks for.
    unsafe {
        let below = (*vfs.cast::<FlushingVfs>()).below;
        let Some(open) = (*below).xOpen else { return ffi::SQLITE_CANTOPEN };
        let code = open(below, path, file, flags, flags_in_use);
        let is_durable = flags & (ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_WAL) != 0;
        if code == ffi::SQLITE_OK && is_durable && !path.is_null() {
            change_flush(file, CStr::from_ptr(path), (*below).szOsFile);
        }
        code
    }
}

/// Makes flushes of a file that was just opened `fdatasync`, if its descriptor is found.
///
/// # Safety
/// A layer of SQLite's for the system's files has opened the file, which has `file_bytes` bytes and space for a `FileTail` after
/// them.
unsafe fn change_flush(file: *mut ffi::sqlite3_file, path: &CStr, file_bytes: c_int) {
    // SAFETY: as the caller promises. SQLite never moves an open file.
    unsafe {
        let descriptor = (*file.cast::<UnixFile>()).descriptor;
        let methods = (*file).pMethods;
        let Some(flush) = methods.as_ref().and_then(|methods| methods.xSync) else { return };
        if !is_of(descriptor, path) {
            tracing::debug!("SQLite keeps its descriptors elsewhere: flushes write the times of files as well");
            return;
        }
        let at: *mut FileTail = file.cast::<u8>().add(behind(file_bytes)).cast();
        let methods = ffi::sqlite3_io_methods { xSync: Some(flush_data), ..*methods };
        at.write(FileTail { methods, flush, descriptor, has_been_flushed: false });
        (*file).pMethods = &raw const (*at).methods;
    }
}

/// Whether this number is a descriptor of the file at a path.
fn is_of(descriptor: c_int, path: &CStr) -> bool {
    if descriptor < 0 {
        return false;
    }
    // SAFETY: it is not negative, and only its properties are asked for; that fails if it is not open.
    let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let (Ok(open), Ok(named)) = (fstat(descriptor), stat(path)) else { return false };
    (open.st_dev, open.st_ino) == (named.st_dev, named.st_ino)
}

/// Flushes a file's data and length; the first time its name too, where it is new.
unsafe extern "C" fn flush_data(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: only a file whose methods begin a `FileTail` has this method. SQLite uses a file from one thread at a
    // time, and the descriptor is open until SQLite closes it, which this function does not.
    unsafe {
        let behind = (*file).pMethods.cast_mut().cast::<FileTail>();
        if !(*behind).has_been_flushed {
            let code = ((*behind).flush)(file, flags);
            (*behind).has_been_flushed = code == ffi::SQLITE_OK;
            return code;
        }
        let file = ManuallyDrop::new(File::from_raw_fd((*behind).descriptor));
        match file.sync_data() {
            Ok(()) => ffi::SQLITE_OK,
            Err(error) => {
                tracing::error!(%error, "a flush failed");
                ffi::SQLITE_IOERR_FSYNC
            }
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use rusqlite::{Connection, OpenFlags};

    fn flush_of(connection: &Connection, which: c_int) -> (Option<Flush>, bool) {
        let mut file: *mut ffi::sqlite3_file = null_mut();
        // SAFETY: the connection is open, and its files too.
        unsafe {
            let to = (&raw mut file).cast();
            assert_eq!(ffi::sqlite3_file_control(connection.handle(), c"main".as_ptr(), which, to), ffi::SQLITE_OK);
            let methods = (*file).pMethods;
            ((*methods).xSync, (*methods.cast::<FileTail>()).has_been_flushed)
        }
    }

    #[test]
    fn database_and_log_are_flushed_by_fdatasync_after_the_first_time() {
        for index in [LogIndex::InFile, LogIndex::InMemory] {
            let directory = tempfile::tempdir().unwrap();
            let (path, name) = (directory.path().join("file"), layer(index));
            assert_eq!(name, index.ours().to_str().unwrap());
            let connection = Connection::open_with_flags_and_vfs(&path, OpenFlags::default(), name).unwrap();
            connection
                .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (x)")
                .unwrap();
            for which in [ffi::SQLITE_FCNTL_FILE_POINTER, ffi::SQLITE_FCNTL_JOURNAL_POINTER] {
                let (flush, has_been_flushed) = flush_of(&connection, which);
                assert!(flush.is_some_and(|flush| std::ptr::fn_addr_eq(flush, flush_data as Flush)));
                assert!(has_been_flushed);
            }
            connection.execute_batch("INSERT INTO t VALUES (1); PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
            drop(connection);
            let connection = Connection::open_with_flags_and_vfs(&path, OpenFlags::default(), "unix").unwrap();
            assert_eq!(connection.query_row("SELECT x FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
        }
    }

    #[test]
    fn a_descriptor_of_another_file_is_not_taken() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = std::ffi::CString::new(file.path().to_str().unwrap()).unwrap();
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(file.as_file());
        assert!(is_of(descriptor, &path));
        assert!(!is_of(descriptor, c"/dev/null"));
        assert!(!is_of(-1, &path) && !is_of(c_int::MAX, &path));
    }
}
