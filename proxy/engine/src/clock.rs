//! Time on a core's executor.

use std::future::Future;
use std::time::Duration;

use futures_lite::future::or;
use glommio::timer::Timer;

use crate::front::{self, Kind};

/// The time for something ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the time ran out")]
pub struct Elapsed;

/// Resolves after `duration`.
pub async fn sleep(duration: Duration) {
    match front::kind() {
        Kind::IoUring => {
            Timer::new(duration).await;
        }
        Kind::Epoll => tokio::time::sleep(duration).await,
    }
}

/// `future`, if it ends within `duration`; it is dropped otherwise.
///
/// # Errors
/// [`Elapsed`] when the time ran out first.
pub async fn within<T>(duration: Duration, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    or(async { Ok(future.await) }, async {
        sleep(duration).await;
        Err(Elapsed)
    })
    .await
}
