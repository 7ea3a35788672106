//! An application: a public address, a target behind it, and who may open it.

use std::fmt;
use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use crate::policy::{Decision, Policy, Subject, decide};

/// Longest name of an application: it is a DNS label on hosts of its own.
pub const NAME_BYTES_MAX: usize = 63;

/// Longest name of a target's host [RFC 1035 §2.3.4].
pub const HOST_BYTES_MAX: usize = 253;

/// The WebSocket's path behind an application's prefix.
pub(crate) const WEBSOCKET_PATH: &str = "/rdp";

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

    /// What its policies say; a refusal by default names the application.
    #[must_use]
    pub fn decide(&self, subject: &Subject<'_>) -> Decision {
        let mut decision = decide(&self.policies, subject);
        if decision.policy.is_none() {
            let of = format!("policy of application \"{}\"", self.name);
            decision.reason = match decision.reason.strip_prefix("no policy ") {
                Some(rest) => format!("no {of} {rest}"),
                None => format!("there is no {of}"),
            };
        }
        decision
    }

    /// Checks a name: a slug of 1 to 63 of `a-z`, `0-9` and `-`.
    ///
    /// # Errors
    /// [`ApplicationError::Name`] for any other text.
    pub fn check_name(name: &str) -> Result<(), ApplicationError> {
        let is_slug = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_slug) {
            return Ok(());
        }
        Err(ApplicationError::Name(name.to_owned()))
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
        format!("{}{WEBSOCKET_PATH}", self.prefix)
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

/// What an application's settings may get wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplicationError {
    #[error("{0:?} is no application name: 1 to 63 of a-z, 0-9 and -")]
    Name(String),
    #[error("{text:?} is no target: {why}; write \"host:3389\" or \"[2001:db8::1]:3389\"")]
    Target { text: String, why: &'static str },
}

impl std::str::FromStr for Target {
    type Err = ApplicationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = |why| ApplicationError::Target {
            text: text.to_owned(),
            why,
        };
        let (host, port) = text.rsplit_once(':').ok_or(refused("it has no port"))?;
        // `u16` alone would also take `+3389`.
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| digits && *port != 0);
        let port = port.ok_or(refused("the port is not 1 to 65535"))?;
        if let Some(literal) = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            let address: Ipv6Addr = literal
                .parse()
                .map_err(|_| refused("no IPv6 address stands in the brackets"))?;
            return Ok(Self {
                host: address.to_string(),
                port,
            });
        }
        if host.contains(':') {
            return Err(refused("an IPv6 address stands in brackets"));
        }
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if !(1..=HOST_BYTES_MAX).contains(&host.len()) || !host.bytes().all(is_name) {
            return Err(refused("the host is neither a name nor an address"));
        }
        Ok(Self {
            host: host.to_ascii_lowercase(),
            port,
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_slug() {
        let long = "a".repeat(NAME_BYTES_MAX);
        for name in ["lab", "lab-2", "0", long.as_str()] {
            assert_eq!(Application::check_name(name), Ok(()), "{name}");
        }
        let too_long = "a".repeat(NAME_BYTES_MAX + 1);
        for name in [
            "",
            "Lab",
            "lab.x",
            "lab/..",
            "läb",
            "a b",
            "a%2f",
            too_long.as_str(),
        ] {
            assert!(Application::check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_target_is_host_and_port() {
        let check = |text: &str, host: &str, port: u16, shown: &str| {
            let target: Target = text.parse().expect("a target");
            assert_eq!((target.host.as_str(), target.port), (host, port), "{text}");
            assert_eq!(target.to_string(), shown);
            assert_eq!(shown.parse(), Ok(target));
        };
        check("127.0.0.1:3389", "127.0.0.1", 3389, "127.0.0.1:3389");
        check("Desk.Example:1", "desk.example", 1, "desk.example:1");
        check("[::1]:3389", "::1", 3389, "[::1]:3389");
        check(
            "[2001:DB8:0::1]:3389",
            "2001:db8::1",
            3389,
            "[2001:db8::1]:3389",
        );
    }

    #[test]
    fn what_is_no_target_is_refused_with_the_reason() {
        let check = |text: &str, why: &str| {
            let error = text.parse::<Target>().expect_err("is refused").to_string();
            assert!(error.contains(why), "{text}: {error}");
        };
        check("", "no port");
        check("desk", "no port");
        check("desk:", "the port");
        check("desk:0", "the port");
        check("desk:65536", "the port");
        check("desk:+1", "the port");
        check("desk:rdp", "the port");
        check(":3389", "neither a name");
        check("desk/x:3389", "neither a name");
        check("user@desk:3389", "neither a name");
        check("de sk:3389", "neither a name");
        check("::1:3389", "in brackets");
        check("[desk]:3389", "no IPv6 address");
        check("[fe80::1%1]:3389", "no IPv6 address");
    }

    #[test]
    fn a_fingerprint_reads_back_as_it_is_shown() {
        let fingerprint = Fingerprint::of(b"certificate");
        let shown = fingerprint.to_string();
        assert_eq!(shown.parse(), Ok(fingerprint));
        assert_eq!(shown.to_uppercase().parse(), Ok(fingerprint));
        for text in [
            "",
            "00",
            &shown[1..],
            &shown.replace(['0', 'a'], "g"),
            &format!("é{}", &shown[2..]),
        ] {
            assert_eq!(text.parse::<Fingerprint>(), Err(FingerprintError), "{text}");
        }
    }
}
