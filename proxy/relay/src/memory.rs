//! Blocks of memory that flows borrow while bytes are under way: an idle flow holds none.

/// Bytes that one receive, from its arming to its end, may bring: a driver arms a receive only when
/// a flow wants bytes, and never lets it bring more than this.
pub const RECEIVE_BYTES_MAX: usize = 256 * 1024;

/// Bytes of a block: what one receive brings, a TLS record that was left unfinished before it, the
/// framing of both, and the little that may still stand in front of them.
pub const BLOCK_BYTES: usize = RECEIVE_BYTES_MAX + 24 * 1024;

/// What the queues of one flow may hold: in and out, for each of its two legs.
pub const FLOW_BYTES_MAX: usize = 4 * BLOCK_BYTES;

/// Free blocks that a pool keeps; more are given back to the system. As many flows as this may move
/// bytes in the same moment without anything being allocated.
const FREE_BLOCKS_MAX: usize = 1024;

/// Free blocks that [`Pool::trim`] leaves.
const FREE_BLOCKS_MIN: usize = 16;

/// Lends blocks to the flows of one core. The last one given back goes out first: it is still in the cache.
#[derive(Debug, Default)]
pub struct Pool {
    free: Vec<Box<[u8]>>,
    lent: usize,
    /// Blocks that were free all the time since the last trim.
    spare: usize,
}

impl Pool {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Blocks that are lent out now.
    #[must_use]
    pub fn lent(&self) -> usize {
        self.lent
    }

    /// Gives half of the blocks that nobody has needed since the last time back to the system.
    pub fn trim(&mut self) {
        let surplus = self.spare.saturating_sub(FREE_BLOCKS_MIN).div_ceil(2);
        self.free.truncate(self.free.len() - surplus);
        self.spare = self.free.len();
    }

    fn take(&mut self) -> Box<[u8]> {
        self.lent += 1;
        let block = self.free.pop();
        self.spare = self.spare.min(self.free.len());
        block.unwrap_or_else(|| vec![0; BLOCK_BYTES].into_boxed_slice())
    }

    fn give_back(&mut self, block: Box<[u8]>) {
        self.lent -= 1;
        if self.free.len() < FREE_BLOCKS_MAX {
            self.free.push(block);
        }
    }
}

/// A queue of bytes in at most one block: filled at its end, taken from its start, nothing moved while
/// somebody may look at it.
#[derive(Debug, Default)]
pub struct Queue {
    block: Option<Box<[u8]>>,
    start: usize,
    end: usize,
}

impl Queue {
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes that can still be appended before everything was taken.
    #[must_use]
    pub fn room(&self) -> usize {
        BLOCK_BYTES - self.end
    }

    #[must_use]
    pub fn filled(&self) -> &[u8] {
        self.block
            .as_deref()
            .map_or(&[], |block| &block[self.start..self.end])
    }

    pub fn filled_mut(&mut self) -> &mut [u8] {
        let range = self.start..self.end;
        self.block
            .as_deref_mut()
            .map_or(&mut [], |block| &mut block[range])
    }

    /// The free end of the block, [`Self::room`] long; what is written there counts after [`Self::commit`].
    pub fn space(&mut self, pool: &mut Pool) -> &mut [u8] {
        let end = self.end;
        &mut self.block.get_or_insert_with(|| pool.take())[end..]
    }

    /// The first `bytes` of [`Self::space`] are filled now.
    pub fn commit(&mut self, bytes: usize) {
        self.end += bytes;
        debug_assert!(
            self.end <= BLOCK_BYTES,
            "no more is committed than there was space"
        );
    }

    /// Appends all of `bytes`; whether there was room.
    #[must_use]
    pub fn push(&mut self, bytes: &[u8], pool: &mut Pool) -> bool {
        if bytes.is_empty() {
            return true;
        }
        if bytes.len() > self.room() {
            return false;
        }
        self.space(pool)[..bytes.len()].copy_from_slice(bytes);
        self.commit(bytes.len());
        true
    }

    /// Appends all of `bytes`, moving what is there to the block's start if it must; whether there was
    /// room. Not for a queue that somebody else may be looking at.
    #[must_use]
    pub fn push_moving(&mut self, bytes: &[u8], pool: &mut Pool) -> bool {
        if bytes.len() > self.room()
            && let Some(block) = &mut self.block
        {
            block.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        self.push(bytes, pool)
    }

    /// The first `bytes` are done with; an empty queue gives its block back.
    pub fn consume(&mut self, bytes: usize, pool: &mut Pool) {
        self.start += bytes;
        debug_assert!(self.start <= self.end, "no more is consumed than is there");
        if self.is_empty() {
            self.clear(pool);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self, pool: &mut Pool) {
        (self.start, self.end) = (0, 0);
        if let Some(block) = self.block.take() {
            pool.give_back(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lend_and_return(pool: &mut Pool, blocks: usize) {
        let lent: Vec<_> = (0..blocks).map(|_| pool.take()).collect();
        lent.into_iter().for_each(|block| pool.give_back(block));
    }

    #[test]
    fn what_nobody_needs_goes_back_to_the_system_by_halves_and_what_is_needed_stays() {
        let mut pool = Pool::new();
        lend_and_return(&mut pool, 100);
        assert_eq!((pool.free.len(), pool.lent()), (100, 0));
        pool.trim();
        assert_eq!(pool.free.len(), 100, "all were needed just now");
        lend_and_return(&mut pool, 40);
        pool.trim();
        assert_eq!(pool.free.len(), 100 - (60 - FREE_BLOCKS_MIN) / 2);
        for _ in 0..20 {
            pool.trim();
        }
        assert_eq!(pool.free.len(), FREE_BLOCKS_MIN);
    }

    #[test]
    fn a_pool_keeps_no_more_than_its_share() {
        let mut pool = Pool::new();
        lend_and_return(&mut pool, FREE_BLOCKS_MAX + 7);
        assert_eq!(pool.free.len(), FREE_BLOCKS_MAX);
    }
}
