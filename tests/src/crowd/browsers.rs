//! Browsers that open a desktop each and leave it alone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};

use super::unknown;
use crate::Browser;
use crate::browserless::WebSocket;

/// Threads that open desktops.
const OPENERS: usize = 8;

/// A desktop that is killed is told so within this time.
const PATIENCE: Duration = Duration::from_secs(30);

/// The desktops of one person, more than any person has.
pub(super) struct Browsers {
    browser: Browser,
    application: String,
    desktops: Vec<WebSocket>,
}

impl Browsers {
    pub(super) fn new(browser: Browser, application: &str) -> Self {
        Self {
            browser,
            application: application.to_owned(),
            desktops: Vec::new(),
        }
    }

    /// `open N`: so many more desktops. `carry N`: so many of them, evenly chosen, carry a message and
    /// its echo. `closed CODE`: all were told to close with this code, and close.
    pub(super) fn obey(&mut self, order: &[&str]) -> Result<String> {
        match order {
            ["open", number] => self.open(number.parse()?),
            ["carry", number] => self.carry(number.parse()?),
            ["closed", code] => self.close(code.parse()?),
            other => unknown(other),
        }
    }

    fn open(&mut self, number: usize) -> Result<String> {
        let taken = AtomicUsize::new(0);
        let open_share = || -> Result<Vec<WebSocket>> {
            let mut share = Vec::new();
            while taken.fetch_add(1, Ordering::Relaxed) < number {
                share.push(self.browser.desktop(&self.application)?);
            }
            Ok(share)
        };
        let shares = std::thread::scope(|scope| {
            let openers: Vec<_> = (0..OPENERS).map(|_| scope.spawn(open_share)).collect();
            let joined = openers.into_iter().map(|opener| {
                let share = opener.join().map_err(|_| anyhow!("an opener panicked"));
                share.and_then(|share| share)
            });
            joined.collect::<Result<Vec<_>>>()
        })?;
        self.desktops.extend(shares.into_iter().flatten());
        Ok(self.desktops.len().to_string())
    }

    fn carry(&mut self, number: usize) -> Result<String> {
        let stride = (self.desktops.len() / number).max(1);
        let mut carried = 0;
        for (index, desktop) in self.desktops.iter_mut().enumerate().step_by(stride) {
            let message = format!("desktop {index:08}");
            desktop.send(message.as_bytes())?;
            ensure!(desktop.receive_exactly(message.len())? == message.as_bytes());
            carried += 1;
        }
        Ok(carried.to_string())
    }

    fn close(&mut self, expected: u16) -> Result<String> {
        let mut closed = 0;
        for mut desktop in self.desktops.drain(..) {
            let (code, reason) = desktop.closed_within(PATIENCE)?;
            ensure!(code == expected, "closed with {code} {reason}");
            // A gateway that does not wait for the answer is gone already.
            let _ = desktop.writer().close(code);
            desktop.cut();
            closed += 1;
        }
        Ok(closed.to_string())
    }
}
