//! Makes a core's ring out of what this kernel has, and finds out how it receives best.

use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

use io_uring::{IoUring, Probe, cqueue, opcode, types};
use postern_relay::memory::RECEIVE_BYTES_MAX;

use crate::relay::buffers::{Buffers, Shape};

use super::operation::{Target, capped_bundles};

/// Entries that are gathered before the kernel looks at them.
const SUBMISSIONS: u32 = 1024;

/// Answers that wait for us; the kernel keeps more than these in memory of its own.
const COMPLETIONS: u32 = 16 * 1024;

/// Sockets that a ring's own table holds at most, two a flow.
const TABLE_MAX: u32 = 64 * 1024;

/// How a receive is armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveMode {
    /// Armed once for many messages; each answer takes as many buffers as it fills, and the kernel
    /// counts the bytes down (Linux 6.17).
    ///
    /// Bundles without this cap are of no use: they bring whatever the socket holds.
    CappedBundles,
    /// One answer, one buffer.
    Single,
}

/// How a ring receives, and into what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receiving {
    pub mode: ReceiveMode,
    pub shape: Shape,
}

/// What a ring is made with.
#[derive(Debug, Clone, Copy)]
pub struct Wishes {
    /// Whatever suits this kernel best, if nothing is said.
    pub receiving: Option<Receiving>,
    pub sockets_max: u32,
}

/// A ring and what it can do.
pub struct Ring {
    pub ring: IoUring,
    pub receiving: Receiving,
    /// Size of the table of sockets; 0 where the kernel has none.
    pub table: u32,
    /// Sockets of the table can have descriptors (Linux 6.8).
    pub has_install: bool,
}

impl From<ReceiveMode> for Receiving {
    /// With the buffers that suit the mode: without bundles, one must hold a whole receive. Their sizes are no
    /// powers of two: the first bytes of all buffers would share a few lines of the cache.
    fn from(mode: ReceiveMode) -> Self {
        let shape = match mode {
            ReceiveMode::CappedBundles => Shape {
                count: 256,
                count_min: 16,
                buffer_bytes: 16 * 1024 + 320,
            },
            ReceiveMode::Single => Shape {
                count: 64,
                count_min: 4,
                buffer_bytes: RECEIVE_BYTES_MAX as u32 + 320,
            },
        };
        Self { mode, shape }
    }
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            receiving: None,
            sockets_max: TABLE_MAX,
        }
    }
}

impl Ring {
    /// Must be called on the thread that will use the ring.
    ///
    /// # Errors
    /// When io_uring is forbidden, or older than Linux 6.1.
    pub fn new(wishes: Wishes) -> io::Result<Self> {
        let ring = build(SUBMISSIONS, COMPLETIONS).map_err(unable("be set up"))?;
        let receiving = match wishes.receiving {
            Some(receiving) => receiving,
            None => receive_mode()?.into(),
        };
        let table = register_table(&ring, wishes.sockets_max);
        let has_install = can_install(&ring);
        tracing::info!(
            mode = ?receiving.mode,
            sockets_max = table,
            "relay runs on io_uring"
        );
        if table > 0 && !has_install {
            tracing::warn!(
                "this kernel is older than 6.8: what it drops when a session breaks off counts as sent, \
                 and what it had received and nobody read does not count"
            );
        }
        Ok(Self {
            ring,
            receiving,
            table,
            has_install,
        })
    }
}

/// Tries on a socket pair whether the kernel keeps to the cap of a receive.
fn receive_mode() -> io::Result<ReceiveMode> {
    const SMALL: Shape = Shape {
        count: 8,
        count_min: 8,
        buffer_bytes: 4096,
    };
    const CAP: u32 = 2 * SMALL.buffer_bytes;
    let buffers = Buffers::new(SMALL).map_err(unable("have buffers"))?;
    let mut ring = build(8, 64).map_err(unable("be set up"))?;
    // SAFETY: the ring is dropped before the buffers, when this function returns.
    unsafe { buffers.register(&ring.submitter()) }.map_err(unable("have buffers"))?;
    let (receiver, mut sender) = UnixStream::pair().map_err(unable("be tried"))?;
    sender
        .write_all(&[0; CAP as usize + 1])
        .map_err(unable("be tried"))?;
    let entry = capped_bundles(Target::Descriptor(receiver.as_raw_fd()), CAP);
    // SAFETY: the receive writes to registered buffers only, which outlive the ring.
    unsafe { ring.submission().push(&entry) }.expect("the queue is empty");
    let patience = types::Timespec::new().sec(1);
    let arguments = types::SubmitArgs::new().timespec(&patience);
    if ring.submitter().submit_with_args(1, &arguments).is_err() {
        return Ok(ReceiveMode::Single);
    }
    let keeps_to_it = ring.completion().next().is_some_and(|answer| {
        u32::try_from(answer.result()) == Ok(CAP) && !cqueue::more(answer.flags())
    });
    drop(ring);
    Ok(if keeps_to_it {
        ReceiveMode::CappedBundles
    } else {
        ReceiveMode::Single
    })
}

fn can_install(ring: &IoUring) -> bool {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).is_ok()
        && probe.is_supported(opcode::FixedFdInstall::CODE)
}

/// A ring whose work is done on the thread that waits for it, and when it waits (Linux 6.1).
fn build(entries: u32, completions: u32) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .dontfork()
        .setup_cqsize(completions)
        .setup_submit_all()
        .setup_coop_taskrun()
        .setup_single_issuer()
        .setup_defer_taskrun();
    // An indirection less where the kernel can do without (Linux 6.6).
    match builder.clone().setup_no_sqarray().build(entries) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => builder.build(entries),
        built => built,
    }
}

/// Registers an empty table, as large as the limit of open files lets it be.
fn register_table(ring: &IoUring, sockets_max: u32) -> u32 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: getrlimit writes one rlimit struct, which lives on this stack frame.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    let wanted = u32::try_from(limit.rlim_cur).map_or(sockets_max, |limit| limit.min(sockets_max));
    // A flow takes two neighbours.
    let wanted = wanted & !1;
    match ring.submitter().register_files_sparse(wanted) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::warn!(%error, "sockets of relayed flows keep their descriptors");
            0
        }
    }
}

fn unable(what: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("io_uring can't {what}: {error}"))
}
