//! The layer between SQLite and the disks in memory: registered through the C API under [`NAME`]. Shared memory and locks
//! work between the connections of this process, so that writer and readers run as they do on files.

#![expect(unsafe_code, reason = "SQLite is given its files through C functions")]

use super::disk::{Disk, Fault, Inode, Op, State};
use prontomq::internals::store::sqlite::{RedoFile, RedoFiles, SpareFiles};
use rusqlite::{Connection, OpenFlags, ffi};
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::hash::Hasher;
use std::io;
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, Once};

/// What the layer is called.
pub(crate) const NAME: &str = "memory-disk";

static DISKS: LazyLock<Mutex<HashMap<String, Arc<Disk>>>> = LazyLock::new(Mutex::default);

/// A disk at a path of its own: what a connection that is let go of does in the end cannot reach another disk.
pub(crate) struct Mount(PathBuf);

impl Mount {
    pub(crate) fn new(parent: &Path, disk: &Arc<Disk>) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        register();
        let path = parent.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        DISKS.lock().unwrap().insert(path.to_str().unwrap().to_owned(), Arc::clone(disk));
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Mount {
    /// Kills the process that has the disk: what it has open is dead. The disk, as that process has written it, and what it
    /// left in the directory itself are there for the next one.
    pub(crate) fn kill(self, parent: &Path, disk: &Arc<Disk>) -> Self {
        disk.state().kill();
        let next = Self::new(parent, disk);
        std::fs::create_dir_all(next.path()).unwrap();
        for entry in std::fs::read_dir(&self.0).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), next.path().join(entry.file_name())).unwrap();
        }
        next
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        DISKS.lock().unwrap().remove(self.0.to_str().unwrap());
        // The store's lock file is a real one.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A digest of all that a database holds, as SQLite recovers it from the file and its log; none when there is nothing that
/// it could open.
pub(crate) fn content_digest(database: &Path) -> Option<u64> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags_and_vfs(database, flags, NAME).ok()?;
    let mut len = 0;
    // SAFETY: the connection is open; what comes back is ours, of so many bytes.
    unsafe {
        let bytes = ffi::sqlite3_serialize(connection.handle(), c"main".as_ptr(), &raw mut len, 0);
        if bytes.is_null() {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        hasher.write(std::slice::from_raw_parts(bytes, len as usize));
        ffi::sqlite3_free(bytes.cast());
        Some(hasher.finish())
    }
}

fn register() {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        let vfs = Box::leak(Box::new(ffi::sqlite3_vfs {
            iVersion: 2,
            szOsFile: size_of::<Handle>() as c_int,
            mxPathname: 512,
            pNext: null_mut(),
            zName: c"memory-disk".as_ptr(),
            pAppData: null_mut(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            xFullPathname: Some(full_pathname),
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(randomness),
            xSleep: Some(sleep),
            xCurrentTime: Some(current_time),
            xGetLastError: None,
            xCurrentTimeInt64: Some(current_time_int64),
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        }));
        // SAFETY: it is never freed.
        assert_eq!(unsafe { ffi::sqlite3_vfs_register(vfs, 0) }, ffi::SQLITE_OK);
    });
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// What SQLite allocates for an open file.
#[repr(C)]
struct Handle {
    base: ffi::sqlite3_file,
    open: *mut Open,
}

struct Open {
    disk: Arc<Disk>,
    inode: Inode,
    /// Of the process that opened it.
    life: u64,
    /// Its first sync flushes its name as well.
    syncs_folder: bool,
    level: c_int,
    is_mapped: bool,
    shares: u8,
    owns: u8,
}

impl Open {
    fn read(&self, to: &mut [u8], at: usize) -> c_int {
        let mut state = self.disk.state();
        if self.life != state.life || state.fails(Fault::Read) {
            return ffi::SQLITE_IOERR_READ;
        }
        let there = state.files[self.inode].bytes.read(at, to);
        to[there..].fill(0);
        if there < to.len() { ffi::SQLITE_IOERR_SHORT_READ } else { ffi::SQLITE_OK }
    }

    fn write(&self, from: &[u8], at: usize) -> c_int {
        let inode = self.inode;
        let mut state = self.disk.state();
        if self.life != state.life || state.fails(Fault::Write) {
            return ffi::SQLITE_IOERR_WRITE;
        }
        let grows = (at + from.len()).saturating_sub(state.files[inode].bytes.len());
        if grows > 0 && state.used() + grows > state.budget {
            state.fired = true;
            return ffi::SQLITE_FULL;
        }
        state.files[inode].bytes.write(at, from);
        state.ops.push(Op::Write { inode, at, bytes: from.into() });
        ffi::SQLITE_OK
    }

    fn sync(&mut self) -> c_int {
        let inode = self.inode;
        let mut state = self.disk.state();
        if self.life != state.life {
            return ffi::SQLITE_IOERR_FSYNC;
        }
        if state.fails(Fault::Sync) {
            state.ops.push(Op::SyncFailed { inode });
            return ffi::SQLITE_IOERR_FSYNC;
        }
        state.ops.push(Op::Sync { inode });
        if std::mem::take(&mut self.syncs_folder) {
            state.ops.push(Op::SyncFolder);
        }
        ffi::SQLITE_OK
    }
}

/// The redo log's files on these disks.
pub(crate) struct DiskFiles;

struct DiskFile(Mutex<Open>);

impl DiskFiles {
    fn find(path: &Path, may_create: bool) -> io::Result<Open> {
        let (folder, name) = (path.parent().unwrap().to_str().unwrap(), path.file_name().unwrap().to_str().unwrap());
        let disk = DISKS.lock().unwrap().get(folder).cloned().ok_or(io::ErrorKind::NotFound)?;
        let mut state = disk.state();
        let inode = match state.names.get(name) {
            Some(inode) => *inode,
            None if may_create => state.create(name),
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        let life = state.life;
        drop(state);
        Ok(Open { disk, inode, life, syncs_folder: may_create, level: 0, is_mapped: false, shares: 0, owns: 0 })
    }
}

impl RedoFiles for DiskFiles {
    fn open(&self, path: &Path) -> io::Result<Box<dyn RedoFile>> {
        Ok(Box::new(DiskFile(Mutex::new(Self::find(path, false)?))))
    }

    fn make(&self, path: &Path, len: u64) -> io::Result<Box<dyn RedoFile>> {
        let mut open = Self::find(path, true)?;
        {
            let mut state = open.disk.state();
            let inode = open.inode;
            state.files[inode].bytes.resize(0);
            state.ops.push(Op::Truncate { inode, len: 0 });
        }
        done(open.write(&vec![0; len as usize], 0))?;
        done(open.sync())?;
        Ok(Box::new(DiskFile(Mutex::new(open))))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Self::remove_file(path)
    }
}

impl DiskFiles {
    fn remove_file(path: &Path) -> io::Result<()> {
        let disk = Self::find(path, false)?.disk;
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut state = disk.state();
        state.names.remove(&name);
        state.ops.push(Op::Delete { name });
        Ok(())
    }
}

impl SpareFiles for DiskFiles {
    fn bytes(&self, path: &Path) -> u64 {
        Self::find(path, false).map_or(0, |open| open.disk.state().files[open.inode].bytes.len() as u64)
    }

    fn allocate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let open = Self::find(path, true)?;
        let (inode, len) = (open.inode, bytes as usize);
        let mut state = open.disk.state();
        if state.used() + len.saturating_sub(state.files[inode].bytes.len()) > state.budget {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.files[inode].bytes.resize(len);
        state.ops.push(Op::Truncate { inode, len });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Self::remove_file(path)
    }
}

impl RedoFile for DiskFile {
    fn bytes(&self) -> io::Result<u64> {
        let open = self.0.lock().unwrap();
        Ok(open.disk.state().files[open.inode].bytes.len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        done(self.0.lock().unwrap().read(bytes, at as usize))
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        done(self.0.lock().unwrap().write(bytes, at as usize))
    }

    fn flush(&self) -> io::Result<()> {
        done(self.0.lock().unwrap().sync())
    }
}

fn done(code: c_int) -> io::Result<()> {
    if code == ffi::SQLITE_OK { Ok(()) } else { Err(io::Error::other(format!("SQLite's code {code}"))) }
}

/// # Safety
/// The path is SQLite's: it ends with a zero.
unsafe fn place(path: *const c_char) -> Option<(Arc<Disk>, String)> {
    // SAFETY: as the caller promises.
    let path = unsafe { CStr::from_ptr(path) }.to_str().ok()?;
    let (folder, name) = path.rsplit_once('/')?;
    Some((Arc::clone(DISKS.lock().unwrap().get(folder)?), name.to_owned()))
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    path: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let handle = file.cast::<Handle>();
    // SAFETY: SQLite allocated `szOsFile` bytes for the handle, and the path ends with a zero.
    unsafe {
        (*handle).base.pMethods = null();
        if path.is_null() {
            return ffi::SQLITE_CANTOPEN;
        }
        let Some((disk, name)) = place(path) else { return ffi::SQLITE_CANTOPEN };
        let mut state = disk.state();
        let known = state.names.get(&name).copied();
        let may_create = flags & ffi::SQLITE_OPEN_CREATE != 0;
        let life = state.life;
        let inode = match known {
            Some(inode) => inode,
            None if may_create => state.create(&name),
            None => return ffi::SQLITE_CANTOPEN,
        };
        drop(state);
        let syncs_folder = may_create && flags & (ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_WAL) != 0;
        let open = Open { disk, inode, life, syncs_folder, level: 0, is_mapped: false, shares: 0, owns: 0 };
        (*handle).open = Box::into_raw(Box::new(open));
        (*handle).base.pMethods = &raw const METHODS;
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, path: *const c_char, sync_folder: c_int) -> c_int {
    // SAFETY: the path ends with a zero.
    let Some((disk, name)) = (unsafe { place(path) }) else { return ffi::SQLITE_IOERR_DELETE };
    let mut state = disk.state();
    if state.names.remove(&name).is_none() {
        return ffi::SQLITE_IOERR_DELETE_NOENT;
    }
    state.ops.push(Op::Delete { name });
    if sync_folder != 0 {
        state.ops.push(Op::SyncFolder);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn access(_: *mut ffi::sqlite3_vfs, path: *const c_char, _: c_int, result: *mut c_int) -> c_int {
    // SAFETY: the path ends with a zero, the result can be written.
    unsafe {
        let found = place(path).is_some_and(|(disk, name)| disk.state().names.contains_key(&name));
        *result = found.into();
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    room: c_int,
    to: *mut c_char,
) -> c_int {
    // SAFETY: the path ends with a zero, and there are `room` bytes at `to`.
    unsafe {
        let bytes = CStr::from_ptr(path).to_bytes_with_nul();
        if bytes.len() > room as usize {
            return ffi::SQLITE_CANTOPEN;
        }
        std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), to, bytes.len());
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn randomness(_: *mut ffi::sqlite3_vfs, len: c_int, to: *mut c_char) -> c_int {
    // SAFETY: there are so many bytes at `to`.
    let bytes = unsafe { std::slice::from_raw_parts_mut(to.cast::<u8>(), len as usize) };
    getrandom::fill(bytes).unwrap();
    len
}

unsafe extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    std::thread::sleep(std::time::Duration::from_micros(microseconds as u64));
    microseconds
}

unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, to: *mut f64) -> c_int {
    // SAFETY: it can be written.
    unsafe { *to = 2_460_000.5 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time_int64(_: *mut ffi::sqlite3_vfs, to: *mut i64) -> c_int {
    // SAFETY: it can be written.
    unsafe { *to = 212_544_043_200_000 };
    ffi::SQLITE_OK
}

/// # Safety
/// The file was opened by [`open`], is not closed, and used by one thread at a time.
unsafe fn opened<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Open {
    // SAFETY: as the caller promises.
    unsafe { &mut *(*file.cast::<Handle>()).open }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes a file once and does not use it afterwards.
    unsafe {
        unlock(file, 0);
        shm_unmap(file, 0);
        drop(Box::from_raw((*file.cast::<Handle>()).open));
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, to: *mut c_void, len: c_int, at: i64) -> c_int {
    // SAFETY: the file is open, and there are `len` bytes at `to`.
    let (open, to) = unsafe { (opened(file), std::slice::from_raw_parts_mut(to.cast::<u8>(), len as usize)) };
    open.read(to, at as usize)
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, len: c_int, at: i64) -> c_int {
    // SAFETY: the file is open, and there are `len` bytes at `from`.
    let (open, from) = unsafe { (opened(file), std::slice::from_raw_parts(from.cast::<u8>(), len as usize)) };
    open.write(from, at as usize)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, len: i64) -> c_int {
    // SAFETY: the file is open.
    let open = unsafe { opened(file) };
    let (inode, len) = (open.inode, len as usize);
    let mut state = open.disk.state();
    if open.life != state.life {
        return ffi::SQLITE_IOERR_TRUNCATE;
    }
    state.files[inode].bytes.resize(len);
    state.ops.push(Op::Truncate { inode, len });
    ffi::SQLITE_OK
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: the file is open.
    unsafe { opened(file) }.sync()
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, to: *mut i64) -> c_int {
    // SAFETY: the file is open, the size can be written.
    unsafe {
        let open = opened(file);
        *to = open.disk.state().files[open.inode].bytes.len() as i64;
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: the file is open.
    let open = unsafe { opened(file) };
    let mut state = open.disk.state();
    if open.life != state.life {
        return ffi::SQLITE_IOERR_LOCK;
    }
    let lock = &mut state.files[open.inode].lock;
    if level <= open.level {
        return ffi::SQLITE_OK;
    }
    if open.level == ffi::SQLITE_LOCK_NONE {
        if lock.pending || lock.exclusive {
            return ffi::SQLITE_BUSY;
        }
        lock.shared += 1;
        open.level = ffi::SQLITE_LOCK_SHARED;
    }
    if level == ffi::SQLITE_LOCK_SHARED {
        return ffi::SQLITE_OK;
    }
    if open.level < ffi::SQLITE_LOCK_RESERVED && (lock.reserved || lock.pending) {
        return ffi::SQLITE_BUSY;
    }
    if level == ffi::SQLITE_LOCK_RESERVED {
        lock.reserved = true;
        open.level = level;
        return ffi::SQLITE_OK;
    }
    lock.pending = true;
    if lock.shared > 1 {
        open.level = ffi::SQLITE_LOCK_PENDING;
        return ffi::SQLITE_BUSY;
    }
    lock.exclusive = true;
    open.level = ffi::SQLITE_LOCK_EXCLUSIVE;
    ffi::SQLITE_OK
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: the file is open.
    let open = unsafe { opened(file) };
    let mut state = open.disk.state();
    if open.life != state.life {
        return ffi::SQLITE_OK;
    }
    let lock = &mut state.files[open.inode].lock;
    if open.level >= ffi::SQLITE_LOCK_RESERVED {
        (lock.reserved, lock.pending, lock.exclusive) = (false, false, false);
    }
    if level == ffi::SQLITE_LOCK_NONE && open.level > ffi::SQLITE_LOCK_NONE {
        lock.shared -= 1;
    }
    open.level = open.level.min(level);
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, to: *mut c_int) -> c_int {
    // SAFETY: the file is open, the answer can be written.
    unsafe {
        let open = opened(file);
        let state = open.disk.state();
        let lock = &state.files[open.inode].lock;
        *to = (lock.reserved || lock.pending || lock.exclusive).into();
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    4_096
}

/// As SQLite takes it of the system's files.
unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    bytes: c_int,
    extend: c_int,
    to: *mut *mut c_void,
) -> c_int {
    // SAFETY: the file is open, the address can be written.
    unsafe {
        let open = opened(file);
        let mut state = open.disk.state();
        if open.life != state.life {
            return ffi::SQLITE_IOERR_SHMMAP;
        }
        let file = &mut state.files[open.inode];
        if !std::mem::replace(&mut open.is_mapped, true) {
            file.region_users += 1;
        }
        let region = region as usize;
        assert_eq!(bytes as usize, size_of::<[u64; 4096]>());
        while extend != 0 && file.regions.len() <= region {
            file.regions.push(Box::new([0; 4096]));
        }
        // A region stays where it is until nobody has it mapped.
        *to = file.regions.get_mut(region).map_or(null_mut(), |region| region.as_mut_ptr().cast());
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, first: c_int, count: c_int, flags: c_int) -> c_int {
    // SAFETY: the file is open.
    let open = unsafe { opened(file) };
    let mut state = open.disk.state();
    if open.life != state.life {
        return ffi::SQLITE_OK;
    }
    let locks = &mut state.files[open.inode].region_locks[first as usize..(first + count) as usize];
    let mask = |at: usize| 1_u8 << (first as usize + at);
    if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        for (at, lock) in locks.iter_mut().enumerate() {
            if open.owns & mask(at) != 0 {
                *lock = 0;
            } else if open.shares & mask(at) != 0 {
                *lock -= 1;
            }
            open.owns &= !mask(at);
            open.shares &= !mask(at);
        }
        return ffi::SQLITE_OK;
    }
    let exclusive = flags & ffi::SQLITE_SHM_EXCLUSIVE != 0;
    if locks.iter().any(|lock| if exclusive { *lock != 0 } else { *lock < 0 }) {
        return ffi::SQLITE_BUSY;
    }
    for (at, lock) in locks.iter_mut().enumerate() {
        if exclusive {
            *lock = -1;
            open.owns |= mask(at);
        } else if open.shares & mask(at) == 0 {
            *lock += 1;
            open.shares |= mask(at);
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    // SAFETY: the file is open. Taking the lock that all share is a barrier.
    let state: std::sync::MutexGuard<'_, State> = unsafe { opened(file) }.disk.state();
    drop(state);
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: the file is open.
    unsafe {
        shm_lock(file, 0, 8, ffi::SQLITE_SHM_UNLOCK);
        let open = opened(file);
        let mut state = open.disk.state();
        if open.life != state.life {
            return ffi::SQLITE_OK;
        }
        let file = &mut state.files[open.inode];
        if std::mem::replace(&mut open.is_mapped, false) {
            file.region_users -= 1;
            if file.region_users == 0 {
                file.regions.clear();
            }
        }
    }
    ffi::SQLITE_OK
}
