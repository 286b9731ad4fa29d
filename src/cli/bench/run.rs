//! One run of a load against one broker.

use super::client::{Client, Target};
use super::consumer;
use super::ledger::Faults;
use super::meter::{Meter, Micros, lock, no_latencies};
use super::pace::Pace;
use super::probe::probe;
use super::process::{cpu_seconds, resident_bytes};
use super::publisher::{self, BODY_BYTES_MIN};
use super::scenario::{Course, Load, Route};
use std::fs::File;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// How long a drain may stand still before it is given up.
const STALL: Duration = Duration::from_secs(20);
/// How often a run with an end in time looks whether it has failed.
const LOOK: Duration = Duration::from_millis(50);
const SECOND: Duration = Duration::from_secs(1);
/// Keys that the messages of a topic load bear, in turn.
const TOPICS: u32 = 1000;

/// How a load is run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) load: Load,
    pub(super) warm_up: Duration,
    pub(super) end: End,
    pub(super) broker_pid: Option<u32>,
    /// Where to append what is published.
    pub(super) probe: Option<PathBuf>,
}

/// When measuring ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    After(Duration),
    /// So many messages of all publishers.
    Count(u64),
}

/// What came of a run.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) messages: u64,
    pub(super) elapsed: Duration,
    pub(super) confirm: Micros,
    pub(super) delivery: Micros,
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
    pub(super) probe: Micros,
    pub(super) broker_resident_bytes: Option<u64>,
}

/// Threads that end when the run is over; those of a connection, once its socket is shut.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) stream: Option<TcpStream>,
    pub(super) threads: Vec<thread::JoinHandle<()>>,
}

impl Running {
    fn join(self) {
        // An error means that the socket is closed already.
        let _ = self.stream.map(|stream| stream.shutdown(Shutdown::Both));
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// Queues and exchange of a run, on the broker.
struct Stage {
    control: Client,
    queues: Vec<String>,
    exchange: Option<String>,
    addresses: Vec<Vec<u8>>,
}

impl Stage {
    fn set(target: &Target, load: &Load) -> io::Result<Self> {
        let name = format!("bench-{}", std::process::id());
        let queues: Vec<String> = (0..load.queues).map(|number| format!("{name}-{number}")).collect();
        let mut control = Client::connect(target)?;
        for queue in &queues {
            control.declare(queue, load.persistent)?;
        }
        let kind = match load.route {
            Route::Queue => {
                let addresses = queues.iter().map(|queue| publisher::address("", queue)).collect();
                return Ok(Self { control, queues, exchange: None, addresses });
            }
            Route::Fanout => "fanout",
            Route::Topic { .. } => "topic",
        };
        control.declare_exchange(&name, kind)?;
        let addresses = match load.route {
            Route::Topic { bindings } => {
                for number in 0..bindings {
                    control.bind(&queues[0], &name, &format!("bench.{number}.*"))?;
                }
                let key = |number| publisher::address(&name, &format!("bench.{number}.key"));
                (0..bindings.min(TOPICS)).map(key).collect()
            }
            _ => {
                for queue in &queues {
                    control.bind(queue, &name, "")?;
                }
                vec![publisher::address(&name, "")]
            }
        };
        Ok(Self { control, queues, exchange: Some(name), addresses })
    }

    fn strike(mut self) -> io::Result<()> {
        for queue in &self.queues {
            self.control.delete(queue)?;
        }
        self.exchange.iter().try_for_each(|exchange| self.control.delete_exchange(exchange))
    }
}

/// A load at work.
struct Work<'a> {
    target: &'a Target,
    plan: &'a Plan,
    stage: Stage,
    meter: Arc<Meter>,
    running: Vec<Running>,
}

/// Runs a load for a time, for a number of messages, or to the end of its standing messages; tells of each second.
pub(super) fn run(target: &Target, plan: &Plan, mut each: impl FnMut(&Second)) -> io::Result<Outcome> {
    let consumers = plan.load.consume.map_or(0, |consume| consume.consumers);
    let meter = Arc::new(Meter::new(consumers.min(plan.load.queues).max(1).into()));
    let stage = Stage::set(target, &plan.load)?;
    let mut work = Work { target, plan, stage, meter, running: Vec::new() };
    let outcome = work.go(&mut each);
    work.meter.stop.store(true, Ordering::Relaxed);
    work.running.drain(..).for_each(Running::join);
    let struck = work.stage.strike();
    let mut outcome = outcome?;
    for ledger in &work.meter.ledgers {
        let faults = lock(ledger).close();
        outcome.faults.gaps += faults.gaps;
        outcome.faults.duplicates += faults.duplicates;
    }
    struck.map(|()| outcome)
}

impl Work<'_> {
    fn go(&mut self, each: &mut impl FnMut(&Second)) -> io::Result<Outcome> {
        let (Course::Flow { standing } | Course::Drain { standing }) = self.plan.load.course;
        self.fill(standing)?;
        // A number of messages is counted from the first; a duration begins after the warm-up.
        let mut watch = Watch::start(self);
        match (self.plan.load.course, self.plan.end) {
            (Course::Drain { .. }, _) => {
                // What was written last is still on its way into the queue.
                thread::sleep(Duration::from_millis(500));
                watch = Watch::start(self);
                self.consume(0)?;
            }
            (Course::Flow { .. }, End::Count(_)) => {
                self.consume(standing)?;
                self.publish(standing)?;
            }
            (Course::Flow { .. }, End::After(_)) => {
                self.consume(standing)?;
                self.publish(standing)?;
                while watch.elapsed(self) < self.plan.warm_up {
                    thread::sleep(LOOK.min(self.plan.warm_up));
                    self.check()?;
                }
                watch = Watch::start(self);
            }
        }
        loop {
            let (end, count) = match (self.plan.load.course, self.plan.end) {
                (Course::Drain { standing }, _) => (None, standing),
                (Course::Flow { .. }, End::Count(count)) => (None, count * self.copies()),
                (Course::Flow { .. }, End::After(duration)) => (Some(duration), u64::MAX),
            };
            watch.pause(self, end.unwrap_or(Duration::MAX));
            self.check()?;
            let ended = end.is_some_and(|end| watch.elapsed(self) >= end) || watch.moved(self)? >= count;
            if watch.is_second(self) || ended {
                watch.turn(self, each);
            }
            if ended {
                return Ok(watch.end(self));
            }
        }
    }

    fn check(&self) -> io::Result<()> {
        self.meter.failure().map_or(Ok(()), |why| Err(io::Error::other(why)))
    }

    /// Copies that each message makes.
    fn copies(&self) -> u64 {
        match (self.plan.load.route, self.plan.load.consume) {
            (Route::Fanout, Some(_)) => self.plan.load.queues.into(),
            _ => 1,
        }
    }

    /// Messages so far, at the last station of their way.
    fn counted(&self) -> u64 {
        let counter = match (self.plan.load.consume, self.plan.load.confirms_in_flight) {
            (Some(_), _) => &self.meter.consumed,
            (None, Some(_)) => &self.meter.confirmed,
            (None, None) => &self.meter.published,
        };
        counter.load(Ordering::Relaxed)
    }

    fn job(&self, publisher: u16) -> publisher::Job {
        let addresses = self.stage.addresses.clone();
        publisher::Job { load: self.plan.load, publisher, addresses, first: 0, end: u64::MAX, pace: None }
    }

    /// Publishes what is to stand in the queues.
    fn fill(&mut self, standing: u64) -> io::Result<()> {
        if standing == 0 {
            return Ok(());
        }
        let running = publisher::start(self.target, publisher::Job { end: standing, ..self.job(0) }, &self.meter)?;
        let done = match self.plan.load.confirms_in_flight {
            Some(_) => &self.meter.confirmed,
            None => &self.meter.published,
        };
        while done.load(Ordering::Relaxed) < standing {
            self.check()?;
            thread::sleep(Duration::from_millis(5));
        }
        // Closing at once could lose what the kernel still holds.
        self.stage.control.declare(&self.stage.queues[0], self.plan.load.persistent)?;
        self.running.push(running);
        self.meter.confirm.take();
        Ok(())
    }

    fn publish(&mut self, standing: u64) -> io::Result<()> {
        let load = self.plan.load;
        let begin = self.meter.clock.elapsed();
        let pace = load.rate.map(|rate| Pace::new(begin, rate / f64::from(load.publishers)));
        for publisher in 0..load.publishers {
            let first = if publisher == 0 { standing } else { 0 };
            let end = match self.plan.end {
                End::Count(count) => first + share(count, load.publishers, publisher),
                End::After(_) => u64::MAX,
            };
            let job = publisher::Job { first, end, pace, ..self.job(publisher) };
            self.running.push(publisher::start(self.target, job, &self.meter)?);
        }
        if let Some(path) = &self.plan.probe {
            let (file, size) = (File::create(path)?, load.size.max(BODY_BYTES_MIN));
            let meter = Arc::clone(&self.meter);
            let thread = thread::spawn(move || {
                if let Err(error) = probe(file, size, &meter) {
                    meter.fail(format!("the probe: {error}"));
                }
            });
            self.running.push(Running { stream: None, threads: vec![thread] });
        }
        Ok(())
    }

    fn consume(&mut self, standing: u64) -> io::Result<()> {
        let Some(consume) = self.plan.load.consume else { return Ok(()) };
        let queues = self.plan.load.queues;
        for consumer in 0..consume.consumers {
            let own = (0..queues).filter(|queue| {
                if consume.consumers < queues {
                    queue % consume.consumers == consumer
                } else {
                    consumer % queues == *queue
                }
            });
            let job = consumer::Job {
                consume,
                queues: own.map(|queue| (self.stage.queues[usize::from(queue)].clone(), queue)).collect(),
                ledger: usize::from(consumer % queues),
                standing,
                lanes: if self.plan.load.route == Route::Queue { queues.into() } else { 1 },
                copies: self.copies(),
            };
            self.running.push(consumer::start(self.target, job, &self.meter)?);
        }
        Ok(())
    }
}

/// The part of a whole that falls to one of several.
fn share(whole: u64, parts: u16, part: u16) -> u64 {
    whole / u64::from(parts) + u64::from(u64::from(part) < whole % u64::from(parts))
}

/// Measures from its start to its end, second by second.
struct Watch {
    began: Duration,
    counted: u64,
    client_cpu_seconds: f64,
    broker_cpu_seconds: Option<f64>,
    turned: Duration,
    counted_then: u64,
    moved: Duration,
    moved_to: u64,
    seconds: Vec<Second>,
}

impl Watch {
    fn start(work: &Work<'_>) -> Self {
        work.meter.confirm.take();
        work.meter.delivery.take();
        work.meter.probe.take();
        let (began, counted) = (work.meter.clock.elapsed(), work.counted());
        let client_cpu_seconds = cpu_seconds(std::process::id()).unwrap_or_default();
        let broker_cpu_seconds = work.plan.broker_pid.and_then(cpu_seconds);
        let (turned, moved, seconds) = (began, began, Vec::new());
        let (counted_then, moved_to) = (counted, counted);
        Self { began, counted, client_cpu_seconds, broker_cpu_seconds, turned, counted_then, moved, moved_to, seconds }
    }

    fn elapsed(&self, work: &Work<'_>) -> Duration {
        work.meter.clock.elapsed() - self.began
    }

    /// Sleeps for a moment, not beyond the next second or the end.
    fn pause(&self, work: &Work<'_>, end: Duration) {
        let now = work.meter.clock.elapsed();
        let next = (self.turned + SECOND).saturating_sub(now);
        let rest = end.saturating_sub(now - self.began);
        let look = if end == Duration::MAX { Duration::from_millis(1) } else { LOOK };
        thread::sleep(next.min(rest).min(look));
    }

    /// How many messages have come so far; an error when it has been long that one came.
    fn moved(&mut self, work: &Work<'_>) -> io::Result<u64> {
        let (counted, now) = (work.counted(), work.meter.clock.elapsed());
        if counted != self.moved_to {
            (self.moved_to, self.moved) = (counted, now);
        } else if now - self.moved > STALL {
            return Err(io::Error::other(format!("nothing has moved for {STALL:?}, after {counted} messages")));
        }
        Ok(counted - self.counted)
    }

    fn is_second(&self, work: &Work<'_>) -> bool {
        work.meter.clock.elapsed() - self.turned >= SECOND
    }

    fn turn(&mut self, work: &Work<'_>, each: &mut impl FnMut(&Second)) {
        let (now, counted) = (work.meter.clock.elapsed(), work.counted());
        let second = Second {
            at: now - self.began,
            rate: (counted - self.counted_then) as f64 / (now - self.turned).as_secs_f64().max(1e-9),
            confirm: work.meter.confirm.take(),
            delivery: work.meter.delivery.take(),
            probe: work.meter.probe.take(),
            broker_resident_bytes: work.plan.broker_pid.and_then(resident_bytes),
        };
        (self.turned, self.counted_then) = (now, counted);
        each(&second);
        self.seconds.push(second);
    }

    fn end(self, work: &Work<'_>) -> Outcome {
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
            probe: merged(|second| &second.probe),
            client_cpu_seconds: cpu_seconds(std::process::id()).unwrap_or_default() - self.client_cpu_seconds,
            broker_cpu_seconds: cpu.zip(self.broker_cpu_seconds).map(|(after, before)| after - before),
            broker_resident_bytes: self.seconds.iter().filter_map(|second| second.broker_resident_bytes).max(),
            faults: Faults::default(),
            seconds: self.seconds,
        }
    }
}
