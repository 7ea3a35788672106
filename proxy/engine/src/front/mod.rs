//! One executor a core, pinned: the thread that runs everything of that core but established
//! sessions. glommio where io_uring is allowed, tokio where it is not.

mod choice;

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};

pub use choice::{Forbidden, Kind, Wanted, choose};

use crate::{EngineError, resources};

/// How long a core may think without looking at its ring: bounds the unfairness between tasks.
const PREEMPT: Duration = Duration::from_millis(5);

/// Memory that a core registers with the kernel for direct file I/O: the least, since the journal
/// writes through the page cache. Processes without privileges may lock a few MiB only.
const REGISTERED_BYTES: usize = 64 * 1024;

/// Name look-ups that may block at once on a core without a ring; more wait for a thread.
const RESOLVERS_MAX: usize = 8;

thread_local! {
    /// What this thread runs on, if it is a core's.
    static KIND: Cell<Option<Kind>> = const { Cell::new(None) };
}

/// Starts `work` on an executor of its own, pinned to `core`.
///
/// # Errors
/// When the thread can't be started; a failure of the executor itself comes out of the join handle.
pub fn start<F, W>(
    core: usize,
    kind: Kind,
    work: F,
) -> Result<JoinHandle<Result<(), EngineError>>, EngineError>
where
    F: FnOnce() -> W + Send + 'static,
    W: Future<Output = ()> + 'static,
{
    let failed = move |why: String| EngineError::Executor { core, why };
    std::thread::Builder::new()
        .name(format!("core-{core}"))
        .spawn(move || {
            KIND.set(Some(kind));
            match kind {
                Kind::IoUring => run_on_ring(core, work).map_err(failed),
                Kind::Epoll => run_on_epoll(core, work).map_err(|error| failed(error.to_string())),
            }
        })
        .map_err(|error| failed(error.to_string()))
}

fn run_on_ring<F, W>(core: usize, work: F) -> Result<(), String>
where
    F: FnOnce() -> W,
    W: Future<Output = ()> + 'static,
{
    let executor = LocalExecutorBuilder::new(Placement::Fixed(core))
        .name(&format!("core-{core}"))
        .preempt_timer(PREEMPT)
        .io_memory(REGISTERED_BYTES)
        .make()
        .map_err(|error| error.to_string())?;
    executor.run(async move { work().await });
    Ok(())
}

fn run_on_epoll<F, W>(core: usize, work: F) -> io::Result<()>
where
    F: FnOnce() -> W,
    W: Future<Output = ()> + 'static,
{
    resources::pin(core)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(RESOLVERS_MAX)
        .thread_name(format!("core-{core}-names"))
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async move { work().await });
    // A look-up may hang for as long as the system's resolver likes; nobody waits for it any more.
    runtime.shutdown_background();
    Ok(())
}

/// What the calling core runs on.
///
/// # Panics
/// Outside of a core.
#[must_use]
pub fn kind() -> Kind {
    KIND.get().expect("the caller runs on a core")
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
    match kind() {
        // The tasks go on without their handles.
        Kind::IoUring => drop(glommio::spawn_local(work).detach()),
        Kind::Epoll => drop(tokio::task::spawn_local(work)),
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::clock;
    use crate::trial::{KINDS, forbid_io_uring, on_a_core};

    #[test]
    fn a_core_runs_pinned_and_knows_its_kind() {
        let core = resources::cores()[0];
        for wanted in KINDS {
            on_a_core(wanted, move || async move {
                assert_eq!(kind(), wanted);
                assert_eq!(resources::cores(), [core]);
            });
        }
    }

    #[test]
    fn spawned_work_runs_beside_the_caller() {
        for kind in KINDS {
            on_a_core(kind, || async {
                let done = Rc::new(Cell::new(false));
                let seen = done.clone();
                spawn(async move {
                    clock::sleep(Duration::from_millis(5)).await;
                    seen.set(true);
                });
                assert!(!done.get());
                clock::within(Duration::from_secs(10), async {
                    while !done.get() {
                        clock::sleep(Duration::from_millis(1)).await;
                    }
                })
                .await
                .expect("in time");
            });
        }
    }

    #[test]
    fn time_runs_out() {
        for kind in KINDS {
            on_a_core(kind, || async {
                let began = std::time::Instant::now();
                let never = std::future::pending::<()>();
                let ended = clock::within(Duration::from_millis(30), never).await;
                assert_eq!(ended, Err(clock::Elapsed));
                assert!(began.elapsed() >= Duration::from_millis(30));
            });
        }
    }

    /// Runs `work` on a thread of its own that can set up no ring, and its cores neither.
    fn without_io_uring(work: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(move || {
            forbid_io_uring().expect("a kernel with seccomp");
            work();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    #[test]
    fn epoll_takes_over_where_io_uring_is_forbidden() {
        without_io_uring(|| {
            let chosen = choose(Wanted::Auto).expect("chooses");
            assert_eq!(chosen, Kind::Epoll);
            on_a_core(chosen, || async {
                clock::sleep(Duration::from_millis(1)).await
            });
        });
    }

    #[test]
    fn io_uring_that_is_demanded_and_forbidden_is_an_error_with_a_remedy() {
        without_io_uring(|| {
            let error = choose(Wanted::IoUring).expect_err("forbidden").to_string();
            for part in ["listen.driver", "seccomp", "io_uring_setup", "`auto`"] {
                assert!(error.contains(part), "{error}");
            }
        });
    }

    #[test]
    fn an_address_that_somebody_listens_on_is_not_claimed() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = taken.local_addr().expect("address");
        assert!(matches!(claim(address), Err(EngineError::Listen { .. })));
    }
}
