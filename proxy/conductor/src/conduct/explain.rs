//! Where the packets of one connection go, and why, in words.

use std::fmt::Write as _;

use postern_steering::{BucketIndex, NodeId};

use super::Conductor;
use crate::admin::{Protocol, Tuple};
use crate::kernel::{TCP, UDP};
use crate::reports;

impl Conductor {
    /// # Errors
    /// There is no table.
    pub(super) fn explain(&self, tuple: Tuple) -> Result<String, String> {
        let Some(publication) = self.station.in_force() else {
            return Err("there is no table yet".to_owned());
        };
        let Tuple {
            source,
            destination,
            protocol,
        } = tuple;
        if !self.settings.vips.contains(&destination) || protocol == Protocol::Udp {
            return Ok(format!(
                "{destination} ({}) is no service of this cluster: packets to its address are dropped where the address serves another port, and pass untouched else",
                name(protocol)
            ));
        }
        let number = match protocol {
            Protocol::Tcp => TCP,
            Protocol::Udp => UDP,
        };
        let bucket = reports::bucket(source, destination, number, self.keys.flow);
        let mut words = format!("{source} → {destination} ({})\n", name(protocol));
        let told = self
            .term
            .as_ref()
            .and_then(|term| term.leader.explain(bucket, &self.nodes, self.now()));
        match told {
            Some(told) => words.push_str(&told),
            None => self.tell(&mut words, bucket),
        }
        let hops = publication.table().bucket(bucket);
        for node in [Some(hops.first), hops.second].into_iter().flatten() {
            let addresses: Vec<String> = publication
                .roster()
                .get(&node)
                .iter()
                .flat_map(|place| place.addresses())
                .map(|address| address.to_string())
                .collect();
            let own = if node == self.settings.node {
                ", which is this node"
            } else {
                ""
            };
            write!(words, "\n  {node} is at {}{own}", addresses.join(" and "))
                .expect("a string grows");
        }
        self.tell_holder(&mut words, bucket);
        Ok(words)
    }

    /// What a node that does not lead knows of a bucket.
    fn tell(&self, words: &mut String, bucket: BucketIndex) {
        let Some(publication) = self.station.in_force() else {
            return;
        };
        let hops = publication.table().bucket(bucket);
        let second = hops
            .second
            .map_or("nobody".to_owned(), |node| node.to_string());
        let leader = match self.seat.holder {
            Some((node, _)) => format!("{node} leads and knows why"),
            None if self.etcd.is_none() => "as the file of nodes has it".to_owned(),
            None => "nobody leads now".to_owned(),
        };
        write!(
            words,
            "bucket {:#06x} of {}\n  new connections: {}\n  those it doesn't know: {second}\n  {leader}",
            bucket.0,
            publication.generation(),
            hops.first
        )
        .expect("a string grows");
    }

    /// Which nodes have connections of the bucket now.
    fn tell_holder(&self, words: &mut String, bucket: BucketIndex) {
        use postern_steering::Flows as _;
        let mut holders: Vec<(NodeId, u32)> = self
            .nodes
            .all()
            .filter_map(|(node, _)| Some((node, self.nodes.reports().at(node, bucket)?.flows)))
            .collect();
        if holders.is_empty()
            && let Some(report) = &self.counted
        {
            let own = report.flows.iter().find(|(found, _)| *found == bucket);
            holders.push((self.settings.node, own.map_or(0, |(_, flows)| *flows)));
        }
        for (node, flows) in holders.into_iter().filter(|(_, flows)| *flows > 0) {
            write!(words, "\n  {node} holds {flows} connections of this bucket")
                .expect("a string grows");
        }
    }
}

fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}
