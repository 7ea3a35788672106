//! Free TCP ports on loopback.

use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context as _, Result};

/// A loopback address that nobody listens on, and that the kernel gives to nobody for a minute: only
/// who names it gets it.
///
/// # Errors
/// The system has no free port.
pub fn free() -> Result<SocketAddr> {
    reserve().context("cannot find a free port")
}

/// A connection that is over leaves the end that closed first in TIME_WAIT. The kernel chooses no
/// such port, neither for who listens on port 0 nor for who connects; a server that asks for it with
/// `SO_REUSEADDR`, as servers do, may have it.
fn reserve() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let mut client = TcpStream::connect(address)?;
    let (server, _) = listener.accept()?;
    drop(server);
    // The server's end has closed, and first, when this has seen it.
    client.read_to_end(&mut Vec::new())?;
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The connections of `address` that the kernel remembers: their states, as it numbers them.
    fn remembered(address: SocketAddr) -> Vec<String> {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let local = format!("0100007F:{:04X}", address.port());
        let rows = table.lines().map(|line| line.split_whitespace().collect());
        rows.filter(|row: &Vec<&str>| row.get(1) == Some(&local.as_str()))
            .map(|row| row[3].to_owned())
            .collect()
    }

    #[test]
    fn a_port_waits_for_the_server_that_was_promised_it() {
        let address = free().unwrap();
        assert_eq!(remembered(address), ["06"], "TIME_WAIT");
        let listener = TcpListener::bind(address).unwrap();
        assert_eq!(listener.local_addr().unwrap(), address);
    }
}
