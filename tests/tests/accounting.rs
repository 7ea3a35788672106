//! What the gateway records that connections carried, held against what the kernel counted. As root.

#[path = "accounting/accounts.rs"]
mod accounts;
#[path = "accounting/group.rs"]
mod group;
#[path = "accounting/sessions.rs"]
mod sessions;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use postern_audit::{Event, Record};
use postern_parts::wait;
use postern_tests::fake_target::{Greeting, Work};
use postern_tests::gateway::{Application, Configuration, program};
use postern_tests::machine::Machine;
use postern_tests::{FakeTarget, Gateway, on_each_driver};
use postern_wire::x224::Protocol;

use group::Group;

on_each_driver!(
    records_of_a_thousand_sessions_are_the_kernels_to_the_byte,
    a_record_that_was_changed_is_found,
    what_the_conductor_writes_down_agrees_too,
);

/// Sessions that come to be; web requests, refusals and broken connections come on top.
const SESSIONS: u64 = 1_000;

/// Sessions that live at the same time.
const AT_ONCE: u64 = 8;

/// Sessions that the gateway's own conductor accounts for.
const CONDUCTED: u64 = 100;

/// The conductor drains once a second what has been over for two.
const DRAINED: Duration = Duration::from_secs(40);

/// How connections of the crowd end.
const ENDS: [&str; 8] = [
    "browser_lost",
    "closed_by_browser",
    "handshake_failed",
    "head_malformed",
    "killed",
    "target_closed",
    "token_malformed",
    "web",
];

/// More than there are.
const FLOWS_MAX: u32 = 16 * 1024;

/// A gateway in a control group that accounts are kept of, and its targets.
struct Scene {
    group: Group,
    gateway: Gateway,
    targets: Vec<FakeTarget>,
}

impl Scene {
    fn start(driver: &'static str) -> Result<Self> {
        let targets = targets()?;
        let configuration = configuration(&targets, driver);
        let group = Group::new(FLOWS_MAX)?;
        let gateway = group.inside(|| Gateway::start(configuration))?;
        Ok(Self {
            group,
            gateway,
            targets,
        })
    }

    /// Ends the gateway, writes the kernel's accounts into its audit trail and reconciles: what
    /// was found, and whether that is well.
    fn reconcile(&mut self) -> Result<(serde_json::Value, bool)> {
        self.gateway.stop()?;
        // The kernel goes on offering what a target did not take until that is gone.
        self.targets.clear();
        let folder = self.gateway.audit().folder;
        accounts::write(&mut self.group.accounts, &folder)?;
        reconcile(&self.gateway)
    }
}

/// One that sends back what it gets, one that breaks off, and one that takes nothing.
fn targets() -> Result<Vec<FakeTarget>> {
    let works = [Work::Echo, Work::Hang, Work::Stall];
    let start = |work| FakeTarget::start(Greeting::Choose(Protocol::Nla), work);
    works.into_iter().map(start).collect()
}

fn configuration(targets: &[FakeTarget], driver: &'static str) -> Configuration {
    Configuration::for_target(targets[0].address)
        .with(Application::new("hanging", targets[1].address))
        .with(Application::new("deaf", targets[2].address))
        .limit("sessions_per_user_max", 2_000)
        .limit("half_close_ms_max", 1_000)
        .driver(driver)
}

/// What `postern audit reconcile` says of a gateway's trail, and whether that is well.
fn reconcile(gateway: &Gateway) -> Result<(serde_json::Value, bool)> {
    let output = Command::new(program()?)
        .args(["audit", "reconcile", "--json", "--directory"])
        .arg(gateway.audit().folder)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = serde_json::from_str(&text)
        .with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((found, output.status.success()))
}

fn records_of_a_thousand_sessions_are_the_kernels_to_the_byte(driver: &'static str) -> Result<()> {
    let mut scene = Scene::start(driver)?;
    let opened = sessions::run(&scene.gateway, SESSIONS, AT_ONCE)?;
    let (found, holds) = scene.reconcile()?;
    println!("{driver}: {found:#}");
    ensure!(holds, "{found:#}");
    let legs = |sum: &str| found[sum]["legs"].as_u64().unwrap_or(u64::MAX);
    for sum in [
        "differing",
        "unaccounted",
        "outside",
        "unrecorded",
        "adopted",
        "living",
    ] {
        ensure!(legs(sum) == 0, "{sum}: {found:#}");
    }
    ensure!(
        found["uncounted"] == 0 && found["losses"]["packets"] == 0,
        "{found:#}"
    );
    let records = scene.gateway.audit().events(Event::Connection)?;
    let desktops = records.iter().filter(|one| one.bytes_up.is_some()).count();
    ensure!(
        desktops as u64 == opened,
        "{desktops} of {opened} sessions have records"
    );
    let targets = records
        .iter()
        .filter(|one| one.target_local.is_some())
        .count();
    ensure!(
        legs("agreeing") == (records.len() + targets) as u64,
        "{found:#}"
    );
    // Only what a peer did not take is not known to the byte, and most take everything.
    let unsent = |one: &&Record| one.client_unsent.or(one.target_unsent).is_some();
    let unsent = records.iter().filter(unsent).count();
    println!(
        "{driver}: {unsent} of {} records have unsent bytes",
        records.len()
    );
    ensure!(
        unsent * 4 <= records.len(),
        "{unsent} records have unsent bytes"
    );
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    for record in records {
        *reasons
            .entry(record.reason.unwrap_or_default())
            .or_default() += 1;
    }
    println!("{driver}: {reasons:?}");
    // The crowd ended in every way that it should have.
    for reason in ENDS {
        ensure!(
            reasons.contains_key(reason),
            "no {reason} among {reasons:?}"
        );
    }
    Ok(())
}

fn a_record_that_was_changed_is_found(driver: &'static str) -> Result<()> {
    let mut scene = Scene::start(driver)?;
    let alice = scene.gateway.signed_in("alice", "lab")?;
    let mut desktop = alice.desktop("lab")?;
    desktop.send(b"hello")?;
    ensure!(desktop.receive_exactly(5)? == b"hello");
    desktop.writer().close(1000)?;
    desktop.closed()?;
    let source = desktop.source;
    drop(desktop);
    scene.gateway.audit().connection(source)?;
    let (found, holds) = scene.reconcile()?;
    ensure!(holds, "{found:#}");
    // Whoever can write the trail writes it anew, with all hashes, one byte less.
    accounts::rewrite(&scene.gateway.audit().folder, source)?;
    let (found, holds) = reconcile(&scene.gateway)?;
    ensure!(!holds && found["differing"]["legs"] == 1, "{found:#}");
    ensure!(
        found["differences"][0]["remote"] == source.to_string(),
        "{found:#}"
    );
    Ok(())
}

fn what_the_conductor_writes_down_agrees_too(driver: &'static str) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("accounting-").tempdir()?;
    let machine = Arc::new(Machine::start("gateway", folder.path())?);
    let targets = machine.on(targets)?;
    let configuration = Configuration {
        sections: "[accounting]\nenabled = true\n".to_owned(),
        ..configuration(&targets, driver)
    };
    let address = machine.on(postern_parts::port::free)?;
    let group = Group::new(FLOWS_MAX)?;
    let mut gateway = Gateway::prepare_on(machine.clone(), address, configuration)?;
    group.inside(|| machine.on(|| gateway.launch()))?;
    let opened = machine.on(|| sessions::run(&gateway, CONDUCTED, AT_ONCE))?;
    // The kernel goes on offering what a target did not take until that is gone.
    drop(targets);
    let (found, holds) = wait::until("all accounts", DRAINED, || {
        let (found, holds) = reconcile(&gateway)?;
        let has_all = found["outside"]["legs"] == 0 && found["living"]["legs"] == 0;
        Ok((has_all && found["unaccounted"]["legs"] == 0).then_some((found, holds)))
    })
    .with_context(|| gateway.log())?;
    println!("{driver}: {found:#}");
    ensure!(holds, "{found:#}");
    let agreeing = found["agreeing"]["legs"].as_u64().unwrap_or(0);
    ensure!(agreeing > 2 * opened, "{found:#}");
    machine.on(|| gateway.stop())?;
    ensure!(gateway.verify_audit()?.status.success());
    Ok(())
}
