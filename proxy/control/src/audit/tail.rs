//! The last lines of a file that only grows.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

/// How much of a file's end is looked at for a whole line: many times the longest line.
pub(super) const TAIL_BYTES_MAX: u64 = 1024 * 1024;

/// The end of a file.
pub(super) struct Tail {
    /// Where in the file `bytes` begins.
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
}

impl Tail {
    pub(super) fn read(file: &mut File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let offset = length.saturating_sub(TAIL_BYTES_MAX);
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(Self { offset, bytes })
    }

    /// Whole lines (that end in a line feed) from the last to the first, each with the place in
    /// the file where it ends. A line that begins before the tail is left out.
    pub(super) fn lines_backwards(&self) -> impl Iterator<Item = (&[u8], u64)> {
        let first = if self.offset == 0 {
            0
        } else {
            let feed = self.bytes.iter().position(|byte| *byte == b'\n');
            feed.map_or(self.bytes.len(), |feed| feed + 1)
        };
        let mut end = self
            .bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .unwrap_or(0);
        std::iter::from_fn(move || {
            if end <= first {
                return None;
            }
            let start = self.bytes[..end]
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |feed| feed + 1)
                .max(first);
            let line = (&self.bytes[start..end], self.offset + end as u64 + 1);
            end = start.saturating_sub(1);
            Some(line)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_from_the_last_to_the_first() {
        let check = |text: &str, offset: u64, expected: &[(&str, u64)]| {
            let tail = Tail {
                offset,
                bytes: text.as_bytes().to_vec(),
            };
            let lines: Vec<_> = tail
                .lines_backwards()
                .map(|(line, end)| (std::str::from_utf8(line).expect("text"), end))
                .collect();
            assert_eq!(lines, expected, "{text:?}");
        };
        check("", 0, &[]);
        check("torn", 0, &[]);
        check("a\n", 0, &[("a", 2)]);
        check("a\nbc\ntorn", 0, &[("bc", 5), ("a", 2)]);
        check("half\nbc\n", 10, &[("bc", 18)]);
        check("half\n", 10, &[]);
    }
}
