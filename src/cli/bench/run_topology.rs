//! The queues and the exchange that a run declares on the broker.

use super::client::{Client, Queue};
use super::message::Envelope;
use super::scenario::{Kind, Load, Route, Workflow};
use super::target::Target;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Most routing keys that messages have in turn, if there are many bindings.
const KEYS_MAX: u32 = 1000;
/// The header that a headers exchange matches.
const HEADER: &str = "bench";

/// The queues and the exchange of a run.
pub(super) struct RunTopology {
    /// Prefix of the names of its queues and exchange, which no other run has.
    pub(super) name: Arc<str>,
    pub(super) control: Client,
    pub(super) queues: Vec<String>,
    /// The queues to which workers publish, one per input queue; empty without workers.
    pub(super) outputs: Vec<String>,
    exchange: Option<String>,
    /// The addresses of messages, in turn: the first leads to the first queue, and so on.
    pub(super) envelopes: Arc<[Envelope]>,
}

/// Number of runs of this process so far.
static RUNS: AtomicU32 = AtomicU32::new(0);

impl RunTopology {
    pub(super) fn declare(target: &Target, load: &Load) -> io::Result<Self> {
        let run = RUNS.fetch_add(1, Ordering::Relaxed) + 1;
        let name: Arc<str> = format!("bench-{}-{run}", std::process::id()).into();
        let queues: Vec<String> = (0..load.queues).map(|number| format!("{name}-{number}")).collect();
        let outputs = if load.workflow == Workflow::Relay { load.queues } else { 0 };
        let outputs: Vec<String> = (0..outputs).map(|number| format!("{name}-out-{number}")).collect();
        let mut control = Client::connect(target, 1)?;
        for queue in queues.iter().chain(&outputs) {
            control.declare(&queue_of(queue, load))?;
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
        // Each queue has the same number of keys, so that messages go to the queues in turn.
        let keys = bindings.min(KEYS_MAX.max(load.queues.into())) / u32::from(load.queues) * u32::from(load.queues);
        let envelope = |number: u32| Envelope {
            header: (kind == Kind::Headers).then(|| (HEADER, number.to_string())),
            ..Envelope::new(&name, &kind.routing_key(number))
        };
        let envelopes = (0..keys).map(envelope).collect();
        let exchange = Some(name.to_string());
        Ok(Self { name, control, queues, outputs, exchange, envelopes })
    }

    /// Returns once the broker has taken everything that was written to other connections before.
    pub(super) fn sync(&mut self, load: &Load) -> io::Result<()> {
        self.control.declare(&queue_of(&self.queues[0], load))
    }

    pub(super) fn delete(mut self) -> io::Result<()> {
        for queue in self.queues.iter().chain(&self.outputs) {
            self.control.delete(queue)?;
        }
        self.exchange.iter().try_for_each(|exchange| self.control.delete_exchange(exchange))
    }
}

fn queue_of<'a>(name: &'a str, load: &Load) -> Queue<'a> {
    Queue { name, durable: load.persistent, exclusive: false, priorities: load.priorities }
}
