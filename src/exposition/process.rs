//! The operating system's numbers of this process for the metrics page: descriptors, memory, available disk. Only Linux
//! reports all of them; elsewhere they are zero.

use super::machine::{available_disk, status_bytes};
use std::fs;
use std::path::Path;

/// The numbers at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Process {
    /// Open file descriptors.
    pub open_fds: u64,
    /// Open file descriptors that are sockets.
    pub open_sockets: u64,
    /// Limit of open file descriptors (RLIMIT_NOFILE).
    pub max_fds: u64,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Bytes of disk available to the process in the file system of the data directory.
    pub disk_available_bytes: u64,
}

impl Process {
    /// Reads all numbers. A number that cannot be read is zero. The time grows with the number of open descriptors.
    pub(crate) fn read(data_dir: &Path) -> Self {
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

fn max_fds() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
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
