//! `prontomq bench`: puts load on any AMQP 0-9-1 broker and measures it.

mod broker_frame;
mod client;
mod clock;
mod compare;
mod confirms;
mod connector;
mod consumer;
mod ledger;
mod message;
mod meter;
mod options;
mod pace;
mod plot;
mod probe;
mod process;
mod publisher;
mod relay;
mod report;
mod rpc;
mod run;
mod run_topology;
mod running;
mod scenario;
mod target;
mod watch;

use clap::Args;
use compare::BrokerRuns;
use indicatif::{ProgressBar, ProgressStyle};
use options::{LoadOptions, NamedLoad};
use run::{End, Plan};
use scenario::{Load, Size};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use target::Target;
use watch::{Outcome, Second};

/// Put load on an AMQP 0-9-1 broker and measure it.
///
/// The options below change the scenario's load. Each publisher and each consumer has its own connection. All received
/// messages are checked: the exit code is 1 if a message is lost or duplicated, or if the broker refuses, blocks
/// (connection.blocked) or ends the load.
#[derive(Debug, Args)]
pub(super) struct Bench {
    /// The URL of the broker.
    #[arg(long, default_value = "amqp://guest:guest@127.0.0.1:5672/%2f")]
    url: String,
    /// The run fails if the broker does not answer, or no message moves, for this long.
    #[arg(long, default_value = "20s", value_parser = positive_duration)]
    patience: Duration,
    #[command(flatten)]
    load: LoadOptions,
    /// How long to measure: 500ms, 5s, 10m, 1h. D and D2 run until the queue is empty.
    #[arg(long, default_value = "5s", value_parser = positive_duration)]
    duration: Duration,
    /// Publish this many messages instead, and measure until all are received and, with confirms, confirmed.
    #[arg(long, conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// How long to run before measuring; by default a fifth of the duration.
    #[arg(long, conflicts_with = "count", value_parser = duration)]
    warm_up: Option<Duration>,
    /// The id of the broker's process, to measure its processor time and memory.
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
    /// Measure the disk itself: every 5 ms, append the bytes published since to this file and flush it. The file grows
    /// by all published bytes.
    #[arg(long, value_name = "FILE")]
    probe: Option<PathBuf>,
    /// Write comma-separated values to this file, one line per second.
    #[arg(long, value_name = "FILE", conflicts_with = "set")]
    series: Option<PathBuf>,
    /// Draw rate and latencies over time into this file.
    #[arg(long, value_name = "FILE.svg", conflicts_with = "set")]
    plot: Option<PathBuf>,
    /// Compare with another broker, which gets the same load in turn with the first.
    #[arg(long, value_name = "URL", conflicts_with_all = ["series", "plot"])]
    compare: Option<String>,
    /// The id of the other broker's process.
    #[arg(long, value_name = "PID", requires = "compare")]
    compare_pid: Option<u32>,
    /// Number of runs for each of the two brokers.
    #[arg(long, default_value = "5", requires = "compare", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Print one JSON object per scenario, each on a line of its own.
    #[arg(long)]
    json: bool,
}

/// The text to print, and the number of lost and duplicate messages.
struct Report {
    text: String,
    faults: u64,
}

impl Bench {
    #[expect(clippy::print_stderr, reason = "the command line's own words")]
    pub(super) fn run(&self) -> ExitCode {
        pace::wake_in_time();
        match self.run_all() {
            Ok(0) => ExitCode::SUCCESS,
            Ok(_) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("prontomq bench: {error}");
                ExitCode::FAILURE
            }
        }
    }

    /// Runs the loads one after another and prints each report. Returns the number of lost and duplicate messages.
    fn run_all(&self) -> Result<u64, String> {
        let mut faults = 0;
        for named in self.load.loads()? {
            let report = match &self.compare {
                None => self.measure(named),
                Some(other) => self.measure_in_turn(named, other),
            }?;
            // If stdout is closed, the result cannot be reported.
            let _ = std::io::stdout().lock().write_all(report.text.as_bytes());
            faults += report.faults;
        }
        Ok(faults)
    }

    fn measure(&self, NamedLoad { name, load }: NamedLoad) -> Result<Report, String> {
        let target = Target::parse(&self.url, self.patience)?;
        let plan = self.plan(load)?;
        let outcome = watched(&target, &plan)?;
        let write = |path: &PathBuf, text: String| {
            std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
        };
        if let Some(path) = &self.series {
            write(path, report::as_csv(&outcome.seconds))?;
        }
        if let Some(path) = &self.plot {
            write(path, plot::as_svg(&title(&name, &plan.load), &outcome.seconds)?)?;
        }
        let text = if self.json {
            format!("{}\n", report::as_json(&name, &outcome))
        } else {
            report::as_text(&name, &plan.load, &outcome)
        };
        Ok(Report { text, faults: outcome.faults.count() })
    }

    /// Measures two brokers in turn, so that changes of the machine affect both.
    fn measure_in_turn(&self, NamedLoad { name, load }: NamedLoad, other: &str) -> Result<Report, String> {
        let plan = self.plan(load)?;
        let targets = [Target::parse(&self.url, self.patience)?, Target::parse(other, self.patience)?];
        let plans = [plan.clone(), Plan { broker_pid: self.compare_pid, ..plan }];
        let mut sides =
            targets.each_ref().map(|target| BrokerRuns { broker: target.address.clone(), outcomes: Vec::new() });
        for round in 1..=self.rounds {
            for ((target, plan), side) in targets.iter().zip(&plans).zip(&mut sides) {
                let outcome = watched(target, plan);
                let outcome = outcome.map_err(|error| format!("round {round}, {}: {error}", side.broker))?;
                side.outcomes.push(report::as_json(&name, &outcome));
            }
        }
        let text =
            if self.json { format!("{}\n", compare::as_json(&name, &sides)) } else { compare::as_text(&name, &sides) };
        Ok(Report { text, faults: sides.iter().map(BrokerRuns::faults).sum() })
    }

    fn plan(&self, load: Load) -> Result<Plan, String> {
        let end = self.count.map_or(End::After(self.duration), End::Count);
        let warm_up = self.warm_up.unwrap_or(self.duration / 5);
        let (broker_pid, probe) = (self.broker_pid, self.probe.clone());
        for (option, pid) in [("--broker-pid", broker_pid), ("--compare-pid", self.compare_pid)] {
            if let Some(pid) = pid.filter(|pid| process::cpu_seconds(*pid).is_none()) {
                return Err(format!("{option}: there is no process {pid} in /proc"));
            }
        }
        Ok(Plan { load, warm_up, end, broker_pid, probe })
    }
}

/// The title of a plot.
fn title(name: &str, load: &Load) -> String {
    let size = match load.size {
        Size { least, most } if least < most => format!("{least}..{most}"),
        Size { most, .. } => most.to_string(),
    };
    let mut title = format!("{name}: {size} B");
    if load.standing > 0 {
        title += &format!(", {} standing", load.standing);
    }
    if let Some(rate) = load.rate {
        title += &format!(", {rate}/s");
    }
    title
}

/// Runs the plan once, and shows its progress.
fn watched(target: &Target, plan: &Plan) -> Result<Outcome, String> {
    let bar = ProgressBar::new_spinner()
        .with_style(ProgressStyle::with_template("{spinner} {msg}").expect("the template is a constant"));
    let outcome = run::run(target, plan, |second| show(&bar, second)).map_err(|error| error.to_string());
    bar.finish_and_clear();
    outcome
}

/// Shows a second of the run on stderr, only on a terminal.
fn show(bar: &ProgressBar, second: &Second) {
    let latencies_first = [&second.round_trip, &second.confirm];
    let latencies = latencies_first.into_iter().find(|latencies| !latencies.is_empty()).unwrap_or(&second.delivery);
    let (p99, max) = (latencies.value_at_quantile(0.99), latencies.max());
    let at = second.at.as_secs_f64();
    bar.set_message(format!("{at:.0} s: {:.0}/s, latency p99 {p99} us, max {max} us", second.rate));
    bar.tick();
}

/// Reads a number with its unit: ms, s, m, h; seconds without one.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()));
    let scale = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("expected a duration such as 500ms, 5s, 10m or 1h".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| "expected a number and a unit, such as 5s".to_owned())?;
    Duration::try_from_secs_f64(number * scale).map_err(|error| error.to_string())
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    duration(text).and_then(
        |duration| {
            if duration.is_zero() { Err("expected more than 0".to_owned()) } else { Ok(duration) }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        assert!(duration("5 parsecs").is_err() && duration("s").is_err() && duration("-1s").is_err());
    }
}
