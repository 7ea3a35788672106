//! Measurements as Prometheus reads them, in the text format of OpenMetrics 1.0 without its end mark.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use postern_ebpf_abi::count::Count;
use postern_ebpf_abi::place::{DECISIONS, Decision};
use postern_ebpf_abi::verdict::{VERDICTS, Verdict};
use postern_steering::NodeId;

use crate::admin::{Accounting, Steering};
use crate::leader::Moves;

/// States that members are counted by.
const STATES: [&str; 6] = ["joining", "up", "draining", "failed", "gone", "member"];

/// What there is to tell of steering.
pub struct Measured<'a> {
    pub status: &'a Steering,
    pub counts: Option<&'a [Count; VERDICTS as usize]>,
    pub seen: u64,
    pub published: u64,
    pub leads: bool,
    pub moves: Moves,
    pub terms: u64,
    pub refused: &'a BTreeMap<&'static str, u64>,
    pub probe_failures: &'a BTreeMap<NodeId, u64>,
    pub connections: Option<u64>,
}

/// One text in the making.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        write!(self.0, "# HELP {name} {help}.\n# TYPE {name} {kind}\n").expect("a string grows");
    }

    /// Labels are names and numbers of ours: nothing in them has to be escaped.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{value}\""))
            .collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        writeln!(self.0, "{name}{labels} {value}").expect("a string grows");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(&format!("{name}_total"), &[], value);
    }
}

/// Of steering.
#[must_use]
pub fn steering(measured: &Measured<'_>) -> String {
    let mut text = Text::default();
    packets(&mut text, measured);
    table(&mut text, measured);
    store(&mut text, measured);
    members(&mut text, measured);
    decisions(&mut text, measured);
    text.0
}

fn packets(text: &mut Text, measured: &Measured<'_>) {
    let Some(counts) = measured.counts else {
        return;
    };
    let of = |verdict: &Verdict| counts[*verdict as usize];
    let name = "postern_steer_packets";
    text.family(
        name,
        "counter",
        "Packets that the programs judged, by verdict",
    );
    for verdict in Verdict::ALL {
        let labels = [("verdict", verdict.name())];
        text.sample(&format!("{name}_total"), &labels, of(verdict).packets);
    }
    let name = "postern_steer_bytes";
    text.family(name, "counter", "Bytes of these packets");
    for verdict in Verdict::ALL {
        let labels = [("verdict", verdict.name())];
        text.sample(&format!("{name}_total"), &labels, of(verdict).bytes);
    }
}

fn table(text: &mut Text, measured: &Measured<'_>) {
    let status = measured.status;
    let name = "postern_steer_generation";
    text.family(
        name,
        "gauge",
        "Table that this node steers by, that the store has, that packets of others named",
    );
    for (of, generation) in [
        ("own", status.generation),
        ("store", measured.published),
        ("seen", measured.seen),
    ] {
        text.sample(name, &[("of", of)], generation);
    }
    text.gauge(
        "postern_steer_isolated",
        "1 while the cluster went on without this node",
        u8::from(status.is_isolated),
    );
    text.gauge(
        "postern_steer_announced",
        "1 while routers should send packets here",
        u8::from(status.is_announced),
    );
    let name = "postern_steer_mode";
    text.family(name, "gauge", "1 for how the interface runs the programs");
    text.sample(name, &[("mode", &status.mode)], 1);
    if let Some(connections) = measured.connections {
        text.gauge(
            "postern_steer_connections",
            "Connections to the services that live on this node",
            connections,
        );
    }
}

fn store(text: &mut Text, measured: &Measured<'_>) {
    text.gauge(
        "postern_steer_store_up",
        "1 while all that is in the store is known",
        u8::from(measured.status.is_store_up),
    );
    let name = "postern_steer_store_refused";
    text.family(
        name,
        "counter",
        "Values of the store that were refused, by reason",
    );
    for (reason, count) in measured.refused {
        text.sample(&format!("{name}_total"), &[("reason", reason)], count);
    }
}

fn members(text: &mut Text, measured: &Measured<'_>) {
    let status = measured.status;
    let name = "postern_steer_members";
    text.family(
        name,
        "gauge",
        "Members by state; on a node that does not lead all in the table are member",
    );
    for state in STATES {
        let count = status.members.iter().filter(|member| member.state == state);
        text.sample(name, &[("state", state)], count.count());
    }
    let each = |text: &mut Text,
                name: &str,
                help: &str,
                value: &dyn Fn(&crate::admin::MemberStatus) -> Option<f64>| {
        text.family(name, "gauge", help);
        for member in &status.members {
            if let Some(value) = value(member) {
                text.sample(name, &[("node", &member.node.to_string())], value);
            }
        }
    };
    each(
        text,
        "postern_steer_share_percent",
        "Part of all buckets whose new connections a node gets",
        &|member| Some(member.share),
    );
    each(
        text,
        "postern_steer_share_target_percent",
        "The part that it should get; told by the leader",
        &|member| member.share_target,
    );
    each(
        text,
        "postern_steer_member_connections",
        "Connections to the services that a node has told",
        &|member| member.connections.map(|connections| connections as f64),
    );
}

fn decisions(text: &mut Text, measured: &Measured<'_>) {
    text.gauge(
        "postern_steer_leader",
        "1 while this node leads",
        u8::from(measured.leads),
    );
    text.counter(
        "postern_steer_terms",
        "Times that this node began to lead",
        measured.terms,
    );
    let moves = measured.moves;
    text.counter(
        "postern_steer_publications",
        "Tables that this node published",
        moves.publications,
    );
    let name = "postern_steer_moves";
    text.family(
        name,
        "counter",
        "Steps of buckets that this node decided, by kind",
    );
    for (kind, count) in [
        ("swap", moves.swaps),
        ("stage", moves.stages),
        ("replace", moves.replaces),
    ] {
        text.sample(&format!("{name}_total"), &[("kind", kind)], count);
    }
    text.counter(
        "postern_steer_cuts",
        "Connections on sound nodes that these steps ended",
        moves.cuts,
    );
    if let Some(waiting) = measured.status.buckets_waiting {
        text.gauge(
            "postern_steer_buckets_waiting",
            "Buckets that wait for connections to end",
            waiting,
        );
    }
    let name = "postern_steer_probe_failures";
    text.family(name, "counter", "Tries of a node's service that failed");
    for (node, count) in measured.probe_failures {
        let node = node.get().to_string();
        text.sample(&format!("{name}_total"), &[("node", &node)], count);
    }
}

/// Of placement.
#[must_use]
pub fn placement(counts: &[u64; DECISIONS as usize]) -> String {
    let mut text = Text::default();
    let name = "postern_place_decisions";
    text.family(
        name,
        "counter",
        "New connections by how their core was chosen",
    );
    for decision in Decision::ALL {
        let labels = [("decision", decision.label())];
        let count = counts[decision as usize];
        text.sample(&format!("{name}_total"), &labels, count);
    }
    text.0
}

/// Of accounting.
#[must_use]
pub fn accounting(accounting: &Accounting) -> String {
    let mut text = Text::default();
    text.counter(
        "postern_account_flows",
        "Flows that were written to the audit trail",
        accounting.records,
    );
    text.counter(
        "postern_account_lost_flows",
        "Flows that the kernel had no room for",
        accounting.flows_lost,
    );
    text.counter(
        "postern_account_lost_bytes",
        "Payload that is in no flow",
        accounting.bytes_lost,
    );
    text.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_is_named_once_and_every_sample_has_one() {
        let status = Steering {
            node: 1,
            mode: "native".to_owned(),
            native_refused: None,
            store: "etcd".to_owned(),
            is_store_up: true,
            generation: 7,
            generation_newest: 8,
            leader: Some(1),
            is_isolated: false,
            is_announced: true,
            announcement: "so".to_owned(),
            members: Vec::new(),
            buckets_waiting: Some(3),
            store_refused: 2,
        };
        let mut counts = [Count::ZERO; VERDICTS as usize];
        counts[0].packets = 5;
        let refused = BTreeMap::from([("seal", 2)]);
        let failures = BTreeMap::from([(NodeId::new(2).unwrap(), 4)]);
        let text = steering(&Measured {
            status: &status,
            counts: Some(&counts),
            seen: 8,
            published: 7,
            leads: true,
            moves: Moves {
                swaps: 9,
                ..Moves::default()
            },
            terms: 1,
            refused: &refused,
            probe_failures: &failures,
            connections: Some(11),
        });
        let families: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|rest| rest.split(' ').next())
            .collect();
        let once: std::collections::BTreeSet<_> = families.iter().collect();
        assert_eq!(once.len(), families.len());
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let family = name.strip_suffix("_total").unwrap_or(name);
            assert!(families.contains(&family), "{line}");
        }
        for line in [
            "postern_steer_generation{of=\"own\"} 7",
            "postern_steer_store_refused_total{reason=\"seal\"} 2",
            "postern_steer_moves_total{kind=\"swap\"} 9",
            "postern_steer_probe_failures_total{node=\"2\"} 4",
            "postern_steer_leader 1",
            "postern_steer_store_up 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}");
        }
        let packets = format!(
            "postern_steer_packets_total{{verdict=\"{}\"}} 5",
            Verdict::ALL[0].name()
        );
        assert!(text.contains(&packets));
    }
}
