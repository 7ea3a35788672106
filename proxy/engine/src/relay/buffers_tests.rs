//! A kernel of the tests' own takes buffers, as the real one does: in the ring's order, several at a
//! time, shortened when it needs less; its answers are looked at in any order.

use std::sync::atomic::{AtomicU16, Ordering};

use proptest::prelude::*;

use super::*;

const SHAPE: Shape = Shape {
    count: 8,
    count_min: 8,
    buffer_bytes: 64,
};

/// What the kernel knows: how far it has come.
#[derive(Default)]
struct Kernel {
    head: u16,
    stamp: u8,
}

/// A completion, and the bytes that must be found in it.
#[derive(Debug, Clone)]
struct Answer {
    first: u16,
    content: Vec<u8>,
}

/// What one receive does.
#[derive(Debug, Clone, Copy)]
enum Receive {
    /// Brings so many bytes, if there are buffers for them.
    Bytes(usize),
    /// Shortens the next buffer to so many bytes and finds nothing to put there.
    Shorten(u32),
}

impl Kernel {
    fn tail(buffers: &Buffers) -> u16 {
        // SAFETY: the tail lies in the mapping's first entry; nobody writes to it meanwhile.
        let tail = unsafe { BufRingEntry::tail(buffers.entry(0)) };
        // SAFETY: as above; it is aligned.
        unsafe { AtomicU16::from_ptr(tail.cast_mut()) }.load(Ordering::Acquire)
    }

    fn entry<'a>(&self, buffers: &'a mut Buffers) -> Option<&'a mut BufRingEntry> {
        let is_there = self.head != Self::tail(buffers);
        // SAFETY: the slot lies in the mapping, and the buffers are borrowed exclusively.
        is_there.then(|| unsafe { &mut *buffers.entry(self.head & (SHAPE.count - 1)) })
    }

    fn receive(&mut self, buffers: &mut Buffers, bytes: usize) -> Option<Answer> {
        let first = self.entry(buffers)?.bid();
        let mut content = Vec::new();
        while content.len() < bytes {
            let Some(entry) = self.entry(buffers) else {
                break;
            };
            let filled = (entry.len() as usize).min(bytes - content.len());
            let start = (entry.addr() - buffers.arena.start.as_ptr() as u64) as usize;
            self.stamp = self.stamp.wrapping_add(1);
            buffers.arena.slice(start..start + filled).fill(self.stamp);
            content.extend(vec![self.stamp; filled]);
            self.head = self.head.wrapping_add(1);
        }
        Some(Answer { first, content })
    }

    fn free(&self, buffers: &Buffers) -> u16 {
        Self::tail(buffers).wrapping_sub(self.head)
    }
}

fn new() -> Buffers {
    Buffers::new(SHAPE).expect("512 bytes can be mapped")
}

/// What was given for an answer, slice by slice.
fn taken(buffers: &mut Buffers, answer: &Answer) -> Vec<Vec<u8>> {
    let mut slices = Vec::new();
    let bytes = answer.content.len();
    let known = buffers.taken(answer.first, bytes, |slice| slices.push(slice.to_vec()));
    known.expect("the kernel has these buffers");
    slices
}

fn receives() -> impl Strategy<Value = Vec<Receive>> {
    let one = prop_oneof![
        4 => (1..200_usize).prop_map(Receive::Bytes),
        1 => (1..64_u32).prop_map(Receive::Shorten),
    ];
    proptest::collection::vec(one, 1..6)
}

proptest! {
    #[test]
    fn every_answer_finds_its_bytes_whatever_the_order(
        rounds in proptest::collection::vec((receives(), any::<bool>()), 1..200),
    ) {
        let (mut kernel, mut buffers) = (Kernel::default(), new());
        for (receives, backwards) in rounds {
            let mut answers = Vec::new();
            for receive in receives {
                match receive {
                    Receive::Bytes(bytes) => answers.extend(kernel.receive(&mut buffers, bytes)),
                    Receive::Shorten(bytes) => {
                        if let Some(entry) = kernel.entry(&mut buffers) {
                            let shorter = entry.len().min(bytes);
                            entry.set_len(shorter);
                        }
                    }
                }
            }
            if backwards {
                answers.reverse();
            }
            for answer in &answers {
                prop_assert_eq!(taken(&mut buffers, answer).concat(), answer.content.clone());
            }
            buffers.publish();
            prop_assert_eq!(kernel.free(&buffers), SHAPE.count);
            // Neighbours stay neighbours: the next bundle is at most two slices.
            let all = kernel.receive(&mut buffers, SHAPE.arena_bytes()).expect("all are free");
            let is_whole = all.content.len() == SHAPE.arena_bytes();
            let slices = taken(&mut buffers, &all);
            prop_assert!(!is_whole || slices.len() <= 2, "{} slices", slices.len());
            buffers.publish();
        }
    }
}

/// How the circulation changes between rounds.
#[derive(Debug, Clone, Copy)]
enum Change {
    None,
    Grow,
    Trim,
}

proptest! {
    #[test]
    fn buffers_that_join_and_leave_the_circulation_confuse_no_answer(
        rounds in proptest::collection::vec((1..200_usize, 0..4_usize, change()), 1..200),
    ) {
        let shape = Shape { count_min: 2, ..SHAPE };
        let (mut kernel, mut buffers) = (Kernel::default(), Buffers::new(shape).expect("mapped"));
        let mut late: Vec<Answer> = Vec::new();
        for (bytes, looked_at, change) in rounds {
            late.extend(kernel.receive(&mut buffers, bytes));
            for answer in late.drain(..looked_at.min(late.len())) {
                prop_assert_eq!(taken(&mut buffers, &answer).concat(), answer.content.clone());
            }
            buffers.publish();
            match change {
                Change::None => {}
                Change::Grow => buffers.grow(),
                Change::Trim => buffers.trim(),
            }
            prop_assert!(buffers.circulating >= shape.count_min);
            prop_assert!(kernel.free(&buffers) <= buffers.circulating);
        }
        for answer in late {
            prop_assert_eq!(taken(&mut buffers, &answer).concat(), answer.content);
        }
        buffers.publish();
        prop_assert_eq!(kernel.free(&buffers), buffers.circulating);
        prop_assert_eq!(buffers.circulating as usize + buffers.reserve.len(), SHAPE.count as usize);
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![Just(Change::None), Just(Change::Grow), Just(Change::Trim)]
}

#[test]
fn the_circulation_doubles_when_it_does_not_suffice_and_halves_when_less_does() {
    let shape = Shape {
        count_min: 2,
        ..SHAPE
    };
    let (mut kernel, mut buffers) = (Kernel::default(), Buffers::new(shape).expect("mapped"));
    let mut use_up = |buffers: &mut Buffers, count: usize| {
        let answer = kernel
            .receive(buffers, count * 64)
            .expect("there are buffers");
        taken(buffers, &answer);
        buffers.publish();
    };
    buffers.grow();
    buffers.grow();
    buffers.grow();
    assert_eq!(buffers.circulating, 8, "there are no more");
    use_up(&mut buffers, 5);
    buffers.trim();
    use_up(&mut buffers, 1);
    assert_eq!(buffers.circulating, 8, "five were needed");
    for circulating in [4, 2, 2] {
        buffers.trim();
        for _ in 0..4 {
            use_up(&mut buffers, 1);
        }
        assert_eq!(buffers.circulating, circulating);
    }
}

#[test]
fn a_bundle_is_one_slice_unless_it_runs_over_the_end() {
    let (mut kernel, mut buffers) = (Kernel::default(), new());
    for (bytes, slices) in [(3 * 64, 1), (2 * 64 + 1, 1), (4 * 64, 2), (1, 1)] {
        let answer = kernel
            .receive(&mut buffers, bytes)
            .expect("there are buffers");
        assert_eq!(taken(&mut buffers, &answer).len(), slices, "{bytes} bytes");
        buffers.publish();
    }
}

#[test]
fn what_was_not_looked_at_keeps_its_entry() {
    let (mut kernel, mut buffers) = (Kernel::default(), new());
    let answers = [100, 64, 200].map(|bytes| kernel.receive(&mut buffers, bytes).unwrap());
    assert_eq!(kernel.free(&buffers), 1);
    for (looked_at, free) in [(1, 1), (0, 4), (2, 8)] {
        let answer = &answers[looked_at];
        assert_eq!(taken(&mut buffers, answer).concat(), answer.content);
        buffers.publish();
        assert_eq!(kernel.free(&buffers), free, "after answer {looked_at}");
    }
}

#[test]
fn an_empty_buffer_that_was_taken_comes_back() {
    let (mut kernel, mut buffers) = (Kernel::default(), new());
    kernel.head += 1;
    let mut given = 0;
    buffers.taken(0, 0, |_| given += 1).expect("it is known");
    buffers.publish();
    assert_eq!((given, kernel.free(&buffers)), (0, SHAPE.count));
}

#[test]
fn what_the_kernel_can_not_have_is_refused() {
    let mut buffers = new();
    assert_eq!(buffers.taken(SHAPE.count, 1, |_| ()), Err(UnknownBuffer));
    let too_much = SHAPE.arena_bytes() + 1;
    assert_eq!(buffers.taken(0, too_much, |_| ()), Err(UnknownBuffer));
}
