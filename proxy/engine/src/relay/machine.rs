//! The flows of one core and what is to be done for them: the state machine that every driver drives.
//!
//! A driver tells what the kernel did (`received`, `receive_ended`, `sent`, `tick`, …), then takes
//! [`Deed`]s until there are none. A deed is given out once; the machine remembers what is under way and
//! ignores news of flows that are gone (generations). Safe code, no I/O: tests drive it with a simulated kernel.

use std::collections::VecDeque;

use postern_relay::{Context, Flow, Goodbye, Leg, Moment, Pool, Report, Rest, Tally};

use super::carried::{Carried, Next, Turn};
use super::slab::Slab;
use super::timers::Timers;

/// Memory that nobody has needed for this long begins to go back to the system.
const TRIM_MS: u64 = 1_000;

/// A flow that wants to be woken at once, again and again, is woken this much later each time.
const WAKE_STEP_MS: u64 = 1;

/// Names a flow on its core: the same index is used again, the same generation is not (for 2^24 uses).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub index: u32,
    pub generation: u32,
}

/// How an armed receive ended. Bytes that it brought were told before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveEnd {
    /// It brought as much as it may, or the kernel ended it for reasons of its own: arm again if wanted.
    Spent,
    /// There was no buffer to receive into: arm again when there are ([`Machine::buffers_back`]).
    NoBuffers,
    Cancelled,
    /// End of stream.
    Finished,
    /// The peer's TLS has said that nothing more comes.
    Closed,
    /// Reset or another error.
    Broken,
}

/// What a driver must do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Arm a receive: its bytes come by `received`, its end by `receive_ended`.
    Receive(Key, Leg),
    /// End the armed receive, or the splicing from this leg; its end still comes by `receive_ended`.
    CancelReceive(Key, Leg),
    /// Send what [`Machine::outgoing`] shows; its end comes by `sent`. The bytes stay where they are until then.
    Send(Key, Leg),
    /// The send under way must end now; its end still comes by `sent`.
    CancelSend(Key, Leg),
    /// Everything was sent: end our sending side.
    ShutDown(Key, Leg),
    /// Nothing of it is under way any more: close both sockets and take its report with [`Machine::remove`].
    Close(Key),
}

/// The flows of one core.
#[derive(Default)]
pub struct Machine {
    flows: Slab<Carried>,
    timers: Timers,
    /// Flows that may want something, each once, in the order in which it happened to them.
    dirty: VecDeque<Key>,
    /// The flow whose turn it is.
    visit: Option<(Key, Turn)>,
    /// Flows with a receive that waits for buffers, each once.
    starved: Vec<Key>,
    pool: Pool,
    trimmed: Moment,
    tally: Tally,
    now: Moment,
}

impl Machine {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a flow over; its clock begins now.
    pub fn add(&mut self, flow: Flow) -> Key {
        let key = self.flows.insert(Carried::new(flow));
        // Room for every flow once, so that nothing is allocated while they run.
        let flows = self.flows.capacity();
        self.timers.reserve(flows);
        self.dirty.reserve(flows.saturating_sub(self.dirty.len()));
        self.starved
            .reserve(flows.saturating_sub(self.starved.len()));
        self.happen(key, Flow::begin);
        key
    }

    /// Sets the time of all that follows.
    pub fn set_now(&mut self, now: Moment) {
        self.now = now;
    }

    /// The armed receive of `leg` brought `bytes`; they may be changed in place and are not needed afterwards.
    pub fn received(&mut self, key: Key, leg: Leg, bytes: &mut [u8]) {
        let Some(carried) = self.flows.get_mut(key) else {
            return;
        };
        carried.flow.stream_mut(leg).received += bytes.len() as u64;
        if !bytes.is_empty() && carried.receives(leg, bytes.len()) {
            self.happen(key, |flow, context| flow.received(leg, bytes, context));
        }
    }

    /// The armed receive of `leg`, or the splicing from it, is over.
    pub fn receive_ended(&mut self, key: Key, leg: Leg, end: ReceiveEnd) {
        let Some(carried) = self.flows.get_mut(key) else {
            return;
        };
        let Some(finish) = carried.receive_ended(leg, end) else {
            return;
        };
        if carried.is_starved() && !carried.starved {
            carried.starved = true;
            self.starved.push(key);
        }
        match finish {
            Some(finish) => {
                self.happen(key, |flow, context| flow.finished(leg, finish, context));
            }
            None => self.mark(key),
        }
    }

    /// The send to `leg` is over: so many bytes were taken, or the peer takes none any more.
    pub fn sent(&mut self, key: Key, leg: Leg, taken: Result<usize, ()>) {
        let Some(carried) = self.flows.get_mut(key) else {
            return;
        };
        if let Ok(bytes) = taken {
            carried.flow.stream_mut(leg).sent += bytes as u64;
        }
        if !carried.send_ended(leg, taken.is_ok()) {
            return;
        }
        match taken {
            Ok(0) => self.mark(key),
            Ok(bytes) => self.happen(key, |flow, context| flow.sent(leg, bytes, context)),
            Err(()) => self.happen(key, |flow, context| flow.send_failed(leg, context)),
        }
    }

    /// There are buffers again: receives that ended with [`ReceiveEnd::NoBuffers`] may be armed.
    pub fn buffers_back(&mut self) {
        while let Some(key) = self.starved.pop() {
            if let Some(carried) = self.flows.get_mut(key) {
                carried.starved = false;
                carried.buffers_back();
                self.mark(key);
            }
        }
    }

    /// Ends a flow with last words to its client.
    pub fn stop(&mut self, key: Key, goodbye: Goodbye) {
        self.happen(key, |flow, context| flow.stop(goodbye, context));
    }

    /// Ends a flow without a word, whatever is still to be sent.
    pub fn abort(&mut self, key: Key) {
        self.happen(key, |flow, _| flow.abort());
        if let Some(carried) = self.flows.get_mut(key) {
            carried.abort();
        }
    }

    /// Ends every flow without a word.
    pub fn abort_all(&mut self) {
        for index in 0..self.flows.capacity() as u32 {
            if let Some(key) = self.flows.key_at(index) {
                self.abort(key);
            }
        }
    }

    /// Wakes the flows whose deadline has come.
    pub fn tick(&mut self) {
        if self.now >= self.trimmed.plus_ms(TRIM_MS) {
            self.trimmed = self.now;
            self.pool.trim();
        }
        let soonest_again = self.now.plus_ms(WAKE_STEP_MS);
        while let Some(index) = self.timers.pop_due(self.now) {
            let Some(key) = self.flows.key_at(index) else {
                continue;
            };
            match self.deadline(key) {
                Some(later) if later > self.now => self.timers.arm(index, later),
                Some(_) => {
                    self.happen(key, Flow::woken);
                    self.timers.disarm(index);
                    if let Some(deadline) = self.deadline(key) {
                        self.timers.arm(index, deadline.max(soonest_again));
                    }
                }
                None => {}
            }
        }
    }

    /// When to call [`Self::tick`] at the latest.
    #[must_use]
    pub fn next_wake(&self) -> Option<Moment> {
        self.timers.next()
    }

    /// What to do next. Flows take turns; no flow gets more than one receive and one send a leg in a turn.
    pub fn next_deed(&mut self) -> Option<Deed> {
        loop {
            let (key, turn) = match &mut self.visit {
                Some((key, turn)) => (*key, turn),
                visit => {
                    let key = self.dirty.pop_front()?;
                    if let Some(carried) = self.flows.get_mut(key) {
                        carried.dirty = false;
                    }
                    let (_, turn) = visit.insert((key, Turn::default()));
                    (key, turn)
                }
            };
            let next = self
                .flows
                .get_mut(key)
                .map_or(Next::Nothing, |carried| carried.next(key, turn));
            if let Next::Deed(deed) = next {
                return Some(deed);
            }
            self.visit = None;
            if next == Next::Again {
                self.mark(key);
            }
        }
    }

    /// Whether [`Self::next_deed`] may have something to give.
    #[must_use]
    pub fn has_deeds(&self) -> bool {
        self.visit.is_some() || !self.dirty.is_empty()
    }

    /// The bytes of a [`Deed::Send`]; they stay where they are until it was told how the send ended.
    #[must_use]
    pub fn outgoing(&self, key: Key, leg: Leg) -> &[u8] {
        self.flows
            .get(key)
            .map_or(&[], |carried| carried.outgoing(leg))
    }

    /// What the kernel still held of the socket of `leg` when it was closed.
    pub fn settle(&mut self, key: Key, leg: Leg, rest: Rest) {
        if let Some(carried) = self.flows.get_mut(key) {
            carried.flow.stream_mut(leg).settle(rest);
        }
    }

    /// Forgets a flow after [`Deed::Close`]; says how it ended.
    ///
    /// # Panics
    /// When the flow's close was not given out: its memory could still be the kernel's.
    pub fn remove(&mut self, key: Key) -> Report {
        let closing = self.flows.get(key).is_some_and(Carried::is_closing);
        assert!(closing, "a flow is removed after its close only");
        let carried = self.flows.remove(key).expect("it was there a line ago");
        self.timers.disarm(key.index);
        carried.released(&mut self.pool)
    }

    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Whether the records of `leg` are the kernel's, so that a receive may stop at one that is no data.
    #[must_use]
    pub fn is_kernel(&self, key: Key, leg: Leg) -> bool {
        let carried = self.flows.get(key);
        carried.is_some_and(|carried| carried.flow.is_kernel(leg))
    }

    /// Whether the bytes of a [`Deed::Send`] are the good-bye of a leg whose records are the kernel's.
    #[must_use]
    pub fn says_close(&self, key: Key, leg: Leg) -> bool {
        let carried = self.flows.get(key);
        carried.is_some_and(|carried| carried.flow.says_close(leg))
    }

    /// Whether the flow's bytes may be spliced.
    #[must_use]
    pub fn is_transparent(&self, key: Key) -> bool {
        self.flows
            .get(key)
            .is_some_and(|carried| carried.flow.is_transparent())
    }

    /// Flows that live.
    #[must_use]
    pub fn live(&self) -> usize {
        self.flows.len()
    }

    /// Blocks of memory that flows hold.
    #[cfg(test)]
    pub fn blocks_lent(&self) -> usize {
        self.pool.lent()
    }

    fn deadline(&self, key: Key) -> Option<Moment> {
        let carried = self.flows.get(key)?;
        let goes_on = !carried.is_over();
        goes_on.then(|| carried.flow.deadline()).flatten()
    }

    /// Something happened to a flow.
    fn happen(&mut self, key: Key, event: impl FnOnce(&mut Flow, &mut Context)) {
        let Some(carried) = self.flows.get_mut(key) else {
            return;
        };
        let context = &mut Context {
            pool: &mut self.pool,
            tally: &mut self.tally,
            now: self.now,
        };
        if let Some(deadline) = carried.happen(context, event) {
            self.timers.arm(key.index, deadline);
        }
        self.mark(key);
    }

    /// The flow may want something. One whose turn it is will be asked anyway.
    fn mark(&mut self, key: Key) {
        let its_turn = self.visit.as_ref().is_some_and(|(whose, _)| *whose == key);
        if let Some(carried) = self.flows.get_mut(key)
            && !carried.dirty
            && !its_turn
            && !carried.is_closing()
        {
            carried.dirty = true;
            self.dirty.push_back(key);
        }
    }
}

/// Splicing: a lane of a transparent flow whose bytes never leave the kernel.
impl Machine {
    /// Whether splicing pays for the lane from `leg`: before it began, that it may begin now (nothing of the
    /// lane is under way); afterwards, that it should go on. Ask after `sent` and `receive_ended`, before deeds.
    #[must_use]
    pub fn bulk(&self, key: Key, leg: Leg) -> bool {
        self.flows
            .get(key)
            .is_some_and(|carried| carried.can_splice(leg))
    }

    /// The driver moves the bytes from `leg` to the other from now on: no receive and no send of this lane is given
    /// out. To be called only when [`Self::bulk`] says so; [`Deed::CancelReceive`] asks for its end.
    pub fn begin_splice(&mut self, key: Key, leg: Leg) {
        debug_assert!(
            self.bulk(key, leg),
            "only an idle lane that moves bulk is spliced"
        );
        if let Some(carried) = self.flows.get_mut(key) {
            carried.begin_splice(leg);
        }
    }

    /// Of the spliced lane, `taken` bytes were received, and `bytes` went out to the other peer.
    pub fn spliced(&mut self, key: Key, leg: Leg, taken: usize, bytes: usize) {
        let Some(carried) = self.flows.get_mut(key) else {
            return;
        };
        carried.flow.stream_mut(leg).received += taken as u64;
        carried.flow.stream_mut(leg.other()).sent += bytes as u64;
        if bytes > 0 && carried.spliced(leg, bytes) {
            self.happen(key, |flow, context| {
                flow.spliced(leg, bytes as u64, context)
            });
        }
    }

    /// The spliced lane holds bytes that the other peer does not take.
    pub fn splice_waits(&mut self, key: Key, leg: Leg) {
        if self
            .flows
            .get_mut(key)
            .is_some_and(|carried| carried.is_spliced(leg))
        {
            self.happen(key, |flow, context| flow.splice_waits(leg, context));
        }
    }

    /// The driver stopped splicing from `leg` and its pipe is empty: back to receives and sends.
    pub fn end_splice(&mut self, key: Key, leg: Leg) {
        let ended = self
            .flows
            .get_mut(key)
            .is_some_and(|carried| carried.end_splice(leg));
        if ended {
            self.receive_ended(key, leg, ReceiveEnd::Spent);
        }
    }
}

#[cfg(test)]
mod tests;
