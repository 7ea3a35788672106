//! Measurements of one core: written by that core alone, read as copies.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Number of buckets of a [`Histogram`].
pub const BUCKETS: usize = 32;

/// Fixed power-of-two buckets over microseconds: bucket `i` counts values in `(2^(i-1), 2^i]`,
/// bucket 0 values ≤ 1 µs, the last one everything above.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// Not cumulative; always [`BUCKETS`] long.
    pub buckets: Vec<u64>,
    pub sum_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: vec![0; BUCKETS],
            sum_us: 0,
        }
    }
}

impl Histogram {
    /// Counts one value in microseconds.
    pub fn record(&mut self, us: u64) {
        let bucket = (64 - us.saturating_sub(1).leading_zeros()) as usize;
        let bucket = if us <= 1 { 0 } else { bucket.min(BUCKETS - 1) };
        self.buckets[bucket] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// Counters and gauges of one core.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreMetrics {
    pub core: usize,
    pub connections_accepted: u64,
    pub connections_live: u64,
    pub sessions_opened: u64,
    pub sessions_live: u64,
    /// TLS handshakes with browsers under way.
    pub tls_handshakes_live: u64,
    pub tls_handshakes: u64,
    pub tls_handshake_failures: u64,
    /// Payload bytes browser → target.
    pub bytes_up: u64,
    /// Payload bytes target → browser.
    pub bytes_down: u64,
    /// WebSocket messages browser → target.
    pub messages_up: u64,
    pub messages_down: u64,
    /// Connections handed to control's web server.
    pub web_connections: u64,
    pub dials: u64,
    /// Before a session began, by reason label.
    pub refusals: BTreeMap<String, u64>,
    /// Ends of live sessions, by reason label.
    pub closes: BTreeMap<String, u64>,
    pub audit_records: u64,
    /// Records that could not be written.
    pub audit_losses: u64,
    /// From the upgrade request to the `RDCleanPath` response, µs.
    pub upgrade_to_desktop: Histogram,
    /// From bytes read on one side to their write on the other, µs.
    pub relay_latency: Histogram,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_their_upper_bound() {
        for (us, bucket) in [
            (0, 0),
            (1, 0),
            (2, 1),
            (3, 2),
            (4, 2),
            (5, 3),
            (1024, 10),
            (u64::MAX, 31),
        ] {
            let mut histogram = Histogram::default();
            histogram.record(us);
            assert_eq!(histogram.buckets[bucket], 1, "{us} µs");
        }
    }
}
