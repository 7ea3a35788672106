//! Election and the deciding loop: who leads asks its [`Leader`] and writes what that wants, as long as seat and lease hold.

use std::time::{Duration, Instant};

use postern_steering::{Generation, NodeId};
use tokio::time::timeout;

use super::{Conductor, Outcome, PROBE_PERIOD, Term};
use crate::leader::{Decision, Leader};
use crate::probe::ProbeError;
use crate::store::{Commit, Etcd, Key, LeaseId, Revision, StoreError, Transaction};
use crate::values::{self, Seat};

/// Who could not lead, or should not, lets others try for so long.
const REST: Duration = Duration::from_secs(1);
const REST_RESIGNED: Duration = Duration::from_secs(5);

/// An end that takes longer is left to the lease.
const END_MAX: Duration = Duration::from_secs(1);

fn key(name: &str) -> Key {
    Key::new(name).expect("letters make a key")
}

impl Conductor {
    /// One look at who leads, and at what is to be decided.
    pub(super) fn lead(&mut self) {
        let Some(etcd) = self.etcd.clone() else {
            return;
        };
        let lease = self.lease();
        let is_fit = self.around.is_store_up && lease.is_some();
        if self.term.is_some() && !is_fit {
            self.step_down("its lease does not hold");
        }
        let Some(lease) = lease.filter(|_| is_fit) else {
            return;
        };
        let own = (self.settings.node, self.boot);
        if self.term.is_none() && Instant::now() >= self.rest_until {
            if self.seat.holder == Some(own) {
                self.begin_term();
            } else if self.is_seat_free() && !self.is_campaigning {
                self.campaign(etcd.clone(), lease);
            }
        }
        self.decide(&etcd);
        self.try_services();
    }

    fn lease(&self) -> Option<LeaseId> {
        self.membership.as_ref()?.standing().held(Instant::now())
    }

    /// Nobody is there, or somebody whose lease is gone.
    fn is_seat_free(&self) -> bool {
        self.seat.holder.is_none_or(|(node, boot)| {
            let registration = self.nodes.get(node).and_then(|known| known.registration);
            registration.is_none_or(|registration| registration.boot != boot)
        })
    }

    fn campaign(&mut self, etcd: Etcd, lease: LeaseId) {
        self.is_campaigning = true;
        let seat = Seat {
            node: self.settings.node.get(),
            boot: self.boot,
        };
        let leader = key(values::LEADER);
        let condition = Transaction::new().if_modified(&leader, self.seat.modified);
        let transaction = condition.put(&leader, &values::encode(&seat), Some(lease));
        self.beside(async move { Outcome::Campaigned(etcd.commit(transaction).await) });
    }

    /// Somebody has written over the seat, which keeps its beginning but not its lease.
    pub(super) fn sit_again(&mut self) {
        let (Some(term), Some(etcd), Some(lease)) = (&self.term, self.etcd.clone(), self.lease())
        else {
            return;
        };
        let seat = Seat {
            node: self.settings.node.get(),
            boot: self.boot,
        };
        let leader = key(values::LEADER);
        let condition = Transaction::new().if_created(&leader, term.created);
        let transaction = condition.put(&leader, &values::encode(&seat), Some(lease));
        self.is_campaigning = true;
        self.beside(async move { Outcome::Campaigned(etcd.commit(transaction).await) });
    }

    pub(super) fn campaigned(&mut self, result: Result<Commit, StoreError>) {
        self.is_campaigning = false;
        // Who has won is told by the store, also to the winner.
        self.rest_until = Instant::now() + REST / 4;
        if let Err(error) = result {
            tracing::debug!(%error, "no election");
            self.rest_until = Instant::now() + REST;
        }
    }

    fn begin_term(&mut self) {
        let own = self.station.in_force();
        let stored = self.stored.publication.as_ref();
        let (best, is_published) = match (stored, own) {
            (Some(stored), Some(own)) if own.generation() > stored.generation() => {
                (Some(own), false)
            }
            (Some(stored), _) => (Some(stored), self.stored.is_good),
            (None, own) => (own, false),
        };
        let floor = self.around.newest_seen.max(self.station.generation());
        let leader = Leader::new(
            self.settings.policy,
            best,
            is_published,
            floor,
            &self.nodes,
            self.now(),
        );
        tracing::info!(generation = %leader.generation(), "this node leads");
        self.counts.terms += 1;
        self.term = Some(Term {
            number: self.counts.terms,
            leader,
            created: self.seat.created,
            table: self.stored.modified,
        });
    }

    /// Stops deciding now.
    pub(super) fn step_down(&mut self, why: &str) {
        if self.term.take().is_some() {
            tracing::warn!(why, "this node leads no more");
            self.rest_until = Instant::now() + REST;
        }
    }

    fn decide(&mut self, etcd: &Etcd) {
        let now = self.now();
        let Some(term) = &mut self.term else {
            return;
        };
        match term.leader.tick(&self.nodes, now) {
            Decision::Nothing => {}
            Decision::Publish(publication) => {
                let leader = key(values::LEADER);
                let table = key(values::TABLE);
                let transaction = Transaction::new()
                    .if_created(&leader, term.created)
                    .if_modified(&table, term.table)
                    .put(&table, &publication.encode(&self.seal), None);
                let (etcd, number) = (etcd.clone(), term.number);
                self.beside(
                    async move { Outcome::Published(number, etcd.commit(transaction).await) },
                );
            }
            Decision::Resign(why) => self.resign(why),
        }
    }

    fn resign(&mut self, why: &str) {
        let Some(term) = self.term.take() else {
            return;
        };
        tracing::warn!(why, "this node gives the lead away");
        self.rest_until = Instant::now() + REST_RESIGNED;
        if let Some(etcd) = self.etcd.clone() {
            self.beside
                .spawn(async move { leave(etcd, term.created).await });
        }
    }

    pub(super) async fn give_up_seat(&self, created: Revision) {
        if let Some(etcd) = self.etcd.clone() {
            let _ = timeout(END_MAX, leave(etcd, created)).await;
        }
    }

    pub(super) fn was_published(&mut self, number: u64, result: Result<Commit, StoreError>) {
        let now = self.now();
        let Some(term) = self.term.as_mut().filter(|term| term.number == number) else {
            return;
        };
        match result {
            Ok(Commit::Done(revision)) => {
                let moves = term.leader.committed(&self.nodes, now);
                term.table = revision;
                self.counts.moves.add(moves);
                tracing::info!(
                    generation = %term.leader.generation(),
                    swaps = moves.swaps,
                    stages = moves.stages,
                    replaces = moves.replaces,
                    cuts = moves.cuts,
                    "published"
                );
            }
            Ok(Commit::Refused) => self.step_down("seat or table changed meanwhile"),
            Err(error) => {
                tracing::debug!(%error, "not published");
                self.step_down("the store did not take its table");
            }
        }
    }

    /// A table in the store that this leader has not been answered for.
    pub(super) fn look_at_foreign_table(&mut self, modified: Revision) {
        let Some(term) = &self.term else {
            return;
        };
        // While its own is under way it can't be told apart: the answer will say.
        if !term.leader.is_waiting() && modified > term.table {
            self.step_down("another table is in the store");
        }
    }

    /// Tries the service of everybody, beside and at most once at a time.
    fn try_services(&mut self) {
        let Some(term) = &self.term else {
            return;
        };
        if self.times.probe.elapsed() < PROBE_PERIOD {
            return;
        }
        self.times.probe = Instant::now();
        let own = self.station.place();
        let mut ports: Vec<u16> = self.settings.vips.iter().map(|vip| vip.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        for (node, place) in term.leader.roster() {
            let Some(address) = place.reached_from(&own) else {
                continue;
            };
            if !self.probing.insert(node) {
                continue;
            }
            let (probe, ports) = (self.probe.clone(), ports.clone());
            let seats = self.seats.clone();
            self.beside(async move {
                // The semaphore lives as long as the task.
                let _seat = seats.acquire_owned().await;
                for port in ports {
                    if let Err(error) = probe.attempt((address, port).into()).await {
                        return Outcome::Probed(node, Err(error));
                    }
                }
                Outcome::Probed(node, Ok(()))
            });
        }
    }

    pub(super) fn probed(&mut self, node: NodeId, result: Result<(), ProbeError>) {
        self.probing.remove(&node);
        if let Err(error) = &result {
            *self.counts.probe_failures.entry(node).or_default() += 1;
            tracing::debug!(%node, error = crate::error::in_full(error), "its service does not work");
        }
        if let Some(term) = &mut self.term {
            term.leader.probed(node, result.is_ok());
        }
    }

    /// The newest table that is known of.
    pub(super) fn newest(&self) -> Generation {
        self.around
            .newest_seen
            .max(self.around.published)
            .max(self.steers_by())
    }
}

async fn leave(etcd: Etcd, created: Revision) {
    let leader = key(values::LEADER);
    let condition = Transaction::new().if_created(&leader, created);
    if let Err(error) = etcd.commit(condition.delete(&leader)).await {
        tracing::debug!(%error, "the seat is left to the lease");
    }
}
