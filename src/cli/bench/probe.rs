//! What the disk itself takes: the bytes that are published, appended to a file and flushed.

use super::clock::micros;
use super::meter::Meter;
use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often the probe appends what was published since.
const INTERVAL: Duration = Duration::from_millis(5);
/// The most that it appends at once; the file begins again when it is this long many times over.
const BATCH_BYTES_MAX: u64 = 16 << 20;
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Appends and flushes until the run is over.
pub(super) fn probe(mut file: File, size: usize, meter: &Meter) -> io::Result<()> {
    let bytes = vec![b'x'; BATCH_BYTES_MAX as usize];
    let (mut seen, mut written) = (meter.published.load(Ordering::Relaxed), 0);
    while !meter.is_over() {
        std::thread::sleep(INTERVAL);
        let published = meter.published.load(Ordering::Relaxed);
        let count = ((published - seen) * size as u64).min(BATCH_BYTES_MAX);
        seen = published;
        if count == 0 {
            continue;
        }
        if written > FILE_BYTES_MAX {
            file.set_len(0)?;
            io::Seek::rewind(&mut file)?;
            written = 0;
        }
        let began = meter.clock.elapsed();
        file.write_all(&bytes[..count as usize])?;
        file.sync_data()?;
        written += count;
        // An append that is late keeps those waiting that were due meanwhile, as a late confirm does with its messages.
        let took = micros(meter.clock.elapsed() - began);
        meter.probe.lock().record_correct(took, micros(INTERVAL)).expect("it grows as needed");
    }
    Ok(())
}
