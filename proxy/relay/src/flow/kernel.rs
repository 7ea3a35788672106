//! A line whose records are the kernel's: its bytes pass as they are, but its key wears out and its
//! end must be said in a record of another type.

use super::side::{Output, Side};
use super::{Flow, Leg, Line};
use crate::Context;

/// Bytes that a record of the kernel holds at least where many are sent: half of a full one, as it
/// cuts them where its pieces of memory end.
const RECORD_BYTES: u64 = 8 * 1024;

/// Records that are not so full in what is spliced at once: the last of each fill of a pipe.
const SHORT_RECORDS: u64 = 4;

/// [RFC 8446 §6.1] The alert `close_notify`, without its record.
pub const CLOSE_NOTIFY: [u8; 2] = [1, 0];

/// What we must know of records that the kernel seals and opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelLine {
    /// Records that its key may still seal. Nobody changes it: the kernel can't before Linux 6.14.
    records_left: u64,
    close: Close,
}

/// How bytes went out: sent by us, or moved by the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    Sent,
    Spliced,
}

/// How far our good-bye is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Close {
    Unsaid,
    /// It is to be said after what is queued.
    Owed,
    /// It is in the outbox, and nothing else is.
    Queued,
}

impl KernelLine {
    /// For a key that may still seal so many records.
    #[must_use]
    pub fn new(records: u64) -> Self {
        Self {
            records_left: records,
            close: Close::Unsaid,
        }
    }

    /// The good-bye follows what is queued.
    pub(super) fn owe_close(&mut self) {
        self.close = Close::Owed;
    }

    /// Reckons the records of `bytes` that went out; whether the key may seal more.
    fn spend(&mut self, bytes: u64, passage: Passage) -> bool {
        let short = match passage {
            Passage::Sent => 0,
            Passage::Spliced => SHORT_RECORDS,
        };
        let records = bytes.div_ceil(RECORD_BYTES) + short;
        self.records_left = self.records_left.saturating_sub(records);
        self.records_left > 0
    }
}

impl Side {
    fn kernel(&mut self) -> Option<&mut KernelLine> {
        match &mut self.line {
            Line::Kernel(kernel) => Some(kernel),
            Line::Plain | Line::Tls(_) => None,
        }
    }

    /// Queues the good-bye that is owed, once nothing stands before it.
    pub(super) fn say_owed_close(&mut self, cx: &mut Context<'_>) {
        let is_next = self.output == Output::Closing && self.outbox.is_empty();
        let Line::Kernel(kernel) = &mut self.line else {
            return;
        };
        if is_next && kernel.close == Close::Owed {
            kernel.close = Close::Queued;
            // An empty queue has room; without memory the peer misses a courtesy.
            let _ = self.outbox.push(&CLOSE_NOTIFY, cx.pool);
            self.queued(cx.now);
        }
    }
}

impl Flow {
    /// Whether the kernel seals and opens the records of `leg`: what is received from it may stop at
    /// a record that is no data, which must be asked for by its type.
    #[must_use]
    pub fn is_kernel(&self, leg: Leg) -> bool {
        matches!(self.side(leg).line, Line::Kernel(_))
    }

    /// Whether all that is [`Self::outgoing`] to `leg` is [`CLOSE_NOTIFY`], to be sent as an alert.
    #[must_use]
    pub fn says_close(&self, leg: Leg) -> bool {
        let side = self.side(leg);
        matches!(&side.line, Line::Kernel(kernel) if kernel.close == Close::Queued)
            && !side.outbox.is_empty()
    }

    /// Bytes went to `leg`; a key that is worn out ends the line, as it can't be changed.
    pub(super) fn wear(&mut self, leg: Leg, bytes: u64, passage: Passage, cx: &mut Context<'_>) {
        if let Some(kernel) = self.side_mut(leg).kernel()
            && !kernel.spend(bytes, passage)
        {
            self.lost(leg, cx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_worn_out_before_it_has_sealed_too_much() {
        use Passage::{Sent, Spliced};
        let check = |bytes: u64, passage, records: u64, lasts: bool| {
            let mut line = KernelLine::new(records);
            assert_eq!(line.spend(bytes, passage), lasts, "{bytes} {passage:?}");
        };
        check(1, Sent, 1, false);
        check(1, Sent, 2, true);
        check(8 * 1024, Sent, 2, true);
        check(8 * 1024 + 1, Sent, 2, false);
        check(1, Spliced, 5, false);
        check(1, Spliced, 6, true);
        check(1 << 20, Spliced, 132, false);
        check(1 << 20, Spliced, 133, true);
        // The limit of AES-GCM: more than a hundred gigabytes at full speed.
        let mut line = KernelLine::new(1 << 24);
        let splices = (1..).take_while(|_| line.spend(4 << 20, Spliced)).count();
        assert!((splices as u64 * (4 << 20)) >> 30 > 100, "{splices}");
        assert!(!KernelLine::new(0).spend(0, Sent));
        assert!(KernelLine::new(u64::MAX).spend(u64::MAX, Spliced));
    }
}
