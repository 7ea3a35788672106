//! The promises of SPECIFICATION.md: what is promised, which case proves it, and the limit.

use anyhow::{Context as _, Result, bail, ensure};

use super::Finding;
use super::ratio::Spread;

/// The document itself: each number stands there and nowhere else.
const DOCUMENT: &str = include_str!("../../../SPECIFICATION.md");

/// Head of the table of promises.
const HEAD: [&str; 5] = ["promise", "case", "metric", "against", "at most"];
/// In the column "against": the limit is one of the metric itself.
const ALONE: &str = "–";

/// One line of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Promise {
    pub what: String,
    pub case: String,
    /// Of a metric with parts, `p99, wss`, it may be the name that they share: all must hold.
    pub metric: String,
    /// The peer that the ratio is taken to; of a peer with variants, the name that they share: the
    /// best of them is the one to beat.
    pub against: Option<String>,
    pub at_most: f64,
}

/// What became of a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Held,
    Broken,
    /// The spread reaches to both sides of the limit.
    Unclear,
}

impl Verdict {
    #[must_use]
    pub fn of(spread: &Spread, at_most: f64) -> Self {
        if spread.high <= at_most {
            Self::Held
        } else if spread.low > at_most {
            Self::Broken
        } else {
            Self::Unclear
        }
    }

    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Broken => "BROKEN",
            Self::Unclear => "unclear",
        }
    }
}

impl Promise {
    /// True where `finding` is what this promise speaks of.
    #[must_use]
    pub fn concerns(&self, finding: &Finding) -> bool {
        if self.case != finding.row.case || !is_part(&finding.row.metric, &self.metric) {
            return false;
        }
        // A limit of the metric itself does not ask what it is compared with.
        self.against.is_none()
            || finding
                .row
                .peer_name
                .as_ref()
                .is_some_and(|peer| self.names(peer))
    }

    /// True where the limit is one against `peer`.
    #[must_use]
    pub fn names(&self, peer: &str) -> bool {
        let against = self.against.as_deref();
        against.is_some_and(|against| is_variant(peer, against))
    }

    /// What the limit is held against.
    #[must_use]
    pub fn measured(&self, finding: &Finding) -> Option<Spread> {
        match self.against {
            Some(_) => finding.ratio,
            None => Some(finding.ours),
        }
    }

    /// The finding that decides: against several variants of a peer, the worst for us.
    #[must_use]
    pub fn decided_by<'a>(&self, findings: &'a [Finding]) -> Option<&'a Finding> {
        findings
            .iter()
            .filter(|finding| self.concerns(finding) && self.measured(finding).is_some())
            .max_by(|one, other| {
                let median = |of: &Finding| self.measured(of).map_or(0.0, |spread| spread.median);
                median(one).total_cmp(&median(other))
            })
    }

    #[must_use]
    pub fn verdict(&self, finding: &Finding) -> Option<Verdict> {
        let spread = self.measured(finding)?;
        Some(Verdict::of(&spread, self.at_most))
    }
}

/// `haproxy-splice` is a variant of `haproxy`, and so is `haproxy`.
fn is_variant(name: &str, of: &str) -> bool {
    name.strip_prefix(of)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// `p99, wss` is a part of `p99`, and so is `p99`.
fn is_part(metric: &str, of: &str) -> bool {
    metric
        .strip_prefix(of)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(", "))
}

/// The promises of the document that this program was built with.
///
/// # Errors
/// The table is not as it should be.
pub fn promises() -> Result<Vec<Promise>> {
    parse(DOCUMENT)
}

/// The promises of a document.
fn parse(document: &str) -> Result<Vec<Promise>> {
    let mut lines = document
        .lines()
        .skip_while(|line| cells(line) != Some(HEAD.to_vec()));
    ensure!(
        lines.next().is_some(),
        "no table of promises: | {} |",
        HEAD.join(" | ")
    );
    let promises: Vec<Promise> = lines
        .skip(1)
        .map_while(cells)
        .map(|cells| promise(&cells))
        .collect::<Result<_>>()?;
    ensure!(!promises.is_empty(), "the table of promises is empty");
    Ok(promises)
}

fn promise(cells: &[&str]) -> Result<Promise> {
    let [what, case, metric, against, at_most] = cells else {
        bail!("a promise has {} columns: {cells:?}", HEAD.len());
    };
    let plain = |cell: &str| cell.trim_matches('`').to_owned();
    Ok(Promise {
        what: (*what).to_owned(),
        case: plain(case),
        metric: plain(metric),
        against: (*against != ALONE).then(|| plain(against)),
        at_most: at_most
            .split(' ')
            .next()
            .unwrap_or_default()
            .parse()
            .with_context(|| format!("{what}: {at_most:?} begins with no number"))?,
    })
}

/// The cells of a line of a table.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

#[cfg(test)]
mod tests {
    use super::super::finding;
    use super::*;
    use crate::cases::{self, Peer};
    use crate::run;

    const TABLE: &str = "# X\n\n| promise | case | metric | against | at most |\n|---|---|---|---|---|\n\
        | cheap | `bulk` | `cpu` | `haproxy` | 0.60 |\n| soon | `burst` | `p99` | – | 2 ms |\n\nmore | text |\n";

    #[test]
    fn promises_are_read_from_the_table() {
        let promises = parse(TABLE).unwrap();
        assert_eq!(promises.len(), 2);
        assert_eq!(promises[0].against.as_deref(), Some("haproxy"));
        assert_eq!(promises[1].against, None);
        assert_eq!(promises[1].at_most, 2.0);
        for broken in [
            "",
            "| promise | case | metric | against | at most |\n|---|---|---|---|---|\n",
            &TABLE.replace("0.60", "little"),
            &TABLE.replace("| 0.60 |", "|"),
        ] {
            assert!(parse(broken).is_err(), "{broken}");
        }
    }

    /// The cases of the second table.
    fn report_only() -> Vec<String> {
        let head = |line: &&str| !line.starts_with("| case | report only");
        DOCUMENT
            .lines()
            .skip_while(head)
            .skip(2)
            .map_while(cells)
            .map(|cells| cells[0].trim_matches('`').to_owned())
            .collect()
    }

    #[test]
    fn every_promise_has_a_case_and_every_case_a_promise_or_a_mark() {
        let names: Vec<&str> = cases::all().iter().map(|case| case.name).collect();
        let promises = promises().unwrap();
        for promise in &promises {
            assert!(
                names.contains(&promise.case.as_str()),
                "no case: {promise:?}"
            );
        }
        for (number, promise) in promises.iter().enumerate() {
            let same = |other: &Promise| {
                (&other.case, &other.metric, &other.against)
                    == (&promise.case, &promise.metric, &promise.against)
            };
            assert!(!promises[..number].iter().any(same), "twice: {promise:?}");
        }
        let marked = report_only();
        for name in &marked {
            assert!(names.contains(&name.as_str()), "no case {name}");
        }
        for name in names {
            let promised = promises.iter().any(|promise| promise.case == name);
            let reported = marked.iter().any(|marked| marked == name);
            assert_ne!(promised, reported, "{name}: promised, or reported only?");
        }
    }

    #[test]
    fn every_promise_speaks_of_a_figure_and_a_peer_that_its_case_has() {
        for promise in promises().unwrap() {
            let all = cases::all();
            let case = all.iter().find(|case| case.name == promise.case).unwrap();
            let metrics = run::columns(case);
            let known = |metric: &&str| is_part(&promise.metric, metric);
            assert!(
                metrics.iter().any(known),
                "{promise:?} is none of {metrics:?}"
            );
            if case.peers != [Peer::Itself] && promise.against.is_some() {
                let named = |peer: &Peer| promise.names(peer.name());
                assert!(case.peers.iter().any(named), "{promise:?}");
            }
        }
    }

    #[test]
    fn the_best_variant_of_a_peer_decides() {
        let promise = &parse(TABLE).unwrap()[0];
        let findings = [
            finding("bulk", "cpu", &[1.0; 3], Some(("haproxy", &[4.0; 3]))),
            finding(
                "bulk",
                "cpu",
                &[1.0; 3],
                Some(("haproxy-splice", &[1.0; 3])),
            ),
            finding("bulk", "cpu", &[1.0; 3], Some(("haproxyx", &[0.1; 3]))),
            finding("bulk", "p99", &[1.0; 3], Some(("haproxy", &[0.1; 3]))),
            finding("bulk", "cpu, up", &[1.0; 3], Some(("haproxy", &[2.0; 3]))),
            finding("bulk", "cpux", &[1.0; 3], Some(("haproxy", &[0.1; 3]))),
        ];
        let decisive = promise.decided_by(&findings).unwrap();
        assert_eq!(
            decisive.row.peer_name.as_deref(),
            Some("haproxy-splice"),
            "{decisive:?}"
        );
        assert_eq!(promise.verdict(decisive), Some(Verdict::Broken));
        let part = promise.decided_by(&findings[2..]).unwrap();
        assert_eq!(part.row.metric, "cpu, up");
        assert_eq!(promise.decided_by(&findings[2..4]), None);
    }

    #[test]
    fn a_spread_on_both_sides_of_the_limit_is_unclear() {
        let check = |values: &[f64], verdict: Verdict| {
            let spread = Spread::of(values).unwrap();
            assert_eq!(Verdict::of(&spread, 2.0), verdict, "{values:?}");
        };
        check(&[1.0, 1.5, 2.0], Verdict::Held);
        check(&[1.0, 1.5, 2.1], Verdict::Unclear);
        check(&[2.1, 2.5, 3.0], Verdict::Broken);
    }
}
