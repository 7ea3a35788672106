//! The cluster as operators see it: `postern steer`, and what routers are told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use postern_parts::wait;
use serde_json::Value;

use crate::fleet::{Fleet, Node};

/// Between heartbeats, probes, ticks and publications, this is plenty for a change that waits for nothing.
pub const SOON: Duration = Duration::from_secs(45);

/// A change that waits for buckets to rest takes 64 s, as long as a handshake may, and the steps around it.
pub const RESTED: Duration = Duration::from_secs(150);

/// So much of all buckets may a node have more or less than its weight gives it, when all is at rest.
const SHARE_ERROR_MAX: f64 = 0.001;

impl Node {
    /// What `postern steer status --json` says of steering here.
    pub fn status(&self) -> Result<Value> {
        let text = self.gateway.command(&["steer", "status", "--json"])?;
        let mut status: Value = serde_json::from_str(&text)?;
        let steering = status["steering"].take();
        ensure!(!steering.is_null(), "node {} does not steer", self.number);
        Ok(steering)
    }

    pub fn steer(&self, arguments: &[&str]) -> Result<String> {
        let all: Vec<&str> = ["steer"].iter().chain(arguments).copied().collect();
        self.gateway.command(&all)
    }

    /// True where routers are told to send packets here; the reason.
    pub fn announces(&self) -> Result<(bool, String)> {
        let (status, text) = self.machine.on(|| self.gateway.announcement())?;
        ensure!(status == 200 || status == 503, "/steer answers {text}");
        let why = text.split("\r\n\r\n").nth(1).unwrap_or_default();
        Ok((status == 200, why.trim().to_owned()))
    }
}

impl Fleet {
    /// Nodes that run.
    pub fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.gateway.pid().is_ok())
    }

    /// Does what a routing daemon does: the router sends packets to the nodes that say so. Their numbers.
    pub fn announce(&self) -> Result<Vec<u16>> {
        let mut told = Vec::new();
        for node in self.running() {
            if node.announces()?.0 {
                told.push(node.number);
            }
        }
        let spread: Vec<(u16, u16)> = told.iter().map(|number| (*number, 1)).collect();
        self.network.spread(&spread)?;
        Ok(told)
    }

    /// Waits until exactly these nodes are to be announced, and announces them.
    pub fn announce_all(&self, numbers: &[u16], patience: Duration) -> Result<()> {
        wait::until("the announcements", patience, || {
            let mut told = Vec::new();
            for node in self.running() {
                // Control may just be starting.
                if matches!(node.announces(), Ok((true, _))) {
                    told.push(node.number);
                }
            }
            Ok((told == numbers).then_some(()))
        })
        .with_context(|| self.picture())?;
        self.announce().map(drop)
    }

    /// Waits until every running node steers by one table, in which new connections go to these nodes by
    /// these weights; how long it took.
    pub fn settle(&self, weights: &[(u16, u32)], patience: Duration) -> Result<Duration> {
        let start = Instant::now();
        wait::until("the table that weights ask for", patience, || {
            Ok(self.is_settled(weights).unwrap_or(false).then_some(()))
        })
        .with_context(|| self.picture())?;
        Ok(start.elapsed())
    }

    /// Waits until no running node sends new connections to this one; how long it took.
    pub fn leave(&self, number: u16, patience: Duration) -> Result<Duration> {
        let start = Instant::now();
        wait::until("the way around a node", patience, || {
            let mut nodes = self.running().filter(|node| node.number != number);
            let is_left = nodes.all(|node| {
                let shares = node.status().and_then(|status| shares(&status));
                shares.is_ok_and(|shares| shares.get(&number).copied().unwrap_or_default() == 0.0)
            });
            Ok(is_left.then_some(()))
        })
        .with_context(|| self.picture())?;
        Ok(start.elapsed())
    }

    fn is_settled(&self, weights: &[(u16, u32)]) -> Result<bool> {
        let sum: u32 = weights.iter().map(|(_, weight)| weight).sum();
        let mut generations = Vec::new();
        for node in self.running() {
            let status = node.status()?;
            generations.push(status["generation"].as_u64().context("no generation")?);
            let shares = shares(&status)?;
            let due = |number: &u16| {
                let weight = weights.iter().find(|(one, _)| one == number);
                weight.map_or(0.0, |(_, weight)| f64::from(*weight) / f64::from(sum))
            };
            let all = shares
                .keys()
                .chain(weights.iter().map(|(number, _)| number));
            for number in all {
                let has = shares.get(number).copied().unwrap_or_default();
                if (has - due(number)).abs() > SHARE_ERROR_MAX {
                    return Ok(false);
                }
            }
        }
        generations.dedup();
        Ok(generations.len() == 1)
    }

    /// How all nodes see the cluster, for messages.
    pub fn picture(&self) -> String {
        let views = self.running().map(|node| {
            let status = node.steer(&["status"]);
            let status = status.unwrap_or_else(|error| format!("{error:#}"));
            format!("-- node {} --\n{status}", node.number)
        });
        views.collect::<Vec<_>>().join("\n")
    }

    /// Waits until a node says that the store is up, or that it is not.
    pub fn has_store(&self, number: u16, is_up: bool) -> Result<()> {
        let node = self.node(number)?;
        wait::until("word of the store", SOON, || {
            // The conductor may just be starting.
            let status = node.status().unwrap_or_default();
            Ok((status["is_store_up"] == is_up).then_some(()))
        })
    }

    /// The node that leads, as all running nodes agree.
    pub fn leader(&self) -> Result<u16> {
        wait::until("a leader", SOON, || {
            let mut leaders = Vec::new();
            for node in self.running() {
                let status = node.status().ok();
                leaders.push(status.and_then(|status| status["leader"].as_u64()));
            }
            leaders.dedup();
            match leaders.as_slice() {
                [Some(leader)] => Ok(u16::try_from(*leader).ok()),
                _ => Ok(None),
            }
        })
        .with_context(|| self.picture())
    }

    /// What of the whole a running node says that each node has.
    pub fn shares(&self) -> Result<BTreeMap<u16, f64>> {
        let node = self.running().next().context("no node runs")?;
        shares(&node.status()?)
    }
}

/// Parts of all buckets, by node.
fn shares(status: &Value) -> Result<BTreeMap<u16, f64>> {
    let members = status["members"].as_array().context("no members")?;
    let share = |member: &Value| {
        let number = member["node"].as_u64()?;
        let percent = member["share"].as_f64()?;
        Some((u16::try_from(number).ok()?, percent / 100.0))
    };
    let all: Option<BTreeMap<_, _>> = members.iter().map(share).collect();
    all.context("a member without a share")
}
