//! This node's place in etcd: a lease that is kept alive, the registration under it, heartbeats and reports.
//!
//! It runs beside the one who decides what is said, so that a slow store holds up nobody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use postern_steering::NodeId;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::store::{Commit, Etcd, Key, Lease, LeaseId, StoreError, Transaction};
use crate::values::{self, FlowsReport, Heartbeat, Registration};

/// Who is silent for so long is no member any more.
pub const LEASE: Duration = Duration::from_secs(5);

/// Between two looks at what is to be said.
const LOOK: Duration = Duration::from_millis(100);

const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// A heartbeat that says nothing new is written after this time.
const HEARTBEAT_QUIET: Duration = Duration::from_secs(2);

/// And one that does after this time.
const HEARTBEAT_MIN: Duration = Duration::from_millis(200);

/// Before another attempt.
const RETRY: Duration = Duration::from_millis(250);

/// An end that takes longer is left to the lease.
const END_MAX: Duration = Duration::from_secs(2);

const _: () = assert!(
    HEARTBEAT_QUIET.as_secs() * 2 < LEASE.as_secs(),
    "one heartbeat may get lost"
);

/// How the membership stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// The lease under which the node is registered, and until when it lasts for sure.
    pub lease: Option<(LeaseId, Instant)>,
    /// Why it is not, where somebody stands in the way.
    pub refused: Option<String>,
}

impl Standing {
    /// The lease, where it holds at `now`.
    #[must_use]
    pub fn held(&self, now: Instant) -> Option<LeaseId> {
        let (lease, until) = self.lease?;
        (now < until).then_some(lease)
    }
}

/// What the node says of itself; what is not written yet is replaced by what is newer.
#[derive(Debug)]
struct Words {
    registration: watch::Receiver<Registration>,
    heartbeat: watch::Receiver<Option<Heartbeat>>,
    flows: watch::Receiver<Option<Arc<FlowsReport>>>,
}

/// The membership, as long as this lives.
#[derive(Debug)]
pub struct Membership {
    pub registration: watch::Sender<Registration>,
    pub heartbeat: watch::Sender<Option<Heartbeat>>,
    pub flows: watch::Sender<Option<Arc<FlowsReport>>>,
    standing: watch::Receiver<Standing>,
    again: Arc<Notify>,
    end: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Membership {
    /// Registers `node`, and tries for as long as it takes.
    #[must_use]
    pub fn start(etcd: Etcd, node: NodeId, registration: Registration) -> Self {
        let (registration, registration_words) = watch::channel(registration);
        let (heartbeat, heartbeat_words) = watch::channel(None);
        let (flows, flows_words) = watch::channel(None);
        let (standing_words, standing) = watch::channel(Standing::default());
        let again = Arc::new(Notify::new());
        let end = Arc::new(Notify::new());
        let key = |folder: &str| {
            Key::new(&format!("{folder}/{}", node.get())).expect("folders and digits make a key")
        };
        let task = Task {
            etcd,
            member: key(values::MEMBERS),
            heartbeat_key: key(values::HEARTBEATS),
            flows_key: key(values::FLOWS),
            words: Words {
                registration: registration_words,
                heartbeat: heartbeat_words,
                flows: flows_words,
            },
            standing: standing_words,
            again: again.clone(),
        };
        let ended = end.clone();
        Self {
            registration,
            heartbeat,
            flows,
            standing,
            again,
            end,
            task: tokio::spawn(async move { task.run(&ended).await }),
        }
    }

    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Somebody took the registration away.
    pub fn register_again(&self) {
        self.again.notify_one();
    }

    /// Ends the lease, so that nobody has to wait for its end.
    pub async fn end(mut self) {
        self.end.notify_one();
        if timeout(END_MAX, &mut self.task).await.is_err() {
            tracing::debug!("the store does not answer: the lease ends by itself");
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why a term of membership is over.
#[derive(Debug, thiserror::Error)]
enum Over {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the lease was not kept alive in time")]
    Late,
}

struct Task {
    etcd: Etcd,
    member: Key,
    heartbeat_key: Key,
    flows_key: Key,
    words: Words,
    standing: watch::Sender<Standing>,
    again: Arc<Notify>,
}

/// One lease, and until when it holds at least.
struct Held {
    lease: Lease,
    until: Instant,
}

impl Task {
    async fn run(mut self, end: &Notify) {
        let mut held = None;
        let ended = async {
            loop {
                let over = self.term(&mut held).await;
                tracing::debug!(error = crate::error::in_full(&over), "no membership");
                self.standing.send_modify(|standing| standing.lease = None);
                sleep(RETRY).await;
            }
        };
        tokio::select! {
            () = ended => {}
            () = end.notified() => {}
        }
        if let Some(Held { lease, .. }) = held
            && let Err(error) = self.etcd.revoke(lease.id).await
        {
            tracing::debug!(%error, "the lease ends by itself");
        }
    }

    /// From a lease to its end.
    async fn term(&mut self, held: &mut Option<Held>) -> Over {
        let asked = Instant::now();
        let lease = match self.etcd.grant(LEASE).await {
            Ok(lease) => lease,
            Err(error) => return error.into(),
        };
        let held = held.insert(Held {
            lease,
            until: asked + lease.lasts,
        });
        match self.hold(held).await {
            Ok(never) => match never {},
            Err(over) => over,
        }
    }

    async fn hold(&mut self, held: &mut Held) -> Result<std::convert::Infallible, Over> {
        self.register(held).await?;
        self.words.heartbeat.mark_changed();
        self.words.flows.mark_changed();
        let mut kept = Instant::now();
        let mut spoken: Option<(Heartbeat, Instant)> = None;
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                () = self.again.notified() => self.register(held).await?,
            }
            if self.words.registration.has_changed().unwrap_or(false) {
                self.register(held).await?;
            }
            if kept.elapsed() >= KEEP_ALIVE {
                self.keep(held).await?;
                kept = Instant::now();
                let lease = Some((held.lease.id, held.until));
                self.standing.send_modify(|standing| standing.lease = lease);
            }
            let heartbeat = *self.words.heartbeat.borrow_and_update();
            if let Some(heartbeat) = heartbeat
                && is_due(&heartbeat, spoken.as_ref())
            {
                let bytes = values::encode(&heartbeat);
                self.write(&self.heartbeat_key, &bytes, held).await?;
                spoken = Some((heartbeat, Instant::now()));
            }
            if self.words.flows.has_changed().unwrap_or(false) {
                let report = self.words.flows.borrow_and_update().clone();
                if let Some(report) = report {
                    self.write(&self.flows_key, &report.encode(), held).await?;
                }
            }
        }
    }

    /// A store that does not answer is asked again, for as long as the lease lasts.
    async fn write(&self, key: &Key, value: &[u8], held: &Held) -> Result<(), Over> {
        match self.etcd.put(key, value, Some(held.lease.id)).await {
            Ok(_) => Ok(()),
            Err(StoreError::LeaseGone) => Err(StoreError::LeaseGone.into()),
            Err(error) if Instant::now() < held.until => {
                tracing::debug!(%key, %error, "not written");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn keep(&self, held: &mut Held) -> Result<(), Over> {
        let asked = Instant::now();
        match self.etcd.keep_alive(held.lease.id).await {
            Ok(lasts) => {
                held.until = asked + lasts;
                Ok(())
            }
            Err(StoreError::LeaseGone) => Err(StoreError::LeaseGone.into()),
            Err(_) if Instant::now() < held.until => Ok(()),
            Err(_) => Err(Over::Late),
        }
    }

    /// Writes the registration where nobody else has this node's number.
    async fn register(&mut self, held: &mut Held) -> Result<(), Over> {
        loop {
            let registration = *self.words.registration.borrow_and_update();
            let found = self.etcd.read(&self.member).await?;
            let condition = Transaction::new();
            let condition = match &found {
                None => condition.if_absent(&self.member),
                // A value that is nobody's stands in nobody's way.
                Some(Err(refused)) => condition.if_modified(&self.member, refused.modified),
                Some(Ok(entry)) => {
                    let other = values::decode::<Registration>(&entry.value)
                        .filter(|other| other.boot != registration.boot);
                    if let Some(other) = other {
                        self.stand_back(&other);
                        sleep(RETRY).await;
                        self.keep(held).await?;
                        continue;
                    }
                    condition.if_modified(&self.member, entry.modified)
                }
            };
            let value = values::encode(&registration);
            let put = condition.put(&self.member, &value, Some(held.lease.id));
            if matches!(self.etcd.commit(put).await?, Commit::Done(_)) {
                self.standing.send_replace(Standing {
                    lease: Some((held.lease.id, held.until)),
                    refused: None,
                });
                return Ok(());
            }
        }
    }

    fn stand_back(&self, other: &Registration) {
        let places: Vec<String> = other
            .place()
            .addresses()
            .map(|address| address.to_string())
            .collect();
        let why = format!(
            "another machine, at {}, is registered under this node's number",
            places.join(" and ")
        );
        let is_news = self.standing.borrow().refused.as_ref() != Some(&why);
        if is_news {
            tracing::warn!("{why}; waiting for its lease to end");
        }
        self.standing.send_replace(Standing {
            lease: None,
            refused: Some(why),
        });
    }
}

fn is_due(heartbeat: &Heartbeat, spoken: Option<&(Heartbeat, Instant)>) -> bool {
    let Some((last, at)) = spoken else {
        return true;
    };
    let patience = if heartbeat.says_what(last) {
        HEARTBEAT_QUIET
    } else {
        HEARTBEAT_MIN
    };
    heartbeat.sequence > last.sequence && at.elapsed() >= patience
}
