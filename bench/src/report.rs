//! What was measured, as rows: to the screen, to JSON, as charts and as histograms.

mod chart;
mod files;
pub mod ratio;
pub mod specification;
mod table;

use serde::Serialize;

use ratio::Spread;

pub use files::{Recorded, write_folder, write_json};
pub use table::{promises_table, rows_table};

/// One figure of ours and, where there is one to compare with, a peer's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub case: String,
    pub metric: String,
    pub unit: String,
    /// Median of the rounds.
    pub ours: f64,
    pub peer: Option<f64>,
    pub peer_name: Option<String>,
    /// Median of `ours / peer` round by round.
    pub ratio: Option<f64>,
    /// Half of the spread of the ratio, or of `ours` where there is no peer, as a part of the median.
    pub spread: f64,
    pub n: usize,
}

/// A row with what it was made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    pub row: Row,
    pub ours: Spread,
    pub peer: Option<Spread>,
    pub ratio: Option<Spread>,
}

/// The values of one metric of one party, a round each.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    pub name: &'a str,
    pub rounds: &'a [f64],
}

impl Finding {
    /// `None` where nothing was measured of us, or of the peer.
    #[must_use]
    pub fn new(
        case: &str,
        metric: &str,
        unit: &str,
        ours: &[f64],
        peer: Option<Values<'_>>,
    ) -> Option<Self> {
        let own = Spread::of(ours)?;
        let (of_peer, ratio) = match peer {
            Some(peer) => (
                Some(Spread::of(peer.rounds)?),
                Spread::of_ratios(ours, peer.rounds),
            ),
            None => (None, None),
        };
        let decisive = ratio.unwrap_or(own);
        Some(Self {
            row: Row {
                case: case.to_owned(),
                metric: metric.to_owned(),
                unit: unit.to_owned(),
                ours: own.median,
                peer: of_peer.map(|spread| spread.median),
                peer_name: peer.map(|peer| peer.name.to_owned()),
                ratio: ratio.map(|spread| spread.median),
                spread: decisive.relative(),
                n: decisive.n,
            },
            ours: own,
            peer: of_peer,
            ratio,
        })
    }

    /// True where the spread leaves little of the figure's meaning.
    #[must_use]
    pub fn is_vague(&self) -> bool {
        self.ratio.unwrap_or(self.ours).is_vague()
    }
}

#[cfg(test)]
pub(crate) fn finding(
    case: &str,
    metric: &str,
    ours: &[f64],
    peer: Option<(&str, &[f64])>,
) -> Finding {
    let peer = peer.map(|(name, rounds)| Values { name, rounds });
    Finding::new(case, metric, "s", ours, peer).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_exactly_the_promised_keys() {
        let keys = |finding: &Finding| {
            let json = serde_json::to_value(&finding.row).unwrap();
            json.as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        };
        let expected = [
            "case",
            "metric",
            "n",
            "ours",
            "peer",
            "peer_name",
            "ratio",
            "spread",
            "unit",
        ];
        for peer in [None, Some(("haproxy", [2.0, 2.0].as_slice()))] {
            let mut found = keys(&finding("bulk", "cpu", &[1.0, 1.0], peer));
            found.sort();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn without_a_peer_there_is_no_ratio() {
        let alone =
            serde_json::to_value(&finding("idle", "memory", &[3.0, 5.0], None).row).unwrap();
        assert!(
            alone["peer"].is_null() && alone["ratio"].is_null(),
            "{alone}"
        );
        assert_eq!(
            (alone["ours"].as_f64(), alone["spread"].as_f64()),
            (Some(4.0), Some(0.25))
        );
        let both = finding("idle", "memory", &[3.0, 3.0], Some(("x", &[6.0, 6.0])));
        assert_eq!((both.row.ratio, both.row.peer), (Some(0.5), Some(6.0)));
        assert!(Finding::new("idle", "memory", "B", &[], None).is_none());
    }
}
