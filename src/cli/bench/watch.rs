//! Measures a run, second by second.

use super::ledger::Faults;
use super::meter::{Micros, no_latencies};
use super::process::{cpu_seconds, machine_cpu_seconds, resident_bytes};
use super::run::ActiveRun;
use std::io;
use std::thread;
use std::time::Duration;

/// How often a run that ends by time checks whether it has failed.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_millis(50);
const SECOND: Duration = Duration::from_secs(1);

/// The outcome of a run.
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
    /// Of everything else on the machine.
    pub(super) foreign_cpu_seconds: Option<f64>,
    pub(super) broker_resident_bytes: Option<u64>,
    pub(super) faults: Faults,
    pub(super) seconds: Vec<Second>,
}

/// The figures of one second of a run.
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

/// Processor seconds so far.
struct CpuSeconds {
    client: f64,
    broker: Option<f64>,
    machine: Option<f64>,
}

impl CpuSeconds {
    fn now(broker_pid: Option<u32>) -> Self {
        let client = cpu_seconds(std::process::id()).unwrap_or_default();
        Self { client, broker: broker_pid.and_then(cpu_seconds), machine: machine_cpu_seconds() }
    }

    fn since(&self, before: &Self) -> Self {
        let since = |now: Option<f64>, before: Option<f64>| now.zip(before).map(|(now, before)| now - before);
        Self {
            client: self.client - before.client,
            broker: since(self.broker, before.broker),
            machine: since(self.machine, before.machine),
        }
    }

    /// What neither the client nor the broker used.
    fn foreign(&self) -> Option<f64> {
        Some((self.machine? - self.broker? - self.client).max(0.0))
    }
}

/// Records the figures of a run, second by second.
pub(super) struct Recorder {
    began: Duration,
    counted: u64,
    before: CpuSeconds,
    second_began: Duration,
    counted_before: u64,
    stall: Stall,
    seconds: Vec<Second>,
}

/// The last value of a count, and since when it has not changed.
pub(super) struct Stall {
    count: u64,
    since: Duration,
}

impl Stall {
    pub(super) fn new(count: u64, now: Duration) -> Self {
        Self { count, since: now }
    }

    /// An error if the count has not changed for longer than `patience`.
    pub(super) fn check(&mut self, count: u64, now: Duration, patience: Duration) -> io::Result<()> {
        if count != self.count {
            *self = Self::new(count, now);
        } else if now - self.since > patience {
            return Err(io::Error::other(format!("nothing has moved for {patience:?}, after {count} messages")));
        }
        Ok(())
    }
}

impl Recorder {
    pub(super) fn start(run: &ActiveRun<'_>) -> Self {
        run.meter.confirm.take();
        run.meter.delivery.take();
        run.meter.round_trip.take();
        run.meter.probe.take();
        let (began, counted) = (run.meter.clock.elapsed(), run.counted());
        let before = CpuSeconds::now(run.plan.broker_pid);
        let (second_began, counted_before, stall, seconds) = (began, counted, Stall::new(counted, began), Vec::new());
        Self { began, counted, before, second_began, counted_before, stall, seconds }
    }

    pub(super) fn elapsed(&self, run: &ActiveRun<'_>) -> Duration {
        run.meter.clock.elapsed() - self.began
    }

    /// Sleeps for a moment, but not beyond the next second or the end.
    pub(super) fn pause(&self, run: &ActiveRun<'_>, end: Duration) {
        let now = run.meter.clock.elapsed();
        let next = (self.second_began + SECOND).saturating_sub(now);
        let rest = end.saturating_sub(now - self.began);
        let interval = if end == Duration::MAX { Duration::from_millis(1) } else { CHECK_INTERVAL };
        thread::sleep(next.min(rest).min(interval));
    }

    /// The number of messages so far; an error if none has moved for too long.
    pub(super) fn check_progress(&mut self, run: &ActiveRun<'_>) -> io::Result<u64> {
        let counted = run.counted();
        self.stall.check(counted, run.meter.clock.elapsed(), run.patience())?;
        Ok(counted - self.counted)
    }

    pub(super) fn is_second(&self, run: &ActiveRun<'_>) -> bool {
        run.meter.clock.elapsed() - self.second_began >= SECOND
    }

    pub(super) fn end_second(&mut self, run: &ActiveRun<'_>, each: &mut impl FnMut(&Second)) {
        let (now, counted) = (run.meter.clock.elapsed(), run.counted());
        let second = Second {
            at: now - self.began,
            rate: (counted - self.counted_before) as f64 / (now - self.second_began).as_secs_f64().max(1e-9),
            confirm: run.meter.confirm.take(),
            delivery: run.meter.delivery.take(),
            round_trip: run.meter.round_trip.take(),
            probe: run.meter.probe.take(),
            broker_resident_bytes: run.plan.broker_pid.and_then(resident_bytes),
        };
        (self.second_began, self.counted_before) = (now, counted);
        each(&second);
        self.seconds.push(second);
    }

    pub(super) fn end(self, run: &ActiveRun<'_>) -> Outcome {
        let merged = |part: fn(&Second) -> &Micros| {
            self.seconds.iter().map(part).fold(no_latencies(), |mut all, one| {
                all.add(one).expect("both grow as needed");
                all
            })
        };
        let cpu = CpuSeconds::now(run.plan.broker_pid).since(&self.before);
        Outcome {
            messages: self.counted_before - self.counted,
            elapsed: self.second_began - self.began,
            confirm: merged(|second| &second.confirm),
            delivery: merged(|second| &second.delivery),
            round_trip: merged(|second| &second.round_trip),
            probe: merged(|second| &second.probe),
            client_cpu_seconds: cpu.client,
            broker_cpu_seconds: cpu.broker,
            foreign_cpu_seconds: cpu.foreign(),
            broker_resident_bytes: self.seconds.iter().filter_map(|second| second.broker_resident_bytes).max(),
            faults: Faults::default(),
            seconds: self.seconds,
        }
    }
}
