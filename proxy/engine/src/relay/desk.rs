//! The relay thread's side of the hand-over: takes the front's orders in, tells it how flows ended.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, TryLockError};

use postern_relay::{Flow, Goodbye, Report, Tally};

use super::machine::{Key, Machine};
use super::queue::{Consumer, Producer, Refused};
use super::sys::Alarm;
use crate::doorbell::Button;

/// Orders and notices that may be under way at once.
pub const HAND_OVER_MAX: usize = 1024;

/// Orders that are taken in before flows have their turn again.
const ORDERS_PER_WAKE: usize = 64;

/// Names a carriage on the front, as [`Key`] names its flow here.
pub type Ticket = Key;

/// What the front wants.
pub enum Order {
    Carry(Box<Parcel>),
    Stop(Ticket, Goodbye),
    Abort(Ticket),
}

/// A flow with its sockets.
pub struct Parcel {
    pub ticket: Ticket,
    pub client: OwnedFd,
    pub target: OwnedFd,
    pub flow: Flow,
}

/// A flow has ended.
pub struct Notice {
    pub ticket: Ticket,
    pub report: Report,
}

/// Where a driver takes its orders.
pub struct Desk {
    orders: Consumer<Order>,
    alarm: Alarm,
    notices: Producer<Notice, Button>,
    /// Notices that the queue had no room for; at most one a flow.
    backlog: VecDeque<Notice>,
    /// By ticket: whose flow it is.
    keys: Vec<Option<(Ticket, Key)>>,
    /// By key: for whom it is carried.
    tickets: Vec<Option<(Key, Ticket)>>,
    published: Arc<Mutex<Tally>>,
    /// Orders taken since the front was told that there is room.
    taken: usize,
    front_is_gone: bool,
}

impl Desk {
    pub(super) fn new(
        orders: Consumer<Order>,
        alarm: Alarm,
        notices: Producer<Notice, Button>,
        published: Arc<Mutex<Tally>>,
    ) -> Self {
        Self {
            orders,
            alarm,
            notices,
            backlog: VecDeque::new(),
            keys: Vec::new(),
            tickets: Vec::new(),
            published,
            taken: 0,
            front_is_gone: false,
        }
    }

    /// Takes orders in: flows go to the machine, their sockets to `adopt`. A flow whose sockets are not adopted is
    /// aborted; its [`super::machine::Deed::Close`] comes nevertheless. `false`: the front is gone and every flow has ended, so that
    /// the driver is done.
    pub fn take_orders(
        &mut self,
        machine: &mut Machine,
        mut adopt: impl FnMut(Key, OwnedFd, OwnedFd) -> io::Result<()>,
    ) -> bool {
        self.deliver_backlog();
        for _ in 0..ORDERS_PER_WAKE {
            let Some(order) = self.orders.pop() else {
                return self.look_for_front(machine);
            };
            self.tell_room();
            match order {
                Order::Carry(parcel) => self.carry(*parcel, machine, &mut adopt),
                Order::Stop(ticket, goodbye) => {
                    if let Some(key) = self.key(ticket) {
                        machine.stop(key, goodbye);
                    }
                }
                Order::Abort(ticket) => {
                    if let Some(key) = self.key(ticket) {
                        machine.abort(key);
                    }
                }
            }
        }
        true
    }

    /// After a flow's [`super::machine::Deed::Close`], when its sockets are closed: tells the front how it ended.
    pub fn close(&mut self, machine: &mut Machine, key: Key) {
        let report = machine.remove(key);
        let Some((_, ticket)) = place(&mut self.tickets, key).take_if(|(whose, _)| *whose == key)
        else {
            return;
        };
        place(&mut self.keys, ticket).take_if(|(whose, _)| *whose == ticket);
        self.backlog.push_back(Notice { ticket, report });
        self.deliver_backlog();
    }

    /// Rings when there are orders and [`Self::may_sleep`] said yes.
    #[must_use]
    pub fn alarm(&self) -> BorrowedFd<'_> {
        self.alarm.as_fd()
    }

    /// Publishes the tally and announces that the driver is about to wait. `false`: it must only look, there are orders.
    #[must_use]
    pub fn may_sleep(&mut self, machine: &Machine) -> bool {
        self.publish(machine.tally());
        self.orders.may_sleep()
    }

    /// The driver has waited, or decided not to.
    pub fn awake(&mut self) {
        self.orders.awake();
    }

    /// The alarm rang.
    pub fn rung(&self) {
        self.alarm.clear();
    }

    /// Lets the front see the tally; to be called from time to time by a driver that never sleeps.
    pub fn publish(&self, tally: &Tally) {
        match self.published.try_lock() {
            Ok(mut published) => published.clone_from(tally),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().clone_from(tally),
            // The front reads it just now: next time.
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn carry(
        &mut self,
        parcel: Parcel,
        machine: &mut Machine,
        adopt: &mut impl FnMut(Key, OwnedFd, OwnedFd) -> io::Result<()>,
    ) {
        let Parcel {
            ticket,
            client,
            target,
            flow,
        } = parcel;
        let key = machine.add(flow);
        *place(&mut self.keys, ticket) = Some((ticket, key));
        *place(&mut self.tickets, key) = Some((key, ticket));
        if let Err(error) = adopt(key, client, target) {
            tracing::warn!(%error, "a flow's sockets can't be taken over; it ends");
            machine.abort(key);
        }
    }

    fn key(&self, ticket: Ticket) -> Option<Key> {
        let (whose, key) = (*self.keys.get(ticket.index as usize)?)?;
        (whose == ticket).then_some(key)
    }

    fn deliver_backlog(&mut self) {
        while let Some(notice) = self.backlog.pop_front() {
            match self.notices.push(notice) {
                Ok(()) => {}
                Err(Refused::Full(notice)) => {
                    self.backlog.push_front(notice);
                    return;
                }
                Err(Refused::Closed(_)) => {}
            }
        }
    }

    /// A front that found the queue full waits for this: between a full queue and an empty one the bell rings.
    fn tell_room(&mut self) {
        self.taken += 1;
        if self.taken >= HAND_OVER_MAX / 2 {
            self.taken = 0;
            self.notices.bell().ring();
        }
    }

    /// Whether the driver goes on, when there are no orders.
    fn look_for_front(&mut self, machine: &mut Machine) -> bool {
        if self.orders.is_closed() && !self.front_is_gone {
            self.front_is_gone = true;
            machine.abort_all();
        }
        !self.front_is_gone || machine.live() > 0
    }
}

/// The place of `key` in a table by index.
fn place<T>(table: &mut Vec<Option<T>>, key: Key) -> &mut Option<T> {
    let index = key.index as usize;
    if table.len() <= index {
        table.resize_with(index + 1, || None);
    }
    &mut table[index]
}
