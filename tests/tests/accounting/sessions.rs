//! A crowd of sessions, web requests and broken connections of every kind and size.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use postern_parts::wait;
use postern_tests::browserless::{Opened, PATIENCE, WebSocket};
use postern_tests::fake_target::send_noise;
use postern_tests::gateway::EFFECT;
use postern_tests::noise::Tally;
use postern_tests::{Browser, Gateway};

/// A session carries at most this much each way.
const BYTES_MAX: u64 = 2 << 20;

/// One that is broken off in full swing has sent about this much.
const SWING_BYTES: u64 = 600_000;

const SEED: u64 = 11;

/// Desktops that an administrator kills in full swing.
const KILLED: usize = 4;

/// Runs so many sessions, `at_once` of them at the same time; how many came to be.
pub fn run(gateway: &Gateway, sessions: u64, at_once: u64) -> Result<u64> {
    let alice = gateway.signed_in("alice", "lab")?;
    let mut alice = alice;
    for application in ["hanging", "deaf"] {
        alice.open(application)?;
    }
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut alice = alice.clone();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= sessions {
                            return Ok(());
                        }
                        one(&mut alice, number).with_context(|| format!("session {number}"))?;
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().map_err(|_| anyhow!("a worker panicked"))??;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    let killed = kill(gateway, &alice)?;
    Ok(sessions + killed)
}

/// One session, and something of another kind beside it.
fn one(alice: &mut Browser, number: u64) -> Result<()> {
    let bytes = size(number);
    match number % 10 {
        0..=4 => echo(alice, bytes)?,
        // A browser that vanishes without a word, in good order of TCP.
        5 => {
            let desktop = small_talk(alice)?;
            desktop.cut();
        }
        // A browser that resets, at rest and in full swing.
        6 => small_talk(alice)?.reset()?,
        7 => swing(alice, "lab")?.reset()?,
        // A target that breaks off while it is being sent to.
        8 => {
            let mut desktop = alice.desktop("hanging")?;
            // It goes away while this is under way.
            let _ = pour(&desktop, SWING_BYTES);
            let _ = desktop.closed_within(PATIENCE);
        }
        // A target that takes nothing, and a browser that gives up.
        _ => swing(alice, "deaf")?.cut(),
    }
    match number % 20 {
        0 => ensure!(alice.get("/")?.status == 200),
        4 => refused(alice)?,
        8 => drop(alice.raw(b"GET / HTTP/1.1\r\n\r\n", PATIENCE)?),
        12 => drop(TcpStream::connect(alice.gateway())?),
        16 => {
            let mut socket = TcpStream::connect(alice.gateway())?;
            // What is no TLS is answered by an alert, or not at all.
            let _ = socket.write_all(&[0x42; 300]);
        }
        _ => {}
    }
    Ok(())
}

/// Mostly small, some large.
fn size(number: u64) -> u64 {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    match number % 25 {
        0 => BYTES_MAX - spread % 1000,
        1..=5 => spread % 100_000 + 1,
        _ => spread % 2000 + 1,
    }
}

/// What is sent comes back, and both say good-bye.
fn echo(alice: &Browser, bytes: u64) -> Result<()> {
    let mut desktop = alice.desktop("lab")?;
    let writer = desktop.writer();
    let sending = std::thread::spawn(move || {
        let sent = send_noise(bytes, SEED, |chunk| writer.send(chunk));
        (sent, writer)
    });
    let mut left = bytes;
    while left > 0 {
        left = left
            .checked_sub(desktop.receive()?.len() as u64)
            .context("more came back than was sent")?;
    }
    let (sent, writer) = sending.join().map_err(|_| anyhow!("a sender panicked"))?;
    sent?;
    writer.close(1000)?;
    ensure!(desktop.closed()?.0 == 1000);
    Ok(())
}

fn small_talk(alice: &Browser) -> Result<WebSocket> {
    let mut desktop = alice.desktop("lab")?;
    desktop.send(b"hello")?;
    ensure!(desktop.receive_exactly(5)? == b"hello");
    Ok(desktop)
}

/// A desktop that has been sent much, and of which nothing was read.
fn swing(alice: &Browser, application: &str) -> Result<WebSocket> {
    let desktop = alice.desktop(application)?;
    pour(&desktop, SWING_BYTES)?;
    Ok(desktop)
}

fn pour(desktop: &WebSocket, bytes: u64) -> std::io::Result<()> {
    let writer = desktop.writer();
    send_noise(bytes, SEED, |chunk| writer.send(chunk)).map(drop)
}

fn refused(alice: &Browser) -> Result<()> {
    let mut nobody = alice.clone();
    nobody.set_cookie("/app/lab/", "__Secure-postern-app", "nonsense");
    match nobody.try_upgrade("lab")? {
        Opened::Refused(_) => Ok(()),
        Opened::WebSocket(_) => Err(anyhow!("nonsense opens a WebSocket")),
    }
}

/// Desktops that send and receive as fast as they can are killed, all at once.
fn kill(gateway: &Gateway, alice: &Browser) -> Result<u64> {
    wait::until("the end of the others", Duration::from_secs(60), || {
        Ok(gateway.sessions()?.is_empty().then_some(()))
    })?;
    let mut doomed = Vec::new();
    for _ in 0..KILLED {
        let mut desktop = alice.desktop("lab")?;
        let writer = desktop.writer();
        let sending =
            std::thread::spawn(move || send_noise(u64::MAX, SEED, |chunk| writer.send(chunk)));
        let reading = std::thread::spawn(move || {
            let close = desktop.drain(&mut Tally::default(), Duration::from_secs(60));
            desktop.cut();
            close
        });
        doomed.push((sending, reading));
    }
    wait::until("full swing", Duration::from_secs(60), || {
        // Whoever measures may have to wait while all of them pour, and asks again.
        let carried = gateway.metrics().ok();
        let carried = carried.map(|metrics| metrics.sum("postern_relay_bytes_total"));
        Ok(carried
            .is_some_and(|bytes| bytes > SWING_BYTES as f64)
            .then_some(()))
    })?;
    gateway.command(&["sessions", "kill", "all"])?;
    for (sending, reading) in doomed {
        // It fails when its desktop ends.
        drop(sending.join().map_err(|_| anyhow!("a sender panicked"))?);
        let close = reading.join().map_err(|_| anyhow!("a reader panicked"))?;
        ensure!(close?.0 == 4000, "it was not killed");
    }
    wait::until("the end of the killed", EFFECT, || {
        Ok(gateway.sessions()?.is_empty().then_some(()))
    })?;
    Ok(KILLED as u64)
}
