//! What the gateway runs on: io_uring, or epoll by choice or because io_uring is forbidden.

use anyhow::{Context as _, Result, ensure};
use postern_parts::wait;
use postern_tests::gateway::{Configuration, EFFECT};
use postern_tests::{FakeTarget, Gateway, on_each_driver};

/// The gateway carries a session, and says in log and metrics that `driver` carries it.
fn serves_on(driver: &str, configuration: Configuration, target: &FakeTarget) -> Result<Gateway> {
    let gateway = Gateway::start(configuration)?;
    let alice = gateway.signed_in("alice", "lab")?;
    let mut desktop = alice.desktop("lab")?;
    desktop.send(b"hello")?;
    ensure!(desktop.receive_exactly(5)? == b"hello");
    desktop.cut();
    ensure!(target.received(1)?.digest.bytes == 5);

    let log = gateway.log();
    let line = log.lines().find(|line| line.contains("the engine is up"));
    let line = line.context("the engine says when it is up")?;
    ensure!(line.contains(driver), "{line}");
    let sample = format!("postern_engine_info{{driver=\"{driver}\",");
    wait::until("what the engine runs on", EFFECT, || {
        Ok(gateway.metrics()?.text.contains(&sample).then_some(()))
    })?;
    Ok(gateway)
}

on_each_driver!(a_driver_that_is_demanded_carries_sessions_and_is_told);

fn a_driver_that_is_demanded_carries_sessions_and_is_told(driver: &'static str) -> Result<()> {
    let target = FakeTarget::echo()?;
    let configuration = Configuration::for_target(target.address).driver(driver);
    serves_on(driver, configuration, &target).map(drop)
}

#[test]
fn a_gateway_where_io_uring_is_forbidden_serves_on_epoll_and_says_why() -> Result<()> {
    let target = FakeTarget::echo()?;
    let configuration = Configuration::for_target(target.address).without_io_uring();
    let gateway = serves_on("epoll", configuration, &target)?;
    let log = gateway.log();
    let line = log
        .lines()
        .find(|line| line.contains("io_uring is forbidden"));
    let line = line.context("the log says that io_uring is forbidden")?;
    ensure!(
        line.contains("seccomp") && line.contains("io_uring_setup"),
        "neither why nor what to do: {line}"
    );
    Ok(())
}

#[test]
fn a_gateway_that_must_have_io_uring_and_may_not_serves_nobody_and_says_why() -> Result<()> {
    let target = FakeTarget::echo()?;
    let configuration = Configuration::for_target(target.address)
        .driver("io_uring")
        .without_io_uring();
    let refused = Gateway::start(configuration).err().context("it serves")?;
    let why = format!("{refused:#}");
    for part in ["listen.driver", "seccomp", "`auto`"] {
        ensure!(why.contains(part), "{part} is not in: {why}");
    }
    Ok(())
}

#[test]
fn another_driver_needs_a_restart_and_the_reload_says_so() -> Result<()> {
    let target = FakeTarget::echo()?;
    let configuration = Configuration::for_target(target.address).driver("epoll");
    let mut gateway = Gateway::start(configuration)?;
    gateway.reconfigure(|configuration| configuration.driver = "io_uring")?;
    let said = gateway.command(&["reload"])?;
    ensure!(said.contains("listen.driver"), "{said}");
    let sample = "postern_engine_info{driver=\"epoll\",";
    ensure!(gateway.metrics()?.text.contains(sample));
    gateway.stop()?;
    gateway.launch()?;
    let sample = "postern_engine_info{driver=\"io_uring\",";
    wait::until("the other driver", EFFECT, || {
        Ok(gateway.metrics()?.text.contains(sample).then_some(()))
    })
}
