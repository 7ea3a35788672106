//! The configuration's manual is what the program itself prints; the copy in docs follows it.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::command::{cargo, workspace};

fn file() -> PathBuf {
    workspace().join("docs/configuration.md")
}

/// Writes docs/configuration.md anew.
///
/// # Errors
/// The program does not build or the file cannot be written.
pub fn write() -> Result<()> {
    std::fs::write(file(), printed()?).context("cannot write docs/configuration.md")
}

/// What is wrong with docs/configuration.md.
///
/// # Errors
/// The program does not build.
pub fn check() -> Result<Vec<String>> {
    let kept = std::fs::read_to_string(file()).unwrap_or_default();
    Ok(judge(&kept, &printed()?).into_iter().collect())
}

fn judge(kept: &str, printed: &str) -> Option<String> {
    let advice = "docs/configuration.md is out of date: run `cargo xtask manual`";
    (kept != printed).then(|| advice.to_owned())
}

fn printed() -> Result<String> {
    let output = cargo()
        .args([
            "run",
            "--quiet",
            "--package",
            "postern",
            "--bin",
            "postern",
            "--",
            "manual",
        ])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("`postern manual` failed");
    }
    String::from_utf8(output.stdout).context("the manual is not text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_that_is_out_of_date_is_found() {
        assert_eq!(judge("# A\n", "# A\n"), None);
        assert!(judge("# A\n", "# A\nmore\n").is_some());
        assert!(judge("", "# A\n").is_some());
    }
}
