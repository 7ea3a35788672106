//! The io_uring driver: turns a machine's deeds into submission entries and answers into its events.
//!
//! Everything of a ring happens inside `io_uring_enter` on this thread (deferred task work): between two
//! of these calls no answer appears and no buffer is taken.

mod ends;
mod lanes;
mod operation;
mod setup;
mod sockets;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Instant;

use io_uring::squeue::Entry;
use io_uring::{CompletionQueue, EnterFlags, SubmissionQueue, Submitter, cqueue, types};
use postern_relay::{Leg, Moment};

use super::buffers::Buffers;
use super::desk::Desk;
use super::ktls::control;
use super::machine::{Deed, Key, Machine, ReceiveEnd};
use super::splice::Pipes;
use operation::{Kind, Tag, Target};
use setup::{Ring, Wishes};
use sockets::Sockets;

use setup::ReceiveMode;

/// Answers that are looked at before orders, deadlines and deeds have their turn.
const ANSWERS_MAX: usize = 512;

/// A driver that never sleeps publishes its tally this often.
const PUBLISH_MS: u64 = 100;

/// A core's ring, ready to run.
pub struct Driver<'desk> {
    ring: Ring,
    buffers: Buffers,
    desk: &'desk mut Desk,
}

/// Everything that the running driver works with.
///
/// INVARIANT: the kernel may write to the buffers and read what the machine's flows have outgoing until
/// the answers have come; dropping this asks it to stop first.
struct Running<'ring> {
    submitter: Submitter<'ring>,
    submissions: SubmissionQueue<'ring>,
    completions: CompletionQueue<'ring>,
    mode: ReceiveMode,
    /// Sockets of the table can have descriptors (Linux 6.8).
    has_install: bool,
    buffers: Option<Buffers>,
    machine: Machine,
    sockets: Sockets,
    /// Sockets of flows that have just come.
    arrivals: Vec<(Key, [OwnedFd; 2])>,
    pipes: Pipes,
    /// Spliced lanes that can move on.
    ready: VecDeque<(Key, Leg)>,
    /// A receive found no buffer in this round.
    is_starved: bool,
    desk: &'ring mut Desk,
    begun: Instant,
    published: Moment,
}

impl<'desk> Driver<'desk> {
    /// Must be called on the thread that runs it.
    ///
    /// # Errors
    /// When the kernel has no io_uring for us, or one that is too old.
    pub fn new(desk: &'desk mut Desk) -> io::Result<Self> {
        Self::with(desk, Wishes::default())
    }

    fn with(desk: &'desk mut Desk, wishes: Wishes) -> io::Result<Self> {
        let ring = Ring::new(wishes)?;
        let buffers = Buffers::new(ring.receiving.shape)?;
        Ok(Self {
            ring,
            buffers,
            desk,
        })
    }

    /// Relays until the front is gone and the last flow has ended.
    ///
    /// # Errors
    /// When the ring fails as a whole.
    pub fn run(self) -> io::Result<()> {
        let pipes = self.carry_all()?;
        tracing::debug!(?pipes, "relay ends");
        Ok(())
    }

    /// Relays to the end; the pipes that it used.
    fn carry_all(mut self) -> io::Result<Pipes> {
        let (mut submitter, submissions, completions) = self.ring.ring.split();
        // It saves looking the ring up; older kernels do without.
        let _ = submitter.register_ring_fd();
        // SAFETY: `Running` takes the buffers and has every receive cancelled before it drops them.
        unsafe { self.buffers.register(&submitter) }?;
        let running = Running {
            submitter,
            submissions,
            completions,
            mode: self.ring.receiving.mode,
            has_install: self.ring.has_install,
            buffers: Some(self.buffers),
            machine: Machine::new(),
            sockets: Sockets::new(self.ring.table),
            arrivals: Vec::new(),
            pipes: Pipes::default(),
            ready: VecDeque::new(),
            is_starved: false,
            desk: self.desk,
            begun: Instant::now(),
            published: Moment::default(),
        };
        running.run()
    }
}

impl Running<'_> {
    fn run(mut self) -> io::Result<Pipes> {
        self.await_wake()?;
        loop {
            if !self.take_orders() {
                return Ok(std::mem::take(&mut self.pipes));
            }
            self.machine.tick();
            self.pump_ready()?;
            self.do_deeds()?;
            self.wait()?;
            self.set_now();
            self.look_at_answers()?;
        }
    }

    fn set_now(&mut self) {
        let now = self.now();
        self.machine.set_now(now);
        if now >= self.published.plus_ms(PUBLISH_MS) {
            self.published = now;
            self.desk.publish(self.machine.tally());
            if let Some(buffers) = &mut self.buffers {
                buffers.trim();
            }
        }
    }

    fn now(&self) -> Moment {
        Moment(u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// `false`: there is nothing left to do, ever.
    fn take_orders(&mut self) -> bool {
        let arrivals = &mut self.arrivals;
        let goes_on = self
            .desk
            .take_orders(&mut self.machine, |key, client, target| {
                arrivals.push((key, [client, target]));
                Ok(())
            });
        for (key, sockets) in self.arrivals.drain(..) {
            // Only what may be spliced needs descriptors.
            let keep = self.machine.is_transparent(key);
            self.sockets.insert(key, sockets, keep, &self.submitter);
        }
        goes_on
    }

    fn do_deeds(&mut self) -> io::Result<()> {
        while let Some(deed) = self.machine.next_deed() {
            match deed {
                Deed::Receive(key, leg) => {
                    let tag = Tag::new(Kind::Receive, key, leg);
                    let entry = self.target(key, leg).receive(self.mode, tag);
                    self.ask(&entry)?;
                }
                Deed::CancelReceive(key, leg) => self.cancel_receive(key, leg)?,
                Deed::Send(key, leg) => {
                    let tag = Tag::new(Kind::Send, key, leg);
                    let target = self.target(key, leg);
                    let outgoing = self.machine.outgoing(key, leg);
                    let entry = match self.machine.is_kernel(key, leg) {
                        false => target.send(outgoing, tag),
                        true if self.machine.says_close(key, leg) => {
                            target.send_message(control::close_notify(), tag)
                        }
                        true => target.send_some(outgoing, tag),
                    };
                    self.ask(&entry)?;
                }
                Deed::CancelSend(key, leg) => {
                    self.ask(&operation::cancel(Tag::new(Kind::Send, key, leg)))?;
                }
                Deed::ShutDown(key, leg) => self.shut_down(key, leg)?,
                Deed::Close(key) => self.close(key)?,
            }
        }
        Ok(())
    }

    fn cancel_receive(&mut self, key: Key, leg: Leg) -> io::Result<()> {
        if self.leave_lane(key, leg)? {
            self.machine.receive_ended(key, leg, ReceiveEnd::Cancelled);
            return Ok(());
        }
        self.ask(&operation::cancel(Tag::new(Kind::Receive, key, leg)))
    }

    fn target(&self, key: Key, leg: Leg) -> Target {
        let place = self.sockets.get(key);
        place
            .expect("a flow that wants something has sockets")
            .target(leg)
    }

    /// Queues an entry for the kernel.
    fn ask(&mut self, entry: &Entry) -> io::Result<()> {
        // SAFETY: an entry points to nothing, or (a send) to what the machine keeps in place until the
        // answer was told; receives write to registered buffers only. All are kept as long as the kernel
        // may use them, see `Running`.
        while unsafe { self.submissions.push(entry) }.is_err() {
            self.enter(0, &types::SubmitArgs::new())?;
        }
        Ok(())
    }

    fn await_wake(&mut self) -> io::Result<()> {
        let entry = operation::await_wake(self.desk.alarm().as_raw_fd());
        self.ask(&entry)
    }

    /// Hands everything over to the kernel and sleeps until there is an answer, a deadline or an order.
    fn wait(&mut self) -> io::Result<()> {
        if !self.completions.is_empty() {
            return self.submit();
        }
        let is_busy = !self.ready.is_empty() || self.machine.has_deeds();
        if is_busy || !self.desk.may_sleep(&self.machine) {
            self.enter(0, &types::SubmitArgs::new())?;
        } else if let Some(wake) = self.machine.next_wake() {
            let us = wake.since_us(self.now());
            let pause = types::Timespec::new()
                .sec(us / 1_000_000)
                .nsec((us % 1_000_000) as u32 * 1000);
            self.enter(1, &types::SubmitArgs::new().timespec(&pause))?;
        } else {
            self.enter(1, &types::SubmitArgs::new())?;
        }
        self.desk.awake();
        Ok(())
    }

    /// Hands everything over to the kernel and leaves its other work for later.
    fn submit(&mut self) -> io::Result<()> {
        self.submissions.sync();
        let entries = self.submissions.len() as u32;
        if entries == 0 {
            return Ok(());
        }
        // SAFETY: there is no argument.
        let entered = unsafe { self.submitter.enter::<libc::sigset_t>(entries, 0, 0, None) };
        self.submissions.sync();
        passed(entered)
    }

    fn enter(&mut self, answers: u32, arguments: &types::SubmitArgs<'_, '_>) -> io::Result<()> {
        self.submissions.sync();
        let entries = self.submissions.len() as u32;
        // Without GETEVENTS the kernel would not do the work that it has put off.
        let flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        // SAFETY: the flags tell that the argument is a `SubmitArgs`, and nothing that it points to ends
        // before the call does.
        let entered = unsafe {
            self.submitter
                .enter(entries, answers, flags.bits(), Some(arguments))
        };
        self.submissions.sync();
        passed(entered)
    }

    fn look_at_answers(&mut self) -> io::Result<()> {
        self.completions.sync();
        for _ in 0..ANSWERS_MAX {
            let Some(answer) = self.completions.next() else {
                break;
            };
            self.look_at(&answer)?;
        }
        self.completions.sync();
        if let Some(buffers) = &mut self.buffers {
            buffers.publish();
        }
        // All buffers are back: whoever found none is asked again, so nobody waits in vain.
        if self.completions.is_empty() && std::mem::take(&mut self.is_starved) {
            if let Some(buffers) = &mut self.buffers {
                buffers.grow();
            }
            self.machine.buffers_back();
        }
        Ok(())
    }

    fn look_at(&mut self, answer: &cqueue::Entry) -> io::Result<()> {
        let Some(Tag { kind, leg, key }) = Tag::unpack(answer.user_data()) else {
            tracing::error!(
                user_data = answer.user_data(),
                "the kernel answers what nobody asked"
            );
            return Ok(());
        };
        match kind {
            Kind::Receive => self.received(key, leg, answer),
            Kind::Send => {
                let taken = usize::try_from(answer.result()).map_err(drop);
                self.machine.sent(key, leg, taken);
                self.promote(key, leg.other());
            }
            Kind::ShutDown => self.answered(key),
            Kind::Ready => {
                self.lane_is_ready(key, leg);
                self.answered(key);
            }
            Kind::Descriptor => self.settled(key, leg, answer.result()),
            Kind::Cancel => {}
            Kind::Wake => {
                self.desk.rung();
                self.await_wake()?;
            }
        }
        Ok(())
    }

    fn received(&mut self, key: Key, leg: Leg, answer: &cqueue::Entry) {
        let (result, flags) = (answer.result(), answer.flags());
        let mut is_known = true;
        if let (Some(first), Some(buffers)) = (cqueue::buffer_select(flags), &mut self.buffers) {
            let machine = &mut self.machine;
            let bytes = usize::try_from(result).unwrap_or(0);
            let taken = buffers.taken(first, bytes, |slice| machine.received(key, leg, slice));
            is_known = taken
                .inspect_err(|error| tracing::error!(%error, first, bytes, "a flow ends"))
                .is_ok();
        }
        if cqueue::more(flags) && is_known {
            return;
        }
        let end = match -result {
            _ if !is_known => ReceiveEnd::Broken,
            0 => ReceiveEnd::Finished,
            i32::MIN..0 | libc::EINTR | libc::EAGAIN => ReceiveEnd::Spent,
            libc::ENOBUFS => {
                self.is_starved = true;
                ReceiveEnd::NoBuffers
            }
            libc::ECANCELED => ReceiveEnd::Cancelled,
            libc::EIO if self.machine.is_kernel(key, leg) => self.end_of_records(key, leg),
            _ => ReceiveEnd::Broken,
        };
        self.machine.receive_ended(key, leg, end);
        self.promote(key, leg);
    }

    fn end_of_records(&self, key: Key, leg: Leg) -> ReceiveEnd {
        let place = self.sockets.get(key);
        let socket = place.and_then(|place| place.descriptor(leg));
        socket.map_or(ReceiveEnd::Broken, control::end_of_receive)
    }
}

fn passed(entered: io::Result<usize>) -> io::Result<()> {
    match entered {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            // The pause is over, a signal came, or memory is short for the moment.
            Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => Ok(()),
            _ => Err(error),
        },
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let all = types::CancelBuilder::any().all();
        match self.submitter.register_sync_cancel(None, all) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                // The kernel may still use this memory: better lost than shared.
                tracing::error!(%error, "a ring could not be stopped; its memory stays");
                std::mem::forget(std::mem::take(&mut self.machine));
                std::mem::forget(self.buffers.take());
            }
        }
    }
}
