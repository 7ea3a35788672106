//! Runs what takes time beside the loop, and brings back what came of it.

use super::{Conductor, Outcome};

impl Conductor {
    /// What is given is bounded by who gives it: one of a kind, or one for each node.
    pub(super) fn beside(&mut self, work: impl Future<Output = Outcome> + Send + 'static) {
        // Those that are over need no room.
        while self.beside.try_join_next().is_some() {}
        let outcomes = self.outcomes.clone();
        self.beside.spawn(async move {
            let outcome = work.await;
            // The loop is over.
            let _ = outcomes.send(outcome).await;
        });
    }
}
