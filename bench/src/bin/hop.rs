//! The engine's relay as a bare hop: what it costs without login, policy and audit, on the ways that
//! other relays have too.

use std::net::{AddrParseError, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::{Parser, ValueEnum};
use futures_lite::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use postern_engine::front::{self, Wanted};
use postern_engine::net::{self, Listener, Stream};
use postern_engine::relay::ktls::{self, Carrier, InstallError};
use postern_engine::relay::{self, Relay};
use postern_relay::flow::{Framing, Line};
use postern_relay::{Flow, Goodbye, Leg, Times};
use postern_session::provider;
use postern_session::tls::{self, TlsStream};
use postern_wire::http1;
use postern_wire::websocket::{Decoder, DecoderLimits, TextPolicy};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// As long as the gateway's own limits are.
const TIMES: Times = Times {
    absolute_ms: 0,
    idle_ms: 0,
    ping_ms: 30_000,
    stall_ms: 60_000,
    half_close_ms: 10_000,
    goodbye_ms: 1_000,
};

/// Longest head of an upgrade.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Longest payload of one frame.
const FRAME_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    way: Way,
    #[arg(long)]
    listen: SocketAddr,
    /// An address, or `unix:` and the path of a stream socket.
    #[arg(long)]
    target: Target,
    #[arg(long, default_value_t = 0)]
    core: usize,
    #[arg(long, default_value = "io_uring")]
    driver: Driver,
    /// Certificate chain in PEM, for `tls` and `wss`.
    #[arg(long)]
    chain: Option<PathBuf>,
    /// Its key in PEM.
    #[arg(long)]
    key: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Way {
    /// TCP to the target as it comes.
    Passthrough,
    /// TLS to the target, in the kernel where it can.
    Tls,
    /// WebSocket to the target.
    Ws,
    /// WebSocket in TLS to the target.
    Wss,
}

#[derive(Debug, Clone)]
enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for Target {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Driver {
    #[value(name = "io_uring")]
    IoUring,
    Epoll,
}

/// What every connection needs.
struct Hop {
    way: Way,
    target: Target,
    relay: Relay,
    tls: Option<Arc<ServerConfig>>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    postern_bench::measure::raise_descriptor_limit()?;
    let kind = front::choose(match arguments.driver {
        Driver::IoUring => Wanted::IoUring,
        Driver::Epoll => Wanted::Epoll,
    })?;
    let tls = match arguments.way {
        Way::Tls | Way::Wss => Some(Arc::new(server_config(&arguments)?)),
        Way::Passthrough | Way::Ws => None,
    };
    if arguments.way == Way::Tls {
        match ktls::available() {
            Ok(()) => eprintln!("hop: records of TLS 1.3 are the kernel's"),
            Err(absence) => eprintln!("hop: records are our own: {absence}"),
        }
    }
    let core = front::start(arguments.core, kind, move || async move {
        if let Err(error) = serve(&arguments, tls).await {
            eprintln!("hop: {error:#}");
        }
    })?;
    let ended = core.join().map_err(|_| anyhow!("the core panicked"))?;
    ended?;
    bail!("the hop ended by itself");
}

fn server_config(arguments: &Arguments) -> Result<ServerConfig> {
    let (chain, key) = arguments
        .chain
        .as_ref()
        .zip(arguments.key.as_ref())
        .context("TLS wants --chain and --key")?;
    let chain = CertificateDer::pem_file_iter(chain)?.collect::<Result<Vec<_>, _>>()?;
    let mut config = ServerConfig::builder_with_provider(provider::towards_browsers())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.ticketer = provider::ticketer()?;
    config.send_tls13_tickets = 2;
    config.enable_secret_extraction = true;
    Ok(config)
}

async fn serve(arguments: &Arguments, tls: Option<Arc<ServerConfig>>) -> Result<()> {
    let (relay, delivery) = relay::start(arguments.core, front::kind())?;
    front::spawn(async move {
        if let Err(error) = delivery.run().await {
            eprintln!("hop: {error:#}");
        }
    });
    let listener = Listener::bind(arguments.listen)?;
    let hop = Rc::new(Hop {
        way: arguments.way,
        target: arguments.target.clone(),
        relay,
        tls,
    });
    loop {
        let (client, ..) = listener.accept().await?;
        let hop = hop.clone();
        front::spawn(async move {
            // The load's clients notice what does not come about; this helps to find out why.
            if let Err(error) = connection(&hop, client).await {
                eprintln!("hop: {error:#}");
            }
        });
    }
}

async fn connection(hop: &Hop, mut client: Stream) -> Result<()> {
    let (client, flow) = match hop.way {
        Way::Passthrough => (client.into_descriptor()?, Flow::passthrough(TIMES)),
        Way::Tls => opened(accept(hop, client).await?).await?,
        Way::Ws => {
            // An end before the first byte is somebody who looked whether we are there.
            let Some(early) = upgrade(&mut client).await? else {
                return Ok(());
            };
            let mut flow = framed(Line::Plain);
            ensure!(flow.seed_plain(Leg::Client, &early), "too much came early");
            (client.into_descriptor()?, flow)
        }
        Way::Wss => {
            let mut client = accept(hop, client).await?;
            let Some(early) = upgrade(&mut client).await? else {
                return Ok(());
            };
            let (client, records, left) = client.into_relay().await?;
            let mut flow = framed(Line::Tls(Box::new(records)));
            let fits = flow.seed_plain(Leg::Client, &early) && left.seed(&mut flow, Leg::Client);
            ensure!(fits, "too much came early");
            (client.into_descriptor()?, flow)
        }
    };
    let target = match &hop.target {
        Target::Tcp(address) => net::connect(*address).await,
        Target::Unix(path) => net::connect_unix(path).await,
    };
    let target = target.context("the target")?.into_descriptor()?;
    hop.relay.carry(client, target, flow).await;
    Ok(())
}

async fn accept(hop: &Hop, client: Stream) -> Result<TlsStream<Stream>> {
    let config = hop.tls.clone().context("TLS has a certificate")?;
    tls::accept(config, client).await.context("TLS")
}

/// What the client says in TLS, as it comes: a passthrough where the kernel carries its records.
async fn opened(client: TlsStream<Stream>) -> Result<(OwnedFd, Flow)> {
    let agreed = client.agreed();
    let suite = agreed.negotiated_cipher_suite();
    let suite = suite.map(|suite| suite.suite());
    let (client, line, left) =
        match ktls::choose(ktls::available(), agreed.protocol_version(), suite) {
            Carrier::Kernel => {
                let (client, handed, left) = client.hand_over_between_records().await?;
                let client = client.into_descriptor()?;
                let line = match ktls::take_over(client.as_fd(), handed.secrets()) {
                    Ok(()) => handed.kernel_line(),
                    Err(half @ InstallError::Half(_)) => return Err(half.into()),
                    // A client that has ended its side, for one, is no longer the kernel's to take.
                    Err(_) => Line::Tls(Box::new(handed.into_records()?)),
                };
                (client, line, left)
            }
            Carrier::Ourselves(_) => {
                let (client, records, left) = client.into_relay().await?;
                let line = Line::Tls(Box::new(records));
                (client.into_descriptor()?, line, left)
            }
        };
    let mut flow = Flow::framed(line, Line::Plain, Framing::None, TIMES, |_| Goodbye::NONE);
    ensure!(left.seed(&mut flow, Leg::Client), "too much came early");
    if left.closed {
        flow.seed_close(Leg::Client);
    }
    Ok((client, flow))
}

fn framed(client: Line) -> Flow {
    let limits = DecoderLimits {
        frame_bytes_max: FRAME_BYTES_MAX,
    };
    let decoder = Decoder::new(limits, TextPolicy::Refuse);
    let framing = Framing::WebSocket(Box::new(decoder));
    Flow::framed(client, Line::Plain, framing, TIMES, |_| Goodbye {
        code: 1000,
        reason: "",
    })
}

/// Answers an upgrade; what came behind it, or `None` where nothing came at all.
async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(client: &mut S) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = client.read(&mut buffer).await?;
        if read == 0 && bytes.is_empty() {
            return Ok(None);
        }
        ensure!(read > 0, "the client left within its request");
        bytes.extend_from_slice(&buffer[..read]);
        ensure!(bytes.len() <= HEAD_BYTES_MAX, "a head without end");
        if let Some(head) = http1::parse_head(&bytes)? {
            client.write_all(&http1::websocket_accept(&head)?).await?;
            client.flush().await?;
            let length = head.length;
            return Ok(Some(bytes.split_off(length)));
        }
    }
}
