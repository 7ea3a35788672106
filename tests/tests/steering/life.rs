//! Two hundred desktops at work while nodes come, go, drain, die and forget, and the router changes its mind.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use postern_parts::wait;
use postern_tests::Browser;
use postern_tests::gateway::EFFECT;
use postern_tests::noise::Digest;

use crate::cluster::{RESTED, SOON};
use crate::fleet::Fleet;
use crate::network::vip;
use crate::poison::poison;
use crate::sessions::{END_PATIENCE, Ends, Sessions};
use crate::shares::Shares;
use crate::turn;

const SESSIONS: usize = 200;

/// Opened beside them where a test wants to see that new ones come about.
const NEW_SESSIONS: usize = 12;

/// By number: the first, the second and so on.
const WEIGHTS: [u32; 4] = [100, 200, 100, 200];

/// Connections that shares are told from: once for the figure, and after every other stage.
const COUNTED: usize = 20_000;
const COUNTED_FEW: usize = 5_000;

/// Without a store nothing may change for longer than leases and heartbeats are waited for.
const STORE_GONE: Duration = Duration::from_secs(12);

/// Everything that a stage needs.
struct Life {
    sessions: Sessions,
    /// Sessions of a node that was killed.
    lost: BTreeSet<SocketAddr>,
    browsers: [Browser; 2],
    fleet: Fleet,
    began: Instant,
}

#[test]
fn desktops_outlive_everything_but_the_death_of_their_own_node() -> Result<()> {
    let _turn = turn();
    let mut life = Life::begin()?;
    life.add_a_node()?;
    life.drain_a_node()?;
    life.kill_a_node()?;
    life.poison_the_store()?;
    life.undrain_a_node()?;
    life.restart_control()?;
    life.restart_the_conductor()?;
    life.reshuffle_the_router()?;
    life.explain()?;
    life.lose_the_store()?;
    life.cut_a_node_off_the_store()?;
    life.end()
}

impl Life {
    /// Three of four nodes, and desktops on all of them.
    fn begin() -> Result<Self> {
        let mut fleet = Fleet::prepare(&WEIGHTS, true)?;
        let began = Instant::now();
        // The first one leads, and is to die.
        for number in [3, 1, 2] {
            fleet.node_mut(number)?.launch()?;
        }
        fleet.announce_all(&[1, 2, 3], SOON)?;
        let took = fleet.settle(&weights(&[1, 2, 3]), SOON)?;
        let browsers = fleet.browsers()?;
        let mut life = Self {
            sessions: Sessions::default(),
            lost: BTreeSet::new(),
            browsers,
            fleet,
            began,
        };
        life.tell(&format!("three nodes share one address after {took:.1?}"));
        life.open(SESSIONS)?;
        life.shares(&[1, 2, 3], COUNTED_FEW)?;
        life.works("at the start")?;
        Ok(life)
    }

    fn add_a_node(&mut self) -> Result<()> {
        self.fleet.node_mut(4)?.launch()?;
        self.fleet.announce_all(&[1, 2, 3, 4], SOON)?;
        let took = self.fleet.settle(&weights(&[1, 2, 3, 4]), RESTED)?;
        self.tell(&format!("node 4 has its share after {took:.1?}"));
        self.works("a node was added")?;
        self.shares(&[1, 2, 3, 4], COUNTED)?;
        self.open(NEW_SESSIONS)
    }

    fn drain_a_node(&mut self) -> Result<()> {
        let before = self.held_by(2)?;
        self.fleet.node(1)?.steer(&["drain", "2"])?;
        let took = self.fleet.settle(&weights(&[1, 3, 4]), RESTED)?;
        self.tell(&format!("node 2 gets nothing new after {took:.1?}"));
        self.works("a node drains")?;
        self.shares(&[1, 3, 4], COUNTED_FEW)?;
        let after = self.held_by(2)?;
        ensure!(
            before == after,
            "{} desktops left, {} were there",
            after.len(),
            before.len()
        );
        Ok(())
    }

    fn kill_a_node(&mut self) -> Result<()> {
        let dying = self.held_by(3)?;
        ensure!(!dying.is_empty(), "node 3 has no desktop that could die");
        let was_leader = self.fleet.leader()? == 3;
        self.fleet.node_mut(3)?.gateway.kill_all()?;
        self.fleet.network.unplug(3)?;
        let killed = Instant::now();
        // What a routing daemon does when its neighbour is silent.
        self.fleet.network.spread(&[(1, 1), (2, 1), (4, 1)])?;
        let took = self.fleet.leave(3, SOON)?;
        self.tell(&format!(
            "node 3 (leader: {was_leader}) with {} desktops killed; new ones elsewhere after {took:.1?}",
            dying.len()
        ));
        let few = Shares::count(&self.fleet, vip(0), COUNTED_FEW)?;
        ensure!(few.refused == 0 && few.part(3) == 0.0, "{few}");
        self.lost = dying;
        wait::until("the end of a dead node's desktops", END_PATIENCE, || {
            Ok((self.sessions.ended() == self.lost).then_some(()))
        })?;
        self.tell(&format!("they have ended after {:.1?}", killed.elapsed()));
        self.works("a node was killed")?;
        self.fleet.settle(&weights(&[1, 4]), RESTED)?;
        self.tell(&format!("shares are right after {:.1?}", killed.elapsed()));
        self.shares(&[1, 4], COUNTED_FEW)
    }

    /// That everything is still decided is what the next stage shows.
    fn poison_the_store(&mut self) -> Result<()> {
        let refused = poison(&self.fleet)?;
        self.tell(&format!("{refused} forged values refused"));
        self.works("the store was poisoned")
    }

    fn undrain_a_node(&mut self) -> Result<()> {
        self.fleet.node(1)?.steer(&["undrain", "2"])?;
        let took = self.fleet.settle(&weights(&[1, 2, 4]), RESTED)?;
        self.tell(&format!("node 2 has its share again after {took:.1?}"));
        self.works("a node was undrained")?;
        self.shares(&[1, 2, 4], COUNTED_FEW)
    }

    fn restart_control(&mut self) -> Result<()> {
        let old = self.fleet.node(1)?.gateway.kill("control")?;
        self.works("control was killed")?;
        self.is_started_again("control", 1, old)?;
        self.fleet.announce_all(&[1, 2, 4], SOON)?;
        self.open(NEW_SESSIONS)?;
        self.works("control was started again")
    }

    fn restart_the_conductor(&mut self) -> Result<()> {
        let leader = self.fleet.leader()?;
        let other = [1, 2, 4].into_iter().find(|number| *number != leader);
        for number in [other.context("three nodes run")?, leader] {
            let killed = Instant::now();
            let old = self.fleet.node(number)?.gateway.kill("conductor")?;
            self.works("a conductor was killed")?;
            self.is_started_again("conductor", number, old)?;
            self.fleet.has_store(number, true)?;
            self.fleet.leader()?;
            self.fleet.settle(&weights(&[1, 2, 4]), RESTED)?;
            self.fleet.announce_all(&[1, 2, 4], SOON)?;
            self.tell(&format!(
                "the conductor of node {number} (leader: {}) is back after {:.1?}",
                number == leader,
                killed.elapsed()
            ));
            self.open(NEW_SESSIONS)?;
        }
        self.works("conductors were started again")
    }

    fn reshuffle_the_router(&mut self) -> Result<()> {
        let orders: [&[(u16, u16)]; 4] = [
            &[(4, 1), (1, 1), (2, 1)],
            &[(2, 5), (4, 1), (1, 2)],
            &[(1, 1)],
            &[(1, 1), (2, 1), (4, 1)],
        ];
        for (seed, order) in (1..).zip(orders) {
            self.fleet.network.spread(order)?;
            let is_seeded = self.fleet.network.hash_with(seed);
            self.works("the router changed its mind")?;
            self.tell(&format!("router: {order:?}, another hash: {is_seeded}"));
        }
        self.shares(&[1, 2, 4], COUNTED_FEW)
    }

    /// What `explain` says of live desktops is true.
    fn explain(&mut self) -> Result<()> {
        let holders = [self.fleet.holders(vip(0))?, self.fleet.holders(vip(1))?];
        let mut told = 0;
        for session in self.sessions.living().step_by(7) {
            let holder = holders.iter().find_map(|all| all.get(&session.source));
            let holder = holder.context("a desktop that lives is somewhere")?;
            let (source, vip) = (session.source.to_string(), session.vip.to_string());
            let words = ["explain", source.as_str(), vip.as_str()];
            let names = format!("node {holder} holds ");
            // Nodes count their connections every few seconds.
            wait::until("the true node", EFFECT, || {
                let text = self.fleet.node(1)?.steer(&words)?;
                Ok(text.contains(&names).then_some(()))
            })
            .with_context(|| {
                let told = self.fleet.running().map(|node| node.steer(&words));
                format!("node {holder} has {source}: {:?}", told.collect::<Vec<_>>())
            })?;
            told += 1;
        }
        self.tell(&format!("{told} desktops explained"));
        Ok(())
    }

    /// The store is gone: everything goes on, and is said.
    fn lose_the_store(&mut self) -> Result<()> {
        let generations = self.generations()?;
        self.fleet.stop_store();
        for node in self.fleet.running() {
            self.fleet.has_store(node.number, false)?;
            let up = node.metrics()?.sum("postern_steer_store_up");
            ensure!(up == 0.0, "postern_steer_store_up {up}");
        }
        std::thread::sleep(STORE_GONE);
        self.fleet.announce_all(&[1, 2, 4], EFFECT)?;
        ensure!(self.generations()? == generations, "the table has changed");
        self.shares(&[1, 2, 4], COUNTED_FEW)?;
        self.open(NEW_SESSIONS)?;
        self.works("the store was lost")?;
        self.fleet.start_store()?;
        for node in self.fleet.running() {
            self.fleet.has_store(node.number, true)?;
        }
        self.fleet.settle(&weights(&[1, 2, 4]), RESTED)?;
        self.tell("the store was gone, and is back");
        self.works("the store is back")
    }

    /// The cluster goes on without a node that is sound: it keeps what it has and takes nothing new.
    fn cut_a_node_off_the_store(&mut self) -> Result<()> {
        let held = self.held_by(4)?;
        ensure!(!held.is_empty(), "node 4 has no desktop to keep");
        let machine = self.fleet.node(4)?.machine.clone();
        machine.run("ip route add blackhole 10.79.0.0/24")?;
        let took = self.fleet.leave(4, SOON)?;
        self.fleet.announce_all(&[1, 2], SOON)?;
        self.works("a node was cut off the store")?;
        let (_, why) = self.fleet.node(4)?.announces()?;
        ensure!(why.starts_with("isolated"), "{why}");
        let few = Shares::count(&self.fleet, vip(0), COUNTED_FEW)?;
        ensure!(few.refused == 0 && few.part(4) == 0.0, "{few}");
        ensure!(self.held_by(4)? == held, "node 4 lost a desktop");
        self.tell(&format!(
            "node 4 was left behind after {took:.1?}, and kept {} desktops: {why}",
            held.len()
        ));
        machine.run("ip route del blackhole 10.79.0.0/24")?;
        self.fleet.announce_all(&[1, 2, 4], SOON)?;
        self.works("a node has the store again")
    }

    /// Ends what lives in order, and holds everything against everything.
    fn end(self) -> Result<()> {
        let Self {
            sessions,
            lost,
            fleet,
            began,
            ..
        } = self;
        let all = sessions.len();
        let (bytes, _) = sessions.progress();
        let Ends { sent, broken } = sessions.finish()?;
        for (source, why) in &broken {
            ensure!(lost.contains(source), "{source}: {why}");
        }
        ensure!(sent.len() + lost.len() == all, "{} ended well", sent.len());
        wait::until("the target's digests", END_PATIENCE, || {
            let received = fleet.target()?.all_received();
            let whole: BTreeSet<(u64, String)> = received
                .into_iter()
                .filter(|one| one.clean)
                .map(|one| pair(one.digest))
                .collect();
            let missing = sent
                .iter()
                .filter(|one| !whole.contains(&pair((*one).clone())));
            Ok((missing.count() == 0).then_some(()))
        })?;
        println!(
            "{all} desktops: {} ended in order, {} with their node; {bytes} bytes each way, in {:.0?}",
            sent.len(),
            lost.len(),
            began.elapsed()
        );
        // After all this the cluster still decides, and says when a node can be switched off.
        fleet.node(1)?.steer(&["drain", "2"])?;
        fleet.announce_all(&[1, 4], RESTED)?;
        let (_, why) = fleet.node(2)?.announces()?;
        ensure!(why == "drained and empty", "{why}");
        leave_nothing(fleet)
    }

    fn open(&mut self, number: usize) -> Result<()> {
        let start = Instant::now();
        let client = &self.fleet.network.client;
        self.sessions.open(client, &self.browsers, number)?;
        self.tell(&format!(
            "{number} desktops opened in {:.1?}",
            start.elapsed()
        ));
        Ok(())
    }

    /// No desktop has ended but those of the killed node, no connection was reset, and data flow on all.
    fn works(&self, when: &str) -> Result<()> {
        self.sessions
            .flow(&self.lost)
            .with_context(|| format!("after {when}\n{}", self.fleet.picture()))?;
        let resets = self.fleet.network.client.counter("Tcp", "EstabResets")?;
        let expected = self.lost.len() as u64;
        ensure!(
            resets <= expected,
            "{when}: {resets} resets, {expected} died"
        );
        let (bytes, slowest) = self.sessions.progress();
        self.tell(&format!(
            "{when}: {} desktops live, {bytes} bytes each way, slowest echo {slowest:.1?}",
            self.sessions.living().count(),
        ));
        Ok(())
    }

    /// New connections go to these nodes, by their weights.
    fn shares(&self, numbers: &[u16], count: usize) -> Result<()> {
        let start = Instant::now();
        let shares = Shares::count(&self.fleet, vip(0), count)?;
        let error = shares
            .check(&weights(numbers))
            .with_context(|| self.fleet.picture())?;
        self.tell(&format!(
            "{shares}; largest error {:.1} %; counted in {:.0?}",
            error * 100.0,
            start.elapsed()
        ));
        Ok(())
    }

    /// The browsers' ends of the sessions that a node has.
    fn held_by(&self, number: u16) -> Result<BTreeSet<SocketAddr>> {
        let mut held = BTreeSet::new();
        for connection in self.fleet.node(number)?.machine.connections()? {
            held.insert(connection.remote);
        }
        let living = self.sessions.living().map(|session| session.source);
        Ok(living.filter(|source| held.contains(source)).collect())
    }

    fn is_started_again(&self, role: &str, number: u16, old: u32) -> Result<()> {
        let node = self.fleet.node(number)?;
        wait::until(role, SOON, || {
            Ok((node.gateway.role(role)? != old).then_some(()))
        })
    }

    fn generations(&self) -> Result<Vec<u64>> {
        let statuses = self.fleet.running().map(|node| {
            let status = node.status()?;
            status["generation"].as_u64().context("no generation")
        });
        statuses.collect()
    }

    fn tell(&self, what: &str) {
        println!("{:5.1} s  {what}", self.began.elapsed().as_secs_f32());
    }
}

fn weights(numbers: &[u16]) -> Vec<(u16, u32)> {
    let weight = |number: &u16| (*number, WEIGHTS[usize::from(*number) - 1]);
    numbers.iter().map(weight).collect()
}

fn pair(digest: Digest) -> (u64, String) {
    (digest.bytes, digest.sha256)
}

/// Programs outlive the gateway; `postern steer detach` takes them and everything of theirs away.
fn leave_nothing(mut fleet: Fleet) -> Result<()> {
    for number in [1, 2, 4] {
        let node = fleet.node_mut(number)?;
        node.gateway.stop()?;
        let has_program = |node: &crate::fleet::Node| -> Result<bool> {
            Ok(node.machine.run("ip link show eth0")?.contains("xdp"))
        };
        ensure!(has_program(node)?, "the program went with the gateway");
        node.steer(&["detach"])?;
        ensure!(!has_program(node)?, "a program is left");
        let pins = node
            .machine
            .run("find /sys/fs/bpf -mindepth 1 -path */postern*")?;
        ensure!(pins.is_empty(), "pins are left: {pins}");
        // Twice does no harm.
        node.steer(&["detach"])?;
    }
    Ok(())
}
