//! How the loop begins: what the state folder has kept, the store, the membership, and nothing decided yet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use postern_steering::Place;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::{Beginning, Conductor, Counts, LINKS_PERIOD, Outcome, PROBES_MAX, Seat, Stored, Times};
use crate::kernel::Keys;
use crate::links::Links;
use crate::membership::Membership;
use crate::nodes::Nodes;
use crate::probe::Probe;
use crate::source::Source;
use crate::station::{Station, Surroundings};
use crate::values::Registration;
use crate::{ConductorError, boot, keep};

impl Conductor {
    pub(super) async fn new(
        beginning: Beginning,
        outcomes: mpsc::Sender<Outcome>,
    ) -> Result<(Self, Source), ConductorError> {
        let Beginning {
            settings,
            secret,
            mut kernel,
            installed,
            ethernet,
            state_directory,
            admin_socket,
        } = beginning;
        kernel.set_sources(&settings.sources)?;
        let place = Place {
            v4: settings.address_v4,
            v6: settings.address_v6,
            ethernet,
        };
        let boot = boot::of_this_run(&state_directory)?;
        let seal = secret.seal();
        let mut station = Station::new(settings.node, place, settings.peers.clone());
        let (source, etcd) = Source::open(&settings, &secret, place).await?;
        if etcd.is_some()
            && let Some(publication) = keep::read(&state_directory, &seal)
        {
            let generation = publication.generation();
            match station.offer(publication) {
                Ok(_) => tracing::info!(%generation, "the table that was in force is kept"),
                Err(why) => tracing::warn!(%generation, %why, "the table that was kept is refused"),
            }
        }
        let registration = Registration::new(place, settings.weight, boot);
        let membership = etcd
            .clone()
            .map(|etcd| Membership::start(etcd, settings.node, registration));
        let now = Instant::now();
        let long_ago = now.checked_sub(LINKS_PERIOD).unwrap_or(now);
        let mut beside = JoinSet::new();
        let keeper = keep::start(&state_directory, &mut beside);
        let conductor = Self {
            keys: Keys {
                flow: secret.flow_key(),
                tag: secret.tag_key(),
            },
            seal,
            boot,
            installed,
            admin_socket,
            kernel,
            links: Links::of(&settings.interface),
            station,
            around: Surroundings {
                // A file is always in reach.
                is_store_up: etcd.is_none(),
                is_registered: etcd.is_none(),
                ..Surroundings::default()
            },
            nodes: Nodes::new(settings.peers.clone()),
            etcd,
            membership,
            seat: Seat::default(),
            stored: Stored::default(),
            term: None,
            rest_until: now,
            is_campaigning: false,
            applied: None,
            is_apply_failing: false,
            probe: Probe::default(),
            probing: BTreeSet::new(),
            seats: Arc::new(Semaphore::new(PROBES_MAX)),
            is_counting: false,
            is_measuring: false,
            meter: Arc::default(),
            load: None,
            counted: None,
            counted_at: now,
            counts: Counts::default(),
            told: BTreeSet::new(),
            times: Times {
                load: long_ago,
                count: long_ago,
                probe: long_ago,
                links: now,
            },
            began: now,
            keeper,
            outcomes,
            beside,
            settings,
        };
        Ok((conductor, source))
    }
}
