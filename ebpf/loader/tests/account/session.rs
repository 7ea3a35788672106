//! Sessions over TCP whose applications count what they write and read.

use std::io::{ErrorKind, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use socket2::{Domain, SockAddr, SockFilter, SockRef, Socket, Type};

/// What a client says first.
pub const HEAD_BYTES: usize = 4;
/// What a client waits for before it resets.
pub const GOODBYE_BYTES: usize = 1;

/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum End {
    /// The client has said all, the server answers then.
    #[default]
    HalfClose,
    /// Both talk at once, and then say so.
    BothAtOnce,
    /// The client closes without waiting for the server's end.
    ClientGoesAway,
    /// The client resets when all was carried.
    ClientResets,
    /// The server closes with everything unread, which resets.
    ServerDoesNotRead,
}

impl End {
    pub const ALL: [Self; 5] = [
        Self::HalfClose,
        Self::BothAtOnce,
        Self::ClientGoesAway,
        Self::ClientResets,
        Self::ServerDoesNotRead,
    ];
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Plan {
    pub up: u64,
    pub down: u64,
    pub end: End,
    /// The receivers drop some packets, seen and not taken.
    pub lossy: bool,
    pub segment_max: Option<u32>,
    /// Where to connect to, if not where the listener is.
    pub connect: Option<IpAddr>,
    /// Where to connect from.
    pub from: Option<SocketAddr>,
}

#[derive(Debug)]
pub struct Session {
    pub plan: Plan,
    pub client: SocketAddr,
    pub server: SocketAddr,
    pub written_up: u64,
    pub written_down: u64,
}

/// Both ends of a connection.
pub struct Pair {
    pub client: TcpStream,
    pub server: TcpStream,
}

/// Connecting and accepting are one step: what is accepted is what was connected.
static CONNECTING: Mutex<()> = Mutex::new(());

impl Pair {
    pub fn connect(listener: &TcpListener, plan: &Plan) -> Self {
        let _turn = CONNECTING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut address = listener.local_addr().unwrap();
        if let Some(ip) = plan.connect {
            address.set_ip(ip);
        }
        let client = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        client.set_reuse_address(true).unwrap();
        if let Some(size) = plan.segment_max {
            client.set_tcp_mss(size).unwrap();
            SockRef::from(listener).set_tcp_mss(size).unwrap();
        }
        if let Some(from) = plan.from {
            client.bind(&SockAddr::from(from)).unwrap();
        }
        client.connect(&SockAddr::from(address)).unwrap();
        let (server, _) = listener.accept().unwrap();
        let client = TcpStream::from(client);
        for end in [&client, &server] {
            end.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            if plan.lossy {
                lose_some(end);
            }
        }
        Self { client, server }
    }

    /// Sends so many bytes each way, one after the other.
    pub fn exchange(&mut self, up: u64, down: u64) {
        for (from, to, bytes) in [
            (&self.client, &self.server, up),
            (&self.server, &self.client, down),
        ] {
            std::thread::scope(|scope| {
                scope.spawn(|| write(from, bytes));
                read(to, bytes);
            });
        }
    }

    pub fn client_address(&self) -> SocketAddr {
        canonical(self.client.local_addr())
    }

    pub fn server_address(&self) -> SocketAddr {
        canonical(self.server.local_addr())
    }
}

/// Runs a session to its end.
pub fn run(listener: &TcpListener, plan: Plan) -> Session {
    let pair = Pair::connect(listener, &plan);
    let (client_address, server_address) = (pair.client_address(), pair.server_address());
    let Pair { client, server } = pair;
    let mut session = Session {
        plan,
        client: client_address,
        server: server_address,
        written_up: plan.up,
        written_down: plan.down,
    };
    match plan.end {
        End::HalfClose => std::thread::scope(|scope| {
            scope.spawn(|| {
                write(&client, plan.up);
                client.shutdown(Shutdown::Write).unwrap();
                read_to_end(&client, plan.down);
            });
            read_to_end(&server, plan.up);
            write(&server, plan.down);
            server.shutdown(Shutdown::Write).unwrap();
        }),
        End::BothAtOnce => std::thread::scope(|scope| {
            for (end, sends, receives) in
                [(&client, plan.up, plan.down), (&server, plan.down, plan.up)]
            {
                scope.spawn(move || {
                    write(end, sends);
                    end.shutdown(Shutdown::Write).unwrap();
                });
                scope.spawn(move || read_to_end(end, receives));
            }
        }),
        End::ClientGoesAway => {
            session.written_down = 0;
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    write(&client, plan.up);
                    drop(client);
                });
                read_to_end(&server, plan.up);
            });
        }
        End::ClientResets => {
            session.written_up += HEAD_BYTES as u64;
            session.written_down += GOODBYE_BYTES as u64;
            reset(client, &server, plan);
        }
        End::ServerDoesNotRead => {
            session.written_down = 0;
            // As much as surely fits into the buffer of a socket.
            session.written_up = plan.up % 30_000 + 1;
            write(&client, session.written_up);
            while unread(&server) < session.written_up {
                std::thread::sleep(Duration::from_millis(1));
            }
            drop(server);
            let error = (&client).read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    }
    session
}

fn reset(client: TcpStream, server: &TcpStream, plan: Plan) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            write(&client, plan.up + HEAD_BYTES as u64);
            read(&client, plan.down + GOODBYE_BYTES as u64);
            SockRef::from(&client)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            drop(client);
        });
        read(server, plan.up + HEAD_BYTES as u64);
        write(server, plan.down + GOODBYE_BYTES as u64);
        let error = { server }.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

fn canonical(address: std::io::Result<SocketAddr>) -> SocketAddr {
    let address = address.unwrap();
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn write(mut to: &TcpStream, mut bytes: u64) {
    let piece = [0x5a; 16 * 1024];
    while bytes > 0 {
        let now = bytes.min(piece.len() as u64) as usize;
        to.write_all(&piece[..now]).unwrap();
        bytes -= now as u64;
    }
}

fn read(mut from: &TcpStream, mut bytes: u64) {
    let mut piece = [0; 16 * 1024];
    while bytes > 0 {
        let now = bytes.min(piece.len() as u64) as usize;
        from.read_exact(&mut piece[..now]).unwrap();
        bytes -= now as u64;
    }
}

fn read_to_end(mut from: &TcpStream, bytes: u64) {
    read(from, bytes);
    assert_eq!(from.read(&mut [0]).unwrap(), 0);
}

fn unread(socket: &TcpStream) -> u64 {
    let mut bytes = MaybeUninit::<libc::c_int>::zeroed();
    // SAFETY: the kernel writes one number, which lives across the call; zero is one already.
    let bytes = unsafe {
        assert_eq!(
            libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, bytes.as_mut_ptr()),
            0
        );
        bytes.assume_init()
    };
    bytes as u64
}

/// Drops one in 24 packets behind the place where they are counted, before TCP.
fn lose_some(socket: &TcpStream) {
    // From the kernel's `filter.h`: a random word, in a classic filter.
    const RANDOM: u32 = -0x1000i32 as u32 + 56;
    const LOAD_WORD: u16 = 0x20;
    const JUMP_GREATER: u16 = 0x25;
    const RETURN: u16 = 0x06;
    let filter = [
        SockFilter::new(LOAD_WORD, 0, 0, RANDOM),
        SockFilter::new(JUMP_GREATER, 0, 1, u32::MAX / 24),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ];
    SockRef::from(socket).attach_filter(&filter).unwrap();
}
