//! What a run brings, second by second.

use super::ledger::Faults;
use super::meter::{Micros, no_latencies};
use super::process::{cpu_seconds, resident_bytes};
use super::run::Work;
use std::io;
use std::thread;
use std::time::Duration;

/// How often a run with an end in time looks whether it has failed.
pub(super) const LOOK: Duration = Duration::from_millis(50);
const SECOND: Duration = Duration::from_secs(1);

/// What came of a run.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) messages: u64,
    pub(super) elapsed: Duration,
    pub(super) confirm: Micros,
    pub(super) delivery: Micros,
    pub(super) round_trip: Micros,
    pub(super) probe: Micros,
    pub(super) client_cpu_seconds: f64,
    pub(super) broker_cpu_seconds: Option<f64>,
    pub(super) broker_resident_bytes: Option<u64>,
    pub(super) faults: Faults,
    pub(super) seconds: Vec<Second>,
}

/// What one second of a run brought.
#[derive(Clone, Debug)]
pub(super) struct Second {
    pub(super) at: Duration,
    pub(super) rate: f64,
    pub(super) confirm: Micros,
    pub(super) delivery: Micros,
    pub(super) round_trip: Micros,
    pub(super) probe: Micros,
    pub(super) broker_resident_bytes: Option<u64>,
}

/// Measures from its start to its end, second by second.
pub(super) struct Watch {
    began: Duration,
    counted: u64,
    client_cpu_seconds: f64,
    broker_cpu_seconds: Option<f64>,
    turned: Duration,
    counted_then: u64,
    stall: Stall,
    seconds: Vec<Second>,
}

/// How far a count had come, and when it came so far.
pub(super) struct Stall {
    count: u64,
    since: Duration,
}

impl Stall {
    pub(super) fn new(count: u64, now: Duration) -> Self {
        Self { count, since: now }
    }

    /// An error when the count has stood still for longer than `patience`.
    pub(super) fn check(&mut self, count: u64, now: Duration, patience: Duration) -> io::Result<()> {
        if count != self.count {
            *self = Self::new(count, now);
        } else if now - self.since > patience {
            return Err(io::Error::other(format!("nothing has moved for {patience:?}, after {count} messages")));
        }
        Ok(())
    }
}

impl Watch {
    pub(super) fn start(work: &Work<'_>) -> Self {
        work.meter.confirm.take();
        work.meter.delivery.take();
        work.meter.round_trip.take();
        work.meter.probe.take();
        let (began, counted) = (work.meter.clock.elapsed(), work.counted());
        let client_cpu_seconds = cpu_seconds(std::process::id()).unwrap_or_default();
        let broker_cpu_seconds = work.plan.broker_pid.and_then(cpu_seconds);
        let (turned, counted_then, stall, seconds) = (began, counted, Stall::new(counted, began), Vec::new());
        Self { began, counted, client_cpu_seconds, broker_cpu_seconds, turned, counted_then, stall, seconds }
    }

    pub(super) fn elapsed(&self, work: &Work<'_>) -> Duration {
        work.meter.clock.elapsed() - self.began
    }

    /// Sleeps for a moment, not beyond the next second or the end.
    pub(super) fn pause(&self, work: &Work<'_>, end: Duration) {
        let now = work.meter.clock.elapsed();
        let next = (self.turned + SECOND).saturating_sub(now);
        let rest = end.saturating_sub(now - self.began);
        let look = if end == Duration::MAX { Duration::from_millis(1) } else { LOOK };
        thread::sleep(next.min(rest).min(look));
    }

    /// How many messages have come so far; an error when it has been long that one came.
    pub(super) fn moved(&mut self, work: &Work<'_>) -> io::Result<u64> {
        let counted = work.counted();
        self.stall.check(counted, work.meter.clock.elapsed(), work.patience())?;
        Ok(counted - self.counted)
    }

    pub(super) fn is_second(&self, work: &Work<'_>) -> bool {
        work.meter.clock.elapsed() - self.turned >= SECOND
    }

    pub(super) fn turn(&mut self, work: &Work<'_>, each: &mut impl FnMut(&Second)) {
        let (now, counted) = (work.meter.clock.elapsed(), work.counted());
        let second = Second {
            at: now - self.began,
            rate: (counted - self.counted_then) as f64 / (now - self.turned).as_secs_f64().max(1e-9),
            confirm: work.meter.confirm.take(),
            delivery: work.meter.delivery.take(),
            round_trip: work.meter.round_trip.take(),
            probe: work.meter.probe.take(),
            broker_resident_bytes: work.plan.broker_pid.and_then(resident_bytes),
        };
        (self.turned, self.counted_then) = (now, counted);
        each(&second);
        self.seconds.push(second);
    }

    pub(super) fn end(self, work: &Work<'_>) -> Outcome {
        let merged = |part: fn(&Second) -> &Micros| {
            self.seconds.iter().map(part).fold(no_latencies(), |mut all, one| {
                all.add(one).expect("both grow as needed");
                all
            })
        };
        let cpu = work.plan.broker_pid.and_then(cpu_seconds);
        Outcome {
            messages: self.counted_then - self.counted,
            elapsed: self.turned - self.began,
            confirm: merged(|second| &second.confirm),
            delivery: merged(|second| &second.delivery),
            round_trip: merged(|second| &second.round_trip),
            probe: merged(|second| &second.probe),
            client_cpu_seconds: cpu_seconds(std::process::id()).unwrap_or_default() - self.client_cpu_seconds,
            broker_cpu_seconds: cpu.zip(self.broker_cpu_seconds).map(|(after, before)| after - before),
            broker_resident_bytes: self.seconds.iter().filter_map(|second| second.broker_resident_bytes).max(),
            faults: Faults::default(),
            seconds: self.seconds,
        }
    }
}
