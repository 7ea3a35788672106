//! What can go wrong in control.

use std::path::{Path, PathBuf};

use crate::config::ConfigErrors;

/// Why control can't start, or could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// A file or folder can't be used.
    #[error("{what} {}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    /// Another process has the state folder.
    #[error("another control process uses the state folder (lock {})", .0.display())]
    Locked(PathBuf),
    #[error("store")]
    Store(#[from] rusqlite::Error),
    /// The store was written by a newer version.
    #[error("the store's format {found} is newer than this program's {known}: upgrade the program")]
    StoreTooNew { found: u32, known: u32 },
    #[error("store: {0}")]
    StoreContent(String),
    #[error("certificate {}: {why}", path.display())]
    Certificate { path: PathBuf, why: String },
    #[error(transparent)]
    Login(#[from] postern_login::LoginError),
    #[error("verification keys")]
    Keys(#[from] postern_access::keyset::KeySetError),
    #[error("the system has no randomness")]
    Randomness,
    /// Without a durable record nothing is done.
    #[error("the audit trail can't be written")]
    Audit(#[source] std::io::Error),
    #[error("too many logins at a time")]
    Busy,
    #[error("a worker thread panicked")]
    Worker,
}

impl ControlError {
    pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }

    /// The error and all its causes in one line.
    #[must_use]
    pub fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
