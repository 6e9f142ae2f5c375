//! What several measurements of one thing say together.

use serde::Serialize;

/// The middle and the spread of a few measurements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Sample {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Sample {
    /// `None` without a value, or with one that is no number.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Sample> {
        let mut values: Vec<f64> = values.into_iter().collect();
        if values.iter().any(|value| value.is_nan()) {
            return None;
        }
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Sample { median, min, max })
    }

    /// How `ours` compares with `theirs`, by round. Each pair of slices was measured one right after the other, so what disturbed
    /// the machine for a while disturbed both: a round's ratio is the median of its pairs' ratios.
    pub(crate) fn of_rounds(ours: &[Vec<f64>], theirs: &[Vec<f64>]) -> Option<Sample> {
        let round = |(ours, theirs): (&Vec<f64>, &Vec<f64>)| {
            let pairs = ours.iter().zip(theirs).filter(|(_, theirs)| **theirs > 0.0);
            Sample::of(pairs.map(|(ours, theirs)| ours / theirs)).map(|sample| sample.median)
        };
        Sample::of(ours.iter().zip(theirs).filter_map(round))
    }

    /// `12.3 (11.9..12.8)`, with so many decimal places.
    pub(crate) fn text(&self, places: usize) -> String {
        format!("{:.places$} ({:.places$}..{:.places$})", self.median, self.min, self.max)
    }
}

/// The value below which a share of the values lies (nearest rank). Sorts them. 0 without values.
pub(crate) fn percentile(values: &mut [u64], share: f64) -> u64 {
    values.sort_unstable();
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.saturating_sub(1)).or(values.last()).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(Sample::of([3.0, 1.0, 2.0]), Some(Sample { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Sample::of([4.0, 1.0]).unwrap().median, 2.5);
        assert_eq!(Sample::of([]), None);
        assert_eq!(Sample::of([1.0, f64::NAN]), None);
        assert_eq!(Sample::of([1.0, 2.0, 3.0]).unwrap().text(1), "2.0 (1.0..3.0)");
    }

    #[test]
    fn ratios_are_of_pairs_not_of_medians() {
        let ours = [vec![10.0, 2.0, 30.0], vec![8.0], vec![1.0]];
        let theirs = [vec![5.0, 1.0, 10.0], vec![2.0], vec![0.0]];
        let ratio = Sample::of_rounds(&ours, &theirs).unwrap();
        assert_eq!(ratio, Sample { median: 3.0, min: 2.0, max: 4.0 });
        assert_eq!(Sample::of_rounds(&[vec![1.0]], &[vec![0.0]]), None);
    }

    #[test]
    fn percentiles() {
        let mut hundred: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(percentile(&mut hundred, 0.5), 50);
        assert_eq!(percentile(&mut hundred, 0.99), 99);
        assert_eq!(percentile(&mut hundred, 1.0), 100);
        assert_eq!(percentile(&mut [7], 0.99), 7);
        assert_eq!(percentile(&mut [], 0.5), 0);
    }
}
