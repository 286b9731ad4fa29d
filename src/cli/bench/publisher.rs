//! A publisher: one connection, a thread that writes and one that reads confirms.

use super::client::{CHANNEL, Client, Seen, Target};
use super::clock::micros;
use super::meter::{Meter, lock};
use super::pace::Pace;
use super::running::{self, Running};
use super::scenario::Load;
use crate::wire::writer::{Content, write_address, write_publish};
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// What a publisher gathers before it writes.
const WRITE_BYTES: usize = 32 * 1024;
/// How long it waits for room before it looks whether the run is over.
const PATIENCE: Duration = Duration::from_millis(100);

/// Where the bodies of publisher and number are told apart: the number's share of the first eight octets.
pub(super) const NUMBER_BITS: u32 = 48;
/// Octets of a body that are used: publisher and number, then the time in microseconds.
pub(super) const BODY_BYTES_MIN: usize = 16;

/// What one publisher is to do.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) load: Load,
    pub(super) publisher: u16,
    /// Where its messages go, in turn: exchange and routing key.
    pub(super) addresses: Vec<Vec<u8>>,
    /// The numbers it publishes.
    pub(super) first: u64,
    pub(super) end: u64,
    pub(super) pace: Option<Pace>,
}

/// Exchange and routing key, written.
pub(super) fn address(exchange: &str, routing_key: &str) -> Vec<u8> {
    let mut address = Vec::new();
    write_address(&mut address, exchange.as_bytes(), routing_key.as_bytes());
    address
}

/// Confirms of one channel, shared by writer and reader.
#[derive(Debug)]
struct Window {
    in_flight_max: u64,
    confirmed: Mutex<u64>,
    more: Condvar,
    /// When each unconfirmed message was sent or due, in microseconds, by delivery tag modulo the length.
    sent_at: Box<[AtomicU64]>,
}

impl Window {
    fn new(in_flight_max: u64) -> Self {
        let slots = in_flight_max.next_power_of_two();
        let sent_at = (0..slots).map(|_| AtomicU64::new(0)).collect();
        Self { in_flight_max, confirmed: Mutex::new(0), more: Condvar::new(), sent_at }
    }

    fn slot(&self, tag: u64) -> &AtomicU64 {
        &self.sent_at[(tag & (self.sent_at.len() as u64 - 1)) as usize]
    }

    /// Waits until something may be published; how much.
    fn room(&self, sent: u64, meter: &Meter) -> u64 {
        let mut confirmed = lock(&self.confirmed);
        while sent - *confirmed >= self.in_flight_max && !meter.is_over() {
            let waited = self.more.wait_timeout(confirmed, PATIENCE);
            confirmed = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        self.in_flight_max.saturating_sub(sent - *confirmed)
    }
}

/// Connects and starts publishing.
pub(super) fn start(target: &Target, job: Job, meter: &Arc<Meter>) -> io::Result<Running> {
    let mut client = Client::connect(target)?;
    let window = job.load.confirms_in_flight.map(|in_flight| Arc::new(Window::new(in_flight)));
    if window.is_some() {
        client.confirm_select()?;
    }
    let (stream, writing) = (client.stream.try_clone()?, client.stream.try_clone()?);
    let payload_max = client.payload_max;
    let shared = window.clone();
    let writer = running::begin("a publisher", meter, move |meter| {
        publish(writing, &job, payload_max, shared.as_deref(), meter)
    });
    let reader =
        running::begin("a publisher", meter, move |meter| read_confirms(&mut client, window.as_deref(), meter));
    Ok(Running { stream: Some(stream), threads: vec![writer, reader] })
}

fn publish(
    mut stream: TcpStream,
    job: &Job,
    payload_max: usize,
    window: Option<&Window>,
    meter: &Meter,
) -> io::Result<()> {
    let properties: &[u8] = if job.load.persistent { &[0x10, 0, 2] } else { &[0, 0] };
    let mut body = vec![b'x'; job.load.size.max(BODY_BYTES_MIN)];
    let batch = if job.load.one_write_each { 1 } else { (WRITE_BYTES / body.len()).max(1) as u64 };
    let mut out = Vec::with_capacity(2 * WRITE_BYTES);
    let mut number = job.first;
    while number < job.end && !meter.is_over() {
        let sent = number - job.first;
        let room = window.map_or(u64::MAX, |window| window.room(sent, meter));
        let now = meter.clock.elapsed();
        let due = job.pace.map_or(u64::MAX, |pace| pace.due(now).saturating_sub(sent));
        if due == 0 {
            let pause = job.pace.map_or(Duration::ZERO, |pace| pace.moment(sent).saturating_sub(now));
            thread::sleep(pause.min(PATIENCE));
            continue;
        }
        let count = batch.min(room).min(due).min(job.end - number);
        out.clear();
        for number in number..number + count {
            let tag = number - job.first + 1;
            let at = micros(job.pace.map_or(now, |pace| pace.moment(tag - 1)));
            body[..8].copy_from_slice(&(u64::from(job.publisher) << NUMBER_BITS | number).to_be_bytes());
            body[8..16].copy_from_slice(&at.to_be_bytes());
            let address = &job.addresses[(number % job.addresses.len() as u64) as usize];
            write_publish(&mut out, CHANNEL, false, Content { address, properties, body: &body }, payload_max);
            if let Some(window) = window {
                window.slot(tag).store(at, Ordering::Relaxed);
            }
        }
        stream.write_all(&out)?;
        number += count;
        meter.published.fetch_add(count, Ordering::Relaxed);
    }
    Ok(())
}

fn read_confirms(client: &mut Client, window: Option<&Window>, meter: &Meter) -> io::Result<()> {
    // Tags confirmed beyond the first that is not.
    let mut ahead = BTreeSet::new();
    let mut below = 0u64;
    let mut newly = Vec::new();
    loop {
        let (mut closed, mut nacked) = (None, 0);
        newly.clear();
        client.next_frames(usize::MAX, |frame| match Seen::of(frame) {
            Seen::Ack(tag, true) => {
                newly.extend((below + 1..=tag).filter(|tag| !ahead.contains(tag)));
                below = below.max(tag);
                ahead.retain(|number| *number > below);
            }
            Seen::Ack(tag, false) if tag == below + 1 => {
                newly.push(tag);
                below = tag;
                while ahead.remove(&(below + 1)) {
                    below += 1;
                }
            }
            Seen::Ack(tag, false) if ahead.insert(tag) => newly.push(tag),
            Seen::Nack => nacked += 1,
            Seen::Close(octets) => closed = Some(String::from_utf8_lossy(octets).into_owned()),
            _ => {}
        })?;
        meter.nacked.fetch_add(nacked, Ordering::Relaxed);
        if let Some(closed) = closed {
            return Err(io::Error::other(format!("the broker closed: {closed}")));
        }
        if nacked > 0 {
            return Err(io::Error::other("the broker refused a message (basic.nack)"));
        }
        let Some(window) = window else { continue };
        let now = meter.clock.micros();
        let mut latencies = meter.confirm.lock();
        for tag in &newly {
            latencies
                .record(now.saturating_sub(window.slot(*tag).load(Ordering::Relaxed)))
                .expect("it grows as needed");
        }
        drop(latencies);
        let all = below + ahead.len() as u64;
        let more = all - std::mem::replace(&mut *lock(&window.confirmed), all);
        meter.confirmed.fetch_add(more, Ordering::Relaxed);
        window.more.notify_one();
    }
}
