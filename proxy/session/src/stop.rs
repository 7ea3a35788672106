//! Ends one session or connection from outside its own code: kill, revocation, changed policy, drain.

use std::cell::RefCell;
use std::task::{Poll, Waker};

use crate::Outcome;

/// Shared by what it ends and its core's table of such. The first reason wins.
#[derive(Debug, Default)]
pub struct Stop {
    outcome: RefCell<Option<Outcome>>,
    waiter: RefCell<Option<Waker>>,
}

impl Stop {
    /// Ends it with `outcome`, unless something has ended it already.
    pub fn raise(&self, outcome: Outcome) {
        self.outcome.borrow_mut().get_or_insert(outcome);
        if let Some(waiter) = self.waiter.borrow_mut().take() {
            waiter.wake();
        }
    }

    /// Resolves when somebody ended it. One waiter at a time.
    pub async fn raised(&self) -> Outcome {
        std::future::poll_fn(|cx| match self.outcome.borrow().as_ref() {
            Some(outcome) => Poll::Ready(outcome.clone()),
            None => {
                // Asked at every turn of a connection, so only a new waker is kept.
                let mut waiter = self.waiter.borrow_mut();
                if !waiter
                    .as_ref()
                    .is_some_and(|kept| kept.will_wake(cx.waker()))
                {
                    *waiter = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        })
        .await
    }
}
