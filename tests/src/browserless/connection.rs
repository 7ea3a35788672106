//! How a browser reaches its gateway: TCP from an address of its own, then TLS.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, Result};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection};
use socket2::{Domain, Socket, Type};

use super::{Browser, PATIENCE};
use crate::duplex::Duplex;

impl Browser {
    /// A TLS connection, and its own address.
    ///
    /// # Errors
    /// The gateway does not let it come about.
    pub fn connect(&self) -> Result<(Duplex, SocketAddr)> {
        self.connect_for(&self.host)
    }

    /// As [`Browser::connect`], asking TLS for another name.
    ///
    /// # Errors
    /// The gateway does not let it come about.
    pub fn connect_for(&self, name: &str) -> Result<(Duplex, SocketAddr)> {
        let socket = self.socket()?;
        let source = socket.local_addr()?;
        let connection = self.tls(name)?;
        let stream = Duplex::handshake(socket, Connection::Client(connection), PATIENCE)
            .context("TLS with the gateway")?;
        Ok((stream, source))
    }

    /// A TLS handshake that the gateway waits to go on: of what a client says first, `part` of a
    /// hundred has been sent.
    ///
    /// # Errors
    /// The gateway takes no connection.
    pub fn hang(&self, part: usize) -> Result<TcpStream> {
        let mut socket = self.socket()?;
        let mut hello = Vec::new();
        self.tls(&self.host)?.write_tls(&mut hello)?;
        // A gateway that sheds connections may have ended this one.
        let _ = socket.write_all(&hello[..hello.len() * part / 100]);
        Ok(socket)
    }

    fn tls(&self, name: &str) -> Result<ClientConnection> {
        let name = ServerName::try_from(name.to_owned())?;
        Ok(ClientConnection::new(self.tls.clone(), name)?)
    }

    fn socket(&self) -> Result<TcpStream> {
        let domain = Domain::for_address(self.gateway);
        let socket = Socket::new(domain, Type::STREAM, None)?;
        if let Some(source) = self.source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        socket
            .connect_timeout(&self.gateway.into(), PATIENCE)
            .context("the gateway takes no connection")?;
        Ok(socket.into())
    }

    /// SHA-256 of the certificate that the gateway shows, in hex.
    ///
    /// # Errors
    /// The handshake fails.
    pub fn certificate(&self) -> Result<String> {
        let (stream, _) = self.connect()?;
        stream.with_tls(|tls| {
            let leaf = tls.peer_certificates().and_then(|chain| chain.first());
            let mut tally = crate::noise::Tally::default();
            tally.add(leaf.context("no certificate")?);
            Ok(tally.digest().sha256)
        })
    }
}
