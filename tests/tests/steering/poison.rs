//! Somebody who can write to the store and does not know the cluster's secret.

use anyhow::{Result, ensure};
use postern_parts::wait;

use crate::cluster::SOON;
use crate::fleet::Fleet;

/// Where the cluster's keys begin when nothing else is configured.
const PREFIX: &str = "/postern/steering/";

/// Keys of their own, and keys of a node that lives, with values that nobody has sealed.
const FORGED: [&str; 6] = [
    "members/9",
    "heartbeats/9",
    "intents/1",
    "members/4",
    "flows/4",
    "table",
];

/// Values that were sealed for another key: from where, to where.
const COPIED: [(&str, &str); 2] = [("members/1", "members/8"), ("heartbeats/1", "heartbeats/4")];

/// Writes what should not be there; every running node refuses and counts it, and no node gets another
/// state. How many refusals there were.
pub fn poison(fleet: &Fleet) -> Result<u64> {
    let before = refusals(fleet)?;
    let known = members(fleet)?;
    for key in FORGED {
        fleet.put(&format!("{PREFIX}{key}"), &[0xff; 200])?;
    }
    for (from, to) in COPIED {
        let value = fleet.get(&format!("{PREFIX}{from}"))?;
        ensure!(value.len() > 32, "there is nothing at {from}");
        fleet.put(&format!("{PREFIX}{to}"), &value)?;
    }
    let mut all = 0;
    for (index, node) in fleet.running().enumerate() {
        all += wait::until("refusals", SOON, || {
            let now = node.metrics()?.sum("postern_steer_store_refused_total") as u64;
            // What a living node writes every second may be right again before it was seen.
            let least = (FORGED.len() + COPIED.len() - 3) as u64;
            Ok((now >= before[index] + least).then_some(now - before[index]))
        })?;
    }
    ensure!(members(fleet)? == known, "{}", fleet.picture());
    for key in FORGED.iter().chain(COPIED.iter().map(|(_, to)| to)) {
        if key.ends_with('9') || key.ends_with('8') || key.starts_with("intents") {
            fleet.etcdctl(&["del", &format!("{PREFIX}{key}")])?;
        }
    }
    Ok(all)
}

fn refusals(fleet: &Fleet) -> Result<Vec<u64>> {
    let nodes = fleet.running();
    let counts =
        nodes.map(|node| Ok(node.metrics()?.sum("postern_steer_store_refused_total") as u64));
    counts.collect()
}

/// Numbers and intents, as every running node knows them.
fn members(fleet: &Fleet) -> Result<Vec<(u64, u64, String)>> {
    let mut all = Vec::new();
    for node in fleet.running() {
        let status = node.status()?;
        for member in status["members"].as_array().into_iter().flatten() {
            let intent = member["intent"].as_str().unwrap_or_default().to_owned();
            let number = member["node"].as_u64().unwrap_or_default();
            all.push((node.number.into(), number, intent));
        }
    }
    Ok(all)
}
