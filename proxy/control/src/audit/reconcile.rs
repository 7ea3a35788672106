//! `postern audit reconcile`: the records of a trail, held against the kernel's accounts beside them.

use std::path::Path;

use postern_audit::{Reconciled, Reconciliation, Verifier};

use super::verify::Lines;
use super::{LINE_BYTES_MAX, chain_files};
use crate::ControlError;

/// Reconciles the audit trail in `directory`.
///
/// # Errors
/// When files can't be read, or a chain does not hold: then there is nothing to rely on.
pub fn reconcile(directory: &Path) -> Result<Reconciled, ControlError> {
    let files = chain_files(directory).map_err(ControlError::file("audit folder", directory))?;
    let mut reconciliation = Reconciliation::default();
    for (name, path) in files {
        let failed = ControlError::file("chain", &path);
        let take = |record: &_| reconciliation.take(&name, record);
        read(&name, &path, take).map_err(failed)?;
    }
    Ok(reconciliation.finish())
}

fn read(
    name: &str,
    path: &Path,
    mut take: impl FnMut(&postern_audit::Record),
) -> std::io::Result<()> {
    let mut verifier = Verifier::start(name);
    let mut lines = Lines::open(path, LINE_BYTES_MAX)?;
    while let Some(line) = lines.next()? {
        let record = verifier.push(&line).map_err(|broken| {
            std::io::Error::new(std::io::ErrorKind::InvalidData, broken.to_string())
        })?;
        take(&record);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use postern_audit::{Chain, Event, Record};

    use super::*;

    fn connection(received: u64) -> Record {
        Record {
            source: Some("198.51.100.7:50000".to_owned()),
            client_local: Some("192.0.2.1:443".to_owned()),
            client_received: Some(received),
            client_sent: Some(2),
            ..Record::new(10, Event::Connection)
        }
    }

    #[test]
    fn every_chain_of_a_trail_is_read_and_a_broken_one_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut chain = Chain::start("core-0");
        let lines: String = [1, 2, 3].map(|n| chain.append(&connection(n))).concat();
        let path = folder.path().join("core-0.jsonl");
        // The last line is being written.
        std::fs::write(&path, format!("{lines}{{\"chain\"")).expect("written");
        let found = reconcile(folder.path()).expect("reconciles");
        // Without accounts there is nothing to hold the records against.
        assert_eq!((found.outside.legs, found.outside.bytes_in), (3, 6));
        assert!(found.holds(), "{found}");

        std::fs::write(&path, lines.replacen(":2,", ":9,", 1)).expect("written");
        let error = reconcile(folder.path()).expect_err("the chain is broken");
        assert!(
            error.in_full().contains("was changed"),
            "{}",
            error.in_full()
        );
    }
}
