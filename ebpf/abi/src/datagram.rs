//! UDP flows that a node remembers, so that their datagrams stay with it while buckets move.
//!
//! A key is the flow's keyed hash, the value is when its last datagram came. No stack can be asked
//! whether an unconnected socket has a flow, so the node that takes one remembers it; nodes that
//! only forward remember nothing.

/// Most flows that are remembered at a time; the one that was quiet longest is forgotten.
pub const REMEMBERED_MAX: u32 = 131_072;

/// A flow that was quiet for so long is over: what comes then belongs to the node that its hash
/// chooses. [RFC 4787 §4.3] wants two minutes at least, and recommends five.
///
/// [RFC 4787 §4.3]: https://www.rfc-editor.org/rfc/rfc4787#section-4.3
pub const QUIET_NS_MAX: u64 = 300 * 1_000_000_000;

/// How old the time of the last datagram may get before it is written anew.
pub const NOTED_NS: u64 = 1_000_000_000;

const _: () = assert!(NOTED_NS * 60 <= QUIET_NS_MAX);

/// How long a flow was quiet at `now_ns` whose last datagram was noted at `last_ns`; none where it
/// is over. Another core's clock may be a tick ahead.
#[inline(always)]
#[must_use]
pub const fn quiet_ns(last_ns: u64, now_ns: u64) -> Option<u64> {
    let quiet = now_ns.saturating_sub(last_ns);
    if quiet < QUIET_NS_MAX {
        Some(quiet)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_over_once_it_was_quiet_for_its_time() {
        for (last, now, expected) in [
            (5, 5, Some(0)),
            (6, 5, Some(0)),
            (5, 5 + QUIET_NS_MAX - 1, Some(QUIET_NS_MAX - 1)),
            (5, 5 + QUIET_NS_MAX, None),
            (0, u64::MAX, None),
        ] {
            assert_eq!(quiet_ns(last, now), expected, "{last} {now}");
        }
    }
}
