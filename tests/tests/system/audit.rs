//! The trail: complete, in order, tamper-evident, and in the way when it can't be written.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use postern_audit::Event;
use postern_parts::{process, wait};
use postern_tests::browserless::{Opened, PATIENCE};
use postern_tests::gateway::{EFFECT, PASSWORD, program};

use crate::scene::Scene;

#[test]
fn every_connection_has_exactly_one_record() -> Result<()> {
    let mut scene = Scene::start(|configuration| configuration)?;
    let mut sources = Vec::new();
    for _ in 0..5 {
        sources.push(scene.alice.get("/")?.source);
        sources.push(scene.alice.raw(b"GET / HTTP/1.1\r\n\r\n", PATIENCE)?.source);
        sources.push(
            scene
                .alice
                .raw(b"", std::time::Duration::ZERO.max(EFFECT / 100))?
                .source,
        );
        let desktop = scene.alice.desktop("lab")?;
        desktop.writer().close(1000)?;
        sources.push(desktop.source);
        let mut nobody = scene.gateway.browser();
        nobody.set_cookie("/app/lab/", "__Secure-postern-app", "nonsense");
        match nobody.try_upgrade("lab")? {
            Opened::Refused(answer) => sources.push(answer.source),
            Opened::WebSocket(_) => anyhow::bail!("nonsense opens a WebSocket"),
        }
        let socket = std::net::TcpStream::connect(scene.gateway.address)?;
        sources.push(socket.local_addr()?);
    }
    // Still open when the gateway is stopped: it has its record all the same.
    let last = scene.alice.desktop("lab")?;
    sources.push(last.source);
    let accepted = scene
        .gateway
        .metrics()?
        .sum("postern_connections_accepted_total") as usize;
    scene.gateway.terminate()?;
    drop(last);
    scene.gateway.stop()?;

    let records = scene.gateway.audit().records()?;
    let mut of_source: BTreeMap<&str, usize> = BTreeMap::new();
    let mut numbers: BTreeMap<(&str, u64), usize> = BTreeMap::new();
    let connections = || {
        records
            .iter()
            .filter(|one| one.record.event == Event::Connection)
    };
    for one in connections() {
        *of_source
            .entry(one.record.source.as_deref().unwrap_or_default())
            .or_default() += 1;
        let number = one.record.connection.context("a connection has a number")?;
        *numbers.entry((&one.chain, number)).or_default() += 1;
        ensure!(
            one.record.reason.is_some() && one.record.duration_ms.is_some(),
            "{one:?}"
        );
    }
    for source in &sources {
        let count = of_source.get(source.to_string().as_str());
        ensure!(count == Some(&1), "{source} has {count:?} records");
    }
    ensure!(numbers.values().all(|count| *count == 1), "{numbers:?}");
    ensure!(
        connections().count() == accepted,
        "{accepted} were accepted"
    );
    let verified = scene.gateway.verify_audit()?;
    ensure!(verified.status.success(), "{}", said(&verified));
    Ok(())
}

#[test]
fn an_allow_is_on_disk_before_the_answer() -> Result<()> {
    let scene = Scene::start(|configuration| configuration)?;
    for _ in 0..10 {
        let websocket = scene.alice.upgrade("lab")?;
        // At this moment, without waiting.
        let decisions = scene.gateway.audit().decisions(websocket.source)?;
        let [allow] = decisions.as_slice() else {
            anyhow::bail!("{} decisions are on disk", decisions.len());
        };
        ensure!(allow.decision.as_deref() == Some("allow"), "{allow:?}");
        ensure!(allow.policy.as_deref() == Some("staff"), "{allow:?}");
        ensure!(
            allow.user.as_deref() == Some("alice@example.org"),
            "{allow:?}"
        );
        ensure!(
            allow.target == Some(scene.target.address.to_string()),
            "{allow:?}"
        );
        ensure!(
            allow.rules_version.is_some() && allow.session.is_some(),
            "{allow:?}"
        );
    }
    Ok(())
}

#[test]
fn logins_and_what_administrators_do_are_recorded_without_secrets() -> Result<()> {
    let scene = Scene::start(|configuration| configuration)?;
    let wrong = scene
        .gateway
        .browser()
        .submit_login("alice", "a wrong secret")?;
    ensure!(wrong.status == 401);
    scene.gateway.command(&["revoke", "user", "alice"])?;
    let audit = scene.gateway.audit();
    let logins = audit.events(Event::Login)?;
    let decisions: Vec<_> = logins
        .iter()
        .filter_map(|login| login.decision.as_deref())
        .collect();
    ensure!(
        decisions.contains(&"success") && decisions.contains(&"failure"),
        "{logins:#?}"
    );
    ensure!(!audit.events(Event::Administration)?.is_empty());
    let token = scene.alice.token("lab").context("a token")?;
    for secret in ["a wrong secret", PASSWORD, token] {
        for file in audit.chains()? {
            ensure!(
                !std::fs::read_to_string(&file)?.contains(secret),
                "{}",
                file.display()
            );
        }
        ensure!(
            !scene.gateway.log().contains(secret),
            "the log has a secret"
        );
    }
    Ok(())
}

fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{}: {out}{err}", output.status)
}

fn verify(folder: &Path) -> Result<Output> {
    let mut command = Command::new(program()?);
    command.args(["audit", "verify", "--directory"]).arg(folder);
    command.output().context("postern can't be started")
}

/// A copy of the trail in which `spoil` has changed one chain's lines.
fn spoilt(audit: &Path, chain: &Path, spoil: impl FnOnce(&mut Vec<String>)) -> Result<Output> {
    let copy = tempfile::tempdir()?;
    for entry in std::fs::read_dir(audit)? {
        let path = entry?.path();
        std::fs::copy(&path, copy.path().join(path.file_name().context("a name")?))?;
    }
    let file = copy.path().join(chain.file_name().context("a name")?);
    let text = std::fs::read_to_string(&file)?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    spoil(&mut lines);
    std::fs::write(&file, lines.join("\n") + "\n")?;
    verify(copy.path())
}

#[test]
fn verification_names_the_first_bad_record() -> Result<()> {
    let mut scene = Scene::start(|mut configuration| {
        configuration.cores = vec![0];
        configuration
    })?;
    for _ in 0..5 {
        scene.alice.upgrade("lab")?.cut();
    }
    scene.gateway.stop()?;
    let audit = scene.gateway.audit();
    let good = verify(&audit.folder)?;
    ensure!(good.status.success(), "{}", said(&good));
    let chain = audit.folder.join("core-0.jsonl");
    ensure!(audit.chains()?.contains(&chain), "{:?}", audit.chains()?);
    ensure!(
        audit.folder.join("checkpoints.jws").is_file(),
        "there is no checkpoint"
    );

    let names = |output: &Output, number: &str| {
        ensure!(!output.status.success(), "it holds: {}", said(output));
        let text = said(output);
        ensure!(text.contains("core-0") && text.contains(number), "{text}");
        Ok(())
    };
    let changed = spoilt(&audit.folder, &chain, |lines| {
        lines[4] = lines[4].replacen("127.0.0.1", "127.0.0.2", 1);
    })?;
    names(&changed, "5").context("a changed record")?;
    let removed = spoilt(&audit.folder, &chain, |lines| drop(lines.remove(2)))?;
    names(&removed, "3").context("a removed record")?;
    let swapped = spoilt(&audit.folder, &chain, |lines| lines.swap(5, 6))?;
    names(&swapped, "6").context("swapped records")?;
    // What only the signed checkpoint can tell.
    let cut = spoilt(&audit.folder, &chain, |lines| lines.truncate(4))?;
    names(&cut, "").context("a trail that was cut off")?;
    let torn = spoilt(&audit.folder, &chain, |lines| {
        let last = lines.last_mut().expect("there are lines");
        last.truncate(last.len() / 2);
    })?;
    ensure!(!torn.status.success(), "it holds: {}", said(&torn));
    Ok(())
}

/// A small file system of its own; unmounted when it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// None where this user may not mount.
    fn mount() -> Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs"])
            .arg(folder.path());
        Ok(mount.output()?.status.success().then_some(Self(folder)))
    }

    /// Takes all room that is left.
    fn fill(&self) -> Result<()> {
        let mut file = std::fs::File::create(self.0.path().join("filler"))?;
        while file.write(&[0; 4096]).is_ok_and(|written| written > 0) {}
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = process::run(Command::new("umount").arg("--lazy").arg(self.0.path())) {
            eprintln!("{error:#}");
        }
    }
}

#[test]
fn a_full_disk_stops_new_desktops_until_there_is_room() -> Result<()> {
    let Some(disk) = SmallDisk::mount()? else {
        // Past the capture of the test runner: `cargo xtask test` counts this line.
        writeln!(
            std::io::stdout(),
            "\nskipped: a full disk: only root may mount a small one"
        )?;
        return Ok(());
    };
    let scene = Scene::start(|mut configuration| {
        configuration.audit_directory = Some(disk.0.path().join("audit"));
        // Another core's file may still have room in its last page.
        configuration.cores = vec![0];
        configuration
    })?;
    let mut live = scene.alice.desktop("lab")?;
    disk.fill()?;
    // The last page of a file may have room for a few records more.
    let refused = wait::until("a refusal", EFFECT, || {
        match scene.alice.try_upgrade("lab")? {
            Opened::Refused(answer) => Ok(Some(answer)),
            Opened::WebSocket(websocket) => {
                websocket.cut();
                Ok(None)
            }
        }
    })?;
    ensure!(refused.status == 503, "answered with {}", refused.status);
    let (dialled, before) = (scene.target.accepted(), scene.gateway.metrics()?);
    let Opened::Refused(again) = scene.alice.try_upgrade("lab")? else {
        anyhow::bail!("an upgrade without a record");
    };
    ensure!(again.status == 503, "answered with {}", again.status);
    ensure!(scene.target.accepted() == dialled, "the target was dialled");
    let dials = "postern_dials_total";
    ensure!(
        scene.gateway.metrics()?.sum(dials) == before.sum(dials),
        "the gateway dialled"
    );
    let counted = scene.gateway.metrics()?.reasons();
    ensure!(counted.get("audit_unavailable") >= Some(&2), "{counted:?}");
    live.send(b"goes on")?;
    ensure!(live.receive_exactly(7)? == b"goes on");

    std::fs::remove_file(disk.0.path().join("filler"))?;
    wait::until("a desktop again", EFFECT, || {
        Ok(scene.alice.desktop("lab").ok())
    })?;
    let record = scene.gateway.audit().connection(again.source)?;
    ensure!(
        record.reason.as_deref() == Some("audit_unavailable"),
        "{record:?}"
    );
    let verified = scene.gateway.verify_audit()?;
    ensure!(verified.status.success(), "{}", said(&verified));
    Ok(())
}
