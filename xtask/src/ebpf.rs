//! `cargo xtask ebpf`: builds the object with the kernel's programs from source, or checks that it is what the source makes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::command::{self, cargo, workspace};
use crate::setup::{self, Purpose};

/// Debian's compiler: it alone comes with a `core` that was built for BPF.
const COMPILER: &str = "/usr/bin/rustc";
/// Crates that use unstable features: ours, and the one with inline assembly.
const UNSTABLE: &str = "postern,aya_ebpf";
/// The programs' workspace.
const PROGRAMS: &str = "ebpf/programs";
/// What Cargo calls the object.
const BUILT: &str = "bpfel-unknown-none/release/postern";
/// The committed object and its checksum.
const OBJECT: &str = "ebpf/object/postern.bpf.o";
const CHECKSUM: &str = "ebpf/object/postern.bpf.o.sha256";

/// Build, or only compare.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Change nothing: build anew and compare with the committed object.
    #[arg(long)]
    check: bool,
}

/// Builds the object, or compares it; then shows what the kernel's verifier thinks of it.
///
/// # Errors
/// It cannot be built, or the kernel does not load it.
pub fn run(arguments: &Arguments) -> Result<bool> {
    if arguments.check {
        let findings = check()?;
        return Ok(crate::report::findings("ebpf", &findings));
    }
    let object = build()?;
    let committed = workspace().join(OBJECT);
    std::fs::copy(&object, &committed)
        .with_context(|| format!("cannot write {}", committed.display()))?;
    let mut text = String::new();
    writeln!(text, "# {}", toolchain()?)?;
    writeln!(text, "{}  postern.bpf.o", checksum(&committed)?)?;
    std::fs::write(workspace().join(CHECKSUM), text)?;
    command::succeeds(&mut budgets())
}

/// What differs between the committed object and what the source makes, and where that is not
/// formatted: it is a workspace of its own, which no other check looks at.
///
/// # Errors
/// It cannot be built.
pub fn check() -> Result<Vec<String>> {
    let (built, committed) = (checksum(&build()?)?, checksum(&workspace().join(OBJECT))?);
    let text = std::fs::read_to_string(workspace().join(CHECKSUM))
        .with_context(|| format!("cannot read {CHECKSUM}"))?;
    let mut findings = Vec::new();
    let mut format = cargo();
    format.current_dir(workspace().join(PROGRAMS));
    if !command::succeeds(format.args(["fmt", "--check"]))? {
        findings.push(format!("{PROGRAMS} is not formatted"));
    }
    if !text.contains(&committed) {
        findings.push(format!("{OBJECT} is not what {CHECKSUM} says"));
    }
    if built != committed {
        let (now, then) = (toolchain()?, text.lines().next().unwrap_or_default());
        findings.push(format!(
            "{OBJECT} is not what the source makes: run `cargo xtask ebpf` and commit it \
             (built with {now}; committed: {then})"
        ));
    }
    Ok(findings)
}

/// The test that loads every program and holds the verifier's counts against SPECIFICATION.md.
fn budgets() -> Command {
    let mut command = cargo();
    command.args(["test", "--quiet", "--package", "postern-ebpf"]);
    command.args(["--test", "budgets", "--", "--nocapture"]);
    command
}

/// Builds and strips the object; returns where it is.
fn build() -> Result<PathBuf> {
    // The tools must fit the compiler, so its package comes first.
    setup::install(&[Purpose::Ebpf], false)?;
    setup::install(&[Purpose::Ebpf], false)?;
    let tools = tools()?;
    let target = workspace().join("target/ebpf");
    let mut build = cargo();
    build
        .current_dir(workspace().join(PROGRAMS))
        .args(["build", "--release", "--locked", "--config"])
        .arg(format!(
            "target.bpfel-unknown-none.rustflags=[{}]",
            remapped()?.join(",")
        ))
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTC", COMPILER)
        .env("RUSTC_BOOTSTRAP", UNSTABLE)
        .env("POSTERN_LLVM", &tools)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    command::run(&mut build)?;
    let stripped = target.join("postern.bpf.o");
    command::run(
        Command::new(tools.join("llvm-strip"))
            .arg("--strip-debug")
            // Which line an instruction is of makes half of an object, and is for people only.
            .args(["--remove-section=.BTF.ext", "--remove-section=.rel.BTF.ext"])
            .arg("-o")
            .arg(&stripped)
            .arg(target.join(BUILT)),
    )?;
    Ok(stripped)
}

/// Flags that keep this machine's folders out of the object.
fn remapped() -> Result<Vec<String>> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let registry = home
        .context("neither CARGO_HOME nor HOME is set")?
        .join("registry/src");
    Ok([(workspace(), "postern"), (registry, "registry")]
        .iter()
        .map(|(from, to)| format!("\"--remap-path-prefix={}={to}\"", from.display()))
        .collect())
}

/// Compiler and LLVM, as the checksum's file names them.
fn toolchain() -> Result<String> {
    let description = describe()?;
    let rustc = description.lines().next().unwrap_or_default();
    let llvm = description
        .lines()
        .find(|line| line.starts_with("LLVM version"))
        .unwrap_or_default();
    Ok(format!("{rustc}, {llvm}"))
}

/// Where the LLVM tools are that fit the compiler.
fn tools() -> Result<PathBuf> {
    let major = llvm_major().context("the BPF compiler does not name its LLVM")?;
    let folder = PathBuf::from(format!("/usr/lib/llvm-{major}/bin"));
    ensure!(
        folder.join("llvm-link").is_file(),
        "there are no LLVM tools in {}",
        folder.display()
    );
    Ok(folder)
}

/// Major version of the LLVM in the BPF compiler, where that is installed.
pub fn llvm_major() -> Option<u32> {
    major(&describe().ok()?)
}

fn describe() -> Result<String> {
    let output = Command::new(COMPILER)
        .arg("-vV")
        .output()
        .with_context(|| format!("cannot start {COMPILER}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `LLVM version: 22.1.8` → 22.
fn major(description: &str) -> Option<u32> {
    description
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?
        .split('.')
        .next()?
        .parse()
        .ok()
}

fn checksum(file: &Path) -> Result<String> {
    let output = Command::new("sha256sum")
        .arg(file)
        .output()
        .context("cannot start sha256sum")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.split_whitespace().next() {
        Some(sum) if output.status.success() => Ok(sum.to_owned()),
        _ => bail!("cannot read {}", file.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_llvm_is_read() {
        let text = "rustc 1.96.0 (ac68faa20 2026-05-25)\nLLVM version: 22.1.8\n";
        assert_eq!(major(text), Some(22));
        assert_eq!(major("rustc 1.0\n"), None);
    }
}
