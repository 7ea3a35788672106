//! The nodes: the program that ships on each, with the keys that they share, and what a test does to them.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use postern_parts::process::{self, Process};
use postern_parts::{program, wait};
use postern_tests::crowd::allow_descriptors;
use postern_tests::fake_target::{Greeting, Work};
use postern_tests::gateway::{Certificate, Configuration, Metrics, PASSWORD, write_secret};
use postern_tests::machine::Machine;
use postern_tests::{Browser, FakeTarget, Gateway};
use postern_wire::x224::Protocol;
use tempfile::TempDir;

use crate::network::{Network, PEERS, VIPS, node_addresses, vip};
use crate::processor::Processor;
use crate::sessions::APPLICATION;

/// More than any part of a test makes.
const ROOM: u64 = 100_000;

/// Where nodes reach the store.
const STORE: &str = "10.79.0.2:2379";
const STORE_PATIENCE: Duration = Duration::from_secs(20);

/// One gateway on its machine.
pub struct Node {
    pub number: u16,
    pub machine: Arc<Machine>,
    pub gateway: Gateway,
    pub processor: Processor,
}

/// All parts; dropping it ends them in the order of its fields.
pub struct Fleet {
    /// By number, from 1; a node that was not started is there, too.
    pub nodes: Vec<Node>,
    target: Option<FakeTarget>,
    store: Option<Process>,
    pub network: Network,
    folder: TempDir,
}

impl Fleet {
    /// Machines, target and configurations for nodes of these weights; nothing of them runs. Without a
    /// store they don't steer.
    pub fn prepare(weights: &[u32], steers: bool) -> Result<Self> {
        // Both ends of every desktop, the target's twice, and the connections that are counted.
        allow_descriptors()?;
        let folder = tempfile::Builder::new().prefix("steering-").tempdir()?;
        let count = u16::try_from(weights.len())?;
        let network = Network::start(count, folder.path())?;
        let target = network.target.on(|| {
            let ip = "10.78.0.2".parse()?;
            FakeTarget::start_at(ip, Greeting::Choose(Protocol::Nla), Work::Echo)
        })?;
        let mut fleet = Self {
            nodes: Vec::new(),
            target: Some(target),
            store: None,
            network,
            folder,
        };
        write_secret(&fleet.secret_file(), "5a".repeat(32).as_bytes())?;
        let first = fleet.shared_state()?;
        let shared = first.folder().join("state");
        for (number, weight) in (1..).zip(weights) {
            let node = fleet.prepare_node(number, *weight, steers, &shared)?;
            fleet.nodes.push(node);
        }
        if steers {
            fleet.start_store()?;
        }
        Ok(fleet)
    }

    /// The state that all nodes begin with. Nodes share no store: an administrator takes the first one's
    /// keys over to the others (`docs/steering.md`). These are new and have no audit trail yet, so each may
    /// take the whole store, of a gateway that is stopped.
    fn shared_state(&self) -> Result<Gateway> {
        let mut first = Gateway::start(Configuration::for_target(self.target()?.address))?;
        first.stop()?;
        Ok(first)
    }

    fn prepare_node(&self, number: u16, weight: u32, steers: bool, first: &Path) -> Result<Node> {
        let machine = self.network.node(number)?.clone();
        let processor = Processor::install(&machine, self.folder.path())?;
        let mut configuration = Configuration::for_target(self.target()?.address)
            .limit("connections_max", ROOM)
            .limit("connections_per_source_max", ROOM)
            .limit("handshakes_per_core_max", ROOM)
            .limit("handshakes_per_source_max", ROOM)
            .limit("sessions_max", ROOM)
            .limit("sessions_per_user_max", ROOM);
        // Nobody is asked: a first use would be another one on every node.
        configuration.application(APPLICATION).certificate =
            Certificate::Pin(self.target()?.fingerprint());
        configuration.listen = VIPS
            .iter()
            .map(|vip| Ok(vip.parse::<SocketAddr>()?.ip()))
            .chain(node_addresses(number).map(Ok))
            .collect::<Result<_>>()?;
        if steers {
            configuration.sections = self.steering(number, weight);
        }
        let gateway = Gateway::prepare_on(machine.clone(), vip(0), configuration)?;
        copy_store(first, &gateway.folder().join("state"))?;
        Ok(Node {
            number,
            machine,
            gateway,
            processor,
        })
    }

    fn steering(&self, number: u16, weight: u32) -> String {
        let addresses = node_addresses(number).map(|ip| ip.to_string());
        format!(
            "[steering]\nnode = {number}\nweight = {weight}\naddresses = {addresses:?}\n\
             interface = \"eth0\"\nmode = \"generic\"\nvips = {VIPS:?}\npeers = {PEERS:?}\n\
             secret_file = {:?}\n[steering.store]\netcd = [\"http://{STORE}\"]\n",
            self.secret_file(),
        )
    }

    fn secret_file(&self) -> std::path::PathBuf {
        self.folder.path().join("steering.secret")
    }

    /// Starts etcd, with what it knew before.
    pub fn start_store(&mut self) -> Result<()> {
        program::require(&["etcd", "etcdctl"])?;
        let folder = self.folder.path();
        let mut command = self.network.store.command("etcd");
        let client = format!("http://{STORE}");
        command.arg("--data-dir").arg(folder.join("etcd"));
        command.args([
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
        ]);
        command.args(["--listen-peer-urls", "http://127.0.0.1:2380"]);
        let mut store = Process::start("etcd", &command, &folder.join("etcd.log"))?;
        wait::until("etcd", STORE_PATIENCE, || {
            store.expect_running()?;
            Ok(self.etcdctl(&["endpoint", "health"]).is_ok().then_some(()))
        })?;
        self.store = Some(store);
        Ok(())
    }

    pub fn stop_store(&mut self) {
        self.store = None;
    }

    /// Runs `etcdctl`, as somebody does who reaches the store and does not know the secret.
    pub fn etcdctl(&self, arguments: &[&str]) -> Result<String> {
        process::run(self.etcdctl_command().args(arguments))
    }

    /// What lies under a key of the store.
    pub fn get(&self, key: &str) -> Result<Vec<u8>> {
        let mut command = self.etcdctl_command();
        command.args(["get", "--print-value-only", key]);
        let mut value = command.output()?.stdout;
        // The line's end is etcdctl's.
        value.pop();
        Ok(value)
    }

    /// Puts any bytes under a key of the store.
    pub fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        let mut command = self.etcdctl_command();
        command.args(["put", key]).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::null()).spawn()?;
        let mut input = child.stdin.take().context("etcdctl has an input")?;
        input.write_all(value)?;
        drop(input);
        ensure!(child.wait()?.success(), "etcdctl put {key}");
        Ok(())
    }

    fn etcdctl_command(&self) -> Command {
        let mut command = self.network.store.command("etcdctl");
        command.env("ETCDCTL_API", "3");
        command.arg(format!("--endpoints=http://{STORE}"));
        command
    }

    pub fn target(&self) -> Result<&FakeTarget> {
        self.target
            .as_ref()
            .context("the target runs as long as this")
    }

    pub fn node(&self, number: u16) -> Result<&Node> {
        let index = usize::from(number).checked_sub(1);
        let node = index.and_then(|index| self.nodes.get(index));
        node.context("nodes are counted from 1")
    }

    pub fn node_mut(&mut self, number: u16) -> Result<&mut Node> {
        let index = usize::from(number).checked_sub(1);
        let node = index.and_then(|index| self.nodes.get_mut(index));
        node.context("nodes are counted from 1")
    }

    /// A browser for each family, in which alice has signed in and opened the application.
    pub fn browsers(&self) -> Result<[Browser; 2]> {
        let host = &self.node(1)?.gateway.host;
        self.network.client.on(|| {
            let mut browser = Browser::new(vip(0), host);
            browser.sign_in("alice", PASSWORD)?;
            browser.open(APPLICATION)?;
            let v6 = browser.by(vip(1));
            Ok([browser, v6])
        })
    }

    /// Which node has a connection to `vip`, by the browser's end.
    pub fn holders(&self, vip: SocketAddr) -> Result<HashMap<SocketAddr, u16>> {
        let mut holders = HashMap::new();
        for node in &self.nodes {
            for connection in node.machine.connections()? {
                if connection.local == vip {
                    holders.insert(connection.remote, node.number);
                }
            }
        }
        Ok(holders)
    }
}

impl Node {
    /// Starts `postern serve` and waits until it answers on its own machine.
    pub fn launch(&mut self) -> Result<()> {
        let (machine, gateway) = (&self.machine, &mut self.gateway);
        machine.on(|| gateway.launch())?;
        self.processor.count(self.gateway.pid()?);
        Ok(())
    }

    pub fn metrics(&self) -> Result<Metrics> {
        self.machine.on(|| self.gateway.metrics())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // It knocks at its own door to end, which must be that of its machine.
        let target = self.target.take();
        self.network.target.on(move || drop(target));
    }
}

/// Copies the store of a gateway that is stopped.
fn copy_store(first: &Path, state: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().mode(0o700).create(state)?;
    let file = first.join("store.sqlite");
    std::fs::copy(&file, state.join("store.sqlite")).with_context(|| file.display().to_string())?;
    Ok(())
}
