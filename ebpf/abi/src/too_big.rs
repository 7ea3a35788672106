//! How often a node answers that a packet is too big for a tunnel.

/// Time between two answers of one core, when it gives them for long ([RFC 4443 §2.4] (f) wants a
/// limit, and suggests a bucket of tokens).
///
/// [RFC 4443 §2.4]: https://www.rfc-editor.org/rfc/rfc4443#section-2.4
pub const ANSWER_INTERVAL_NS: u64 = 1_000_000;
/// How much time a core may be ahead of that.
pub const ANSWER_BURST_NS: u64 = 50 * ANSWER_INTERVAL_NS;

/// When the answer after this one is due, if one may be given at `now_ns` where `due_ns` was due.
#[inline(always)]
#[must_use]
pub const fn next_due_ns(due_ns: u64, now_ns: u64) -> Option<u64> {
    let due = if due_ns > now_ns { due_ns } else { now_ns };
    if due - now_ns > ANSWER_BURST_NS {
        None
    } else {
        Some(due + ANSWER_INTERVAL_NS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_answered_and_then_one_an_interval() {
        let (mut due, mut answers) = (0, 0);
        let start = 1_000_000_000;
        while let Some(next) = next_due_ns(due, start) {
            (due, answers) = (next, answers + 1);
        }
        assert_eq!(answers, 51);
        for elapsed in 1..10 {
            let now = start + elapsed * ANSWER_INTERVAL_NS;
            due = next_due_ns(due, now).expect("one an interval");
            assert_eq!(next_due_ns(due, now), None);
        }
    }
}
