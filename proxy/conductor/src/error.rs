//! What can go wrong in the conductor.

use std::path::{Path, PathBuf};

/// Why the conductor can't start, or could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ConductorError {
    /// What was configured can't be: starting again is no use.
    #[error("{0}")]
    Settings(String),
    /// A file or folder can't be used.
    #[error("{what} {}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    /// Another process has the state folder.
    #[error("another conductor uses the state folder (lock {})", .0.display())]
    Locked(PathBuf),
    #[error("the cluster's secret {}: {why}", path.display())]
    Secret { path: PathBuf, why: String },
    #[error("the kernel's programs")]
    Kernel(#[from] postern_ebpf::Error),
    #[error("capabilities can't be dropped: {0}")]
    Capabilities(String),
    #[error("steering")]
    Steering(#[from] postern_steering::Error),
    #[error("the system refuses {what}")]
    System {
        what: &'static str,
        source: std::io::Error,
    },
}

impl ConductorError {
    pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }

    /// The error and all its causes in one line.
    #[must_use]
    pub fn in_full(&self) -> String {
        in_full(self)
    }

    /// True where starting again with the same configuration is no use.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        matches!(self, Self::Settings(_) | Self::Secret { .. })
    }
}

/// An error and all its causes in one line.
pub(crate) fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
