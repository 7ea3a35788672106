//! TLS handshakes by the hundred that go nowhere, beside people who work.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use postern_engine::resources::cores;
use postern_parts::wait;
use postern_tests::gateway::Configuration;
use postern_tests::players::play;
use postern_tests::{Browser, FakeTarget, Gateway, on_each_driver};

use crate::stalls::bound;
use crate::turn;

const PLAYERS: usize = 20;

/// For as long as the storm blows.
const PLAY: Duration = Duration::from_secs(5);

/// Handshakes that never end, and from where.
const HANGING: u32 = 1_000;
const HANGING_FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Others that are as they should be, and from where.
const WHOLE: u32 = 100;
const WHOLE_FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// A handshake may take this long.
const HANDSHAKE_MS_MAX: u64 = 3_000;

/// Handshakes of one source on one core.
const OF_SOURCE_MAX: u64 = 32;

/// Until everything was counted.
const COUNT_PATIENCE: Duration = Duration::from_secs(20);

on_each_driver!(a_storm_of_handshakes_disturbs_nobody_and_is_shed);

fn a_storm_of_handshakes_disturbs_nobody_and_is_shed(driver: &'static str) -> Result<()> {
    let _turn = turn();
    let target = FakeTarget::echo()?;
    let configuration = Configuration::for_target(target.address)
        .limit("handshake_ms_max", HANDSHAKE_MS_MAX)
        .limit("handshakes_per_source_max", OF_SOURCE_MAX)
        .limit("sessions_per_user_max", PLAYERS as u64)
        .driver(driver);
    let gateway = Gateway::start(configuration)?;
    let alice = gateway.signed_in("alice", "lab")?;
    let mut players = (0..PLAYERS)
        .map(|_| alice.desktop("lab"))
        .collect::<Result<Vec<_>>>()?;
    let alone = play(&mut players, PLAY)?;

    let before = gateway.metrics()?.reasons();
    let (hanging, whole) = (alice.at(HANGING_FROM), alice.at(WHOLE_FROM));
    let (beside, hung) = std::thread::scope(|scope| -> Result<_> {
        let storm = scope.spawn(|| hang(&hanging));
        let others = scope.spawn(|| shake_hands(&whole));
        let beside = play(&mut players, PLAY)?;
        others.join().map_err(|_| anyhow!("a thread panicked"))??;
        let hung = storm.join().map_err(|_| anyhow!("a thread panicked"))??;
        Ok((beside, hung))
    })?;
    let counted = counted(&gateway, &before)?;
    // A machine that became busy meanwhile is busy still.
    let after = play(&mut players, PLAY)?;
    println!(
        "p99 of {PLAYERS}: {:?} alone, {:?} beside a storm ({:?} at most), {:?} after; {counted:?}",
        alone.p99(),
        beside.p99(),
        beside.longest(),
        after.p99(),
    );
    let bound = bound(alone.p99().max(after.p99()));
    ensure!(beside.p99() <= bound, "more than {bound:?}");

    // Those that were let in hang until their time is over; whoever comes meanwhile is shed.
    let let_in = counted.get("handshake_timeout").copied().unwrap_or(0);
    let rounds = PLAY.as_millis() as u64 / HANDSHAKE_MS_MAX + 1;
    let let_in_max = rounds * OF_SOURCE_MAX * cores().len() as u64;
    ensure!((1..=let_in_max).contains(&let_in), "{counted:?}");
    let shed = counted.get("handshakes_full").copied();
    ensure!(shed == Some(u64::from(HANGING) - let_in), "{counted:?}");
    let (left, others) = (counted.get("closed_early"), counted.len());
    ensure!(
        left == Some(&u64::from(WHOLE)) && others == 3,
        "{counted:?}"
    );
    drop(hung);
    Ok(())
}

/// Does `one` so often, evenly over the time that the storm blows.
fn evenly<T>(times: u32, mut one: impl FnMut(u32) -> Result<T>) -> Result<Vec<T>> {
    let began = Instant::now();
    let paced = (0..times).map(|index| {
        let due = began + PLAY * index / times;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        one(index)
    });
    paced.collect()
}

/// Every other one makes the gateway do all of its cryptography, and then nothing.
fn hang(browser: &Browser) -> Result<Vec<TcpStream>> {
    evenly(HANGING, |index| {
        browser.hang(if index % 2 == 0 { 100 } else { 50 })
    })
}

/// Whom the storm does not come from is let in.
fn shake_hands(browser: &Browser) -> Result<()> {
    evenly(WHOLE, |_| browser.connect().map(drop)).map(drop)
}

/// What was counted since `before`, when all of it is.
fn counted(gateway: &Gateway, before: &BTreeMap<String, u64>) -> Result<BTreeMap<String, u64>> {
    wait::until("every connection's count", COUNT_PATIENCE, || {
        let mut counted = gateway.metrics()?.reasons();
        for (reason, count) in &mut counted {
            *count = count.saturating_sub(before.get(reason).copied().unwrap_or(0));
        }
        counted.retain(|_, count| *count > 0);
        let all = counted.values().sum::<u64>() >= u64::from(HANGING + WHOLE);
        Ok(all.then_some(counted))
    })
}
