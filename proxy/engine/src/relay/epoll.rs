//! The driver where io_uring is forbidden: epoll tells what is possible, system calls do it.
//!
//! Sockets are watched once, edge-triggered: what is known to be readable or writable is remembered, so
//! that a flow in full swing costs its receives and sends and no call besides.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use postern_relay::memory::RECEIVE_BYTES_MAX;
use postern_relay::{Leg, Moment};
use socket2::Socket;

use super::desk::Desk;
use super::ktls::control;
use super::machine::{Deed, Key, Machine, ReceiveEnd};
use super::slab::GENERATION_BITS;
use super::splice::{Conduit, ITERATIONS_MAX, Pipes, State};
use super::sys::Epoll;
use crate::settle::settle;

/// Events that one look at the kernel brings.
const EVENTS_MAX: usize = 256;

/// Deeds between two looks at the kernel: each is one system call that moves 64 KiB at most.
const DEEDS_PER_WAKE: usize = 128;

/// Spliced lanes that have their turn between two looks at the kernel.
const PUMPS_PER_WAKE: usize = 8;

/// Names the desk's alarm among the watched; no socket's token is like it.
const ALARM: u64 = u64::MAX;

/// What sockets are watched for.
const WATCHED: i32 = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;

/// What makes a receive worth a try, and a send.
const READABLE: i32 = libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR;
const WRITABLE: i32 = libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR;

/// After these a receive that came short was not the last one that brings something.
const ENDING: i32 = libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR;

/// Drives the flows of one core.
pub struct Driver<'a> {
    desk: &'a mut Desk,
    machine: Machine,
    epoll: Epoll,
    /// By key.
    pairs: Vec<Option<Pair>>,
    scratch: Box<[u8]>,
    pipes: Pipes,
    /// Spliced lanes that may move something, in the order of their turns.
    pumps: VecDeque<(Key, Leg)>,
    began: Instant,
}

/// The sockets of a flow.
struct Pair {
    key: Key,
    ends: [End; 2],
    /// The kernel can't splice between these sockets.
    unfit: bool,
}

/// A socket, what is known of it, and the lane that begins at it.
struct End {
    socket: Socket,
    readable: bool,
    writable: bool,
    /// Its peer has ended its side, or the connection is broken.
    ending: bool,
    /// A receive waits until it is readable.
    armed: bool,
    /// A send waits until it is writable.
    blocked: bool,
    conduit: Option<Conduit>,
    /// The lane stands in the driver's queue of lanes that may move something.
    in_turn: bool,
}

impl<'a> Driver<'a> {
    /// # Errors
    /// When the kernel gives no descriptor.
    pub fn new(desk: &'a mut Desk) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.watch(desk.alarm(), libc::EPOLLIN, ALARM)?;
        Ok(Self {
            desk,
            machine: Machine::new(),
            epoll,
            pairs: Vec::new(),
            scratch: vec![0; RECEIVE_BYTES_MAX].into_boxed_slice(),
            pipes: Pipes::default(),
            pumps: VecDeque::new(),
            began: Instant::now(),
        })
    }

    /// Carries flows until the front is gone and all have ended.
    ///
    /// # Errors
    /// When the kernel can't be waited for.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
        loop {
            self.set_now();
            if !self.take_orders() {
                return Ok(());
            }
            self.machine.tick();
            for _ in 0..PUMPS_PER_WAKE.min(self.pumps.len()) {
                if let Some((key, leg)) = self.pumps.pop_front() {
                    self.pump(key, leg);
                }
            }
            for _ in 0..DEEDS_PER_WAKE {
                match self.machine.next_deed() {
                    Some(deed) => self.perform(deed),
                    None => break,
                }
            }
            let may_sleep = self.desk.may_sleep(&self.machine);
            let wait = self.wait(may_sleep);
            let came = self.epoll.wait(&mut events, wait)?;
            self.desk.awake();
            self.set_now();
            for event in &events[..came] {
                self.happened(event.u64, event.events as i32);
            }
        }
    }

    fn set_now(&mut self) {
        let us = self.began.elapsed().as_micros();
        self.machine
            .set_now(Moment(u64::try_from(us).unwrap_or(u64::MAX)));
    }

    /// How long to wait for the kernel.
    fn wait(&self, may_sleep: bool) -> Option<Duration> {
        if !may_sleep || self.machine.has_deeds() || !self.pumps.is_empty() {
            return Some(Duration::ZERO);
        }
        let wake = Duration::from_micros(self.machine.next_wake()?.0);
        Some(wake.saturating_sub(self.began.elapsed()))
    }

    fn take_orders(&mut self) -> bool {
        let (pairs, epoll) = (&mut self.pairs, &self.epoll);
        self.desk
            .take_orders(&mut self.machine, |key, client, target| {
                let pair = Pair::new(key, client, target);
                for (leg, end) in Leg::BOTH.into_iter().zip(&pair.ends) {
                    epoll.watch(end.socket.as_fd(), WATCHED, token(key, leg))?;
                }
                let index = key.index as usize;
                if pairs.len() <= index {
                    pairs.resize_with(index + 1, || None);
                }
                pairs[index] = Some(pair);
                Ok(())
            })
    }

    fn happened(&mut self, token: u64, events: i32) {
        if token == ALARM {
            self.desk.rung();
            return;
        }
        let (key, leg) = untoken(token);
        let Some(pair) = pair(&mut self.pairs, key) else {
            return;
        };
        let end = pair.end(leg);
        end.readable |= events & READABLE != 0;
        end.writable |= events & WRITABLE != 0;
        end.ending |= events & ENDING != 0;
        let (reads, writes) = (end.armed && end.readable, end.blocked && end.writable);
        for leg in Leg::BOTH {
            pair.queue_pump(leg, &mut self.pumps);
        }
        if writes {
            self.send(key, leg);
        }
        if reads {
            self.receive(key, leg);
        }
    }

    fn perform(&mut self, deed: Deed) {
        match deed {
            Deed::Receive(key, leg) => {
                if let Some(pair) = pair(&mut self.pairs, key) {
                    pair.end(leg).armed = true;
                    if pair.end(leg).readable {
                        self.receive(key, leg);
                    }
                }
            }
            Deed::CancelReceive(key, leg) => {
                if let Some(pair) = pair(&mut self.pairs, key) {
                    pair.end(leg).armed = false;
                }
                self.unsplice(key, leg);
                self.machine.receive_ended(key, leg, ReceiveEnd::Cancelled);
            }
            Deed::Send(key, leg) => self.send(key, leg),
            Deed::CancelSend(key, leg) => {
                if let Some(pair) = pair(&mut self.pairs, key) {
                    pair.end(leg).blocked = false;
                }
                self.machine.sent(key, leg, Ok(0));
            }
            Deed::ShutDown(key, leg) => {
                if let Some(pair) = pair(&mut self.pairs, key) {
                    // A peer that is gone needs no end; its receive tells.
                    let _ = pair.end(leg).socket.shutdown(Shutdown::Write);
                }
            }
            Deed::Close(key) => {
                for leg in Leg::BOTH {
                    self.unsplice(key, leg);
                    if let Some(pair) = pair(&mut self.pairs, key) {
                        let rest = settle(pair.end(leg).socket.as_fd());
                        self.machine.settle(key, leg, rest);
                    }
                }
                // The epoll instance forgets closed sockets by itself.
                if let Some(pair) = self.pairs.get_mut(key.index as usize) {
                    *pair = None;
                }
                self.desk.close(&mut self.machine, key);
            }
        }
    }

    /// One receive; one that finds nothing stays armed.
    fn receive(&mut self, key: Key, leg: Leg) {
        let Some(pair) = pair(&mut self.pairs, key) else {
            return;
        };
        let end = pair.end(leg);
        let ended = match (&end.socket).read(&mut self.scratch) {
            Ok(0) => ReceiveEnd::Finished,
            Ok(bytes) => {
                // A stream that gives less than was asked for has no more, until the next edge.
                // In the kernel's TLS it stops at records, which had their edges before.
                end.readable =
                    bytes == self.scratch.len() || end.ending || self.machine.is_kernel(key, leg);
                self.machine.received(key, leg, &mut self.scratch[..bytes]);
                ReceiveEnd::Spent
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                end.readable = false;
                return;
            }
            // A signal came in between: the next turn tries again.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => ReceiveEnd::Spent,
            Err(error)
                if error.raw_os_error() == Some(libc::EIO) && self.machine.is_kernel(key, leg) =>
            {
                control::end_of_receive(end.socket.as_fd())
            }
            Err(_) => ReceiveEnd::Broken,
        };
        end.armed = false;
        self.machine.receive_ended(key, leg, ended);
        self.promote(key, leg);
    }

    /// One send; one that is not taken at all waits until the socket is writable.
    fn send(&mut self, key: Key, leg: Leg) {
        let Some(pair) = pair(&mut self.pairs, key) else {
            return;
        };
        let end = pair.end(leg);
        let bytes = self.machine.outgoing(key, leg);
        let sent = match self.machine.says_close(key, leg) {
            true => control::send_close_notify(end.socket.as_fd()),
            false => end.socket.send_with_flags(bytes, libc::MSG_NOSIGNAL),
        };
        end.blocked = false;
        match sent {
            Ok(bytes) => self.machine.sent(key, leg, Ok(bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                end.writable = false;
                end.blocked = true;
                return;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.machine.sent(key, leg, Ok(0));
            }
            Err(_) => self.machine.sent(key, leg, Err(())),
        }
        self.promote(key, leg.other());
    }

    /// Splices the lane from `leg` if that pays.
    fn promote(&mut self, key: Key, leg: Leg) {
        if !self.machine.bulk(key, leg) {
            return;
        }
        let Some(pair) = pair(&mut self.pairs, key) else {
            return;
        };
        let [source, sink] = [leg, leg.other()].map(|leg| pair.ends[leg.index()].socket.as_fd());
        if pair.unfit {
            return;
        }
        // Without a pipe the lane stays as it is.
        if let Ok(conduit) = self.pipes.lend(source, sink) {
            pair.end(leg).conduit = Some(conduit);
            self.machine.begin_splice(key, leg);
            pair.queue_pump(leg, &mut self.pumps);
        }
    }

    /// Moves what the spliced lane from `leg` can move now.
    fn pump(&mut self, key: Key, leg: Leg) {
        let Some(pair) = pair(&mut self.pairs, key) else {
            return;
        };
        pair.end(leg).in_turn = false;
        let Some(mut conduit) = pair.end(leg).conduit.take() else {
            return;
        };
        let [source, sink] = [leg, leg.other()].map(|leg| pair.ends[leg.index()].socket.as_fd());
        let progress = conduit.pump(source, sink, ITERATIONS_MAX);
        self.machine
            .spliced(key, leg, progress.taken, progress.moved);
        match progress.state {
            State::Ready => {}
            State::Sink => self.machine.splice_waits(key, leg),
            State::Source if self.machine.bulk(key, leg) => {}
            State::Source | State::Unfit => {
                let end = pair.end(leg);
                // Bytes may have come since the kernel was asked, and their edge is spent.
                end.readable = true;
                pair.unfit |= progress.state == State::Unfit;
                self.pipes.give_back(conduit);
                self.machine.end_splice(key, leg);
                return;
            }
            State::Finished => {
                self.pipes.give_back(conduit);
                self.machine.receive_ended(key, leg, ReceiveEnd::Finished);
                return;
            }
            State::SourceBroken => {
                self.pipes.give_back(conduit);
                self.machine.receive_ended(key, leg, ReceiveEnd::Broken);
                return;
            }
            State::SinkBroken => {
                self.pipes.give_back(conduit);
                self.machine.sent(key, leg.other(), Err(()));
                self.machine.receive_ended(key, leg, ReceiveEnd::Cancelled);
                return;
            }
        }
        pair.end(leg).conduit = Some(conduit);
        if progress.state == State::Ready {
            pair.queue_pump(leg, &mut self.pumps);
        }
    }

    fn unsplice(&mut self, key: Key, leg: Leg) {
        let conduit = pair(&mut self.pairs, key).and_then(|pair| pair.end(leg).conduit.take());
        if let Some(conduit) = conduit {
            self.pipes.give_back(conduit);
        }
    }
}

impl Pair {
    fn new(key: Key, client: OwnedFd, target: OwnedFd) -> Self {
        Self {
            key,
            ends: [client, target].map(End::new),
            unfit: false,
        }
    }

    fn end(&mut self, leg: Leg) -> &mut End {
        &mut self.ends[leg.index()]
    }

    /// The lane from `leg` gets a turn, if it is spliced and has none yet.
    fn queue_pump(&mut self, leg: Leg, pumps: &mut VecDeque<(Key, Leg)>) {
        let key = self.key;
        let end = self.end(leg);
        if end.conduit.is_some() && !end.in_turn {
            end.in_turn = true;
            pumps.push_back((key, leg));
        }
    }
}

impl End {
    /// Whether it is readable is found by a try; the first edge may have come before it was watched.
    fn new(socket: OwnedFd) -> Self {
        Self {
            socket: Socket::from(socket),
            readable: true,
            writable: true,
            ending: false,
            armed: false,
            blocked: false,
            conduit: None,
            in_turn: false,
        }
    }
}

fn pair(pairs: &mut [Option<Pair>], key: Key) -> Option<&mut Pair> {
    let pair = pairs.get_mut(key.index as usize)?.as_mut()?;
    (pair.key == key).then_some(pair)
}

/// Index, generation and leg in one word.
fn token(key: Key, leg: Leg) -> u64 {
    let low = (u64::from(key.generation) << 1) | leg.index() as u64;
    (u64::from(key.index) << (GENERATION_BITS + 1)) | low
}

fn untoken(token: u64) -> (Key, Leg) {
    let key = Key {
        index: (token >> (GENERATION_BITS + 1)) as u32,
        generation: (token >> 1) as u32 & ((1 << GENERATION_BITS) - 1),
    };
    (key, Leg::BOTH[(token & 1) as usize])
}
