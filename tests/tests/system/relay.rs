//! What the relay carries: everything, unchanged, in bounded memory, for many at a time.

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use postern_engine::resources::cores;
use postern_parts::wait;
use postern_relay::memory::FLOW_BYTES_MAX;
use postern_tests::browserless::{Frame, WebSocket};
use postern_tests::fake_target::{FakeTarget, Greeting, Work, send_noise};
use postern_tests::gateway::{Application, Configuration, EFFECT};
use postern_tests::memory::{own_bytes, touch_all_buffers};
use postern_tests::noise::{Digest, Tally};
use postern_tests::{Browser, Gateway, on_each_driver};
use postern_wire::x224::Protocol;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const MIB: u64 = 1 << 20;

/// What a full run carries each way.
const BYTES: u64 = 1024 * MIB;

/// A relay that carries [`BYTES`] is done by then, on a machine that has other work as well.
const PATIENCE: Duration = Duration::from_secs(240);

/// A peer that takes nothing takes nothing for so long.
const STALL: Duration = Duration::from_secs(30);

on_each_driver!(
    both_directions_at_once_arrive_unchanged,
    a_browser_that_is_done_still_hears_the_machine_out,
    a_machine_that_is_done_is_heard_out_and_still_takes_what_comes,
    a_machine_that_breaks_off_is_told_as_such,
    a_browser_that_breaks_off_ends_the_session,
    peers_that_take_nothing_cost_no_memory,
    a_thousand_idle_sessions_live_side_by_side,
    pings_keep_a_quiet_session_and_a_silent_browser_is_dropped,
);

/// The gateway on `driver`, and a browser with `lab`'s cookie.
fn start(target: &FakeTarget, driver: &'static str) -> Result<(Gateway, Browser)> {
    let gateway = Gateway::start(Configuration::for_target(target.address).driver(driver))?;
    let alice = gateway.signed_in("alice", "lab")?;
    Ok((gateway, alice))
}

/// Sends noise from another thread, then says good-bye.
fn send(websocket: &WebSocket, bytes: u64) -> JoinHandle<io::Result<Digest>> {
    let writer = websocket.writer();
    std::thread::spawn(move || {
        let digest = send_noise(bytes, 1, |chunk| writer.send(chunk))?;
        writer.close(1000)?;
        Ok(digest)
    })
}

fn joined<T>(thread: JoinHandle<io::Result<T>>) -> Result<T> {
    Ok(thread.join().map_err(|_| anyhow!("a thread panicked"))??)
}

fn both_directions_at_once_arrive_unchanged(driver: &'static str) -> Result<()> {
    let target = FakeTarget::echo()?;
    let (gateway, alice) = start(&target, driver)?;
    let mut desktop = alice.desktop("lab")?;
    let began = Instant::now();
    let sender = send(&desktop, BYTES);
    let mut tally = Tally::default();
    desktop.drain(&mut tally, PATIENCE)?;
    let (sent, returned) = (joined(sender)?, tally.digest());
    ensure!(sent == returned, "sent {sent:?}, came back {returned:?}");
    let received = target.received(1)?;
    ensure!(received.clean && received.digest == sent, "{received:?}");
    let record = gateway.audit().connection(desktop.source)?;
    ensure!(
        record.reason.as_deref() == Some("closed_by_browser"),
        "{record:?}"
    );
    ensure!(
        record.bytes_up == Some(BYTES) && record.bytes_down == Some(BYTES),
        "{record:?}"
    );
    let rate = BYTES as f64 / MIB as f64 / began.elapsed().as_secs_f64();
    println!("{} MiB each way at {rate:.0} MiB/s", BYTES / MIB);
    Ok(())
}

fn a_browser_that_is_done_still_hears_the_machine_out(driver: &'static str) -> Result<()> {
    let target = FakeTarget::start(Greeting::Choose(Protocol::Nla), Work::Sink)?;
    let (_gateway, alice) = start(&target, driver)?;
    let mut desktop = alice.desktop("lab")?;
    let sent = joined(send(&desktop, 16 * MIB))?;
    let received = target.received(1)?;
    ensure!(received.clean && received.digest == sent, "{received:?}");
    // The machine answers only once it knows that nothing more will come.
    ensure!(desktop.receive_exactly(8)? == (16 * MIB).to_be_bytes());
    ensure!(desktop.closed()?.0 == 1000);
    Ok(())
}

fn a_machine_that_is_done_is_heard_out_and_still_takes_what_comes(
    driver: &'static str,
) -> Result<()> {
    let bytes = 16 * MIB;
    let work = Work::Source { bytes, seed: 5 };
    let target = FakeTarget::start(Greeting::Choose(Protocol::Nla), work)?;
    let (gateway, alice) = start(&target, driver)?;
    let mut desktop = alice.desktop("lab")?;
    let mut tally = Tally::default();
    let close = desktop.drain(&mut tally, PATIENCE)?;
    ensure!(
        close == (1000, "target_closed".to_owned()),
        "closed with {close:?}"
    );
    let expected = send_noise(bytes, 5, |_| Ok(()))?;
    ensure!(tally.digest() == expected);
    let sent = joined(send(&desktop, MIB))?;
    let received = target.received(1)?;
    ensure!(received.clean && received.digest == sent, "{received:?}");
    let record = gateway.audit().connection(desktop.source)?;
    ensure!(
        record.reason.as_deref() == Some("target_closed"),
        "{record:?}"
    );
    Ok(())
}

fn a_machine_that_breaks_off_is_told_as_such(driver: &'static str) -> Result<()> {
    let target = FakeTarget::start(Greeting::Choose(Protocol::Nla), Work::Hang)?;
    let (_gateway, alice) = start(&target, driver)?;
    let mut desktop = alice.desktop("lab")?;
    desktop.send(b"go")?;
    let close = desktop.closed()?;
    // RDP servers end TCP without a good-bye of TLS: both are the machine's end.
    ensure!(
        close == (1000, "target_closed".to_owned()),
        "closed with {close:?}"
    );
    Ok(())
}

fn a_browser_that_breaks_off_ends_the_session(driver: &'static str) -> Result<()> {
    let target = FakeTarget::echo()?;
    let (gateway, alice) = start(&target, driver)?;
    let desktop = alice.desktop("lab")?;
    desktop.cut();
    let record = gateway.audit().connection(desktop.source)?;
    ensure!(
        record.reason.as_deref() == Some("browser_lost"),
        "{record:?}"
    );
    ensure!(target.received(1)?.digest.bytes == 0);
    Ok(())
}

fn peers_that_take_nothing_cost_no_memory(driver: &'static str) -> Result<()> {
    let bytes = 64 * MIB;
    let work = Work::Source { bytes, seed: 9 };
    let source = FakeTarget::start(Greeting::Choose(Protocol::Nla), work)?;
    let deaf = FakeTarget::start(Greeting::Choose(Protocol::Nla), Work::Stall)?;
    let echo = FakeTarget::echo()?;
    let mut configuration = Configuration::for_target(source.address)
        .with(Application::new("deaf", deaf.address))
        .with(Application::new("echo", echo.address))
        .driver(driver);
    configuration.cores = cores().into_iter().take(1).collect();
    let gateway = Gateway::start(configuration)?;
    let mut alice = gateway.signed_in("alice", "lab")?;
    alice.open("deaf")?;
    alice.open("echo")?;
    let engine = gateway.role("engine")?;
    touch_all_buffers(&alice, "echo")?;
    let before = own_bytes(engine)?;
    let mut stalled = alice.desktop("lab")?;
    let to_deaf = alice.desktop("deaf")?;

    let writer = to_deaf.writer();
    // It blocks until the socket's time is over; how it ends is no matter.
    let writing =
        std::thread::spawn(move || drop(send_noise(bytes, 1, |chunk| writer.send(chunk))));
    let began = Instant::now();
    let mut peak = before;
    while began.elapsed() < STALL {
        peak = peak.max(own_bytes(engine)?);
        std::thread::sleep(Duration::from_millis(250));
    }
    let grown = peak.saturating_sub(before);
    println!(
        "engine: {} KiB, {} KiB more in {} s of stall",
        peak >> 10,
        grown >> 10,
        STALL.as_secs()
    );
    let flows = 2 * FLOW_BYTES_MAX as u64;
    ensure!(grown < flows + MIB, "the engine has grown by {grown} bytes");

    // The one that was only slow gets everything.
    let mut tally = Tally::default();
    let close = stalled.drain(&mut tally, PATIENCE)?;
    ensure!(
        close == (1000, "target_closed".to_owned()),
        "closed with {close:?}"
    );
    ensure!(tally.digest() == send_noise(bytes, 9, |_| Ok(()))?);
    to_deaf.cut();
    writing.join().map_err(|_| anyhow!("a thread panicked"))
}

/// Sessions that are open at the same time, and threads that open them.
const IDLE: usize = 1000;
const OPENERS: usize = 4;

fn a_thousand_idle_sessions_live_side_by_side(driver: &'static str) -> Result<()> {
    allow_descriptors()?;
    let target = FakeTarget::echo()?;
    let configuration = Configuration::for_target(target.address)
        .limit("sessions_per_user_max", IDLE as u64)
        .limit("connections_per_source_max", 2 * IDLE as u64)
        .driver(driver);
    let gateway = Gateway::start(configuration)?;
    let alice = gateway.signed_in("alice", "lab")?;
    let engine = gateway.role("engine")?;
    // The first one brings what is allocated once.
    let mut first = alice.desktop("lab")?;
    let before = own_bytes(engine)?;
    let began = Instant::now();
    let mut desktops = open_many(&alice, IDLE - 1)?;
    let took = began.elapsed();
    let each = own_bytes(engine)?.saturating_sub(before) / desktops.len() as u64;
    println!(
        "{IDLE} idle sessions after {:.1} s, {} KiB each",
        took.as_secs_f32(),
        each >> 10
    );
    ensure!(each < 256 << 10, "{each} bytes a session");
    let live = gateway.metrics()?.sum("postern_sessions_live");
    ensure!(live as usize == IDLE, "{live} sessions are live");
    ensure!(gateway.sessions()?.len() == IDLE);

    for desktop in desktops.iter_mut().step_by(100).chain([&mut first]) {
        desktop.send(b"still here")?;
        ensure!(desktop.receive_exactly(10)? == b"still here");
    }
    let began = Instant::now();
    gateway.command(&["sessions", "kill", "all"])?;
    for desktop in desktops.iter_mut().chain([&mut first]) {
        ensure!(desktop.closed()?.0 == 4000);
    }
    let took = began.elapsed();
    ensure!(
        took < Duration::from_secs(2),
        "{IDLE} were told within {} ms",
        took.as_millis()
    );
    drop(desktops);
    wait::until("the seats", EFFECT, || {
        Ok((gateway.metrics()?.sum("postern_sessions_live") == 0.0).then_some(()))
    })
}

fn open_many(alice: &Browser, number: usize) -> Result<Vec<WebSocket>> {
    let openers: Vec<_> = (0..OPENERS)
        .map(|opener| {
            let alice = alice.clone();
            let share = (number + opener) / OPENERS;
            std::thread::spawn(move || -> Result<Vec<WebSocket>> {
                (0..share).map(|_| alice.desktop("lab")).collect()
            })
        })
        .collect();
    let mut all = Vec::new();
    for opener in openers {
        all.extend(opener.join().map_err(|_| anyhow!("a thread panicked"))??);
    }
    Ok(all)
}

/// Every session takes a descriptor here, and two at the target, which is here as well.
fn allow_descriptors() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = 6 * IDLE as u64;
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: limit.maximum,
        };
        setrlimit(Resource::Nofile, raised).context("too few open files are allowed")?;
    }
    Ok(())
}

fn pings_keep_a_quiet_session_and_a_silent_browser_is_dropped(driver: &'static str) -> Result<()> {
    let target = FakeTarget::echo()?;
    let configuration = Configuration::for_target(target.address).limit("ping_ms", 1000);
    let gateway = Gateway::start(configuration.driver(driver))?;
    let alice = gateway.signed_in("alice", "lab")?;
    let mut polite = alice.desktop("lab")?;
    let mut silent = alice.desktop("lab")?;
    let began = Instant::now();
    // Pings are answered in here.
    let nothing = polite.next_within(Duration::from_secs(5));
    ensure!(nothing.is_err(), "{nothing:?}");
    polite.send(b"here")?;
    ensure!(polite.receive_exactly(4)? == b"here");
    let record = gateway.audit().connection(silent.source)?;
    ensure!(
        record.reason.as_deref() == Some("browser_silent"),
        "{record:?}"
    );
    ensure!(record.duration_ms < Some(u64::try_from(began.elapsed().as_millis())?));
    ensure!(
        matches!(silent.frame()?, Frame::Ping(_)),
        "it was never pinged"
    );
    Ok(())
}
