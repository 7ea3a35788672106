//! One HTTP/1.1 answer, and what a browser takes from it.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};

use super::Answer;

/// An answer to one request.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    /// Names in lower case, in the order sent.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The client's end of the connection.
    pub source: SocketAddr,
}

impl Response {
    pub(super) fn parse(answer: &Answer) -> Result<Self> {
        let end = head_end(&answer.bytes).context("no whole head of an answer")?;
        let (status, headers) = parse_head(&answer.bytes[..end])?;
        let mut response = Self {
            status,
            headers,
            body: answer.bytes[end..].to_vec(),
            source: answer.source,
        };
        if response.header("transfer-encoding").is_some() {
            response.body = unchunk(&response.body)?;
        } else if let Some(length) = response.header("content-length") {
            let length: usize = length.parse().context("a content length is a number")?;
            if response.body.len() != length {
                bail!("{} bytes of {length} came", response.body.len());
            }
        }
        Ok(response)
    }

    /// The first header of that name (lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter().filter(|(of, _)| of == name);
        named.next().map(|(_, value)| value.as_str())
    }

    /// Every header of that name.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let named = self.headers.iter().filter(move |(of, _)| of == name);
        named.map(|(_, value)| value.as_str())
    }

    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// # Errors
    /// The body is not JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("no JSON: {}", self.text()))
    }

    /// The value of the hidden field `name` of a form.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<String> {
        let text = self.text();
        let at = text.find(&format!("name=\"{name}\""))?;
        let tag = &text[at..at + text[at..].find('>')?];
        let value = tag.split_once("value=\"")?.1;
        Some(unescape(&value[..value.find('"')?]))
    }
}

/// Where the head of an answer ends.
pub(super) fn head_end(bytes: &[u8]) -> Option<usize> {
    let at = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(at + 4)
}

pub(super) fn status(bytes: &[u8]) -> Option<u16> {
    let line = bytes.strip_prefix(b"HTTP/1.1 ")?;
    std::str::from_utf8(line.get(..3)?).ok()?.parse().ok()
}

fn parse_head(head: &[u8]) -> Result<(u16, Vec<(String, String)>)> {
    let status = status(head).context("not an answer of HTTP/1.1")?;
    let head = std::str::from_utf8(head).context("the head is text")?;
    let lines = head.trim_end().split("\r\n").skip(1);
    let headers = lines
        .map(|line| {
            let (name, value) = line.split_once(':').context("a header has a colon")?;
            Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
        })
        .collect::<Result<_>>()?;
    Ok((status, headers))
}

fn unchunk(mut bytes: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes
            .windows(2)
            .position(|two| two == b"\r\n")
            .context("no chunk size")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end])?, 16)?;
        let data = bytes
            .get(end + 2..end + 2 + size)
            .context("a chunk is cut off")?;
        body.extend_from_slice(data);
        bytes = bytes
            .get(end + 2 + size + 2..)
            .context("a chunk has no end")?;
        if size == 0 {
            return Ok(body);
        }
    }
}

/// Percent-encodes a form's text.
pub(super) fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

/// The entities that the pages' templates write.
fn unescape(text: &str) -> String {
    let named = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&amp;", "&"),
    ];
    let numbered = [
        ("&#60;", "<"),
        ("&#62;", ">"),
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&#38;", "&"),
    ];
    let mut text = text.to_owned();
    for (entity, character) in numbered.iter().chain(&named) {
        text = text.replace(entity, character);
    }
    text
}
