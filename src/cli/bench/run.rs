//! One run of a load against one broker.

use super::client::Client;
use super::meter::Meter;
use super::pace::Pace;
use super::probe::probe;
use super::running::{self, Ending, Running};
use super::scenario::{Consume, Course, Load};
use super::stage::Stage;
use super::target::Target;
use super::watch::{LOOK, Outcome, Second, Stall, Watch};
use super::{connector, consumer, publisher, relay, rpc};
use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// How long what is missing at the end may still arrive before it is called lost.
const SETTLE_MAX: Duration = Duration::from_secs(5);

/// How long publishers' connections may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(5);

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

/// A load at work.
pub(super) struct Work<'a> {
    target: &'a Target,
    pub(super) plan: &'a Plan,
    stage: Stage,
    pub(super) meter: Arc<Meter>,
    running: Vec<Running>,
    idle: Vec<TcpStream>,
}

/// Runs a load for a time, for a number of messages, or to the end of its standing messages; tells of each second.
pub(super) fn run(target: &Target, plan: &Plan, mut each: impl FnMut(&Second)) -> io::Result<Outcome> {
    let consumers = plan.load.consume.map_or(0, |consume| consume.consumers);
    let meter = Arc::new(Meter::new(consumers.min(plan.load.queues).max(1).into()));
    let stage = Stage::set(target, &plan.load)?;
    let mut work = Work { target, plan, stage, meter, running: Vec::new(), idle: Vec::new() };
    let outcome = work.go(&mut each).and_then(|outcome| work.settle().map(|()| outcome));
    work.meter.stop.store(true, Ordering::Relaxed);
    // After a failure there is nothing that the next run could mix up.
    let close_max = if outcome.is_ok() { CLOSE_MAX } else { Duration::ZERO };
    running::end(work.running.drain(..), &work.meter, work.meter.clock.elapsed() + close_max);
    let struck = work.stage.strike();
    let mut outcome = outcome?;
    for mut ledger in work.meter.all_ledgers() {
        let faults = ledger.close();
        outcome.faults.gaps += faults.gaps;
        outcome.faults.duplicates += faults.duplicates;
    }
    struck.map(|()| outcome)
}

impl Work<'_> {
    fn go(&mut self, each: &mut impl FnMut(&Second)) -> io::Result<Outcome> {
        let Load { course, standing, .. } = self.plan.load;
        self.open_idle()?;
        self.fill(standing)?;
        // A number of messages is counted from the first; a duration begins after the warm-up.
        let mut watch = Watch::start(self);
        match (course, self.plan.end) {
            (Course::Drain, _) => {
                // What was written last is still on its way into the queue.
                thread::sleep(Duration::from_millis(500));
                watch = Watch::start(self);
                self.consume(0)?;
            }
            (_, End::Count(_)) => {
                self.consume(standing)?;
                self.publish(standing)?;
            }
            (_, End::After(_)) => {
                self.consume(standing)?;
                self.publish(standing)?;
                while watch.elapsed(self) < self.plan.warm_up {
                    thread::sleep(LOOK.min(self.plan.warm_up));
                    self.check()?;
                    watch.moved(self)?;
                }
                watch = Watch::start(self);
            }
        }
        loop {
            let (end, count) = match (course, self.plan.end) {
                (Course::Drain, _) => (None, standing * self.counted_each()),
                (_, End::Count(count)) => (None, count * self.counted_each()),
                (_, End::After(duration)) => (Some(duration), u64::MAX),
            };
            watch.pause(self, end.unwrap_or(Duration::MAX));
            self.check()?;
            let ended = end.is_some_and(|end| watch.elapsed(self) >= end)
                || (watch.moved(self)? >= count && self.is_confirmed());
            if watch.is_second(self) || ended {
                watch.turn(self, each);
            }
            if ended {
                return Ok(watch.end(self));
            }
        }
    }

    /// Several consumers of a queue are not equally far when the measuring ends: what is still on its way may arrive.
    fn settle(&self) -> io::Result<()> {
        self.meter.all_ledgers().for_each(|mut ledger| ledger.mark());
        let begin = self.meter.clock.elapsed();
        while self.meter.clock.elapsed() - begin < SETTLE_MAX
            && !self.meter.all_ledgers().all(|ledger| ledger.is_complete())
        {
            self.check()?;
            thread::sleep(Duration::from_millis(5));
        }
        self.idle.iter().try_for_each(is_still_idle)
    }

    fn open_idle(&mut self) -> io::Result<()> {
        for _ in 0..self.plan.load.idle_connections {
            self.idle.push(Client::connect(self.target, self.plan.load.channels)?.stream);
        }
        Ok(())
    }

    /// How long nothing may move before the run is given up.
    pub(super) fn patience(&self) -> Duration {
        self.target.patience
    }

    fn check(&self) -> io::Result<()> {
        self.meter.failure().map_or(Ok(()), |why| Err(io::Error::other(why)))
    }

    /// Messages so far, at the last station of their way.
    pub(super) fn counted(&self) -> u64 {
        let counter = match (self.plan.load.course, self.plan.load.consume, self.plan.load.confirms_in_flight) {
            (Course::Connect | Course::Call, ..) => &self.meter.answered,
            (_, Some(_), _) => &self.meter.consumed,
            (_, None, Some(_)) => &self.meter.confirmed,
            (_, None, None) => &self.meter.published,
        };
        counter.load(Ordering::Relaxed)
    }

    /// Whether all of a number of messages are confirmed, where confirms are asked for.
    fn is_confirmed(&self) -> bool {
        let Load { standing, confirms_in_flight, .. } = self.plan.load;
        match (self.plan.end, confirms_in_flight) {
            (End::Count(count), Some(_)) => self.meter.confirmed.load(Ordering::Relaxed) >= standing + count,
            _ => true,
        }
    }

    /// How often each message is counted there.
    fn counted_each(&self) -> u64 {
        match (self.plan.load.course, self.plan.load.consume) {
            (Course::Flow | Course::Drain | Course::Relay, Some(_)) => self.plan.load.copies(),
            _ => 1,
        }
    }

    fn job(&self, publisher: u16) -> publisher::Job {
        let envelopes = Arc::clone(&self.stage.envelopes);
        let name = Arc::clone(&self.stage.name);
        publisher::Job { load: self.plan.load, publisher, name, envelopes, first: 0, end: u64::MAX, pace: None }
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
        let mut stall = Stall::new(0, self.meter.clock.elapsed());
        loop {
            let count = done.load(Ordering::Relaxed);
            if count >= standing {
                break;
            }
            self.check()?;
            stall.check(count, self.meter.clock.elapsed(), self.patience())?;
            thread::sleep(Duration::from_millis(5));
        }
        // Closing at once could lose what the kernel still holds.
        self.stage.ask(&self.plan.load)?;
        self.running.push(running);
        self.meter.confirm.take();
        Ok(())
    }

    fn publish(&mut self, standing: u64) -> io::Result<()> {
        let load = self.plan.load;
        let begin = self.meter.clock.elapsed();
        let pace = load.rate.map(|rate| Pace::new(begin, rate / f64::from(load.publishers)));
        let start = match load.course {
            Course::Flow | Course::Drain | Course::Relay => publisher::start,
            Course::Connect => connector::start,
            Course::Call => rpc::start,
        };
        for publisher in 0..load.publishers {
            let first = if publisher == 0 { standing } else { 0 };
            let end = match self.plan.end {
                End::Count(count) => first + share(count, load.publishers, publisher),
                End::After(_) => u64::MAX,
            };
            let job = publisher::Job { first, end, pace, ..self.job(publisher) };
            self.running.push(start(self.target, job, &self.meter)?);
        }
        if let Some(path) = &self.plan.probe {
            let (file, size) = (File::create(path)?, load.size.mean());
            let thread = running::begin("the probe", &self.meter, move |meter| probe(file, size, meter));
            self.running.push(Running { stream: None, threads: vec![thread], ending: Ending::Cut });
        }
        Ok(())
    }

    fn consume(&mut self, standing: u64) -> io::Result<()> {
        let Some(consume) = self.plan.load.consume else { return Ok(()) };
        for consumer in 0..consume.consumers {
            self.consume_as(consumer, consume, standing)?;
            if self.plan.load.course == Course::Relay {
                self.relay_as(consumer, consume)?;
            }
        }
        Ok(())
    }

    /// The queues of one of so many consumers: each has several, or each queue has several consumers.
    fn queues_of(&self, consumer: u16, consumers: u16) -> impl Iterator<Item = u16> {
        let queues = self.plan.load.queues;
        (0..queues).filter(
            move |queue| {
                if consumers < queues { queue % consumers == consumer } else { consumer % queues == *queue }
            },
        )
    }

    fn consume_as(&mut self, consumer: u16, consume: Consume, standing: u64) -> io::Result<()> {
        let Load { course, channels, queues, .. } = self.plan.load;
        let names = if course == Course::Relay { &self.stage.outputs } else { &self.stage.queues };
        let own = self.queues_of(consumer, consume.consumers);
        let job = consumer::Job {
            consume,
            queues: own.map(|queue| (names[usize::from(queue)].clone(), queue)).collect(),
            ledger: usize::from(consumer % queues),
            standing: standing * self.plan.load.copies(),
            deal: self.plan.load.deal(),
            channels,
            answers: course == Course::Call,
            copies: self.plan.load.copies(),
        };
        self.running.push(consumer::start(self.target, job, &self.meter)?);
        Ok(())
    }

    fn relay_as(&mut self, worker: u16, consume: Consume) -> io::Result<()> {
        let Load { channels, confirms_in_flight, one_write_each, .. } = self.plan.load;
        let passage = |number: u16| relay::Passage {
            input: self.stage.queues[usize::from(number)].clone(),
            output: self.stage.outputs[usize::from(number)].clone(),
            number,
        };
        let passages = self.queues_of(worker, consume.consumers).map(passage).collect();
        let job = relay::Job { consume, passages, channels, confirms: confirms_in_flight.is_some(), one_write_each };
        self.running.push(relay::start(self.target, job, &self.meter)?);
        Ok(())
    }
}

/// The part of a whole that falls to one of several.
fn share(whole: u64, parts: u16, part: u16) -> u64 {
    whole / u64::from(parts) + u64::from(u64::from(part) < whole % u64::from(parts))
}

/// An idle connection hears nothing: whatever comes says that it is at an end.
fn is_still_idle(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    match stream.peek(&mut [0]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        _ => Err(io::Error::other("the broker closed an idle connection")),
    }
}
