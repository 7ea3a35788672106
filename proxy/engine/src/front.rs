//! One glommio executor a core, pinned; the thread that runs everything of that core.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};

use crate::EngineError;

/// How long a core may think without looking at its ring: bounds the unfairness between tasks.
const PREEMPT: Duration = Duration::from_millis(5);

/// Memory that a core registers with the kernel for direct file I/O: the least, since the journal
/// writes through the page cache. Processes without privileges may lock a few MiB only.
const REGISTERED_BYTES: usize = 64 * 1024;

/// Starts `work` on an executor of its own, pinned to `core`.
///
/// # Errors
/// When the thread can't be started; a failure of the executor itself comes out of the join handle.
pub fn start<F, W>(core: usize, work: F) -> Result<JoinHandle<Result<(), EngineError>>, EngineError>
where
    F: FnOnce() -> W + Send + 'static,
    W: Future<Output = ()> + 'static,
{
    let failed = move |why: String| EngineError::Executor { core, why };
    std::thread::Builder::new()
        .name(format!("core-{core}"))
        .spawn(move || {
            let executor = LocalExecutorBuilder::new(Placement::Fixed(core))
                .name(&format!("core-{core}"))
                .preempt_timer(PREEMPT)
                .io_memory(REGISTERED_BYTES)
                .make()
                .map_err(|error| failed(error.to_string()))?;
            executor.run(async move { work().await });
            Ok(())
        })
        .map_err(|error| failed(error.to_string()))
}

/// Checks that nobody else listens on `address`. The cores share it by `SO_REUSEPORT`, which would
/// silently share it with another gateway of the same user as well.
///
/// # Errors
/// When the address is taken, not ours, or needs a privilege.
pub fn claim(address: SocketAddr) -> Result<(), EngineError> {
    TcpListener::bind(address)
        .map(drop)
        .map_err(|source| EngineError::Listen { address, source })
}

/// Runs `work` beside the caller, on the caller's core.
pub fn spawn(work: impl Future<Output = ()> + 'static) {
    glommio::spawn_local(work).detach();
}
