//! Frames on the link: a big-endian `u32` length, then that many bytes of JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest frame that is accepted: a snapshot of many thousand applications.
pub const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("frame of {0} bytes is over the limit")]
    TooLong(usize),
    #[error("frame body: {0}")]
    Body(#[from] serde_json::Error),
}

/// One message as a frame.
///
/// # Errors
/// When it is over [`FRAME_BYTES_MAX`] or does not encode.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let body = bytes.len() - 4;
    if body > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(body));
    }
    let length = u32::try_from(body).expect("FRAME_BYTES_MAX fits u32");
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Ok(bytes)
}

/// The first frame of `bytes` and how many bytes it took; `None` when more are needed.
///
/// # Errors
/// When the frame is over [`FRAME_BYTES_MAX`] or is not a `T`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<Option<(T, usize)>, FrameError> {
    let Some(head) = bytes.first_chunk::<4>() else {
        return Ok(None);
    };
    let body = u32::from_be_bytes(*head) as usize;
    if body > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(body));
    }
    let Some(json) = bytes.get(4..4 + body) else {
        return Ok(None);
    };
    Ok(Some((serde_json::from_slice(json)?, 4 + body)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ToEngine;

    #[test]
    fn a_frame_is_read_whole_or_not_at_all() {
        let bytes = encode(&ToEngine::Metrics { request: 7 }).expect("encodes");
        for cut in 0..bytes.len() {
            assert!(
                decode::<ToEngine>(&bytes[..cut])
                    .expect("no error")
                    .is_none()
            );
        }
        let (message, used) = decode::<ToEngine>(&bytes).expect("decodes").expect("whole");
        assert_eq!(used, bytes.len());
        assert!(matches!(message, ToEngine::Metrics { request: 7 }));
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_before_its_body() {
        assert!(matches!(
            decode::<ToEngine>(&[0xff; 4]),
            Err(FrameError::TooLong(_))
        ));
    }
}
