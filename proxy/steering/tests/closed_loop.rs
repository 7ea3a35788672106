//! Load feedback in a closed loop, with noise and delay: it reacts within seconds, settles, and doesn't swing.
#![allow(clippy::unwrap_used, reason = "a test, its plant included")]

use postern_steering::{
    BucketIndex, Cluster, Flows, Generation, Heartbeat, Load, Millis, NodeId, Policy, Seen, Table,
    Weight,
};

/// Seconds from a new table to the nodes.
const DELAY_S: usize = 2;

/// Nobody has a connection: buckets move as weights want it.
struct Empty(Millis);

impl Flows for Empty {
    fn at(&self, _: NodeId, _: BucketIndex) -> Option<Seen> {
        Some(Seen {
            flows: 0,
            taken_at: self.0,
        })
    }
}

/// Nodes whose load follows from their share of new connections.
struct Plant {
    cluster: Cluster,
    nodes: Vec<NodeId>,
    /// Sessions on each node.
    sessions: Vec<f64>,
    /// Sessions that each node can carry.
    capacity: Vec<f64>,
    /// CPU that something else takes.
    burnt: Vec<f64>,
    /// New sessions a second, and how long one lasts.
    arrivals: f64,
    lifetime_s: f64,
    /// CPU for one new session a second.
    handshake_cpu: f64,
    /// Shares that were in force some seconds ago.
    shares: Vec<Vec<f64>>,
    second: u64,
    noise: u64,
}

impl Plant {
    fn new(capacity: &[f64], arrivals: f64, lifetime_s: f64, handshake_cpu: f64) -> Self {
        let weight = Weight::new(100).unwrap();
        let nodes: Vec<_> = (1..).map_while(NodeId::new).take(capacity.len()).collect();
        let members: Vec<_> = nodes.iter().map(|node| (*node, weight)).collect();
        let table = Table::initial(Generation(1), &members).unwrap();
        let mut cluster = Cluster::new(table, Policy::default());
        for node in &nodes {
            cluster.admit(*node, weight, Millis(0)).unwrap();
        }
        let each = arrivals * lifetime_s / capacity.len() as f64;
        Self {
            cluster,
            sessions: vec![each; nodes.len()],
            capacity: capacity.to_vec(),
            burnt: vec![0.0; nodes.len()],
            arrivals,
            lifetime_s,
            handshake_cpu,
            shares: Vec::new(),
            second: 0,
            noise: 88_172_645_463_325_252,
            nodes,
        }
    }

    /// Evenly between -1 and 1.
    fn random(&mut self) -> f64 {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        (self.noise >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }

    fn share(&self, at: usize) -> f64 {
        f64::from(self.cluster.table().first_of(self.nodes[at])) / 65_536.0
    }

    fn factor(&self, at: usize) -> u32 {
        let member = self.cluster.member(self.nodes[at]).unwrap();
        member.target_weight() / 100
    }

    fn second(&mut self) {
        self.second += 1;
        let now = Millis(self.second * 1_000);
        let shares = (0..self.nodes.len()).map(|at| self.share(at)).collect();
        self.shares.push(shares);
        let late = self.shares.len().saturating_sub(1 + DELAY_S);
        let in_force = self.shares[late].clone();
        for (at, share) in in_force.into_iter().enumerate() {
            let new = self.arrivals * share;
            self.sessions[at] += new - self.sessions[at] / self.lifetime_s;
            let cpu = 0.05
                + self.burnt[at]
                + self.sessions[at] / self.capacity[at]
                + new * self.handshake_cpu;
            let cpu = (cpu * (1.0 + 0.1 * self.random())).clamp(0.0, 1.0);
            let heartbeat = Heartbeat {
                generation: self.cluster.table().generation(),
                load: Some(Load {
                    cpu,
                    sessions: self.sessions[at] as u32,
                    sessions_max: u32::MAX,
                    handshakes: 0,
                    handshakes_max: 100,
                }),
            };
            self.cluster.heard(self.nodes[at], &heartbeat, now).unwrap();
        }
        if let Some(plan) = self.cluster.tick(now, &Empty(now)) {
            self.cluster.commit(&plan).unwrap();
        }
    }

    /// How often the node's factor changes its direction in so many seconds.
    fn turns(&mut self, at: usize, seconds: u32) -> usize {
        let mut steps = Vec::new();
        let mut last = self.factor(at);
        for _ in 0..seconds {
            self.second();
            let factor = self.factor(at);
            if factor != last {
                steps.push(factor > last);
            }
            last = factor;
        }
        steps.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }
}

#[test]
fn an_overloaded_node_loses_new_sessions_within_ten_seconds_and_gets_them_back_without_swinging() {
    let mut plant = Plant::new(&[1_000.0; 4], 1.0, 1_600.0, 0.0);
    for _ in 0..60 {
        plant.second();
    }
    assert!((plant.share(0) - 0.25).abs() < 0.001);
    plant.burnt[0] = 1.0;
    let seconds = (1..60).find(|_| {
        plant.second();
        plant.share(0) < 0.25 / 3.0
    });
    assert!(
        seconds.is_some_and(|seconds| seconds + DELAY_S as u32 <= 10),
        "{seconds:?}"
    );
    assert_eq!(plant.turns(0, 600), 0, "it stays down while it is busy");

    plant.burnt[0] = 0.0;
    assert_eq!(plant.turns(0, 600), 0, "it comes back in one go");
    assert!((plant.share(0) - 0.25).abs() < 0.001, "{}", plant.share(0));
}

#[test]
fn a_node_that_is_weaker_than_its_weight_settles() {
    // It can carry 40 % of what the others can, and its sessions are long.
    let mut plant = Plant::new(&[400.0, 1_000.0, 1_000.0, 1_000.0], 1.0, 1_600.0, 0.0);
    let turns = plant.turns(0, 2 * 3_600);
    assert!(turns <= 4, "{turns}");
    let load = plant.sessions[0] / plant.capacity[0];
    assert!((0.65..0.95).contains(&load), "{load}");
    let others = (1..4).map(|at| plant.sessions[at] / plant.capacity[at]);
    assert!(others.into_iter().all(|load| load < 0.6));
}

#[test]
fn load_that_follows_new_sessions_at_once_does_not_swing() {
    // All of the CPU goes into handshakes, as when short sessions come and go: the fastest plant there is.
    let mut plant = Plant::new(&[1e9, 1e9, 1e9, 1e9], 40.0, 10.0, 0.05);
    plant.burnt[0] = 0.35;
    let turns = plant.turns(0, 3_600);
    // An hour has 3,600 chances to turn.
    assert!(turns <= 20, "{turns}");
    let late: Vec<f64> = plant
        .shares
        .iter()
        .rev()
        .take(1_800)
        .map(|one| one[0])
        .collect();
    let (low, high) = late.iter().fold((1.0_f64, 0.0_f64), |(low, high), share| {
        (low.min(*share), high.max(*share))
    });
    assert!(
        low > 0.10 && high < 0.251 && high - low < 0.1,
        "{low} {high}"
    );
}
