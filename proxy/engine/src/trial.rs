//! What tests need around the engine: a core of either kind, and a kernel that forbids io_uring.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

#[cfg(test)]
pub(crate) use cores::{KINDS, on_a_core};

/// Makes io_uring a thing that `command`'s process may not set up, as containers do: `EPERM`.
pub fn forbid_io_uring_in(command: &mut Command) {
    // SAFETY: between fork and exec the closure makes two system calls on data of its own stack, and
    // allocates nothing.
    unsafe { command.pre_exec(forbid_io_uring) };
}

/// Forbids io_uring to the calling thread, and to threads and processes that it starts later.
///
/// # Errors
/// When the kernel takes no filter.
pub fn forbid_io_uring() -> io::Result<()> {
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: u16::try_from(code).expect("codes are short"),
        jt: 0,
        jf: 0,
        k,
    };
    let load_number = statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0);
    let number = u32::try_from(libc::SYS_io_uring_setup).expect("numbers are small");
    let skip_unless_setup = libc::sock_filter {
        jf: 1,
        ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number)
    };
    let refusal = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
    let mut program = [
        load_number,
        skip_unless_setup,
        statement(libc::BPF_RET | libc::BPF_K, refusal),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog {
        len: 4,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: PR_SET_NO_NEW_PRIVS takes plain integers and touches no memory of ours.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the kernel copies the filter, whose length is that of `program`, before the call returns.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod cores {
    use std::future::Future;

    use crate::front::{self, Kind};
    use crate::resources;

    pub(crate) const KINDS: [Kind; 2] = [Kind::IoUring, Kind::Epoll];

    /// Runs `work` on a core of its own; a panic in there is the caller's.
    pub(crate) fn on_a_core<F, W>(kind: Kind, work: F)
    where
        F: FnOnce() -> W + Send + 'static,
        W: Future<Output = ()> + 'static,
    {
        let core = resources::cores()[0];
        let thread = front::start(core, kind, work).expect("starts");
        match thread.join() {
            Ok(ended) => ended.expect("runs"),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
