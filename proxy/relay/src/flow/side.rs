//! One leg of a flow: its line, what came and can't be sent on yet, what is to be sent, and how far it has ended.

use std::ops::Range;

use crate::flow::{Finish, Line};
use crate::memory::{BLOCK_BYTES, Pool, Queue, RECEIVE_BYTES_MAX};
use crate::record::{
    PLAINTEXT_BYTES_MAX, RECORD_BYTES_MAX, RecordError, SEAL_OVERHEAD_MAX, Writer, sealed_len,
};
use crate::{Context, Moment};
use postern_wire::websocket::{CONTROL_BYTES_MAX, ControlFrame};

/// A receive from one leg is wanted only while no more than this of the other's outgoing block is used.
const LOW_BYTES: usize = 4 * 1024;

/// Kept free of data, so that last words always have room.
const LAST_WORDS_BYTES: usize = 512;

/// [RFC 6455 §5.2] Longest header in front of a batch of data.
const FRAME_HEADER_BYTES_MAX: usize = 10;

const _: () = assert!(
    sealed_len(2 + CONTROL_BYTES_MAX) + sealed_len(0) <= LAST_WORDS_BYTES,
    "a close frame and a TLS close fit into what is kept for them"
);
const _: () = assert!(
    capacity(BLOCK_BYTES - LOW_BYTES) >= RECEIVE_BYTES_MAX + RECORD_BYTES_MAX,
    "what one receive brings and completes can be sent on at once, when it comes at once"
);
const _: () = assert!(
    RECEIVE_BYTES_MAX + RECORD_BYTES_MAX <= BLOCK_BYTES,
    "what one receive brings can be kept behind an unfinished record, when nothing can be sent on"
);
const _: () = assert!(
    capacity(BLOCK_BYTES - LOW_BYTES) >= PLAINTEXT_BYTES_MAX,
    "only a block that is used beyond the mark of a wanted receive holds a record up"
);

/// Plaintext bytes that can be sent on through `room` bytes of a block, with a frame header before them.
const fn capacity(room: usize) -> usize {
    let record = PLAINTEXT_BYTES_MAX + SEAL_OVERHEAD_MAX;
    let room = room.saturating_sub(LAST_WORDS_BYTES);
    let rest = (room % record).saturating_sub(SEAL_OVERHEAD_MAX);
    (room / record * PLAINTEXT_BYTES_MAX + rest).saturating_sub(FRAME_HEADER_BYTES_MAX)
}

/// How far a leg's sending side, which we receive from, has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    Open,
    /// The end is known; what came before it is not sent on yet.
    Finishing(Finish),
    Finished,
}

/// How far our sending side to a leg has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    Open,
    /// It ends after what is queued; nothing more is queued.
    Closing,
    Shut,
    /// What is queued can't be sent.
    Lost,
}

/// Payload that is queued or was carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) bytes: u64,
    pub(super) messages: u64,
}

pub(super) struct Side {
    pub(super) line: Line,
    /// What came and is not sent on: part of a record, or what the other leg has no room for.
    /// INVARIANT: a plain line's is empty unless `is_blocked`.
    pub(super) inbox: Queue,
    /// What is to be sent. A send may be looking at it: it is filled at its end and never moved.
    pub(super) outbox: Queue,
    pub(super) input: Input,
    pub(super) output: Output,
    /// Nothing that this leg still sends is sent on.
    pub(super) has_said_all: bool,
    /// Its TLS has said that nothing more comes, and not to a record layer of ours.
    pub(super) has_said_close: bool,
    /// The inbox holds what could be sent on if the other leg had room.
    pub(super) is_blocked: bool,
    /// Since when the inbox does.
    pub(super) blocked_since: Option<Moment>,
    /// Since when the outbox waits for the peer to take a byte.
    pub(super) waits_since: Option<Moment>,
    /// When the oldest payload in the outbox came.
    arrived: Option<Moment>,
    /// Payload in the outbox.
    load: Load,
}

impl Side {
    pub(super) fn new(line: Line) -> Self {
        Self {
            line,
            inbox: Queue::default(),
            outbox: Queue::default(),
            input: Input::Open,
            output: Output::Open,
            has_said_all: false,
            has_said_close: false,
            is_blocked: false,
            blocked_since: None,
            waits_since: None,
            arrived: None,
            load: Load::default(),
        }
    }

    /// Whether what comes needs no opening by us.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.line, Line::Plain | Line::Kernel(_))
    }

    /// Whether nothing can be missing of what this leg has sent until its end.
    pub(super) fn has_ended_whole(&self) -> bool {
        match &self.line {
            Line::Plain => true,
            Line::Tls(records) => records.is_closed() || self.has_said_close,
            Line::Kernel(_) => self.has_said_close,
        }
    }

    /// Payload bytes that can be queued now, in one batch.
    pub(super) fn capacity(&self) -> usize {
        capacity(self.outbox.room())
    }

    /// Whether all that a receive from the other leg can bring may come.
    pub(super) fn takes_a_receive(&self) -> bool {
        self.output == Output::Open && self.outbox.room() >= BLOCK_BYTES - LOW_BYTES
    }

    /// Nothing is left that could still be sent.
    pub(super) fn has_nothing_to_send(&self) -> bool {
        self.outbox.is_empty() || self.output == Output::Lost
    }

    /// Our sending side is ended, one way or another.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.output, Output::Shut | Output::Lost)
    }

    /// Keeps what came behind what is kept; whether there was room.
    #[must_use]
    pub(super) fn keep(&mut self, bytes: &[u8], pool: &mut Pool) -> bool {
        self.inbox.push_moving(bytes, pool)
    }

    /// Where payload for this leg goes.
    pub(super) fn outlet<'a>(&'a mut self, pool: &'a mut Pool) -> Result<Outlet<'a>, RecordError> {
        Ok(match &mut self.line {
            Line::Plain | Line::Kernel(_) => Outlet::Plain(&mut self.outbox, pool),
            Line::Tls(records) => Outlet::Sealed(records.writer(&mut self.outbox, pool)?),
        })
    }

    /// Payload was queued, which `arrived` then.
    pub(super) fn loaded(&mut self, load: Load, arrived: Moment, now: Moment) {
        self.load.bytes += load.bytes;
        self.load.messages += load.messages;
        if load.bytes > 0 {
            self.arrived.get_or_insert(arrived);
        }
        self.queued(now);
    }

    /// Something may have been queued.
    pub(super) fn queued(&mut self, now: Moment) {
        if !self.outbox.is_empty() {
            self.waits_since.get_or_insert(now);
        }
    }

    /// The kernel took bytes of the outbox.
    pub(super) fn sent(&mut self, bytes: usize, cx: &mut Context<'_>) {
        debug_assert!(
            bytes <= self.outbox.len(),
            "no more is sent than was given out"
        );
        self.outbox.consume(bytes.min(self.outbox.len()), cx.pool);
        if self.outbox.is_empty() {
            self.waits_since = None;
        } else if bytes > 0 && self.waits_since.is_some() {
            self.waits_since = Some(cx.now);
        }
    }

    /// The payload that left with the outbox's last byte, and when the oldest of it came.
    pub(super) fn unload(&mut self) -> (Load, Option<Moment>) {
        (std::mem::take(&mut self.load), self.arrived.take())
    }

    /// A whole control frame is queued, if our sending side is open and there is room beside what is
    /// kept for last words.
    pub(super) fn speak(&mut self, frame: &ControlFrame, cx: &mut Context<'_>) -> bool {
        let has_room = self.output == Output::Open && self.capacity() >= frame.as_bytes().len();
        has_room && self.say(frame, cx)
    }

    /// A whole control frame is queued; whether it could be.
    pub(super) fn say(&mut self, frame: &ControlFrame, cx: &mut Context<'_>) -> bool {
        let said = self.outlet(cx.pool).and_then(|mut outlet| {
            outlet.push(frame.as_bytes())?;
            outlet.finish()
        });
        self.queued(cx.now);
        said.is_ok()
    }

    /// Queues what the record layer has to answer, when there is room.
    pub(super) fn answer(&mut self, cx: &mut Context<'_>) {
        let has_room = self.output == Output::Open && self.capacity() > 0;
        let Line::Tls(records) = &mut self.line else {
            return;
        };
        if has_room && records.has_replies() {
            // Without keys to go on with, the next data finds the line unusable and ends the flow.
            let _ = records.seal_replies(&mut self.outbox, cx.pool);
            self.queued(cx.now);
        }
    }

    /// Ends our sending side after what is queued; politely when the peer may believe that it has heard
    /// everything.
    pub(super) fn farewell(&mut self, is_polite: bool, cx: &mut Context<'_>) {
        if self.output != Output::Open {
            return;
        }
        self.output = Output::Closing;
        match &mut self.line {
            Line::Tls(records) if is_polite => {
                // The peer that misses it sees an end without a good-bye, and that is true then.
                let _ = records.seal_close_notify(&mut self.outbox, cx.pool);
                self.queued(cx.now);
            }
            Line::Kernel(kernel) if is_polite => kernel.owe_close(),
            _ => {}
        }
    }

    /// Ends our sending side by telling the peer what is wrong with its records.
    pub(super) fn refuse(&mut self, error: &RecordError, cx: &mut Context<'_>) {
        if let (Output::Open, Line::Tls(records)) = (self.output, &mut self.line) {
            // An alert is a courtesy.
            let _ = records.seal_failure(error, &mut self.outbox, cx.pool);
            self.queued(cx.now);
        }
        self.farewell(false, cx);
    }

    /// Nothing more can be sent. The bytes stay: a send may still be looking at them.
    pub(super) fn lose(&mut self) {
        self.output = Output::Lost;
        self.waits_since = None;
        self.unload();
    }

    /// Forgets what came.
    pub(super) fn drop_input(&mut self, pool: &mut Pool) {
        self.inbox.clear(pool);
        self.is_blocked = false;
        self.blocked_since = None;
    }
}

/// The end of an outbox, as payload is put there.
pub(super) enum Outlet<'a> {
    Plain(&'a mut Queue, &'a mut Pool),
    Sealed(Writer<'a>),
}

impl Outlet<'_> {
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), RecordError> {
        match self {
            Self::Plain(queue, pool) => queue
                .push(bytes, pool)
                .then_some(())
                .ok_or(RecordError::NoRoom),
            Self::Sealed(writer) => writer.push(bytes),
        }
    }

    /// As [`Self::push`] of `place[bytes]`; what `place` holds is the same before and after.
    pub(super) fn push_from(
        &mut self,
        place: &mut [u8],
        bytes: Range<usize>,
    ) -> Result<(), RecordError> {
        match self {
            Self::Plain(..) => self.push(&place[bytes]),
            Self::Sealed(writer) => writer.push_from(place, bytes),
        }
    }

    pub(super) fn finish(self) -> Result<(), RecordError> {
        match self {
            Self::Plain(..) => Ok(()),
            Self::Sealed(writer) => writer.finish(),
        }
    }
}
