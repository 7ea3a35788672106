//! Hands things over from one thread to another: a bounded queue with one producer and one consumer,
//! and the wake-up that goes with it.
//!
//! The consumer announces that it is about to sleep and looks once more; the producer rings only if it
//! sees the announcement. The atomics are a parameter, so that a model checker can try every interleaving.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

/// An atomic counter.
pub trait Counter: Send + Sync {
    fn new(value: usize) -> Self;
    fn load(&self, ordering: Ordering) -> usize;
    fn store(&self, value: usize, ordering: Ordering);
    fn swap(&self, value: usize, ordering: Ordering) -> usize;
}

/// What wakes the consumer. A ring before the consumer sleeps must keep it from sleeping.
pub trait Bell {
    fn ring(&self);
}

/// Why the consumer did not take an item; it comes back.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused<T> {
    /// Try again when the consumer has taken something.
    Full(T),
    /// There is no consumer any more.
    Closed(T),
}

/// The end that puts in.
pub struct Producer<T, B: Bell, C: Counter = AtomicUsize> {
    shared: Arc<Shared<T, C>>,
    bell: B,
    tail: usize,
    /// The consumer's head when it was looked at last.
    head: usize,
}

/// The end that takes out.
pub struct Consumer<T, C: Counter = AtomicUsize> {
    shared: Arc<Shared<T, C>>,
    head: usize,
    /// The producer's tail when it was looked at last.
    tail: usize,
}

struct Shared<T, C: Counter> {
    /// INVARIANT: the items with numbers `head..tail` are initialised, each at its number modulo the length;
    /// `tail - head` is at most the length. The consumer alone moves `head`, the producer alone `tail`.
    items: Box<[UnsafeCell<MaybeUninit<T>>]>,
    head: Line<C>,
    tail: Line<C>,
    /// 1 while the consumer sleeps or is about to.
    sleeps: Line<C>,
    /// 1 as soon as either end is gone.
    closed: Line<C>,
}

/// A cache line of its own (two, as processors fetch pairs), so that one end's writes don't slow the other.
#[repr(align(128))]
struct Line<C>(C);

// SAFETY: an item is touched by the producer before `tail` passes it and by the consumer afterwards, never by
// both; the release of `tail` (and `head`) and its acquisition by the other end order these accesses.
unsafe impl<T: Send, C: Counter> Sync for Shared<T, C> {}
// SAFETY: as above; the items themselves may move to another thread.
unsafe impl<T: Send, C: Counter> Send for Shared<T, C> {}

/// A queue for at most `capacity` items, rounded up to a power of two.
pub fn bounded<T, B: Bell, C: Counter>(
    capacity: usize,
    bell: B,
) -> (Producer<T, B, C>, Consumer<T, C>) {
    let items = (0..capacity.next_power_of_two())
        .map(|_| UnsafeCell::new(MaybeUninit::uninit()))
        .collect();
    let shared = Arc::new(Shared {
        items,
        head: Line(C::new(0)),
        tail: Line(C::new(0)),
        sleeps: Line(C::new(0)),
        closed: Line(C::new(0)),
    });
    let producer = Producer {
        shared: Arc::clone(&shared),
        bell,
        tail: 0,
        head: 0,
    };
    let consumer = Consumer {
        shared,
        head: 0,
        tail: 0,
    };
    (producer, consumer)
}

impl<T, B: Bell, C: Counter> Producer<T, B, C> {
    /// Puts an item in and wakes the consumer if it sleeps.
    ///
    /// # Errors
    /// The item comes back when the queue is full or the consumer gone.
    pub fn push(&mut self, item: T) -> Result<(), Refused<T>> {
        if self.is_closed() {
            return Err(Refused::Closed(item));
        }
        let shared = &*self.shared;
        if self.tail.wrapping_sub(self.head) == shared.items.len() {
            self.head = shared.head.0.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.head) == shared.items.len() {
                return Err(Refused::Full(item));
            }
        }
        let slot = shared.slot(self.tail);
        // SAFETY: the number `tail` is not within `head..tail`, so the consumer does not touch this item, and
        // what it held was moved out.
        unsafe { (*slot).write(item) };
        self.tail = self.tail.wrapping_add(1);
        shared.tail.0.store(self.tail, Ordering::Release);
        self.ring_if_asleep();
        Ok(())
    }

    /// Whether the consumer is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.closed.0.load(Ordering::Acquire) != 0
    }

    /// What wakes the consumer.
    pub fn bell(&self) -> &B {
        &self.bell
    }

    fn ring_if_asleep(&self) {
        // Pairs with the fence in `may_sleep`: either this load sees the announcement, or the consumer's second
        // look sees what was written before.
        fence(Ordering::SeqCst);
        let sleeps = &self.shared.sleeps.0;
        if sleeps.load(Ordering::Relaxed) != 0 && sleeps.swap(0, Ordering::Relaxed) != 0 {
            self.bell.ring();
        }
    }
}

impl<T, C: Counter> Consumer<T, C> {
    /// The oldest item.
    pub fn pop(&mut self) -> Option<T> {
        if !self.look() {
            return None;
        }
        let slot = self.shared.slot(self.head);
        // SAFETY: `head` is below the tail that was acquired, so the item is initialised and the producer does
        // not touch it until `head` passes it, which happens once.
        let item = unsafe { (*slot).assume_init_read() };
        self.head = self.head.wrapping_add(1);
        self.shared.head.0.store(self.head, Ordering::Release);
        Some(item)
    }

    /// Announces that the consumer is about to sleep. `false`: it must not, something came or the producer went.
    /// Afterwards, and after sleeping, call [`Self::awake`].
    #[must_use]
    pub fn may_sleep(&mut self) -> bool {
        self.shared.sleeps.0.store(1, Ordering::Relaxed);
        // Pairs with the fence in `ring_if_asleep`.
        fence(Ordering::SeqCst);
        !self.look() && !self.is_closed()
    }

    /// The consumer looks by itself again, no bell is needed.
    pub fn awake(&mut self) {
        self.shared.sleeps.0.store(0, Ordering::Relaxed);
    }

    /// Whether the producer is gone; items may still be there.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.closed.0.load(Ordering::Acquire) != 0
    }

    /// Whether there is an item.
    fn look(&mut self) -> bool {
        if self.head == self.tail {
            self.tail = self.shared.tail.0.load(Ordering::Acquire);
        }
        self.head != self.tail
    }
}

impl<T, C: Counter> Shared<T, C> {
    fn slot(&self, number: usize) -> *mut MaybeUninit<T> {
        self.items[number & (self.items.len() - 1)].get()
    }
}

impl<T, B: Bell, C: Counter> Drop for Producer<T, B, C> {
    fn drop(&mut self) {
        self.shared.closed.0.store(1, Ordering::Release);
        self.ring_if_asleep();
    }
}

impl<T, C: Counter> Drop for Consumer<T, C> {
    fn drop(&mut self) {
        self.shared.closed.0.store(1, Ordering::Release);
        // What came after the close is freed with the queue.
        while self.pop().is_some() {}
    }
}

impl<T, C: Counter> Drop for Shared<T, C> {
    fn drop(&mut self) {
        let tail = self.tail.0.load(Ordering::Relaxed);
        let mut head = self.head.0.load(Ordering::Relaxed);
        while head != tail {
            // SAFETY: both ends are gone, and `head..tail` are the items that nobody took.
            unsafe { (*self.slot(head)).assume_init_drop() };
            head = head.wrapping_add(1);
        }
    }
}

impl Counter for AtomicUsize {
    fn new(value: usize) -> Self {
        Self::new(value)
    }

    fn load(&self, ordering: Ordering) -> usize {
        self.load(ordering)
    }

    fn store(&self, value: usize, ordering: Ordering) {
        self.store(value, ordering);
    }

    fn swap(&self, value: usize, ordering: Ordering) -> usize {
        self.swap(value, ordering)
    }
}

#[cfg(test)]
mod tests;
