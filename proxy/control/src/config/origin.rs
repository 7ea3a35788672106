//! An `https` origin and its host, as browsers write them.

use std::net::{Ipv4Addr, Ipv6Addr};

use postern_access::application::HOST_BYTES_MAX;

/// `https://HOST` or `https://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// Lower case; an IPv6 address in its brackets.
    pub(super) host: String,
    /// 443 is left out.
    pub(super) port: Option<u16>,
}

impl Origin {
    /// # Errors
    /// What is wrong and what to write.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let example = "write for example \"https://gw.example\" or \"https://gw.example:8443\"";
        let rest = text
            .strip_prefix("https://")
            .ok_or_else(|| format!("{text:?} does not begin with https://; {example}"))?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let bracket = authority.find(']').map_or(0, |end| end + 1);
        let (host, port) = match authority[bracket..].find(':') {
            Some(colon) => authority.split_at(bracket + colon),
            None => (authority, ""),
        };
        let host = host_name(host).map_err(|why| format!("{text:?}: {why}; {example}"))?;
        let port = match port.strip_prefix(':') {
            None => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits),
            Some(_) => {
                return Err(format!(
                    "{text:?} has more than a host and a port; {example}"
                ));
            }
        };
        let port = port
            .map(|digits| match digits.parse() {
                Ok(0) | Err(_) => Err(format!("{text:?}: the port is not 1 to 65535; {example}")),
                Ok(port) => Ok(port),
            })
            .transpose()?;
        Ok(Self {
            host,
            port: port.filter(|port| *port != 443),
        })
    }

    /// The same port on another host.
    pub(super) fn on_host(&self, host: &str) -> Self {
        Self {
            host: host.to_owned(),
            port: self.port,
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "https://{}", self.host)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// A host name or address literal, in the one form that browsers send.
///
/// # Errors
/// What is wrong with it.
pub(super) fn host_name(text: &str) -> Result<String, &'static str> {
    if let Some(literal) = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return match literal.parse::<Ipv6Addr>() {
            Ok(address) => Ok(format!("[{address}]")),
            Err(_) => Err("no IPv6 address stands in the brackets"),
        };
    }
    let labels = text.split('.');
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if text.len() > HOST_BYTES_MAX || !labels.clone().all(is_label) {
        return Err("that is no host name (letters, digits, - and dots)");
    }
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    if labels.clone().next_back().is_some_and(is_number) && text.parse::<Ipv4Addr>().is_err() {
        return Err("that is no IPv4 address");
    }
    Ok(text.to_ascii_lowercase())
}
