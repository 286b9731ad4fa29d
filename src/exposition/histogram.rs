//! Histograms as Prometheus reads them.

/// Counts of values per bucket, and their sum.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Histogram {
    bounds: &'static [f64],
    /// One count per bound, of the values up to it and above the previous bound; and a last one, of the values above
    /// all bounds.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    /// An empty histogram. The bounds must ascend.
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    /// A histogram of existing counts: one per bound, one for the values above all bounds; and the sum of the values.
    pub(crate) fn from_counts(bounds: &'static [f64], counts: Vec<u64>, sum: f64) -> Self {
        debug_assert_eq!(counts.len(), bounds.len() + 1, "one count per bucket");
        Self { bounds, counts, sum }
    }

    /// Counts a value.
    #[cfg(test)]
    pub(crate) fn record(&mut self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket] += 1;
        self.sum += value;
    }

    /// The number of values.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all values.
    pub(crate) fn sum(&self) -> f64 {
        self.sum
    }

    /// Each bound, with the number of values up to it.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        self.bounds.iter().zip(&self.counts).scan(0, |below, (bound, count)| {
            *below += count;
            Some((*bound, *below))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_for_its_bound_and_for_every_greater_one() {
        let mut histogram = Histogram::new(&[1.0, 10.0]);
        for value in [0.0, 1.0, 1.5, 10.0, 11.0] {
            histogram.record(value);
        }
        assert_eq!(histogram.cumulative().collect::<Vec<_>>(), [(1.0, 2), (10.0, 4)]);
        assert_eq!(histogram.count(), 5);
        assert!((histogram.sum() - 23.5).abs() < 1e-9);
    }
}
