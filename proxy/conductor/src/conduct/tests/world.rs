//! A cluster for tests: etcd, conductors with a kernel that only remembers, and services that answer.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use postern_ebpf::Draft;
use postern_ebpf_abi::count::Count;
use postern_ebpf_abi::table;
use postern_ebpf_abi::verdict::VERDICTS;
use postern_steering::{
    DwellPolicy, LoadPolicy, ModeWish, NodeId, Policy, Prefix, Settings, SourceRule, StoreSettings,
    Weight,
};
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::super::*;
use crate::admin::Steering;
use crate::store::{Access, Etcd, Sealer};
use crate::{ConductorError, Secret};

/// Long enough for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

const PREFIX: &str = "/test/";

pub fn secret() -> Secret {
    Secret::new(&[7; 32])
}

/// What a kernel would have.
#[derive(Default)]
struct Remembered {
    settings: Option<table::Settings>,
    newest_seen: u64,
}

struct Memory(Arc<Mutex<Remembered>>);

impl Kernel for Memory {
    fn put_table(&mut self, draft: &Draft) -> Result<(), ConductorError> {
        self.0.lock().unwrap().settings = Some(draft.table().settings);
        Ok(())
    }

    fn counts(&self) -> Result<[Count; VERDICTS as usize], ConductorError> {
        Ok([Count::ZERO; VERDICTS as usize])
    }

    fn newest_seen(&self) -> Result<u64, ConductorError> {
        Ok(self.0.lock().unwrap().newest_seen)
    }

    fn set_sources(&mut self, _: &[(Prefix, SourceRule)]) -> Result<(), ConductorError> {
        Ok(())
    }
}

struct Node {
    settings: Settings,
    asked: mpsc::Sender<Asked>,
    news: mpsc::Sender<Settings>,
    end: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ConductorError>>,
    kernel: Arc<Mutex<Remembered>>,
}

pub struct Cluster {
    pub server: postern_parts::Etcd,
    folder: tempfile::TempDir,
    store: StoreSettings,
    port: u16,
    running: BTreeMap<u16, Node>,
    services: Vec<JoinHandle<()>>,
}

impl Cluster {
    /// Nodes from 1 on, with etcd.
    pub async fn start(count: u16) -> Self {
        let server = postern_parts::Etcd::start().unwrap();
        let store = StoreSettings::Etcd {
            endpoints: server.urls(),
            prefix: PREFIX.to_owned(),
            ca_file: None,
            certificate_file: None,
            key_file: None,
        };
        Self::with(server, store, count).await
    }

    /// The same, with a file.
    pub async fn of_file(count: u16) -> Self {
        let server = postern_parts::Etcd::start().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = StoreSettings::File(folder.path().join("nodes.toml"));
        let mut cluster = Self::with(server, store, 0).await;
        cluster.store = StoreSettings::File(cluster.folder.path().join("nodes.toml"));
        let all: Vec<u16> = (1..=count).collect();
        cluster.write_file(1, &all, "1");
        for number in all {
            cluster.launch(number).await;
        }
        cluster
    }

    async fn with(server: postern_parts::Etcd, store: StoreSettings, count: u16) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut cluster = Self {
            server,
            folder: tempfile::tempdir().unwrap(),
            store,
            port,
            running: BTreeMap::new(),
            services: Vec::new(),
        };
        for number in 1..=3 {
            let service = serve(SocketAddr::from((address(number), port))).await;
            cluster.services.push(service);
        }
        for number in 1..=count {
            cluster.launch(number).await;
        }
        cluster
    }

    pub fn vip(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 200, 1], self.port))
    }

    /// A file of nodes; `weight` is that of the first.
    pub fn write_file(&self, generation: u64, numbers: &[u16], weight: &str) {
        let mut text = format!("generation = {generation}\n");
        for number in numbers {
            let weight = if *number == 1 { weight } else { "1" };
            let address = address(*number);
            text.push_str(&format!(
                "[[nodes]]\nid = {number}\naddress_v4 = \"{address}\"\nweight = {weight}\n"
            ));
        }
        std::fs::write(self.folder.path().join("nodes.toml"), text).unwrap();
    }

    pub fn etcd(&self, sealer: Sealer) -> Etcd {
        let access = Access {
            endpoints: self.server.urls(),
            prefix: PREFIX.to_owned(),
            ..Access::default()
        };
        Etcd::open(&access, sealer).unwrap()
    }

    pub async fn launch(&mut self, number: u16) {
        self.launch_as(number, number).await;
    }

    /// The machine `machine` under the number `number`.
    pub async fn launch_as(&mut self, machine: u16, number: u16) {
        let settings = Settings {
            node: NodeId::new(number).unwrap(),
            weight: Weight::new(100).unwrap(),
            address_v4: Some(address(machine)),
            address_v6: None,
            interface: "lo".to_owned(),
            mode: ModeWish::Auto,
            vips: vec![self.vip()],
            tunnel_port: 6080,
            mtu: 1500,
            peers: vec!["127.0.0.0/8".parse().unwrap()],
            sources: Vec::new(),
            syns_per_second: 0,
            syns_burst: 0,
            secret_file: PathBuf::new(),
            store: self.store.clone(),
            policy: policy(),
        };
        let state_directory = self.folder.path().join(machine.to_string());
        let kernel = Arc::new(Mutex::new(Remembered::default()));
        let beginning = Beginning {
            settings: settings.clone(),
            secret: secret(),
            kernel: Box::new(Memory(kernel.clone())),
            installed: Installed {
                mode: "generic".to_owned(),
                native_refused: None,
            },
            ethernet: [0; 6],
            admin_socket: state_directory.join("admin.sock"),
            state_directory,
        };
        let (asked, asking) = mpsc::channel(ASKED_MAX);
        let (news, fresh) = mpsc::channel(1);
        let (end, ended) = oneshot::channel();
        let wires = Wires {
            asked: asking,
            settings: fresh,
            end: ended,
        };
        let node = Node {
            settings,
            asked,
            news,
            end,
            task: tokio::spawn(run(beginning, wires)),
            kernel,
        };
        self.running.insert(machine, node);
    }

    /// Ends it without a word.
    pub fn kill(&mut self, number: u16) {
        self.running.remove(&number).unwrap().task.abort();
    }

    /// Asks it to end.
    pub async fn stop(&mut self, number: u16) {
        let node = self.running.remove(&number).unwrap();
        node.end.send(()).unwrap();
        node.task.await.unwrap().unwrap();
    }

    pub async fn end(mut self) {
        let numbers: Vec<u16> = self.running.keys().copied().collect();
        for number in numbers {
            self.stop(number).await;
        }
        for service in self.services {
            service.abort();
        }
    }

    pub async fn resettle(&mut self, number: u16, change: impl FnOnce(&mut Settings)) {
        let node = self.running.get_mut(&number).unwrap();
        change(&mut node.settings);
        node.news.send(node.settings.clone()).await.unwrap();
    }

    pub async fn ask(&self, number: u16, request: Request) -> Response {
        let (reply, answer) = oneshot::channel();
        let node = &self.running[&number];
        if node.asked.send((request, reply)).await.is_err() {
            panic!("node {number} has ended");
        }
        answer.await.unwrap()
    }

    pub async fn status(&self, number: u16) -> Steering {
        match self.ask(number, Request::Status).await {
            Response::Status(status) => status.steering.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    pub async fn metrics(&self, number: u16) -> String {
        match self.ask(number, Request::Metrics).await {
            Response::Text(text) => text,
            other => panic!("{other:?}"),
        }
    }

    /// Shares of new connections in percent, as node `number` steers.
    pub async fn shares(&self, number: u16) -> BTreeMap<u16, f64> {
        let members = self.status(number).await.members;
        let share = |member: &crate::admin::MemberStatus| (member.node, member.share);
        members.iter().map(share).collect()
    }

    pub async fn leader(&self) -> u16 {
        let number = *self.running.keys().next().unwrap();
        self.status(number).await.leader.unwrap()
    }

    /// Other nodes' packets name this table.
    pub fn see_newer(&self, number: u16, generation: u64) {
        self.running[&number].kernel.lock().unwrap().newest_seen = generation;
    }

    pub fn is_isolated_in_kernel(&self, number: u16) -> bool {
        let kernel = self.running[&number].kernel.lock().unwrap();
        kernel
            .settings
            .is_some_and(|settings| settings.isolated == 1)
    }

    /// Waits until something is so.
    pub async fn until(&self, what: &str, mut is_so: impl AsyncFnMut(&Self) -> bool) {
        let began = Instant::now();
        while !is_so(self).await {
            if began.elapsed() >= PATIENCE {
                for number in self.running.keys() {
                    eprintln!("{}", self.status(*number).await);
                }
                panic!("{what}: not in {PATIENCE:?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until just these nodes share all new connections evenly, by one table, under one leader.
    pub async fn is_settled(&self, numbers: &[u16]) {
        let even = 100.0 / numbers.len() as f64;
        self.until("they share evenly", async |cluster| {
            let mut seen = Vec::new();
            for number in cluster.running.keys() {
                let status = cluster.status(*number).await;
                let shares = cluster.shares(*number).await;
                let is_even = shares.iter().all(|(node, share)| {
                    let due = if numbers.contains(node) { even } else { 0.0 };
                    (share - due).abs() < 0.01
                });
                if !is_even || !numbers.iter().all(|node| shares.contains_key(node)) {
                    return false;
                }
                seen.push((status.generation, status.leader));
            }
            seen.dedup();
            seen.len() == 1 && seen[0].1.is_some()
        })
        .await;
    }
}

/// Without connections there is nothing to wait a minute for, when a machine was too slow to have all
/// its nodes in the first table; and whatever else keeps the machine busy is to move no share.
fn policy() -> Policy {
    Policy {
        dwell: DwellPolicy {
            embryo_ms: 1_000,
            failed_ms: 1_000,
            ..DwellPolicy::default()
        },
        load: LoadPolicy {
            relaxed: 10.0,
            full: 11.0,
            ..LoadPolicy::default()
        },
        ..Policy::default()
    }
}

fn address(number: u16) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 100, u8::try_from(number).unwrap())
}

/// A service that works.
async fn serve(address: SocketAddr) -> JoinHandle<()> {
    let certified = rcgen::generate_simple_self_signed(["postern.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let mut request = [0; 1024];
                    let _ = stream.read(&mut request).await;
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                    let _ = stream.shutdown().await;
                }
            });
        }
    })
}
