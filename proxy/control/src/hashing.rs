//! Passwords are verified off the loop, a few at a time: each takes 19 MiB and tens of milliseconds.

use postern_login::{PasswordHash, local};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::ControlError;

/// Verifications at a time.
const RUNNING_MAX: usize = 2;

/// Verifications under way and waiting; more are refused.
const QUEUED_MAX: usize = 64;

/// The queue of verifications.
#[derive(Debug)]
pub(crate) struct Hashing {
    running: Semaphore,
    queued: Semaphore,
}

impl Default for Hashing {
    fn default() -> Self {
        Self {
            running: Semaphore::new(RUNNING_MAX),
            queued: Semaphore::new(QUEUED_MAX),
        }
    }
}

impl Hashing {
    /// True when `password` is the one that was hashed; for no user the same work, and false.
    ///
    /// # Errors
    /// When too many wait already.
    pub(crate) async fn verify(
        &self,
        hash: Option<PasswordHash>,
        password: Zeroizing<String>,
    ) -> Result<bool, ControlError> {
        let _place = self.queued.try_acquire().map_err(|_| ControlError::Busy)?;
        let _turn = self
            .running
            .acquire()
            .await
            .map_err(|_| ControlError::Busy)?;
        tokio::task::spawn_blocking(move || local::verify(hash.as_ref(), &password))
            .await
            .map_err(|_| ControlError::Worker)
    }
}
