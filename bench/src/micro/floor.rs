//! The least that a relay between two TLS connections can cost: receive, decrypt, encrypt, send, by bare
//! rustls and the kernel in one thread.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::load::tls::{self, Tls};
use crate::measure::thread_cpu_ns;

/// Most that one receive brings: as much as our relay takes at once.
const RECEIVE_BYTES: usize = 64 * 1024;

/// What the sender seals at a time.
const SEND_BYTES: usize = 64 * 1024;

/// CPU seconds for 10⁹ bytes; `up` from a client of ours to a server.
///
/// # Errors
/// Loopback fails, or bytes get lost.
pub fn floor(up: bool, bytes: u64) -> Result<f64> {
    let (from, arrival) = pair()?;
    let (departure, to) = pair()?;
    let (client_ends, server_ends) = (tls::connected()?, tls::connected()?);
    // Towards the sender we are the server when a client sends.
    let ((sender, opens), (seals, receiver)) = if up {
        (client_ends, server_ends)
    } else {
        let swap = |(client, server)| (server, client);
        (swap(client_ends), swap(server_ends))
    };
    let threads = [
        std::thread::spawn(move || send(from, sender, bytes)),
        std::thread::spawn(move || receive(to, receiver, bytes)),
    ];
    let ns = carry(arrival, departure, opens, seals, bytes)?;
    for thread in threads {
        thread.join().map_err(|_| anyhow!("an end panicked"))??;
    }
    Ok(ns as f64 / bytes as f64)
}

fn pair() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let connecting = TcpStream::connect(listener.local_addr()?)?;
    let (accepted, _) = listener.accept()?;
    for socket in [&connecting, &accepted] {
        socket.set_nodelay(true)?;
    }
    Ok((connecting, accepted))
}

fn send(mut socket: TcpStream, mut tls: Tls, bytes: u64) -> Result<()> {
    let plain = vec![0x55; SEND_BYTES];
    let mut sealed = Vec::new();
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(SEND_BYTES).min(SEND_BYTES);
        sealed.clear();
        tls.write(&plain[..part], &mut sealed)?;
        socket.write_all(&sealed)?;
        left -= part as u64;
    }
    Ok(())
}

fn receive(mut socket: TcpStream, mut tls: Tls, bytes: u64) -> Result<()> {
    let mut received = 0;
    let mut sealed = vec![0; 2 * RECEIVE_BYTES];
    let (mut filled, mut replies) = (0, Vec::new());
    while received < bytes {
        let read = socket.read(&mut sealed[filled..])?;
        ensure!(read > 0, "{received} of {bytes} bytes arrived");
        filled += read;
        let (used, _) = tls.read(&mut sealed[..filled], &mut replies, &mut |plain| {
            received += plain.len() as u64;
            Ok(())
        })?;
        sealed.copy_within(used..filled, 0);
        filled -= used;
    }
    Ok(())
}

/// The part that is measured.
fn carry(
    mut arrival: TcpStream,
    mut departure: TcpStream,
    mut opens: Tls,
    mut seals: Tls,
    bytes: u64,
) -> Result<u64> {
    let begin = thread_cpu_ns();
    let mut incoming = vec![0; 2 * RECEIVE_BYTES];
    let (mut filled, mut carried) = (0, 0);
    let (mut outgoing, mut replies) = (Vec::new(), Vec::new());
    while carried < bytes {
        let room = filled + RECEIVE_BYTES;
        let read = arrival
            .read(&mut incoming[filled..room])
            .context("receive")?;
        ensure!(read > 0, "{carried} of {bytes} bytes came");
        filled += read;
        outgoing.clear();
        let (used, _) = opens.read(&mut incoming[..filled], &mut replies, &mut |plain| {
            carried += plain.len() as u64;
            seals.write(plain, &mut outgoing)
        })?;
        incoming.copy_within(used..filled, 0);
        filled -= used;
        departure.write_all(&outgoing).context("send")?;
    }
    Ok(thread_cpu_ns() - begin)
}
