//! Whether a figure is the relay's or the load's own limit.

use super::Measured;

/// A relay that reaches this part of what goes without any relay may have been held back by the load.
const DIRECT_PART_MAX: f64 = 0.8;

/// Cores that a thread keeps busy when it can do no more.
const BUSY_CORES: f64 = 0.9;

/// The same work through a relay and straight, compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SelfCheck {
    /// How many times faster the load went without a relay.
    pub headroom: f64,
    /// CPU that clients and server used per second of the run through the relay, the busier of both.
    pub busiest_cores: f64,
    /// The load was the bottleneck: the relay's throughput is a lower bound only.
    pub is_bottleneck: bool,
}

impl SelfCheck {
    /// Compares bytes a second where bytes were carried, else messages or sessions a second.
    #[must_use]
    pub fn new(relayed: &Measured, direct: &Measured) -> Self {
        let headroom = if relayed.bytes > 0 && relayed.messages == 0 {
            direct.bytes_per_second() / relayed.bytes_per_second()
        } else {
            direct.messages_per_second() / relayed.messages_per_second()
        };
        let busiest_ns = relayed.client_cpu_ns.max(relayed.server_cpu_ns);
        let busiest_cores = busiest_ns as f64 / 1e9 / relayed.seconds;
        Self {
            headroom,
            busiest_cores,
            is_bottleneck: headroom <= 1.0 / DIRECT_PART_MAX && busiest_cores >= BUSY_CORES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_busy_load_without_headroom_is_the_bottleneck() {
        let measured = |bytes, cpu_ns| Measured {
            seconds: 1.0,
            bytes,
            client_cpu_ns: cpu_ns,
            ..Measured::default()
        };
        let check = |relayed, cpu_ns, bottleneck| {
            let found = SelfCheck::new(&measured(relayed, cpu_ns), &measured(1000, 0));
            assert_eq!(found.is_bottleneck, bottleneck, "{found:?}");
        };
        check(900, 950_000_000, true);
        check(900, 500_000_000, false);
        check(500, 950_000_000, false);
    }
}
