//! The sockets of a core's flows: places in the ring's own table, which cost the process no
//! descriptors and the kernel no look-up, and descriptors where the table is full or the bytes may be spliced.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use io_uring::Submitter;
use postern_relay::Leg;

use crate::relay::machine::Key;
use crate::relay::splice::Conduit;

use super::operation::Target;

/// What the kernel forgets a place of the table with.
const NOTHING: RawFd = -1;

/// The sockets of one flow, and what the driver itself has asked about them.
pub struct Place {
    key: Key,
    pair: Pair,
    pub lanes: [Lane; 2],
    /// Answers about the sockets that are still to come and that the machine knows nothing of.
    pub awaited: u8,
    /// The flow is over: its sockets are closed when nothing is awaited any more.
    pub is_closing: bool,
}

/// The way from one leg to the other.
#[derive(Debug, Default)]
pub struct Lane {
    /// Its bytes go through a pipe.
    pub conduit: Option<Conduit>,
    /// A question whether it can move on is under way.
    pub is_polled: bool,
    /// These sockets can't be spliced.
    pub is_unfit: bool,
}

/// Where the two sockets are, the client's first.
///
/// INVARIANT: at least one of the two is there.
struct Pair {
    /// The table's places `2 * n` and `2 * n + 1`.
    fixed: Option<u32>,
    descriptors: Option<[OwnedFd; 2]>,
}

/// The sockets of every flow of a core.
pub struct Sockets {
    places: Vec<Option<Place>>,
    /// Free pairs of the table.
    free: Vec<u32>,
}

impl Sockets {
    /// For a ring whose table holds `table` sockets.
    pub fn new(table: u32) -> Self {
        Self {
            places: Vec::new(),
            // The lowest first, so that the used part of the table is small.
            free: (0..table / 2).rev().collect(),
        }
    }

    /// Takes the sockets of a flow over. Only a flow that may be spliced needs to keep descriptors.
    pub fn insert(
        &mut self,
        key: Key,
        sockets: [OwnedFd; 2],
        keep: bool,
        submitter: &Submitter<'_>,
    ) {
        let fixed = self.register(&sockets, submitter);
        let pair = Pair {
            fixed,
            descriptors: (keep || fixed.is_none()).then_some(sockets),
        };
        let index = key.index as usize;
        if index >= self.places.len() {
            self.places.resize_with(index + 1, || None);
        }
        self.places[index] = Some(Place {
            key,
            pair,
            lanes: Default::default(),
            awaited: 0,
            is_closing: false,
        });
    }

    pub fn get(&self, key: Key) -> Option<&Place> {
        let place = self.places.get(key.index as usize)?.as_ref();
        place.filter(|place| place.key == key)
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut Place> {
        let place = self.places.get_mut(key.index as usize)?.as_mut();
        place.filter(|place| place.key == key)
    }

    /// Closes the sockets of a flow.
    pub fn close(&mut self, key: Key, submitter: &Submitter<'_>) {
        let Some(place) = self.places.get_mut(key.index as usize) else {
            return;
        };
        let Some(place) = place.take_if(|place| place.key == key) else {
            return;
        };
        if let Some(fixed) = place.pair.fixed {
            match submitter.register_files_update(2 * fixed, &[NOTHING; 2]) {
                Ok(_) => self.free.push(fixed),
                // The places stay taken; the ring's end closes them.
                Err(error) => {
                    tracing::error!(%error, "sockets of a flow can't be taken out of the table");
                }
            }
        }
    }

    /// Puts both sockets into the table, if it has room.
    fn register(&mut self, sockets: &[OwnedFd; 2], submitter: &Submitter<'_>) -> Option<u32> {
        let fixed = self.free.pop()?;
        let descriptors = [sockets[0].as_raw_fd(), sockets[1].as_raw_fd()];
        if let Ok(2) = submitter.register_files_update(2 * fixed, &descriptors) {
            return Some(fixed);
        }
        let _ = submitter.register_files_update(2 * fixed, &[NOTHING; 2]);
        self.free.push(fixed);
        None
    }
}

impl Place {
    /// How the kernel is told of the socket of `leg`.
    pub fn target(&self, leg: Leg) -> Target {
        match (&self.pair.fixed, &self.pair.descriptors) {
            (Some(fixed), _) => Target::Fixed(2 * fixed + leg.index() as u32),
            (None, Some(sockets)) => Target::Descriptor(sockets[leg.index()].as_raw_fd()),
            (None, None) => unreachable!("a flow's sockets are somewhere"),
        }
    }

    /// The socket of `leg`, if it has a descriptor.
    pub fn descriptor(&self, leg: Leg) -> Option<BorrowedFd<'_>> {
        let sockets = self.pair.descriptors.as_ref()?;
        Some(sockets[leg.index()].as_fd())
    }

    /// The lane from `leg`, its source and its sink, if there are descriptors to splice.
    pub fn lane(&mut self, leg: Leg) -> Option<(&mut Lane, BorrowedFd<'_>, BorrowedFd<'_>)> {
        let sockets = self.pair.descriptors.as_ref()?;
        let source = sockets[leg.index()].as_fd();
        let sink = sockets[leg.other().index()].as_fd();
        Some((&mut self.lanes[leg.index()], source, sink))
    }
}
