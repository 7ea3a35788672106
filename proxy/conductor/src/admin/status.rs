//! How this node and its cluster stand, as one value for people and programs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The cluster as this node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub program: String,
    /// Absent where this node does not steer, but only places or accounts.
    pub steering: Option<Steering>,
    pub accounting: Option<Accounting>,
    /// Whether the programs for placement are installed.
    pub placement: bool,
}

/// Of steering.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Steering {
    /// This node.
    pub node: u16,
    /// `native` or `generic`.
    pub mode: String,
    /// Why the interface does not run the programs natively.
    pub native_refused: Option<String>,
    /// `file` or `etcd`.
    pub store: String,
    pub is_store_up: bool,
    /// The table that this node steers by; 0: none.
    pub generation: u64,
    /// Newest that was seen: in the store, or in packets of others.
    pub generation_newest: u64,
    /// Nobody, or not known.
    pub leader: Option<u16>,
    /// The cluster went on without this node, which takes nothing that it does not have.
    pub is_isolated: bool,
    pub is_announced: bool,
    /// In words.
    pub announcement: String,
    /// Everybody in the table, and who waits to be.
    pub members: Vec<MemberStatus>,
    /// Buckets that wait for connections to end, as the leader sees it.
    pub buckets_waiting: Option<u64>,
    /// Values of the store that were refused.
    pub store_refused: u64,
}

/// Of a node of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberStatus {
    pub node: u16,
    /// `joining`, `up`, `draining`, `failed`, `gone`; on a node that does not lead `member`.
    pub state: String,
    pub addresses: Vec<String>,
    pub weight: u32,
    /// The part of all buckets that it should have, in percent; the leader knows it.
    pub share_target: Option<f64>,
    /// The part that it is the first hop of, in percent.
    pub share: f64,
    pub buckets: u32,
    /// Buckets that it is the second hop of.
    pub buckets_second: u32,
    /// Connections to the services that it has told; the leader knows it.
    pub connections: Option<u64>,
    /// The table that it steers by; the leader knows it.
    pub generation: Option<u64>,
    /// `serve` or `drain`.
    pub intent: String,
}

/// Of accounting.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounting {
    pub records: u64,
    pub flows_lost: u64,
    pub bytes_lost: u64,
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.steering {
            Some(steering) => write!(out, "{steering}")?,
            None => writeln!(out, "steering      off")?,
        }
        let placement = if self.placement { "on" } else { "off" };
        writeln!(out, "placement     {placement}")?;
        match &self.accounting {
            Some(accounting) => write!(
                out,
                "accounting    {} flows written, {} lost with {} bytes",
                accounting.records, accounting.flows_lost, accounting.bytes_lost
            ),
            None => write!(out, "accounting    off"),
        }
    }
}

impl fmt::Display for Steering {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "node          {}, {} mode", self.node, self.mode)?;
        if let Some(why) = &self.native_refused {
            writeln!(out, "              not natively: {why}")?;
        }
        let up = if self.is_store_up {
            "up"
        } else {
            "out of reach; the last table stays"
        };
        writeln!(out, "store         {}, {up}", self.store)?;
        let leader = self
            .leader
            .map_or("nobody".to_owned(), |node| format!("node {node}"));
        writeln!(out, "leader        {leader}")?;
        write!(out, "table         generation {}", self.generation)?;
        if self.generation_newest > self.generation {
            write!(out, ", while there is {}", self.generation_newest)?;
        }
        if self.is_isolated {
            write!(out, "; isolated")?;
        }
        let announced = if self.is_announced { "yes" } else { "no" };
        writeln!(out, "\nannounced     {announced}: {}", self.announcement)?;
        if let Some(waiting) = self.buckets_waiting {
            writeln!(
                out,
                "waiting       {waiting} buckets for connections to end"
            )?;
        }
        if self.store_refused > 0 {
            writeln!(
                out,
                "refused       {} values of the store",
                self.store_refused
            )?;
        }
        writeln!(
            out,
            "\n{:>5}  {:<9} {:<7} {:>6} {:>8} {:>8} {:>7} {:>7} {:>7} {:>10}  addresses",
            "node",
            "state",
            "intent",
            "weight",
            "target",
            "share",
            "first",
            "second",
            "flows",
            "generation"
        )?;
        for member in &self.members {
            writeln!(out, "{member}")?;
        }
        writeln!(out)
    }
}

impl fmt::Display for MemberStatus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
        let target = self
            .share_target
            .map_or("-".to_owned(), |share| format!("{share:.2} %"));
        write!(
            out,
            "{:>5}  {:<9} {:<7} {:>6} {:>8} {:>8} {:>7} {:>7} {:>7} {:>10}  {}",
            self.node,
            self.state,
            self.intent,
            self.weight,
            target,
            format!("{:.2} %", self.share),
            self.buckets,
            self.buckets_second,
            number(self.connections),
            number(self.generation),
            self.addresses.join(" ")
        )
    }
}
