//! Who may go on: kill, revocation, logout and new rules reach live desktops and new ones alike.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use postern_audit::Event;
use postern_parts::{port, wait};
use postern_tests::Browser;
use postern_tests::browserless::{Opened, PATIENCE, WebSocket};
use postern_tests::gateway::{Application, EFFECT, PASSWORD, Policy, User};

use crate::scene::Scene;

/// A live desktop is told within this time.
const TOLD: Duration = Duration::from_secs(2);

/// Does something to the gateway that must end a live desktop in time, with this close frame and
/// one record that says so.
fn ends(
    scene: &mut Scene,
    mut desktop: WebSocket,
    code: u16,
    reason: &str,
    act: impl FnOnce(&mut Scene) -> Result<()>,
) -> Result<()> {
    desktop.send(b"alive")?;
    ensure!(desktop.receive_exactly(5)? == b"alive");
    let began = Instant::now();
    act(scene)?;
    let close = desktop.closed_within(PATIENCE)?;
    let took = began.elapsed();
    ensure!(close == (code, reason.to_owned()), "closed with {close:?}");
    ensure!(took < TOLD, "{reason} took {} ms", took.as_millis());
    let record = scene.gateway.audit().connection(desktop.source)?;
    ensure!(record.reason.as_deref() == Some(reason), "{record:?}");
    ensure!(
        record.bytes_up == Some(5) && record.bytes_down == Some(5),
        "{record:?}"
    );
    Ok(())
}

/// The upgrade must be refused so, without a dial.
fn refused(scene: &Scene, browser: &Browser, status: u16, reason: &str) -> Result<String> {
    let record = scene.check(reason, reason, || match browser.try_upgrade("lab")? {
        Opened::Refused(answer) if answer.status == status => Ok(answer.source),
        other => anyhow::bail!("the upgrade was answered with {other:?}"),
    })?;
    let source = record.source.context("a source")?.parse()?;
    let decisions = scene.gateway.audit().decisions(source)?;
    ensure!(decisions.len() == 1, "{} decisions", decisions.len());
    Ok(decisions[0].detail.clone().unwrap_or_default())
}

fn command<'a>(arguments: &'a [&'a str]) -> impl FnOnce(&mut Scene) -> Result<()> + 'a {
    |scene| scene.gateway.command(arguments).map(drop)
}

#[test]
fn an_administrator_ends_a_desktop_and_the_page_can_say_so() -> Result<()> {
    let mut scene = Scene::start(|configuration| configuration)?;
    let desktop = scene.alice.desktop("lab")?;
    let other = scene.alice.desktop("lab")?;
    let mut sessions = scene.gateway.sessions()?;
    ensure!(sessions.len() == 2, "{sessions:#?}");
    sessions.retain(|session| session["source"] == desktop.source.to_string());
    let session = sessions.pop().context("the desktop is in the list")?;
    ensure!(
        session["application"] == "lab" && session["user"] == "alice",
        "{session:#}"
    );
    let id = session["id"].as_str().context("an id")?.to_owned();

    ends(
        &mut scene,
        desktop,
        4000,
        "killed",
        command(&["sessions", "kill", &id]),
    )?;
    other.send(b"still here")?;
    let status = scene.alice.script("GET", "/app/lab/status")?.json()?;
    ensure!(status["ended"]["reason"] == "killed", "{status:#}");
    let sentence = status["ended"]["sentence"].as_str().unwrap_or_default();
    ensure!(sentence.contains("administrator"), "{status:#}");
    ensure!(
        status["live"]
            .as_array()
            .is_some_and(|live| live.len() == 1),
        "{status:#}"
    );
    drop(other);

    // What was killed may be opened again; all of a user's, all of an application, all there are.
    for all in ["user:alice", "application:lab", "all"] {
        let desktop = scene.alice.desktop("lab")?;
        ends(
            &mut scene,
            desktop,
            4000,
            "killed",
            command(&["sessions", "kill", all]),
        )?;
    }
    let done = scene.gateway.audit().events(Event::Administration)?;
    ensure!(done.len() >= 4, "{} records of four kills", done.len());
    wait::until("an empty list", EFFECT, || {
        Ok(scene.gateway.sessions()?.is_empty().then_some(()))
    })
}

#[test]
fn a_revoked_user_is_cut_and_must_sign_in_again() -> Result<()> {
    let mut scene =
        Scene::start(|configuration| configuration.with_user(User::new("bob", &["staff"])))?;
    let bob = scene.gateway.signed_in("bob", "lab")?;
    let mut bobs = bob.desktop("lab")?;
    let desktop = scene.alice.desktop("lab")?;
    ends(
        &mut scene,
        desktop,
        4001,
        "revoked",
        command(&["revoke", "user", "alice"]),
    )?;
    refused(&scene, &scene.alice, 401, "revoked")?;
    let page = scene.alice.clone().get("/app/lab/")?;
    ensure!(page.status == 303, "the page answers {}", page.status);
    bobs.send(b"bob stays")?;
    ensure!(bobs.receive_exactly(9)? == b"bob stays");

    // A login of the second of the revocation is void, too.
    std::thread::sleep(Duration::from_millis(1100));
    scene.alice = scene.gateway.signed_in("alice", "lab")?;
    let desktop = scene.alice.desktop("lab")?;
    let application = ["revoke", "application", "lab"];
    ends(&mut scene, desktop, 4001, "revoked", command(&application))?;
    ensure!(bobs.closed()? == (4001, "revoked".to_owned()));
    refused(&scene, &scene.alice, 401, "revoked").map(drop)
}

#[test]
fn a_revocation_counts_for_a_connection_that_was_there_before_it() -> Result<()> {
    let scene = Scene::start(|configuration| configuration)?;
    let (stream, source) = scene.alice.connect()?;
    // The connection is accepted and waits for its head; only then is the user revoked.
    scene.gateway.command(&["revoke", "user", "alice"])?;
    let refused = wait::until("the revocation", EFFECT, || {
        match scene.alice.try_upgrade("lab")? {
            Opened::Refused(answer) => Ok(Some(answer.source)),
            Opened::WebSocket(_) => Ok(None),
        }
    })?;
    scene.gateway.audit().connection(refused)?;
    scene.check("a late head", "revoked", || {
        let head = Browser::upgrade_head("lab", &scene.alice.upgrade_headers("lab"));
        stream.send(head.as_bytes())?;
        let mut answer = [0; 64];
        let read = stream.receive(&mut answer)?;
        ensure!(
            answer[..read].starts_with(b"HTTP/1.1 401 "),
            "the head was accepted"
        );
        drop(stream);
        Ok(source)
    })?;
    Ok(())
}

#[test]
fn signing_out_ends_the_desktops_of_that_login_only() -> Result<()> {
    let mut scene = Scene::start(|configuration| configuration)?;
    let mut elsewhere = scene.gateway.signed_in("alice", "lab")?.desktop("lab")?;
    let desktop = scene.alice.desktop("lab")?;
    let before = scene.alice.clone();
    ends(&mut scene, desktop, 4001, "revoked", |scene| {
        let launcher = scene.alice.get("/")?;
        let csrf = launcher
            .field("csrf")
            .context("the launcher has a logout form")?;
        let answer = scene.alice.post_form("/logout", &[("csrf", &csrf)])?;
        ensure!(answer.status == 303, "{}", answer.status);
        Ok(())
    })?;
    // The cookies of before are void, even when a thief kept them.
    refused(&scene, &before, 401, "revoked")?;
    ensure!(before.clone().get("/")?.status == 303);
    elsewhere.send(b"another login")?;
    ensure!(elsewhere.receive_exactly(13)? == b"another login");
    Ok(())
}

#[test]
fn new_rules_reach_live_desktops_and_new_ones_without_a_restart() -> Result<()> {
    let mut scene = Scene::start(|configuration| configuration)?;
    let engine = scene.gateway.role("engine")?;
    let rules = |policies: Vec<Policy>| {
        move |scene: &mut Scene| {
            scene
                .gateway
                .reconfigure(|new| new.application("lab").policies = policies)
        }
    };
    let staff = || Policy::allow("staff", "{ group = \"staff\" }");
    let nearby = Policy::block("nobody nearby", "{ ip = \"127.0.0.0/8\" }");

    let desktop = scene.alice.desktop("lab")?;
    ends(
        &mut scene,
        desktop,
        4002,
        "policy_changed",
        rules(vec![nearby, staff()]),
    )?;
    let detail = refused(&scene, &scene.alice, 403, "policy_blocked")?;
    ensure!(
        detail.contains("nobody nearby"),
        "the detail does not name the rule: {detail}"
    );
    let page = scene.alice.clone().get("/app/lab/")?;
    ensure!(page.status == 403, "the page answers {}", page.status);

    rules(vec![staff()])(&mut scene)?;
    let desktop = wait::until("the rules of before", EFFECT, || {
        Ok(scene.alice.desktop("lab").ok())
    })?;
    let boss = Policy::allow("bosses", "{ group = \"bosses\" }");
    ends(
        &mut scene,
        desktop,
        4002,
        "policy_changed",
        rules(vec![boss]),
    )?;
    let detail = refused(&scene, &scene.alice, 403, "policy_no_match")?;
    ensure!(
        detail.contains("lab"),
        "the detail does not name the application: {detail}"
    );

    rules(vec![staff()])(&mut scene)?;
    let desktop = wait::until("the rules of before", EFFECT, || {
        Ok(scene.alice.desktop("lab").ok())
    })?;
    ends(&mut scene, desktop, 4002, "policy_changed", |scene| {
        let elsewhere = port::free()?.to_string();
        scene
            .gateway
            .reconfigure(|new| new.application("lab").target = elsewhere)
    })?;
    let back = scene.target.address.to_string();
    scene
        .gateway
        .reconfigure(|new| new.application("lab").target = back)?;
    let desktop = wait::until("the target of before", EFFECT, || {
        Ok(scene.alice.desktop("lab").ok())
    })?;
    ends(&mut scene, desktop, 4002, "policy_changed", |scene| {
        scene.gateway.reconfigure(|new| new.applications.clear())
    })?;
    ensure!(
        scene.gateway.role("engine")? == engine,
        "the engine was restarted"
    );
    Ok(())
}

#[test]
fn a_broken_configuration_changes_nothing() -> Result<()> {
    let mut scene = Scene::start(|configuration| configuration)?;
    let mut desktop = scene.alice.desktop("lab")?;
    let broken = scene.gateway.reconfigure(|new| {
        new.applications.clear();
        new.applications
            .push(Application::new("No Name", "nowhere"));
    });
    let message = format!("{:#}", broken.err().context("a broken file is taken")?);
    ensure!(
        message.contains("No Name"),
        "the message does not name what is wrong: {message}"
    );
    desktop.send(b"undisturbed")?;
    ensure!(desktop.receive_exactly(11)? == b"undisturbed");
    scene.alice.desktop("lab").map(drop)
}

#[test]
fn a_user_without_the_group_gets_no_further_than_words() -> Result<()> {
    let scene = Scene::start(|configuration| configuration.with_user(User::new("guest", &[])))?;
    let mut guest = scene.gateway.browser();
    ensure!(
        guest.get("/app/lab/")?.status == 303,
        "a page without a login"
    );
    ensure!(
        guest.script("GET", "/app/lab/")?.status == 401,
        "a script without a login"
    );
    guest.sign_in("guest", PASSWORD)?;
    let launcher = guest.get("/")?;
    ensure!(
        !launcher.text().contains("/app/lab/"),
        "the launcher shows what is not allowed"
    );
    let page = guest.get("/app/lab/")?;
    ensure!(
        page.status == 403 && guest.token("lab").is_none(),
        "{}",
        page.status
    );
    ensure!(guest.script("POST", "/app/lab/renew")?.status == 403);
    refused(&scene, &guest, 401, "token_missing")?;
    // Another person's cookie would do; that is why a script can't read it.
    let page = scene.alice.clone().get("/app/lab/")?;
    let cookie = page.header("set-cookie").context("a cookie")?;
    for attribute in ["Secure", "HttpOnly", "SameSite=Lax", "Path=/app/lab/"] {
        ensure!(cookie.contains(attribute), "{cookie}");
    }
    Ok(())
}

#[test]
fn a_wrong_password_is_refused_in_the_same_way_for_everybody() -> Result<()> {
    let scene = Scene::start(|configuration| configuration)?;
    let mut answers = Vec::new();
    for (user, password) in [("alice", "wrong"), ("nobody", "wrong"), ("alice", "")] {
        let answer = scene.gateway.browser().submit_login(user, password)?;
        ensure!(answer.status == 401, "{user}: {}", answer.status);
        ensure!(
            answer
                .all("set-cookie")
                .all(|set| !set.contains("postern-org")),
            "{user}"
        );
        let text = answer.text();
        let start = text.find("id=\"problem\"").context("no words")?;
        let end = start + text[start..].find("</p>").context("no end")?;
        answers.push(text[start..end].to_owned());
    }
    ensure!(answers[0] == answers[1], "{answers:#?}");
    // A form that another site sends has no token of ours.
    let mut browser = scene.gateway.browser();
    browser.get("/login")?;
    let fields = [
        ("user", "alice"),
        ("password", PASSWORD),
        ("csrf", "made-up"),
    ];
    let forged = browser.post_form("/login", &fields)?;
    ensure!(
        forged.status >= 400,
        "a forged form is answered with {}",
        forged.status
    );
    Ok(())
}
