//! The strict look at a head's lines that comes before the parser: what the parser would forgive
//! is refused here, and a malformed head is refused before it is whole.

use super::{HEADERS_MAX, HeadError};

/// Checks what is there of a head; its length when it is whole.
pub(super) fn check(bytes: &[u8]) -> Result<Option<usize>, HeadError> {
    let mut start = 0;
    let mut number = 0;
    loop {
        let Some(line) = line(&bytes[start..])? else {
            return unfinished(&bytes[start..], number).map(|()| None);
        };
        start += line.len() + 2;
        if number == 0 {
            request_line(line)?;
        } else if line.is_empty() {
            return Ok(Some(start));
        } else if number > HEADERS_MAX {
            return Err(HeadError::TooManyHeaders);
        } else {
            header_line(line)?;
        }
        number += 1;
    }
}

/// The bytes before the first CR LF; `None` when it has not come yet.
fn line(bytes: &[u8]) -> Result<Option<&[u8]>, HeadError> {
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\r' => {
                return match bytes.get(at + 1) {
                    Some(b'\n') => Ok(Some(&bytes[..at])),
                    Some(_) => Err(HeadError::LineEnd),
                    None => Ok(None),
                };
            }
            b'\n' => return Err(HeadError::LineEnd),
            b'\t' => {}
            0..=0x1f | 0x7f => return Err(HeadError::ControlByte),
            _ => {}
        }
    }
    Ok(None)
}

/// What can be said of a line whose end has not come yet.
fn unfinished(line: &[u8], number: usize) -> Result<(), HeadError> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let Some(first) = line.first() else {
        return Ok(());
    };
    if number == 0 {
        let method = line.split(|byte| *byte == b' ').next().unwrap_or(line);
        if method.is_empty() || !method.iter().copied().all(is_token_byte) {
            return Err(HeadError::RequestLine);
        }
        return Ok(());
    }
    if matches!(first, b' ' | b'\t') {
        return Err(HeadError::Folded);
    }
    if number > HEADERS_MAX {
        return Err(HeadError::TooManyHeaders);
    }
    let name = line.split(|byte| *byte == b':').next().unwrap_or(line);
    if name.is_empty() || !name.iter().copied().all(is_token_byte) {
        return Err(HeadError::HeaderLine);
    }
    Ok(())
}

/// [RFC 9112 §3] `method SP request-target SP HTTP-version`, single spaces.
fn request_line(line: &[u8]) -> Result<(), HeadError> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(HeadError::RequestLine);
    };
    if method.is_empty() || !method.iter().copied().all(is_token_byte) {
        return Err(HeadError::RequestLine);
    }
    match version {
        b"HTTP/1.1" => {}
        b"HTTP/1.0" => return Err(HeadError::Version10),
        version if version.starts_with(b"HTTP/") => return Err(HeadError::Version),
        _ => return Err(HeadError::RequestLine),
    }
    target_form(target)
}

/// [RFC 9112 §3.2.1] Origin form; and no second way to write a path: no dot segment, no empty
/// first segment (`//host` is an authority in a redirect), no broken percent encoding.
fn target_form(target: &[u8]) -> Result<(), HeadError> {
    let path = target.split(|byte| *byte == b'?').next().unwrap_or(target);
    if !path.starts_with(b"/") || path.starts_with(b"//") {
        return Err(HeadError::Target);
    }
    let forbidden = |byte: &u8| {
        !(0x21..=0x7e).contains(byte) || matches!(byte, b'#' | b'"' | b'<' | b'>' | b'\\')
    };
    if target.iter().any(forbidden) || !percent_encoding_is_whole(target) {
        return Err(HeadError::Target);
    }
    if path.split(|byte| *byte == b'/').any(is_dot_segment) {
        return Err(HeadError::Target);
    }
    Ok(())
}

fn percent_encoding_is_whole(target: &[u8]) -> bool {
    target
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'%')
        .all(|(at, _)| {
            target
                .get(at + 1..at + 3)
                .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        })
}

/// `.` or `..`, each dot as itself or as `%2e`.
fn is_dot_segment(segment: &[u8]) -> bool {
    let mut dots = 0;
    let mut rest = segment;
    while !rest.is_empty() {
        rest = if let Some(rest) = rest.strip_prefix(b".") {
            rest
        } else if rest.len() >= 3 && rest[..3].eq_ignore_ascii_case(b"%2e") {
            &rest[3..]
        } else {
            return false;
        };
        dots += 1;
    }
    dots == 1 || dots == 2
}

/// [RFC 9112 §5] `field-name ":" OWS field-value OWS`, on one line.
fn header_line(line: &[u8]) -> Result<(), HeadError> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(HeadError::Folded);
    }
    let colon = line
        .iter()
        .position(|byte| *byte == b':')
        .ok_or(HeadError::HeaderLine)?;
    if colon == 0 || !line[..colon].iter().copied().all(is_token_byte) {
        return Err(HeadError::HeaderLine);
    }
    Ok(())
}

/// [RFC 9110 §5.6.2] `tchar`.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
