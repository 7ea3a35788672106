//! The X.224 connection request and confirm [MS-RDPBCGR 2.2.1.1, 2.2.1.2]: which security a
//! client offers, which the target chose, and whether that is good enough.

use ironrdp_core::{ReadCursor, decode_cursor, encode_vec};
use ironrdp_pdu::nego::{
    ConnectionConfirm, ConnectionRequest as NegotiationRequest,
    ConnectionRequestWithOpaqueRoutingToken, FailureCode, NegoRequestData, OpaqueRoutingToken,
    RequestFlags, ResponseFlags, SecurityProtocol,
};
use ironrdp_pdu::x224::X224;

/// TPKT header [RFC 1006 §6]: version, reserved, length (`u16`, big-endian).
const TPKT_BYTES: usize = 4;
const TPKT_VERSION: u8 = 3;

/// X.224 header up to and with the class.
const TPDU_BYTES: usize = 7;

/// RDP_NEG_REQ, RDP_NEG_RSP and RDP_NEG_FAILURE are each this long.
const NEGOTIATION_BYTES: usize = 8;

/// Longest connection request: the length indicator is one byte, and 255 is reserved.
pub const REQUEST_BYTES_MAX: usize = TPKT_BYTES + 1 + 254;

/// Shortest and longest connection confirm: without and with negotiation data.
pub const CONFIRM_BYTES_MIN: usize = TPKT_BYTES + TPDU_BYTES;
pub const CONFIRM_BYTES_MAX: usize = CONFIRM_BYTES_MIN + NEGOTIATION_BYTES;

/// Failure code: the server requires TLS or NLA.
pub const SSL_REQUIRED_BY_SERVER: u32 = 1;
/// Failure code: the server has only standard RDP security.
pub const SSL_NOT_ALLOWED_BY_SERVER: u32 = 2;
/// Failure code: the server requires NLA.
pub const HYBRID_REQUIRED_BY_SERVER: u32 = 5;

/// Why bytes are not a PDU that we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum X224Error {
    #[error("not a TPKT header")]
    NotTpkt,
    #[error("the PDU's length is out of bounds or not what it says")]
    Length,
    #[error("the PDU does not decode")]
    Malformed,
    #[error("the routing token or cookie can't be sent")]
    Cookie,
}

impl X224Error {
    /// The metric and log label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotTpkt => "x224_not_tpkt",
            Self::Length => "x224_length",
            Self::Malformed => "x224_malformed",
            Self::Cookie => "x224_cookie",
        }
    }
}

/// A security protocol that we let through; there is no value for standard RDP security.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// `PROTOCOL_SSL`.
    Tls,
    /// `PROTOCOL_HYBRID`: CredSSP inside TLS.
    Nla,
    /// `PROTOCOL_HYBRID_EX`: the same with an early authorization result.
    NlaEx,
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Tls, Self::Nla, Self::NlaEx];

    /// Its bit on the wire.
    #[must_use]
    pub const fn bit(self) -> u32 {
        match self {
            Self::Tls => 1,
            Self::Nla => 2,
            Self::NlaEx => 8,
        }
    }
}

/// A set of [`Protocol`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Protocols(u32);

impl Protocols {
    pub const NONE: Self = Self(0);
    pub const TLS: Self = Self(Protocol::Tls.bit());
    pub const NLA: Self = Self(Protocol::Nla.bit());
    pub const NLA_EX: Self = Self(Protocol::NlaEx.bit());
    pub const ALL: Self = Self(Self::TLS.0 | Self::NLA.0 | Self::NLA_EX.0);

    /// Those bits of a wire value that we know.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & Self::ALL.0)
    }

    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub const fn contains(self, protocol: Protocol) -> bool {
        self.0 & protocol.bit() != 0
    }

    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl From<Protocol> for Protocols {
    fn from(protocol: Protocol) -> Self {
        Self(protocol.bit())
    }
}

/// What a load balancer before the target may look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cookie {
    /// `Cookie: mstshash=…`, usually the user's name.
    UserHash(String),
    /// `Cookie: msts=…`.
    RoutingToken(String),
    /// Any other line of printable ASCII.
    Opaque(String),
}

/// A client's connection request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionRequest {
    pub cookie: Option<Cookie>,
    protocols: Protocols,
}

impl ConnectionRequest {
    /// Reads the one PDU that `bytes` is; nothing may be left over.
    ///
    /// # Errors
    /// When it is anything but a connection request.
    pub fn parse(bytes: &[u8]) -> Result<Self, X224Error> {
        check_lengths(bytes, REQUEST_BYTES_MAX)?;
        if let Ok(request) = decode_whole::<NegotiationRequest>(bytes) {
            let cookie = match request.nego_data {
                None => None,
                Some(NegoRequestData::Cookie(cookie)) => Some(Cookie::UserHash(cookie.0)),
                Some(NegoRequestData::RoutingToken(token)) => Some(Cookie::RoutingToken(token.0)),
            };
            return Self::new(cookie, request.protocol);
        }
        let opaque = decode_whole::<ConnectionRequestWithOpaqueRoutingToken>(bytes)?;
        Self::new(
            Some(Cookie::Opaque(opaque.routing_token.0)),
            opaque.request.protocol,
        )
    }

    fn new(cookie: Option<Cookie>, protocol: SecurityProtocol) -> Result<Self, X224Error> {
        let protocols = Protocols::from_bits(protocol.bits());
        if let Some(Cookie::UserHash(text) | Cookie::RoutingToken(text)) = &cookie
            && text.chars().any(char::is_control)
        {
            return Err(X224Error::Cookie);
        }
        Ok(Self { cookie, protocols })
    }

    /// What the client offers, of what we know; empty when it offers standard RDP security only.
    #[must_use]
    pub fn protocols(&self) -> Protocols {
        self.protocols
    }
}

/// A connection request that offers `protocols` and nothing else: a target never sees an offer
/// that is weaker than what policy allows, nor flags that we did not look at.
///
/// # Errors
/// When `cookie` is too long or is not one line.
pub fn encode_request(cookie: Option<&Cookie>, protocols: Protocols) -> Result<Vec<u8>, X224Error> {
    if let Some(Cookie::UserHash(text) | Cookie::RoutingToken(text) | Cookie::Opaque(text)) = cookie
        && text.chars().any(char::is_control)
    {
        return Err(X224Error::Cookie);
    }
    let request = NegotiationRequest {
        nego_data: match cookie {
            Some(Cookie::UserHash(name)) => Some(NegoRequestData::cookie(name.clone())),
            Some(Cookie::RoutingToken(token)) => {
                Some(NegoRequestData::routing_token(token.clone()))
            }
            Some(Cookie::Opaque(_)) | None => None,
        },
        flags: RequestFlags::empty(),
        protocol: SecurityProtocol::from_bits_retain(protocols.bits()),
        correlation_info: None,
    };
    let bytes = match cookie {
        Some(Cookie::Opaque(token)) => encode_vec(&X224(ConnectionRequestWithOpaqueRoutingToken {
            request,
            routing_token: OpaqueRoutingToken(token.clone()),
        })),
        _ => encode_vec(&X224(request)),
    };
    bytes
        .ok()
        .filter(|bytes| bytes.len() <= REQUEST_BYTES_MAX)
        .ok_or(X224Error::Cookie)
}

/// A server's connection confirm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirm {
    /// The protocol bits that the server chose, as sent: not 0, else unchecked.
    Selected(u32),
    /// The server refused with this code [MS-RDPBCGR 2.2.1.2.2].
    Failure(u32),
    /// Standard RDP security: no negotiation data, or none selected.
    Standard,
}

/// How long the confirm that begins `bytes` is in all; `None` when more bytes are needed to tell.
///
/// # Errors
/// When it is not a TPKT, or is shorter or longer than any confirm.
pub fn confirm_length(bytes: &[u8]) -> Result<Option<usize>, X224Error> {
    let Some(&version) = bytes.first() else {
        return Ok(None);
    };
    if version != TPKT_VERSION {
        return Err(X224Error::NotTpkt);
    }
    let Some(&[_, _, high, low]) = bytes.first_chunk::<TPKT_BYTES>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if !(CONFIRM_BYTES_MIN..=CONFIRM_BYTES_MAX).contains(&length) {
        return Err(X224Error::Length);
    }
    Ok(Some(length))
}

impl Confirm {
    /// Reads the one PDU that `bytes` is; nothing may be left over.
    ///
    /// # Errors
    /// When it is anything but a connection confirm.
    pub fn parse(bytes: &[u8]) -> Result<Self, X224Error> {
        check_lengths(bytes, CONFIRM_BYTES_MAX)?;
        // The negotiation data's own length field, which the decoder does not look at.
        let inner = CONFIRM_BYTES_MIN + 2;
        if let Some(length) = bytes.get(inner..inner + 2)
            && length != [NEGOTIATION_BYTES as u8, 0]
        {
            return Err(X224Error::Malformed);
        }
        Ok(match decode_whole::<ConnectionConfirm>(bytes)? {
            ConnectionConfirm::Failure { code } => Self::Failure(code.into()),
            ConnectionConfirm::Response { protocol, .. } if protocol.is_empty() => Self::Standard,
            ConnectionConfirm::Response { protocol, .. } => Self::Selected(protocol.bits()),
        })
    }
}

/// A connection confirm, as a server sends it.
#[must_use]
pub fn encode_confirm(confirm: Confirm) -> Vec<u8> {
    let response = |bits| ConnectionConfirm::Response {
        flags: ResponseFlags::empty(),
        protocol: SecurityProtocol::from_bits_retain(bits),
    };
    let confirm = match confirm {
        Confirm::Selected(bits) => response(bits),
        Confirm::Standard => response(0),
        Confirm::Failure(code) => ConnectionConfirm::Failure {
            code: FailureCode::from(code),
        },
    };
    encode_vec(&X224(confirm)).expect("a confirm has a fixed, small size")
}

/// Why a confirm does not lead to a desktop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the target chose standard RDP security")]
    StandardSecurity,
    #[error("the target refused with negotiation failure {0}")]
    ByTarget(u32),
    #[error("the target chose protocols {0:#x}, which is not one that was offered")]
    NotOffered(u32),
}

impl Refused {
    /// The metric and log label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::StandardSecurity => "standard_security",
            Self::ByTarget(_) => "refused_by_target",
            Self::NotOffered(_) => "protocol_not_offered",
        }
    }
}

/// The protocol that was agreed on: exactly one, and one that was offered.
///
/// # Errors
/// When the target failed, chose standard RDP security, or chose what was not offered.
pub fn judge(confirm: Confirm, offered: Protocols) -> Result<Protocol, Refused> {
    match confirm {
        Confirm::Standard | Confirm::Selected(0) => Err(Refused::StandardSecurity),
        Confirm::Failure(code) => Err(Refused::ByTarget(code)),
        Confirm::Selected(bits) => Protocol::ALL
            .into_iter()
            .find(|protocol| protocol.bit() == bits && offered.contains(*protocol))
            .ok_or(Refused::NotOffered(bits)),
    }
}

/// TPKT length = length indicator = what is there: no user data, nothing behind it.
fn check_lengths(bytes: &[u8], bytes_max: usize) -> Result<(), X224Error> {
    let Some(&[version, _, high, low, indicator]) = bytes.first_chunk() else {
        return Err(X224Error::Length);
    };
    if version != TPKT_VERSION {
        return Err(X224Error::NotTpkt);
    }
    let said = usize::from(u16::from_be_bytes([high, low]));
    let inside = TPKT_BYTES + 1 + usize::from(indicator);
    if bytes.len() > bytes_max || said != bytes.len() || inside != bytes.len() {
        return Err(X224Error::Length);
    }
    Ok(())
}

fn decode_whole<T>(bytes: &[u8]) -> Result<T, X224Error>
where
    X224<T>: for<'de> ironrdp_core::Decode<'de>,
{
    let mut cursor = ReadCursor::new(bytes);
    let X224(value) = decode_cursor(&mut cursor).map_err(|_| X224Error::Malformed)?;
    if !cursor.is_empty() {
        return Err(X224Error::Malformed);
    }
    Ok(value)
}

#[cfg(test)]
mod tests;
