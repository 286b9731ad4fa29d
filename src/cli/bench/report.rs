//! Reports the outcome of a run: as text, as JSON, and as a table of its seconds.

use super::meter::Micros;
use super::scenario::{Load, Workflow};
use super::watch::{Outcome, Second};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The shortest processor time to divide by: one tick.
const CPU_SECONDS_MIN: f64 = 0.01;

fn per_cpu_second(outcome: &Outcome) -> Option<f64> {
    Some(outcome.messages as f64 / outcome.broker_cpu_seconds?.max(CPU_SECONDS_MIN))
}

fn rate(outcome: &Outcome) -> f64 {
    outcome.messages as f64 / outcome.elapsed.as_secs_f64().max(1e-9)
}

/// The shortest last interval of a run that counts as a whole second.
const SECOND_MIN: Duration = Duration::from_millis(900);

/// The rates of the whole seconds, sorted. A shorter last second counts only if it is the only one.
fn rates(seconds: &[Second]) -> Vec<f64> {
    let whole = match seconds {
        [rest @ .., before, last] if last.at - before.at < SECOND_MIN => &seconds[..=rest.len()],
        all => all,
    };
    let mut rates: Vec<f64> = whole.iter().map(|second| second.rate).collect();
    rates.sort_by(f64::total_cmp);
    rates
}

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)];

/// The reason why a load's delivery latencies depend more on the load than on the broker; `None` if they do not.
fn caveat(load: &Load) -> Option<&'static str> {
    match load.workflow {
        Workflow::Drain => Some("most of it is time in the queue, before the drain began"),
        Workflow::Flow if load.rate.is_none() && load.confirms_in_flight.is_none() => Some(
            "most of it is time in the queue, as publishers wait for nothing; use --rate for the latency of a steady load",
        ),
        _ => None,
    }
}

pub(super) fn as_text(scenario: &str, load: &Load, outcome: &Outcome) -> String {
    let mut lines = vec![format!(
        "{scenario}: {} messages in {:.1} s, {:.0}/s",
        outcome.messages,
        outcome.elapsed.as_secs_f64(),
        rate(outcome)
    )];
    let rates = rates(&outcome.seconds);
    if let (Some(least), Some(most)) = (rates.first(), rates.last()) {
        lines.push(format!("rate, 1/s       min {least:.0}  median {:.0}  max {most:.0}", rates[rates.len() / 2]));
    }
    for (name, latencies) in [
        ("round trip, us", &outcome.round_trip),
        ("confirm, us", &outcome.confirm),
        ("delivery, us", &outcome.delivery),
        ("disk probe, us", &outcome.probe),
    ] {
        if !latencies.is_empty() {
            let value = |quantile| latencies.value_at_quantile(quantile);
            let [half, p99, p999, max] = QUANTILES.map(|(_, quantile)| value(quantile));
            lines.push(format!("{name:15} p50 {half}  p99 {p99}  p99.9 {p999}  max {max}"));
        }
    }
    if let Some(caveat) = caveat(load).filter(|_| !outcome.delivery.is_empty()) {
        lines.push(format!("{:15} {caveat}", ""));
    }
    let mut cpu = format!("CPU, s          client {:.2}", outcome.client_cpu_seconds);
    if let (Some(broker), Some(per_second)) = (outcome.broker_cpu_seconds, per_cpu_second(outcome)) {
        cpu += &format!("  broker {broker:.2}, {per_second:.0} messages per second of it");
    }
    if let Some(foreign) = outcome.foreign_cpu_seconds {
        cpu += &format!("  others {foreign:.2}");
    }
    lines.push(cpu);
    if let Some(bytes) = outcome.broker_resident_bytes {
        lines.push(format!("memory          broker {:.1} MiB at most", bytes as f64 / f64::from(1 << 20)));
    }
    if outcome.faults.count() > 0 {
        lines.push(format!("FAULTS          {} lost, {} twice", outcome.faults.gaps, outcome.faults.duplicates));
    }
    lines.join("\n") + "\n"
}

/// One object. `latency_*` is the latency of round trips; without these, of confirms; without these, of deliveries.
pub(super) fn as_json(scenario: &str, outcome: &Outcome) -> Value {
    let rates = rates(&outcome.seconds);
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("scenario", json!(scenario));
    put("messages", json!(outcome.messages));
    put("seconds", json!(outcome.elapsed.as_secs_f64()));
    put("rate", json!(rate(outcome)));
    put("rate_min", json!(rates.first()));
    put("rate_median", json!(rates.get(rates.len() / 2)));
    put("rate_max", json!(rates.last()));
    let latencies_first = [&outcome.round_trip, &outcome.confirm];
    let latency = latencies_first.into_iter().find(|latencies| !latencies.is_empty()).unwrap_or(&outcome.delivery);
    for (name, latencies) in [
        ("latency", latency),
        ("confirm_latency", &outcome.confirm),
        ("delivery_latency", &outcome.delivery),
        ("round_trip_latency", &outcome.round_trip),
        ("probe_latency", &outcome.probe),
    ] {
        for (quantile, value) in quantiles(latencies) {
            put(&format!("{name}_{quantile}_us"), json!(value));
        }
    }
    put("client_cpu_seconds", json!(outcome.client_cpu_seconds));
    if let (Some(broker), Some(per_second)) = (outcome.broker_cpu_seconds, per_cpu_second(outcome)) {
        put("broker_cpu_seconds", json!(broker));
        put("messages_per_broker_cpu_second", json!(per_second));
    }
    if let Some(foreign) = outcome.foreign_cpu_seconds {
        put("foreign_cpu_seconds", json!(foreign));
    }
    if let Some(bytes) = outcome.broker_resident_bytes {
        put("broker_resident_bytes", json!(bytes));
    }
    put("faults", json!(outcome.faults.count()));
    put("gaps", json!(outcome.faults.gaps));
    put("duplicates", json!(outcome.faults.duplicates));
    Value::Object(object)
}

fn quantiles(latencies: &Micros) -> Vec<(&'static str, u64)> {
    if latencies.is_empty() {
        return Vec::new();
    }
    QUANTILES.iter().map(|(name, quantile)| (*name, latencies.value_at_quantile(*quantile))).collect()
}

/// Comma-separated values, a line for each second. Latencies are in microseconds, and empty if not measured.
pub(super) fn as_csv(seconds: &[Second]) -> String {
    let mut text = String::from(
        "second,rate,confirm_p50_us,confirm_p99_us,confirm_p999_us,confirm_max_us,probe_p99_us,probe_max_us,broker_resident_bytes,\
         round_trip_p50_us,round_trip_p99_us,round_trip_p999_us,round_trip_max_us\n",
    );
    for second in seconds {
        let mut cells = vec![format!("{:.3}", second.at.as_secs_f64()), format!("{:.1}", second.rate)];
        let cell = |latencies: &Micros, quantile| match latencies.is_empty() {
            true => String::new(),
            false => latencies.value_at_quantile(quantile).to_string(),
        };
        cells.extend(QUANTILES.map(|(_, quantile)| cell(&second.confirm, quantile)));
        cells.extend([0.99, 1.0].map(|quantile| cell(&second.probe, quantile)));
        cells.push(second.broker_resident_bytes.map(|bytes| bytes.to_string()).unwrap_or_default());
        cells.extend(QUANTILES.map(|(_, quantile)| cell(&second.round_trip, quantile)));
        text += &(cells.join(",") + "\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::meter::no_latencies;
    use super::*;

    fn second(millis: u64, rate: f64) -> Second {
        Second {
            at: Duration::from_millis(millis),
            rate,
            confirm: no_latencies(),
            delivery: no_latencies(),
            round_trip: no_latencies(),
            probe: no_latencies(),
            broker_resident_bytes: None,
        }
    }

    #[test]
    fn a_last_second_counts_if_it_is_whole_or_the_only_one() {
        assert_eq!(rates(&[second(1000, 7.0), second(2000, 5.0)]), [5.0, 7.0]);
        assert_eq!(rates(&[second(1000, 7.0), second(1300, 5.0)]), [7.0]);
        assert_eq!(rates(&[second(300, 5.0)]), [5.0]);
    }
}
