//! What a core has to do, published for whoever places new connections.

use std::rc::{Rc, Weak};
use std::sync::atomic::Ordering;

use postern_engine::clock;
use postern_engine::net::Listener;

use super::Worker;
use crate::node::placement::{Announcer, PUBLISH};

impl Worker {
    /// Counts what waits at a listener among what the core has to do, for as long as it listens.
    pub(in crate::node) fn listens(&self, listener: &Rc<Listener>) {
        let listener = Rc::downgrade(listener);
        self.0.listeners.borrow_mut().push(listener);
    }

    /// Publishes what the core has to do, until it ends or the kernel takes no more of it.
    pub(super) async fn announce(&self, mut announcer: Announcer) {
        let is_draining = || self.0.node.draining.load(Ordering::Relaxed);
        while !is_draining() && announcer.announce(self.connections() + self.waiting()) {
            clock::sleep(PUBLISH).await;
        }
    }

    /// Connections that wait to be accepted.
    fn waiting(&self) -> u64 {
        let listeners = self.0.listeners.borrow();
        let listeners = listeners.iter().filter_map(Weak::upgrade);
        listeners
            .map(|listener| u64::from(listener.waiting()))
            .sum()
    }
}
