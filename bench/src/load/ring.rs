//! The executor of a load's process: one thread on one ring.

use std::future::Future;

use anyhow::Result;

/// Submissions that are gathered before the kernel is called.
const SUBMISSIONS: u32 = 4096;

/// Completions that fit before the kernel keeps them elsewhere: one a connection, with room.
const COMPLETIONS: u32 = 32 * 1024;

/// Runs `work` to its end on this thread.
///
/// # Errors
/// As `work`.
pub fn run<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_cqsize(COMPLETIONS);
    tokio_uring::builder()
        .entries(SUBMISSIONS)
        .uring_builder(&ring)
        .start(work)
}
