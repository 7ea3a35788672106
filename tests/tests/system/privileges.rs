//! Which process may change the kernel, and what happens where none may.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use postern_parts::process::signal_process;
use postern_parts::wait;
use postern_tests::Gateway;
use postern_tests::gateway::{Configuration, EFFECT};
use rustix::process::Signal;

use crate::scene::Scene;

/// Bits of capability sets [capabilities(7)].
const CAP_NET_BIND_SERVICE: u64 = 1 << 10;
const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_PERFMON: u64 = 1 << 38;
const CAP_BPF: u64 = 1 << 39;

/// What changes the kernel's programs.
const OF_THE_KERNEL: u64 = CAP_NET_ADMIN | CAP_SYS_ADMIN | CAP_PERFMON | CAP_BPF;

/// The sets of a process by their names, e.g. `CapEff`.
fn sets(pid: u32) -> Result<BTreeMap<String, u64>> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let lines = status.lines().filter_map(|line| {
        let (name, digits) = line.split_once(':')?;
        let bits = u64::from_str_radix(digits.trim(), 16).ok()?;
        name.starts_with("Cap").then(|| (name.to_owned(), bits))
    });
    let sets: BTreeMap<_, _> = lines.collect();
    ensure!(sets.len() == 5, "sets of {pid}: {sets:?}");
    Ok(sets)
}

/// Nothing that it starts gets them back, either.
fn may_not_change_the_kernel(gateway: &Gateway, role: &str) -> Result<()> {
    let pid = gateway.role(role)?;
    // A role gives them up first thing, and it may have started just now.
    wait::until("a role without privileges", EFFECT, || {
        Ok(sets(pid)?
            .values()
            .all(|bits| bits & OF_THE_KERNEL == 0)
            .then_some(()))
    })
    .with_context(|| format!("{role}: {:x?}", sets(pid)))
}

fn roles(gateway: &Gateway) -> Result<Vec<String>> {
    let parent = gateway.pid()?;
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    let mut roles = Vec::new();
    for pid in children.split_whitespace() {
        let line = std::fs::read(format!("/proc/{pid}/cmdline"))?;
        let role = line.split(|byte| *byte == 0).nth(1).unwrap_or_default();
        roles.push(String::from_utf8_lossy(role).into_owned());
    }
    roles.sort();
    Ok(roles)
}

/// A BPF file system of this test's own.
struct BpfFolder(tempfile::TempDir);

impl BpfFolder {
    fn mount() -> Result<Self> {
        let folder = Self(tempfile::tempdir()?);
        let status = Command::new("mount")
            .args(["-t", "bpf", "-o", "mode=0700", "bpf"])
            .arg(folder.0.path())
            .status()?;
        ensure!(
            status.success(),
            "a BPF file system can't be mounted; this test takes root"
        );
        Ok(folder)
    }

    fn pins(&self) -> PathBuf {
        self.0.path().join("postern")
    }
}

impl Drop for BpfFolder {
    fn drop(&mut self) {
        // What is pinned goes with its file system.
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// The gateway's own configuration with placement and accounts, pinned in `pins`.
fn with_the_kernel(mut configuration: Configuration, pins: &Path) -> Configuration {
    configuration.placement = "load";
    configuration.bpf_directory = Some(pins.to_owned());
    configuration
        .sections
        .push_str("\n[accounting]\nenabled = true\n");
    configuration
}

#[test]
fn a_gateway_alone_has_no_role_that_may_change_the_kernel() -> Result<()> {
    let scene = Scene::start(|configuration| configuration)?;
    ensure!(roles(&scene.gateway)? == ["control", "engine"]);
    for role in ["control", "engine"] {
        may_not_change_the_kernel(&scene.gateway, role)?;
        // It may still listen on port 443, where `serve` may.
        let [serve, of_role] = [scene.gateway.pid()?, scene.gateway.role(role)?].map(sets);
        let may_listen = |sets: &BTreeMap<String, u64>| sets["CapEff"] & CAP_NET_BIND_SERVICE;
        ensure!(may_listen(&serve?) == may_listen(&of_role?), "{role}");
    }
    let (status, why) = scene.gateway.announcement()?;
    ensure!(
        status == 503 && why.contains("steering is off"),
        "{status} {why}"
    );
    let status = scene.gateway.command(&["status"])?;
    let line = status.lines().find(|line| line.starts_with("steering"));
    ensure!(line.is_some_and(|line| line.ends_with(" off")), "{status}");
    Ok(())
}

#[test]
fn without_privileges_what_needs_them_is_refused_at_the_start_with_the_remedy() -> Result<()> {
    let target = postern_tests::FakeTarget::echo()?;
    let pins = tempfile::tempdir()?;
    let configuration = with_the_kernel(Configuration::for_target(target.address), pins.path());
    let gateway = Gateway::prepare_here(configuration)?;
    let serve = gateway.serve();
    let own = std::fs::read_to_string("/proc/self/status")?;
    let is_root = own.lines().any(|line| line.starts_with("Uid:\t0\t"));
    let mut command = if is_root {
        let mut command = Command::new("setpriv");
        command
            .arg("--bounding-set=-net_admin,-sys_admin,-perfmon,-bpf")
            .arg("--inh-caps=-net_admin,-sys_admin,-perfmon,-bpf")
            .arg(serve.get_program())
            .args(serve.get_args());
        command
    } else {
        serve
    };
    let output = command.output().context("setpriv can't be started")?;
    let log = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "{log}");
    for words in ["CAP_BPF", "CAP_NET_ADMIN", "postern-steering.conf"] {
        ensure!(log.contains(words), "{words} is not in: {log}");
    }
    Ok(())
}

#[test]
fn the_conductor_keeps_no_privilege_and_its_death_ends_no_desktop() -> Result<()> {
    let folder = BpfFolder::mount()?;
    let pins = folder.pins();
    let scene = Scene::start(|configuration| with_the_kernel(configuration, &pins))?;
    let gateway = &scene.gateway;
    ensure!(roles(gateway)? == ["conductor", "control", "engine"]);
    let mut desktop = scene.alice.desktop("lab")?;
    for role in ["conductor", "control", "engine"] {
        may_not_change_the_kernel(gateway, role)?;
    }
    ensure!(pins.read_dir()?.next().is_some(), "nothing is pinned");
    let metrics = gateway.metrics()?;
    ensure!(metrics.sum("postern_account_lost_flows_total") == 0.0);

    let before = gateway.kill("conductor")?;
    let status = wait::until("another conductor", EFFECT, || {
        let status = gateway.try_command(&["steer", "status", "--json"])?;
        Ok(status.status.success().then_some(status.stdout))
    })?;
    ensure!(gateway.role("conductor")? != before);
    let status: serde_json::Value = serde_json::from_slice(&status)?;
    ensure!(status["placement"] == true && status["steering"].is_null());
    desktop.send(b"alive")?;
    ensure!(desktop.receive_exactly(5)? == b"alive");
    may_not_change_the_kernel(gateway, "conductor")?;

    // It hears what `serve` is told.
    signal_process(gateway.pid()?, Signal::HUP);
    wait::until("the settings, read again", EFFECT, || {
        let log = gateway.log();
        let both = [
            "the conductor has read its settings again",
            "the configuration was read again",
        ];
        Ok(both.iter().all(|words| log.contains(words)).then_some(()))
    })?;

    // And what an administrator says.
    let words = gateway.command(&["reload"])?;
    ensure!(words.contains("the conductor has read"), "{words}");

    // What runs is not taken away; what is left behind is.
    let running = gateway.try_command(&["steer", "detach"])?;
    let why = String::from_utf8_lossy(&running.stderr);
    ensure!(
        !running.status.success() && why.contains("stop the gateway"),
        "{why}"
    );
    let mut scene = scene;
    drop(desktop);
    scene.gateway.stop()?;
    ensure!(
        pins.read_dir()?.next().is_some(),
        "the pins went with the process"
    );
    scene.gateway.command(&["steer", "detach"])?;
    let left = pins.exists() && pins.read_dir()?.next().is_some();
    ensure!(!left, "something stays pinned");
    scene.gateway.command(&["steer", "detach"])?;
    Ok(())
}
