//! What the disk itself takes: the bytes that are published, appended to a file and flushed.

use super::clock::micros;
use super::meter::Meter;
use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often the probe appends what was published since.
const INTERVAL: Duration = Duration::from_millis(5);
/// The most that it appends at once.
const BATCH_BYTES_MAX: u64 = 16 << 20;

/// Appends and flushes until the run is over. The file is never made shorter: where a file system discards what is freed,
/// that keeps everybody's flushes waiting, the broker's too.
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
        // An append that is late keeps those waiting that were due meanwhile, as a late confirm does with its messages.
        let took = micros(meter.clock.elapsed() - began);
        meter.probe.lock().record_correct(took, micros(INTERVAL)).expect("it grows as needed");
    }
    Ok(())
}
