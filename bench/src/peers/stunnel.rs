//! stunnel as the TLS end of a relay, of a WebSocket's or of whatever comes.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use super::{Ground, HOST, Peer, Relay, folder, free_port, on_core, websockify, write};
use crate::load::{Target, Upgrade};

/// TLS in front of the load's server.
pub(super) fn start(ground: &Ground<'_>) -> Result<Relay> {
    let folder = folder()?;
    let listen = free_port()?;
    let command = command(ground, &folder, listen, ground.server.plain)?;
    let target = Target::tls(listen, HOST);
    Relay::single(Peer::Stunnel.name(), target, &command, folder)?.ready(listen)
}

/// TLS by stunnel, WebSocket by websockify behind it.
pub(super) fn before_websockify(ground: &Ground<'_>) -> Result<Relay> {
    let folder = folder()?;
    let (listen, inner) = (free_port()?, free_port()?);
    let command = command(ground, &folder, listen, inner)?;
    let upgrade = Upgrade {
        path: "/websockify".to_owned(),
        host: HOST.to_owned(),
        ..Upgrade::default()
    };
    let target = Target::wss(listen, HOST, vec![upgrade]);
    let mut relay = Relay::single(Peer::Stunnel.name(), target, &command, folder)?;
    relay.add("websockify", &websockify::command(ground, inner, None)?)?;
    relay.ready(inner)?.ready(listen)
}

fn command(
    ground: &Ground<'_>,
    folder: &TempDir,
    listen: SocketAddr,
    behind: SocketAddr,
) -> Result<Command> {
    let (chain, key) = (
        ground.certificate.chain.display(),
        ground.certificate.key.display(),
    );
    let text = format!(
        "foreground = yes\n\
         pid =\n\
         debug = warning\n\
         [load]\n\
         accept = {listen}\n\
         connect = {behind}\n\
         cert = {chain}\n\
         key = {key}\n"
    );
    let file = folder.path().join("stunnel.conf");
    write(&file, &text)?;
    let mut command = on_core(ground.cores.relay, &ground.binaries.get("stunnel")?);
    command.arg(&file);
    Ok(command)
}
