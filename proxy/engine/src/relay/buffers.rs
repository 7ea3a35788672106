//! The receive buffers of one core, lent to the kernel through a provided buffer ring.
//!
//! The kernel takes buffers in the ring's order and names only the first of a bundle, so this keeps a
//! shadow of that order. Buffers go back in the order in which they were taken, when their bytes and
//! those of all before them were looked at ([`Buffers::publish`]): neighbours in memory stay neighbours
//! in the ring, and a bundle is one slice unless it runs over the arena's end.
//!
//! Only as many buffers circulate as are needed: the kernel fills them in turn, and a few that are used
//! again soon stay in the cache.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// The only buffer group of a ring.
pub const GROUP: u16 = 0;

/// How many buffers a core has, and how large they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// A power of two.
    pub count: u16,
    /// So many circulate at least.
    pub count_min: u16,
    pub buffer_bytes: u32,
}

/// The kernel named a buffer that it can't have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the kernel named a receive buffer that it does not have")]
pub struct UnknownBuffer;

/// One arena of buffers and the ring that lends them.
///
/// INVARIANT: a buffer is either in the ring, `order[position & mask]` at the position that
/// `positions` tells, or taken by the kernel and not reported yet, or in `spent`: those circulate, and
/// their positions are the last ones. Or it is in `reserve`.
#[derive(Debug)]
pub struct Buffers {
    ring: Mapping,
    arena: Mapping,
    shape: Shape,
    /// Which buffer was put at a position, by the position's low bits.
    order: Box<[u16]>,
    /// The position at which a buffer was put last, by buffer.
    positions: Box<[u16]>,
    /// The next position to fill; positions wrap around like the kernel's.
    tail: u16,
    /// Buffers that were taken and looked at, and did not go back.
    spent: Vec<u16>,
    /// Buffers that circulate.
    circulating: u16,
    reserve: Vec<u16>,
    /// Most buffers that were spent at once since the last trim.
    peak: u16,
    /// Buffers that are to leave the circulation.
    surplus: u16,
}

impl Shape {
    fn mask(self) -> u16 {
        self.count - 1
    }

    fn arena_bytes(self) -> usize {
        usize::from(self.count) * self.buffer_bytes as usize
    }
}

impl Buffers {
    /// Maps the arena; its pages are committed when the kernel first writes to them.
    ///
    /// # Errors
    /// When the system has no memory.
    pub fn new(shape: Shape) -> io::Result<Self> {
        assert!(
            shape.count.is_power_of_two() && shape.count <= 1 << 15,
            "positions wrap at 2^16 and must tell a full ring from an empty one"
        );
        let mut buffers = Self {
            ring: Mapping::new(usize::from(shape.count) * size_of::<BufRingEntry>())?,
            arena: Mapping::new(shape.arena_bytes())?,
            shape,
            order: vec![0; usize::from(shape.count)].into_boxed_slice(),
            positions: vec![0; usize::from(shape.count)].into_boxed_slice(),
            tail: 0,
            spent: Vec::with_capacity(usize::from(shape.count)),
            circulating: 0,
            reserve: (0..shape.count).collect(),
            peak: 0,
            surplus: 0,
        };
        buffers.circulate(shape.count_min);
        Ok(buffers)
    }

    /// Lends the buffers to a ring, which must be closed before `self` is dropped.
    ///
    /// # Errors
    /// When the kernel refuses to lock a page for the ring.
    ///
    /// # Safety
    /// `self` must outlive every receive that the ring was given.
    pub unsafe fn register(&self, submitter: &Submitter<'_>) -> io::Result<()> {
        // SAFETY: the mapping is page-aligned, holds `count` entries, all filled by `new`, and lives
        // as long as the caller promises.
        unsafe {
            submitter.register_buf_ring_with_flags(
                self.ring.start.as_ptr() as u64,
                self.shape.count,
                GROUP,
                0,
            )
        }
    }

    /// Gives the `bytes` that one completion brought, beginning in buffer `first`, in as few slices as
    /// possible; with 0 bytes the buffer was taken and stayed empty.
    ///
    /// # Errors
    /// When the completion can't be true.
    pub fn taken(
        &mut self,
        first: u16,
        bytes: usize,
        mut give: impl FnMut(&mut [u8]),
    ) -> Result<(), UnknownBuffer> {
        let mut position = *self
            .positions
            .get(usize::from(first))
            .ok_or(UnknownBuffer)?;
        let mut left = bytes;
        let mut run = 0..0;
        loop {
            let buffer = self.order[usize::from(position & self.shape.mask())];
            if self.spent.len() == usize::from(self.circulating) {
                return Err(UnknownBuffer);
            }
            self.spent.push(buffer);
            let filled = left.min(self.filled_max(position));
            let start = usize::from(buffer) * self.shape.buffer_bytes as usize;
            if run.end != start && !run.is_empty() {
                give(self.arena.slice(run.clone()));
                run = start..start;
            } else if run.is_empty() {
                run = start..start;
            }
            run.end = start + filled;
            left -= filled;
            if left == 0 {
                break;
            }
            position = position.wrapping_add(1);
        }
        if !run.is_empty() {
            give(self.arena.slice(run));
        }
        Ok(())
    }

    /// Puts what was looked at back into the ring. Its entries are used again then, so the order is kept:
    /// a completion that comes later never needs one that was filled anew.
    pub fn publish(&mut self) {
        if self.spent.is_empty() {
            return;
        }
        let mut spent = std::mem::take(&mut self.spent);
        self.peak = self.peak.max(spent.len() as u16);
        let oldest = self.tail.wrapping_sub(self.circulating);
        // Completions may be reported in another order than buffers were taken in.
        spent.sort_unstable_by_key(|buffer| {
            self.positions[usize::from(*buffer)].wrapping_sub(oldest)
        });
        // One that was taken earlier and not looked at yet keeps its entry, and those behind it wait.
        let in_order = |(place, buffer): &(usize, &u16)| {
            let position = self.positions[usize::from(**buffer)];
            usize::from(position.wrapping_sub(oldest)) == *place
        };
        let complete = spent.iter().enumerate().take_while(in_order).count();
        for buffer in spent.drain(..complete) {
            if self.surplus > 0 {
                self.surplus -= 1;
                self.circulating -= 1;
                self.reserve.push(buffer);
            } else {
                self.put(buffer);
            }
        }
        self.spent = spent;
        self.lend();
    }

    /// A receive found no buffer: twice as many circulate from now on, as long as there are more.
    pub fn grow(&mut self) {
        self.surplus = 0;
        self.circulate(self.circulating);
    }

    /// Half of the buffers leave the circulation if so many were not needed since the last time.
    pub fn trim(&mut self) {
        let half = self.circulating / 2;
        if self.peak <= half && half >= self.shape.count_min && self.surplus == 0 {
            self.surplus = half;
        }
        self.peak = 0;
    }

    fn circulate(&mut self, more: u16) {
        // The lowest go first, so that neighbours in memory mostly circulate as neighbours.
        self.reserve
            .sort_unstable_by_key(|buffer| std::cmp::Reverse(*buffer));
        for _ in 0..more {
            let Some(buffer) = self.reserve.pop() else {
                break;
            };
            self.circulating += 1;
            self.put(buffer);
        }
        self.lend();
    }

    /// Shows the kernel what was put.
    fn lend(&mut self) {
        // SAFETY: the ring's first entry lies within the mapping.
        let tail = unsafe { BufRingEntry::tail(self.entry(0)) };
        // SAFETY: the tail is an aligned u16 of the mapping that only we write and the kernel reads.
        unsafe { AtomicU16::from_ptr(tail.cast_mut()) }.store(self.tail, Ordering::Release);
    }

    fn put(&mut self, buffer: u16) {
        let slot = self.tail & self.shape.mask();
        let start = usize::from(buffer) * self.shape.buffer_bytes as usize;
        let address = self.arena.start.as_ptr() as u64 + start as u64;
        // SAFETY: the slot lies within the mapping; it is outside what the kernel may look at (from
        // its head to the published tail), because a taken buffer has left it.
        let entry = unsafe { &mut *self.entry(slot) };
        entry.set_addr(address);
        entry.set_len(self.shape.buffer_bytes);
        entry.set_bid(buffer);
        self.order[usize::from(slot)] = buffer;
        self.positions[usize::from(buffer)] = self.tail;
        self.tail = self.tail.wrapping_add(1);
    }

    /// How much the buffer at a position took at most: the kernel shortens the entry's length when a
    /// capped receive needs less.
    fn filled_max(&self, position: u16) -> usize {
        // SAFETY: the slot lies within the mapping, and the kernel is done with an entry whose buffer
        // it has reported.
        let len = unsafe { (*self.entry(position & self.shape.mask())).len() };
        // Never 0, so that every step makes progress.
        (len.clamp(1, self.shape.buffer_bytes)) as usize
    }

    fn entry(&self, slot: u16) -> *mut BufRingEntry {
        debug_assert!(slot < self.shape.count, "slots are masked");
        // SAFETY: the mapping holds `count` entries.
        unsafe {
            self.ring
                .start
                .as_ptr()
                .cast::<BufRingEntry>()
                .add(usize::from(slot))
        }
    }
}

/// Zeroed, page-aligned memory from the system.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is plain memory, owned by this value alone.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(bytes: usize) -> io::Result<Self> {
        // SAFETY: an anonymous private mapping at an address that the kernel picks touches no memory
        // of ours.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("mmap gives no mapping at address 0");
        Ok(Self { start, bytes })
    }

    fn slice(&mut self, range: std::ops::Range<usize>) -> &mut [u8] {
        assert!(
            range.start <= range.end && range.end <= self.bytes,
            "runs lie in the arena"
        );
        // SAFETY: the range was just checked; the memory is initialised (zeroed by the kernel), and the
        // kernel does not write to buffers that it has reported and that were not put back.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(range.start), range.len()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: start and length are those of a mapping that `new` made and nobody unmapped.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
#[path = "buffers_tests.rs"]
mod tests;
