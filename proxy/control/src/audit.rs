//! The audit trail on disk: going on after a crash, control's own chain, checkpoints, verification, reconciliation.

mod checkpoints;
mod journal;
mod reconcile;
mod recover;
mod tail;
mod verify;

pub(crate) use checkpoints::{Checkpoints, remember_keys};
pub use journal::Journal;
pub use reconcile::reconcile;
pub use recover::{Recovered, recover};
pub use verify::{ChainReport, Report, verify};

/// Name of control's own chain.
pub const CONTROL_CHAIN: &str = "control";

/// Signed statements of where all chains stood, a compact JWS a line.
pub const CHECKPOINTS_FILE: &str = "checkpoints.jws";

/// Public half of every key that ever signed a checkpoint.
pub const KEYS_FILE: &str = "keys.json";

/// Ending of the files that are chains.
const CHAIN_EXTENSION: &str = "jsonl";

/// Longest line that is read back; the engine's longest is 8 KiB.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Chains in `directory` by name, in order.
fn chain_files(directory: &std::path::Path) -> std::io::Result<Vec<(String, std::path::PathBuf)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == CHAIN_EXTENSION)
            && let Some(name) = path.file_stem().and_then(|name| name.to_str())
        {
            files.push((name.to_owned(), path.clone()));
        }
    }
    files.sort();
    Ok(files)
}
