//! The hash chain of one writer: every line commits to all lines before it.
//!
//! A line is one JSON object: `{"chain":"core-0","seq":1,"prev":"…","record":{…},"hash":"…"}`.
//! `hash` is the SHA-256 of the line's bytes before `,"hash":`; `prev` is the hash of the line
//! before, 64 zeros for the first.

use std::fmt::Write as _;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::Record;

const HASH_KEY: &str = ",\"hash\":\"";
const HASH_HEX: usize = 64;
const TAIL: usize = HASH_KEY.len() + HASH_HEX + "\"}".len();

/// Where a chain stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Name of the chain, e.g. `core-0`, `control`.
    pub chain: String,
    /// Number of records.
    pub seq: u64,
    /// Hash of the last record, 64 hex digits.
    pub hash: String,
}

/// The writing end of a chain.
#[derive(Debug, Clone)]
pub struct Chain {
    head: Head,
}

/// A line as it is parsed.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    chain: String,
    seq: u64,
    prev: String,
    record: Record,
    hash: String,
}

/// Why a chain does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} (record {seq} of chain {chain}): {why}")]
pub struct Broken {
    pub chain: String,
    /// Line of the file, from 1.
    pub line: u64,
    /// The record that should stand there.
    pub seq: u64,
    pub why: &'static str,
}

impl Chain {
    /// A chain without records.
    #[must_use]
    pub fn start(name: &str) -> Self {
        Self {
            head: Head {
                chain: name.to_owned(),
                seq: 0,
                hash: "0".repeat(HASH_HEX),
            },
        }
    }

    /// Goes on after `last_line` (without its line feed); `None` when that is not a whole line of
    /// this chain.
    #[must_use]
    pub fn resume(name: &str, last_line: &str) -> Option<Self> {
        let line = parse(last_line).ok()?;
        (line.chain == name).then_some(Self {
            head: Head {
                chain: line.chain,
                seq: line.seq,
                hash: line.hash,
            },
        })
    }

    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The next line, with its line feed. The caller must write lines in the order it gets them.
    pub fn append(&mut self, record: &Record) -> String {
        let seq = self.head.seq + 1;
        let chain = serde_json::to_string(&self.head.chain).expect("a string encodes");
        let record = serde_json::to_string(record).expect("a record has only strings and numbers");
        let mut line = format!(
            "{{\"chain\":{chain},\"seq\":{seq},\"prev\":\"{}\",\"record\":{record}",
            self.head.hash
        );
        self.head.hash = hex_digest(line.as_bytes());
        self.head.seq = seq;
        line.push_str(HASH_KEY);
        line.push_str(&self.head.hash);
        line.push_str("\"}\n");
        line
    }
}

/// Verifies a whole file of one chain, fed line by line (without line feeds), from its first record.
///
/// # Errors
/// Names the first record that does not hold.
pub fn verify<'a>(
    name: &str,
    lines: impl Iterator<Item = &'a str>,
    mut each: impl FnMut(&Head, &Record),
) -> Result<Head, Broken> {
    let mut verifier = Verifier::start(name);
    for line in lines {
        let record = verifier.push(line)?;
        each(verifier.head(), &record);
    }
    Ok(verifier.head)
}

/// Verifies a chain a line at a time, for files that do not fit into memory.
#[derive(Debug, Clone)]
pub struct Verifier {
    head: Head,
}

impl Verifier {
    #[must_use]
    pub fn start(name: &str) -> Self {
        Self {
            head: Chain::start(name).head,
        }
    }

    /// Where the lines so far lead.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The record of the next line (without its line feed).
    ///
    /// # Errors
    /// When it does not follow the lines before it.
    pub fn push(&mut self, text: &str) -> Result<Record, Broken> {
        let seq = self.head.seq + 1;
        // A file of one chain has a record a line.
        let broken = |why| Broken {
            chain: self.head.chain.clone(),
            line: seq,
            seq,
            why,
        };
        let line = parse(text).map_err(broken)?;
        if line.chain != self.head.chain {
            return Err(broken("the line belongs to another chain"));
        }
        if line.seq != seq {
            return Err(broken("a record is missing or out of order"));
        }
        if line.prev != self.head.hash {
            return Err(broken("the record does not follow the one before it"));
        }
        self.head.seq = seq;
        self.head.hash = line.hash;
        Ok(line.record)
    }
}

fn parse(text: &str) -> Result<Line, &'static str> {
    let line: Line = serde_json::from_str(text).map_err(|_| "the line is not a record")?;
    let body = text.len().checked_sub(TAIL).and_then(|end| text.get(..end));
    let body = body.ok_or("the line is too short")?;
    if !text[body.len()..].starts_with(HASH_KEY) {
        return Err("the hash is not the last field");
    }
    if hex_digest(body.as_bytes()) != line.hash {
        return Err("the record was changed: its hash is wrong");
    }
    Ok(line)
}

fn hex_digest(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(HASH_HEX);
    for byte in digest(&SHA256, bytes).as_ref() {
        write!(hex, "{byte:02x}").expect("writing to a string holds");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Event;

    fn file(records: u64) -> String {
        let mut chain = Chain::start("core-0");
        (0..records)
            .map(|n| {
                let mut record = Record::new(1_000 + n, Event::Connection);
                record.connection = Some(n);
                record.user = Some("eve\",\"hash\":\"0\n".to_owned());
                chain.append(&record)
            })
            .collect()
    }

    #[test]
    fn an_untouched_chain_holds_and_resumes() {
        let text = file(5);
        let head = verify("core-0", text.lines(), |_, _| {}).expect("holds");
        assert_eq!(head.seq, 5);
        let last = text.lines().last().expect("five lines");
        assert_eq!(
            Chain::resume("core-0", last).expect("resumes").head(),
            &head
        );
        assert!(Chain::resume("core-1", last).is_none());
        assert!(Chain::resume("core-0", &last[..last.len() - 1]).is_none());
    }

    #[test]
    fn the_first_bad_record_is_named() {
        let text = file(5);
        let lines: Vec<&str> = text.lines().collect();
        let check = |lines: Vec<String>, seq: u64, why: &str| {
            let broken = verify("core-0", lines.iter().map(String::as_str), |_, _| {})
                .expect_err("is broken");
            assert_eq!(
                (broken.seq, broken.why.contains(why)),
                (seq, true),
                "{broken}"
            );
        };
        let owned = || {
            lines
                .iter()
                .map(|line| (*line).to_owned())
                .collect::<Vec<_>>()
        };

        let mut changed = owned();
        changed[2] = changed[2].replace("\"connection\":2", "\"connection\":9");
        check(changed, 3, "changed");

        let mut removed = owned();
        removed.remove(1);
        check(removed, 2, "missing");

        let mut swapped = owned();
        swapped.swap(0, 1);
        check(swapped, 1, "missing");

        let mut torn = owned();
        torn[4].truncate(20);
        check(torn, 5, "not a record");

        // A whole other history with right hashes and numbers, grafted on.
        let mut other = Chain::start("core-0");
        let mut grafted = owned();
        for line in grafted.iter_mut().take(3) {
            *line = other
                .append(&Record::new(0, Event::Gap))
                .trim_end()
                .to_owned();
        }
        check(grafted, 4, "does not follow");
    }

    #[test]
    fn no_byte_of_a_line_can_be_flipped_unseen() {
        let text = file(1);
        let line = text.trim_end();
        for at in 0..line.len() {
            let mut bytes = line.as_bytes().to_vec();
            bytes[at] ^= 1;
            let Ok(flipped) = String::from_utf8(bytes) else {
                continue;
            };
            assert!(
                verify("core-0", [flipped.as_str()].into_iter(), |_, _| {}).is_err(),
                "byte {at}"
            );
        }
    }
}
