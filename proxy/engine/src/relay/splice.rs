//! Moves bytes from one socket to the other inside the kernel, through a pipe.
//!
//! For flows whose bytes pass as they are: a bulky lane is promoted to a [`Conduit`] and falls back to
//! plain receives and sends when it is chatty, because a message then costs two system calls and two polls.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// What a pipe should hold: twice what 64 KiB receives can keep under way costs half as much per byte,
/// and the kernel gives no more than this without privileges (`fs.pipe-max-size`).
pub const PIPE_BYTES: usize = 1 << 20;

/// A smaller pipe is not worth the system calls.
pub const PIPE_BYTES_MIN: usize = 64 * 1024;

/// Pipes that one core lends at the same time; each takes two descriptors.
pub const PIPES_MAX: usize = 512;

/// Pipes that a core keeps for the next lane; they hold no pages while they are empty.
const PIPES_FREE_MAX: usize = 64;

/// Fills and drains of one wake, so that no lane keeps the others waiting.
pub const ITERATIONS_MAX: u32 = 4;

/// Why a lane can't be spliced now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// As many as allowed are lent.
    Exhausted,
    /// The kernel gives no pipe, or only a small one (`fs.pipe-user-pages-soft`).
    Kernel,
}

/// The pipes of one core.
#[derive(Debug, Default)]
pub struct Pipes {
    free: Vec<Pipe>,
    lent: usize,
    /// How often a lane got one.
    lendings: u64,
    /// How often a lane got none.
    refused: u64,
}

/// An empty pipe.
#[derive(Debug)]
struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    bytes: usize,
}

/// One direction of a flow that goes through a pipe.
#[derive(Debug)]
pub struct Conduit {
    pipe: Pipe,
    /// Bytes that left the source and did not reach the sink.
    inside: usize,
    source_is_over: bool,
}

/// What one wake brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that left the source.
    pub taken: usize,
    /// Bytes that the sink took.
    pub moved: usize,
    pub state: State,
}

/// What a conduit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing: it has used up its iterations.
    Ready,
    /// Bytes of the source; the pipe is empty.
    Source,
    /// Room in the sink.
    Sink,
    /// The source has ended and everything was delivered.
    Finished,
    SourceBroken,
    SinkBroken,
    /// These sockets can't be spliced; nothing was lost.
    Unfit,
}

impl Pipes {
    /// Borrows a pipe for one lane between two sockets, which are made non-blocking.
    ///
    /// # Errors
    /// When there is none.
    pub fn lend(
        &mut self,
        source: BorrowedFd<'_>,
        sink: BorrowedFd<'_>,
    ) -> Result<Conduit, Refusal> {
        let pipe = self.pipe(source, sink).inspect_err(|_| self.refused += 1)?;
        self.lent += 1;
        self.lendings += 1;
        Ok(Conduit {
            pipe,
            inside: 0,
            source_is_over: false,
        })
    }

    /// Takes a pipe back; one that still holds bytes is closed.
    pub fn give_back(&mut self, conduit: Conduit) {
        self.lent -= 1;
        if conduit.inside == 0 && self.free.len() < PIPES_FREE_MAX {
            self.free.push(conduit.pipe);
        }
    }

    /// How often a lane was lent a pipe, and how often it was refused one.
    #[cfg(test)]
    pub fn lendings(&self) -> (u64, u64) {
        (self.lendings, self.refused)
    }

    fn pipe(&mut self, source: BorrowedFd<'_>, sink: BorrowedFd<'_>) -> Result<Pipe, Refusal> {
        if self.lent >= PIPES_MAX {
            return Err(Refusal::Exhausted);
        }
        for socket in [source, sink] {
            set_nonblocking(socket).map_err(|_| Refusal::Kernel)?;
        }
        let pipe = match self.free.pop() {
            Some(pipe) => pipe,
            None => Pipe::new().map_err(|_| Refusal::Kernel)?,
        };
        if pipe.bytes < PIPE_BYTES_MIN {
            return Err(Refusal::Kernel);
        }
        Ok(pipe)
    }
}

impl Conduit {
    /// Moves what can be moved now, in at most `iterations` fills.
    pub fn pump(
        &mut self,
        source: BorrowedFd<'_>,
        sink: BorrowedFd<'_>,
        iterations: u32,
    ) -> Progress {
        let mut progress = Progress {
            taken: 0,
            moved: 0,
            state: State::Ready,
        };
        for _ in 0..iterations {
            if let Some(end) = self.step(source, sink, &mut progress) {
                progress.state = end;
                break;
            }
        }
        progress
    }

    /// Whether everything that left the source has reached the sink.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inside == 0
    }

    fn step(
        &mut self,
        source: BorrowedFd<'_>,
        sink: BorrowedFd<'_>,
        progress: &mut Progress,
    ) -> Option<State> {
        if self.inside == 0 && !self.source_is_over {
            match splice(source, self.pipe.writer.as_fd(), self.pipe.bytes) {
                Ok(0) => self.source_is_over = true,
                Ok(bytes) => {
                    self.inside = bytes;
                    progress.taken += bytes;
                }
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    return Some(State::Unfit);
                }
                Err(error) => return Some(or_blocked(&error, State::Source, State::SourceBroken)),
            }
        }
        while self.inside > 0 {
            match splice(self.pipe.reader.as_fd(), sink, self.inside) {
                Ok(bytes) => {
                    self.inside -= bytes;
                    progress.moved += bytes;
                }
                Err(error) => return Some(or_blocked(&error, State::Sink, State::SinkBroken)),
            }
        }
        self.source_is_over.then_some(State::Finished)
    }
}

fn or_blocked(error: &io::Error, blocked: State, broken: State) -> State {
    match error.kind() {
        io::ErrorKind::WouldBlock => blocked,
        _ => broken,
    }
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let mut ends = [-1; 2];
        // SAFETY: pipe2 writes two descriptors into the array, which lives on this frame.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just opened both descriptors for us alone.
        let [reader, writer] = ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) });
        let bytes = widen(writer.as_fd())?;
        Ok(Self {
            reader,
            writer,
            bytes,
        })
    }
}

/// Makes a pipe as large as the kernel allows; what it holds then.
fn widen(pipe: BorrowedFd<'_>) -> io::Result<usize> {
    let mut wanted = PIPE_BYTES;
    while wanted >= PIPE_BYTES_MIN {
        let size = i32::try_from(wanted).expect("a pipe is far smaller than 2 GiB");
        // SAFETY: F_SETPIPE_SZ takes an integer and touches no memory of ours.
        if unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, size) } >= 0 {
            break;
        }
        wanted /= 2;
    }
    // SAFETY: F_GETPIPE_SZ takes no argument and touches no memory of ours.
    let bytes = unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_GETPIPE_SZ) };
    usize::try_from(bytes).map_err(|_| io::Error::last_os_error())
}

fn set_nonblocking(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_GETFL takes no argument and touches no memory of ours.
    let flags = unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::O_NONBLOCK != 0 {
        return Ok(());
    }
    // SAFETY: F_SETFL takes an integer and touches no memory of ours.
    match unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, bytes: usize) -> io::Result<usize> {
    loop {
        // SAFETY: both descriptors are open as long as they are borrowed; the offsets are null, as
        // sockets and pipes want them.
        let moved = unsafe {
            libc::splice(
                from.as_raw_fd(),
                std::ptr::null_mut(),
                to.as_raw_fd(),
                std::ptr::null_mut(),
                bytes,
                libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE,
            )
        };
        match usize::try_from(moved) {
            Ok(moved) => return Ok(moved),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "splice_tests.rs"]
mod tests;
