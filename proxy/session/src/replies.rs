//! What must be said to a browser beside data: pong, ping, close. Bounded: the newest wins.

use std::cell::{Cell, RefCell};
use std::task::{Poll, Waker};

use postern_wire::websocket;

use crate::Outcome;

/// Written by the reading side and the watch of a session, taken by its one writer.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    /// [RFC 6455 §5.5.3] Only the most recent ping needs an answer.
    pong: RefCell<Option<Vec<u8>>>,
    ping: Cell<bool>,
    close: RefCell<Option<Outcome>>,
    writer: RefCell<Option<Waker>>,
}

/// The next thing to say.
pub(crate) enum Reply {
    /// A whole frame.
    Frame(Vec<u8>),
    /// Say good-bye with this outcome and end.
    Close(Outcome),
}

impl Replies {
    pub(crate) fn pong(&self, payload: &[u8]) {
        self.pong.replace(Some(websocket::pong(payload)));
        self.wake();
    }

    pub(crate) fn ping(&self) {
        self.ping.set(true);
        self.wake();
    }

    /// The first close stands.
    pub(crate) fn close(&self, outcome: &Outcome) {
        self.close
            .borrow_mut()
            .get_or_insert_with(|| outcome.clone());
        self.wake();
    }

    /// Resolves with the next thing to say; a close comes before all else.
    pub(crate) async fn next(&self) -> Reply {
        std::future::poll_fn(|cx| {
            if let Some(outcome) = self.close.borrow().as_ref() {
                return Poll::Ready(Reply::Close(outcome.clone()));
            }
            if let Some(pong) = self.pong.take() {
                return Poll::Ready(Reply::Frame(pong));
            }
            if self.ping.take() {
                return Poll::Ready(Reply::Frame(websocket::ping(&[])));
            }
            *self.writer.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn wake(&self) {
        if let Some(writer) = self.writer.borrow_mut().take() {
            writer.wake();
        }
    }
}
