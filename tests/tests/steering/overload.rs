//! A node whose processor is burnt gives new connections to its neighbours, and has them back without a swing.
//!
//! Nearly all of it is waiting, and its nodes count their own work alone: it may run beside other tests.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use postern_parts::wait;

use crate::cluster::SOON;
use crate::fleet::Fleet;
use crate::network::vip;
use crate::shares::Shares;

const NODES: [u32; 3] = [100, 100, 100];
const ALL: [(u16, u32); 3] = [(1, 100), (2, 100), (3, 100)];

/// The one that burns.
const HOT: u16 = 2;

/// Within this time it has no more than half of what its weight gives it.
const SHED_MAX: Duration = Duration::from_secs(10);

/// What is left of its share then, and while it burns.
const SHED_PART: f64 = 0.5;

/// So long it burns. Policy lets nobody back while it does.
const BURN: Duration = Duration::from_secs(15);

/// The way back is slow on purpose: two thirds of it in a minute, the end of it after three and a half.
const BACK_PATIENCE: Duration = Duration::from_secs(300);

/// Connections of one look.
const COUNTED: usize = 1_500;

/// A share that is told from so few connections may seem to go back by this, of all of them.
const NOISE: f64 = 0.05;

/// A share of buckets that goes back by more than this, on its way up, swings.
const SWING_MAX: f64 = 0.01;

#[test]
fn an_overloaded_node_sheds_new_connections_and_gets_them_back_without_a_swing() -> Result<()> {
    let mut fleet = Fleet::prepare(&NODES, true)?;
    for node in &mut fleet.nodes {
        node.launch()?;
    }
    fleet.announce_all(&[1, 2, 3], SOON)?;
    fleet.settle(&ALL, SOON)?;
    let due = 1.0 / NODES.len() as f64;
    let before = Shares::count(&fleet, vip(0), COUNTED)?;
    println!("at rest: {before}");

    let machine = fleet.node(HOT)?.machine.clone();
    fleet.node_mut(HOT)?.processor.burn(&machine)?;
    let began = Instant::now();
    let took = wait::until("a lighter load", SHED_MAX, || {
        let has = fleet.shares()?[&HOT];
        Ok((has <= due * SHED_PART).then(|| began.elapsed()))
    })?;
    let during = Shares::count(&fleet, vip(0), COUNTED)?;
    println!("burning, after {took:.1?}: {during}");
    ensure!(during.part(HOT) <= due * SHED_PART + NOISE, "{during}");
    while began.elapsed() < BURN {
        let has = fleet.shares()?[&HOT];
        ensure!(has <= due * SHED_PART, "it burns and has {has}");
        std::thread::sleep(Duration::from_secs(1));
    }

    fleet.node_mut(HOT)?.processor.cool();
    let cooled = Instant::now();
    let mut way = String::new();
    let mut highest = fleet.shares()?[&HOT];
    let took = wait::until("its share", BACK_PATIENCE, || {
        let has = fleet.shares()?[&HOT];
        ensure!(has >= highest - SWING_MAX, "from {highest} to {has}:{way}");
        if has > highest + SWING_MAX {
            let seconds = cooled.elapsed().as_secs();
            write!(way, " {:.1} % after {seconds} s,", has * 100.0)?;
        }
        highest = highest.max(has);
        Ok(((has - due).abs() < SWING_MAX).then(|| cooled.elapsed()))
    })?;
    let after = Shares::count(&fleet, vip(0), COUNTED)?;
    println!("cool again, after {took:.0?}:{way} {after}");
    ensure!((after.part(HOT) - due).abs() <= NOISE, "{after}");
    Ok(())
}
