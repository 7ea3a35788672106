//! Holds what connections were recorded to have carried against what the kernel counted of them.

mod report;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::{Event, FlowEnding, FlowLoss, KernelFlow, Record};

pub use report::{Difference, Reconciled, Sum, What};

/// Name of the chain that the kernel's accounts are written to.
pub const FLOW_CHAIN: &str = "flows";

/// How far the clocks of a record and of a flow may be apart, and how long a connection may wait to be
/// accepted, in milliseconds.
const SLACK_MS: i128 = 5_000;

/// A flow is written down this long after it ended at the latest, in milliseconds.
const DRAIN_MS: u64 = 10_000;

/// Differences that are told one by one; all are counted.
const DIFFERENCES_MAX: usize = 100;

/// Which leg of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    Client,
    Target,
}

/// Our end and the other, without regard to how a socket of both families shows IPv4.
type Ends = (SocketAddr, SocketAddr);

/// One leg of a recorded connection.
#[derive(Debug, Clone)]
struct Leg {
    side: Side,
    /// Name of the chain and number of the connection.
    chain: String,
    connection: u64,
    began_ms: u64,
    ended_ms: u64,
    /// Received, sent, and of that what had not gone out; none where nobody has counted.
    bytes: Option<(u64, u64, u64)>,
}

/// What the kernel counted of a leg, all of its flows together.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    flows: u64,
    payload_in: u64,
    payload_out: u64,
    adopted: bool,
}

/// Gathers the records of an audit trail, in any order of its chains.
#[derive(Debug, Default)]
pub struct Reconciliation {
    legs: BTreeMap<Ends, Vec<Leg>>,
    flows: BTreeMap<Ends, Vec<KernelFlow>>,
    /// Where clients reach the gateway.
    entrances: BTreeSet<SocketAddr>,
    losses: FlowLoss,
    gaps: u64,
    /// Unix milliseconds of the first and the last word of the accounts' chain.
    accounted_ms: Option<(u64, u64)>,
}

impl Reconciliation {
    /// Takes in a record of `chain`.
    pub fn take(&mut self, chain: &str, record: &Record) {
        if chain == FLOW_CHAIN {
            let (first, last) = self
                .accounted_ms
                .get_or_insert((record.time_ms, record.time_ms));
            *first = (*first).min(record.time_ms);
            *last = (*last).max(record.time_ms);
        }
        match record.event {
            Event::Connection => self.connection(chain, record),
            Event::Flow => {
                if let Some(flow) = &record.flow {
                    let ends = ends(flow.local, flow.remote);
                    self.flows.entry(ends).or_default().push((**flow).clone());
                }
            }
            Event::FlowLoss => {
                self.losses = self.losses.and(record.flow_loss.unwrap_or_default());
            }
            Event::Gap => self.gaps += 1,
            _ => {}
        }
    }

    fn connection(&mut self, chain: &str, record: &Record) {
        let address = |text: &Option<String>| text.as_ref()?.parse::<SocketAddr>().ok();
        let bytes = |received: Option<u64>, sent: Option<u64>, unsent: Option<u64>| {
            Some((received?, sent?, unsent.unwrap_or(0)))
        };
        let client = (&record.client_local, &record.source);
        let target = (&record.target_local, &record.target_remote);
        let counts = [
            bytes(
                record.client_received,
                record.client_sent,
                record.client_unsent,
            ),
            bytes(
                record.target_received,
                record.target_sent,
                record.target_unsent,
            ),
        ];
        let legs = [(Side::Client, client), (Side::Target, target)];
        for ((side, (local, remote)), bytes) in legs.into_iter().zip(counts) {
            let (Some(local), Some(remote)) = (address(local), address(remote)) else {
                continue;
            };
            let ends = ends(local, remote);
            if side == Side::Client {
                self.entrances.insert(ends.0);
            }
            self.legs.entry(ends).or_default().push(Leg {
                side,
                chain: chain.to_owned(),
                connection: record.connection.unwrap_or(0),
                began_ms: record
                    .time_ms
                    .saturating_sub(record.duration_ms.unwrap_or(0)),
                ended_ms: record.time_ms,
                bytes,
            });
        }
    }

    /// What agrees and what does not.
    #[must_use]
    pub fn finish(mut self) -> Reconciled {
        let mut report = Reconciled {
            losses: self.losses,
            gaps: self.gaps,
            ..Reconciled::default()
        };
        for (ends, legs) in &self.legs {
            let flows = self.flows.remove(ends).unwrap_or_default();
            let mut counted = vec![Counted::default(); legs.len()];
            for flow in &flows {
                match leg_of(legs, flow) {
                    Some(at) => counted[at].add(flow),
                    None => stray(&mut report, &self.entrances, flow),
                }
            }
            for (leg, counted) in legs.iter().zip(counted) {
                self.judge(&mut report, *ends, leg, counted);
            }
        }
        for flow in self.flows.values().flatten() {
            stray(&mut report, &self.entrances, flow);
        }
        report.missing_are_explained = report.unaccounted.legs <= self.losses.flows_lost();
        report
    }

    fn judge(&self, report: &mut Reconciled, ends: Ends, leg: &Leg, counted: Counted) {
        let Some((received, sent, unsent)) = leg.bytes else {
            report.uncounted += 1;
            return;
        };
        let difference = |what| Difference {
            what,
            side: Some(leg.side),
            chain: leg.chain.clone(),
            connection: leg.connection,
            local: ends.0,
            remote: ends.1,
            ended_ms: leg.ended_ms,
            received,
            sent,
            unsent,
            payload_in: counted.payload_in,
            payload_out: counted.payload_out,
        };
        if counted.flows == 0 {
            let (first, last) = self.accounted_ms.unwrap_or((u64::MAX, 0));
            if leg.began_ms < first || leg.ended_ms.saturating_add(DRAIN_MS) > last {
                report.outside.add(received, sent);
            } else {
                report.unaccounted.add(received, sent);
                report.tell(difference(What::NotAccounted));
            }
            return;
        }
        let least = sent.saturating_sub(unsent);
        let agrees = if counted.adopted {
            counted.payload_in <= received && counted.payload_out <= sent
        } else {
            counted.payload_in == received && (least..=sent).contains(&counted.payload_out)
        };
        if !agrees {
            report.differing.add(received, sent);
            report.tell(difference(What::Differs));
        } else if counted.adopted {
            report.adopted.add(received, sent);
        } else {
            report.agreeing.add(received, sent);
            report.unsent_and_gone += sent - counted.payload_out;
        }
    }
}

impl FlowLoss {
    /// Connections that may be missing in the accounts.
    fn flows_lost(&self) -> u64 {
        self.flows.saturating_add(self.replaced)
    }
}

impl Counted {
    fn add(&mut self, flow: &KernelFlow) {
        // Of a flow that was idle the next one lacks the beginning, which this one has.
        self.adopted |= flow.adopted && self.flows == 0;
        self.flows += 1;
        self.payload_in = self.payload_in.saturating_add(flow.payload_in);
        self.payload_out = self.payload_out.saturating_add(flow.payload_out);
    }
}

/// The leg that a flow belongs to: of those between the same ends the one that it shares most time with.
fn leg_of(legs: &[Leg], flow: &KernelFlow) -> Option<usize> {
    let shared = |leg: &Leg| {
        let begin = leg.began_ms.max(flow.first_ms);
        let end = leg.ended_ms.min(flow.last_ms);
        i128::from(end) - i128::from(begin)
    };
    let best = (0..legs.len()).max_by_key(|at| shared(&legs[*at]))?;
    (shared(&legs[best]) >= -SLACK_MS).then_some(best)
}

/// A flow that no recorded connection owns.
fn stray(report: &mut Reconciled, entrances: &BTreeSet<SocketAddr>, flow: &KernelFlow) {
    let (local, remote) = ends(flow.local, flow.remote);
    if !entrances.contains(&local) {
        report.others.add(flow.payload_in, flow.payload_out);
    } else if flow.ending == FlowEnding::Idle {
        // Its connection lives on: it has no record yet.
        report.living.add(flow.payload_in, flow.payload_out);
    } else if flow.payload_out == 0 {
        report.unserved.add(flow.payload_in, 0);
    } else {
        report.unrecorded.add(flow.payload_in, flow.payload_out);
        report.tell(Difference {
            what: What::NotRecorded,
            side: None,
            chain: String::new(),
            connection: 0,
            local,
            remote,
            ended_ms: flow.last_ms,
            received: 0,
            sent: 0,
            unsent: 0,
            payload_in: flow.payload_in,
            payload_out: flow.payload_out,
        });
    }
}

fn ends(local: SocketAddr, remote: SocketAddr) -> Ends {
    let canonical = |one: SocketAddr| SocketAddr::new(one.ip().to_canonical(), one.port());
    (canonical(local), canonical(remote))
}
