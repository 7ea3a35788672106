//! What each purpose needs from Debian, and its installation.

use std::borrow::Cow;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use postern_parts::program;

use crate::{command, ebpf};

/// What something is installed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Purpose {
    /// Compile the gateway and bundle its web client.
    Build,
    /// A real X desktop behind FreeRDP's shadow server.
    Shadow,
    /// A desktop behind xrdp.
    Xrdp,
    /// A native RDP client, to try servers without the gateway.
    System,
    /// What the nodes of a cluster share.
    Store,
    /// A real browser.
    Browser,
    /// The relays that ours is measured beside.
    Bench,
    /// The compiler of the kernel's programs.
    Ebpf,
}

impl Purpose {
    /// What building, showing and testing need; the bench's peers come with the bench, the kernel
    /// programs' compiler with `ebpf` and `ci`.
    pub const ALL: [Self; 6] = [
        Self::Build,
        Self::Shadow,
        Self::Xrdp,
        Self::System,
        Self::Store,
        Self::Browser,
    ];
}

/// A Debian package and why it is needed.
struct Package {
    name: Cow<'static, str>,
    why: &'static str,
}

const fn package(name: &'static str, why: &'static str) -> Package {
    Package {
        name: Cow::Borrowed(name),
        why,
    }
}

/// The oldest Node.js that bundles the web client and drives the browser.
const NODE_MAJOR_MIN: u32 = 18;

fn packages(purpose: Purpose) -> Vec<Package> {
    match purpose {
        Purpose::Build => {
            let mut packages = vec![
                package(
                    "build-essential",
                    "C and C++ compiler for SQLite, ring and liburing",
                ),
                package("pkg-config", "finds system libraries while compiling"),
                package("git", "a build script of the io_uring executor calls it"),
                package(
                    "ca-certificates",
                    "lets npm and cargo check who they download from",
                ),
            ];
            if !node_is_recent() {
                packages.push(package("nodejs", "bundles the web client"));
            }
            if !program::installed("npm") {
                packages.push(package("npm", "fetches the web client's locked packages"));
            }
            packages
        }
        Purpose::Shadow => vec![
            package(
                "freerdp2-shadow-x11",
                "RDP server with Network Level Authentication",
            ),
            package("winpr-utils", "makes that server's password file"),
            package("xvfb", "an X display without a screen"),
            package("xauth", "keeps other users off that display"),
            package("xterm", "a terminal on that display"),
            package("fonts-dejavu-core", "letters for the terminal"),
        ],
        Purpose::Xrdp => vec![
            package("xrdp", "RDP server over TLS"),
            package("xorgxrdp", "the X server that draws into xrdp"),
            package("openssl", "makes that server's certificate"),
            package("xauth", "keeps other users off its display"),
            package("xterm", "a terminal on its display"),
            package("fonts-dejavu-core", "letters for the terminal"),
        ],
        Purpose::System => vec![
            package("freerdp2-x11", "a native RDP client"),
            package("xvfb", "an X display for that client"),
            package("xauth", "keeps other users off that display"),
            package("xdotool", "types and clicks there"),
            package("iproute2", "networks of machines on one machine"),
            package("ethtool", "makes their cables carry whole packets"),
            package("util-linux", "runs programs on those machines"),
            package("etcd-server", "where the nodes of a cluster meet"),
            package("etcd-client", "somebody else who writes there"),
        ],
        Purpose::Store => vec![package("etcd-server", "where the nodes of a cluster meet")],
        Purpose::Browser => vec![
            package("chromium", "the browser that the tests drive"),
            package("fonts-dejavu-core", "letters for its pages"),
        ],
        Purpose::Bench => vec![
            package("haproxy", "a TCP relay that can splice"),
            package("nginx", "a relay of TCP and HTTP"),
            package("libnginx-mod-stream", "its module for TCP"),
            package("websockify", "WebSocket to TCP"),
            package("stunnel4", "TLS to TCP"),
            package("util-linux", "taskset, which keeps each to one core"),
            package("iproute2", "networks that packets are counted between"),
        ],
        Purpose::Ebpf => {
            let mut packages = vec![
                package("rustc-web", "the compiler that fits the next one"),
                package("libstd-rust-web-dev-bpf", "Rust's `core` for BPF"),
            ];
            // Which LLVM fits is known once the compiler is there.
            packages.extend(ebpf::llvm_major().map(|major| Package {
                name: Cow::Owned(format!("llvm-{major}")),
                why: "links, optimises and assembles for BPF",
            }));
            packages
        }
    }
}

/// Installs what is missing for `purposes`; nothing that is there is touched.
///
/// # Errors
/// Something is missing and cannot be installed.
pub fn install(purposes: &[Purpose], dry_run: bool) -> Result<()> {
    let mut missing: Vec<Package> = Vec::new();
    for package in purposes.iter().flat_map(|purpose| packages(*purpose)) {
        let known = missing.iter().any(|other| other.name == package.name);
        if !known && !is_installed(&package.name) {
            missing.push(package);
        }
    }
    if missing.is_empty() {
        eprintln!("setup: everything is installed");
        return Ok(());
    }
    eprintln!("setup: these Debian packages are missing:");
    for package in &missing {
        eprintln!("  {:<22} {}", package.name, package.why);
    }
    if dry_run {
        return Ok(());
    }
    let names: Vec<&str> = missing
        .iter()
        .map(|package| package.name.as_ref())
        .collect();
    apt(&names)
}

fn apt(names: &[&str]) -> Result<()> {
    if !program::installed("apt-get") {
        bail!(
            "this is no Debian system: install the equivalents of {} by hand, then run this again",
            names.join(" ")
        );
    }
    let root = Root::find(names)?;
    let quiet = names
        .iter()
        .any(|name| !services(name).is_empty())
        .then(|| NoServices::begin(&root))
        .transpose()?;
    command::run(root.command("apt-get").args(["-q", "update"]))?;
    command::run(
        root.command("apt-get")
            .args(["-q", "install", "--yes", "--no-install-recommends"])
            .args(names),
    )?;
    if let Some(quiet) = quiet {
        quiet.end(names);
    }
    Ok(())
}

/// How to do what only root may do.
enum Root {
    Already,
    Sudo,
}

impl Root {
    fn find(names: &[&str]) -> Result<Self> {
        let id = Command::new("id")
            .arg("-u")
            .output()
            .context("cannot start id")?;
        if id.stdout.trim_ascii() == b"0" {
            return Ok(Self::Already);
        }
        if program::installed("sudo") {
            eprintln!("setup: installing takes root; sudo may ask for your password");
            return Ok(Self::Sudo);
        }
        bail!(
            "installing takes root, and there is no sudo. As root, run:\n  \
             apt-get update && apt-get install --no-install-recommends {}",
            names.join(" ")
        );
    }

    fn command(&self, name: &str) -> Command {
        match self {
            Self::Already => {
                let mut command = Command::new(name);
                command.env("DEBIAN_FRONTEND", "noninteractive");
                command
            }
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.args(["env", "DEBIAN_FRONTEND=noninteractive", name]);
                command
            }
        }
    }
}

/// The services that a package brings and that nobody here wants to run.
fn services(package: &str) -> &'static [&'static str] {
    match package {
        "xrdp" => &["xrdp.service", "xrdp-sesman.service"],
        "haproxy" => &["haproxy.service"],
        "nginx" => &["nginx.service"],
        "stunnel4" => &["stunnel4.service"],
        _ => &[],
    }
}

/// Keeps packages' services from starting while they are installed: most would listen on every
/// address. Where the machine has such a rule of its own, that one stays.
struct NoServices<'a> {
    root: &'a Root,
    ours: bool,
}

impl<'a> NoServices<'a> {
    const RULE: &'static str = "/usr/sbin/policy-rc.d";

    fn begin(root: &'a Root) -> Result<Self> {
        let ours = !Path::new(Self::RULE).exists();
        if ours {
            let script = format!(
                "printf '#!/bin/sh\\nexit 101\\n' > {0} && chmod 755 {0}",
                Self::RULE
            );
            command::run(root.command("sh").args(["-c", &script]))?;
        }
        Ok(Self { root, ours })
    }

    fn end(self, packages: &[&str]) {
        if program::installed("systemctl") {
            let units: Vec<&str> = packages
                .iter()
                .flat_map(|package| services(package))
                .copied()
                .collect();
            eprintln!(
                "setup: installed to be started by hand only, these stay off: {}",
                units.join(", ")
            );
            let mut disable = self.root.command("systemctl");
            disable.arg("disable").args(units);
            let _ = disable.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

impl Drop for NoServices<'_> {
    fn drop(&mut self) {
        if self.ours {
            let _ = self.root.command("rm").args(["-f", Self::RULE]).status();
        }
    }
}

fn is_installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

fn node_is_recent() -> bool {
    let output = Command::new("node")
        .arg("--version")
        .stderr(Stdio::null())
        .output();
    let Ok(output) = output else { return false };
    node_major(&String::from_utf8_lossy(&output.stdout))
        .is_some_and(|major| major >= NODE_MAJOR_MIN)
}

/// `v18.19.0` → 18.
fn node_major(version: &str) -> Option<u32> {
    version
        .trim()
        .strip_prefix('v')?
        .split('.')
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_of_node_is_read() {
        for (version, major) in [
            ("v18.19.0\n", Some(18)),
            ("v22.1.0", Some(22)),
            ("", None),
            ("node", None),
        ] {
            assert_eq!(node_major(version), major, "{version:?}");
        }
    }

    #[test]
    fn every_package_says_why_it_is_needed() {
        for package in Purpose::ALL.into_iter().flat_map(packages) {
            assert!(package.why.len() > 10, "{}", package.name);
        }
    }
}
