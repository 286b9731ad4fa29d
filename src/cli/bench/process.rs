//! The processor time and memory of a process and of the machine, from `/proc`.

use std::fs;

/// Clock ticks per second in `/proc/PID/stat`.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor seconds of all threads of a process.
pub(super) fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

/// Processor seconds of everything that runs on the machine, and of other machines that take them from it.
pub(super) fn machine_cpu_seconds() -> Option<f64> {
    busy_seconds(&fs::read_to_string("/proc/stat").ok()?)
}

/// All of the first line's times but the fourth and fifth, idle and waiting for disks, and those of guests, which the
/// first two contain.
fn busy_seconds(stat: &str) -> Option<f64> {
    let times = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8);
    let times: Vec<f64> = times.map(str::parse).collect::<Result<_, _>>().ok()?;
    let idle: f64 = times.get(3..5)?.iter().sum();
    Some((times.iter().sum::<f64>() - idle) / TICKS_PER_SECOND)
}

/// Resident bytes of a process.
pub(super) fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_busy_unless_it_idles_or_waits_for_disks() {
        let text = "cpu  100 2 30 4000 500 0 7 61 9 9\ncpu0 50 1 15 2000 2 0 3 0 0 0\n";
        assert_eq!(busy_seconds(text), Some(2.0));
        assert_eq!(busy_seconds("cpu  1 2"), None);
        assert!(machine_cpu_seconds().is_some_and(|seconds| seconds > 0.0));
    }
}
