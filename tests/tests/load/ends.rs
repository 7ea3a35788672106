//! Desktops that end while they carry as much as they can.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use postern_parts::wait;
use postern_tests::browserless::WebSocket;
use postern_tests::fake_target::send_noise;
use postern_tests::gateway::{Configuration, EFFECT};
use postern_tests::noise::{Digest, Tally};
use postern_tests::{FakeTarget, Gateway, on_each_driver};

use crate::turn;

/// Both ways are in full swing when this much was carried.
const SWING_BYTES: f64 = (32 << 20) as f64;
const SWING_PATIENCE: Duration = Duration::from_secs(60);

/// Nothing is slower than this without an end.
const PATIENCE: Duration = Duration::from_secs(60);

/// An engine that died is back within this time.
const BACK: Duration = Duration::from_secs(20);

/// What a desktop that is not killed sends after another was.
const MORE_BYTES: u64 = 16 << 20;

const SEED: u64 = 6;

/// Desktops that die with the engine.
const DOOMED: usize = 4;

on_each_driver!(
    a_desktop_that_is_killed_in_full_swing_ends_in_order_and_alone,
    an_engine_that_is_killed_in_full_swing_comes_back,
);

/// A desktop that sends and receives at the same time, as fast as it goes.
struct Swing {
    source: String,
    /// What was sent at most: counted before it goes.
    sent: Arc<AtomicU64>,
    /// After this much it sends no more, and closes.
    until: Arc<AtomicU64>,
    writing: JoinHandle<io::Result<()>>,
    reading: JoinHandle<(Result<(u16, String)>, Digest)>,
}

/// How such a desktop ended.
struct End {
    /// What it was told, if it was told anything.
    close: Result<(u16, String)>,
    received: Digest,
    sent: u64,
}

impl Swing {
    fn start(mut desktop: WebSocket) -> Self {
        let (sent, until) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicU64::new(u64::MAX)),
        );
        let source = desktop.source.to_string();
        let writer = desktop.writer();
        let (count, last) = (sent.clone(), until.clone());
        let writing = std::thread::spawn(move || {
            let ended = send_noise(u64::MAX, SEED, |chunk| {
                if count.load(Ordering::Relaxed) >= last.load(Ordering::Relaxed) {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                count.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                writer.send(chunk)
            });
            match ended {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => writer.close(1000),
                other => other.map(drop),
            }
        });
        let reading = std::thread::spawn(move || {
            let mut tally = Tally::default();
            let close = desktop.drain(&mut tally, PATIENCE);
            desktop.cut();
            (close, tally.digest())
        });
        Self {
            source,
            sent,
            until,
            writing,
            reading,
        }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits for its end.
    fn end(self) -> Result<End> {
        let reading = self.reading.join();
        let (close, received) = reading.map_err(|_| anyhow!("a reader panicked"))?;
        // It fails when the desktop ends before it.
        let writing = self.writing.join();
        drop(writing.map_err(|_| anyhow!("a writer panicked"))?);
        Ok(End {
            close,
            received,
            sent: self.sent.load(Ordering::Relaxed),
        })
    }
}

/// Whether these bytes are the first ones that were sent, unchanged.
fn is_beginning(digest: &Digest) -> Result<bool> {
    Ok(*digest == send_noise(digest.bytes, SEED, |_| Ok(()))?)
}

fn until_in_full_swing(gateway: &Gateway) -> Result<()> {
    wait::until("full swing", SWING_PATIENCE, || {
        let carried = gateway.metrics()?.sum("postern_relay_bytes_total");
        Ok((carried > SWING_BYTES).then_some(()))
    })
}

fn a_desktop_that_is_killed_in_full_swing_ends_in_order_and_alone(
    driver: &'static str,
) -> Result<()> {
    let _turn = turn();
    let target = FakeTarget::echo()?;
    let gateway = Gateway::start(Configuration::for_target(target.address).driver(driver))?;
    let alice = gateway.signed_in("alice", "lab")?;
    let doomed = alice.desktop("lab")?;
    let source = doomed.source;
    let (doomed, other) = (Swing::start(doomed), Swing::start(alice.desktop("lab")?));
    until_in_full_swing(&gateway)?;
    let sessions = gateway.sessions()?;
    let listed = sessions.iter().find(|one| one["source"] == doomed.source);
    let id = listed.and_then(|one| one["id"].as_str());
    gateway.command(&["sessions", "kill", id.context("it is not listed")?])?;

    // It comes where a frame may begin, or it would not be found.
    let End {
        close,
        received,
        sent,
    } = doomed.end()?;
    let close = close?;
    ensure!(close == (4000, "killed".to_owned()), "{close:?}");
    let at_target = target.received(1)?.digest;
    let record = gateway.audit().connection(source)?;
    println!(
        "sent {sent}, at the target {}, back {}",
        at_target.bytes, received.bytes
    );
    ensure!(is_beginning(&received)? && is_beginning(&at_target)?);
    ensure!(record.reason.as_deref() == Some("killed"), "{record:?}");
    let (up, down) = (record.bytes_up, record.bytes_down);
    ensure!(down == Some(received.bytes), "{down:?} came back");
    ensure!(
        (at_target.bytes..=sent).contains(&up.context("no count")?),
        "{up:?} went up"
    );
    ensure!(
        received.bytes <= at_target.bytes,
        "more came back than went"
    );

    // The other one hears nothing of it.
    let so_far = other.sent();
    other.until.store(so_far + MORE_BYTES, Ordering::Relaxed);
    let End {
        close,
        received,
        sent,
    } = other.end()?;
    ensure!(close?.0 == 1000);
    ensure!(received.bytes == sent && sent >= so_far + MORE_BYTES);
    ensure!(is_beginning(&received)?);
    ensure!(target.received(2)?.digest == received);
    Ok(())
}

fn an_engine_that_is_killed_in_full_swing_comes_back(driver: &'static str) -> Result<()> {
    let _turn = turn();
    let target = FakeTarget::echo()?;
    let gateway = Gateway::start(Configuration::for_target(target.address).driver(driver))?;
    let alice = gateway.signed_in("alice", "lab")?;
    let doomed = (0..DOOMED)
        .map(|_| Ok(Swing::start(alice.desktop("lab")?)))
        .collect::<Result<Vec<_>>>()?;
    until_in_full_swing(&gateway)?;
    let killed = gateway.kill("engine")?;
    for one in doomed {
        let End {
            close, received, ..
        } = one.end()?;
        ensure!(close.is_err(), "nobody was there to say {close:?}");
        ensure!(is_beginning(&received)?);
    }
    for number in 1..=DOOMED {
        ensure!(is_beginning(&target.received(number)?.digest)?);
    }

    let mut again = wait::until("a new desktop", BACK, || Ok(alice.desktop("lab").ok()))?;
    again.send(b"alive")?;
    ensure!(again.receive_exactly(5)? == b"alive");
    ensure!(gateway.role("engine")? != killed, "it was not killed");
    wait::until("the list without the old ones", EFFECT, || {
        Ok((gateway.sessions()?.len() == 1).then_some(()))
    })?;
    let verified = gateway.verify_audit()?;
    ensure!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stdout)
    );
    Ok(())
}
