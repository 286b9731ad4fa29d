//! Compares two brokers that get the same load in turn: the figures of each over all rounds, and the ratios of the
//! medians.

use serde_json::{Map, Value, json};

/// One of the two brokers, and the outcomes of its runs in the form of [`as_json`](super::report::as_json).
#[derive(Clone, Debug)]
pub(super) struct BrokerRuns {
    pub(super) broker: String,
    pub(super) outcomes: Vec<Value>,
}

/// A figure to compare: the field of a run's JSON, its name in the table, and its unit there.
struct Figure {
    field: &'static str,
    words: &'static str,
    unit: f64,
}

const FIGURES: [Figure; 7] = [
    Figure { field: "rate", words: "rate, 1/s", unit: 1.0 },
    Figure { field: "messages_per_broker_cpu_second", words: "per broker CPU s", unit: 1.0 },
    Figure { field: "latency_p50_us", words: "latency p50, us", unit: 1.0 },
    Figure { field: "latency_p99_us", words: "latency p99, us", unit: 1.0 },
    Figure { field: "latency_p999_us", words: "latency p99.9, us", unit: 1.0 },
    Figure { field: "probe_latency_p99_us", words: "disk probe p99, us", unit: 1.0 },
    Figure { field: "broker_resident_bytes", words: "memory, MiB", unit: 1_048_576.0 },
];

/// Minimum, median and maximum over the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl BrokerRuns {
    /// The spread over the rounds that have this figure; `None` if no round has it.
    fn spread(&self, field: &str) -> Option<Spread> {
        let mut values: Vec<f64> = self.outcomes.iter().filter_map(|outcome| outcome[field].as_f64()).collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let (lower, upper) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Spread { min, median: f64::midpoint(lower, upper), max })
    }

    fn sum(&self, field: &str) -> u64 {
        self.outcomes.iter().filter_map(|outcome| outcome[field].as_u64()).sum()
    }

    /// Number of lost and duplicate messages in all rounds.
    pub(super) fn faults(&self) -> u64 {
        self.sum("faults")
    }
}

/// The first broker's median divided by the second's.
fn ratio(sides: &[BrokerRuns; 2], field: &str) -> Option<f64> {
    let [first, second] = sides;
    let (first, second) = (first.spread(field)?.median, second.spread(field)?.median);
    (second != 0.0).then(|| first / second)
}

/// A table with a line for each measured figure.
pub(super) fn as_text(scenario: &str, sides: &[BrokerRuns; 2]) -> String {
    let [first, second] = sides;
    let rounds = first.outcomes.len();
    let mut lines = vec![format!("{scenario}: {rounds} rounds, first {}, second {}", first.broker, second.broker)];
    let head = ["first min", "median", "max", "second min", "median", "max"].map(|name| format!("{name:>12}")).concat();
    lines.push(format!("{:20}{head}{:>9}", "", "ratio"));
    for Figure { field, words, unit } in FIGURES {
        let spreads = [first.spread(field), second.spread(field)];
        if spreads == [None, None] {
            continue;
        }
        let cells = spreads.map(|spread| {
            spread.map_or(format!("{:>12}", "-").repeat(3), |Spread { min, median, max }| {
                [min, median, max].map(|value| format!("{:>12.0}", value / unit)).concat()
            })
        });
        let ratio = ratio(sides, field).map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        lines.push(format!("{words:20}{}{ratio:>9}", cells.concat()));
    }
    for side in sides.iter().filter(|side| side.faults() > 0) {
        lines.push(format!("FAULTS, {}: {} lost, {} twice", side.broker, side.sum("gaps"), side.sum("duplicates")));
    }
    lines.join("\n") + "\n"
}

/// One object: all outcomes, each in the form of a single run, and the ratios under the same field names.
pub(super) fn as_json(scenario: &str, sides: &[BrokerRuns; 2]) -> Value {
    let brokers = sides.each_ref().map(|side| json!({ "broker": side.broker, "outcomes": side.outcomes }));
    let ratios =
        FIGURES.iter().filter_map(|figure| Some((figure.field.to_owned(), json!(ratio(sides, figure.field)?))));
    let ratios: Map<String, Value> = ratios.collect();
    json!({ "scenario": scenario, "rounds": sides[0].outcomes.len(), "brokers": brokers, "ratios": ratios })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sides() -> [BrokerRuns; 2] {
        let outcome = |rate: f64| json!({ "rate": rate, "faults": 0 });
        let first = [40.0, 10.0, 20.0, 90.0].map(|rate| json!({ "rate": rate, "broker_resident_bytes": 3 << 20 }));
        let mut second = [1.0, 3.0, 20.0].map(outcome).to_vec();
        second.push(json!({ "rate": 2.0, "faults": 5, "gaps": 4, "duplicates": 1 }));
        let side = |name: &str, outcomes| BrokerRuns { broker: name.to_owned(), outcomes };
        [side("here", first.to_vec()), side("there", second)]
    }

    #[test]
    fn a_spread_covers_all_rounds_and_a_ratio_compares_medians() {
        let sides = sides();
        assert_eq!(sides[0].spread("rate"), Some(Spread { min: 10.0, median: 30.0, max: 90.0 }));
        assert_eq!(ratio(&sides, "rate"), Some(12.0));
        assert_eq!(as_json("A", &sides)["ratios"], json!({ "rate": 12.0 }), "memory is known of one only");
    }

    #[test]
    fn the_table_has_the_measured_figures_and_names_the_broker_that_lost_messages() {
        let text = as_text("A", &sides());
        let cells = |begin: &str| -> Vec<String> {
            let line = text.lines().find(|line| line.starts_with(begin)).unwrap();
            line[20..].split_whitespace().map(str::to_owned).collect()
        };
        assert_eq!(cells("rate"), ["10", "30", "90", "1", "2", "20", "12.00"]);
        assert_eq!(cells("memory"), ["3", "3", "3", "-", "-", "-", "-"]);
        assert!(!text.contains("latency") && text.contains("FAULTS, there: 4 lost, 1 twice"), "{text}");
    }
}
