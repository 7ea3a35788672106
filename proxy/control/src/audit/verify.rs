//! `postern audit verify`: every chain, every checkpoint, and every checkpoint's heads in the chains.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use postern_access::token::{JWS_BYTES_MAX, verify_jws};
use postern_access::{Jwks, KeySet};
use postern_audit::checkpoint::CHECKPOINT_TYPE;
use postern_audit::{Checkpoint, Head, Verifier};

use super::{CHECKPOINTS_FILE, KEYS_FILE, LINE_BYTES_MAX, chain_files};
use crate::ControlError;

/// Problems of checkpoints that are listed; more are of no use to a reader.
const PROBLEMS_MAX: usize = 100;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub chains: Vec<ChainReport>,
    /// Checkpoints with a right signature.
    pub checkpoints: u64,
    /// Unix milliseconds of the last of them.
    pub last_checkpoint_ms: Option<u64>,
    /// Problems of the checkpoints themselves.
    pub problems: Vec<String>,
}

/// One chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainReport {
    pub name: String,
    /// Records that hold, from the first.
    pub records: u64,
    /// Of them, those that a checkpoint vouches for.
    pub checkpointed: u64,
    /// The first record that does not hold, or the end that is missing.
    pub problem: Option<String>,
    /// True when the file ends in a part of a line: being written, or torn by a crash.
    pub unfinished: bool,
}

impl Report {
    /// True when nothing was changed, removed or cut, as far as can be known.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.problems.is_empty() && self.chains.iter().all(|chain| chain.problem.is_none())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chain in &self.chains {
            write!(
                f,
                "{}: {} records, {} of them under a checkpoint",
                chain.name, chain.records, chain.checkpointed
            )?;
            if chain.unfinished {
                write!(f, ", then an unfinished line")?;
            }
            match &chain.problem {
                Some(problem) => writeln!(f, "\n  BROKEN: {problem}")?,
                None => writeln!(f)?,
            }
        }
        writeln!(f, "{} checkpoints", self.checkpoints)?;
        for problem in &self.problems {
            writeln!(f, "  BROKEN: {problem}")?;
        }
        f.write_str(if self.holds() {
            "the audit trail holds"
        } else {
            "the audit trail does NOT hold"
        })
    }
}

/// Verifies the audit trail in `directory`. Checkpoints are verified by `keys`, or else by the
/// trail's own `keys.json`, which whoever can write the folder can replace.
///
/// # Errors
/// When files can't be read; a trail that does not hold is a report, not an error.
pub fn verify(directory: &Path, keys: Option<&Jwks>) -> Result<Report, ControlError> {
    let keys = match keys {
        Some(keys) => keys.clone(),
        None => own_keys(directory)?,
    };
    let keys = KeySet::from_jwks(&keys)?;
    let mut report = Report::default();
    let mut named = check_signatures(directory, &keys, &mut report)
        .map_err(ControlError::file("checkpoints in", directory))?;
    let files = chain_files(directory).map_err(ControlError::file("audit folder", directory))?;
    for (name, path) in files {
        named.retain(|head| head.chain != name);
        let chain =
            check_chain(directory, &name, &path).map_err(ControlError::file("chain", &path))?;
        report.chains.push(chain);
    }
    for head in named {
        report.problems.push(format!(
            "chain {} is missing; a checkpoint says that it has {} records",
            head.chain, head.seq
        ));
    }
    Ok(report)
}

fn own_keys(directory: &Path) -> Result<Jwks, ControlError> {
    let path = directory.join(KEYS_FILE);
    match std::fs::read(&path) {
        Ok(json) => serde_json::from_slice(&json)
            .map_err(|error| ControlError::file("keys", &path)(error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Jwks::default()),
        Err(error) => Err(ControlError::file("keys", &path)(error)),
    }
}

/// What a checkpoint says, whoever signed it.
pub(super) fn payload(jws: &str) -> Option<Checkpoint> {
    use base64::Engine as _;
    let payload = jws.split('.').nth(1)?;
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(payload)
        .ok()?;
    serde_json::from_slice(&json).ok()
}

/// Every checkpoint: signature, number, and that no chain shrinks or vanishes from one to the
/// next. Returns the heads that the last one names.
fn check_signatures(directory: &Path, keys: &KeySet, report: &mut Report) -> io::Result<Vec<Head>> {
    let mut before = Checkpoint {
        time_ms: 0,
        number: 0,
        heads: Vec::new(),
    };
    let mut lines = Lines::open(&directory.join(CHECKPOINTS_FILE), JWS_BYTES_MAX)?;
    while let Some(line) = lines.next()? {
        if report.problems.len() >= PROBLEMS_MAX {
            report.problems.push("and more".to_owned());
            break;
        }
        let at = lines.number;
        let checkpoint = match verify_jws(keys, CHECKPOINT_TYPE, &line) {
            Ok(json) => serde_json::from_slice::<Checkpoint>(&json).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let checkpoint = match checkpoint {
            Ok(checkpoint) => checkpoint,
            Err(why) => {
                report
                    .problems
                    .push(format!("checkpoint in line {at}: {why}"));
                continue;
            }
        };
        report.problems.extend(contradiction(&before, &checkpoint));
        report.checkpoints += 1;
        report.last_checkpoint_ms = Some(checkpoint.time_ms);
        before = checkpoint;
    }
    Ok(before.heads)
}

/// What can't be true of two checkpoints that follow each other.
fn contradiction(before: &Checkpoint, after: &Checkpoint) -> Option<String> {
    if after.number != before.number + 1 {
        return Some(format!(
            "checkpoint {} follows checkpoint {}: some are missing",
            after.number, before.number
        ));
    }
    before.heads.iter().find_map(|head| {
        let number = after.number;
        match after.head(&head.chain) {
            None => Some(format!(
                "checkpoint {number} does not speak of chain {}, the one before did",
                head.chain
            )),
            Some(now) if now.seq < head.seq => Some(format!(
                "checkpoint {number} says that chain {} has {} records, the one before said {}",
                head.chain, now.seq, head.seq
            )),
            Some(_) => None,
        }
    })
}

/// The heads that the checkpoints name for one chain, in the order of the file.
struct Heads<'a> {
    chain: &'a str,
    lines: Lines,
}

impl Heads<'_> {
    fn next(&mut self) -> io::Result<Option<(u64, Head)>> {
        while let Some(line) = self.lines.next()? {
            if let Some(checkpoint) = payload(&line)
                && let Some(head) = checkpoint.head(self.chain)
            {
                return Ok(Some((checkpoint.number, head.clone())));
            }
        }
        Ok(None)
    }
}

/// One chain, and beside it the checkpoints, both read once from front to end.
fn check_chain(directory: &Path, name: &str, path: &Path) -> io::Result<ChainReport> {
    let mut heads = Heads {
        chain: name,
        lines: Lines::open(&directory.join(CHECKPOINTS_FILE), JWS_BYTES_MAX)?,
    };
    let mut verifier = Verifier::start(name);
    let mut checkpointed = 0;
    let mut problem = None;
    let mut expected = heads.next()?;
    let mut lines = Lines::open(path, LINE_BYTES_MAX)?;
    'records: while let Some(line) = lines.next()? {
        if let Err(broken) = verifier.push(&line) {
            problem = Some(broken.to_string());
            break;
        }
        while let Some((number, head)) = &expected
            && head.seq <= verifier.head().seq
        {
            if head != verifier.head() {
                problem = Some(format!(
                    "record {} of chain {name} is not the one that checkpoint {number} names",
                    head.seq
                ));
                break 'records;
            }
            checkpointed = head.seq;
            expected = heads.next()?;
        }
    }
    let records = verifier.head().seq;
    if problem.is_none()
        && let Some((number, head)) = expected
    {
        problem = Some(format!(
            "the end of chain {name} is missing: it has {records} records, checkpoint {number} \
             says {}",
            head.seq
        ));
    }
    Ok(ChainReport {
        name: name.to_owned(),
        records,
        checkpointed,
        problem,
        unfinished: lines.unfinished,
    })
}

/// Whole lines of a file, one in memory at a time.
pub(super) struct Lines {
    file: Option<BufReader<File>>,
    bytes_max: usize,
    /// Of the last line, from 1.
    number: u64,
    /// The file ended in a part of a line.
    unfinished: bool,
}

impl Lines {
    /// A file that is not there has no lines.
    pub(super) fn open(path: &Path, bytes_max: usize) -> io::Result<Self> {
        let file = match File::open(path) {
            Ok(file) => Some(BufReader::new(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            file,
            bytes_max,
            number: 0,
            unfinished: false,
        })
    }

    /// The next line without its line feed. One that is too long or not text comes back cut or
    /// changed, so that no check holds for it.
    pub(super) fn next(&mut self) -> io::Result<Option<String>> {
        let Some(file) = &mut self.file else {
            return Ok(None);
        };
        let mut line = Vec::new();
        let limit = self.bytes_max as u64 + 1;
        file.by_ref().take(limit).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() as u64 == limit {
            file.skip_until(b'\n')?;
        } else {
            self.unfinished = true;
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(&line).into_owned()))
    }
}

#[cfg(test)]
mod tests;
