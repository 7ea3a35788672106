//! The `Host` header [RFC 9112 §3.2]: a host name or address, and a port when one is given.

use std::net::Ipv6Addr;

use super::HeadError;

/// Longest host name [RFC 1035 §2.3.4].
const NAME_BYTES_MAX: usize = 253;

/// Whom a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Lower case; an IPv6 address stays in its brackets.
    pub name: String,
    pub port: Option<u16>,
}

impl Host {
    pub(super) fn parse(value: &[u8]) -> Result<Self, HeadError> {
        let value = super::ascii(value).ok_or(HeadError::Host)?;
        let (name, rest) = match value.strip_prefix('[') {
            Some(literal) => {
                let end = literal.find(']').ok_or(HeadError::Host)?;
                let address: Ipv6Addr = literal[..end].parse().map_err(|_| HeadError::Host)?;
                (format!("[{address}]"), &literal[end + 1..])
            }
            None => {
                let end = value.find(':').unwrap_or(value.len());
                let name = &value[..end];
                if !is_name(name) {
                    return Err(HeadError::Host);
                }
                (name.to_ascii_lowercase(), &value[end..])
            }
        };
        let port = match rest.strip_prefix(':') {
            Some(digits) => Some(port(digits)?),
            None if rest.is_empty() => None,
            None => return Err(HeadError::Host),
        };
        Ok(Self { name, port })
    }
}

/// Labels of letters, digits, `-` and `_`, none empty: neither user information nor a trailing
/// dot, which would name the same host in a second way.
fn is_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        })
}

fn port(digits: &str) -> Result<u16, HeadError> {
    if digits.starts_with('0') || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HeadError::Host);
    }
    digits.parse().map_err(|_| HeadError::Host)
}
