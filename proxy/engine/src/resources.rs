//! Limits of the process that the engine depends on, raised or named.

use std::io;

use crate::EngineError;
use crate::front::Kind;

/// glommio registers its buffers with the kernel: 512 KiB of locked memory for each core.
const LOCKED_BYTES_MIN: u64 = 512 * 1024;

/// File descriptors that a process needs beside its connections: for all cores together, and for
/// each of them (rings, listeners, journal, wake-ups).
const DESCRIPTORS_SPARE: u64 = 256;
const DESCRIPTORS_OF_A_CORE: u64 = 32;

/// What a connection holds: its own socket, and one to the target or to the web server.
const DESCRIPTORS_OF_A_CONNECTION: u64 = 2;

/// Connections that must be able to come in at once, however many sessions are allowed beside them.
const OPENINGS_MIN: u32 = 1024;

/// Raises the soft limits as far as the hard ones allow. Returns how many connections may hold
/// descriptors at a time: all of `connections_max`, or fewer where the process may not have as many.
///
/// An established session holds none on io_uring, where its sockets are in the ring's own table: then
/// only the others, which are on their way to be sessions, are asked for.
///
/// # Errors
/// Names the limit that is too low and what to do.
pub fn prepare(kind: Kind, connections_max: u32, sessions_max: u32) -> Result<u32, EngineError> {
    let descriptors = Descriptors::needed(kind, connections_max, sessions_max, cores().len());
    let have = raise(libc::RLIMIT_NOFILE, descriptors.for_all);
    let connections = descriptors.judge(kind, have, connections_max)?;
    // glommio registers buffers with the kernel; epoll locks nothing.
    if kind == Kind::IoUring {
        let have = raise(libc::RLIMIT_MEMLOCK, LOCKED_BYTES_MIN);
        if have < LOCKED_BYTES_MIN {
            return Err(EngineError::Resource {
                limit: "the limit of locked memory in bytes (RLIMIT_MEMLOCK)",
                have,
                need: LOCKED_BYTES_MIN,
                remedy: "raise it (LimitMEMLOCK= in the unit, `ulimit -l`)",
            });
        }
    }
    Ok(connections)
}

/// How many descriptors it takes.
#[derive(Debug, PartialEq, Eq)]
struct Descriptors {
    /// Beside connections.
    spare: u64,
    /// With as many connections as must be able to hold some.
    at_least: u64,
    /// With every connection.
    for_all: u64,
}

impl Descriptors {
    fn needed(kind: Kind, connections_max: u32, sessions_max: u32, cores: usize) -> Self {
        let openings = match kind {
            Kind::IoUring => connections_max
                .saturating_sub(sessions_max)
                .max(OPENINGS_MIN.min(connections_max)),
            Kind::Epoll => connections_max,
        };
        let spare = DESCRIPTORS_SPARE + DESCRIPTORS_OF_A_CORE * cores as u64;
        let with = |connections| spare + DESCRIPTORS_OF_A_CONNECTION * u64::from(connections);
        Self {
            spare,
            at_least: with(openings),
            for_all: with(connections_max),
        }
    }

    fn judge(&self, kind: Kind, have: u64, connections_max: u32) -> Result<u32, EngineError> {
        if have < self.at_least {
            return Err(EngineError::Resource {
                limit: "the limit of open files (RLIMIT_NOFILE)",
                have,
                need: self.at_least,
                remedy: match kind {
                    Kind::IoUring => {
                        "two for every connection of limits.connections_max that is not one of \
                         limits.sessions_max (sessions hold none on io_uring); raise it \
                         (LimitNOFILE= in the unit, `ulimit -n`) or lower limits.connections_max"
                    }
                    Kind::Epoll => {
                        "two for every connection, since the driver is epoll; raise it \
                         (LimitNOFILE= in the unit, `ulimit -n`) or lower limits.connections_max"
                    }
                },
            });
        }
        let connections = (have - self.spare) / DESCRIPTORS_OF_A_CONNECTION;
        Ok(u32::try_from(connections).map_or(connections_max, |most| most.min(connections_max)))
    }
}

/// Keeps secrets out of core files and away from debuggers of the same user.
pub fn forbid_dumps() {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: setrlimit reads one rlimit struct, which lives on this stack frame.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
    // SAFETY: PR_SET_DUMPABLE takes plain integers and touches no memory of ours.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
}

/// The process gets `signal` when the thread that started it ends: no orphans.
pub fn die_with_parent(signal: i32) {
    // SAFETY: PR_SET_PDEATHSIG takes plain integers and touches no memory of ours.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal, 0, 0, 0) };
}

/// Sends `signal` to a child that has not been waited for, so that its id can't be another's.
pub fn signal(child: &std::process::Child, signal: i32) {
    let Ok(id) = libc::pid_t::try_from(child.id()) else {
        return;
    };
    // SAFETY: kill takes plain integers and touches no memory of ours.
    unsafe { libc::kill(id, signal) };
}

/// Cores that the process may run on, in ascending order.
#[must_use]
pub fn cores() -> Vec<usize> {
    // SAFETY: an all-zero cpu_set_t is a valid empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most the given size into `set`, which lives on this frame.
    let status = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if status != 0 {
        return vec![0];
    }
    (0..usize::try_from(libc::CPU_SETSIZE).expect("CPU_SETSIZE is positive"))
        // SAFETY: the index is below CPU_SETSIZE.
        .filter(|core| unsafe { libc::CPU_ISSET(*core, &set) })
        .collect()
}

/// Keeps the calling thread, and threads that it starts later, on `core`.
///
/// # Errors
/// When the process may not run there.
pub(crate) fn pin(core: usize) -> io::Result<()> {
    let size = usize::try_from(libc::CPU_SETSIZE).expect("CPU_SETSIZE is positive");
    if core >= size {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: an all-zero cpu_set_t is a valid empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the index is below CPU_SETSIZE.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the kernel reads at most the given size from `set`, which lives on this frame.
    match unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Raises a soft limit to at least `wanted` if it is lower; the limit then in force.
fn raise(resource: libc::__rlimit_resource_t, wanted: u64) -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: getrlimit writes one rlimit struct, which lives on this stack frame.
    if unsafe { libc::getrlimit(resource, &raw mut limit) } != 0 {
        return 0;
    }
    if limit.rlim_cur >= wanted {
        return limit.rlim_cur;
    }
    // A privileged process may raise the hard limit as well; try that first.
    for hard in [limit.rlim_max.max(wanted), limit.rlim_max] {
        let raised = libc::rlimit {
            rlim_cur: wanted.min(hard),
            rlim_max: hard,
        };
        // SAFETY: setrlimit reads one rlimit struct, which lives on this stack frame.
        if unsafe { libc::setrlimit(resource, &raw const raised) } == 0 {
            return raised.rlim_cur;
        }
    }
    limit.rlim_cur
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_core() {
        assert!(!cores().is_empty());
    }

    #[test]
    fn too_many_descriptors_are_refused_with_a_remedy() {
        for kind in [Kind::IoUring, Kind::Epoll] {
            let error = prepare(kind, u32::MAX, 0).expect_err("no machine has that many");
            assert!(error.to_string().contains("connections_max"), "{error}");
        }
    }

    #[test]
    fn what_is_there_is_shared_out() {
        let have = prepare(Kind::Epoll, 10, 10).expect("a few are always there");
        assert_eq!(have, 10);
    }

    #[test]
    fn established_sessions_need_no_descriptors_on_io_uring() {
        // kind, connections, sessions, have; how many connections may hold descriptors.
        for (kind, connections, sessions, have, allowed) in [
            (Kind::IoUring, 12_000, 10_000, 20_000, Some(9_840)),
            (Kind::Epoll, 12_000, 10_000, 20_000, None),
            (Kind::Epoll, 8_000, 4_000, 20_000, Some(8_000)),
            (Kind::IoUring, 8_000, 4_000, 20_000, Some(8_000)),
            // 1,024 have to get in, even where all connections may be sessions.
            (Kind::IoUring, 10_000, 10_000, 2_367, None),
            (Kind::IoUring, 10_000, 10_000, 2_368, Some(1_024)),
            // Fewer than that were never allowed.
            (Kind::IoUring, 100, 100, 520, Some(100)),
            (Kind::IoUring, 100, 4_000, 519, None),
        ] {
            let descriptors = Descriptors::needed(kind, connections, sessions, 2);
            let judged = descriptors.judge(kind, have, connections).ok();
            assert_eq!(judged, allowed, "{kind:?} {connections} {sessions} {have}");
        }
    }

    #[test]
    fn a_core_that_is_not_there_is_not_pinned_to() {
        for core in [1_000, usize::MAX] {
            assert!(pin(core).is_err(), "{core}");
        }
    }
}
