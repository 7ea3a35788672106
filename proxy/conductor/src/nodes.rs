//! What all nodes have said: judged when it comes in, so that only what holds is ever acted on.

use std::collections::BTreeMap;
use std::net::IpAddr;

use postern_ebpf_abi::table::NODES_MAX;
use postern_steering::{Generation, MEMBERS_MAX, Millis, NODE_NUMBER_MAX, NodeId, Prefix, Reports};

use crate::values::{Boot, Change, FlowsReport, Heartbeat, Intent, Registration};

/// Nobody is so far ahead: who says so would make all others wait for ever.
const AHEAD_MAX: u64 = 1 << 40;

const _: () = assert!(
    NODES_MAX == NODE_NUMBER_MAX as usize + 1,
    "every number has a place in the kernel's table"
);

/// A report was true this long before it comes in, at most: a node counts every few seconds, and a store
/// may take some to pass it on.
const REPORT_AGE_MS_MAX: u64 = 12_000;

/// Why a value is not acted on; the last good one stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Refusal {
    #[error("it is no value of this kind")]
    Malformed,
    #[error("its addresses are none, not those of the peers, or another node's")]
    Address,
    #[error("its weight is out of range")]
    Weight,
    #[error("there are as many members as a table can have, or its number is too high for one")]
    TooMany,
    #[error("it is of another boot than the one that is registered")]
    Boot,
    #[error("its sequence goes back")]
    Sequence,
    #[error("it names a table that is too far ahead")]
    Ahead,
    #[error("its table is not newer than the one in force")]
    NotNewer,
    #[error("its table has this node elsewhere")]
    OwnEntry,
    #[error("its seal does not hold")]
    Seal,
}

impl Refusal {
    /// What metrics call it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Address => "address",
            Self::Weight => "weight",
            Self::TooMany => "too_many",
            Self::Boot => "boot",
            Self::Sequence => "sequence",
            Self::Ahead => "ahead",
            Self::NotNewer => "not_newer",
            Self::OwnEntry => "own_entry",
            Self::Seal => "seal",
        }
    }
}

/// One node, as far as it was believed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    pub registration: Option<Registration>,
    pub heartbeat: Option<(Heartbeat, Millis)>,
    pub intent: Intent,
    /// Boot and number of the last report of flows.
    report: Option<(Boot, u64)>,
}

/// Everybody.
#[derive(Debug, Clone)]
pub struct Nodes {
    peers: Vec<Prefix>,
    known: BTreeMap<NodeId, Known>,
    reports: Reports,
}

/// What a change that was believed is to a leader.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    Registration(NodeId),
    Heartbeat(NodeId, Heartbeat),
    Intent(NodeId, Intent),
    /// Nothing that must be told: the reports know it, or it is no news.
    Nothing,
}

impl Nodes {
    #[must_use]
    pub fn new(peers: Vec<Prefix>) -> Self {
        Self {
            peers,
            known: BTreeMap::new(),
            reports: Reports::new(),
        }
    }

    /// Believes addresses of `peers` from now on, in registrations that come in.
    pub fn trust(&mut self, peers: Vec<Prefix>) {
        self.peers = peers;
    }

    pub fn all(&self) -> impl Iterator<Item = (NodeId, &Known)> {
        self.known.iter().map(|(node, known)| (*node, known))
    }

    #[must_use]
    pub fn get(&self, node: NodeId) -> Option<&Known> {
        self.known.get(&node)
    }

    #[must_use]
    pub fn intent(&self, node: NodeId) -> Intent {
        self.known
            .get(&node)
            .map(|known| known.intent)
            .unwrap_or_default()
    }

    /// Nodes that hold a lease and are wanted, with what they registered.
    pub fn registered(&self) -> impl Iterator<Item = (NodeId, &Registration)> {
        self.all()
            .filter(|(_, known)| known.intent != Intent::Remove)
            .filter_map(|(node, known)| Some((node, known.registration.as_ref()?)))
    }

    #[must_use]
    pub fn reports(&self) -> &Reports {
        &self.reports
    }

    /// The newest table that living nodes steer by or have heard of.
    #[must_use]
    pub fn newest(&self) -> Generation {
        self.living()
            .map(|heartbeat| heartbeat.newest())
            .max()
            .unwrap_or_default()
    }

    /// The newest table that a living node steers by.
    #[must_use]
    pub fn newest_in_force(&self) -> Generation {
        self.living()
            .map(|heartbeat| heartbeat.generation())
            .max()
            .unwrap_or_default()
    }

    fn living(&self) -> impl Iterator<Item = &Heartbeat> {
        let living = self
            .known
            .values()
            .filter(|known| known.registration.is_some());
        living.filter_map(|known| known.heartbeat.as_ref().map(|(heartbeat, _)| heartbeat))
    }

    /// Takes a change that came in now.
    ///
    /// # Errors
    /// It is not believed, and changes nothing.
    pub fn apply(&mut self, change: Change, now: Millis) -> Result<Heard, Refusal> {
        match change {
            Change::Registration(node, Some(registration)) => self.register(node, registration),
            Change::Registration(node, None) => {
                self.reports.forget(node);
                if let Some(known) = self.known.get_mut(&node) {
                    known.registration = None;
                    known.report = None;
                    self.tidy(node);
                }
                Ok(Heard::Registration(node))
            }
            Change::Heartbeat(node, Some(heartbeat)) => self.hear(node, heartbeat, now),
            Change::Flows(node, Some(report)) => self.take(node, report, now),
            // They end with the registration.
            Change::Heartbeat(_, None) | Change::Flows(_, None) => Ok(Heard::Nothing),
            Change::Intent(node, intent) => {
                let intent = intent.unwrap_or_default();
                if intent == Intent::default() && !self.known.contains_key(&node) {
                    return Ok(Heard::Nothing);
                }
                self.room_for(node)?.intent = intent;
                self.tidy(node);
                Ok(Heard::Intent(node, intent))
            }
        }
    }

    /// Forgets a node of which nothing is left to know.
    fn tidy(&mut self, node: NodeId) {
        let is_empty =
            |known: &Known| known.registration.is_none() && known.intent == Intent::default();
        if self.known.get(&node).is_some_and(is_empty) {
            self.known.remove(&node);
        }
    }

    fn room_for(&mut self, node: NodeId) -> Result<&mut Known, Refusal> {
        // Intents of nodes that are gone have room as well.
        if !self.known.contains_key(&node) && self.known.len() >= 2 * MEMBERS_MAX {
            return Err(Refusal::TooMany);
        }
        Ok(self.known.entry(node).or_default())
    }

    fn register(&mut self, node: NodeId, registration: Registration) -> Result<Heard, Refusal> {
        registration.weight().ok_or(Refusal::Weight)?;
        if node.get() > NODE_NUMBER_MAX {
            return Err(Refusal::TooMany);
        }
        let place = registration.place();
        let is_peer = |address: IpAddr| self.peers.iter().any(|prefix| prefix.contains(&address));
        let is_another = |address: IpAddr| {
            self.known.iter().any(|(other, known)| {
                let theirs = known.registration.map(|registration| registration.place());
                *other != node
                    && theirs.is_some_and(|place| place.addresses().any(|one| one == address))
            })
        };
        let mut addresses = place.addresses().peekable();
        if addresses.peek().is_none()
            || addresses.any(|address| !is_peer(address) || is_another(address))
        {
            return Err(Refusal::Address);
        }
        let count = self
            .known
            .values()
            .filter(|known| known.registration.is_some())
            .count();
        let known = self.room_for(node)?;
        if known.registration.is_none() && count >= MEMBERS_MAX {
            return Err(Refusal::TooMany);
        }
        let before = known.registration.replace(registration);
        if before.is_some_and(|before| before.boot != registration.boot) {
            known.heartbeat = None;
            known.report = None;
            self.reports.forget(node);
        }
        Ok(Heard::Registration(node))
    }

    fn hear(&mut self, node: NodeId, heartbeat: Heartbeat, now: Millis) -> Result<Heard, Refusal> {
        let newest = self.newest().0;
        // Who is not registered, or not yet in the order of what is read, says it again soon.
        let Some(known) = self.known.get_mut(&node) else {
            return Ok(Heard::Nothing);
        };
        let Some(registration) = &known.registration else {
            return Ok(Heard::Nothing);
        };
        if registration.boot != heartbeat.boot {
            return Err(Refusal::Boot);
        }
        if heartbeat.newest().0 > newest.saturating_add(AHEAD_MAX) {
            return Err(Refusal::Ahead);
        }
        match &known.heartbeat {
            Some((last, _))
                if last.boot == heartbeat.boot && heartbeat.sequence == last.sequence =>
            {
                return Ok(Heard::Nothing);
            }
            Some((last, _))
                if last.boot == heartbeat.boot && heartbeat.sequence < last.sequence =>
            {
                return Err(Refusal::Sequence);
            }
            _ => {}
        }
        known.heartbeat = Some((heartbeat, now));
        if known.report == Some((heartbeat.boot, heartbeat.report)) {
            let taken_at = Millis(now.0.saturating_sub(REPORT_AGE_MS_MAX));
            self.reports.confirm(node, taken_at);
        }
        Ok(Heard::Heartbeat(node, heartbeat))
    }

    fn take(&mut self, node: NodeId, report: FlowsReport, now: Millis) -> Result<Heard, Refusal> {
        let Some(known) = self.known.get_mut(&node) else {
            return Ok(Heard::Nothing);
        };
        let Some(registration) = &known.registration else {
            return Ok(Heard::Nothing);
        };
        if registration.boot != report.boot {
            return Err(Refusal::Boot);
        }
        match known.report {
            Some((boot, last)) if boot == report.boot && last == report.sequence => {
                return Ok(Heard::Nothing);
            }
            Some((boot, last)) if boot == report.boot && last > report.sequence => {
                return Err(Refusal::Sequence);
            }
            _ => {}
        }
        let taken_at = Millis(now.0.saturating_sub(REPORT_AGE_MS_MAX));
        self.reports
            .take(node, taken_at, report.flows)
            .map_err(|_| Refusal::Malformed)?;
        known.report = Some((report.boot, report.sequence));
        Ok(Heard::Nothing)
    }
}

#[cfg(test)]
mod tests;
