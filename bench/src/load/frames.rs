//! WebSocket frames as the load reads them, at either end: strict about what no relay may send, and
//! indifferent to how frames are cut.

use anyhow::{Result, bail, ensure};
use postern_wire::websocket::{CONTROL_BYTES_MAX, unmask};

/// Longest header: 2 bytes, 8 of length, 4 of key.
const HEADER_BYTES_MAX: usize = 14;

/// Which end reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// What a server sent: no masks.
    Client,
    /// What a client sent: every frame masked.
    Server,
}

/// Reads frames from a stream that may be cut anywhere.
#[derive(Debug)]
pub struct FrameReader {
    reads: Reads,
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: usize,
    frame: Option<Frame>,
    control: Vec<u8>,
    scratch: Vec<u8>,
}

/// The frame whose payload comes.
#[derive(Debug, Clone, Copy)]
struct Frame {
    opcode: u8,
    key: Option<[u8; 4]>,
    taken: usize,
    left: usize,
}

impl FrameReader {
    #[must_use]
    pub fn new(reads: Reads) -> Self {
        Self {
            reads,
            header: [0; HEADER_BYTES_MAX],
            header_bytes: 0,
            frame: None,
            control: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Takes all of `bytes`: binary payload goes to `sink`, payload of pings to `pings`.
    ///
    /// # Errors
    /// A close frame, text, or something that is no frame.
    pub fn read(
        &mut self,
        mut bytes: &[u8],
        pings: &mut Vec<Vec<u8>>,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        while !bytes.is_empty() || self.frame.is_some_and(|frame| frame.left == 0) {
            let Some(frame) = &mut self.frame else {
                self.header[self.header_bytes] = bytes[0];
                self.header_bytes += 1;
                bytes = &bytes[1..];
                self.parse_header()?;
                continue;
            };
            let (payload, rest) = bytes.split_at(frame.left.min(bytes.len()));
            bytes = rest;
            let offset = frame.taken;
            frame.taken += payload.len();
            frame.left -= payload.len();
            let frame = *frame;
            let payload = match frame.key {
                None => payload,
                Some(key) => {
                    self.scratch.clear();
                    self.scratch.extend_from_slice(payload);
                    unmask(&mut self.scratch, key, offset);
                    &self.scratch
                }
            };
            if frame.opcode < 8 {
                if !payload.is_empty() {
                    sink(payload)?;
                }
            } else {
                self.control.extend_from_slice(payload);
            }
            if frame.left == 0 {
                self.frame = None;
                let control = std::mem::take(&mut self.control);
                match frame.opcode {
                    8 => bail!("the relay closed: {:?}", closing_words(&control)),
                    9 => pings.push(control),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Begins a frame when its header is whole.
    fn parse_header(&mut self) -> Result<()> {
        let header = &self.header[..self.header_bytes];
        let [first, second, rest @ ..] = header else {
            return Ok(());
        };
        let masked = second & 0x80 != 0;
        let (length_bytes, short) = match second & 0x7f {
            126 => (2, 0),
            127 => (8, 0),
            short => (0, usize::from(short)),
        };
        let key_bytes = if masked { 4 } else { 0 };
        if rest.len() < length_bytes + key_bytes {
            return Ok(());
        }
        let (length, key) = rest.split_at(length_bytes);
        let opcode = first & 0x0f;
        ensure!(
            matches!(opcode, 0 | 2 | 8 | 9 | 10) && first & 0x70 == 0,
            "a frame that begins with {first:#x}"
        );
        ensure!(
            masked == (self.reads == Reads::Server),
            "the mask bit is {masked}"
        );
        let left = match length_bytes {
            0 => short,
            _ => length
                .iter()
                .fold(0, |sum, digit| sum << 8 | usize::from(*digit)),
        };
        ensure!(
            opcode < 8 || left <= CONTROL_BYTES_MAX,
            "a control frame of {left} bytes"
        );
        self.frame = Some(Frame {
            opcode,
            key: key.first_chunk().copied(),
            taken: 0,
            left,
        });
        self.header_bytes = 0;
        Ok(())
    }
}

fn closing_words(payload: &[u8]) -> String {
    let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
    format!("{} {reason}", code.unwrap_or(1005))
}

#[cfg(test)]
mod tests {
    use postern_wire::websocket::{Opcode, binary_frame, client_frame, ping};

    use super::*;

    fn read(reads: Reads, stream: &[u8], cut: usize) -> Result<(Vec<u8>, usize)> {
        let mut reader = FrameReader::new(reads);
        let (mut payload, mut pings) = (Vec::new(), Vec::new());
        for piece in stream.chunks(cut) {
            reader.read(piece, &mut pings, &mut |bytes| {
                payload.extend_from_slice(bytes);
                Ok(())
            })?;
        }
        Ok((payload, pings.len()))
    }

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let payload: Vec<u8> = (0..70_000_u32).map(|at| at as u8).collect();
        let from_server = [binary_frame(&payload), ping(b""), binary_frame(b"end")].concat();
        let from_client = [
            client_frame(Opcode::Binary, false, [1, 2, 3, 4], &payload),
            client_frame(Opcode::Ping, true, [9; 4], b""),
            client_frame(Opcode::Continuation, true, [7, 7, 1, 0], b"end"),
        ]
        .concat();
        let expected = [payload.as_slice(), b"end"].concat();
        for cut in [1, 7, 4096, 100_000] {
            for (reads, stream) in [(Reads::Client, &from_server), (Reads::Server, &from_client)] {
                let (found, pings) = read(reads, stream, cut).unwrap();
                assert!(found == expected && pings == 1, "{reads:?} {cut}");
            }
        }
    }

    #[test]
    fn what_no_relay_may_send_is_an_error() {
        let masked = client_frame(Opcode::Binary, true, [0; 4], b"x");
        let close = client_frame(Opcode::Close, true, [0; 4], b"\x03\xe8bye");
        let text = client_frame(Opcode::Text, true, [0; 4], b"x");
        assert!(read(Reads::Client, &masked, 99).is_err());
        assert!(read(Reads::Server, &masked, 99).is_ok());
        assert!(read(Reads::Server, &binary_frame(b"x"), 99).is_err());
        assert!(read(Reads::Server, &text, 99).is_err());
        let error = read(Reads::Server, &close, 99).unwrap_err();
        assert!(error.to_string().contains("1000 bye"), "{error}");
    }
}
