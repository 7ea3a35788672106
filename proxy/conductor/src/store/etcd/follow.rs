//! Follows what changes under the prefix, over lost connections and compactions.
//!
//! A change is told once: after a lost connection etcd tells again from the last revision that was
//! seen, and what a follower has told already it knows by the revision of each key that is there.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::pin::pin;
use std::time::Instant;

use futures_util::stream;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tonic::Streaming;

use super::link::{self, Live};
use super::scan::{self, Scan};
use super::wire::{self, PUT, WATCH, WatchOrder, WatchRequest, WatchResponse};
use super::{Etcd, number, revision};
use crate::store::limits::{
    EVENTS_WAITING_MAX, KEYS_MAX, PROGRESS_PERIOD, RETRY_PAUSE_MAX, RETRY_PAUSE_MIN, SILENCE_MAX,
};
use crate::store::{Event, Health, Key, Revision, StoreError};

/// Tells what is under the prefix, and what changes.
#[derive(Debug)]
pub struct Follower {
    events: mpsc::Receiver<Event>,
    health: watch::Receiver<Health>,
    task: AbortHandle,
}

impl Follower {
    pub(super) fn start(etcd: Etcd) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_WAITING_MAX);
        let (health, seen) = watch::channel(Health::Lost {
            since: Instant::now(),
            why: "nothing was read yet".to_owned(),
        });
        let task = Task {
            etcd,
            events: sender,
            health,
            held: BTreeMap::new(),
            from: Revision(1),
            seen: Revision(0),
            cluster: 0,
            read_again: true,
        };
        Self {
            events,
            health: seen,
            task: tokio::spawn(task.run()).abort_handle(),
        }
    }

    /// The next change; waits for it. Given up half-way, it loses none.
    pub async fn next(&mut self) -> Event {
        let event = self.events.recv().await;
        event.expect("the task follows for as long as this is there")
    }

    /// Whether what was told is all that there is.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why following stopped.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("{0}")]
    Lost(String),
    #[error("everything must be read again: {0}")]
    ReadAgain(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("nobody listens")]
    Over,
}

struct Task {
    etcd: Etcd,
    events: mpsc::Sender<Event>,
    health: watch::Sender<Health>,
    /// INVARIANT: the keys that the listener knows of, each with its last change that was told.
    held: BTreeMap<Key, Revision>,
    /// INVARIANT: every change before this revision was told, and some of this one may have been.
    from: Revision,
    /// The last revision that etcd is known to have had.
    seen: Revision,
    cluster: u64,
    read_again: bool,
}

impl Task {
    async fn run(mut self) {
        let mut pause = RETRY_PAUSE_MIN;
        loop {
            let begun = Instant::now();
            let Err(stop) = self.attend().await;
            match &stop {
                Stop::Over => return,
                // Not lost by that: else whoever writes what is refused could depose leaders.
                Stop::ReadAgain(_) => self.read_again = true,
                Stop::Store(_) | Stop::Lost(_) => self.lost(&stop.to_string()),
            }
            if begun.elapsed() > RETRY_PAUSE_MAX {
                pause = RETRY_PAUSE_MIN;
            }
            tracing::debug!(why = %stop, "the store is no longer followed");
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    fn lost(&self, why: &str) {
        self.health.send_if_modified(|health| {
            let news = health.is_up();
            let since = match health {
                Health::Lost { since, .. } => *since,
                Health::Up { .. } => Instant::now(),
            };
            let why = why.to_owned();
            *health = Health::Lost { since, why };
            news
        });
    }

    fn up(&self) {
        self.health.send_if_modified(|health| {
            let news = !health.is_up();
            if news {
                let since = Instant::now();
                *health = Health::Up { since };
            }
            news
        });
    }

    /// Follows until something is in the way.
    async fn attend(&mut self) -> Result<Infallible, Stop> {
        let fresh = self.read_again;
        if fresh {
            let scan = self.read_all().await?;
            self.catch_up(scan).await?;
            self.read_again = false;
        }
        let live = self.etcd.link.live().await?;
        let attended = self.watch(&live, fresh).await;
        // Whatever it was, another endpoint may do better.
        self.etcd.link.broken(&live);
        attended
    }

    /// Reads everything. While that takes long, nothing is known of changes.
    async fn read_all(&self) -> Result<Scan, StoreError> {
        let mut reading = pin!(scan::read_all(&self.etcd));
        match timeout(SILENCE_MAX, &mut reading).await {
            Ok(scan) => scan,
            Err(_) => {
                self.lost("everything is read again");
                reading.await
            }
        }
    }

    /// Tells how what was read differs from what was told.
    async fn catch_up(&mut self, scan: Scan) -> Result<(), Stop> {
        let Scan {
            snapshot,
            cluster,
            spoiled,
            ..
        } = scan;
        if cluster != self.cluster || snapshot.revision < self.seen {
            // Revisions of another history say nothing: every value counts as news.
            for told in self.held.values_mut() {
                *told = Revision(0);
            }
        }
        let now: BTreeSet<&Key> = snapshot.entries.iter().map(|entry| &entry.key).collect();
        let gone = |key: &&Key| !now.contains(key) && !spoiled.contains(*key);
        let gone: Vec<Key> = self.held.keys().filter(gone).cloned().collect();
        for key in gone {
            self.held.remove(&key);
            let revision = snapshot.revision;
            self.tell(Event::Deleted { key, revision }).await?;
        }
        for refused in snapshot.refused {
            self.tell(Event::Refused(refused)).await?;
        }
        for entry in snapshot.entries {
            if self.held.get(&entry.key) != Some(&entry.modified) {
                self.held.insert(entry.key.clone(), entry.modified);
                self.tell(Event::Put(entry)).await?;
            }
        }
        self.seen = snapshot.revision;
        self.from = Revision(snapshot.revision.0 + 1);
        self.cluster = cluster;
        self.tell(Event::Complete(snapshot.revision)).await
    }

    /// Watches on one connection, and sees to it that the other end lives.
    async fn watch(&mut self, live: &Live, fresh: bool) -> Result<Infallible, Stop> {
        let (orders, waiting) = mpsc::channel(1);
        let create = WatchOrder::Create(wire::WatchCreate {
            key: self.etcd.prefix.as_bytes().to_vec(),
            range_end: self.etcd.end(),
            start_revision: number(self.from),
            fragment: true,
        });
        let order = |order| WatchRequest { order: Some(order) };
        // It has room for one: this is the first.
        let _ = orders.try_send(order(create));
        let questions = stream::unfold(waiting, async |mut waiting| {
            let next = mpsc::Receiver::recv(&mut waiting).await?;
            Some((next, waiting))
        });
        let opening = link::open(live, WATCH, questions);
        let mut answers = timeout(SILENCE_MAX, opening)
            .await
            .map_err(|_| Stop::Lost("etcd does not answer".to_owned()))?
            .map_err(|status| Stop::Lost(link::in_words(&status)))?;
        self.begin(&mut answers, fresh).await?;
        self.up();

        let mut ticks = interval(PROGRESS_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                answer = answers.message() => {
                    let answer = received(answer)?;
                    self.changed(answer).await?;
                    // After the listener has taken it: that he was slow is not etcd's silence.
                    heard = Instant::now();
                }
                _ = ticks.tick() => {
                    if heard.elapsed() > SILENCE_MAX {
                        return Err(Stop::Lost("etcd is silent".to_owned()));
                    }
                    // A question that still waits will do.
                    let _ = orders.try_send(order(WatchOrder::Progress(wire::WatchProgress {})));
                }
            }
        }
    }

    /// The first answer says whether etcd can tell all since the last.
    async fn begin(
        &mut self,
        answers: &mut Streaming<WatchResponse>,
        fresh: bool,
    ) -> Result<(), Stop> {
        let answer = timeout(SILENCE_MAX, answers.message())
            .await
            .map_err(|_| Stop::Lost("etcd does not answer".to_owned()))?;
        let answer = received(answer)?;
        self.changed(answer.clone()).await?;
        if !answer.created {
            return Err(Stop::Lost("etcd did not begin to watch".to_owned()));
        }
        let header = answer.header.unwrap_or_default();
        if header.cluster_id != self.cluster {
            return Err(Stop::ReadAgain("it is another etcd".to_owned()));
        }
        // A member that is behind the others will come to it; but an etcd that was set back would never
        // tell anything. What a majority has just said needs no such doubt.
        if !fresh && revision(header.revision) < self.seen {
            return Err(Stop::ReadAgain("etcd is behind what it told".to_owned()));
        }
        Ok(())
    }

    async fn changed(&mut self, answer: WatchResponse) -> Result<(), Stop> {
        if answer.compact_revision > 0 {
            return Err(Stop::ReadAgain("changes were compacted away".to_owned()));
        }
        if answer.canceled {
            return Err(Stop::Lost(format!(
                "etcd ends the watch: {}",
                answer.cancel_reason
            )));
        }
        for change in answer.events {
            let Some(kv) = change.kv else { continue };
            if change.kind == PUT {
                self.put(kv).await?;
            } else {
                self.deleted(&kv).await?;
            }
        }
        Ok(())
    }

    /// Notes a change's revision, of which more changes may come; false where it was told long ago.
    fn reach(&mut self, revision: Revision) -> bool {
        let news = revision >= self.from;
        if news {
            (self.from, self.seen) = (revision, revision.max(self.seen));
        }
        news
    }

    async fn put(&mut self, kv: wire::KeyValue) -> Result<(), Stop> {
        let modified = revision(kv.mod_revision);
        if !self.reach(modified) {
            return Ok(());
        }
        let entry = match self.etcd.judge(kv) {
            Ok(entry) => entry,
            Err(refused) => return self.tell(Event::Refused(refused)).await,
        };
        if self
            .held
            .get(&entry.key)
            .is_some_and(|told| *told >= modified)
        {
            return Ok(());
        }
        self.held.insert(entry.key.clone(), modified);
        if self.held.len() > KEYS_MAX {
            return Err(StoreError::TooMany {
                what: "keys",
                limit: KEYS_MAX,
            }
            .into());
        }
        self.tell(Event::Put(entry)).await
    }

    async fn deleted(&mut self, kv: &wire::KeyValue) -> Result<(), Stop> {
        let revision = revision(kv.mod_revision);
        if !self.reach(revision) {
            return Ok(());
        }
        let Some(key) = self.etcd.key(&kv.key) else {
            return Ok(());
        };
        match self.held.get(&key) {
            Some(told) if *told < revision => {
                self.held.remove(&key);
                self.tell(Event::Deleted { key, revision }).await
            }
            // Nobody knows of it, or it was made again since.
            _ => Ok(()),
        }
    }

    async fn tell(&self, event: Event) -> Result<(), Stop> {
        self.events.send(event).await.map_err(|_| Stop::Over)
    }
}

/// The answer, or why there is none.
fn received(answer: Result<Option<WatchResponse>, tonic::Status>) -> Result<WatchResponse, Stop> {
    match answer {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(Stop::Lost("etcd has ended the watch".to_owned())),
        // It would come again and again: reading page by page finds a way around it.
        Err(status) if super::codec::is_too_long(&status) => {
            Err(Stop::ReadAgain(status.message().to_owned()))
        }
        Err(status) => Err(Stop::Lost(link::in_words(&status))),
    }
}
