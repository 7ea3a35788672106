//! Ends one live session from outside its own code: kill, revocation, changed policy, drain.

use std::cell::RefCell;
use std::task::{Poll, Waker};

use crate::Outcome;

/// Shared by a session and its core's table of live sessions. The first reason wins.
#[derive(Debug, Default)]
pub struct Stop {
    outcome: RefCell<Option<Outcome>>,
    waiter: RefCell<Option<Waker>>,
}

impl Stop {
    /// Ends the session with `outcome`, unless something has ended it already.
    pub fn raise(&self, outcome: Outcome) {
        self.outcome.borrow_mut().get_or_insert(outcome);
        if let Some(waiter) = self.waiter.borrow_mut().take() {
            waiter.wake();
        }
    }

    /// Resolves when somebody ended the session. One waiter at a time.
    pub async fn raised(&self) -> Outcome {
        std::future::poll_fn(|cx| match self.outcome.borrow().as_ref() {
            Some(outcome) => Poll::Ready(outcome.clone()),
            None => {
                *self.waiter.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}
