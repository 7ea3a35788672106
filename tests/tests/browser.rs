//! What a person does in a real browser, in front of real desktops: the picture changes as typed,
//! and every end has words.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use postern_audit::record::Event;
use postern_parts::demo_desktop::{self, DemoDesktop};
use postern_parts::{Shadow, Xrdp, port, program, shadow, wait, xrdp};
use postern_tests::Gateway;
use postern_tests::gateway::{Application, Configuration, EFFECT, PASSWORD, Policy, User};
use postern_tests::scenario::{Scenario, artefacts, is_picture, play};
use serde_json::{Value, json};

/// The account on every machine; its password is the gateway users' one.
const MACHINE_USER: &str = "demo";

/// A live session is cut within this time, seen from the page.
const CUT_MS_MAX: u64 = 2_000;

/// What each scenario needs to know.
fn task(gateway: &Gateway, kind: &str) -> Value {
    json!({
        "url": format!("https://localhost:{}", gateway.address.port()),
        "user": "alice",
        "password": PASSWORD,
        "machineUser": MACHINE_USER,
        "machinePassword": PASSWORD,
        "application": "lab",
        "kind": kind,
        "withinMs": CUT_MS_MAX,
    })
}

/// The task with what one scenario adds to it.
fn with(mut task: Value, more: Value) -> Value {
    if let (Value::Object(task), Value::Object(more)) = (&mut task, more) {
        task.extend(more);
    }
    task
}

fn demo_desktop(folder: &Path, listen: SocketAddr, keep_certificate: bool) -> Result<DemoDesktop> {
    let password_file = folder.join("password");
    std::fs::write(&password_file, PASSWORD)?;
    DemoDesktop::start(&demo_desktop::Settings {
        program: program::build("postern-desktop", "postern-desktop", "dev")?,
        folder,
        listen,
        user: MACHINE_USER,
        password_file: &password_file,
        security: demo_desktop::Security::Nla,
        keep_certificate,
    })
}

fn behind_tls(target: SocketAddr) -> Configuration {
    let mut configuration = Configuration::for_target(target);
    configuration.application("lab").security = vec!["nla", "tls"];
    configuration
}

fn expect_pictures(names: &[&str]) -> Result<()> {
    for name in names {
        let file = artefacts().join(format!("{name}.png"));
        ensure!(is_picture(&file), "{} is no picture", file.display());
    }
    Ok(())
}

#[test]
fn a_person_types_into_an_x_terminal_behind_nla() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let shadow = Shadow::start(folder.path(), shadow::Security::Nla, MACHINE_USER, PASSWORD)?;
    let gateway = Gateway::for_target(shadow.address)?;
    play("desktop", "shadow", &task(&gateway, "terminal"))?;
    expect_pictures(&["launcher-shadow", "desktop-shadow"])
}

#[test]
fn a_person_types_into_an_x_terminal_behind_xrdp() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let xrdp = Xrdp::start(folder.path(), xrdp::SecurityLayer::Tls)?;
    let gateway = Gateway::start(behind_tls(xrdp.address))?;
    play("desktop", "xrdp", &task(&gateway, "xrdp"))?;
    expect_pictures(&["desktop-xrdp"])
}

#[test]
fn a_person_types_on_the_demo_desktop() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let desktop = demo_desktop(folder.path(), port::free()?, true)?;
    let gateway = Gateway::for_target(desktop.address)?;
    play("desktop", "demo", &task(&gateway, "demo"))?;
    expect_pictures(&["launcher-demo", "desktop-demo"])
}

#[test]
fn standard_rdp_security_is_refused_with_words_and_one_record() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let xrdp = Xrdp::start(folder.path(), xrdp::SecurityLayer::Rdp)?;
    let gateway = Gateway::start(behind_tls(xrdp.address))?;
    let refused = json!({
        "reason": "target_security_refused",
        "words": ["security is too weak", "network level authentication"],
    });
    play(
        "refused",
        "weak-xrdp",
        &with(task(&gateway, "terminal"), refused),
    )?;
    let records = wait::until("the record", EFFECT, || {
        let mut records = gateway.audit().events(Event::Connection)?;
        records.retain(|record| record.reason.as_deref() == Some("target_standard_security"));
        Ok((!records.is_empty()).then_some(records))
    })?;
    ensure!(records.len() == 1, "{records:#?}");
    Ok(())
}

#[test]
fn a_changed_certificate_is_refused_with_words() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut desktop = demo_desktop(folder.path(), port::free()?, false)?;
    let gateway = Gateway::for_target(desktop.address)?;
    play("desktop", "first-certificate", &task(&gateway, "demo"))?;

    desktop.stop();
    let other = demo_desktop(folder.path(), desktop.address, false)?;
    ensure!(other.certificate != desktop.certificate);
    let refused = json!({
        "reason": "target_certificate_changed",
        "words": ["identity has changed"],
    });
    play(
        "refused",
        "other-certificate",
        &with(task(&gateway, "demo"), refused),
    )
}

#[test]
fn a_wrong_password_of_the_machine_is_told_in_the_form() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let desktop = demo_desktop(folder.path(), port::free()?, false)?;
    let gateway = Gateway::for_target(desktop.address)?;
    let refused = json!({
        "machinePassword": "wrong",
        "reason": "wrong_password",
        "words": ["password", "try again"],
    });
    play(
        "refused",
        "wrong-password",
        &with(task(&gateway, "demo"), refused),
    )
}

#[test]
fn a_machine_that_is_switched_off_is_told_with_what_to_do() -> Result<()> {
    let gateway = Gateway::for_target(port::free()?)?;
    let refused = json!({
        "reason": "target_unreachable",
        "words": ["cannot be reached"],
    });
    play(
        "refused",
        "switched-off",
        &with(task(&gateway, "demo"), refused),
    )
}

/// Opens a desktop, does something to it, and expects the page to say why it ended, in time.
fn ends(
    name: &str,
    reason: &str,
    within: Duration,
    act: impl FnOnce(&mut Gateway) -> Result<()>,
) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let desktop = demo_desktop(folder.path(), port::free()?, false)?;
    let mut gateway = Gateway::for_target(desktop.address)?;
    let within = u64::try_from(within.as_millis())?;
    let ended = json!({ "reason": reason, "withinMs": within });
    let mut scenario = Scenario::start("ended", name, &with(task(&gateway, "demo"), ended))?;
    scenario.expect("connected")?;
    // The page's clock starts before the act: it can only look slower than it is.
    scenario.order("ending")?;
    act(&mut gateway)?;
    scenario.expect("ended")?;
    scenario.pass()
}

/// Opens a desktop and leaves it alone, until the page has warned and the gateway has ended it.
fn ends_after_a_warning(
    name: &str,
    reason: &str,
    warning: &str,
    shorten: impl FnOnce(&mut Application),
) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let desktop = demo_desktop(folder.path(), port::free()?, false)?;
    let mut configuration = Configuration::for_target(desktop.address);
    shorten(configuration.application("lab"));
    let gateway = Gateway::start(configuration)?;
    let ended = json!({ "reason": reason, "warns": warning, "withinMs": 50_000 });
    let mut scenario = Scenario::start("ended", name, &with(task(&gateway, "demo"), ended))?;
    scenario.expect("connected")?;
    scenario.order("ending")?;
    scenario.expect("warned")?;
    scenario.expect("ended")?;
    scenario.pass()
}

#[test]
fn a_killed_session_ends_on_the_page_within_two_seconds() -> Result<()> {
    let within = Duration::from_millis(CUT_MS_MAX);
    ends("killed", "killed", within, |gateway| {
        let sessions = gateway.sessions()?;
        ensure!(sessions.len() == 1, "{sessions:#?}");
        let id = sessions[0]["id"].as_str().context("a session has an id")?;
        gateway.command(&["sessions", "kill", id]).map(drop)
    })
}

#[test]
fn a_revoked_user_is_cut_off_within_two_seconds() -> Result<()> {
    let within = Duration::from_millis(CUT_MS_MAX);
    ends("revoked", "revoked", within, |gateway| {
        gateway.command(&["revoke", "user", "alice"]).map(drop)
    })
}

#[test]
fn a_policy_that_changes_cuts_a_live_session_without_a_restart() -> Result<()> {
    ends("policy", "policy_changed", EFFECT, |gateway| {
        gateway.reconfigure(|configuration| {
            let others = Policy::allow("others", "{ group = \"others\" }");
            configuration.application("lab").policies = vec![others];
        })
    })
}

#[test]
fn a_session_without_input_is_warned_and_ends_as_idle() -> Result<()> {
    ends_after_a_warning("idle", "idle", "idle", |application| {
        application.idle = "24s"
    })
}

#[test]
fn a_session_is_warned_and_ends_when_its_time_is_over() -> Result<()> {
    ends_after_a_warning("expired", "expired", "expires", |application| {
        application.session_duration = "30s";
    })
}

#[test]
fn the_desktop_follows_the_window() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let desktop = demo_desktop(folder.path(), port::free()?, false)?;
    let gateway = Gateway::for_target(desktop.address)?;
    play("resize", "window", &task(&gateway, "demo"))
}

#[test]
fn a_person_without_a_mouse_gets_to_a_desktop_and_leaves_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let desktop = demo_desktop(folder.path(), port::free()?, false)?;
    let gateway = Gateway::for_target(desktop.address)?;
    play("keyboard", "no-mouse", &task(&gateway, "demo"))
}

#[test]
fn the_bar_sends_special_keys_types_by_character_and_fills_the_screen() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let desktop = demo_desktop(folder.path(), port::free()?, false)?;
    let gateway = Gateway::for_target(desktop.address)?;
    play("controls", "bar", &task(&gateway, "demo"))
}

#[test]
fn text_goes_through_the_clipboard_to_the_desktop_and_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let desktop = demo_desktop(folder.path(), port::free()?, false)?;
    let gateway = Gateway::for_target(desktop.address)?;
    // Umlauts, two characters that the desktop's font lacks, and a second line.
    let text = json!({ "text": "Grüße aus Köln, 100 €:\näöüß ÄÖÜ 😀" });
    play(
        "clipboard",
        "clipboard",
        &with(task(&gateway, "demo"), text),
    )?;
    expect_pictures(&["clipboard-pasted", "clipboard-copied"])
}

#[test]
fn a_browser_that_shares_nothing_by_itself_exchanges_text_by_buttons() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let desktop = demo_desktop(folder.path(), port::free()?, false)?;
    let gateway = Gateway::for_target(desktop.address)?;
    let text = json!({ "text": "Grüße aus Köln, 100 €:\näöüß ÄÖÜ 😀" });
    let task = with(task(&gateway, "demo"), text);
    play("clipboard_manual", "clipboard-manual", &task)
}

#[test]
fn a_desktop_goes_on_when_control_is_killed_and_control_comes_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let desktop = demo_desktop(folder.path(), port::free()?, false)?;
    let gateway = Gateway::for_target(desktop.address)?;
    let mut scenario = Scenario::start("survives", "control-killed", &task(&gateway, "demo"))?;
    scenario.expect("connected")?;
    let before = gateway.kill("control")?;
    scenario.order("control is dead")?;
    scenario.expect("still-working")?;
    wait::until("control", EFFECT, || {
        let back = gateway.role("control")? != before;
        Ok((back && gateway.browser().get("/healthz")?.status == 200).then_some(()))
    })?;
    // A new login works while the old desktop goes on.
    gateway.signed_in("alice", "lab")?;
    scenario.order("control is back")?;
    scenario.pass()
}

#[test]
fn a_lost_desktop_comes_back_by_itself() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let desktop = demo_desktop(folder.path(), port::free()?, false)?;
    let gateway = Gateway::for_target(desktop.address)?;
    let mut scenario = Scenario::start("reconnects", "engine-killed", &task(&gateway, "demo"))?;
    scenario.expect("connected")?;
    scenario.order("losing")?;
    gateway.kill("engine")?;
    scenario.expect("lost")?;
    scenario.expect("back")?;
    scenario.pass()
}

#[test]
fn the_launcher_shows_exactly_what_is_allowed_without_javascript() -> Result<()> {
    let target = port::free()?;
    let mut forbidden = Application::new("vault", target);
    forbidden.policies = vec![Policy::allow("owners", "{ group = \"owners\" }")];
    let mut configuration = Configuration::for_target(target)
        .with(Application::new("office", target))
        .with(forbidden)
        .with_user(User::new("bob", &["owners"]));
    configuration.application("office").policies =
        vec![Policy::allow("alice", "{ email = \"alice@example.org\" }")];
    let gateway = Gateway::start(configuration)?;
    let tiles = json!({ "tiles": ["lab", "office"] });
    play(
        "login",
        "no-javascript",
        &with(task(&gateway, "demo"), tiles),
    )?;
    expect_pictures(&["login-no-javascript", "tiles-no-javascript"])
}

#[test]
fn the_pictures_of_the_readme_can_be_taken() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let desktop = demo_desktop(folder.path(), port::free()?, false)?;
    let mut configuration = Configuration::for_target(desktop.address);
    for name in ["archive", "build", "office", "studio", "workshop"] {
        configuration = configuration.with(Application::new(name, desktop.address));
    }
    let gateway = Gateway::start(configuration)?;
    play("pictures", "pictures", &task(&gateway, "demo"))?;
    expect_pictures(&["readme-launcher", "readme-desktop"])
}
