//! The server that all loads end at: it does what a connection orders, over any of its doors.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use postern_wire::http1;
use postern_wire::x224::{self, Confirm, Protocol};
use rustls::ServerConfig;
use tokio_uring::net::{TcpListener, TcpStream};

use super::command::{BEGUN, COMMAND_BYTES, Command, LAST};
use super::desktop;
use super::frames::Reads;
use super::pattern::{PERIOD_BYTES, Pattern};
use super::stream::{FRAME_BYTES, Reader, Stream, Writer};
use super::tls::{self, Tls};
use super::work::{BURST_MESSAGES, Groups, MESSAGE_BYTES};
use super::{Addresses, SERVER_NAME, ring};
use crate::measure;

/// Most that is received at once.
const BUFFER_BYTES: usize = 128 * 1024;

/// Longest head of an upgrade, and of an X.224 request.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What a door speaks before orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Plain,
    Tls,
    Ws,
    Wss,
    Rdp,
}

/// Serves until the process ends; `tell` learns the addresses when all of them listen.
///
/// # Errors
/// It can't listen.
pub fn serve(tell: impl FnOnce(Addresses) -> Result<()>) -> Result<()> {
    ring::run(async move {
        let (config, certificate) =
            tls::server_config(tls::provider(Groups::Browser), SERVER_NAME)?;
        let open = |door| listen(door, config.clone());
        let addresses = Addresses {
            plain: open(Door::Plain)?,
            tls: open(Door::Tls)?,
            ws: open(Door::Ws)?,
            wss: open(Door::Wss)?,
            rdp: open(Door::Rdp)?,
            fingerprint: fingerprint(&certificate),
        };
        tell(addresses)?;
        std::future::pending().await
    })
}

fn fingerprint(certificate: &[u8]) -> String {
    let digest = ::ring::digest::digest(&::ring::digest::SHA256, certificate);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn listen(door: Door, config: Arc<ServerConfig>) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let address = listener.local_addr()?;
    tokio_uring::spawn(async move {
        let pattern = Pattern::default();
        loop {
            let socket = match listener.accept().await {
                Ok((socket, _)) => socket,
                Err(error) => {
                    eprintln!("server: {door:?} accepts no more: {error}");
                    return;
                }
            };
            let (config, pattern) = (config.clone(), pattern.clone());
            tokio_uring::spawn(async move {
                if let Err(error) = connection(door, socket, &config, pattern).await {
                    // Clients judge whether they got what they wanted; this only helps to find out why not.
                    if !is_departure(&error) {
                        eprintln!("server: {door:?}: {error:#}");
                    }
                }
            });
        }
    });
    Ok(address)
}

/// Clients and relays break off when a case is over.
fn is_departure(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.is::<std::io::Error>() || cause.to_string().contains("closed"))
}

async fn connection(
    door: Door,
    socket: TcpStream,
    config: &Arc<ServerConfig>,
    pattern: Pattern,
) -> Result<()> {
    let mut stream = Stream::new(socket, BUFFER_BYTES)?;
    if door == Door::Rdp && !negotiate(&mut stream).await? {
        return Ok(());
    }
    if matches!(door, Door::Tls | Door::Wss | Door::Rdp) {
        stream.start_tls(Tls::server(config)?).await?;
    }
    if matches!(door, Door::Ws | Door::Wss) {
        upgrade(&mut stream).await?;
    }
    while let Some(command) = next_command(&mut stream.reader).await? {
        stream.writer.send(BEGUN).await?;
        obey(command, &mut stream, &pattern).await?;
    }
    Ok(())
}

/// [MS-RDPBCGR 2.2.1.2] Chooses TLS, whatever is offered beside it; `false` when nobody asked.
async fn negotiate(stream: &mut Stream) -> Result<bool> {
    let request = stream
        .reader
        .receive_raw(HEAD_BYTES_MAX, &mut |bytes| {
            // [RFC 1006 §6] TPKT: version, reserved, length.
            let length = bytes
                .get(2..4)
                .map(|length| usize::from(u16::from_be_bytes([length[0], length[1]])));
            Ok(length.filter(|length| (4..=bytes.len()).contains(length)))
        })
        .await;
    // Gateways look whether a target is there.
    if request.is_err() {
        return Ok(false);
    }
    let confirm = x224::encode_confirm(Confirm::Selected(Protocol::Tls.bit()));
    stream.writer.send(&confirm).await?;
    Ok(true)
}

async fn upgrade(stream: &mut Stream) -> Result<()> {
    let head = stream
        .reader
        .receive_raw(HEAD_BYTES_MAX, &mut |bytes| {
            Ok(http1::parse_head(bytes)?.map(|head| head.length))
        })
        .await?;
    let head = http1::parse_head(&head)?.context("a whole head")?;
    let accepted = http1::websocket_accept(&head)?;
    stream.writer.send(&accepted).await?;
    stream.start_websocket(Reads::Server);
    Ok(())
}

/// `None` when the client is done.
async fn next_command(reader: &mut Reader) -> Result<Option<Command>> {
    let mut order = Vec::with_capacity(COMMAND_BYTES);
    while order.len() < COMMAND_BYTES {
        let more = reader
            .receive(&mut |bytes| {
                order.extend_from_slice(bytes);
                Ok(())
            })
            .await?;
        if !more {
            ensure!(order.is_empty(), "the connection ended within an order");
            return Ok(None);
        }
    }
    match order.as_slice().try_into() {
        Ok(order) => Command::parse(order).map(Some),
        Err(_) => bail!("bytes came behind an order that has not begun"),
    }
}

async fn obey(command: Command, stream: &mut Stream, pattern: &Pattern) -> Result<()> {
    let Stream { reader, writer } = stream;
    match command {
        Command::Echo => echo(reader, writer).await,
        Command::Sink { bytes } => {
            let mut expected = pattern.restarted();
            reader
                .receive_exactly(bytes, &mut |arrived| expected.check(arrived))
                .await?;
            writer.send(&bytes.to_be_bytes()).await
        }
        Command::Source { bytes } => {
            ensure!(
                bytes % PERIOD_BYTES as u64 == 0,
                "a source of whole periods"
            );
            writer.prepare(pattern.period(), FRAME_BYTES);
            for _ in 0..bytes / PERIOD_BYTES as u64 {
                writer.send_prepared().await?;
            }
            Ok(())
        }
        Command::Bursts { rounds } => {
            let bytes = BURST_MESSAGES * MESSAGE_BYTES;
            for _ in 0..rounds {
                reader
                    .receive_exactly(bytes as u64, &mut |_| Ok(()))
                    .await?;
                writer.send(&pattern.period()[..MESSAGE_BYTES]).await?;
            }
            Ok(())
        }
        Command::Desktop { ms, seed } => {
            desktop::serve(reader, writer, ms, seed, pattern.clone()).await
        }
        Command::Cpu => {
            let used_ns = measure::cpu_ns(std::process::id())?;
            writer.send(&used_ns.to_be_bytes()).await
        }
    }
}

async fn echo(reader: &mut Reader, writer: &mut Writer) -> Result<()> {
    let mut at = 0;
    let mut is_last = false;
    let mut reply = Vec::new();
    while !is_last || at % MESSAGE_BYTES != 0 {
        reply.clear();
        let more = reader
            .receive(&mut |bytes| {
                for (place, byte) in bytes.iter().enumerate() {
                    if (at + place) % MESSAGE_BYTES == 0 {
                        ensure!(!is_last, "a message came after the last one");
                        is_last = *byte == LAST;
                    }
                }
                at += bytes.len();
                reply.extend_from_slice(bytes);
                Ok(())
            })
            .await?;
        ensure!(more, "the connection closed while it was echoed");
        writer.send(&reply).await?;
    }
    Ok(())
}
