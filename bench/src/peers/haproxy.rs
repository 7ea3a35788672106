//! HAProxy as a TCP relay, copying or splicing.

use anyhow::Result;

use super::{Ground, Peer, Relay, folder, free_port, on_core, write};
use crate::load::Target;

pub(super) fn start(peer: Peer, ground: &Ground<'_>) -> Result<Relay> {
    let folder = folder()?;
    let listen = free_port()?;
    let option = if peer == Peer::HaProxySplice {
        "option splice-auto"
    } else {
        "no option splice-auto"
    };
    let server = ground.server.plain;
    let text = format!(
        "global\n    \
             nbthread 1\n\
         defaults\n    \
             mode tcp\n    \
             {option}\n    \
             timeout connect 10s\n    \
             timeout client 1h\n    \
             timeout server 1h\n\
         frontend in\n    \
             bind {listen} backlog 4096\n    \
             default_backend out\n\
         backend out\n    \
             server load {server}\n"
    );
    let file = folder.path().join("haproxy.cfg");
    write(&file, &text)?;
    let mut command = on_core(ground.cores.relay, &ground.binaries.get("haproxy")?);
    // In the foreground.
    command.arg("-db").arg("-f").arg(&file);
    Relay::single(peer.name(), Target::tcp(listen), &command, folder)?.ready(listen)
}
