//! What can be sent on at once: where its pieces lie, after the records around them were opened.

use std::ops::Range;

use super::Line;
use super::side::Side;
use crate::memory::Pool;
use crate::record::{Opened, PLAINTEXT_BYTES_MAX, RecordError, Records};

/// Pieces of one batch; more make a further batch.
const PIECES_MAX: usize = 32;

/// Payload in the leg's inbox or in the bytes that just came.
#[derive(Debug, Clone, Copy, Default)]
struct Piece {
    is_kept: bool,
    start: usize,
    end: usize,
}

/// Why nothing follows a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    /// The peer has said that it sends nothing more.
    Closed,
    Broken(RecordError),
}

#[derive(Debug)]
pub(super) struct Batch {
    pieces: [Piece; PIECES_MAX],
    count: usize,
    /// Payload bytes of all pieces.
    pub(super) bytes: usize,
    /// Bytes of the inbox that are done with when the pieces are.
    pub(super) kept_done: usize,
    /// Bytes of those that came that are done with then, or kept.
    pub(super) came_done: usize,
    /// There is more that can be opened, but not in this batch.
    pub(super) has_more: bool,
    /// There is more, and no room for it.
    pub(super) is_blocked: bool,
    pub(super) stop: Option<Stop>,
}

impl Batch {
    fn new() -> Self {
        Self {
            pieces: [Piece::default(); PIECES_MAX],
            count: 0,
            bytes: 0,
            kept_done: 0,
            came_done: 0,
            has_more: false,
            is_blocked: false,
            stop: None,
        }
    }

    /// All of the bytes that came, which need no opening.
    pub(super) fn whole(came: &[u8]) -> Self {
        let mut batch = Self::new();
        batch.add(false, 0..came.len());
        batch.came_done = came.len();
        batch
    }

    /// Opens as much of what `side` keeps and of what `came` as makes `budget` bytes of payload. An
    /// unfinished record at the end of what came is kept.
    pub(super) fn gather(side: &mut Side, came: &mut [u8], budget: usize, pool: &mut Pool) -> Self {
        let mut batch = Self::new();
        if side.is_plain() {
            batch.gather_plain(side.inbox.len(), came.len(), budget);
        } else {
            batch.gather_records(side, came, budget, pool);
        }
        batch
    }

    fn gather_plain(&mut self, kept: usize, came: usize, budget: usize) {
        self.kept_done = kept.min(budget);
        self.came_done = came.min(budget - self.kept_done);
        self.add(true, 0..self.kept_done);
        self.add(false, 0..self.came_done);
        self.is_blocked = self.kept_done < kept || self.came_done < came;
    }

    fn gather_records(&mut self, side: &mut Side, came: &mut [u8], budget: usize, pool: &mut Pool) {
        loop {
            let is_kept = self.kept_done < side.inbox.len();
            if !is_kept && self.came_done == came.len() {
                return;
            }
            if self.count == PIECES_MAX {
                self.has_more = true;
                return;
            }
            let Line::Tls(records) = &mut side.line else {
                return;
            };
            let rest = match is_kept {
                true => &mut side.inbox.filled_mut()[self.kept_done..],
                false => &mut came[self.came_done..],
            };
            // What is opened must be sent on: it can't be opened again.
            if budget - self.bytes < rest.len().min(PLAINTEXT_BYTES_MAX) {
                self.is_blocked = true;
                return;
            }
            let there = rest.len();
            let Some(missing) = self.open(records, rest, is_kept) else {
                if self.stop.is_some() {
                    return;
                }
                continue;
            };
            // Only what completes the kept record joins it; the rest is opened where it lies.
            let taken = match is_kept {
                true => missing.min(came.len() - self.came_done),
                false => there,
            };
            if !side.keep(&came[self.came_done..][..taken], pool) {
                self.stop = Some(Stop::Broken(RecordError::NoRoom));
                return;
            }
            self.came_done += taken;
            if !is_kept || taken == 0 {
                return;
            }
        }
    }

    /// Opens the record at the start of `rest`; how many bytes it still needs, if any.
    fn open(&mut self, records: &mut Records, rest: &mut [u8], is_kept: bool) -> Option<usize> {
        let there = rest.len();
        let start = match is_kept {
            true => self.kept_done,
            false => self.came_done,
        };
        let consumed = match records.open(rest) {
            Ok(Opened::Incomplete { needed }) => return Some(needed.saturating_sub(there).max(1)),
            Ok(Opened::Data { payload, consumed }) => {
                self.add(is_kept, start + payload.start..start + payload.end);
                consumed
            }
            Ok(Opened::Quiet { consumed }) => consumed,
            Ok(Opened::CloseNotify { consumed }) => {
                self.stop = Some(Stop::Closed);
                consumed
            }
            Err(error) => {
                self.stop = Some(Stop::Broken(error));
                there
            }
        };
        match is_kept {
            true => self.kept_done += consumed,
            false => self.came_done += consumed,
        }
        None
    }

    fn add(&mut self, is_kept: bool, range: Range<usize>) {
        if !range.is_empty() {
            self.bytes += range.len();
            self.pieces[self.count] = Piece {
                is_kept,
                start: range.start,
                end: range.end,
            };
            self.count += 1;
        }
    }

    /// Gives every piece to `take`, in order: the bytes it lies in, and where.
    pub(super) fn each<E>(
        &self,
        kept: &mut [u8],
        came: &mut [u8],
        mut take: impl FnMut(&mut [u8], Range<usize>) -> Result<(), E>,
    ) -> Result<(), E> {
        for piece in &self.pieces[..self.count] {
            let place = match piece.is_kept {
                true => &mut *kept,
                false => &mut *came,
            };
            take(place, piece.start..piece.end)?;
        }
        Ok(())
    }
}
