//! Measures the disk itself: appends the published bytes to a file and flushes it.

use super::clock::micros;
use super::meter::Meter;
use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often the probe appends the bytes published since.
const INTERVAL: Duration = Duration::from_millis(5);
/// Most bytes of one append.
const BATCH_BYTES_MAX: u64 = 16 << 20;

/// Appends and flushes until the run is over. The file is never truncated: on file systems that discard freed blocks,
/// this would delay all flushes, including the broker's.
pub(super) fn probe(mut file: File, size: usize, meter: &Meter) -> io::Result<()> {
    let bytes = vec![b'x'; BATCH_BYTES_MAX as usize];
    let mut seen = meter.published.load(Ordering::Relaxed);
    while !meter.is_over() {
        std::thread::sleep(INTERVAL);
        let published = meter.published.load(Ordering::Relaxed);
        let count = ((published - seen) * size as u64).min(BATCH_BYTES_MAX);
        seen = published;
        if count == 0 {
            continue;
        }
        let began = meter.clock.elapsed();
        file.write_all(&bytes[..count as usize])?;
        file.sync_data()?;
        // A late append delays the appends that were due meanwhile; they count as well, as messages behind a late
        // confirm do.
        let took = micros(meter.clock.elapsed() - began);
        meter.probe.lock().record_correct(took, micros(INTERVAL)).expect("it grows as needed");
    }
    Ok(())
}
