//! The simulated week as rows: one round, for the same seed is the same week.

use std::time::Instant;

use anyhow::Result;

use super::sample::{self, Column};
use super::{Outcome, Unit};
use crate::report::{Finding, Values};
use crate::steering::{self, Ledger, Scale, Tally, mean, quantile};

/// Runs the week; its rows and notes go to `outcome`.
///
/// # Errors
/// The steering refuses something.
pub(super) fn run(unit: &Unit, is_quick: bool, outcome: &mut Outcome) -> Result<()> {
    let scale = if is_quick { Scale::QUICK } else { Scale::FULL };
    let begin = Instant::now();
    let ledger = steering::simulate(scale)?;
    let seconds = begin.elapsed().as_secs_f64();
    let name = unit.case.name;
    for line in lines(&ledger) {
        let column = sample::columns(&unit.case)
            .iter()
            .find(|column| column.metric == line.metric)
            .copied()
            .unwrap_or(Column {
                metric: line.metric,
                unit: unit.case.unit,
            });
        let metric = if line.part.is_empty() {
            column.metric.to_owned()
        } else {
            format!("{}, {}", column.metric, line.part)
        };
        let mut row = |peer: Option<Values<'_>>| {
            let found = Finding::new(name, &metric, column.unit, &[line.ours], peer);
            outcome.findings.extend(found);
        };
        if line.peers.is_empty() {
            row(None);
        }
        for (name, value) in &line.peers {
            row(Some(Values {
                name,
                rounds: &[*value],
            }));
        }
    }
    let told = notes(&ledger, scale, seconds);
    outcome
        .notes
        .extend(told.into_iter().map(|note| format!("{name}: {note}")));
    Ok(())
}

/// One figure of ours beside the others'.
struct Line {
    metric: &'static str,
    part: &'static str,
    ours: f64,
    peers: Vec<(&'static str, f64)>,
}

fn lines(ledger: &Ledger) -> Vec<Line> {
    let beside = |metric, part, figure: &dyn Fn(&Tally) -> f64| Line {
        metric,
        part,
        ours: figure(&ledger.ours),
        peers: ledger
            .peers
            .iter()
            .map(|tally| (tally.name, figure(tally)))
            .collect(),
    };
    let alone = |metric, part, ours| Line {
        metric,
        part,
        ours,
        peers: Vec::new(),
    };
    let mut lines = vec![
        beside("cut", "elsewhere", &|tally| tally.cut_elsewhere as f64),
        beside("cut", "crashed nodes", &|tally| tally.lost_with_node as f64),
        beside("cut", "silent nodes", &|tally| tally.given_up as f64),
        beside("misplaced", "", &|tally| 100.0 * mean(&tally.misplaced)),
        beside("share error", "p50", &|tally| {
            100.0 * quantile(&tally.node_errors, 0.5)
        }),
        beside("share error", "p99", &|tally| {
            100.0 * quantile(&tally.node_errors, 0.99)
        }),
        beside("moves", "", &|tally| tally.moves as f64),
    ];
    let spans = [
        ("drain relieved", &ledger.drain_relieved_s),
        ("drain closed", &ledger.drain_closed_s),
        ("drain empty", &ledger.drain_empty_h),
        ("overload", &ledger.overload_s),
    ];
    for (metric, values) in spans {
        // A short time may have no drain that ended.
        if values.is_empty() {
            continue;
        }
        for (part, at) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            lines.push(alone(metric, part, quantile(values, at)));
        }
    }
    lines
}

fn notes(ledger: &Ledger, scale: Scale, seconds: f64) -> Vec<String> {
    vec![
        format!(
            "{} nodes, {} sessions in {} h, {} at most at a time; simulated in {seconds:.0} s",
            scale.nodes, ledger.sessions, scale.hours, ledger.sessions_at_peak
        ),
        format!(
            "{} nodes came, {} left; {} were not heard for a while, and to {} came no table for a while",
            ledger.joined, ledger.left, ledger.silences, ledger.delays
        ),
        format!(
            "{} crashes, {} nodes without room, {} drains ({} emptied by the end), {} tables, {} second hops staged",
            ledger.crashes,
            ledger.overload_s.len(),
            ledger.drains,
            ledger.drain_empty_h.len(),
            ledger.tables,
            ledger.stages
        ),
        format!(
            "{} sessions waited for their first hop, {:.0} s at most; {} buckets at most between two draining nodes",
            ledger.waited, ledger.waited_s_max, ledger.withheld_max
        ),
        "lifetimes are lognormal around 75 min (σ of the logarithm 1), drawn again outside of 2 min to 10 h; \
         a session is cut when any table that a node steers by would not reach it"
            .to_owned(),
        "cut on silent nodes: a node that nobody hears loses its place where the other hop drains and still \
         has sessions, or when it stays silent for a minute"
            .to_owned(),
        "maglev has 65,537 entries, maglev-large 655,373, rendezvous 65,536 keys; all follow who is up and get no load: with it \
         they would cut more"
            .to_owned(),
    ]
}
