//! Processes that die, durations that end, and how many at a time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use postern_parts::wait;
use postern_tests::browserless::{Opened, WebSocket};
use postern_tests::gateway::{EFFECT, PASSWORD};

use crate::scene::Scene;

/// A role that died is back within this time.
const BACK: Duration = Duration::from_secs(15);

fn alive(desktop: &mut WebSocket) -> Result<()> {
    desktop.send(b"alive")?;
    ensure!(desktop.receive_exactly(5)? == b"alive");
    Ok(())
}

#[test]
fn killing_control_leaves_desktops_alone_and_control_comes_back() -> Result<()> {
    let scene = Scene::start(|configuration| configuration)?;
    let engine = scene.gateway.role("engine")?;
    let mut desktop = scene.alice.desktop("lab")?;
    alive(&mut desktop)?;

    let control = scene.gateway.kill("control")?;
    let away = scene.alice.clone().get("/")?;
    ensure!(
        away.status == 503 && away.header("retry-after").is_some(),
        "{}",
        away.status
    );
    let record = scene.gateway.audit().connection(away.source)?;
    ensure!(
        record.reason.as_deref() == Some("web_unavailable"),
        "{record:?}"
    );
    // Bytes go on while there is no control, and a permit needs none: the engine has the rules.
    alive(&mut desktop)?;
    let mut second = scene
        .alice
        .desktop("lab")
        .context("a desktop without control")?;
    alive(&mut second)?;

    let mut browser = scene.gateway.browser();
    wait::until("a new login", BACK, || {
        alive(&mut desktop)?;
        Ok(browser.sign_in("alice", PASSWORD).ok())
    })?;
    ensure!(
        scene.gateway.role("control")? != control,
        "control was not killed"
    );
    ensure!(
        scene.gateway.role("engine")? == engine,
        "the engine ended, too"
    );
    browser.open("lab")?;
    alive(&mut browser.desktop("lab")?)?;
    alive(&mut desktop)?;
    // The new control knows what has lived on, and the logins of before still hold.
    wait::until("the list of what has lived on", EFFECT, || {
        let sessions = scene.gateway.sessions()?;
        let knows = |desktop: &WebSocket| {
            let source = desktop.source.to_string();
            sessions.iter().any(|one| one["source"] == source)
        };
        Ok((knows(&desktop) && knows(&second)).then_some(()))
    })?;
    ensure!(
        scene.alice.clone().get("/")?.status == 200,
        "the login of before is void"
    );
    scene.gateway.command(&["sessions", "kill", "all"])?;
    ensure!(desktop.closed()?.0 == 4000);
    let verified = scene.gateway.verify_audit()?;
    ensure!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stdout)
    );
    Ok(())
}

#[test]
fn a_request_that_control_took_into_its_grave_is_answered() -> Result<()> {
    let scene = Scene::start(|configuration| configuration)?;
    scene.gateway.freeze("control")?;
    let mut waiting = scene.alice.clone();
    let waiting = std::thread::spawn(move || waiting.get("/"));
    // It is to be in the queue of the socket, from which nobody takes it.
    std::thread::sleep(Duration::from_millis(500));
    ensure!(!waiting.is_finished(), "a frozen control answered");
    scene.gateway.kill("control")?;
    let away = waiting
        .join()
        .map_err(|_| anyhow!("the request panicked"))??;
    ensure!(away.status == 503, "{}", away.status);
    let record = scene.gateway.audit().connection(away.source)?;
    ensure!(
        record.reason.as_deref() == Some("web_unavailable"),
        "{record:?}"
    );
    Ok(())
}

#[test]
fn killing_the_engine_ends_desktops_and_the_engine_comes_back() -> Result<()> {
    let scene = Scene::start(|configuration| configuration)?;
    let mut desktop = scene.alice.desktop("lab")?;
    alive(&mut desktop)?;
    scene.gateway.kill("engine")?;
    let mut again = wait::until("a new desktop", BACK, || {
        Ok(scene.alice.desktop("lab").ok())
    })?;
    alive(&mut again)?;
    wait::until("the list without the old one", EFFECT, || {
        Ok((scene.gateway.sessions()?.len() == 1).then_some(()))
    })?;
    let verified = scene.gateway.verify_audit()?;
    ensure!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stdout)
    );
    Ok(())
}

#[test]
fn a_session_ends_when_its_time_is_over() -> Result<()> {
    let scene = Scene::start(|mut configuration| {
        configuration.application("lab").session_duration = "4s";
        configuration
    })?;
    // The page was opened a moment ago: the token counts from then.
    let began = Instant::now();
    let mut desktop = scene.alice.desktop("lab")?;
    let close = desktop.closed()?;
    ensure!(
        close == (4003, "expired".to_owned()),
        "closed with {close:?}"
    );
    let lived = began.elapsed().as_secs_f32();
    ensure!((1.5..5.5).contains(&lived), "it lived for {lived} s");
    let record = scene.gateway.audit().connection(desktop.source)?;
    ensure!(record.reason.as_deref() == Some("expired"), "{record:?}");
    // The page gets a fresh token for as long as the policy allows, and a desktop with it.
    let mut alice = scene.alice.clone();
    let renewed = alice.script("POST", "/app/lab/renew")?;
    ensure!(renewed.status == 204, "{}", renewed.status);
    alice.desktop("lab").map(drop)
}

#[test]
fn a_session_without_input_ends_and_one_with_input_does_not() -> Result<()> {
    let scene = Scene::start(|mut configuration| {
        configuration.application("lab").idle = "2s";
        configuration
    })?;
    let mut desktop = scene.alice.desktop("lab")?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        alive(&mut desktop).context("input keeps it alive")?;
        std::thread::sleep(Duration::from_millis(400));
    }
    let quiet = Instant::now();
    let close = desktop.closed()?;
    ensure!(close == (4004, "idle".to_owned()), "closed with {close:?}");
    let lived = quiet.elapsed().as_secs_f32();
    ensure!((1.0..3.5).contains(&lived), "it lived for {lived} s");
    Ok(())
}

#[test]
fn a_user_has_so_many_desktops_and_gets_them_back() -> Result<()> {
    let scene = Scene::start(|configuration| configuration.limit("sessions_per_user_max", 2))?;
    let first = scene.alice.desktop("lab")?;
    let second = scene.alice.desktop("lab")?;
    scene.check("a third desktop", "user_sessions_full", || {
        match scene.alice.try_upgrade("lab")? {
            Opened::Refused(answer) if answer.status == 429 => Ok(answer.source),
            other => anyhow::bail!("the upgrade was answered with {other:?}"),
        }
    })?;
    second.writer().close(1000)?;
    wait::until("room for another", EFFECT, || {
        Ok(scene.alice.desktop("lab").ok())
    })?;
    drop(first);
    Ok(())
}

#[test]
fn the_node_has_so_many_desktops() -> Result<()> {
    let scene = Scene::start(|configuration| configuration.limit("sessions_max", 1))?;
    let _first = scene.alice.desktop("lab")?;
    scene.check("a second desktop", "sessions_full", || {
        match scene.alice.try_upgrade("lab")? {
            Opened::Refused(answer) if answer.status == 503 => Ok(answer.source),
            other => anyhow::bail!("the upgrade was answered with {other:?}"),
        }
    })?;
    Ok(())
}

#[test]
fn a_gateway_that_is_stopped_tells_its_desktops_and_ends() -> Result<()> {
    let mut scene = Scene::start(|configuration| configuration)?;
    let mut desktop = scene.alice.desktop("lab")?;
    alive(&mut desktop)?;
    let began = Instant::now();
    scene.gateway.terminate()?;
    let close = desktop.closed()?;
    ensure!(
        close == (4005, "draining".to_owned()),
        "closed with {close:?}"
    );
    drop(desktop.writer());
    let source = desktop.source;
    drop(desktop);
    scene.gateway.stop()?;
    let took = began.elapsed();
    ensure!(
        took < Duration::from_secs(10),
        "it took {} s",
        took.as_secs()
    );
    let record = scene.gateway.audit().connection(source)?;
    ensure!(record.reason.as_deref() == Some("draining"), "{record:?}");

    // Everything is there again after a start: logins, rules, the trail.
    scene.gateway.launch()?;
    let mut again = scene.alice.desktop("lab")?;
    alive(&mut again)?;
    let verified = scene.gateway.verify_audit()?;
    ensure!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stdout)
    );
    Ok(())
}
