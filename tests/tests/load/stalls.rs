//! Peers that take nothing, for good, beside people who work.

use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use postern_engine::resources::cores;
use postern_parts::wait;
use postern_relay::memory::FLOW_BYTES_MAX;
use postern_tests::browserless::WebSocket;
use postern_tests::fake_target::{FakeTarget, Greeting, Work, send_noise};
use postern_tests::gateway::{Application, Configuration};
use postern_tests::memory::{own_bytes, touch_all_buffers};
use postern_tests::players::play;
use postern_tests::{Browser, Gateway, on_each_driver};
use postern_wire::x224::Protocol;

use crate::turn;

const PLAYERS: usize = 100;

/// Browsers that stop reading, and as many targets.
const STALLED: usize = 4;

/// More than all buffers on the way take.
const FLOOD_BYTES: u64 = 1 << 30;

/// Players are watched so often, and this long each time. Who holds them up does it every time;
/// other work of the machine does not.
const TIMES: usize = 3;
const PLAY: Duration = Duration::from_secs(2);

/// What stalls has stalled within this time.
const FLOOD_PATIENCE: Duration = Duration::from_secs(30);

/// Where nothing moves for so long, nothing will: longer than the engine needs to count.
const LULL: Duration = Duration::from_millis(1500);

/// What the allocator may round up, for all flows together.
const SPARE_BYTES: u64 = 1 << 20;

/// A flow that held up its core would hold up players for as long as they are watched; a machine that
/// has other work holds them up for as long as a turn of that takes.
pub fn bound(alone: Duration) -> Duration {
    2 * alone + Duration::from_millis(100)
}

on_each_driver!(stalled_peers_cost_the_others_no_time_and_the_engine_little_memory);

fn stalled_peers_cost_the_others_no_time_and_the_engine_little_memory(
    driver: &'static str,
) -> Result<()> {
    let _turn = turn();
    let echo = FakeTarget::echo()?;
    let choose = Greeting::Choose(Protocol::Nla);
    let flood = Work::Source {
        bytes: FLOOD_BYTES,
        seed: 3,
    };
    let (source, deaf) = (
        FakeTarget::start(choose, flood)?,
        FakeTarget::start(choose, Work::Stall)?,
    );
    let mut configuration = Configuration::for_target(echo.address)
        .with(Application::new("source", source.address))
        .with(Application::new("deaf", deaf.address))
        .limit("sessions_per_user_max", 2 * PLAYERS as u64)
        .driver(driver);
    // All on one: who stalls is on the core of everybody.
    configuration.cores = cores().into_iter().take(1).collect();
    let gateway = Gateway::start(configuration)?;
    let mut alice = gateway.signed_in("alice", "lab")?;
    alice.open("source")?;
    alice.open("deaf")?;
    let engine = gateway.role("engine")?;
    let mut players = (0..PLAYERS)
        .map(|_| alice.desktop("lab"))
        .collect::<Result<Vec<_>>>()?;
    touch_all_buffers(&alice, "lab")?;
    let alone = usual_p99(&mut players)?;
    let before = own_bytes(engine)?;

    let (readers, writers) = stall(&alice)?;
    wait::until("the stall", FLOOD_PATIENCE, || {
        let carried = gateway.metrics()?.sum("postern_relay_bytes_total");
        std::thread::sleep(LULL);
        let later = gateway.metrics()?.sum("postern_relay_bytes_total");
        Ok((carried == later).then_some(()))
    })?;
    let beside = usual_p99(&mut players)?;
    let grown = own_bytes(engine)?.saturating_sub(before);
    let live = gateway.metrics()?.sum("postern_sessions_live") as usize;
    ensure!(live == PLAYERS + 2 * STALLED, "{live} desktops live");
    for (stalled, _) in &writers {
        stalled.cut();
    }
    readers.iter().for_each(WebSocket::cut);
    for (_, writing) in writers {
        writing.join().map_err(|_| anyhow!("a writer panicked"))?;
    }
    // A machine that became busy meanwhile is busy still.
    let after = usual_p99(&mut players)?;

    println!(
        "p99 of {PLAYERS}: {alone:?} alone, {beside:?} beside {} that stall, {after:?} after; \
         engine: {} KiB more",
        2 * STALLED,
        grown >> 10
    );
    let bound = bound(alone.max(after));
    ensure!(beside <= bound, "{beside:?} are more than {bound:?}");
    let flows = 2 * STALLED as u64 * FLOW_BYTES_MAX as u64;
    ensure!(grown <= flows + SPARE_BYTES, "{grown} bytes more");
    Ok(())
}

/// The median of what `TIMES` looks find.
fn usual_p99(players: &mut [WebSocket]) -> Result<Duration> {
    let looks = (0..TIMES).map(|_| Ok(play(players, PLAY)?.p99()));
    let mut found = looks.collect::<Result<Vec<_>>>()?;
    found.sort_unstable();
    Ok(found[TIMES / 2])
}

type Writing = (WebSocket, JoinHandle<()>);

/// Browsers that never read what their targets flood them with, and browsers that flood targets which
/// never read.
fn stall(alice: &Browser) -> Result<(Vec<WebSocket>, Vec<Writing>)> {
    let (mut readers, mut writers) = (Vec::new(), Vec::new());
    for _ in 0..STALLED {
        readers.push(alice.desktop("source")?);
        let to_deaf = alice.desktop("deaf")?;
        let writer = to_deaf.writer();
        // It fails when the socket's time is over or the test is: how it ends is no matter.
        let writing = std::thread::spawn(move || {
            drop(send_noise(FLOOD_BYTES, 4, |chunk| writer.send(chunk)));
        });
        writers.push((to_deaf, writing));
    }
    Ok((readers, writers))
}
