//! Going on with a chain after a crash: a torn end is moved aside, never thrown away.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use postern_audit::Chain;

use super::CHAIN_EXTENSION;
use super::tail::{TAIL_BYTES_MAX, Tail};

/// Where a chain goes on.
#[derive(Debug)]
pub struct Recovered {
    pub chain: Chain,
    /// Where a torn end was moved to. The next record should say so.
    pub torn: Option<PathBuf>,
}

/// Finds the end of the chain `name` in `directory`, and moves what follows its last whole record
/// to `NAME.jsonl.torn-<unix milliseconds>`. Afterwards the file ends in a whole record or is empty.
///
/// # Errors
/// When the file can't be read or written, or its end holds no record of this chain at all.
pub fn recover(directory: &Path, name: &str) -> io::Result<Recovered> {
    let path = directory.join(format!("{name}.{CHAIN_EXTENSION}"));
    let mut file = match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let chain = Chain::start(name);
            return Ok(Recovered { chain, torn: None });
        }
        Err(error) => return Err(error),
    };
    let tail = Tail::read(&mut file)?;
    let last = tail.lines_backwards().find_map(|(line, end)| {
        let line = std::str::from_utf8(line).ok()?;
        Some((Chain::resume(name, line)?, end))
    });
    let (chain, end) = match last {
        Some(found) => found,
        // A file so short that all of it was looked at was torn in its first record.
        None if tail.offset == 0 => (Chain::start(name), 0),
        None => {
            let why = format!(
                "the last {TAIL_BYTES_MAX} bytes of {} hold no record of chain {name}",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
    };
    let torn = move_aside(&mut file, &path, end)?;
    Ok(Recovered { chain, torn })
}

/// Moves what stands at and after `end` into a file of its own.
pub(super) fn move_aside(file: &mut File, path: &Path, end: u64) -> io::Result<Option<PathBuf>> {
    if file.metadata()?.len() == end {
        return Ok(None);
    }
    let mut torn = path.as_os_str().to_owned();
    torn.push(format!(".torn-{}", crate::clock::unix_ms()));
    let torn = PathBuf::from(torn);
    let mut aside = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&torn)?;
    file.seek(SeekFrom::Start(end))?;
    io::copy(&mut file.take(TAIL_BYTES_MAX), &mut aside)?;
    // The copy is on disk before the original goes.
    aside.sync_all()?;
    file.set_len(end)?;
    file.sync_all()?;
    Ok(Some(torn))
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_audit::{Event, Record};

    fn lines(records: u64) -> String {
        let mut chain = Chain::start("core-0");
        (0..records)
            .map(|n| chain.append(&Record::new(n, Event::Connection)))
            .collect()
    }

    #[test]
    fn a_chain_goes_on_after_its_last_whole_record() {
        let whole = lines(3);
        let check = |content: &[u8], seq: u64, torn: &[u8]| {
            let folder = tempfile::tempdir().expect("folder");
            let path = folder.path().join("core-0.jsonl");
            std::fs::write(&path, content).expect("written");
            let recovered = recover(folder.path(), "core-0").expect("recovers");
            assert_eq!(recovered.chain.head().seq, seq);
            let aside = recovered
                .torn
                .map(|torn| std::fs::read(torn).expect("torn file"));
            assert_eq!(aside.unwrap_or_default(), torn);
            let kept = std::fs::read(&path).expect("chain");
            assert_eq!([&kept[..], torn].concat(), content);
        };
        check(b"", 0, b"");
        check(whole.as_bytes(), 3, b"");
        check(
            &[whole.as_bytes(), b"{\"chain\""].concat(),
            3,
            b"{\"chain\"",
        );
        check(&[whole.as_bytes(), &[0; 40]].concat(), 3, &[0; 40]);
        check(
            &[whole.as_bytes(), b"rubbish\nmore"].concat(),
            3,
            b"rubbish\nmore",
        );
        check(b"{\"chain\":\"co", 0, b"{\"chain\":\"co");
    }

    #[test]
    fn a_missing_file_is_a_new_chain() {
        let folder = tempfile::tempdir().expect("folder");
        let recovered = recover(folder.path(), "core-0").expect("recovers");
        assert_eq!(recovered.chain.head().seq, 0);
        assert!(recovered.torn.is_none());
    }

    #[test]
    fn a_long_file_without_a_record_at_its_end_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("core-0.jsonl");
        let rubbish = "x\n".repeat(TAIL_BYTES_MAX as usize);
        std::fs::write(&path, &rubbish).expect("written");
        assert!(recover(folder.path(), "core-0").is_err());
        assert_eq!(
            std::fs::metadata(&path).expect("there").len(),
            rubbish.len() as u64
        );
    }
}
