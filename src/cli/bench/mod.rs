//! `prontomq bench`: load for any AMQP 0-9-1 broker, and what it made of it.

mod client;
mod run;
mod scenario;

use clap::Args;
use client::Target;
use run::Outcome;
use scenario::{Load, Scenario};
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// Put load on an AMQP 0-9-1 broker and measure it.
#[derive(Debug, Args)]
pub(super) struct Bench {
    /// The broker.
    #[arg(long, default_value = "amqp://guest:guest@127.0.0.1:5672/%2f")]
    url: String,
    /// Which load: A (1 publisher, 1 consumer, 16 B transient, no-ack), B (1 KiB persistent, confirms and acks), C (publish
    /// only), D (drain a million), D2 (the same, persistent), E and F (confirm one by one, transient and persistent).
    #[arg(long, value_parser = |text: &str| text.parse::<Scenario>())]
    scenario: Scenario,
    /// Spread the load over so many queues.
    #[arg(long, default_value_t = 1)]
    queues: u32,
    /// Body bytes, instead of the scenario's.
    #[arg(long, value_parser = clap::value_parser!(u32).range(8..))]
    size: Option<u32>,
    /// Messages published before D or D2 drains them, instead of a million.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    standing: Option<u64>,
    /// Seconds to measure; a fifth of it goes before as warm-up. D and D2 run to their end.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// The broker's process, for its processor time and memory.
    #[arg(long)]
    broker_pid: Option<u32>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Bench {
    #[expect(clippy::print_stderr, reason = "the command line's own words")]
    pub(super) fn run(&self) -> ExitCode {
        let duration = Duration::from_secs(self.seconds);
        let outcome = Target::parse(&self.url).and_then(|target| {
            let load = self.load()?;
            run::run(&target, &load, duration, self.broker_pid).map_err(|error| error.to_string())
        });
        match outcome {
            Ok(outcome) => {
                let text = if self.json { self.as_json(&outcome) } else { self.as_text(&outcome) };
                // A closed stdout has nobody to be told.
                let _ = std::io::stdout().lock().write_all(text.as_bytes());
                if outcome.faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
            }
            Err(error) => {
                eprintln!("prontomq bench: {error}");
                ExitCode::FAILURE
            }
        }
    }

    fn load(&self) -> Result<Load, String> {
        let load = self.scenario.load();
        let standing = match self.standing {
            Some(_) if load.standing == 0 => return Err("--standing is for scenarios that drain: D and D2".into()),
            standing => standing.unwrap_or(load.standing),
        };
        let size = self.size.map_or(load.size, |size| size as usize);
        Ok(Load { queues: self.queues.max(1), size, standing, ..load })
    }

    fn as_text(&self, outcome: &Outcome) -> String {
        let rate = outcome.messages as f64 / outcome.seconds;
        let mut text = format!("{:?}: {rate:.0} messages/s", self.scenario);
        if let Some(cpu) = outcome.broker_cpu_seconds {
            text += &format!(", {:.0} per broker CPU second", outcome.messages as f64 / cpu.max(0.01));
        }
        if let Some(bytes) = outcome.broker_resident_bytes {
            text += &format!(", {} MiB resident", bytes >> 20);
        }
        if let Some((half, most)) = percentiles(&outcome.latencies_micros) {
            text += &format!(", confirm latency p50 {half} us, p99 {most} us");
        }
        if outcome.faults > 0 {
            text += &format!(", {} FAULTS in sequence", outcome.faults);
        }
        text + "\n"
    }

    fn as_json(&self, outcome: &Outcome) -> String {
        let mut fields = vec![
            format!("\"scenario\":\"{:?}\"", self.scenario),
            format!("\"messages\":{}", outcome.messages),
            format!("\"seconds\":{:.3}", outcome.seconds),
            format!("\"rate\":{:.1}", outcome.messages as f64 / outcome.seconds),
            format!("\"faults\":{}", outcome.faults),
        ];
        if let Some(cpu) = outcome.broker_cpu_seconds {
            fields.push(format!("\"broker_cpu_seconds\":{cpu:.2}"));
            let per_second = outcome.messages as f64 / cpu.max(0.01);
            fields.push(format!("\"messages_per_broker_cpu_second\":{per_second:.1}"));
        }
        if let Some(bytes) = outcome.broker_resident_bytes {
            fields.push(format!("\"broker_resident_bytes\":{bytes}"));
        }
        if let Some((half, most)) = percentiles(&outcome.latencies_micros) {
            fields.push(format!("\"latency_p50_us\":{half},\"latency_p99_us\":{most}"));
        }
        format!("{{{}}}\n", fields.join(","))
    }
}

fn percentiles(latencies_micros: &[u32]) -> Option<(u32, u32)> {
    let mut sorted = latencies_micros.to_vec();
    sorted.sort_unstable();
    let at = |share: f64| sorted.get((sorted.len() as f64 * share) as usize).copied();
    Some((at(0.50)?, at(0.99)?))
}
