//! What `place` and the workers share: the load of a core, the rules, and the choice itself.
//!
//! The choice is written once, here: the program runs it over its maps, the tests over tables.

use crate::Plain;

/// Most sockets of a group, one a core.
pub const SLOTS_MAX: u32 = 64;

/// What a worker says of its core, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Load {
    /// Monotonic clock, nanoseconds; 0: never said anything.
    pub published_ns: u64,
    /// Connections that the program had placed on the core when this was published: those it has
    /// placed since come on top of `connections`.
    pub placed: u64,
    /// Connections of the core that live, those that wait to be accepted included.
    pub connections: u32,
    /// How busy the CPU was of late, whoever it worked for: 0-1000.
    pub cpu_permille: u32,
}

// SAFETY: integers without padding between or after them, as asserted below.
unsafe impl Plain for Load {}

/// How a core is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Rules {
    /// A load that is older says nothing, nanoseconds.
    pub fresh_ns: u64,
    /// Sockets in the group: slots below this are looked at.
    pub slots: u32,
    /// From here on a core is busy: it gets connections only when every core is.
    pub busy_permille: u32,
    /// A core that was given so many connections since its last publication is busy too: they
    /// all shake hands at once, which the published load does not show yet.
    pub burst_max: u32,
    pub reserved: u32,
}

// SAFETY: integers without padding between or after them, as asserted below.
unsafe impl Plain for Rules {}

impl Rules {
    /// For a group of `slots` sockets whose workers publish every tenth of a second or so.
    #[must_use]
    pub const fn of(slots: u32) -> Self {
        Self {
            fresh_ns: 2_000_000_000,
            slots,
            busy_permille: 900,
            burst_max: 256,
            reserved: 0,
        }
    }
}

const _: () = assert!(size_of::<Load>() == 24 && align_of::<Load>() == 8);
const _: () = assert!(size_of::<Rules>() == 24 && align_of::<Rules>() == 8);

/// Why a connection went where it went; each is counted under exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Decision {
    /// To the core with the fewest connections.
    Least = 0,
    /// A busy core had fewer connections, and was spared.
    Spared = 1,
    /// Every core is busy: to the one with the fewest connections.
    Crowded = 2,
    /// No core has published of late: the kernel's hash.
    Stale = 3,
    /// The chosen core has no socket in the group: the kernel's hash.
    Empty = 4,
}

/// How many kinds of decisions there are.
pub const DECISIONS: u32 = 5;

impl Decision {
    pub const ALL: [Self; DECISIONS as usize] = [
        Self::Least,
        Self::Spared,
        Self::Crowded,
        Self::Stale,
        Self::Empty,
    ];

    /// Metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Least => "least",
            Self::Spared => "spared",
            Self::Crowded => "crowded",
            Self::Stale => "stale",
            Self::Empty => "empty",
        }
    }
}

/// The search for a slot, one look at a time.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Search {
    /// The best slot so far: idle before busy, then by connections, then the first looked at.
    rank: u64,
    slot: u32,
    /// Fewest connections of any core, busy or not.
    fewest: u32,
}

/// Above every number of connections, so that a busy core comes after each that is not.
const BUSY: u64 = 1 << 32;

/// Nothing was found.
const NOTHING: u64 = u64::MAX;

impl Default for Search {
    fn default() -> Self {
        Self {
            rank: NOTHING,
            slot: 0,
            fewest: u32::MAX,
        }
    }
}

impl Search {
    /// Looks at a slot; `placed` is what the program has placed on it since it began.
    #[inline(always)]
    pub fn look(&mut self, slot: u32, load: &Load, placed: u64, rules: &Rules, now_ns: u64) {
        if now_ns.saturating_sub(load.published_ns) > rules.fresh_ns {
            return;
        }
        // Wrapping: a torn or foreign publication may be ahead of the counter for a moment.
        let since = placed.wrapping_sub(load.placed) as u32;
        let connections = load.connections.saturating_add(since);
        let busy = load.cpu_permille >= rules.busy_permille || since >= rules.burst_max;
        let rank = u64::from(connections) | if busy { BUSY } else { 0 };
        if connections < self.fewest {
            self.fewest = connections;
        }
        if rank < self.rank {
            self.rank = rank;
            self.slot = slot;
        }
    }

    /// The slot that was found, and why; none when no load is fresh.
    #[inline(always)]
    #[must_use]
    pub fn found(&self) -> Option<(u32, Decision)> {
        if self.rank == NOTHING {
            return None;
        }
        let decision = if self.rank >= BUSY {
            Decision::Crowded
        } else if self.fewest < self.rank as u32 {
            Decision::Spared
        } else {
            Decision::Least
        };
        Some((self.slot, decision))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 10_000_000_000;

    /// connections, placed since, CPU, age in milliseconds.
    type Core = (u32, u64, u32, u64);

    type Found = Option<(u32, Decision)>;

    fn search(cores: &[Core]) -> Found {
        let rules = Rules::of(cores.len() as u32);
        let mut search = Search::default();
        for (slot, &(connections, since, cpu_permille, age_ms)) in (0..).zip(cores) {
            let load = Load {
                published_ns: NOW - age_ms * 1_000_000,
                placed: 7,
                connections,
                cpu_permille,
            };
            search.look(slot, &load, 7 + since, &rules, NOW);
        }
        search.found()
    }

    #[test]
    fn a_connection_goes_to_the_core_with_room() {
        let table: [(&str, &[Core], Found); 10] = [
            ("nobody", &[], None),
            (
                "fewest",
                &[(9, 0, 0, 0), (8, 0, 0, 0)],
                Some((1, Decision::Least)),
            ),
            (
                "first of equals",
                &[(8, 0, 0, 0), (8, 0, 0, 0)],
                Some((0, Decision::Least)),
            ),
            (
                "placed since count",
                &[(8, 2, 0, 0), (9, 0, 0, 0)],
                Some((1, Decision::Least)),
            ),
            (
                "load below busy does not matter",
                &[(8, 0, 899, 0), (9, 0, 0, 0)],
                Some((0, Decision::Least)),
            ),
            (
                "busy is spared",
                &[(0, 0, 900, 0), (99, 0, 0, 0)],
                Some((1, Decision::Spared)),
            ),
            (
                "a burst is spared",
                &[(0, 256, 0, 0), (999, 0, 0, 0)],
                Some((1, Decision::Spared)),
            ),
            (
                "all busy",
                &[(5, 0, 1000, 0), (4, 0, 950, 0)],
                Some((1, Decision::Crowded)),
            ),
            (
                "stale is left out",
                &[(0, 0, 0, 2001), (50, 0, 0, 2000)],
                Some((1, Decision::Least)),
            ),
            ("all stale", &[(0, 0, 0, 2001), (0, 0, 0, 9000)], None),
        ];
        for (what, cores, expected) in table {
            assert_eq!(search(cores), expected, "{what}");
        }
    }

    #[test]
    fn a_load_that_was_never_published_is_stale() {
        let mut search = Search::default();
        search.look(0, &Load::default(), 0, &Rules::of(1), NOW);
        assert_eq!(search.found(), None);
    }

    #[test]
    fn a_load_published_a_moment_after_the_look_at_the_clock_is_fresh() {
        let mut search = Search::default();
        let load = Load {
            published_ns: NOW + 1,
            ..Load::default()
        };
        search.look(3, &load, 0, &Rules::of(4), NOW);
        assert_eq!(search.found(), Some((3, Decision::Least)));
    }

    #[test]
    fn any_publication_is_survived() {
        for value in [0, 1, u64::MAX / 2, u64::MAX] {
            let load = Load {
                published_ns: value,
                placed: value,
                connections: value as u32,
                cpu_permille: value as u32,
            };
            let mut search = Search::default();
            search.look(0, &load, u64::MAX - value, &Rules::of(1), NOW);
            if let Some((slot, _)) = search.found() {
                assert_eq!(slot, 0);
            }
        }
    }
}
