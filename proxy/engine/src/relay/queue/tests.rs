//! The queue under a model checker, and on real threads.

use std::sync::Arc as StdArc;
use std::sync::atomic::{AtomicUsize as StdAtomicUsize, Ordering};

use shuttle::sync::atomic::AtomicUsize as ModelUsize;
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread;

use super::*;

/// Interleavings that each model tries.
const RUNS: usize = 3000;

impl Counter for ModelUsize {
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

/// A bell as an eventfd is one: a ring stays until it was heard.
#[derive(Clone, Default)]
struct ModelBell(StdArc<(Mutex<bool>, Condvar)>);

impl ModelBell {
    fn sleep(&self) {
        let (rung, heard) = &*self.0;
        let mut rung = rung.lock().unwrap();
        while !*rung {
            rung = heard.wait(rung).unwrap();
        }
        *rung = false;
    }
}

impl Bell for ModelBell {
    fn ring(&self) {
        let (rung, heard) = &*self.0;
        *rung.lock().unwrap() = true;
        heard.notify_one();
    }
}

/// An item that counts where it goes.
struct Counted(usize, StdArc<StdAtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

type ModelProducer<T> = Producer<T, ModelBell, ModelUsize>;
type ModelConsumer<T> = Consumer<T, ModelUsize>;

fn model<T>(capacity: usize) -> (ModelProducer<T>, ModelConsumer<T>, ModelBell) {
    let bell = ModelBell::default();
    let (producer, consumer) = bounded(capacity, bell.clone());
    (producer, consumer, bell)
}

/// Puts all in, one after the other; a full queue is tried again.
fn put_in(producer: &mut ModelProducer<usize>, items: usize) {
    for mut item in 0..items {
        while let Err(refused) = producer.push(item) {
            match refused {
                Refused::Full(back) => item = back,
                Refused::Closed(_) => return,
            }
            thread::yield_now();
        }
    }
}

/// Takes all until the producer is gone, and sleeps in between.
fn take_out(consumer: &mut ModelConsumer<usize>, bell: &ModelBell) -> Vec<usize> {
    let mut taken = Vec::new();
    loop {
        taken.extend(std::iter::from_fn(|| consumer.pop()));
        if consumer.may_sleep() {
            bell.sleep();
        } else if consumer.is_closed() {
            taken.extend(std::iter::from_fn(|| consumer.pop()));
            return taken;
        }
        consumer.awake();
    }
}

#[test]
fn every_item_arrives_once_and_in_order_and_no_wake_up_is_lost() {
    // Shuttle fails a run in which the consumer sleeps for ever.
    shuttle::check_random(
        || {
            let (mut producer, mut consumer, bell) = model(2);
            let puts = thread::spawn(move || put_in(&mut producer, 5));
            assert_eq!(take_out(&mut consumer, &bell), [0, 1, 2, 3, 4]);
            puts.join().unwrap();
        },
        RUNS,
    );
}

#[test]
fn a_rare_order_of_steps_loses_no_wake_up_either() {
    shuttle::check_pct(
        || {
            let (mut producer, mut consumer, bell) = model(4);
            let puts = thread::spawn(move || put_in(&mut producer, 3));
            assert_eq!(take_out(&mut consumer, &bell), [0, 1, 2]);
            puts.join().unwrap();
        },
        RUNS,
        3,
    );
}

#[test]
fn a_consumer_that_goes_frees_what_is_left_and_stops_the_producer() {
    shuttle::check_random(
        || {
            let freed = StdArc::new(StdAtomicUsize::new(0));
            let (mut producer, mut consumer, _) = model(2);
            let count = freed.clone();
            let puts = thread::spawn(move || {
                let mut made = 0;
                let refused = loop {
                    let item = Counted(made, count.clone());
                    made += 1;
                    if let Err(refused) = producer.push(item) {
                        break refused;
                    }
                };
                drop(refused);
                made
            });
            assert!(consumer.pop().is_none_or(|item| item.0 == 0));
            drop(consumer);
            let made = puts.join().unwrap();
            assert_eq!(freed.load(Ordering::Relaxed), made);
        },
        RUNS,
    );
}

#[test]
fn a_producer_that_goes_leaves_what_it_put_in() {
    shuttle::check_random(
        || {
            let freed = StdArc::new(StdAtomicUsize::new(0));
            let (mut producer, mut consumer, bell) = model(4);
            let count = freed.clone();
            let puts = thread::spawn(move || {
                for number in 0..3 {
                    assert!(producer.push(Counted(number, count.clone())).is_ok());
                }
            });
            while !consumer.is_closed() {
                if consumer.may_sleep() {
                    bell.sleep();
                }
                consumer.awake();
                thread::yield_now();
            }
            assert_eq!(consumer.pop().map(|item| item.0), Some(0));
            puts.join().unwrap();
            drop(consumer);
            assert_eq!(freed.load(Ordering::Relaxed), 3);
        },
        RUNS,
    );
}

/// Shuttle does not know weak memory; real threads on the real atomics do.
#[test]
fn a_million_items_pass_between_two_threads() {
    struct Unpark(std::thread::Thread);
    impl Bell for Unpark {
        fn ring(&self) {
            self.0.unpark();
        }
    }
    const ITEMS: u64 = 1_000_000;
    let (mut producer, mut consumer): (Producer<_, _>, _) =
        bounded(64, Unpark(std::thread::current()));
    let puts = std::thread::spawn(move || {
        for mut item in 0..ITEMS {
            while let Err(Refused::Full(back)) = producer.push(item) {
                item = back;
                std::thread::yield_now();
            }
        }
    });
    let mut expected = 0;
    loop {
        while let Some(item) = consumer.pop() {
            assert_eq!(item, expected);
            expected += 1;
        }
        if consumer.may_sleep() {
            std::thread::park();
        } else if consumer.is_closed() {
            break;
        }
        consumer.awake();
    }
    expected += std::iter::from_fn(|| consumer.pop()).count() as u64;
    assert_eq!(expected, ITEMS);
    puts.join().unwrap();
}

#[test]
fn a_full_queue_gives_the_item_back() {
    struct Silence;
    impl Bell for Silence {
        fn ring(&self) {}
    }
    let (mut producer, mut consumer): (Producer<_, _>, _) = bounded(3, Silence);
    for item in 0..4 {
        assert_eq!(producer.push(item), Ok(()));
    }
    assert_eq!(producer.push(4), Err(Refused::Full(4)));
    assert_eq!(consumer.pop(), Some(0));
    assert_eq!(producer.push(4), Ok(()));
    drop(consumer);
    assert_eq!(producer.push(5), Err(Refused::Closed(5)));
}
