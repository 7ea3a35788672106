//! A cable with a meter: passes TCP connections on, counts both ways, and can be torn.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use postern_parts::wait;
use socket2::SockRef;

/// How soon a torn cable is noticed.
const LOOK: Duration = Duration::from_millis(20);

/// A connection ends within this time.
const PATIENCE: Duration = Duration::from_secs(60);

const CHUNK_BYTES: usize = 64 * 1024;

/// A running tap; dropping it tears what is left of its connections.
#[derive(Debug)]
pub struct Tap {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

/// What one connection carried; the tap's ends of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Who connected to the tap.
    pub caller: SocketAddr,
    /// The tap's own address towards whom it connected to.
    pub outwards: SocketAddr,
    /// Read of the caller, and written to it.
    pub from_caller: u64,
    pub to_caller: u64,
    /// Read of whom the tap connected to, and written to it.
    pub from_called: u64,
    pub to_called: u64,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    lines: Mutex<Vec<Arc<Line>>>,
    is_torn: AtomicBool,
    is_over: AtomicBool,
}

#[derive(Debug)]
struct Line {
    caller: SocketAddr,
    outwards: SocketAddr,
    /// Read and written, from the caller, then towards it.
    counts: [[AtomicU64; 2]; 2],
    ended: AtomicUsize,
}

impl Tap {
    /// Listens on `address`, whose port may be 0, and passes what comes on to `upstream`.
    ///
    /// # Errors
    /// The address is taken.
    pub fn start(address: SocketAddr, upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).context("no address for a tap")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream,
            lines: Mutex::default(),
            is_torn: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        });
        let served = shared.clone();
        std::thread::spawn(move || {
            for caller in listener.incoming().map_while(Result::ok) {
                if served.is_over.load(Ordering::SeqCst) {
                    return;
                }
                if let Err(error) = served.join(caller) {
                    eprintln!("tap: {error:#}");
                }
            }
        });
        Ok(Self { address, shared })
    }

    /// Ends all connections of now by resets, both ways.
    pub fn tear(&self) {
        self.shared.is_torn.store(true, Ordering::SeqCst);
    }

    /// What the connection number `number` (from 0) carried, once it has ended.
    ///
    /// # Errors
    /// It does not end.
    pub fn passed(&self, number: usize) -> Result<Passed> {
        wait::until("the end of a tapped connection", PATIENCE, || {
            let lines = self.shared.lines();
            let line = lines.get(number);
            Ok(line
                .filter(|line| line.ended.load(Ordering::SeqCst) == 2)
                .map(|line| line.passed()))
        })
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.lines().len()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.tear();
        // Wakes the thread that accepts; it sees that this is the end.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

impl Shared {
    fn lines(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(self: &Arc<Self>, caller: TcpStream) -> Result<()> {
        let called = TcpStream::connect(self.upstream).context("nobody is upstream")?;
        for socket in [&caller, &called] {
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(LOOK))?;
        }
        let line = Arc::new(Line {
            caller: caller.peer_addr()?,
            outwards: called.local_addr()?,
            counts: Default::default(),
            ended: AtomicUsize::new(0),
        });
        self.lines().push(line.clone());
        let ways = [(caller.try_clone()?, called.try_clone()?), (called, caller)];
        for (way, (from, to)) in ways.into_iter().enumerate() {
            let (shared, line) = (self.clone(), line.clone());
            std::thread::spawn(move || {
                shared.carry(&from, &to, &line.counts[way]);
                drop((from, to));
                line.ended.fetch_add(1, Ordering::SeqCst);
            });
        }
        Ok(())
    }

    fn carry(&self, mut from: &TcpStream, mut to: &TcpStream, [read, written]: &[AtomicU64; 2]) {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            if self.is_torn.load(Ordering::SeqCst) {
                // Whoever closes last resets.
                for socket in [from, to] {
                    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
                }
                return;
            }
            match from.read(&mut buffer) {
                Ok(0) => {
                    // Who is gone needs no end.
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(bytes) => {
                    read.fetch_add(bytes as u64, Ordering::SeqCst);
                    if to.write_all(&buffer[..bytes]).is_err() {
                        return;
                    }
                    written.fetch_add(bytes as u64, Ordering::SeqCst);
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => {
                    let _ = to.shutdown(Shutdown::Both);
                    return;
                }
            }
        }
    }
}

impl Line {
    fn passed(&self) -> Passed {
        let [[from_caller, to_called], [from_called, to_caller]] = &self.counts;
        let count = |count: &AtomicU64| count.load(Ordering::SeqCst);
        Passed {
            caller: self.caller,
            outwards: self.outwards,
            from_caller: count(from_caller),
            to_caller: count(to_caller),
            from_called: count(from_called),
            to_called: count(to_called),
        }
    }
}
