//! What the gateway records that connections carried, held against what the kernel counted. As root.

#[path = "accounting/accounts.rs"]
mod accounts;
#[path = "accounting/group.rs"]
mod group;
#[path = "accounting/sessions.rs"]
mod sessions;

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use postern_audit::{Event, Record};
use postern_tests::gateway::{Application, Configuration, program};
use postern_tests::{FakeTarget, Gateway, on_each_driver};
use postern_wire::x224::Protocol;

use group::Group;
use postern_tests::fake_target::{Greeting, Work};

on_each_driver!(
    records_of_a_thousand_sessions_are_the_kernels_to_the_byte,
    a_record_that_was_changed_is_found,
);

/// Sessions that come to be; web requests, refusals and broken connections come on top.
const SESSIONS: u64 = 1_000;

/// Sessions that live at the same time.
const AT_ONCE: u64 = 8;

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
        let nla = Greeting::Choose(Protocol::Nla);
        let echo = FakeTarget::echo()?;
        let hanging = FakeTarget::start(nla, Work::Hang)?;
        let deaf = FakeTarget::start(nla, Work::Stall)?;
        let configuration = Configuration::for_target(echo.address)
            .with(Application::new("hanging", hanging.address))
            .with(Application::new("deaf", deaf.address))
            .limit("sessions_per_user_max", 2_000)
            .limit("half_close_ms_max", 1_000)
            .driver(driver);
        let group = Group::new(FLOWS_MAX)?;
        let gateway = group.inside(|| Gateway::start(configuration))?;
        Ok(Self {
            group,
            gateway,
            targets: vec![echo, hanging, deaf],
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
        self.judge()
    }

    fn judge(&self) -> Result<(serde_json::Value, bool)> {
        let output = Command::new(program()?)
            .args(["audit", "reconcile", "--json", "--directory"])
            .arg(self.gateway.audit().folder)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let found = serde_json::from_str(&text)
            .with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))?;
        Ok((found, output.status.success()))
    }
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
    let (found, holds) = scene.judge()?;
    ensure!(!holds && found["differing"]["legs"] == 1, "{found:#}");
    ensure!(
        found["differences"][0]["remote"] == source.to_string(),
        "{found:#}"
    );
    Ok(())
}
