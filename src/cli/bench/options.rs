//! The options that change a scenario's load, and the combinations that are refused.

use super::client::CHANNEL_MAX;
use super::message::MessageStamp;
use super::scenario::{Consume, Kind, Load, Route, Scenario, ScenarioSet, Size, Workflow};
use clap::Args;

/// A scenario, and changes of it.
#[derive(Debug, Args)]
pub(super) struct LoadOptions {
    #[command(flatten)]
    choice: ScenarioOptions,
    /// Number of queues; publishers publish to each in turn.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    queues: Option<u16>,
    /// Number of connections that publish.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    publishers: Option<u16>,
    /// Number of connections that consume, 0 for none. Relay has the same number of workers in addition.
    #[arg(long)]
    consumers: Option<u16>,
    /// Number of additional connections that stay idle.
    #[arg(long, default_value = "0")]
    connections: u16,
    /// Channels of each connection; publishers use each in turn, and each has a consumer.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u16).range(1..=i64::from(CHANNEL_MAX)))]
    channels: u16,
    /// Body bytes, at least 16; or two limits, such as 16..1024, between which sizes are uniformly distributed.
    #[arg(long, value_parser = size)]
    size: Option<Size>,
    /// Number of priorities, from 0, which messages have in turn, in priority queues; 1 for none.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    priorities: Option<u16>,
    /// Publish through an exchange of this kind.
    #[arg(long, value_enum)]
    exchange: Option<Kind>,
    /// Number of bindings of the exchange, distributed among the queues; by default one per queue. Messages match each
    /// in turn.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    bindings: Option<u32>,
    /// Messages per second of all publishers together; latencies then count from the time at which a message was due.
    /// Without it, and without confirms (A, D, fanout, queues, topic), delivery latencies are mostly time in the queue.
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    #[command(flatten)]
    acks: AckOptions,
    /// Whether messages are persistent, in durable queues.
    #[arg(long)]
    persistent: Option<bool>,
    /// Number of messages that are published first: D and D2 drain them, in other scenarios they stay in the queues.
    #[arg(long)]
    standing: Option<u64>,
    /// Write each message by itself instead of in batches.
    #[arg(long)]
    one_write_each: bool,
}

/// What is changed.
#[derive(Args, Debug)]
struct ScenarioOptions {
    /// The load to run.
    #[arg(long, value_enum, ignore_case = true, default_value = "A")]
    scenario: Scenario,
    /// Run these scenarios one after another; the other options change each of them.
    #[arg(long, value_enum, conflicts_with = "scenario")]
    set: Option<ScenarioSet>,
}

/// Confirms and acknowledgements.
#[derive(Args, Debug)]
struct AckOptions {
    /// Most unconfirmed publishes of each publisher, 0 for no confirms. With 0, the workers of relay acknowledge as
    /// soon as they have published.
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    confirms: Option<u64>,
    /// Most unacknowledged deliveries of each consumer, 0 for no-ack.
    #[arg(long)]
    prefetch: Option<u16>,
    /// Acknowledge this many deliveries at a time.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    ack_every: Option<u32>,
}

/// A load, and the name of the scenario that it comes from.
#[derive(Clone, Debug)]
pub(super) struct NamedLoad {
    pub(super) name: String,
    pub(super) load: Load,
}

impl LoadOptions {
    /// The loads to run one after another, or the reason why the options are refused.
    pub(super) fn loads(&self) -> Result<Vec<NamedLoad>, String> {
        let scenarios = self.choice.set.map_or_else(|| vec![self.choice.scenario], |set| set.scenarios().to_vec());
        scenarios
            .into_iter()
            .map(|scenario| Ok(NamedLoad { name: scenario.name(), load: self.load(scenario)? }))
            .collect()
    }

    fn load(&self, scenario: Scenario) -> Result<Load, String> {
        let scenario = scenario.load();
        let or_none = |option: Option<u64>, scenario| option.map_or(scenario, |some| (some > 0).then_some(some));
        let route = match (self.exchange, scenario.route) {
            (Some(kind), Route::Queue) => Route::Exchange { kind, bindings: self.bindings },
            (other, Route::Exchange { kind, bindings }) => {
                Route::Exchange { kind: other.unwrap_or(kind), bindings: self.bindings.or(bindings) }
            }
            (None, Route::Queue) => Route::Queue,
        };
        let load = Load {
            queues: self.queues.unwrap_or(scenario.queues),
            publishers: self.publishers.unwrap_or(scenario.publishers),
            idle_connections: self.connections,
            channels: self.channels,
            size: self.size.unwrap_or(scenario.size),
            priorities: self.priorities.unwrap_or(scenario.priorities),
            persistent: self.persistent.unwrap_or(scenario.persistent),
            confirms_in_flight: or_none(self.acks.confirms, scenario.confirms_in_flight),
            consume: self.consume(scenario.consume),
            route,
            workflow: scenario.workflow,
            standing: self.standing.unwrap_or(scenario.standing),
            rate: self.rate,
            one_write_each: self.one_write_each || self.choice.set.is_some_and(ScenarioSet::writes_each),
            ahead_max: scenario.ahead_max,
        };
        let refusal = self.refusals(&load).into_iter().find(|(is_so, _)| *is_so);
        refusal.map_or(Ok(load), |(_, why)| Err(why.to_owned()))
    }

    fn consume(&self, scenario: Option<Consume>) -> Option<Consume> {
        let consumers = self.consumers.unwrap_or(scenario.map_or(0, |consume| consume.consumers));
        let prefetch = scenario.and_then(|consume| consume.prefetch);
        let prefetch = self.acks.prefetch.map_or(prefetch, |prefetch| (prefetch > 0).then_some(prefetch));
        let ack_every = self.acks.ack_every.unwrap_or(1);
        (consumers > 0).then_some(Consume { consumers, prefetch, ack_every })
    }

    /// Combinations that are impossible or without effect, each with the reason.
    fn refusals(&self, load: &Load) -> [(bool, &'static str); 18] {
        let (drains, calls) = (load.workflow == Workflow::Drain, load.workflow == Workflow::Call);
        let (connects, relays) = (load.workflow == Workflow::Connect, load.workflow == Workflow::Relay);
        let consumes = load.consume.is_some();
        let prefetch = load.consume.and_then(|consume| consume.prefetch);
        let bindings = match load.route {
            Route::Exchange { bindings, .. } => bindings,
            Route::Queue => None,
        };
        [
            (drains && load.standing == 0, "there must be something to drain"),
            (drains && !consumes, "a drain needs a consumer"),
            (drains && load.rate.is_some(), "--rate: a drain publishes nothing while it is measured"),
            (drains && self.publishers.is_some(), "--publishers: a drain publishes nothing while it is measured"),
            (calls && !consumes, "rpc needs a consumer that answers"),
            (calls && load.standing > 0, "--standing: every request of rpc would wait behind those messages"),
            (calls && load.copies() > 1, "rpc: a request that goes to several queues has several answers"),
            (calls && self.acks.confirms.is_some(), "--confirms: a requester of rpc waits for the answer"),
            (relays && !consumes, "relay needs consumers, and workers before them"),
            (relays && consumes && prefetch.is_none(), "--prefetch: the workers of relay acknowledge what they take"),
            (relays && load.standing > 0, "--standing: the workers of relay leave nothing standing"),
            (connects && self.acks.confirms.is_some(), "--confirms: a connection that is closed has its message taken"),
            ((calls || connects) && load.one_write_each, "--one-write-each: there is one message at a time anyway"),
            (self.bindings.is_some() && load.route == Route::Queue, "--bindings needs --exchange"),
            (
                bindings.is_some_and(|bindings| bindings < load.queues.into()),
                "--bindings is less than --queues: some queues would get nothing",
            ),
            (!consumes && self.acks.prefetch.is_some(), "--prefetch needs --consumers"),
            (self.acks.ack_every.is_some() && prefetch.is_none(), "--ack-every needs --prefetch"),
            (
                self.acks.ack_every.zip(prefetch).is_some_and(|(every, prefetch)| every > prefetch.into()),
                "--ack-every is more than --prefetch",
            ),
        ]
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if rate > 0.0 && rate.is_finite() { Ok(rate) } else { Err("expected more than 0".to_owned()) }
}

/// Parses a size, or two limits with `..` between them; both limits are included.
fn size(text: &str) -> Result<Size, String> {
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    let [least, most] = [least, most].map(|size| size.parse::<u32>().map(|size| size as usize));
    match (least, most) {
        (Ok(least), Ok(most)) if least < MessageStamp::BYTES || most < MessageStamp::BYTES => {
            Err(format!("expected at least {} bytes", MessageStamp::BYTES))
        }
        (Ok(least), Ok(most)) if least <= most => Ok(Size { least, most }),
        _ => Err("expected a number of bytes, or two such as 16..1024, the lesser first".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_or_a_range() {
        assert_eq!(size("16"), Ok(Size::of(16)));
        assert_eq!(size("16..1024"), Ok(Size { least: 16, most: 1024 }));
        for wrong in ["", "15", "15..20", "20..16", "16..", "16..20..30", "x"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
