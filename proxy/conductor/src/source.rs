//! Where tables come from: etcd, which everybody writes to, or a file that is the same everywhere.

use postern_steering::{
    NodeId, Place, Publication, Roster, Settings, StoreSettings, Table, Weight,
};

use tokio::sync::mpsc;

use crate::store::{Access, Etcd, Event, Follower, Health, Nodes, NodesFile, Sealer, StoreError};
use crate::{ConductorError, Secret};

/// What a source tells.
#[derive(Debug)]
pub enum Told {
    Event(Event),
    /// All that is in etcd is known, or not.
    Health(Health),
    /// The file says so now.
    Publication(Box<Publication>),
    /// The file has changed to something that is not taken.
    Refused(String),
}

/// One of them.
#[derive(Debug)]
pub enum Source {
    Etcd {
        follower: Follower,
        health: tokio::sync::watch::Receiver<Health>,
    },
    /// It is looked at beside, for whoever listens here gives up all the time.
    File(mpsc::Receiver<Told>),
}

impl Source {
    /// What the settings name; etcd itself also, to write to.
    ///
    /// # Errors
    /// What was configured can't be.
    pub async fn open(
        settings: &Settings,
        secret: &Secret,
        place: Place,
    ) -> Result<(Self, Option<Etcd>), ConductorError> {
        let wrong = |error: StoreError| ConductorError::Settings(crate::error::in_full(&error));
        match &settings.store {
            StoreSettings::File(path) => {
                let file = NodesFile::open(path).await.map_err(wrong)?;
                let own = (settings.node, place);
                // What is wrong with it is told before anything is steered.
                let first = publication(file.nodes(), own).map_err(ConductorError::Settings)?;
                let (sender, told) = mpsc::channel(1);
                tokio::spawn(watch(file, own, first, sender));
                Ok((Self::File(told), None))
            }
            StoreSettings::Etcd {
                endpoints,
                prefix,
                ca_file,
                certificate_file,
                key_file,
            } => {
                let access = Access {
                    endpoints: endpoints.clone(),
                    prefix: prefix.clone(),
                    ca_file: ca_file.clone(),
                    certificate_file: certificate_file.clone(),
                    key_file: key_file.clone(),
                };
                let etcd = Etcd::open(&access, Sealer::new(secret)).map_err(wrong)?;
                let follower = etcd.follow();
                let health = follower.health();
                Ok((Self::Etcd { follower, health }, Some(etcd)))
            }
        }
    }

    /// The next news; given up half-way, it loses none.
    pub async fn next(&mut self) -> Told {
        match self {
            Self::Etcd { follower, health } => tokio::select! {
                event = follower.next() => Told::Event(event),
                Ok(()) = health.changed() => Told::Health(health.borrow_and_update().clone()),
            },
            Self::File(told) => match told.recv().await {
                Some(told) => told,
                // The task ends with who listens alone.
                None => std::future::pending().await,
            },
        }
    }
}

/// Tells what a file says, first and whenever it changes, until nobody listens.
async fn watch(
    mut file: NodesFile,
    own: (NodeId, Place),
    first: Publication,
    told: mpsc::Sender<Told>,
) {
    let mut news = Told::Publication(Box::new(first));
    while told.send(news).await.is_ok() {
        let changed = tokio::select! {
            changed = file.changed() => changed,
            () = told.closed() => return,
        };
        let made = changed
            .map_err(|error| crate::error::in_full(&error))
            .and_then(|nodes| publication(nodes, own));
        news = match made {
            Ok(publication) => Told::Publication(Box::new(publication)),
            Err(why) => Told::Refused(why),
        };
    }
}

/// The table of a file: shares by weight, and a stand-in for every bucket.
fn publication(nodes: &Nodes, (own, at): (NodeId, Place)) -> Result<Publication, String> {
    let mut roster = Roster::new();
    for node in &nodes.nodes {
        let mut place = Place {
            v4: node.address_v4,
            v6: node.address_v6,
            ethernet: node.ethernet.unwrap_or_default(),
        };
        // Of itself a node knows the Ethernet address, and says it where the file does not.
        if node.id == own && node.ethernet.is_none() {
            place.ethernet = at.ethernet;
        }
        roster.insert(node.id, place);
    }
    match roster.get(&own) {
        None => return Err(format!("{own}, which is this node, is not in the file")),
        Some(place) if (place.v4, place.v6) != (at.v4, at.v6) => {
            return Err(format!(
                "the file has {own}, which is this node, at other addresses"
            ));
        }
        Some(_) => {}
    }
    let members: Vec<(NodeId, Weight)> = nodes
        .nodes
        .iter()
        .map(|node| (node.id, node.weight))
        .collect();
    Table::initial(nodes.generation, &members)
        .and_then(|table| Publication::new(roster, table))
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use postern_steering::Generation;

    use super::*;
    use crate::store::Node;

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

    #[test]
    fn a_file_is_the_same_table_on_every_node_that_it_names() {
        let nodes = Nodes {
            generation: Generation(4),
            nodes: [1, 2]
                .map(|number: u8| Node {
                    id: node(number.into()),
                    address_v4: place(number).v4,
                    address_v6: None,
                    ethernet: (number == 2).then_some([9; 6]),
                    weight: Weight::new(u32::from(number)).unwrap(),
                })
                .into(),
        };
        let one = publication(&nodes, (node(1), place(1))).unwrap();
        let two = publication(&nodes, (node(2), place(2))).unwrap();
        assert_eq!(one.table(), two.table());
        assert_eq!(one.generation(), Generation(4));
        assert_eq!(one.roster()[&node(1)], place(1));
        assert_eq!(one.roster()[&node(2)].ethernet, [9; 6]);
        // Of another node nothing is known that the file does not say.
        assert_eq!(two.roster()[&node(1)].ethernet, [0; 6]);
        let refused = |own: u16, at: u8| publication(&nodes, (node(own), place(at))).unwrap_err();
        assert!(refused(3, 3).contains("not in the file"));
        assert!(refused(1, 7).contains("other addresses"));
    }
}
