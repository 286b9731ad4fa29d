//! The queues and the exchange of a run, on the broker.

use super::client::{Client, Queue};
use super::message::Envelope;
use super::scenario::{Course, Kind, Load, Route};
use super::target::Target;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Keys that messages bear in turn, at most, where there are many bindings.
const KEYS_MAX: u32 = 1000;
/// The header that a headers exchange looks at.
const HEADER: &str = "bench";

/// Queues and exchange of a run.
pub(super) struct Stage {
    /// What the names of its queues and exchanges begin with, and no other run's.
    pub(super) name: Arc<str>,
    pub(super) control: Client,
    pub(super) queues: Vec<String>,
    /// The queues that workers publish to, one for each of the others; none without workers.
    pub(super) outputs: Vec<String>,
    exchange: Option<String>,
    /// Where messages go, in turn: the first to the first queue, and so on.
    pub(super) envelopes: Arc<[Envelope]>,
}

/// The runs of this process so far.
static RUNS: AtomicU32 = AtomicU32::new(0);

impl Stage {
    pub(super) fn set(target: &Target, load: &Load) -> io::Result<Self> {
        let run = RUNS.fetch_add(1, Ordering::Relaxed) + 1;
        let name: Arc<str> = format!("bench-{}-{run}", std::process::id()).into();
        let queues: Vec<String> = (0..load.queues).map(|number| format!("{name}-{number}")).collect();
        let outputs = if load.course == Course::Relay { load.queues } else { 0 };
        let outputs: Vec<String> = (0..outputs).map(|number| format!("{name}-out-{number}")).collect();
        let mut control = Client::connect(target, 1)?;
        for queue in queues.iter().chain(&outputs) {
            control.declare(&declared(queue, load))?;
        }
        let Route::Exchange { kind, bindings } = load.route else {
            let envelopes = queues.iter().map(|queue| Envelope::new("", queue)).collect();
            return Ok(Self { name, control, queues, outputs, exchange: None, envelopes });
        };
        control.declare_exchange(&name, kind.name())?;
        let bindings = bindings.unwrap_or(load.queues.into());
        for (number, queue) in (0..bindings).zip(queues.iter().cycle()) {
            let (key, value) = (kind.binding_key(number), number.to_string());
            control.bind(queue, &name, &key, (kind == Kind::Headers).then_some((HEADER, &value)))?;
        }
        // As many keys for each queue as for any other, so that messages go to the queues in turn.
        let keys = bindings.min(KEYS_MAX.max(load.queues.into())) / u32::from(load.queues) * u32::from(load.queues);
        let envelope = |number: u32| Envelope {
            header: (kind == Kind::Headers).then(|| (HEADER, number.to_string())),
            ..Envelope::new(&name, &kind.routing_key(number))
        };
        let envelopes = (0..keys).map(envelope).collect();
        let exchange = Some(name.to_string());
        Ok(Self { name, control, queues, outputs, exchange, envelopes })
    }

    /// Answers once the broker has taken what was written to other connections before.
    pub(super) fn ask(&mut self, load: &Load) -> io::Result<()> {
        self.control.declare(&declared(&self.queues[0], load))
    }

    pub(super) fn strike(mut self) -> io::Result<()> {
        for queue in self.queues.iter().chain(&self.outputs) {
            self.control.delete(queue)?;
        }
        self.exchange.iter().try_for_each(|exchange| self.control.delete_exchange(exchange))
    }
}

fn declared<'a>(name: &'a str, load: &Load) -> Queue<'a> {
    Queue { name, durable: load.persistent, exclusive: false, priorities: load.priorities }
}
