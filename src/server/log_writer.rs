//! Writes log lines to a stream that may be closed, full or unread. Callers never wait for the stream.
//!
//! Lines wait in a bounded queue for a thread that writes them. A line that finds the queue full, or that the stream
//! refuses, is dropped and counted. Callers get no error.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr, write};
use std::fmt;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Writes lines to one stream from any thread, without blocking. Clones share the queue.
#[derive(Clone)]
pub struct LogWriter(Arc<Shared>);

struct Shared {
    /// The stream's name in the report of dropped lines.
    name: &'static str,
    bytes_max: AtomicUsize,
    dropped: AtomicU64,
    queue: Mutex<Queue>,
    /// Wakes the writing thread.
    filled: Condvar,
    /// Wakes callers of `flush`.
    emptied: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<u8>,
    /// Bytes that the writing thread has taken and not yet written.
    in_flight: usize,
}

impl fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogWriter").field("name", &self.0.name).field("dropped", &self.dropped()).finish()
    }
}

impl LogWriter {
    /// Starts a thread that writes to `stream` until the process ends. `bytes_max` limits the waiting lines. If the
    /// thread cannot be started, every line is dropped.
    pub fn start<S: AsFd + Send + 'static>(name: &'static str, stream: S, bytes_max: usize) -> Self {
        let shared = Arc::new(Shared {
            name,
            bytes_max: AtomicUsize::new(bytes_max),
            dropped: AtomicU64::new(0),
            queue: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        });
        let writer = Arc::clone(&shared);
        let thread = thread::Builder::new().name(format!("pronto-{name}")).spawn(move || writer.run(&stream));
        if thread.is_err() {
            shared.bytes_max.store(0, Ordering::Relaxed);
        }
        Self(shared)
    }

    /// Queues one line, which must end with a line feed. If the queue is full, the line is dropped.
    pub fn write(&self, line: &[u8]) {
        let mut queue = self.0.queue();
        let bytes = queue.waiting.len() + queue.in_flight + line.len();
        if bytes > self.0.bytes_max.load(Ordering::Relaxed) {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.waiting.extend_from_slice(line);
        self.0.filled.notify_one();
    }

    /// Sets how many bytes of lines may wait.
    pub fn set_bytes_max(&self, bytes_max: usize) {
        self.0.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// Waits until all lines are written, but no longer than `patience`. Returns whether they are.
    pub fn flush(&self, patience: Duration) -> bool {
        let queue = self.0.queue();
        let is_busy = |queue: &mut Queue| !queue.waiting.is_empty() || queue.in_flight > 0;
        let waited = self.0.emptied.wait_timeout_while(queue, patience, is_busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Number of lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, stream: &impl AsFd) {
        let mut reported = 0;
        loop {
            let lines = {
                let is_empty = |queue: &mut Queue| queue.waiting.is_empty();
                let mut queue = self.filled.wait_while(self.queue(), is_empty).unwrap_or_else(PoisonError::into_inner);
                let lines = std::mem::take(&mut queue.waiting);
                queue.in_flight = lines.len();
                lines
            };
            let written = write_all(stream, &lines);
            let lost = lines[written..].iter().filter(|byte| **byte == b'\n').count();
            let dropped = self.dropped.fetch_add(lost as u64, Ordering::Relaxed) + lost as u64;
            self.queue().in_flight = 0;
            if written > 0 && dropped > reported {
                tracing::warn!(stream = self.name, lines = dropped - reported, "log lines were dropped");
                reported = dropped;
            }
            self.emptied.notify_all();
        }
    }
}

/// Writes the bytes. Returns how many the stream took before it failed.
fn write_all(stream: &impl AsFd, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match retry_on_intr(|| write(stream, &bytes[written..])) {
            Ok(0) => break,
            Ok(len) => written += len,
            // Another process may have made the stream non-blocking, a terminal for example.
            Err(Errno::AGAIN) => {
                let mut writable = [PollFd::new(stream, PollFlags::OUT)];
                if retry_on_intr(|| poll(&mut writable, None)).is_err() {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, pipe};
    use std::time::Instant;

    /// Much longer than any step of these tests takes.
    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn lines_arrive_whole_and_in_order_from_many_threads() {
        let (mut reader, writer) = pipe().unwrap();
        let log = LogWriter::start("test", writer, 1 << 20);
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let log = log.clone();
                thread::spawn(move || (0..500).for_each(|line| log.write(format!("{thread} {line}\n").as_bytes())))
            })
            .collect();
        let mut text = String::new();
        let mut lines = vec![0; 8 * 1024];
        while text.lines().count() < 2_000 || !text.ends_with('\n') {
            let len = reader.read(&mut lines).unwrap();
            text += std::str::from_utf8(&lines[..len]).unwrap();
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        for thread in 0..4 {
            let own = text.lines().filter_map(|line| line.strip_prefix(&format!("{thread} ")));
            assert!(own.map(|line| line.parse::<u32>().unwrap()).eq(0..500));
        }
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn an_unread_stream_blocks_no_caller_and_continues_once_it_is_read() {
        let (mut reader, writer) = pipe().unwrap();
        let log = LogWriter::start("test", writer, 4096);
        let line = [b'x'; 1023].iter().chain(b"\n").copied().collect::<Vec<_>>();
        let mut queued = 0;
        // A pipe takes 64 KiB.
        while log.flush(Duration::from_millis(50)) {
            log.write(&line);
            queued += 1;
        }
        let began = Instant::now();
        for _ in 0..100_000 {
            log.write(&line);
        }
        assert!(began.elapsed() < PATIENCE, "writing blocks");
        queued += 100_000 - log.dropped();
        assert!((65..200).contains(&queued), "{queued} lines fit into the pipe and the queue");

        let mut taken = vec![0; 64 * 1024];
        let mut len = 0;
        while len < queued as usize * 1024 {
            len += reader.read(&mut taken).unwrap();
        }
        assert!(log.flush(PATIENCE));
        log.write(b"after\n");
        let len = reader.read(&mut taken).unwrap();
        assert_eq!(&taken[..len], b"after\n");
    }

    #[test]
    fn lines_that_a_stream_refuses_are_counted_and_the_next_is_tried() {
        let (reader, closed) = pipe().unwrap();
        drop(reader);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let unwritable = File::open("/dev/null").unwrap();
        for log in [
            LogWriter::start("closed", closed, 4096),
            LogWriter::start("full", full, 4096),
            LogWriter::start("unwritable", unwritable, 4096),
        ] {
            for line in 1..=20 {
                log.write(b"lost\n");
                assert!(log.flush(PATIENCE));
                assert_eq!(log.dropped(), line, "{log:?}");
            }
        }
    }
}
