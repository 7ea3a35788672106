//! One HTTP/1.1 request head at the front door [RFC 9112], read strictly.
//!
//! What two parsers could read in two ways is refused, so that nothing can be smuggled past the
//! gateway to what stands behind it.

mod host;
mod response;
mod shape;
mod upgrade;

pub use host::Host;
pub use response::response;
pub use upgrade::{UpgradeError, websocket_accept};

/// Most header lines that a head may have.
pub const HEADERS_MAX: usize = 64;

/// Why bytes are not an acceptable request head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("a line does not end in CR LF")]
    LineEnd,
    #[error("a control byte in the head")]
    ControlByte,
    #[error("the request line is malformed")]
    RequestLine,
    #[error("HTTP/1.0 is not spoken here")]
    Version10,
    #[error("an HTTP version that is not spoken here")]
    Version,
    #[error("the request target is not in origin form")]
    Target,
    #[error("a header line is folded")]
    Folded,
    #[error("a header line is malformed")]
    HeaderLine,
    #[error("too many header lines")]
    TooManyHeaders,
    #[error("a header that may be given once is given twice")]
    Duplicate,
    #[error("the host header is missing")]
    HostMissing,
    #[error("the host header is malformed")]
    Host,
    #[error("the content length is malformed")]
    ContentLength,
    #[error("the transfer coding is not plain chunked")]
    TransferEncoding,
    #[error("both content length and transfer coding are given")]
    BothLengths,
    #[error("a header value is not ASCII")]
    Value,
    #[error("a cookie value is malformed")]
    Cookie,
}

impl HeadError {
    /// The metric and log label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::LineEnd => "line_end",
            Self::ControlByte => "control_byte",
            Self::RequestLine => "request_line",
            Self::Version10 => "http_1_0",
            Self::Version => "http_version",
            Self::Target => "target_form",
            Self::Folded => "folded_header",
            Self::HeaderLine => "header_line",
            Self::TooManyHeaders => "too_many_headers",
            Self::Duplicate => "duplicate_header",
            Self::HostMissing => "host_missing",
            Self::Host => "host_malformed",
            Self::ContentLength => "content_length",
            Self::TransferEncoding => "transfer_encoding",
            Self::BothLengths => "both_lengths",
            Self::Value => "header_value",
            Self::Cookie => "cookie_value",
        }
    }

    /// The HTTP status to refuse with, and its reason phrase.
    #[must_use]
    pub const fn status(self) -> (u16, &'static str) {
        match self {
            Self::Version10 | Self::Version => (505, "HTTP Version Not Supported"),
            Self::TooManyHeaders => (431, "Request Header Fields Too Large"),
            _ => (400, "Bad Request"),
        }
    }
}

/// One header line; `value` has no white space around it and may hold bytes over 0x7f.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    pub name: &'a str,
    pub value: &'a [u8],
}

/// What follows the head [RFC 9112 §6].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// No body: neither length nor transfer coding, or a length of 0.
    None,
    /// So many bytes.
    Length(u64),
    Chunked,
}

/// A whole request head.
#[derive(Debug, Clone)]
pub struct Head<'a> {
    pub method: &'a str,
    /// Origin form, as sent: begins with one `/`, no fragment, no dot segments.
    pub target: &'a str,
    pub path: &'a str,
    /// After the `?`, when there is one.
    pub query: Option<&'a str>,
    /// In the order sent.
    pub headers: Vec<Header<'a>>,
    pub body: Body,
    /// Bytes of the head, its empty line included.
    pub length: usize,
    host: Host,
}

/// Reads the head at the start of `bytes`; `None` when more are needed.
///
/// Malformed bytes are an error as soon as they are seen. The caller bounds how many it gathers.
///
/// # Errors
/// The first violation found.
pub fn parse_head(bytes: &[u8]) -> Result<Option<Head<'_>>, HeadError> {
    let Some(length) = shape::check(bytes)? else {
        return Ok(None);
    };
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut lines);
    match request.parse(&bytes[..length]) {
        Ok(httparse::Status::Complete(used)) if used == length => {}
        Ok(_) => return Err(HeadError::HeaderLine),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyHeaders),
        Err(httparse::Error::Version) => return Err(HeadError::Version),
        Err(httparse::Error::Token) => return Err(HeadError::RequestLine),
        Err(httparse::Error::NewLine) => return Err(HeadError::LineEnd),
        Err(_) => return Err(HeadError::HeaderLine),
    }
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Err(HeadError::RequestLine);
    };
    let headers: Vec<Header<'_>> = request
        .headers
        .iter()
        .map(|line| Header {
            name: line.name,
            value: line.value,
        })
        .collect();
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let host = unique(&headers, "host")?.ok_or(HeadError::HostMissing)?;
    Ok(Some(Head {
        method,
        target,
        path,
        query,
        host: Host::parse(host)?,
        body: body(&headers)?,
        headers,
        length,
    }))
}

/// The value of a header that may be given once.
fn unique<'a>(headers: &[Header<'a>], name: &str) -> Result<Option<&'a [u8]>, HeadError> {
    let mut values = headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case(name));
    let value = values.next().map(|header| header.value);
    match values.next() {
        Some(_) => Err(HeadError::Duplicate),
        None => Ok(value),
    }
}

/// [RFC 9112 §6.3] Message body length, without the leniencies that smuggling lives on.
fn body(headers: &[Header<'_>]) -> Result<Body, HeadError> {
    match (
        unique(headers, "content-length")?,
        unique(headers, "transfer-encoding")?,
    ) {
        (Some(_), Some(_)) => Err(HeadError::BothLengths),
        (None, None) => Ok(Body::None),
        (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Body::Chunked),
        (None, Some(_)) => Err(HeadError::TransferEncoding),
        (Some(digits), None) => match content_length(digits)? {
            0 => Ok(Body::None),
            length => Ok(Body::Length(length)),
        },
    }
}

/// Decimal digits and nothing else; no leading zero, which some take for octal.
fn content_length(digits: &[u8]) -> Result<u64, HeadError> {
    let leading_zero = digits.len() > 1 && digits[0] == b'0';
    if digits.is_empty() || leading_zero || !digits.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::ContentLength);
    }
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or(HeadError::ContentLength)
}

impl<'a> Head<'a> {
    /// The value of a header that may be given once; `None` when it is absent.
    ///
    /// # Errors
    /// When it is given twice or is not ASCII.
    pub fn header(&self, name: &str) -> Result<Option<&'a str>, HeadError> {
        let Some(value) = unique(&self.headers, name)? else {
            return Ok(None);
        };
        ascii(value).map(Some).ok_or(HeadError::Value)
    }

    /// Whom the request is for: exactly one `Host` header, lower-cased.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The value of the cookie `name` [RFC 6265 §4.2], from the one `Cookie` header.
    ///
    /// # Errors
    /// When there are two `Cookie` headers or two cookies of that name (the second could have been
    /// planted by a neighbouring host), or when the value has bytes that a cookie's can't have.
    pub fn cookie(&self, name: &str) -> Result<Option<&'a str>, HeadError> {
        let Some(pairs) = unique(&self.headers, "cookie")? else {
            return Ok(None);
        };
        let mut found = None;
        for pair in pairs.split(|byte| *byte == b';') {
            let pair = pair.trim_ascii();
            let Some(equals) = pair.iter().position(|byte| *byte == b'=') else {
                continue;
            };
            if pair[..equals].trim_ascii_end() != name.as_bytes() {
                continue;
            }
            if found.is_some() {
                return Err(HeadError::Duplicate);
            }
            found = Some(pair[equals + 1..].trim_ascii_start());
        }
        let Some(value) = found else {
            return Ok(None);
        };
        if !value.iter().copied().all(is_cookie_octet) {
            return Err(HeadError::Cookie);
        }
        ascii(value).map(Some).ok_or(HeadError::Cookie)
    }

    /// Whether it asks for a WebSocket: a GET whose `Upgrade` lists `websocket`.
    #[must_use]
    pub fn wants_websocket(&self) -> bool {
        self.method == "GET" && self.lists("upgrade", "websocket")
    }

    /// Whether a header that is a comma-separated list holds `token`, over all its lines.
    fn lists(&self, name: &str, token: &str) -> bool {
        self.headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(name))
            .flat_map(|header| header.value.split(|byte| *byte == b','))
            .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }
}

fn ascii(value: &[u8]) -> Option<&str> {
    if !value.is_ascii() {
        return None;
    }
    std::str::from_utf8(value).ok()
}

/// [RFC 6265 §4.1.1] `cookie-octet`.
fn is_cookie_octet(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e)
}

#[cfg(test)]
mod tests;
