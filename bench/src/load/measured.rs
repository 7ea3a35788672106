//! What a load measured, in a form that processes can tell each other.

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest latency that is told apart from longer ones, in nanoseconds.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Digits of a latency that are kept.
const LATENCY_DIGITS: u8 = 3;

/// The outcome of one run. Every connection did all of its work: a run in which one did not is an error.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Measured {
    /// Of the measured part, without opening and warming up.
    pub seconds: f64,
    /// Payload bytes, both directions.
    pub bytes: u64,
    /// Messages sent by clients and answered, bursts answered, or screen updates received.
    pub messages: u64,
    /// Sessions opened, warm-up ones included for all but `Open`.
    pub sessions: u64,
    /// Of these, how many resumed a TLS session.
    pub resumed: u64,
    /// Round trips; for the desktop, screen updates from when they were due to their last byte; for
    /// opening, from the connect to the first echo.
    pub latency: Latency,
    /// For the desktop, input from when it was sent to the server's reading it.
    pub latency_up: Latency,
    /// CPU of the process with the clients, in the measured part.
    pub client_cpu_ns: u64,
    /// CPU of the process with the server, in the measured part.
    pub server_cpu_ns: u64,
}

impl Measured {
    #[must_use]
    pub fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }

    #[must_use]
    pub fn messages_per_second(&self) -> f64 {
        self.messages as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// Cores that clients and server kept busy together.
    #[must_use]
    pub fn generator_cores(&self) -> f64 {
        let ns = (self.client_cpu_ns + self.server_cpu_ns) as f64;
        ns / 1e9 / self.seconds.max(f64::MIN_POSITIVE)
    }
}

/// Latencies in nanoseconds, in an HDR histogram.
#[derive(Debug, Clone)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS);
        Self(histogram.expect("the bounds are constants that the histogram takes"))
    }
}

impl Latency {
    /// Counts one; longer than [`LATENCY_NS_MAX`] counts as that.
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    /// Counts `count` of the same.
    pub fn record_n(&mut self, ns: u64, count: u64) {
        self.0.saturating_record_n(ns, count);
    }

    pub fn add(&mut self, other: &Self) {
        self.0 += &other.0;
    }

    /// For percentiles, and for writing it out.
    #[must_use]
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Microseconds that `percent` of all don't exceed.
    #[must_use]
    pub fn percentile_us(&self, percent: f64) -> f64 {
        self.0.value_at_percentile(percent) as f64 / 1000.0
    }

    #[must_use]
    pub fn max_us(&self) -> f64 {
        self.0.max() as f64 / 1000.0
    }

    /// Every value that occurs, and how often.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0
            .iter_recorded()
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
    }
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.counts())
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut latency = Self::default();
        for (ns, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            latency.record_n(ns, count);
        }
        Ok(latency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_survive_the_way_between_processes() {
        let mut latency = Latency::default();
        for us in 1..=1000 {
            latency.record(us * 1000);
        }
        latency.record(3 * LATENCY_NS_MAX);
        let text = serde_json::to_string(&latency).unwrap();
        let read: Latency = serde_json::from_str(&text).unwrap();
        assert_eq!(read.len(), 1001);
        for percent in [1.0, 50.0, 99.0, 100.0] {
            let (ours, theirs) = (latency.percentile_us(percent), read.percentile_us(percent));
            assert!(
                (ours / theirs - 1.0).abs() < 0.002,
                "{percent}: {ours} {theirs}"
            );
        }
        assert!((read.percentile_us(50.0) - 500.0).abs() < 2.0);
        assert!(read.max_us() >= 0.999 * LATENCY_NS_MAX as f64 / 1000.0);
    }
}
