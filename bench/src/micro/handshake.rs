//! TLS 1.3 handshakes in memory: the server's part of them.

use std::sync::Arc;

use anyhow::{Result, ensure};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, ServerConfig};

use super::{FIGURE_NS, Figure};
use crate::load::SERVER_NAME;
use crate::load::tls::{self, State, Tls};
use crate::measure::thread_cpu_ns;

/// Microseconds, for every provider and key exchange.
pub(super) fn run() -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (name, provider) in providers() {
        for resumed in [false, true] {
            let (server, _) = tls::server_config(provider.clone(), SERVER_NAME)?;
            let client = tls::client_config(provider.clone(), resumed)?;
            let us = server_ns(&client, &server, resumed)? / 1000.0;
            let variant = format!("{name}, {}", if resumed { "resumed" } else { "full" });
            figures.push(if figures.is_empty() {
                Figure::reference(&variant, us)
            } else {
                Figure::new(&variant, us)
            });
        }
    }
    Ok(figures)
}

/// The first one is what ships.
fn providers() -> [(&'static str, CryptoProvider); 4] {
    let ring = rustls::crypto::ring::default_provider();
    let aws = aws_lc_rs::default_provider();
    let today = aws_lc_rs::kx_group::X25519MLKEM768;
    let with = |provider: &CryptoProvider, group| CryptoProvider {
        kx_groups: vec![group],
        ..provider.clone()
    };
    [
        ("ring, X25519MLKEM768", with(&ring, today)),
        (
            "ring, X25519",
            with(&ring, rustls::crypto::ring::kx_group::X25519),
        ),
        ("aws-lc-rs, X25519MLKEM768", with(&aws, today)),
        ("aws-lc-rs, X25519", with(&aws, aws_lc_rs::kx_group::X25519)),
    ]
}

fn server_ns(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, resumed: bool) -> Result<f64> {
    // The first one brings the ticket.
    let mut used = one(client, server)?.1;
    let mut count = 0;
    used = if resumed { 0 } else { used };
    count += u64::from(!resumed);
    while used < FIGURE_NS {
        let (was_resumed, ns) = one(client, server)?;
        ensure!(was_resumed == resumed, "resumed: {was_resumed}");
        used += ns;
        count += 1;
    }
    Ok(used as f64 / count as f64)
}

/// One handshake: whether it was resumed, and the server's CPU.
fn one(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Result<(bool, u64)> {
    let mut client = Tls::client(client, SERVER_NAME)?;
    let mut server_ns = 0;
    let mut timed = |begin: u64| server_ns += thread_cpu_ns() - begin;
    let begin = thread_cpu_ns();
    let mut server = Tls::server(server)?;
    timed(begin);
    let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
    let mut nothing = |_: &[u8]| Ok(());
    loop {
        let (used, _) = client.read(&mut to_client, &mut to_server, &mut nothing)?;
        to_client.drain(..used);
        let begin = thread_cpu_ns();
        let (used, state) = server.read(&mut to_server, &mut to_client, &mut nothing)?;
        timed(begin);
        to_server.drain(..used);
        if state == State::Established {
            // The tickets.
            client.read(&mut to_client, &mut to_server, &mut nothing)?;
            return Ok((server.is_resumed(), server_ns));
        }
    }
}
