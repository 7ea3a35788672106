//! The table in force, kept in the state folder: a node that starts without its store steers by it.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use postern_steering::{PUBLICATION_BYTES_MAX, Publication, Seal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::ConductorError;

const FOLDER: &str = "steering";
const FILE: &str = "table";

/// The folder of what steering keeps, made where it is not there yet.
///
/// # Errors
/// It can't be made.
pub fn folder(state_directory: &Path) -> Result<PathBuf, ConductorError> {
    let path = state_directory.join(FOLDER);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&path)
        .map_err(ConductorError::file("folder", &path))?;
    Ok(path)
}

/// The table that was kept, where it holds.
#[must_use]
pub fn read(state_directory: &Path, seal: &Seal) -> Option<Publication> {
    let path = state_directory.join(FOLDER).join(FILE);
    let file = File::open(&path).ok()?;
    let mut bytes = Vec::new();
    // A longer one than any is cut, and its seal does not hold then.
    file.take(PUBLICATION_BYTES_MAX as u64)
        .read_to_end(&mut bytes)
        .ok()?;
    Publication::decode(&bytes, seal)
        .inspect_err(|error| {
            tracing::warn!(path = %path.display(), %error, "the table that was kept is of no use");
        })
        .ok()
}

/// Writes what it is given, the newest last.
pub fn start(
    state_directory: &Path,
    beside: &mut JoinSet<()>,
) -> watch::Sender<Option<Arc<Vec<u8>>>> {
    let (sender, mut receiver) = watch::channel::<Option<Arc<Vec<u8>>>>(None);
    let state_directory = state_directory.to_owned();
    beside.spawn(async move {
        while receiver.changed().await.is_ok() {
            let Some(bytes) = receiver.borrow_and_update().clone() else {
                continue;
            };
            let folder = state_directory.clone();
            let written = tokio::task::spawn_blocking(move || write(&folder, &bytes)).await;
            if let Ok(Err(error)) = written {
                tracing::error!(error = error.in_full(), "the table in force is not kept");
            }
        }
    });
    sender
}

/// As a whole or not at all.
fn write(state_directory: &Path, bytes: &[u8]) -> Result<(), ConductorError> {
    let folder = folder(state_directory)?;
    let path = folder.join(FILE);
    let new = folder.join(format!("{FILE}.new"));
    let failed = || ConductorError::file("file", &new);
    let mut file = File::create(&new).map_err(failed())?;
    file.write_all(bytes).map_err(failed())?;
    file.sync_all().map_err(failed())?;
    fs::rename(&new, &path).map_err(ConductorError::file("file", &path))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use postern_steering::{Generation, NodeId, Place, Roster, Table, Weight};

    use super::*;

    #[test]
    fn what_was_kept_is_read_and_what_is_broken_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let seal = Seal::new(&[7; 32]);
        assert_eq!(read(folder.path(), &seal), None);
        let node = NodeId::new(1).unwrap();
        let place = Place {
            v4: Some(Ipv4Addr::LOCALHOST),
            v6: None,
            ethernet: [0; 6],
        };
        let table = Table::initial(Generation(3), &[(node, Weight::new(1).unwrap())]).unwrap();
        let publication = Publication::new(Roster::from([(node, place)]), table).unwrap();
        let bytes = publication.encode(&seal);
        write(folder.path(), &bytes).unwrap();
        assert_eq!(read(folder.path(), &seal), Some(publication));
        assert_eq!(read(folder.path(), &Seal::new(&[8; 32])), None);
        write(folder.path(), &bytes[..bytes.len() / 2]).unwrap();
        assert_eq!(read(folder.path(), &seal), None);
    }
}
