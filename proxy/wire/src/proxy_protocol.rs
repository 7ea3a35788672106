//! PROXY protocol version 2 [HAProxy, proxy-protocol.txt §2.2]: who is really at the other end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// First bytes of every header.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes before the address block: signature, command, family, length (`u16`, big-endian).
const FIXED_BYTES: usize = 16;

/// Longest address block with its TLVs that is taken.
pub const BODY_BYTES_MAX: usize = 520;

const VERSION_2_LOCAL: u8 = 0x20;
const VERSION_2_PROXY: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const TCP4_BYTES: usize = 12;
const TCP6_BYTES: usize = 36;

const _: () = assert!(TCP6_BYTES <= BODY_BYTES_MAX);

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxied {
    /// A relayed TCP connection.
    Tcp {
        source: SocketAddr,
        destination: SocketAddr,
    },
    /// The proxy itself speaks (a health check): the connection's own addresses count.
    Local,
}

/// Why bytes are not a header that we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    #[error("the signature is not that of version 2")]
    Signature,
    #[error("the version or command is unknown")]
    Command,
    #[error("the address family or transport is not TCP over IP")]
    Family,
    #[error("the header is over the limit")]
    TooLong,
    #[error("the header is too short for its addresses")]
    TooShort,
}

/// The header for a connection from `source` to `destination`. When only one of them is IPv6, the
/// other is written as an IPv4-mapped address.
#[must_use]
pub fn encode(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FIXED_BYTES + TCP6_BYTES);
    bytes.extend_from_slice(&SIGNATURE);
    bytes.push(VERSION_2_PROXY);
    if let (IpAddr::V4(from), IpAddr::V4(to)) = (source.ip(), destination.ip()) {
        bytes.extend_from_slice(&[TCP4, 0, TCP4_BYTES as u8]);
        bytes.extend_from_slice(&from.octets());
        bytes.extend_from_slice(&to.octets());
    } else {
        bytes.extend_from_slice(&[TCP6, 0, TCP6_BYTES as u8]);
        bytes.extend_from_slice(&mapped(source.ip()).octets());
        bytes.extend_from_slice(&mapped(destination.ip()).octets());
    }
    bytes.extend_from_slice(&source.port().to_be_bytes());
    bytes.extend_from_slice(&destination.port().to_be_bytes());
    bytes
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// The header at the start of `bytes` and how long it is; `None` when more bytes are needed.
/// TLVs are skipped.
///
/// # Errors
/// As soon as the bytes can't be a header that we take.
pub fn decode(bytes: &[u8]) -> Result<Option<(Proxied, usize)>, ProxyError> {
    let there = bytes.len().min(SIGNATURE.len());
    if bytes[..there] != SIGNATURE[..there] {
        return Err(ProxyError::Signature);
    }
    let Some(&[command, family, high, low]) = bytes
        .get(SIGNATURE.len()..FIXED_BYTES)
        .and_then(<[u8]>::first_chunk)
    else {
        return match bytes.get(SIGNATURE.len()) {
            Some(&command) if !is_command(command) => Err(ProxyError::Command),
            _ => Ok(None),
        };
    };
    if !is_command(command) {
        return Err(ProxyError::Command);
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > BODY_BYTES_MAX {
        return Err(ProxyError::TooLong);
    }
    let needed = match (command, family) {
        (VERSION_2_LOCAL, _) => 0,
        (_, TCP4) => TCP4_BYTES,
        (_, TCP6) => TCP6_BYTES,
        _ => return Err(ProxyError::Family),
    };
    if length < needed {
        return Err(ProxyError::TooShort);
    }
    let end = FIXED_BYTES + length;
    let Some(body) = bytes.get(FIXED_BYTES..end) else {
        return Ok(None);
    };
    let proxied = match needed {
        0 => Proxied::Local,
        TCP4_BYTES => tcp4(body)?,
        _ => tcp6(body)?,
    };
    Ok(Some((proxied, end)))
}

fn is_command(byte: u8) -> bool {
    matches!(byte, VERSION_2_LOCAL | VERSION_2_PROXY)
}

fn tcp4(body: &[u8]) -> Result<Proxied, ProxyError> {
    let block: &[u8; TCP4_BYTES] = body.first_chunk().ok_or(ProxyError::TooShort)?;
    let [a, b, c, d, e, f, g, h, s0, s1, d0, d1] = *block;
    Ok(Proxied::Tcp {
        source: (Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([s0, s1])).into(),
        destination: (Ipv4Addr::new(e, f, g, h), u16::from_be_bytes([d0, d1])).into(),
    })
}

fn tcp6(body: &[u8]) -> Result<Proxied, ProxyError> {
    let (source, rest) = body.split_first_chunk::<16>().ok_or(ProxyError::TooShort)?;
    let (destination, rest) = rest.split_first_chunk::<16>().ok_or(ProxyError::TooShort)?;
    let &[s0, s1, d0, d1] = rest.first_chunk().ok_or(ProxyError::TooShort)?;
    Ok(Proxied::Tcp {
        source: (Ipv6Addr::from(*source), u16::from_be_bytes([s0, s1])).into(),
        destination: (Ipv6Addr::from(*destination), u16::from_be_bytes([d0, d1])).into(),
    })
}

#[cfg(test)]
mod tests;
