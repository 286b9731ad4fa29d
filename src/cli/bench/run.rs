//! One run of a load against one broker.

use super::client::Client;
use super::meter::Meter;
use super::pace::Pace;
use super::probe::probe;
use super::run_topology::RunTopology;
use super::running::{self, Ending, RunningThreads};
use super::scenario::{Consume, Load, Workflow};
use super::target::Target;
use super::watch::{CHECK_INTERVAL, Outcome, Recorder, Second, Stall};
use super::{connector, consumer, publisher, relay, rpc};
use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// How long messages that are missing at the end may still arrive before they count as lost.
const ARRIVAL_PATIENCE: Duration = Duration::from_secs(5);

/// How long publishers' connections may take to close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// How a load is run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) load: Load,
    pub(super) warm_up: Duration,
    pub(super) end: End,
    pub(super) broker_pid: Option<u32>,
    /// The file to which the probe appends the published bytes.
    pub(super) probe: Option<PathBuf>,
}

/// When measuring ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    After(Duration),
    /// When this many messages, of all publishers together, have passed.
    Count(u64),
}

/// The state of a run.
pub(super) struct ActiveRun<'a> {
    target: &'a Target,
    pub(super) plan: &'a Plan,
    topology: RunTopology,
    pub(super) meter: Arc<Meter>,
    running: Vec<RunningThreads>,
    idle: Vec<TcpStream>,
}

/// Runs a load for a time, for a number of messages, or until its standing messages are drained. Calls `each` once per
/// second.
pub(super) fn run(target: &Target, plan: &Plan, mut each: impl FnMut(&Second)) -> io::Result<Outcome> {
    let consumers = plan.load.consume.map_or(0, |consume| consume.consumers);
    let meter = Arc::new(Meter::new(consumers.min(plan.load.queues).max(1).into()));
    let topology = RunTopology::declare(target, &plan.load)?;
    let mut run = ActiveRun { target, plan, topology, meter, running: Vec::new(), idle: Vec::new() };
    let outcome = run.execute(&mut each).and_then(|outcome| run.wait_for_arrivals().map(|()| outcome));
    run.meter.stop.store(true, Ordering::Relaxed);
    // After a failure no other run follows, so nothing has to be drained.
    let close_max = if outcome.is_ok() { CLOSE_PATIENCE } else { Duration::ZERO };
    running::end(run.running.drain(..), &run.meter, run.meter.clock.elapsed() + close_max);
    let deleted = run.topology.delete();
    let mut outcome = outcome?;
    for mut ledger in run.meter.all_ledgers() {
        let faults = ledger.close();
        outcome.faults.gaps += faults.gaps;
        outcome.faults.duplicates += faults.duplicates;
    }
    deleted.map(|()| outcome)
}

impl ActiveRun<'_> {
    fn execute(&mut self, each: &mut impl FnMut(&Second)) -> io::Result<Outcome> {
        let Load { workflow, standing, .. } = self.plan.load;
        self.open_idle()?;
        self.fill(standing)?;
        // With a number of messages, measuring begins at the first one; with a duration, after the warm-up.
        let mut recorder = Recorder::start(self);
        match (workflow, self.plan.end) {
            (Workflow::Drain, _) => {
                // The last messages written are still on their way into the queue.
                thread::sleep(Duration::from_millis(500));
                recorder = Recorder::start(self);
                self.consume(0)?;
            }
            (_, End::Count(_)) => {
                self.consume(standing)?;
                self.publish(standing)?;
            }
            (_, End::After(_)) => {
                self.consume(standing)?;
                self.publish(standing)?;
                while recorder.elapsed(self) < self.plan.warm_up {
                    thread::sleep(CHECK_INTERVAL.min(self.plan.warm_up));
                    self.check()?;
                    recorder.check_progress(self)?;
                }
                recorder = Recorder::start(self);
            }
        }
        loop {
            let (end, count) = match (workflow, self.plan.end) {
                (Workflow::Drain, _) => (None, standing * self.counted_each()),
                (_, End::Count(count)) => (None, count * self.counted_each()),
                (_, End::After(duration)) => (Some(duration), u64::MAX),
            };
            recorder.pause(self, end.unwrap_or(Duration::MAX));
            self.check()?;
            let ended = end.is_some_and(|end| recorder.elapsed(self) >= end)
                || (recorder.check_progress(self)? >= count && self.is_confirmed());
            if recorder.is_second(self) || ended {
                recorder.end_second(self, each);
            }
            if ended {
                return Ok(recorder.end(self));
            }
        }
    }

    /// Waits for messages that are still on their way: when measuring ends, some consumers of a queue are further than
    /// others.
    fn wait_for_arrivals(&self) -> io::Result<()> {
        self.meter.all_ledgers().for_each(|mut ledger| ledger.mark());
        let begin = self.meter.clock.elapsed();
        while self.meter.clock.elapsed() - begin < ARRIVAL_PATIENCE
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

    /// How long no message may move before the run fails.
    pub(super) fn patience(&self) -> Duration {
        self.target.patience
    }

    fn check(&self) -> io::Result<()> {
        self.meter.failure().map_or(Ok(()), |why| Err(io::Error::other(why)))
    }

    /// The number of messages so far that have passed the last step of the load: answered, consumed, confirmed or
    /// published.
    pub(super) fn counted(&self) -> u64 {
        let counter = match (self.plan.load.workflow, self.plan.load.consume, self.plan.load.confirms_in_flight) {
            (Workflow::Connect | Workflow::Call, ..) => &self.meter.answered,
            (_, Some(_), _) => &self.meter.consumed,
            (_, None, Some(_)) => &self.meter.confirmed,
            (_, None, None) => &self.meter.published,
        };
        counter.load(Ordering::Relaxed)
    }

    /// Whether all messages are confirmed, in a run with a number of messages and with confirms.
    fn is_confirmed(&self) -> bool {
        let Load { standing, confirms_in_flight, .. } = self.plan.load;
        match (self.plan.end, confirms_in_flight) {
            (End::Count(count), Some(_)) => self.meter.confirmed.load(Ordering::Relaxed) >= standing + count,
            _ => true,
        }
    }

    /// How often `counted` counts each message.
    fn counted_each(&self) -> u64 {
        match (self.plan.load.workflow, self.plan.load.consume) {
            (Workflow::Flow | Workflow::Drain | Workflow::Relay, Some(_)) => self.plan.load.copies(),
            _ => 1,
        }
    }

    fn job(&self, publisher: u16) -> publisher::Job {
        let envelopes = Arc::clone(&self.topology.envelopes);
        let name = Arc::clone(&self.topology.name);
        publisher::Job { load: self.plan.load, publisher, name, envelopes, first: 0, end: u64::MAX, pace: None }
    }

    /// Publishes the standing messages.
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
        // Closing the connection at once could lose bytes that are still in the kernel's buffers.
        self.topology.sync(&self.plan.load)?;
        self.running.push(running);
        self.meter.confirm.take();
        Ok(())
    }

    fn publish(&mut self, standing: u64) -> io::Result<()> {
        let load = self.plan.load;
        let begin = self.meter.clock.elapsed();
        let pace = load.rate.map(|rate| Pace::new(begin, rate / f64::from(load.publishers)));
        let start = match load.workflow {
            Workflow::Flow | Workflow::Drain | Workflow::Relay => publisher::start,
            Workflow::Connect => connector::start,
            Workflow::Call => rpc::start,
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
            let thread = running::start_thread("the probe", &self.meter, move |meter| probe(file, size, meter));
            self.running.push(RunningThreads { stream: None, threads: vec![thread], ending: Ending::Cut });
        }
        Ok(())
    }

    fn consume(&mut self, standing: u64) -> io::Result<()> {
        let Some(consume) = self.plan.load.consume else { return Ok(()) };
        for consumer in 0..consume.consumers {
            self.consume_as(consumer, consume, standing)?;
            if self.plan.load.workflow == Workflow::Relay {
                self.relay_as(consumer, consume)?;
            }
        }
        Ok(())
    }

    /// The queues of a consumer: each consumer has several queues, or each queue has several consumers.
    fn queues_of(&self, consumer: u16, consumers: u16) -> impl Iterator<Item = u16> {
        let queues = self.plan.load.queues;
        (0..queues).filter(
            move |queue| {
                if consumers < queues { queue % consumers == consumer } else { consumer % queues == *queue }
            },
        )
    }

    fn consume_as(&mut self, consumer: u16, consume: Consume, standing: u64) -> io::Result<()> {
        let Load { workflow, channels, queues, .. } = self.plan.load;
        let names = if workflow == Workflow::Relay { &self.topology.outputs } else { &self.topology.queues };
        let own = self.queues_of(consumer, consume.consumers);
        let job = consumer::Job {
            consume,
            queues: own.map(|queue| (names[usize::from(queue)].clone(), queue)).collect(),
            ledger: usize::from(consumer % queues),
            standing: standing * self.plan.load.copies(),
            distribution: self.plan.load.distribution(),
            channels,
            answers: workflow == Workflow::Call,
            copies: self.plan.load.copies(),
        };
        self.running.push(consumer::start(self.target, job, &self.meter)?);
        Ok(())
    }

    fn relay_as(&mut self, worker: u16, consume: Consume) -> io::Result<()> {
        let Load { channels, confirms_in_flight, one_write_each, .. } = self.plan.load;
        let pair = |number: u16| relay::QueuePair {
            input: self.topology.queues[usize::from(number)].clone(),
            output: self.topology.outputs[usize::from(number)].clone(),
            number,
        };
        let pairs = self.queues_of(worker, consume.consumers).map(pair).collect();
        let job = relay::Job { consume, pairs, channels, confirms: confirms_in_flight.is_some(), one_write_each };
        self.running.push(relay::start(self.target, job, &self.meter)?);
        Ok(())
    }
}

/// One part of a number that is divided as evenly as possible.
fn share(whole: u64, parts: u16, part: u16) -> u64 {
    whole / u64::from(parts) + u64::from(u64::from(part) < whole % u64::from(parts))
}

/// Checks an idle connection: the broker sends it nothing unless it closes the connection.
fn is_still_idle(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    match stream.peek(&mut [0]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        _ => Err(io::Error::other("the broker closed an idle connection")),
    }
}
