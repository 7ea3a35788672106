//! Limits of the process that the engine depends on, raised or named.

use std::io;

use crate::EngineError;

/// glommio registers its buffers with the kernel: 512 KiB of locked memory for each core.
const LOCKED_BYTES_MIN: u64 = 512 * 1024;

/// File descriptors that a process needs beside its connections.
const DESCRIPTORS_SPARE: u64 = 256;

/// Raises the soft limits as far as the hard ones allow.
///
/// `connections` is how many client connections may live at once; each takes two descriptors.
///
/// # Errors
/// Names the limit that is too low and what to do.
pub fn prepare(connections: u32) -> Result<(), EngineError> {
    let descriptors = u64::from(connections) * 2 + DESCRIPTORS_SPARE;
    let have = raise(libc::RLIMIT_NOFILE, descriptors);
    if have < descriptors {
        return Err(EngineError::Resource {
            limit: "the limit of open files (RLIMIT_NOFILE)",
            have,
            need: descriptors,
            remedy: "raise it (LimitNOFILE= in the unit, `ulimit -n`) or lower limits.connections_max",
        });
    }
    let have = raise(libc::RLIMIT_MEMLOCK, LOCKED_BYTES_MIN);
    if have < LOCKED_BYTES_MIN {
        return Err(EngineError::Resource {
            limit: "the limit of locked memory in bytes (RLIMIT_MEMLOCK)",
            have,
            need: LOCKED_BYTES_MIN,
            remedy: "raise it (LimitMEMLOCK= in the unit, `ulimit -l`)",
        });
    }
    Ok(())
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
        let error = prepare(u32::MAX).expect_err("no machine has that many");
        assert!(error.to_string().contains("connections_max"), "{error}");
    }
}
