//! Where the programs are: what Cargo built, and what must be installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// The folder of the workspace, from where this crate was built.
#[must_use]
pub fn workspace() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    folder
        .ancestors()
        .nth(2)
        .expect("this crate lies two folders down")
        .to_owned()
}

/// True where `name` can be started by name.
#[must_use]
pub fn installed(name: &str) -> bool {
    find(name).is_some()
}

/// Where `name` is, looking where system programs are, too.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The program `name` that was built with the one that runs: beside it, or above it when that is a test.
///
/// # Errors
/// The running program does not know where it lies.
pub fn beside(name: &str) -> std::io::Result<Option<PathBuf>> {
    let own = std::env::current_exe()?;
    let folders = own.ancestors().skip(1).take(2);
    Ok(folders
        .map(|folder| folder.join(name))
        .find(|file| file.is_file()))
}

/// # Errors
/// One of `names` is not installed; the message says how to get it.
pub fn require(names: &[&str]) -> Result<()> {
    let missing: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| !installed(name))
        .collect();
    if !missing.is_empty() {
        bail!(
            "{} not installed: run `cargo xtask setup`",
            missing.join(", ")
        );
    }
    Ok(())
}

/// `cargo` in the workspace's folder, as if started by hand. Cargo tells the programs that it runs
/// about their package; build scripts further down would take that for a change, and compile anew.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let told = [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
            "CARGO_PRIMARY_",
        ];
        let known = name.to_string_lossy();
        if known == "OUT_DIR" || told.iter().any(|start| known.starts_with(start)) {
            command.env_remove(&name);
        }
    }
    command.current_dir(workspace());
    command
}

/// Builds `package`'s program `name` in `profile` (`dev` or `release`), and says where it is. What
/// is built already costs a fraction of a second.
///
/// # Errors
/// It does not build; Cargo's messages have gone to standard error.
pub fn build(package: &str, name: &str, profile: &str) -> Result<PathBuf> {
    build_with(package, name, profile, &[])
}

/// As [`build`], with features that are off by default.
///
/// # Errors
/// As [`build`].
pub fn build_with(package: &str, name: &str, profile: &str, features: &[&str]) -> Result<PathBuf> {
    let output = cargo()
        .args([
            "build",
            "--package",
            package,
            "--bin",
            name,
            "--profile",
            profile,
            "--features",
            &features.join(","),
        ])
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("{package} does not build");
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    executable(&messages, name).with_context(|| format!("cargo did not say where {name} is"))
}

/// Finds `"executable":"…/name"` in Cargo's messages, which are one JSON object a line.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    const KEY: &str = "\"executable\":\"";
    messages
        .lines()
        .filter_map(|line| {
            let rest = &line[line.find(KEY)? + KEY.len()..];
            Some(PathBuf::from(&rest[..rest.find('"')?]))
        })
        .rfind(|file| file.file_name().is_some_and(|found| found == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_in_cargos_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
            {\"reason\":\"compiler-artifact\",\"executable\":\"/t/debug/other\",\"fresh\":true}\n\
            {\"reason\":\"compiler-artifact\",\"executable\":\"/t/debug/postern\",\"fresh\":true}\n";
        assert_eq!(
            executable(messages, "postern"),
            Some(PathBuf::from("/t/debug/postern"))
        );
        assert_eq!(executable(messages, "absent"), None);
    }

    #[test]
    fn what_is_not_installed_is_named() {
        let message = require(&["sh", "no-such-program"]).unwrap_err().to_string();
        assert!(
            message.contains("no-such-program") && !message.contains("sh,"),
            "{message}"
        );
    }
}
