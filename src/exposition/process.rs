//! What the operating system says of this process: descriptors, memory, free disk. Linux tells; elsewhere it is zero.

use std::fs;
use std::path::Path;

/// A reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Open file descriptors.
    pub open_fds: u64,
    /// Of those, sockets.
    pub open_sockets: u64,
    /// Descriptors that may be open (RLIMIT_NOFILE).
    pub max_fds: u64,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Bytes free for us where the data directory is.
    pub disk_available_bytes: u64,
}

impl Process {
    /// Reads all of it; what cannot be read is zero. Takes time that grows with the number of open descriptors.
    pub fn read(data_dir: &Path) -> Self {
        let mut process = Self {
            max_fds: max_fds().unwrap_or(0),
            resident_bytes: resident_bytes().unwrap_or(0),
            disk_available_bytes: available_disk(data_dir).unwrap_or(0),
            ..Self::default()
        };
        for descriptor in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
            process.open_fds += 1;
            let target = fs::read_link(descriptor.path());
            process.open_sockets +=
                u64::from(target.is_ok_and(|target| target.to_string_lossy().starts_with("socket:")));
        }
        process
    }
}

fn resident_bytes() -> Option<u64> {
    status_bytes("VmRSS:")
}

/// Resident memory that is backed by no file: what the process has taken for itself.
pub fn anonymous_bytes() -> Option<u64> {
    status_bytes("RssAnon:")
}

fn status_bytes(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Memory that the process may use: the machine's, or less where its cgroup says so; without limit where nobody says.
pub fn memory_limit() -> u64 {
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

fn max_fds() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Bytes free for us where a directory is.
pub fn available_disk(data_dir: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(data_dir).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_reading_sees_this_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let process = Process::read(Path::new("."));
        drop(listener);
        assert!(process.open_fds >= 4, "{process:?}");
        assert!((1..process.open_fds).contains(&process.open_sockets), "{process:?}");
        assert!(process.max_fds >= process.open_fds, "{process:?}");
        assert!(process.resident_bytes > 1 << 20, "{process:?}");
        assert!(process.disk_available_bytes > 0, "{process:?}");
    }
}
