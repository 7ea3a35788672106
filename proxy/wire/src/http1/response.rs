//! Short responses that end the connection.

/// A whole response; the connection closes after it and nothing may keep it.
///
/// Control bytes in what is given are left out, so that no value can begin a header of its own.
#[must_use]
pub fn response(
    status: u16,
    reason: &str,
    content_type: &str,
    extra_headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256 + body.len());
    bytes.extend_from_slice(format!("HTTP/1.1 {status} ").as_bytes());
    extend_plain(&mut bytes, reason);
    bytes.extend_from_slice(b"\r\n");
    let length = body.len().to_string();
    let fixed = [
        ("Content-Type", content_type),
        ("Content-Length", &length),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("Connection", "close"),
    ];
    for (name, value) in fixed.iter().chain(extra_headers) {
        extend_plain(&mut bytes, name);
        bytes.extend_from_slice(b": ");
        extend_plain(&mut bytes, value);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

fn extend_plain(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(text.bytes().filter(|byte| !byte.is_ascii_control()));
}
