//! Medians, ratios round by round, and how far they spread.

/// Above this half-width, as a part of the median, a figure says little.
pub const SPREAD_MAX: f64 = 0.35;
/// From this many rounds on the quartiles stand for the spread; with fewer it is all of them.
const ROUNDS_FOR_QUARTILES: usize = 5;

/// Where the middle of the rounds lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
    pub n: usize,
}

impl Spread {
    /// Of at least one value; `None` of none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.retain(|value| value.is_finite());
        sorted.sort_by(f64::total_cmp);
        let (first, last) = (*sorted.first()?, *sorted.last()?);
        let quartiles = sorted.len() >= ROUNDS_FOR_QUARTILES;
        Some(Self {
            low: if quartiles { at(&sorted, 0.25) } else { first },
            median: at(&sorted, 0.5),
            high: if quartiles { at(&sorted, 0.75) } else { last },
            n: sorted.len(),
        })
    }

    /// Of `ours / peer`, round by round: what disturbs a round disturbs both in it.
    #[must_use]
    pub fn of_ratios(ours: &[f64], peer: &[f64]) -> Option<Self> {
        let ratios: Vec<f64> = ours
            .iter()
            .zip(peer)
            .filter(|(_, peer)| **peer > 0.0)
            .map(|(ours, peer)| ours / peer)
            .collect();
        Self::of(&ratios)
    }

    /// Half of the way from low to high, as a part of the median.
    #[must_use]
    pub fn relative(&self) -> f64 {
        if self.median == 0.0 {
            return 0.0;
        }
        (self.high - self.low) / 2.0 / self.median.abs()
    }

    /// So wide that the median means little.
    #[must_use]
    pub fn is_vague(&self) -> bool {
        self.relative() > SPREAD_MAX
    }
}

/// The value at a part of the way through sorted values, between two of them if need be.
fn at(sorted: &[f64], part: f64) -> f64 {
    let place = part * (sorted.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (place - place.floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_rounds_spread_from_end_to_end_and_many_between_quartiles() {
        let check = |values: &[f64], low: f64, median: f64, high: f64| {
            let spread = Spread::of(values).unwrap();
            assert_eq!(
                (spread.low, spread.median, spread.high, spread.n),
                (low, median, high, values.len()),
                "{values:?}"
            );
        };
        check(&[7.0], 7.0, 7.0, 7.0);
        check(&[3.0, 1.0, 2.0], 1.0, 2.0, 3.0);
        check(&[1.0, 2.0, 3.0, 4.0], 1.0, 2.5, 4.0);
        check(&[100.0, 1.0, 2.0, 3.0, 4.0], 2.0, 3.0, 4.0);
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[f64::NAN]), None);
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        // A machine that is twice as slow from round to round changes no ratio.
        let spread = Spread::of_ratios(&[1.0, 2.0, 4.0], &[2.0, 4.0, 8.0]).unwrap();
        assert_eq!((spread.median, spread.relative()), (0.5, 0.0));
        let vague = Spread::of_ratios(&[1.0, 2.0, 3.0], &[2.0, 2.0, 2.0]).unwrap();
        assert_eq!(vague.relative(), 0.5);
        assert!(vague.is_vague());
        assert_eq!(Spread::of_ratios(&[1.0], &[0.0]), None);
    }
}
