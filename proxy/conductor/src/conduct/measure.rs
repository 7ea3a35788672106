//! What this node says of itself: how busy it is, how many connections each bucket has here, which table it steers by.

use std::sync::Arc;
use std::time::Instant;

use postern_steering::BucketIndex;

use super::{COUNT_AGE_MAX, COUNT_PERIOD, Conductor, LOAD_PERIOD, Outcome};
use crate::values::{FlowsReport, Heartbeat};
use crate::{boot, reports};

impl Conductor {
    /// Tells the others what this node steers by and how busy it is.
    pub(super) fn speak(&mut self) {
        let Some(membership) = &self.membership else {
            return;
        };
        let sequence = boot::uptime_ms();
        let mut heartbeat = Heartbeat::new(
            self.boot,
            sequence,
            self.steers_by(),
            self.around.newest_seen,
            self.load,
        );
        let is_fresh = self.counted_at.elapsed() < COUNT_AGE_MAX;
        let counted = self.counted.as_ref().filter(|_| is_fresh);
        heartbeat.report = counted.map_or(0, |report| report.sequence);
        membership.heartbeat.send_replace(Some(heartbeat));
    }

    pub(super) fn count(&mut self, flows: Option<Vec<(BucketIndex, u32)>>) {
        self.is_counting = false;
        self.counted_at = Instant::now();
        let Some(flows) = flows else {
            self.counted = None;
            return;
        };
        let sum = flows.iter().map(|(_, flows)| u64::from(*flows)).sum();
        self.around.connections = Some(sum);
        if self
            .counted
            .as_ref()
            .is_some_and(|last| last.flows == flows)
        {
            return;
        }
        let report = Arc::new(FlowsReport {
            boot: self.boot,
            sequence: boot::uptime_ms(),
            flows,
        });
        if let Some(membership) = &self.membership {
            membership.flows.send_replace(Some(report.clone()));
        }
        self.counted = Some(report);
    }

    /// Begins what takes time, where it is due.
    pub(super) fn measure(&mut self) {
        if !self.is_measuring && self.times.load.elapsed() >= LOAD_PERIOD {
            self.times.load = Instant::now();
            self.is_measuring = true;
            let (meter, socket) = (self.meter.clone(), self.admin_socket.clone());
            self.beside(async move { Outcome::Measured(meter.lock().await.look(&socket).await) });
        }
        if !self.is_counting && self.times.count.elapsed() >= COUNT_PERIOD {
            self.times.count = Instant::now();
            self.is_counting = true;
            let (services, key) = (self.settings.vips.clone(), self.keys.flow);
            let outcomes = self.outcomes.clone();
            self.beside.spawn_blocking(move || {
                let flows = reports::count(&services, key);
                let flows = flows
                    .inspect_err(|error| {
                        tracing::warn!(error = error.in_full(), "connections are not counted");
                    })
                    .ok();
                // The loop is over.
                let _ = outcomes.blocking_send(Outcome::Counted(flows));
            });
        }
    }
}
