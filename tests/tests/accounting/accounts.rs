//! The kernel's accounts, written beside the gateway's records as the conductor does it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use postern_audit::{Chain, Event, FLOW_CHAIN, FlowEnding, FlowLoss, FlowSide, KernelFlow, Record};
use postern_ebpf::{Account, Accounts, Ending, Patience, monotonic_ns};

/// Flows end, and are due, within this time.
const PATIENCE: Duration = Duration::from_secs(30);

/// Flows that one drain takes out.
const DRAIN_MOST: usize = 4096;

/// A trail says that nothing is missing up to a while before its last word.
const QUIET_MS: u64 = 60_000;

/// Drains `accounts` into a chain of their own in `folder`.
pub fn write(accounts: &mut Accounts, folder: &Path) -> Result<()> {
    let mut chain = Chain::start(FLOW_CHAIN);
    let mut text = chain.append(&Record::new(0, Event::Started));
    let now_ms = unix_ms()?;
    let unix_ns = u128::from(now_ms) * 1_000_000 - u128::from(monotonic_ns());
    let began = Instant::now();
    while !accounts.is_empty()? {
        ensure!(
            began.elapsed() < PATIENCE,
            "{} flows live on",
            accounts.len()?
        );
        let drained = accounts.drain(Patience::default(), DRAIN_MOST)?;
        for account in &drained.accounts {
            let record = Record {
                flow: Some(Box::new(flow(account, unix_ns))),
                ..Record::new(now_ms, Event::Flow)
            };
            text.push_str(&chain.append(&record));
        }
        if !drained.more {
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    let lost = accounts.lost()?;
    let loss = FlowLoss {
        flows: lost.flows,
        replaced: lost.replaced,
        packets: lost.packets,
        wire_bytes: lost.wire_bytes,
        payload_in: lost.payload_in,
        payload_out: lost.payload_out,
        ..FlowLoss::default()
    };
    let record = Record {
        flow_loss: Some(loss),
        ..Record::new(now_ms + QUIET_MS, Event::FlowLoss)
    };
    text.push_str(&chain.append(&record));
    fs::write(folder.join(format!("{FLOW_CHAIN}.jsonl")), text).context("the accounts' chain")
}

fn flow(account: &Account, unix_ns: u128) -> KernelFlow {
    let record = &account.record;
    let unix_ms = |ns: u64| ((unix_ns + u128::from(ns)) / 1_000_000) as u64;
    KernelFlow {
        local: account.local,
        remote: account.remote,
        side: FlowSide::Unknown,
        payload_in: record.payload_in(),
        payload_out: record.payload_out(),
        carried_in: record.incoming.carried_bytes,
        carried_out: record.outgoing.carried_bytes,
        packets_in: record.incoming.packets,
        packets_out: record.outgoing.packets,
        wire_bytes_in: record.incoming.wire_bytes,
        wire_bytes_out: record.outgoing.wire_bytes,
        first_ms: unix_ms(record.first_ns),
        last_ms: unix_ms(record.last_ns),
        ending: match account.ending {
            Some(Ending::Idle) => FlowEnding::Idle,
            Some(Ending::Replaced) => FlowEnding::Replaced,
            Some(Ending::Over) | None => FlowEnding::Over,
        },
        adopted: record.adopted == 1,
    }
}

/// Writes the chain anew in which the connection from `source` is recorded, with one byte less.
pub fn rewrite(folder: &Path, source: SocketAddr) -> Result<()> {
    let source = source.to_string();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        let (Some(name), true) = (name, path.extension().is_some_and(|end| end == "jsonl")) else {
            continue;
        };
        let mut chain = Chain::start(name);
        let mut text = String::new();
        for line in fs::read_to_string(&path)?.lines() {
            let line: serde_json::Value = serde_json::from_str(line)?;
            let mut record: Record = serde_json::from_value(line["record"].clone())?;
            if record.event == Event::Connection && record.source.as_ref() == Some(&source) {
                record.client_sent = record.client_sent.map(|sent| sent - 1);
            }
            text.push_str(&chain.append(&record));
        }
        fs::write(&path, text)?;
    }
    Ok(())
}

fn unix_ms() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(u64::try_from(now.as_millis())?)
}
