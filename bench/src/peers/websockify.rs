//! websockify: a process of its own for every connection.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::Result;

use super::{Certificate, Ground, HOST, Peer, Relay, Way, folder, free_port, on_core};
use crate::load::{Target, Upgrade};

pub(super) fn start(way: Way, ground: &Ground<'_>) -> Result<Relay> {
    let listen = free_port()?;
    let upgrades = vec![Upgrade {
        path: "/websockify".to_owned(),
        host: HOST.to_owned(),
        ..Upgrade::default()
    }];
    let (target, certificate) = match way {
        Way::Wss => (
            Target::wss(listen, HOST, upgrades),
            Some(ground.certificate),
        ),
        _ => (Target::ws(listen, upgrades), None),
    };
    let command = command(ground, listen, certificate)?;
    Relay::single(Peer::Websockify.name(), target, &command, folder()?)?.ready(listen)
}

/// websockify that listens on `listen`, with TLS where there is a certificate.
pub(super) fn command(
    ground: &Ground<'_>,
    listen: SocketAddr,
    certificate: Option<&Certificate>,
) -> Result<Command> {
    let mut command = on_core(ground.cores.relay, &ground.binaries.get("websockify")?);
    if let Some(certificate) = certificate {
        command.arg("--cert").arg(&certificate.chain);
        command.arg("--key").arg(&certificate.key);
        command.arg("--ssl-only");
    }
    command.args([listen.to_string(), ground.server.plain.to_string()]);
    Ok(command)
}
