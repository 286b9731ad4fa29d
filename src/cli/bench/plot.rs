//! Plots a run: the rate over time, and below it the latencies.

use super::meter::{Micros, no_latencies};
use super::watch::Second;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::{
    ChartBuilder, Color, DrawingArea, DrawingAreaErrorKind, IntoDrawingArea, IntoLogRange, LineSeries, PathElement,
    RGBColor, Ranged, SVGBackend, SeriesLabelPosition, WHITE,
};

const SIZE: (u32, u32) = (900, 620);
/// Most points of a curve; seconds are merged to stay below it.
const POINTS_MAX: usize = 300;
/// The lower end of the scale of latencies, in microseconds.
const LOWEST_MICROS: f64 = 10.0;
const FONT: &str = "sans-serif";

/// One point of the curves, which stands for one or more seconds.
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

/// A curve, with a value for each point that has one.
struct Curve {
    name: &'static str,
    colour: RGBColor,
    values: Vec<Option<f64>>,
}

impl Curve {
    fn is_empty(&self) -> bool {
        self.values.iter().all(Option::is_none)
    }

    /// The stretches without gaps, as coordinates.
    fn stretches(&self, times: &[f64]) -> Vec<Vec<(f64, f64)>> {
        let points: Vec<_> = times.iter().zip(&self.values).map(|(time, value)| Some((*time, (*value)?))).collect();
        let stretches = points.split(Option::is_none).filter(|stretch| !stretch.is_empty());
        stretches.map(|stretch| stretch.iter().flatten().copied().collect()).collect()
    }
}

fn most(curves: &[Curve]) -> f64 {
    curves.iter().flat_map(|curve| curve.values.iter().flatten()).fold(1.0, |most: f64, value| most.max(*value))
}

type Failure = DrawingAreaErrorKind<std::io::Error>;

/// The plot as SVG.
pub(super) fn as_svg(title: &str, seconds: &[Second]) -> Result<String, String> {
    let mut svg = String::new();
    draw(&SVGBackend::with_string(&mut svg, SIZE).into_drawing_area(), title, &points(seconds))
        .map_err(|error| error.to_string())?;
    Ok(svg)
}

fn draw(area: &DrawingArea<SVGBackend<'_>, Shift>, title: &str, points: &[Point]) -> Result<(), Failure> {
    let of = |name, colour, part: fn(&Point) -> &Micros, quantile: f64| {
        let value = |point: &Point| (!part(point).is_empty()).then(|| part(point).value_at_quantile(quantile) as f64);
        Curve { name, colour, values: points.iter().map(value).collect() }
    };
    let latencies = [
        of("confirm p99", RGBColor(0x1f, 0x77, 0xb4), |point| &point.confirm, 0.99),
        of("confirm max", RGBColor(0x17, 0xbe, 0xcf), |point| &point.confirm, 1.0),
        of("delivery p99", RGBColor(0x2c, 0xa0, 0x2c), |point| &point.delivery, 0.99),
        of("delivery max", RGBColor(0x98, 0xdf, 0x8a), |point| &point.delivery, 1.0),
        of("round trip p99", RGBColor(0x94, 0x67, 0xbd), |point| &point.round_trip, 0.99),
        of("round trip max", RGBColor(0xc5, 0xb0, 0xd5), |point| &point.round_trip, 1.0),
        of("disk probe p99", RGBColor(0xd6, 0x27, 0x28), |point| &point.probe, 0.99),
        of("disk probe max", RGBColor(0xff, 0x98, 0x96), |point| &point.probe, 1.0),
    ];
    let rates = points.iter().map(|point| Some(point.rate)).collect();
    let rates = [Curve { name: "rate", colour: RGBColor(0x1f, 0x77, 0xb4), values: rates }];
    let times: Vec<f64> = points.iter().map(|point| point.at).collect();

    area.fill(&WHITE)?;
    let (upper, lower) = area.titled(title, (FONT, 18))?.split_vertically(SIZE.1 / 2);
    panel(&upper, "messages per second", &times, &rates, 0.0..most(&rates))?;
    let highest = most(&latencies).max(10.0 * LOWEST_MICROS);
    panel(&lower, "latency, microseconds", &times, &latencies, (LOWEST_MICROS..highest).log_scale())?;
    area.present()
}

/// Draws one panel; curves without values are left out.
fn panel<Y>(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    times: &[f64],
    curves: &[Curve],
    values: Y,
) -> Result<(), Failure>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let ends = times.last().map_or(1.0, |last| last.max(1.0));
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 14))
        .margin(8)
        .x_label_area_size(32)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..ends, values)?;
    let mut mesh = chart.configure_mesh();
    mesh.disable_x_mesh().x_desc("seconds").y_label_formatter(&|value| format!("{value:.0}")).draw()?;
    for curve in curves.iter().filter(|curve| !curve.is_empty()) {
        let colour = curve.colour;
        for (number, stretch) in curve.stretches(times).into_iter().enumerate() {
            let drawn = chart.draw_series(LineSeries::new(stretch, colour))?;
            if number == 0 {
                drawn.label(curve.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
            }
        }
    }
    if curves.len() > 1 {
        let mut labels = chart.configure_series_labels();
        // The lower left corner, where values are rare.
        labels.position(SeriesLabelPosition::LowerLeft).background_style(WHITE.mix(0.6)).draw()?;
    }
    Ok(())
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
    fn curves_have_a_point_per_merged_stretch_and_unmeasured_ones_are_left_out() {
        let seconds: Vec<_> = (1..=1000).map(second).collect();
        let svg = as_svg("a < b", &seconds).unwrap();
        assert!(svg.contains("a &lt; b") && svg.contains("confirm p99") && !svg.contains("probe"));
        let curves: Vec<usize> = svg
            .split("points=\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().split_whitespace().count())
            .filter(|points| *points > 2)
            .collect();
        assert_eq!(curves, [250; 3], "1,000 seconds as 250 points, in three curves");
        assert!(points(&seconds).iter().all(|point| point.confirm.len() == 4));
    }

    #[test]
    fn a_run_without_seconds_is_plotted_too() {
        assert!(as_svg("", &[]).unwrap().trim_end().ends_with("</svg>"));
    }
}
