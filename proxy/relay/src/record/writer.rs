//! Sealing: plaintext is gathered where its record is sealed.

use std::ops::Range;

use super::cipher::TAG_BYTES;
use super::handshake::KEY_UPDATE_NOT_REQUESTED;
use super::header::{Content, HEADER_BYTES};
use super::protection::{EXPLICIT_NONCE_BYTES, INNER_CONTENT_BYTES, Protection, Version};
use super::{PLAINTEXT_BYTES_MAX, RecordError, Records, alert};
use crate::memory::{Pool, Queue};

/// Bytes by which a record is longer than its plaintext, at most.
const RECORD_OVERHEAD_MAX: usize = HEADER_BYTES + EXPLICIT_NONCE_BYTES + TAG_BYTES;

/// Bytes of a key update or of an alert, sealed.
const REPLY_BYTES_MAX: usize = RECORD_OVERHEAD_MAX + KEY_UPDATE_NOT_REQUESTED.len();

/// Bytes by which a record makes its plaintext longer, at most, together with the key update or
/// the reply that has to go out before it.
pub const SEAL_OVERHEAD_MAX: usize = RECORD_OVERHEAD_MAX + REPLY_BYTES_MAX;

const _: () = assert!(EXPLICIT_NONCE_BYTES >= INNER_CONTENT_BYTES);

/// Bytes that `plaintext` bytes take at most when one [`Writer`] seals them, with what must be said
/// before them; for 0, what [`Records::seal_replies`] or an alert takes.
#[must_use]
pub const fn sealed_len(plaintext: usize) -> usize {
    let records = plaintext.div_ceil(PLAINTEXT_BYTES_MAX);
    plaintext + SEAL_OVERHEAD_MAX * if records == 0 { 1 } else { records }
}

/// Gathers application data in the free end of a queue and seals it there, record by record.
/// What was pushed since the last full record goes out with [`Self::finish`] only.
#[must_use = "what was pushed is sealed by `finish`"]
pub struct Writer<'a> {
    records: &'a mut Records,
    queue: &'a mut Queue,
    pool: &'a mut Pool,
    /// Plaintext bytes in the open record; 0 = none is open.
    gathered: usize,
}

impl Records {
    /// Begins to write application data behind what `queue` holds. Replies that are due go first
    /// (RFC 8446 §4.6.3).
    ///
    /// # Errors
    /// [`RecordError::NoRoom`] when replies do not fit; [`RecordError::Ended`] after
    /// [`Self::seal_close_notify`].
    pub fn writer<'a>(
        &'a mut self,
        queue: &'a mut Queue,
        pool: &'a mut Pool,
    ) -> Result<Writer<'a>, RecordError> {
        if self.has_ended {
            return Err(RecordError::Ended);
        }
        self.seal_replies(queue, pool)?;
        Ok(Writer {
            records: self,
            queue,
            pool,
            gathered: 0,
        })
    }

    /// Says what is to be said to the peer, if anything is.
    ///
    /// # Errors
    /// [`RecordError::NoRoom`] when it does not fit in the queue.
    pub fn seal_replies(&mut self, queue: &mut Queue, pool: &mut Pool) -> Result<(), RecordError> {
        if self.has_ended {
            return Ok(());
        }
        if self.owes_no_renegotiation {
            let warning = [alert::WARNING, alert::NO_RENEGOTIATION];
            self.seal_message(Content::Alert, &warning, queue, pool)?;
            self.owes_no_renegotiation = false;
        }
        if self.owes_key_update {
            self.update_key(queue, pool)?;
        }
        Ok(())
    }

    /// Tells the peer that nothing more comes; once is enough. Nothing can be sealed after it.
    ///
    /// # Errors
    /// [`RecordError::NoRoom`] when it does not fit in the queue.
    pub fn seal_close_notify(
        &mut self,
        queue: &mut Queue,
        pool: &mut Pool,
    ) -> Result<(), RecordError> {
        self.seal_last_words([alert::WARNING, alert::CLOSE_NOTIFY], queue, pool)
    }

    /// Tells the peer why the connection can't go on, unless it said so itself. Nothing can be sealed
    /// after it.
    ///
    /// # Errors
    /// [`RecordError::NoRoom`] when it does not fit in the queue.
    pub fn seal_failure(
        &mut self,
        error: &RecordError,
        queue: &mut Queue,
        pool: &mut Pool,
    ) -> Result<(), RecordError> {
        match error.alert() {
            Some(description) => self.seal_last_words([alert::FATAL, description], queue, pool),
            None => Ok(()),
        }
    }

    fn seal_last_words(
        &mut self,
        alert: [u8; 2],
        queue: &mut Queue,
        pool: &mut Pool,
    ) -> Result<(), RecordError> {
        if self.has_ended {
            return Ok(());
        }
        self.seal_message(Content::Alert, &alert, queue, pool)?;
        self.has_ended = true;
        Ok(())
    }

    /// [RFC 8446 §4.6.3] Announces new keys under the old one and goes on with the new one. It answers
    /// every request that is open.
    pub(super) fn update_key(
        &mut self,
        queue: &mut Queue,
        pool: &mut Pool,
    ) -> Result<(), RecordError> {
        let message = KEY_UPDATE_NOT_REQUESTED;
        self.seal_message(Content::Handshake, &message, queue, pool)?;
        self.owes_key_update = false;
        self.tx = Protection::new(self.version, self.schedule.next_tx()?)?;
        Ok(())
    }

    fn seal_message(
        &mut self,
        content: Content,
        message: &[u8],
        queue: &mut Queue,
        pool: &mut Pool,
    ) -> Result<(), RecordError> {
        if queue.room() < REPLY_BYTES_MAX {
            return Err(RecordError::NoRoom);
        }
        let space = queue.space(pool);
        space[self.tx.payload_start()..][..message.len()].copy_from_slice(message);
        let sealed = self.tx.seal(content, space, message.len())?;
        queue.commit(sealed);
        Ok(())
    }

    /// [RFC 8446 §5.5] Sees to it that the key may seal one record more. The last record that a key
    /// of TLS 1.3 may seal announces its successor.
    fn spare_key(&mut self, queue: &mut Queue, pool: &mut Pool) -> Result<(), RecordError> {
        let sealed = self.tx.sequence();
        match self.version {
            Version::Tls12 if sealed >= self.limit => Err(RecordError::Exhausted),
            // A key that has sealed nothing yet is not made better by another.
            Version::Tls13 if sealed > 0 && sealed + 1 >= self.limit => {
                self.update_key(queue, pool)
            }
            Version::Tls12 | Version::Tls13 => Ok(()),
        }
    }
}

impl Writer<'_> {
    /// Appends application data; every record that gets full is sealed.
    ///
    /// # Errors
    /// [`RecordError::NoRoom`] when the queue is shorter than [`sealed_len`] says;
    /// [`RecordError::Exhausted`] when a TLS 1.2 key may not seal more.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), RecordError> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(self.begin(bytes.len())?);
            let at = self.records.tx.payload_start() + self.gathered;
            self.queue.space(self.pool)[at..][..now.len()].copy_from_slice(now);
            self.gathered += now.len();
            bytes = later;
            if self.gathered == PLAINTEXT_BYTES_MAX {
                self.seal()?;
            }
        }
        Ok(())
    }

    /// As [`Self::push`] of `place[bytes]`, but what fills a record is sealed from where it lies. What
    /// `place` holds is the same before and after.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn push_from(
        &mut self,
        place: &mut [u8],
        mut bytes: Range<usize>,
    ) -> Result<(), RecordError> {
        while self.gathered + bytes.len() >= PLAINTEXT_BYTES_MAX {
            let taken = self.begin(bytes.len())?;
            if bytes.start + taken == place.len() {
                break;
            }
            let now = bytes.start..bytes.start + taken;
            bytes.start += taken;
            let length = std::mem::take(&mut self.gathered);
            let space = self.queue.space(self.pool);
            let content = Content::ApplicationData;
            let sealed = self
                .records
                .tx
                .seal_joined(content, space, length, place, now)?;
            self.queue.commit(sealed);
        }
        self.push(&place[bytes])
    }

    /// How many of `bytes` the open record takes, or a new one; there is room for them.
    fn begin(&mut self, bytes: usize) -> Result<usize, RecordError> {
        if self.gathered == 0 {
            self.records.spare_key(self.queue, self.pool)?;
        }
        let tx = &self.records.tx;
        let taken = bytes.min(PLAINTEXT_BYTES_MAX - self.gathered);
        let end = tx.payload_start() + self.gathered + taken + tx.trailer_bytes();
        match end <= self.queue.room() {
            true => Ok(taken),
            false => Err(RecordError::NoRoom),
        }
    }

    /// Seals what was gathered.
    ///
    /// # Errors
    /// [`RecordError::Sealing`]
    pub fn finish(mut self) -> Result<(), RecordError> {
        if self.gathered > 0 {
            self.seal()?;
        }
        Ok(())
    }

    fn seal(&mut self) -> Result<(), RecordError> {
        let space = self.queue.space(self.pool);
        let length = std::mem::take(&mut self.gathered);
        let sealed = self
            .records
            .tx
            .seal(Content::ApplicationData, space, length)?;
        self.queue.commit(sealed);
        Ok(())
    }
}
