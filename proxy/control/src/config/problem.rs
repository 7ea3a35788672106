//! What is wrong with a configuration: where, what, and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

/// One mistake or doubt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line and column, from 1, where known.
    pub place: Option<(usize, usize)>,
    /// E.g. `application[0].target`; empty for the file as a whole.
    pub key: String,
    /// What is wrong and what to do.
    pub what: String,
}

impl Problem {
    pub(super) fn new(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            place: None,
            key: key.into(),
            what: what.into(),
        }
    }
}

/// Everything that is wrong with a file. Nothing of it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    pub file: PathBuf,
    pub problems: Vec<Problem>,
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &self.file, &self.problems)
    }
}

/// What looks wrong in a file that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warnings {
    pub file: PathBuf,
    pub problems: Vec<Problem>,
}

impl fmt::Display for Warnings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &self.file, &self.problems)
    }
}

/// A line each, the file first, as editors understand it.
fn show(f: &mut fmt::Formatter<'_>, file: &Path, problems: &[Problem]) -> fmt::Result {
    for (index, problem) in problems.iter().enumerate() {
        if index > 0 {
            writeln!(f)?;
        }
        write!(f, "{}", file.display())?;
        if let Some((line, column)) = problem.place {
            write!(f, ":{line}:{column}")?;
        }
        if !problem.key.is_empty() {
            write!(f, ": {}", problem.key)?;
        }
        write!(f, ": {}", problem.what)?;
    }
    Ok(())
}
