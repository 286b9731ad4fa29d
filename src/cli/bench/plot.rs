//! A run as a picture: its rate, and below its latencies, over time.

use super::meter::{Micros, no_latencies};
use super::watch::Second;
use std::fmt::Write;

const WIDTH: f64 = 900.0;
const PANEL_HEIGHT: f64 = 220.0;
const MARGIN: f64 = 60.0;
const HEIGHT: f64 = 2.0 * PANEL_HEIGHT + 3.0 * MARGIN;
/// Seconds are joined until no more points than this are left.
const POINTS_MAX: usize = 300;
/// Decades of the scale of latencies: from 10 us on.
const LOWEST_MICROS: f64 = 10.0;

/// What is drawn of a stretch of time.
struct Point {
    at: f64,
    rate: f64,
    confirm: Micros,
    delivery: Micros,
    round_trip: Micros,
    probe: Micros,
}

fn points(seconds: &[Second]) -> Vec<Point> {
    let joined = seconds.chunks(seconds.len().div_ceil(POINTS_MAX).max(1));
    let sum = |part: &[Second], of: fn(&Second) -> &Micros| {
        part.iter().map(of).fold(no_latencies(), |mut all, one| {
            all.add(one).expect("both grow as needed");
            all
        })
    };
    let point = |part: &[Second]| Point {
        at: part.last().map_or(0.0, |second| second.at.as_secs_f64()),
        rate: part.iter().map(|second| second.rate).sum::<f64>() / part.len() as f64,
        confirm: sum(part, |second| &second.confirm),
        delivery: sum(part, |second| &second.delivery),
        round_trip: sum(part, |second| &second.round_trip),
        probe: sum(part, |second| &second.probe),
    };
    joined.map(point).collect()
}

/// A curve: name, colour, and the value of each point that has one.
type Curve<'a> = (&'a str, &'a str, Vec<Option<f64>>);

/// An SVG of the run.
pub(super) fn as_svg(title: &str, seconds: &[Second]) -> String {
    let points = points(seconds);
    let of = |part: fn(&Point) -> &Micros, quantile: f64| -> Vec<Option<f64>> {
        let value = |point: &Point| (!part(point).is_empty()).then(|| part(point).value_at_quantile(quantile) as f64);
        points.iter().map(value).collect()
    };
    let latencies: [Curve<'_>; 8] = [
        ("confirm p99", "#1f77b4", of(|point| &point.confirm, 0.99)),
        ("confirm max", "#17becf", of(|point| &point.confirm, 1.0)),
        ("delivery p99", "#2ca02c", of(|point| &point.delivery, 0.99)),
        ("delivery max", "#98df8a", of(|point| &point.delivery, 1.0)),
        ("round trip p99", "#9467bd", of(|point| &point.round_trip, 0.99)),
        ("round trip max", "#c5b0d5", of(|point| &point.round_trip, 1.0)),
        ("disk probe p99", "#d62728", of(|point| &point.probe, 0.99)),
        ("disk probe max", "#ff9896", of(|point| &point.probe, 1.0)),
    ];
    let rates: [Curve<'_>; 1] = [("rate", "#1f77b4", points.iter().map(|point| Some(point.rate)).collect())];
    let ends = points.last().map_or(1.0, |point| point.at.max(1.0));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{MARGIN}\" y=\"24\" font-size=\"15\">{}</text>\n",
        escaped(title)
    );
    let times: Vec<f64> = points.iter().map(|point| point.at / ends).collect();
    let most = |curves: &[Curve<'_>]| {
        curves.iter().flat_map(|(_, _, values)| values.iter().flatten()).fold(1.0, |most: f64, value| most.max(*value))
    };
    let rate_most = most(&rates);
    let rate_marks: Vec<f64> = (0..=4).map(|quarter| rate_most * f64::from(quarter) / 4.0).collect();
    panel(&mut svg, MARGIN, "messages per second", &times, &rates, &rate_marks, |value| value / rate_most);
    let decades = (most(&latencies) / LOWEST_MICROS).log10().ceil().max(1.0);
    let marks: Vec<f64> = (0..=decades as i32).map(|decade| LOWEST_MICROS * 10f64.powi(decade)).collect();
    let scale = |value: f64| (value.max(LOWEST_MICROS) / LOWEST_MICROS).log10() / decades;
    panel(&mut svg, PANEL_HEIGHT + 2.0 * MARGIN, "latency, microseconds", &times, &latencies, &marks, scale);
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{ends:.0} s</text>\n</svg>",
        WIDTH - MARGIN,
        HEIGHT - MARGIN / 2.0
    );
    svg
}

/// One panel, from `top` on; `scale` brings values to 0..=1, as `times` are.
fn panel(
    svg: &mut String,
    top: f64,
    title: &str,
    times: &[f64],
    curves: &[Curve<'_>],
    marks: &[f64],
    scale: impl Fn(f64) -> f64,
) {
    let x = |time: f64| MARGIN + time * (WIDTH - 2.0 * MARGIN);
    let y = |value: f64| top + PANEL_HEIGHT * (1.0 - scale(value));
    let _ = writeln!(svg, "<text x=\"{MARGIN}\" y=\"{}\">{title}</text>", top - 8.0);
    for mark in marks {
        let (y, right, label) = (y(*mark), WIDTH - MARGIN, MARGIN - 6.0);
        let _ = writeln!(
            svg,
            "<path d=\"M{MARGIN} {y:.1}H{right}\" stroke=\"#ddd\"/><text x=\"{label}\" y=\"{:.1}\" text-anchor=\"end\">{mark:.0}</text>",
            y + 4.0
        );
    }
    let shown = curves.iter().filter(|(_, _, values)| values.iter().any(Option::is_some));
    for (number, (name, colour, values)) in shown.enumerate() {
        let mut path = String::new();
        let mut is_down = false;
        for (time, value) in times.iter().zip(values) {
            let Some(value) = value else {
                is_down = false;
                continue;
            };
            let _ = write!(path, "{}{:.1} {:.1}", if is_down { 'L' } else { 'M' }, x(*time), y(*value));
            is_down = true;
        }
        let _ = writeln!(svg, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.2\"/>");
        let at = MARGIN + 160.0 + number as f64 * 105.0;
        let _ = writeln!(svg, "<text x=\"{at}\" y=\"{}\" fill=\"{colour}\">{name}</text>", top - 8.0);
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn second(at: u64) -> Second {
        let mut confirm = no_latencies();
        confirm.record(at + 1).unwrap();
        let [delivery, round_trip, probe] = [(); 3].map(|()| no_latencies());
        let at_time = Duration::from_secs(at);
        let broker_resident_bytes = None;
        Second { at: at_time, rate: at as f64, confirm, delivery, round_trip, probe, broker_resident_bytes }
    }

    #[test]
    fn curves_have_a_point_for_each_stretch_and_nothing_is_drawn_of_what_was_not_measured() {
        let seconds: Vec<_> = (1..=1000).map(second).collect();
        let svg = as_svg("a < b", &seconds);
        assert!(svg.contains("a &lt; b") && svg.contains("confirm p99") && !svg.contains("probe"));
        let lines = svg.matches('L').count() / 3;
        assert_eq!(lines, 249, "1,000 seconds as 250 points, in three curves");
        assert!(points(&seconds).iter().all(|point| point.confirm.len() == 4));
    }

    #[test]
    fn a_run_without_a_second_is_a_picture_too() {
        assert!(as_svg("", &[]).ends_with("</svg>\n"));
    }
}
