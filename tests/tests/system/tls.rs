//! The certificate that browsers see.

use anyhow::{Result, ensure};
use postern_parts::wait;
use postern_tests::gateway::EFFECT;

use crate::scene::Scene;

#[test]
fn a_renewed_certificate_is_shown_without_a_restart() -> Result<()> {
    renewed(|scene| scene.gateway.command(&["reload"]).map(drop))
}

#[test]
fn a_replaced_certificate_file_is_noticed_without_a_word() -> Result<()> {
    renewed(|_| Ok(()))
}

/// Replaces the certificate, then does what makes the gateway look, if anything.
fn renewed(look: impl FnOnce(&Scene) -> Result<()>) -> Result<()> {
    let scene = Scene::start(|configuration| configuration)?;
    let roles = || {
        Ok((
            scene.gateway.role("engine")?,
            scene.gateway.role("control")?,
        ))
    };
    let before: Result<(u32, u32)> = roles();
    let before = before?;
    let mut desktop = scene.alice.desktop("lab")?;
    let first = scene.alice.certificate()?;
    let second = scene.gateway.renew_certificate()?;
    ensure!(first != second);
    look(&scene)?;
    wait::until("the new certificate", EFFECT, || {
        Ok((scene.alice.certificate()? == second).then_some(()))
    })?;
    desktop.send(b"undisturbed")?;
    ensure!(desktop.receive_exactly(11)? == b"undisturbed");
    // New desktops open under the new one, and the old one is gone for good.
    drop(scene.alice.desktop("lab")?);
    ensure!(scene.alice.certificate()? == second);
    ensure!(roles()? == before, "a process was restarted");
    Ok(())
}

#[test]
fn a_certificate_that_does_not_fit_its_key_changes_nothing() -> Result<()> {
    let scene = Scene::start(|configuration| configuration)?;
    let first = scene.alice.certificate()?;
    std::fs::write(scene.gateway.folder().join("chain.pem"), "no certificate")?;
    let reload = scene.gateway.try_command(&["reload"])?;
    ensure!(!reload.status.success(), "a broken certificate is taken");
    ensure!(scene.alice.certificate()? == first);
    scene.alice.desktop("lab").map(drop)
}
