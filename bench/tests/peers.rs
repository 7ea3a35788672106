//! Ours, and every peer that is installed, carry the load on every way that they claim.

use anyhow::{Context as _, Result, ensure};
use postern_bench::cases::{Path, Peer};
use postern_bench::load::{self, Direction, Pace, Ping, Server, Work};
use postern_bench::peers::{Binaries, Certificate, Driver, Ground, Programs, Relay};
use postern_bench::run::Cores;

/// More peers, as `--peer` takes them, separated by spaces.
const MORE: &str = "POSTERN_BENCH_PEERS";

#[test]
fn ours_and_installed_peers_carry_every_way_that_they_claim() {
    let more = std::env::var(MORE).unwrap_or_default();
    let more: Vec<String> = more.split_whitespace().map(str::to_owned).collect();
    let binaries = Binaries::parse(&more).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let certificate = Certificate::write(folder.path()).unwrap();
    let programs = Programs::find(None).unwrap();
    let server = Server::start(None).unwrap();
    let ground = Ground {
        cores: Cores::choose().unwrap(),
        certificate: &certificate,
        binaries: &binaries,
        programs: &programs,
        server: &server.addresses,
        driver: Driver::Auto,
    };
    for peer in Peer::RELAYS {
        for way in [Path::Passthrough, Path::Tls, Path::Ws, Path::Wss, Path::Rdp] {
            if peer.programs(way).is_empty() {
                continue;
            }
            if !binaries.have(peer, way) {
                println!("{} {way:?} was not tried: it is not installed", peer.name());
                continue;
            }
            carry(Relay::peer(peer, way, &ground).unwrap(), way).unwrap();
        }
    }
    for way in [Path::Passthrough, Path::Tls, Path::Ws, Path::Wss] {
        carry(Relay::ours(way, &ground).unwrap(), way).unwrap();
    }
}

/// Runs short loads through `relay`.
fn carry(mut relay: Relay, way: Path) -> Result<()> {
    let ping = Work::Ping(Ping {
        connections: 3,
        in_flight: 3,
        seconds: 0.3,
        pace: Pace::Closed,
        stalled: 0,
    });
    let bulk = |direction| Work::Bulk {
        direction,
        flows: 2,
        bytes_per_flow: 3 << 20,
    };
    for work in [ping, bulk(Direction::Up), bulk(Direction::Down)] {
        let target = relay.target(3)?;
        let measured =
            load::run(&work, &target).with_context(|| format!("{way:?}: {}", relay.complaint()))?;
        ensure!(
            measured.bytes >= 6 << 20 || measured.messages > 0,
            "{} {way:?} {work:?}: {measured:?}",
            relay.name
        );
        relay.expect_running()?;
    }
    Ok(())
}
