//! What the tests of the store are made of: a node's store, a listener, a line that can be cut.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::wire::{self, Call};
use super::*;
use crate::Secret;
use crate::store::{Event, Health};

pub(super) const PREFIX: &str = "/test/steering/";

pub(super) fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

pub(super) fn access(endpoints: Vec<String>) -> Access {
    Access {
        endpoints,
        prefix: PREFIX.to_owned(),
        ..Access::default()
    }
}

pub(super) fn sealer(secret: u8) -> Sealer {
    Sealer::new(&Secret::new(&[secret; 32]))
}

pub(super) fn etcd_of(access: &Access, secret: u8) -> Etcd {
    Etcd::open(access, sealer(secret)).unwrap()
}

/// The store of a node, over all members.
pub(super) fn open(server: &postern_parts::Etcd) -> Etcd {
    etcd_of(&access(server.urls()), 1)
}

/// The shortest lease.
pub(super) async fn lease_of(etcd: &Etcd) -> Lease {
    etcd.grant(Duration::from_secs(2)).await.unwrap()
}

/// Writes what lies there as it is, as somebody without the secret would.
pub(super) async fn put_raw(etcd: &Etcd, name: &str, value: &[u8]) -> Result<(), StoreError> {
    put_raw_all(etcd, &[(name.as_bytes().to_vec(), value.to_vec())]).await
}

pub(super) async fn put_raw_all(
    etcd: &Etcd,
    values: &[(Vec<u8>, Vec<u8>)],
) -> Result<(), StoreError> {
    let success = values.iter().cloned().map(|(key, value)| wire::RequestOp {
        request: Some(wire::Request::Put(wire::PutRequest {
            key,
            value,
            lease: 0,
        })),
    });
    let request = wire::TxnRequest {
        compare: Vec::new(),
        success: success.collect(),
    };
    etcd.link.ask(request).await.map(drop)
}

#[derive(Clone, PartialEq, Message)]
struct CompactionRequest {
    #[prost(int64, tag = "1")]
    revision: i64,
    #[prost(bool, tag = "2")]
    physical: bool,
}

impl Call for CompactionRequest {
    const PATH: &'static str = "/etcdserverpb.KV/Compact";
    const REPEATABLE: bool = false;
    type Answer = wire::LeaseRevokeResponse;
}

/// Lets etcd forget all before `revision`.
pub(super) async fn compact(etcd: &Etcd, revision: Revision) {
    let request = CompactionRequest {
        revision: number(revision),
        physical: true,
    };
    etcd.link.ask(request).await.unwrap();
}

/// One who follows, and what he was told.
pub(super) struct Listener {
    pub follower: Follower,
    /// What is there, as far as he knows.
    pub values: BTreeMap<String, Vec<u8>>,
}

impl Listener {
    pub(super) fn new(etcd: &Etcd) -> Self {
        Self {
            follower: etcd.follow(),
            values: BTreeMap::new(),
        }
    }

    /// The next event in one line.
    pub(super) async fn hear(&mut self) -> String {
        let event = timeout(PATIENCE, self.follower.next()).await;
        match event.expect("nothing comes") {
            Event::Put(entry) => {
                let text = String::from_utf8_lossy(&entry.value).into_owned();
                self.values.insert(entry.key.to_string(), entry.value);
                format!("{}={text}", entry.key)
            }
            Event::Deleted { key, .. } => {
                self.values.remove(key.as_str());
                format!("{key} deleted")
            }
            Event::Refused(refused) => format!("{} refused: {}", refused.key, refused.why.label()),
            Event::Complete(_) => "complete".to_owned(),
        }
    }

    /// Exactly these events, in this order.
    pub(super) async fn expect(&mut self, lines: &[&str]) {
        for line in lines {
            assert_eq!(self.hear().await, *line, "of {lines:?}");
        }
    }

    pub(super) async fn expect_nothing(&mut self) {
        let event = timeout(Duration::from_millis(300), self.follower.next()).await;
        assert!(event.is_err(), "{event:?}");
    }

    pub(super) async fn expect_health(&self, up: bool) {
        let mut health = self.follower.health();
        let seen = timeout(PATIENCE, health.wait_for(|health| health.is_up() == up)).await;
        seen.unwrap_or_else(|_| panic!("not {up}: {:?}", self.health()))
            .unwrap();
    }

    pub(super) fn health(&self) -> Health {
        self.follower.health().borrow().clone()
    }
}

/// A line to a server that can be cut and mended.
pub(super) struct Line {
    pub address: SocketAddr,
    open: Arc<Mutex<Option<JoinSet<()>>>>,
}

impl Line {
    pub(super) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let open = Arc::new(Mutex::new(Some(JoinSet::new())));
        let state = open.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                if let Some(connections) = state.lock().unwrap().as_mut() {
                    connections.spawn(async move {
                        let mut far = TcpStream::connect(server).await.unwrap();
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    });
                }
            }
        });
        Self { address, open }
    }

    /// Ends all connections, and every new one at once.
    pub(super) fn cut(&self) {
        *self.open.lock().unwrap() = None;
    }

    pub(super) fn mend(&self) {
        *self.open.lock().unwrap() = Some(JoinSet::new());
    }
}

/// The address behind a URL.
pub(super) fn address_of(url: &str) -> SocketAddr {
    url.split("//").nth(1).unwrap().parse().unwrap()
}
