//! An application: a public address, a target behind it, and who may open it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::policy::Policy;

/// Name of the cookie that carries an application token; its path is the application's prefix.
pub const APPLICATION_COOKIE: &str = "__Secure-postern-app";

/// One published desktop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// Unique slug, `[a-z0-9-]{1,63}`; part of the token's audience and of audit records.
    pub name: String,
    /// What people read on the tile.
    pub title: String,
    /// Where browsers find it.
    pub public: PublicAddress,
    /// What the gateway dials.
    pub target: Target,
    /// How the target's certificate is judged.
    pub certificate: CertificatePolicy,
    /// RDP security protocols that may be negotiated; never empty, never standard RDP security.
    pub security: Vec<RdpSecurity>,
    /// Evaluated in order; no match denies.
    pub policies: Vec<Policy>,
    /// How long a session may live.
    pub session: SessionLimits,
}

impl Application {
    /// The `aud` of this application's tokens.
    #[must_use]
    pub fn audience(&self) -> String {
        format!("app:{}", self.name)
    }
}

/// Where browsers find an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicAddress {
    /// Scheme, host and port exactly as a browser sends it in `Origin`, e.g. `https://gw.example:8443`.
    pub origin: String,
    /// Host as in `Host` and SNI, without port, lower case.
    pub host: String,
    /// Path prefix without a trailing slash: `/app/NAME` on the organisation's host, empty on a
    /// host name of its own. The page is `PREFIX/`, the WebSocket `PREFIX/rdp`.
    pub prefix: String,
}

impl PublicAddress {
    /// The path of the WebSocket upgrade.
    #[must_use]
    pub fn websocket_path(&self) -> String {
        format!("{}/rdp", self.prefix)
    }
}

/// Host (name or address literal, without brackets) and port that the gateway dials.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// SHA-256 of a certificate's DER, 32 bytes; text form is 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

/// How a target's certificate is judged. IronRDP's web client judges nothing: the gateway must.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificatePolicy {
    /// The leaf is one of these.
    Pin(Vec<Fingerprint>),
    /// The chain leads to one of these roots (PEM bundle) and names the target's host.
    Ca(String),
    /// The first leaf seen is kept in the store; another one later is refused and reported.
    FirstUse,
}

/// An RDP security protocol that may be offered to and selected by a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RdpSecurity {
    /// TLS with the RDP login inside (`PROTOCOL_SSL`).
    Tls,
    /// CredSSP / Network Level Authentication (`PROTOCOL_HYBRID` and `PROTOCOL_HYBRID_EX`).
    Nla,
}

/// Durations in seconds that end a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionLimits {
    /// Lifetime of the application token and of a live session; a policy's own duration wins.
    pub duration_s: u64,
    /// A live session without input from the browser for this long ends; 0 = never.
    pub idle_s: u64,
}

impl Fingerprint {
    /// SHA-256 of a certificate's DER.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, der);
        Self(digest.as_ref().try_into().expect("SHA-256 is 32 bytes"))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A fingerprint that is not 64 hex digits (colons between bytes are allowed).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 fingerprint is 64 hex digits")]
pub struct FingerprintError;

impl std::str::FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
        let mut bytes = [0; 32];
        if digits.len() != 64 {
            return Err(FingerprintError);
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let nibble = |digit: u8| (digit as char).to_digit(16).ok_or(FingerprintError);
            *byte = u8::try_from(nibble(pair[0])? << 4 | nibble(pair[1])?).expect("two nibbles");
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}
