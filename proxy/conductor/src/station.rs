//! This node's own standing: which table it takes, when it keeps to itself, whether it should be announced.

use postern_steering::{Generation, NodeId, Place, Prefix, Publication};

use crate::admin::Announcement;
use crate::nodes::Refusal;
use crate::values::Intent;

/// What of the world outside decides about this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Surroundings {
    /// All that is in the store is known, and changes are heard of.
    pub is_store_up: bool,
    /// This node's registration is in the store.
    pub is_registered: bool,
    /// Why it is not, where somebody said so.
    pub refused: Option<String>,
    /// The table in the store.
    pub published: Generation,
    /// The newest that packets of other nodes named.
    pub newest_seen: Generation,
    pub intent: Intent,
    /// Connections to the services that live here; `None` before they were counted.
    pub connections: Option<u64>,
}

/// What became of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It is in force from now on.
    Taken,
    /// It is not for this node, which is no member, or not yet.
    Outside,
}

/// One node.
#[derive(Debug, Clone)]
pub struct Station {
    node: NodeId,
    place: Place,
    peers: Vec<Prefix>,
    in_force: Option<Publication>,
    /// The newest table without this node, where that is newer than the one in force.
    outside: Option<Generation>,
    is_isolated: bool,
}

impl Station {
    #[must_use]
    pub fn new(node: NodeId, place: Place, peers: Vec<Prefix>) -> Self {
        Self {
            node,
            place,
            peers,
            in_force: None,
            outside: None,
            is_isolated: false,
        }
    }

    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    #[must_use]
    pub fn in_force(&self) -> Option<&Publication> {
        self.in_force.as_ref()
    }

    /// 0 where there is no table.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.in_force
            .as_ref()
            .map(Publication::generation)
            .unwrap_or_default()
    }

    #[must_use]
    pub fn is_isolated(&self) -> bool {
        self.is_isolated
    }

    pub fn trust(&mut self, peers: Vec<Prefix>) {
        self.peers = peers;
    }

    /// Takes a publication whose seal held, or says why not: the last one stays then.
    ///
    /// # Errors
    /// It is not newer, names addresses that no member may have, or has this node elsewhere.
    pub fn offer(&mut self, publication: Publication) -> Result<Offer, Refusal> {
        let generation = publication.generation();
        if generation <= self.generation() {
            return Err(Refusal::NotNewer);
        }
        let is_peer = |address| self.peers.iter().any(|prefix| prefix.contains(&address));
        let mut places = publication.roster().values();
        if !places.all(|place| place.addresses().all(is_peer)) {
            return Err(Refusal::Address);
        }
        match publication.roster().get(&self.node) {
            None => {
                self.outside = Some(generation);
                Ok(Offer::Outside)
            }
            Some(place) if *place != self.place => Err(Refusal::OwnEntry),
            Some(_) => {
                self.outside = None;
                self.in_force = Some(publication);
                Ok(Offer::Taken)
            }
        }
    }

    /// Judges whether the cluster went on without this node; true where that has changed.
    pub fn judge(&mut self, around: &Surroundings) -> bool {
        let before = self.is_isolated;
        let has_table = self.in_force.is_some();
        let was_left = !around.is_store_up && around.newest_seen > self.generation();
        let is_back = around.is_store_up && self.generation() >= around.published;
        if has_table && (self.outside.is_some() || was_left) {
            self.is_isolated = true;
        } else if is_back {
            self.is_isolated = false;
        }
        before != self.is_isolated
    }

    /// Whether routers should send packets of the services here.
    #[must_use]
    pub fn announcement(&self, around: &Surroundings) -> Announcement {
        let no = |why: String| Announcement {
            is_announced: false,
            why,
        };
        let yes = |why: &str| Announcement {
            is_announced: true,
            why: why.to_owned(),
        };
        let Some(publication) = &self.in_force else {
            let why = around.refused.clone();
            return no(why.unwrap_or_else(|| "there is no table yet".to_owned()));
        };
        if self.outside.is_some() {
            return no("the table of the cluster is without this node".to_owned());
        }
        if self.is_isolated {
            return no("isolated: the cluster went on while the store was out of reach".to_owned());
        }
        if !around.is_store_up {
            return yes("the store is out of reach; the last table stays in force");
        }
        if !around.is_registered {
            let why = around.refused.clone();
            return no(why.unwrap_or_else(|| "its lease is not held".to_owned()));
        }
        let is_first = publication.table().first_of(self.node) > 0;
        if around.intent != Intent::Serve && !is_first && around.connections == Some(0) {
            return no("drained and empty".to_owned());
        }
        yes("it is a member and steers")
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use postern_steering::{Roster, Table, Weight};

    use super::*;

    fn node(number: u16) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn place(last: u8) -> Place {
        Place {
            v4: Some(Ipv4Addr::new(10, 0, 0, last)),
            v6: None,
            ethernet: [2, 0, 0, 0, 0, last],
        }
    }

    /// A table of `members`, who are where they say.
    fn publication(generation: u64, members: &[(u16, Place)]) -> Publication {
        let weights: Vec<_> = members
            .iter()
            .map(|(number, _)| (node(*number), Weight::new(1).unwrap()))
            .collect();
        let roster: Roster = members
            .iter()
            .map(|(number, place)| (node(*number), *place))
            .collect();
        let table = Table::initial(Generation(generation), &weights).unwrap();
        Publication::new(roster, table).unwrap()
    }

    fn station() -> Station {
        let peers = vec!["10.0.0.0/24".parse().unwrap()];
        Station::new(node(1), place(1), peers)
    }

    fn both(generation: u64) -> Publication {
        publication(generation, &[(1, place(1)), (2, place(2))])
    }

    fn around() -> Surroundings {
        Surroundings {
            is_store_up: true,
            is_registered: true,
            ..Surroundings::default()
        }
    }

    #[test]
    fn only_newer_tables_of_peers_with_this_node_where_it_is_are_taken() {
        let check = |offered: Publication, expected: Result<Offer, Refusal>| {
            let mut station = station();
            station.offer(both(5)).unwrap();
            assert_eq!(station.offer(offered), expected);
            let is_taken = expected == Ok(Offer::Taken);
            assert_eq!(station.generation() == Generation(6), is_taken);
        };
        check(both(6), Ok(Offer::Taken));
        check(both(5), Err(Refusal::NotNewer));
        check(both(4), Err(Refusal::NotNewer));
        let foreign = Place {
            v4: Some(Ipv4Addr::new(192, 0, 2, 2)),
            ..place(2)
        };
        let with = |own, other| publication(6, &[(1, own), (2, other)]);
        check(with(place(1), foreign), Err(Refusal::Address));
        check(with(place(3), place(2)), Err(Refusal::OwnEntry));
        let ethernet = Place {
            ethernet: [9; 6],
            ..place(1)
        };
        check(with(ethernet, place(2)), Err(Refusal::OwnEntry));
        check(publication(6, &[(2, place(2))]), Ok(Offer::Outside));
    }

    #[test]
    fn a_node_that_the_cluster_went_on_without_keeps_to_itself_until_it_has_the_newest_table() {
        let mut station = station();
        station.offer(both(5)).unwrap();
        let lost = Surroundings {
            is_store_up: false,
            published: Generation(5),
            ..around()
        };
        assert!(!station.judge(&lost));
        assert!(station.announcement(&lost).is_announced);
        // With the store in reach a newer table is only on its way.
        let seen = Generation(6);
        let ahead = Surroundings {
            newest_seen: seen,
            ..around()
        };
        assert!(!station.judge(&ahead));
        let left = Surroundings {
            newest_seen: seen,
            ..lost
        };
        assert!(station.judge(&left) && station.is_isolated());
        assert!(!station.announcement(&left).is_announced);
        // The store is back, and its table is not taken yet.
        let back = Surroundings {
            published: seen,
            ..ahead
        };
        assert!(!station.judge(&back) && station.is_isolated());
        station.offer(both(6)).unwrap();
        assert!(station.judge(&back) && !station.is_isolated());
        assert!(station.announcement(&back).is_announced);
    }

    #[test]
    fn who_was_taken_out_keeps_to_itself_and_who_never_was_in_has_nothing_to_keep() {
        let without = |generation| publication(generation, &[(2, place(2))]);
        let mut removed = station();
        removed.offer(both(5)).unwrap();
        assert_eq!(removed.offer(without(6)), Ok(Offer::Outside));
        assert!(removed.judge(&around()) && removed.is_isolated());
        assert!(!removed.announcement(&around()).is_announced);
        removed.offer(both(7)).unwrap();
        assert!(removed.judge(&around()) && !removed.is_isolated());

        let mut new = station();
        new.offer(without(6)).unwrap();
        assert!(!new.judge(&around()));
        assert!(!new.announcement(&around()).is_announced);
    }

    #[test]
    fn an_address_is_announced_while_connections_can_come_or_are_there() {
        let drained = publication(6, &[(2, place(2))]);
        let drained = Publication::new(both(5).roster().clone(), drained.table().clone()).unwrap();
        let check = |publication: Option<&Publication>, around: Surroundings, expected: bool| {
            let mut station = station();
            if let Some(publication) = publication {
                station.offer(publication.clone()).unwrap();
            }
            let announcement = station.announcement(&around);
            assert_eq!(announcement.is_announced, expected, "{}", announcement.why);
        };
        let whole = both(5);
        check(None, around(), false);
        check(Some(&whole), around(), true);
        let unregistered = Surroundings {
            is_registered: false,
            ..around()
        };
        check(Some(&whole), unregistered.clone(), false);
        let lost = Surroundings {
            is_store_up: false,
            ..unregistered
        };
        check(Some(&whole), lost, true);
        let draining = |connections| Surroundings {
            intent: Intent::Drain,
            connections,
            ..around()
        };
        check(Some(&whole), draining(Some(0)), true);
        check(Some(&drained), draining(Some(3)), true);
        check(Some(&drained), draining(None), true);
        check(Some(&drained), draining(Some(0)), false);
        // A node that waits for its share is no drained one.
        check(Some(&drained), around(), true);
    }
}
