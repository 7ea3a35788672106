//! Secrets by file reference; a file that others can read is refused.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

/// Longest secret file: a key with its comments.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// The text of a secret file.
///
/// # Errors
/// In words: what is wrong and what to do.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>, String> {
    let shown = path.display();
    let in_words = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            format!("{shown} is not there; make the file or correct the path")
        }
        io::ErrorKind::PermissionDenied => {
            format!("{shown} can't be read by this user; change its owner")
        }
        _ => format!("{shown} can't be read: {error}"),
    };
    let file = File::open(path).map_err(in_words)?;
    // Of the open file: the path may mean another one a moment later.
    let metadata = file.metadata().map_err(in_words)?;
    if !metadata.is_file() {
        return Err(format!("{shown} is not a file"));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!(
            "{shown} can be read by others (mode {mode:03o}); run: chmod 600 {shown}"
        ));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(SECRET_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(in_words)?;
    Ok(text)
}
