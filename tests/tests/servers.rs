//! The servers that the gateway is tested against are good by themselves: a native client draws
//! and types on each of them.

use std::net::SocketAddr;

use anyhow::Result;
use postern_parts::client::Client;
use postern_parts::demo_desktop::{self, DemoDesktop};
use postern_parts::{Shadow, Xrdp, port, program, shadow, xrdp};

const USER: &str = "demo";
const PASSWORD: &str = "correct horse 9";

/// Connects, types, and expects what was typed to change the picture.
fn check(server: SocketAddr, security: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut client = Client::connect(folder.path(), server, security, USER, PASSWORD)?;
    let black = client.picture()?;
    let before = client.wait_for_change(&black, 20_000)?;
    client.type_at(400, 500, "The quick brown fox jumps over the lazy dog")?;
    client.wait_for_change(&before, 1_000)?;
    Ok(())
}

#[test]
fn shadow_with_nla_draws_and_types() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut shadow = Shadow::start(folder.path(), shadow::Security::Nla, USER, PASSWORD)?;
    check(shadow.address, "nla")?;
    shadow.expect_running()
}

#[test]
fn shadow_with_tls_draws_and_types() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut shadow = Shadow::start(folder.path(), shadow::Security::Tls, USER, PASSWORD)?;
    check(shadow.address, "tls")?;
    shadow.expect_running()
}

#[test]
fn xrdp_with_tls_draws_and_types() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut xrdp = Xrdp::start(folder.path(), xrdp::SecurityLayer::Tls)?;
    check(xrdp.address, "tls")?;
    xrdp.expect_running()
}

#[test]
fn xrdp_with_standard_security_draws_and_types() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut xrdp = Xrdp::start(folder.path(), xrdp::SecurityLayer::Rdp)?;
    check(xrdp.address, "rdp")?;
    xrdp.expect_running()
}

fn desktop_draws_and_types(security: demo_desktop::Security, client: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, PASSWORD)?;
    let mut desktop = DemoDesktop::start(&demo_desktop::Settings {
        program: program::build("postern-desktop", "postern-desktop", "dev")?,
        folder: folder.path(),
        listen: port::free()?,
        user: USER,
        password_file: &password_file,
        security,
        keep_certificate: false,
    })?;
    check(desktop.address, client)?;
    desktop.expect_running()
}

#[test]
fn the_demo_desktop_with_nla_draws_and_types() -> Result<()> {
    desktop_draws_and_types(demo_desktop::Security::Nla, "nla")
}

#[test]
fn the_demo_desktop_with_tls_draws_and_types() -> Result<()> {
    desktop_draws_and_types(demo_desktop::Security::Tls, "tls")
}
