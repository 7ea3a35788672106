//! Ten thousand desktops that nobody works at.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use postern_parts::wait;
use postern_tests::Gateway;
use postern_tests::crowd::Crowd;
use postern_tests::gateway::{Configuration, EFFECT};
use postern_tests::memory::{descriptors, proportional_bytes};

use crate::turn;

const DESKTOPS: usize = 10_000;

/// Of them so many carry a message while the others are idle.
const SAMPLE: usize = 100;

/// An idle desktop may cost 0.15 of the 206 KiB that it costs in Devolutions Gateway.
const IDLE_BYTES_MAX: u64 = 206 * 1024 * 15 / 100;

/// The engine may have no more open files than this, far below what a process is usually allowed.
const DESCRIPTORS_MAX: usize = 2_000;

/// All are told and gone within this time.
const END_MAX: Duration = Duration::from_secs(10);

/// Nobody is pinged meanwhile: a ping and its answer are not idle.
const PING_MS: u64 = 600_000;

#[test]
fn ten_thousand_idle_desktops_live_side_by_side_on_io_uring() -> Result<()> {
    let _turn = turn();
    let program = Path::new(env!("CARGO_BIN_EXE_postern-tests-crowd"));
    let (mut targets, address) = Crowd::targets(program)?;
    let room = DESKTOPS as u64 + 1_000;
    let configuration = Configuration::for_target(address)
        .limit("connections_max", room)
        .limit("connections_per_source_max", room)
        .limit("sessions_max", room)
        .limit("sessions_per_user_max", room)
        .limit("ping_ms", PING_MS)
        .driver("io_uring");
    let gateway = Gateway::start(configuration)?;
    let alice = gateway.signed_in("alice", "lab")?;
    let mut browsers = Crowd::browsers(program, &alice, "lab")?;
    let engine = gateway.role("engine")?;
    // The first ones bring what is allocated once.
    browsers.ask(&format!("open {SAMPLE}"))?;
    let before = proportional_bytes(engine)?;
    let began = Instant::now();
    let opened = browsers.ask(&format!("open {}", DESKTOPS - SAMPLE))?;
    ensure!(opened == DESKTOPS.to_string(), "{opened} are open");
    let took = began.elapsed().as_secs_f32();
    all_live(&gateway, &mut targets)?;

    let after = proportional_bytes(engine)?;
    let each = after.saturating_sub(before) / (DESKTOPS - SAMPLE) as u64;
    let files = descriptors(engine)?;
    println!(
        "{DESKTOPS} desktops after {took:.0} s; engine: {} MiB, {:.1} KiB a desktop, {files} open files",
        after >> 20,
        each as f64 / 1024.0
    );
    ensure!(each <= IDLE_BYTES_MAX, "{each} bytes an idle desktop");
    ensure!(files <= DESCRIPTORS_MAX, "{files} open files");

    let carried = browsers.ask(&format!("carry {SAMPLE}"))?;
    ensure!(carried == SAMPLE.to_string(), "{carried} carried a message");
    all_live(&gateway, &mut targets)?;

    let began = Instant::now();
    gateway.command(&["sessions", "kill", "all"])?;
    let told = browsers.ask("closed 4000")?;
    ensure!(told == DESKTOPS.to_string(), "{told} were told");
    wait::until("the end of all", END_MAX, || {
        let gone = gateway.metrics()?.sum("postern_sessions_live") == 0.0;
        Ok((gone && targets.ask("live")? == "0").then_some(()))
    })?;
    let took = began.elapsed();
    println!("{DESKTOPS} desktops ended within {} ms", took.as_millis());
    ensure!(took <= END_MAX, "it took {} ms", took.as_millis());
    ensure!(gateway.role("engine")? == engine, "another engine");
    Ok(())
}

fn all_live(gateway: &Gateway, targets: &mut Crowd) -> Result<()> {
    wait::until("all desktops", EFFECT, || {
        let live = gateway.metrics()?.sum("postern_sessions_live") as usize;
        Ok((live == DESKTOPS).then_some(()))
    })?;
    let listed = gateway.sessions()?.len();
    ensure!(listed == DESKTOPS, "{listed} desktops are listed");
    let connected = targets.ask("live")?;
    ensure!(connected == DESKTOPS.to_string(), "{connected} at targets");
    Ok(())
}
