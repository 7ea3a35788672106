//! The front's side of a core's relay: hands flows over, learns how they ended.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;

use postern_relay::{Ended, Flow, Goodbye, Report, Tally, Traffic};
use socket2::SockRef;

use super::desk::{Desk, HAND_OVER_MAX, Notice, Order, Parcel, Ticket};
use super::epoll;
use super::queue::{self, Bell, Consumer, Producer, Refused};
use super::ring;
use super::slab::Slab;
use super::sys::Alarm;
use crate::doorbell::{self, Button, Doorbell};
use crate::front::Kind;
use crate::{EngineError, resources};

/// The relay of a core, as its front sees it. Clones are the same relay.
#[derive(Clone)]
pub struct Relay(Rc<Front>);

/// A flow that is carried: resolves to its report. Dropping it aborts the flow.
pub struct Carriage {
    front: Rc<Front>,
    ticket: Ticket,
    stopped: Cell<bool>,
}

/// Brings the relay's notices to the carriages: run it beside everything else of the core.
pub struct Delivery {
    core: usize,
    front: Weak<Front>,
    notices: Consumer<Notice>,
    alarm: Alarm,
    doorbell: Doorbell,
    thread: JoinHandle<io::Result<()>>,
}

struct Front {
    orders: RefCell<Orders>,
    carriages: RefCell<Slab<Waiting>>,
    published: Arc<Mutex<Tally>>,
}

struct Orders {
    queue: Producer<Order, Alarm>,
    /// Orders that the queue had no room for: at most three a carriage.
    backlog: VecDeque<Order>,
}

enum Waiting {
    UnderWay(Option<Waker>),
    Ended(Report),
}

/// Starts the relay of `core` on a thread of its own. To be called on the core's front.
///
/// # Errors
/// When the kernel gives no thread, or not what the driver needs.
pub fn start(core: usize, kind: Kind) -> Result<(Relay, Delivery), EngineError> {
    let failed = |error: io::Error| EngineError::Relay {
        core,
        why: error.to_string(),
    };
    let alarm = Alarm::new().map_err(failed)?;
    let (button, wire) = doorbell::new().map_err(failed)?;
    let doorbell = wire.connect().map_err(failed)?;
    let (order_queue, orders) = queue::bounded(HAND_OVER_MAX, alarm.clone());
    let (notice_queue, notices) = queue::bounded(HAND_OVER_MAX, button);
    let published = Arc::new(Mutex::new(Tally::default()));
    let desk = Desk::new(orders, alarm.clone(), notice_queue, Arc::clone(&published));
    let thread = std::thread::Builder::new()
        .name(format!("relay-{core}"))
        .spawn(move || work(core, kind, desk))
        .map_err(failed)?;
    let front = Rc::new(Front {
        orders: RefCell::new(Orders {
            queue: order_queue,
            backlog: VecDeque::new(),
        }),
        carriages: RefCell::default(),
        published,
    });
    let delivery = Delivery {
        core,
        front: Rc::downgrade(&front),
        notices,
        alarm,
        doorbell,
        thread,
    };
    Ok((Relay(front), delivery))
}

/// What the relay thread does. The desk goes last: that tells the front.
fn work(core: usize, kind: Kind, mut desk: Desk) -> io::Result<()> {
    catch_unwind(AssertUnwindSafe(|| {
        resources::pin(core)?;
        match kind {
            Kind::IoUring => ring::Driver::new(&mut desk)?.run(),
            Kind::Epoll => epoll::Driver::new(&mut desk)?.run(),
        }
    }))
    .unwrap_or_else(|_| Err(io::Error::other("it panicked")))
}

impl Relay {
    /// Carries a flow between two connected stream sockets, until it is over.
    #[must_use]
    pub fn carry(&self, client: OwnedFd, target: OwnedFd, flow: Flow) -> Carriage {
        let ready = [&client, &target]
            .iter()
            .try_for_each(|socket| SockRef::from(socket).set_nonblocking(true));
        let carried = ready.is_ok() && !self.0.orders.borrow().queue.is_closed();
        let ticket = self.0.carriages.borrow_mut().insert(if carried {
            Waiting::UnderWay(None)
        } else {
            Waiting::Ended(lost())
        });
        if carried {
            self.0.order(Order::Carry(Box::new(Parcel {
                ticket,
                client,
                target,
                flow,
            })));
        }
        Carriage {
            front: Rc::clone(&self.0),
            ticket,
            stopped: Cell::new(false),
        }
    }

    /// What the core's flows carried so far, as of a moment ago.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let published = self.0.published.lock();
        published.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Carriage {
    /// Ends the flow with last words to its client; the first ones count. Its report still comes.
    pub fn stop(&self, goodbye: Goodbye) {
        if !self.stopped.replace(true) {
            self.front.order(Order::Stop(self.ticket, goodbye));
        }
    }
}

impl Future for Carriage {
    type Output = Report;

    /// # Panics
    /// After it was ready.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Report> {
        let mut carriages = self.front.carriages.borrow_mut();
        let waiting = carriages
            .get_mut(self.ticket)
            .expect("a carriage resolves once");
        if let Waiting::UnderWay(waker) = waiting {
            match waker {
                Some(waker) => waker.clone_from(context.waker()),
                None => *waker = Some(context.waker().clone()),
            }
            return Poll::Pending;
        }
        match carriages.remove(self.ticket) {
            Some(Waiting::Ended(report)) => Poll::Ready(report),
            _ => unreachable!("it had ended a line ago"),
        }
    }
}

impl Drop for Carriage {
    fn drop(&mut self) {
        let waiting = self.front.carriages.borrow_mut().remove(self.ticket);
        if let Some(Waiting::UnderWay(_)) = waiting {
            self.front.order(Order::Abort(self.ticket));
        }
    }
}

impl Delivery {
    /// Delivers until the relay thread ends. That is well when nobody holds the relay or a carriage any more.
    ///
    /// # Errors
    /// When the relay thread failed: every carriage has resolved, and the core can't carry flows any more.
    pub async fn run(mut self) -> Result<(), EngineError> {
        let core = self.core;
        let failed = |why: String| EngineError::Relay { core, why };
        let mut taken = 0;
        loop {
            while let Some(notice) = self.notices.pop() {
                taken += 1;
                if let Some(front) = self.front.upgrade() {
                    front.resolve(notice);
                }
            }
            if taken >= HAND_OVER_MAX / 2 {
                // A relay that found the queue full waits for this.
                taken = 0;
                self.alarm.ring();
            }
            if let Some(front) = self.front.upgrade() {
                front.send_backlog();
            }
            if self.notices.may_sleep() {
                // A broken bell means that the relay is gone, which is seen below.
                let _ = self.doorbell.rung().await;
            } else if self.notices.is_closed() {
                break;
            }
            self.notices.awake();
        }
        while let Some(notice) = self.notices.pop() {
            if let Some(front) = self.front.upgrade() {
                front.resolve(notice);
            }
        }
        if let Some(front) = self.front.upgrade() {
            front.lose_all();
        }
        match self.thread.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed("it panicked".to_owned())),
        }
    }
}

impl Front {
    fn order(&self, order: Order) {
        let mut orders = self.orders.borrow_mut();
        orders.backlog.push_back(order);
        orders.send_backlog();
    }

    fn send_backlog(&self) {
        self.orders.borrow_mut().send_backlog();
    }

    fn resolve(&self, notice: Notice) {
        let mut carriages = self.carriages.borrow_mut();
        // One that was dropped meanwhile needs no report.
        if let Some(waiting) = carriages.get_mut(notice.ticket) {
            waiting.end(notice.report);
        }
    }

    fn lose_all(&self) {
        let mut carriages = self.carriages.borrow_mut();
        for index in 0..carriages.capacity() as u32 {
            let ticket = carriages.key_at(index);
            if let Some(waiting) = ticket.and_then(|ticket| carriages.get_mut(ticket)) {
                waiting.end(lost());
            }
        }
    }
}

impl Orders {
    fn send_backlog(&mut self) {
        while let Some(order) = self.backlog.pop_front() {
            match self.queue.push(order) {
                Ok(()) => {}
                Err(Refused::Full(order)) => {
                    self.backlog.push_front(order);
                    return;
                }
                // The delivery sees it too, and ends every carriage.
                Err(Refused::Closed(_)) => {}
            }
        }
    }
}

impl Waiting {
    fn end(&mut self, report: Report) {
        if let Self::UnderWay(waker) = self {
            let waker = waker.take();
            *self = Self::Ended(report);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl Bell for Button {
    fn ring(&self) {
        Self::ring(self);
    }
}

/// The report of a flow whose relay is gone.
fn lost() -> Report {
    Report {
        ended: Ended::TargetLost,
        traffic: Traffic::default(),
        streams: None,
    }
}
