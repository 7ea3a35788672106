//! Which driver carries this process: io_uring, or epoll where the kernel forbids io_uring.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use crate::EngineError;

/// What the cores of this process run on. Front and relay are always of the same kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    IoUring,
    Epoll,
}

/// What the administrator wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wanted {
    /// io_uring where it is allowed, epoll elsewhere.
    #[default]
    Auto,
    IoUring,
    Epoll,
}

impl Kind {
    /// As configuration, log and metrics write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// Why the kernel gives this process no ring that could carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    #[error("sysctl kernel.io_uring_disabled is {0}")]
    BySysctl(u8),
    #[error("a seccomp filter forbids it, as containers have one by default")]
    BySeccomp,
    #[error("a security module forbids it")]
    BySecurityModule,
    #[error("the kernel has no io_uring")]
    Absent,
    #[error("the kernel is older than 6.1")]
    TooOld,
}

impl Forbidden {
    fn remedy(self) -> &'static str {
        match self {
            Self::BySysctl(_) => "set kernel.io_uring_disabled = 0",
            Self::BySeccomp => {
                "let the filter pass io_uring_setup, io_uring_enter and io_uring_register"
            }
            Self::BySecurityModule => "allow it in the module's policy",
            Self::Absent | Self::TooOld => "run Linux 6.1 or newer with CONFIG_IO_URING",
        }
    }
}

/// Decides what the cores run on, and says in the log why it is not io_uring.
///
/// # Errors
/// When io_uring is demanded and forbidden, or can't be tried for want of memory or descriptors.
pub fn choose(wanted: Wanted) -> Result<Kind, EngineError> {
    if wanted == Wanted::Epoll {
        return Ok(Kind::Epoll);
    }
    let ring = try_ring().map_err(EngineError::Probe)?;
    decide(wanted, ring)
}

fn decide(wanted: Wanted, ring: Result<(), Forbidden>) -> Result<Kind, EngineError> {
    match (wanted, ring) {
        (Wanted::Epoll, _) => Ok(Kind::Epoll),
        (_, Ok(())) => Ok(Kind::IoUring),
        (Wanted::Auto, Err(why)) => {
            tracing::warn!(%why, remedy = why.remedy(), "io_uring is forbidden; epoll takes its place");
            Ok(Kind::Epoll)
        }
        (Wanted::IoUring, Err(why)) => Err(EngineError::IoUringForbidden {
            why,
            remedy: why.remedy(),
        }),
    }
}

/// `struct io_uring_params` of the kernel's ABI: `flags` is its third word, the rest may be zero.
#[repr(C, align(8))]
struct RingParameters {
    words: [u32; 30],
}

/// Entries of the ring that is tried: the least.
const TRIED_ENTRIES: u32 = 2;

/// What the relay's rings ask for (Linux 6.1), so that the answer holds for them too:
/// `IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN`.
const TRIED_FLAGS: u32 = (1 << 12) | (1 << 13);

/// Makes a ring, enters it once and closes it again. Filters may forbid either call.
fn try_ring() -> io::Result<Result<(), Forbidden>> {
    let mut parameters = RingParameters { words: [0; 30] };
    parameters.words[2] = TRIED_FLAGS;
    // SAFETY: io_uring_setup reads and writes one io_uring_params (120 bytes, as RingParameters is),
    // which lives on this frame, and keeps no pointer to it.
    let made =
        unsafe { libc::syscall(libc::SYS_io_uring_setup, TRIED_ENTRIES, &raw mut parameters) };
    if made < 0 {
        return forbidden(io::Error::last_os_error());
    }
    let number = i32::try_from(made).expect("descriptors are small numbers");
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
    let ring = unsafe { OwnedFd::from_raw_fd(number) };
    // SAFETY: io_uring_enter submits nothing, waits for nothing and is given no memory.
    let entered = unsafe {
        libc::syscall(
            libc::SYS_io_uring_enter,
            ring.as_raw_fd(),
            0,
            0,
            0,
            std::ptr::null::<libc::sigset_t>(),
            0,
        )
    };
    if entered < 0 {
        return forbidden(io::Error::last_os_error());
    }
    Ok(Ok(()))
}

/// Sorts a failure of the calls above: what forbids io_uring, or something else that went wrong.
fn forbidden(error: io::Error) -> io::Result<Result<(), Forbidden>> {
    let sysctl = || {
        let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
        text.trim().parse().ok().filter(|value| *value > 0)
    };
    Ok(Err(match error.raw_os_error() {
        Some(libc::EPERM) => sysctl().map_or(Forbidden::BySeccomp, Forbidden::BySysctl),
        Some(libc::EACCES) => Forbidden::BySecurityModule,
        Some(libc::ENOSYS) => Forbidden::Absent,
        Some(libc::EINVAL) => Forbidden::TooOld,
        _ => return Err(error),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_what_the_kernel_allows_and_a_demand_is_a_demand() {
        let not = Err(Forbidden::BySysctl(2));
        for (wanted, ring, chosen) in [
            (Wanted::Auto, Ok(()), Some(Kind::IoUring)),
            (Wanted::Auto, not, Some(Kind::Epoll)),
            (Wanted::IoUring, Ok(()), Some(Kind::IoUring)),
            (Wanted::IoUring, not, None),
            (Wanted::Epoll, Ok(()), Some(Kind::Epoll)),
            (Wanted::Epoll, not, Some(Kind::Epoll)),
        ] {
            assert_eq!(decide(wanted, ring).ok(), chosen, "{wanted:?}, {ring:?}");
        }
    }

    #[test]
    fn what_forbids_io_uring_is_told_from_what_went_wrong() {
        for (errno, sorted) in [
            (libc::EACCES, Some(Forbidden::BySecurityModule)),
            (libc::ENOSYS, Some(Forbidden::Absent)),
            (libc::EINVAL, Some(Forbidden::TooOld)),
            (libc::EMFILE, None),
            (libc::ENOMEM, None),
        ] {
            let told = forbidden(io::Error::from_raw_os_error(errno));
            assert_eq!(told.ok().and_then(Result::err), sorted, "errno {errno}");
        }
    }
}
