//! Memory and disk as the operating system reports them. The memory figures exist on Linux only.

use std::fs;
use std::path::Path;

/// Resident anonymous memory of the process in bytes: memory that no file backs.
pub(crate) fn anonymous_bytes() -> Option<u64> {
    status_bytes("RssAnon:")
}

/// A line of `/proc/self/status`, which counts in kB, in bytes.
pub(super) fn status_bytes(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Bytes of memory that the process may use: the machine's memory, or the limit of its cgroup if that is less.
/// Unlimited if neither is known.
pub(crate) fn memory_limit() -> u64 {
    let cgroup = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .into_iter()
        .find_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    [machine_memory(), cgroup].into_iter().flatten().min().unwrap_or(u64::MAX)
}

fn machine_memory() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Bytes of disk available to the process in the file system of a directory.
pub(crate) fn available_disk(data_dir: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(data_dir).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}
