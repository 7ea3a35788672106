//! What the store tells: nodes, the leader's seat, the table; judged, and refused where it does not hold.

use std::sync::Arc;

use postern_steering::{Generation, NodeId, Publication};

use super::{Conductor, Seat, Stored, TOLD_MAX};
use crate::nodes::Refusal;
use crate::source::Told;
use crate::station::Offer;
use crate::store::{Entry, Event, Health, Refused, Revision};
use crate::values::{self, Change};

impl Conductor {
    pub(super) fn hear(&mut self, told: Told) {
        match told {
            Told::Event(Event::Put(entry)) => self.put(&entry),
            Told::Event(Event::Deleted { key, .. }) => self.deleted(key.as_str()),
            Told::Event(Event::Refused(refused)) => self.overwritten(&refused),
            Told::Event(Event::Complete(revision)) => {
                tracing::debug!(%revision, "all that is in the store is known");
            }
            Told::Health(health) => self.health(&health),
            Told::Publication(publication) => {
                self.around.published = publication.generation();
                self.offer(values::TABLE, *publication);
            }
            Told::Refused(why) => {
                *self.counts.refused.entry("file").or_default() += 1;
                tracing::error!(why, "the file of nodes is refused; the last table stays");
            }
        }
    }

    /// Something that nobody of the cluster has written: the last good value stays, and whoever wrote that
    /// writes it again, since what lies there now has no lease of theirs and is of no use to newcomers.
    fn overwritten(&mut self, refused: &Refused) {
        self.refuse(&refused.key, refused.why.label(), &refused.why.label());
        match refused.key.as_str() {
            values::LEADER => {
                self.seat.modified = refused.modified;
                self.sit_again();
            }
            values::TABLE => {
                self.stored.modified = refused.modified;
                self.stored.is_good = false;
                self.step_down("the table in the store was written over");
            }
            key => {
                let own = format!("{}/{}", values::MEMBERS, self.settings.node.get());
                if key == own
                    && let Some(membership) = &self.membership
                {
                    membership.register_again();
                }
            }
        }
    }

    fn health(&mut self, health: &Health) {
        match health {
            Health::Up { .. } => tracing::info!("the store is in reach"),
            Health::Lost { why, .. } => {
                tracing::warn!(
                    why,
                    "the store is out of reach; the last table stays in force"
                );
                self.step_down("the store is out of reach");
            }
        }
        self.around.is_store_up = health.is_up();
        self.judge();
    }

    /// Counts what is refused, and tells of it once a key.
    fn refuse(&mut self, key: &str, label: &'static str, why: &dyn std::fmt::Display) {
        *self.counts.refused.entry(label).or_default() += 1;
        if self.told.len() < TOLD_MAX && self.told.insert(format!("{key} {label}")) {
            tracing::warn!(key, %why, "a value of the store is refused; it is told of once");
        }
    }

    fn put(&mut self, entry: &Entry) {
        let key = entry.key.as_str();
        match key {
            values::LEADER => self.seat_taken(entry),
            values::TABLE => self.table(entry),
            _ => self.say(key, Some(&entry.value)),
        }
    }

    fn deleted(&mut self, key: &str) {
        match key {
            values::LEADER => {
                self.seat = Seat::default();
                self.step_down("its seat is gone");
            }
            values::TABLE => {
                self.stored.modified = Revision(0);
                self.stored.is_good = false;
                self.around.published = Generation::default();
                self.step_down("the table is gone from the store");
            }
            _ => self.say(key, None),
        }
    }

    /// What a node says.
    fn say(&mut self, key: &str, value: Option<&[u8]>) {
        let change = match Change::read(key, value) {
            None => return,
            Some(Err(label)) => return self.refuse(key, label, &Refusal::Malformed),
            Some(Ok(change)) => change,
        };
        self.mind_own_registration(&change);
        let now = self.now();
        match self.nodes.apply(change, now) {
            Ok(heard) => {
                if let Some(term) = &mut self.term {
                    term.leader.hear(&heard, &self.nodes, now);
                }
            }
            Err(refusal) => self.refuse(key, refusal.label(), &refusal),
        }
    }

    /// A registration that somebody took away or overwrote is made again.
    fn mind_own_registration(&self, change: &Change) {
        let Change::Registration(node, registration) = change else {
            return;
        };
        let is_ours = registration.is_some_and(|registration| registration.boot == self.boot);
        if *node == self.settings.node
            && !is_ours
            && self.around.is_registered
            && let Some(membership) = &self.membership
        {
            membership.register_again();
        }
    }

    fn seat_taken(&mut self, entry: &Entry) {
        let Some(seat) = values::decode::<values::Seat>(&entry.value) else {
            self.seat.modified = entry.modified;
            return self.refuse(
                values::LEADER,
                Refusal::Malformed.label(),
                &Refusal::Malformed,
            );
        };
        let holder = NodeId::new(seat.node).map(|node| (node, seat.boot));
        let before = self.seat.holder;
        self.seat = Seat {
            holder,
            created: entry.created,
            modified: entry.modified,
        };
        if before != holder
            && let Some((node, _)) = holder
        {
            tracing::info!(%node, "leads");
        }
        let is_own = holder == Some((self.settings.node, self.boot));
        if self
            .term
            .as_ref()
            .is_some_and(|term| !is_own || term.created != entry.created)
        {
            self.step_down("another node leads");
        }
    }

    fn table(&mut self, entry: &Entry) {
        match Publication::decode(&entry.value, &self.seal) {
            Ok(publication) => {
                self.around.published = publication.generation();
                self.offer(values::TABLE, publication.clone());
                self.stored = Stored {
                    publication: Some(publication),
                    modified: entry.modified,
                    is_good: true,
                };
            }
            Err(error) => {
                let refusal = match error {
                    postern_steering::Error::Seal => Refusal::Seal,
                    _ => Refusal::Malformed,
                };
                self.stored.modified = entry.modified;
                self.stored.is_good = false;
                self.refuse(values::TABLE, refusal.label(), &error);
            }
        }
        let is_known = |term: &super::Term, at: Revision| term.table >= at;
        if self
            .term
            .as_ref()
            .is_some_and(|term| !is_known(term, entry.modified))
        {
            // Its own are known by their revision once they are answered for.
            self.look_at_foreign_table(entry.modified);
        }
    }

    /// Takes a publication, or tells why not.
    fn offer(&mut self, key: &str, publication: Publication) {
        let generation = publication.generation();
        if self.station.in_force() == Some(&publication) {
            return self.judge();
        }
        match self.station.offer(publication) {
            Ok(Offer::Taken) => {
                if let Some(publication) = self.station.in_force() {
                    let bytes = publication.encode(&self.seal);
                    self.keeper.send_replace(Some(Arc::new(bytes)));
                }
            }
            Ok(Offer::Outside) => tracing::info!(%generation, "the table is without this node"),
            Err(refusal) => self.refuse(key, refusal.label(), &refusal),
        }
        self.judge();
    }
}
