//! Two brokers under the same load, in turn: the figures of each over all rounds, and how the medians compare.

use serde_json::{Map, Value, json};

/// One of the two brokers, and what came of its runs, as [`as_json`](super::report::as_json) says it.
#[derive(Clone, Debug)]
pub(super) struct Side {
    pub(super) broker: String,
    pub(super) outcomes: Vec<Value>,
}

/// What is compared: a field of a run's JSON, what it is called in words, and the unit it is said in.
struct Figure {
    field: &'static str,
    words: &'static str,
    unit: f64,
}

const FIGURES: [Figure; 6] = [
    Figure { field: "rate", words: "rate, 1/s", unit: 1.0 },
    Figure { field: "messages_per_broker_cpu_second", words: "per broker CPU s", unit: 1.0 },
    Figure { field: "latency_p50_us", words: "latency p50, us", unit: 1.0 },
    Figure { field: "latency_p99_us", words: "latency p99, us", unit: 1.0 },
    Figure { field: "probe_latency_p99_us", words: "disk probe p99, us", unit: 1.0 },
    Figure { field: "broker_resident_bytes", words: "memory, MiB", unit: 1_048_576.0 },
];

/// Least, middle and most of what the rounds brought.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Side {
    /// Of the rounds that have this figure; none when none has.
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

    /// Messages lost or come twice, in all rounds.
    pub(super) fn faults(&self) -> u64 {
        self.sum("faults")
    }
}

/// The first broker's median over the second's.
fn ratio(sides: &[Side; 2], field: &str) -> Option<f64> {
    let [first, second] = sides;
    let (first, second) = (first.spread(field)?.median, second.spread(field)?.median);
    (second != 0.0).then(|| first / second)
}

/// A table: a line for each figure that was measured.
pub(super) fn as_text(scenario: &str, sides: &[Side; 2]) -> String {
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

/// One object: every outcome as a run of its own says it, and the ratios under the names of the outcomes' fields.
pub(super) fn as_json(scenario: &str, sides: &[Side; 2]) -> Value {
    let brokers = sides.each_ref().map(|side| json!({ "broker": side.broker, "outcomes": side.outcomes }));
    let ratios =
        FIGURES.iter().filter_map(|figure| Some((figure.field.to_owned(), json!(ratio(sides, figure.field)?))));
    let ratios: Map<String, Value> = ratios.collect();
    json!({ "scenario": scenario, "rounds": sides[0].outcomes.len(), "brokers": brokers, "ratios": ratios })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sides() -> [Side; 2] {
        let outcome = |rate: f64| json!({ "rate": rate, "faults": 0 });
        let first = [40.0, 10.0, 20.0, 90.0].map(|rate| json!({ "rate": rate, "broker_resident_bytes": 3 << 20 }));
        let mut second = [1.0, 3.0, 20.0].map(outcome).to_vec();
        second.push(json!({ "rate": 2.0, "faults": 5, "gaps": 4, "duplicates": 1 }));
        let side = |name: &str, outcomes| Side { broker: name.to_owned(), outcomes };
        [side("here", first.to_vec()), side("there", second)]
    }

    #[test]
    fn a_spread_is_of_all_rounds_and_the_ratio_of_the_medians() {
        let sides = sides();
        assert_eq!(sides[0].spread("rate"), Some(Spread { min: 10.0, median: 30.0, max: 90.0 }));
        assert_eq!(ratio(&sides, "rate"), Some(12.0));
        assert_eq!(as_json("A", &sides)["ratios"], json!({ "rate": 12.0 }), "memory is known of one only");
    }

    #[test]
    fn the_table_has_what_was_measured_and_names_the_broker_that_lost_messages() {
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
