//! What the flows of one core carried, counted by that core alone.

/// Number of latency buckets: bucket `i` counts values in `(2^(i-1), 2^i]` µs, bucket 0 those ≤ 1 µs,
/// the last one everything above.
pub const LATENCY_BUCKETS: usize = 32;

/// Counters of one core. Payload bytes: what the target's peer wrote or will read, without framing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Client → target.
    pub bytes_up: u64,
    /// Target → client.
    pub bytes_down: u64,
    /// WebSocket messages client → target.
    pub messages_up: u64,
    pub messages_down: u64,
    /// From bytes read on one side until the kernel took the last of them on the other, µs.
    pub latency: [u64; LATENCY_BUCKETS],
    pub latency_sum_us: u64,
}

impl Tally {
    /// Counts one latency in microseconds.
    pub fn record_latency(&mut self, us: u64) {
        let bucket = match us {
            0 | 1 => 0,
            us => ((64 - (us - 1).leading_zeros()) as usize).min(LATENCY_BUCKETS - 1),
        };
        self.latency[bucket] += 1;
        self.latency_sum_us = self.latency_sum_us.saturating_add(us);
    }
}
