//! One run of a load against one broker.

use super::client::{Client, Seen, Target};
use super::scenario::{Consume, Load};
use crate::wire::writer::{Content, write_ack, write_address, write_publish};
use std::fs;
use std::io::{self, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const CHANNEL: u16 = 1;
/// What a publisher gathers before it writes.
const WRITE_BYTES: usize = 32 * 1024;
/// The kernel's clock ticks per second, as `/proc/PID/stat` counts.
const TICKS_PER_SECOND: f64 = 100.0;
/// How long a drain may stand still before it is given up.
const STALL: Duration = Duration::from_secs(20);

/// What came of a run.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) messages: u64,
    pub(super) seconds: f64,
    pub(super) latencies_micros: Vec<u32>,
    pub(super) broker_cpu_seconds: Option<f64>,
    pub(super) broker_resident_bytes: Option<u64>,
    /// Sequence numbers that were missing, repeated or out of order.
    pub(super) faults: u64,
}

/// Counts shared by the threads of a run.
#[derive(Debug, Default)]
struct Progress {
    published: AtomicU64,
    confirmed: AtomicU64,
    consumed: AtomicU64,
    faults: AtomicU64,
    stop: AtomicBool,
    confirms: Mutex<Confirms>,
    more_confirmed: Condvar,
}

#[derive(Debug, Default)]
struct Confirms {
    confirmed: u64,
    /// When publishes were written, by number, while only one is in flight.
    latencies_micros: Vec<u32>,
    sent_at: Option<Instant>,
}

/// Runs a load for a time, or to the end of its standing messages.
pub(super) fn run(target: &Target, load: &Load, duration: Duration, broker_pid: Option<u32>) -> io::Result<Outcome> {
    let name = format!("bench-{}-{:08x}", std::process::id(), Instant::now().elapsed().subsec_nanos());
    let mut control = Client::connect(target)?;
    let queues: Vec<String> = (0..load.queues).map(|number| format!("{name}-{number}")).collect();
    for queue in &queues {
        control.declare(queue, load.persistent)?;
    }
    let progress = Arc::new(Progress::default());
    let outcome = if load.standing > 0 {
        drain(target, load, &queues, &progress, broker_pid)
    } else {
        flow(target, load, &queues, &progress, duration, broker_pid)
    };
    for queue in &queues {
        control.delete(queue)?;
    }
    outcome
}

fn flow(
    target: &Target,
    load: &Load,
    queues: &[String],
    progress: &Arc<Progress>,
    duration: Duration,
    broker_pid: Option<u32>,
) -> io::Result<Outcome> {
    let consumer = match load.consumer {
        Some(consume) => Some(start_consumer(target, consume, queues, progress)?),
        None => None,
    };
    let publisher = start_publisher(target, *load, queues, progress, u64::MAX)?;
    let counted = || match (&consumer, load.confirms_in_flight) {
        (Some(_), _) => progress.consumed.load(Ordering::Relaxed),
        (None, Some(_)) => progress.confirmed.load(Ordering::Relaxed),
        (None, None) => progress.published.load(Ordering::Relaxed),
    };
    // The first moments are warm-up.
    thread::sleep(duration / 5);
    let (cpu_before, before, began) = (broker_pid.and_then(cpu_seconds), counted(), Instant::now());
    thread::sleep(duration);
    let (messages, seconds) = (counted() - before, began.elapsed().as_secs_f64());
    let cpu_after = broker_pid.and_then(cpu_seconds);
    let broker_resident_bytes = broker_pid.and_then(resident_bytes);
    progress.stop.store(true, Ordering::Relaxed);
    progress.more_confirmed.notify_all();
    publisher.join();
    if let Some(consumer) = consumer {
        consumer.join();
    }
    let confirms = progress.confirms.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Outcome {
        messages,
        seconds,
        latencies_micros: confirms.latencies_micros.clone(),
        broker_cpu_seconds: cpu_after.zip(cpu_before).map(|(after, before)| after - before),
        broker_resident_bytes,
        faults: progress.faults.load(Ordering::Relaxed),
    })
}

fn drain(
    target: &Target,
    load: &Load,
    queues: &[String],
    progress: &Arc<Progress>,
    broker_pid: Option<u32>,
) -> io::Result<Outcome> {
    let publisher = start_publisher(target, *load, queues, progress, load.standing)?;
    while progress.published.load(Ordering::Relaxed) < load.standing
        || load.confirms_in_flight.is_some() && progress.confirmed.load(Ordering::Relaxed) < load.standing
    {
        thread::sleep(Duration::from_millis(20));
    }
    publisher.join();
    // What was written last is still on its way into the queue.
    let mut control = Client::connect(target)?;
    control.declare(&queues[0], load.persistent)?;
    thread::sleep(Duration::from_millis(500));
    let resident = broker_pid.and_then(resident_bytes);
    let (cpu_before, began) = (broker_pid.and_then(cpu_seconds), Instant::now());
    let consumer = start_consumer(target, load.consumer.unwrap_or(Consume { prefetch: None }), queues, progress)?;
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        let consumed = progress.consumed.load(Ordering::Relaxed);
        if consumed >= load.standing {
            break;
        }
        if consumed != last {
            (last, moved) = (consumed, Instant::now());
        } else if moved.elapsed() > STALL {
            return Err(io::Error::other(format!("the drain stands still at {consumed} of {}", load.standing)));
        }
        thread::sleep(Duration::from_millis(1));
    }
    let seconds = began.elapsed().as_secs_f64();
    let cpu_after = broker_pid.and_then(cpu_seconds);
    progress.stop.store(true, Ordering::Relaxed);
    consumer.join();
    Ok(Outcome {
        messages: load.standing,
        seconds,
        latencies_micros: Vec::new(),
        broker_cpu_seconds: cpu_after.zip(cpu_before).map(|(after, before)| after - before),
        broker_resident_bytes: resident,
        faults: progress.faults.load(Ordering::Relaxed),
    })
}

/// Threads of one connection, ended by shutting its socket.
struct Running {
    stream: std::net::TcpStream,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Running {
    fn join(self) {
        // An error means that the socket is closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

fn start_publisher(
    target: &Target,
    load: Load,
    queues: &[String],
    progress: &Arc<Progress>,
    limit: u64,
) -> io::Result<Running> {
    let mut client = Client::connect(target)?;
    let confirming = load.confirms_in_flight.is_some();
    if confirming {
        client.confirm_select()?;
    }
    let (stream, payload_max) = (client.stream.try_clone()?, client.payload_max);
    let writing = client.stream.try_clone()?;
    let (queues, counts) = (queues.to_vec(), Arc::clone(progress));
    let writer = thread::spawn(move || {
        let ended = publish(writing, &load, &queues, payload_max, &counts, limit);
        report(ended, &counts);
    });
    let counts = Arc::clone(progress);
    let reader = thread::spawn(move || {
        let ended = read_confirms(&mut client, &counts);
        report(ended, &counts);
    });
    Ok(Running { stream, threads: vec![writer, reader] })
}

/// A connection that ends before the run does is worth a word.
#[expect(clippy::print_stderr, reason = "the command line's own words")]
fn report(ended: io::Result<()>, progress: &Progress) {
    if let Err(error) = ended
        && !progress.stop.load(Ordering::Relaxed)
        && error.kind() != io::ErrorKind::UnexpectedEof
    {
        eprintln!("prontomq bench: {error}");
    }
}

fn publish(
    mut stream: std::net::TcpStream,
    load: &Load,
    queues: &[String],
    payload_max: usize,
    progress: &Progress,
    limit: u64,
) -> io::Result<()> {
    let addresses: Vec<Vec<u8>> = queues
        .iter()
        .map(|queue| {
            let mut address = Vec::new();
            write_address(&mut address, b"", queue.as_bytes());
            address
        })
        .collect();
    let properties: &[u8] = if load.persistent { &[0x10, 0, 2] } else { &[0, 0] };
    let mut body = vec![b'x'; load.size.max(8)];
    let mut frame = Vec::new();
    let content = Content { address: &addresses[0], properties, body: &body };
    write_publish(&mut frame, CHANNEL, false, content, payload_max);
    let in_flight = load.confirms_in_flight.unwrap_or(u64::MAX);
    let batch = (WRITE_BYTES / frame.len()).max(1) as u64;
    let mut out = Vec::with_capacity(WRITE_BYTES + frame.len());
    let mut sequence = 0u64;
    while sequence < limit && !progress.stop.load(Ordering::Relaxed) {
        let room = wait_for_room(progress, sequence, in_flight);
        let count = batch.min(room).min(limit - sequence);
        out.clear();
        for _ in 0..count {
            body[..8].copy_from_slice(&sequence.to_be_bytes());
            let address = &addresses[(sequence % addresses.len() as u64) as usize];
            let content = Content { address, properties, body: &body };
            write_publish(&mut out, CHANNEL, false, content, payload_max);
            sequence += 1;
        }
        if in_flight == 1 {
            progress.confirms.lock().unwrap_or_else(PoisonError::into_inner).sent_at = Some(Instant::now());
        }
        stream.write_all(&out)?;
        progress.published.store(sequence, Ordering::Relaxed);
    }
    Ok(())
}

/// Waits until something may be published; how much.
fn wait_for_room(progress: &Progress, sent: u64, in_flight: u64) -> u64 {
    if in_flight == u64::MAX {
        return u64::MAX;
    }
    let mut confirms = progress.confirms.lock().unwrap_or_else(PoisonError::into_inner);
    while sent - confirms.confirmed >= in_flight && !progress.stop.load(Ordering::Relaxed) {
        confirms = progress.more_confirmed.wait(confirms).unwrap_or_else(PoisonError::into_inner);
    }
    in_flight - (sent - confirms.confirmed).min(in_flight)
}

fn read_confirms(client: &mut Client, progress: &Progress) -> io::Result<()> {
    // Numbers confirmed beyond the first that is not.
    let mut ahead = std::collections::BTreeSet::new();
    let mut below = 0u64;
    loop {
        let mut closed = None;
        client.next_frames(usize::MAX, |frame| match Seen::of(frame) {
            Seen::Ack(tag, true) => {
                below = below.max(tag);
                ahead.retain(|number| *number > below);
            }
            Seen::Ack(tag, false) => {
                ahead.insert(tag);
            }
            Seen::Close(octets) => closed = Some(String::from_utf8_lossy(octets).into_owned()),
            _ => {}
        })?;
        while ahead.remove(&(below + 1)) {
            below += 1;
        }
        {
            let mut confirms = progress.confirms.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(sent_at) = confirms.sent_at.take() {
                let micros = u32::try_from(sent_at.elapsed().as_micros()).unwrap_or(u32::MAX);
                confirms.latencies_micros.push(micros);
            }
            confirms.confirmed = below + ahead.len() as u64;
            progress.confirmed.store(confirms.confirmed, Ordering::Relaxed);
        }
        progress.more_confirmed.notify_one();
        if let Some(closed) = closed {
            return Err(io::Error::other(format!("the broker closed: {closed}")));
        }
    }
}

fn start_consumer(
    target: &Target,
    consume: Consume,
    queues: &[String],
    progress: &Arc<Progress>,
) -> io::Result<Running> {
    let mut client = Client::connect(target)?;
    for queue in queues {
        client.consume(queue, consume.prefetch.is_none(), consume.prefetch.unwrap_or(0))?;
    }
    let in_order = queues.len() == 1;
    let stream = client.stream.try_clone()?;
    let counts = Arc::clone(progress);
    let acks = consume.prefetch.is_some();
    let reader = thread::spawn(move || {
        let ended = take(&mut client, acks, in_order, &counts);
        report(ended, &counts);
    });
    Ok(Running { stream, threads: vec![reader] })
}

fn take(client: &mut Client, acks: bool, in_order: bool, progress: &Progress) -> io::Result<()> {
    let mut out = Vec::new();
    let mut expected = 0u64;
    loop {
        out.clear();
        let (mut count, mut faults) = (0, 0);
        client.next_frames(usize::MAX, |frame| match Seen::of(frame) {
            Seen::Deliver(tag) => {
                count += 1;
                if acks {
                    write_ack(&mut out, CHANNEL, tag, false);
                }
            }
            Seen::Body(body) => {
                if let Some(sequence) = body.first_chunk() {
                    let sequence = u64::from_be_bytes(*sequence);
                    if in_order && sequence != expected {
                        faults += 1;
                    }
                    expected = sequence + 1;
                }
            }
            _ => {}
        })?;
        progress.consumed.fetch_add(count, Ordering::Relaxed);
        progress.faults.fetch_add(faults, Ordering::Relaxed);
        if !out.is_empty() {
            client.stream.write_all(&out)?;
        }
    }
}

/// Processor seconds of a process, all its threads.
pub(super) fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

/// Resident memory of a process.
pub(super) fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
