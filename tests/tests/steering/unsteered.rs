//! What the harness itself brings about: without steering a router spreads desktops over nodes, until its mind changes.

use anyhow::{Result, ensure};

use crate::fleet::Fleet;
use crate::network::vip;
use crate::sessions::Sessions;
use crate::shares::Shares;
use crate::turn;

#[test]
fn without_steering_a_router_that_changes_its_mind_cuts_desktops() -> Result<()> {
    let _turn = turn();
    let mut fleet = Fleet::prepare(&[100, 100], false)?;
    for node in &mut fleet.nodes {
        node.launch()?;
    }
    fleet.network.spread(&[(1, 1), (2, 1)])?;
    let browsers = fleet.browsers()?;
    let mut sessions = Sessions::default();
    sessions.open(&fleet.network.client, &browsers, 40)?;
    sessions.flow(&sessions.ended())?;
    let shares = Shares::count(&fleet, vip(0), 500)?;
    println!("two hops: {shares}");
    ensure!(shares.counts.len() == 2 && shares.refused == 0, "{shares}");

    fleet.network.spread(&[(1, 1)])?;
    let holders = fleet.holders(vip(0))?;
    postern_parts::wait::until("the end of desktops", crate::sessions::END_PATIENCE, || {
        Ok((!sessions.ended().is_empty()).then_some(()))
    })?;
    let lost = sessions.ended();
    ensure!(
        lost.iter().all(|end| holders.get(end) != Some(&1)),
        "a desktop of a node that is reached has ended"
    );
    println!("{} of {} desktops ended", lost.len(), sessions.len());
    Ok(())
}
