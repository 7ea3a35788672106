//! Bytes of the TCP stream of one leg, counted where they cross between the process and the kernel.

use std::cell::Cell;

/// What a connection's stream carried from its beginning to the closing of its socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamBytes {
    /// What the kernel took in from the peer, in order, each byte once: what was read of it, and what
    /// lay there unread when the socket was closed.
    pub received: u64,
    /// What the kernel took of us for the peer, without what it dropped since the connection broke.
    pub sent: u64,
    /// Of [`Self::sent`], what had not gone out once when the socket was closed: the kernel sends it
    /// afterwards, if the peer takes it.
    pub unsent: u64,
}

/// What a kernel still held of a connection when nobody could add to it any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rest {
    /// Came in, and was never read.
    pub unread: u64,
    /// Positions of the stream that never went out: bytes that were taken for the peer, and our FIN
    /// if it waits behind them.
    pub waiting: u64,
    /// Bytes that went out, each once.
    pub went_out: u64,
    /// The connection is gone: what is unsent never goes out.
    pub is_broken: bool,
}

impl StreamBytes {
    /// Adds what the kernel still held at the end.
    pub fn settle(&mut self, rest: Rest) {
        self.received += rest.unread;
        // Whether the last position is a FIN is seen by what did go out.
        let unsent = self.sent.saturating_sub(rest.went_out);
        let unsent = unsent.clamp(rest.waiting.saturating_sub(1), rest.waiting);
        if rest.is_broken {
            self.sent = self.sent.saturating_sub(unsent);
        } else {
            self.unsent = unsent;
        }
    }
}

/// Counts the stream of one socket for whoever owns it and for whoever wants to know, on one thread.
#[derive(Debug, Default)]
pub struct Meter(Cell<StreamBytes>);

impl Meter {
    pub fn received(&self, bytes: usize) {
        self.change(|count| count.received += bytes as u64);
    }

    pub fn sent(&self, bytes: usize) {
        self.change(|count| count.sent += bytes as u64);
    }

    /// The socket is about to be closed, and this is what the kernel still holds.
    pub fn settle(&self, rest: Rest) {
        self.change(|count| count.settle(rest));
    }

    #[must_use]
    pub fn count(&self) -> StreamBytes {
        self.0.get()
    }

    fn change(&self, change: impl FnOnce(&mut StreamBytes)) {
        let mut count = self.0.get();
        change(&mut count);
        self.0.set(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_holds_at_the_end_is_received_and_what_it_drops_is_not_sent() {
        let check = |rest: Rest, received: u64, sent: u64, unsent: u64| {
            let meter = Meter::default();
            meter.received(100);
            meter.sent(50);
            meter.settle(rest);
            let expected = StreamBytes {
                received,
                sent,
                unsent,
            };
            assert_eq!(meter.count(), expected, "{rest:?}");
        };
        let rest = |unread, waiting, went_out, is_broken| Rest {
            unread,
            waiting,
            went_out,
            is_broken,
        };
        check(rest(0, 0, 50, false), 100, 50, 0);
        check(rest(7, 0, 50, false), 107, 50, 0);
        check(rest(0, 20, 30, false), 100, 50, 20);
        check(rest(0, 21, 30, false), 100, 50, 20);
        check(rest(0, 1, 50, false), 100, 50, 0);
        check(rest(7, 20, 30, true), 107, 30, 0);
        check(rest(7, 21, 30, true), 107, 30, 0);
        // A count of what went out that can't be is not believed.
        check(rest(0, 0, 7, true), 100, 50, 0);
        check(rest(0, 20, 99, true), 100, 31, 0);
    }
}
