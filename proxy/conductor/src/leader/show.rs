//! What the leader knows, for people: members with their shares, and why a bucket is where it is.

use std::collections::BTreeMap;

use postern_steering::{BUCKETS, BucketIndex, Millis, NodeId, Publication, State};

use super::Leader;
use crate::admin::MemberStatus;
use crate::nodes::Nodes;

/// The part of all buckets in percent.
pub fn percent(part: f64, of: f64) -> f64 {
    if of > 0.0 { part / of * 100.0 } else { 0.0 }
}

/// Buckets that each node is the second hop of.
fn seconds(publication: &Publication) -> BTreeMap<NodeId, u32> {
    let mut seconds = BTreeMap::new();
    for bucket in publication.table().buckets() {
        if let Some(second) = bucket.second {
            *seconds.entry(second).or_default() += 1;
        }
    }
    seconds
}

/// Everybody, as every node knows it from the table and from what others say.
#[must_use]
pub fn members(publication: &Publication, nodes: &Nodes) -> Vec<MemberStatus> {
    let seconds = seconds(publication);
    let table = publication.table();
    let status = |node: NodeId| {
        let place = publication.roster().get(&node).copied();
        let known = nodes.get(node);
        let registration = known.and_then(|known| known.registration);
        let place = place.or_else(|| registration.map(|registration| registration.place()));
        let addresses = place.iter().flat_map(|place| place.addresses());
        let buckets = table.first_of(node);
        MemberStatus {
            node: node.get(),
            state: if table.entry(node).is_some() {
                "member"
            } else {
                "joining"
            }
            .to_owned(),
            addresses: addresses.map(|address| address.to_string()).collect(),
            // Of a node of a file, which registers nowhere, the table has the weight itself.
            weight: registration
                .and_then(|registration| registration.weight())
                .map(|weight| weight.get())
                .or_else(|| table.entry(node).map(|entry| entry.weight))
                .unwrap_or_default(),
            share_target: None,
            share: percent(f64::from(buckets), BUCKETS as f64),
            buckets,
            buckets_second: seconds.get(&node).copied().unwrap_or_default(),
            connections: nodes.reports().total(node),
            generation: known
                .and_then(|known| known.heartbeat.as_ref())
                .map(|(heartbeat, _)| heartbeat.generation().0),
            intent: nodes.intent(node).name().to_owned(),
        }
    };
    let mut all: Vec<NodeId> = publication.roster().keys().copied().collect();
    all.extend(nodes.registered().map(|(node, _)| node));
    all.sort_unstable();
    all.dedup();
    all.into_iter().map(status).collect()
}

/// A state's name.
#[must_use]
pub fn state_name(state: State) -> &'static str {
    match state {
        State::Joining => "joining",
        State::Up => "up",
        State::Draining => "draining",
        State::Failed { .. } => "failed",
        State::Gone => "gone",
    }
}

impl Leader {
    /// Adds what only who leads knows: states, and the shares that are aimed at.
    pub fn enrich(&self, members: &mut [MemberStatus]) {
        let Some(deciding) = &self.deciding else {
            return;
        };
        let takes = |state: State| state == State::Up;
        let all: f64 = deciding
            .cluster
            .members()
            .filter(|member| takes(member.state()))
            .map(|member| f64::from(member.target_weight()))
            .sum();
        for status in members {
            let member = NodeId::new(status.node).and_then(|node| deciding.cluster.member(node));
            let Some(member) = member else {
                if deciding.roster.keys().any(|node| node.get() == status.node) {
                    status.state = state_name(State::Gone).to_owned();
                }
                continue;
            };
            status.state = state_name(member.state()).to_owned();
            let aimed = if takes(member.state()) {
                percent(f64::from(member.target_weight()), all)
            } else {
                0.0
            };
            status.share_target = Some(aimed);
        }
    }

    /// Buckets that wait for connections to end, and could only be moved by cutting these.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.deciding
            .as_ref()
            .map_or(0, |deciding| deciding.waiting)
    }

    /// Why a bucket is where it is; nothing before there is a table.
    #[must_use]
    pub fn explain(&self, bucket: BucketIndex, nodes: &Nodes, now: Millis) -> Option<String> {
        let deciding = self.deciding.as_ref()?;
        let explanation = deciding.cluster.explain(bucket, now, nodes.reports());
        Some(explanation.to_string())
    }
}
