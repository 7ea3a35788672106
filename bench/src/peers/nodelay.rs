//! A library that sets TCP_NODELAY in a program that does not, compiled when it is needed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use postern_parts::process;

const SOURCE: &str = include_str!("nodelay.c");

/// Compiles it into `folder`; the library, for `LD_PRELOAD`.
///
/// # Errors
/// There is no C compiler.
pub(super) fn compile(folder: &Path) -> Result<PathBuf> {
    let (source, library) = (folder.join("nodelay.c"), folder.join("nodelay.so"));
    super::write(&source, SOURCE)?;
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library);
    cc.arg(&source).arg("-ldl");
    process::run(&mut cc).context("the library that sets TCP_NODELAY does not compile")?;
    Ok(library)
}
