//! What is read off the simulated cluster: drains, nodes without room, and how even shares are.

use anyhow::Result;
use postern_steering::{BUCKETS, NodeId, State};

use super::super::fleet::After;
use super::super::ledger::Tally;
use super::super::trace::TICK_MS;
use super::{Week, id};

/// A machine that is started anew is away for five minutes.
const RESTART_TICKS: u64 = 5 * 60 * 1_000 / TICK_MS;
/// Nodes with fewer buckets are left out where single nodes are judged: one bucket is much of theirs.
const JUDGED_BUCKETS: f64 = 16.0;
/// A draining node that has no more than this part of the buckets that it had is relieved.
const RELIEVED: u32 = 50;

impl Week {
    /// What becomes of nodes that drain and of busy ones.
    pub(super) fn watch(&mut self) -> Result<()> {
        for number in 1..=self.scale.nodes {
            let at = usize::from(number);
            if let Some((since, had)) = self.machines[at].overloaded {
                let has = self.cluster.table().first_of(id(number));
                if has * 3 <= had {
                    let seconds = ((self.tick - since) * TICK_MS) as f64 / 1e3;
                    self.ledger.overload_s.push(seconds);
                }
                if has * 3 <= had || self.tick >= self.machines[at].busy_until {
                    self.machines[at].overloaded = None;
                }
            }
            let Some(mut draining) = self.machines[at].draining else {
                continue;
            };
            let took = (self.tick - draining.since) * TICK_MS;
            let has = self.cluster.table().first_of(id(number));
            if !draining.is_relieved && has <= draining.had / RELIEVED {
                draining.is_relieved = true;
                self.ledger.drain_relieved_s.push(took as f64 / 1e3);
            }
            if !draining.is_closed && has == 0 {
                draining.is_closed = true;
                self.ledger.drain_closed_s.push(took as f64 / 1e3);
            }
            self.machines[at].draining = Some(draining);
            // A machine that still has the old table as an entrance may send one more session there.
            let is_known = self.history.is_empty();
            if draining.is_closed && is_known && self.sessions.on_node[at] == 0 {
                self.ledger.drain_empty_h.push(took as f64 / 3.6e6);
                let machine = &mut self.machines[at];
                machine.draining = None;
                machine.is_alive = false;
                machine.down_until = self.tick + RESTART_TICKS;
                if draining.after == After::Leave {
                    machine.is_member = false;
                    self.ledger.left += 1;
                    self.cluster.remove(id(number))?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn sample(&mut self) {
        let living = self
            .sessions
            .on_node
            .iter()
            .map(|count| u64::from(*count))
            .sum();
        self.ledger.sessions_at_peak = self.ledger.sessions_at_peak.max(living);
        let mut targets = vec![0; usize::from(self.scale.nodes) + 1];
        for member in self.cluster.members() {
            if member.state() == State::Up {
                targets[usize::from(member.id.get())] = member.target_weight();
            }
        }
        let firsts: Vec<u32> = (0..=self.scale.nodes)
            .map(|number| {
                let node = NodeId::new(number);
                node.map_or(0, |node| self.cluster.table().first_of(node))
            })
            .collect();
        judge(&mut self.ledger.ours, &targets, &firsts, BUCKETS);
        for (scheme, tally) in self.schemes.iter().zip(&mut self.ledger.peers) {
            let entries = scheme.entries();
            let mut has = vec![0; self.hashed_weights.len()];
            for node in entries {
                has[usize::from(*node)] += 1;
            }
            judge(tally, &self.hashed_weights, &has, entries.len());
        }
    }
}

/// How far what nodes have is from their weights.
fn judge(tally: &mut Tally, weights: &[u32], has: &[u32], entries: usize) {
    let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let mut misplaced = 0.0;
    for (weight, has) in weights.iter().zip(has) {
        let exact = entries as f64 * f64::from(*weight) / sum.max(1.0);
        let off = (f64::from(*has) - exact).abs();
        misplaced += off / 2.0;
        if exact >= JUDGED_BUCKETS {
            tally.node_errors.push(off / exact);
        }
    }
    tally.misplaced.push(misplaced / entries as f64);
}
