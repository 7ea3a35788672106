//! TLS records in memory: sealed at one end, opened at the other, by our record layer and by rustls.

use anyhow::{Result, ensure};
use postern_relay::memory::Queue;
use postern_relay::record::Opened;
use postern_relay::{Pool, Records};

use super::{Figure, cost_ns};
use crate::load::tls;

/// Sealed at a time: four records of the longest kind.
const BATCH_BYTES: usize = 64 * 1024;

/// Seconds for 10⁹ bytes, sealed and opened.
pub(super) fn run() -> Result<Vec<Figure>> {
    let plain = vec![0x55; BATCH_BYTES];
    let (client, server) = tls::connected()?;
    let (mut client, mut server) = (client.into_records()?, server.into_records()?);
    let (mut queue, mut pool) = (Queue::default(), Pool::new());
    let ours = cost_ns(|| ours(&plain, &mut client, &mut server, &mut queue, &mut pool))?;
    let (mut client, mut server) = tls::connected()?;
    let (mut sealed, mut replies) = (Vec::new(), Vec::new());
    let theirs = cost_ns(|| {
        sealed.clear();
        client.write(&plain, &mut sealed)?;
        let mut opened = 0;
        let (used, _) = server.read(&mut sealed, &mut replies, &mut |bytes| {
            opened += bytes.len();
            Ok(())
        })?;
        ensure!(
            used == sealed.len() && opened == BATCH_BYTES,
            "{opened} bytes"
        );
        Ok(())
    })?;
    let per_byte = |ns: f64| ns / BATCH_BYTES as f64;
    Ok(vec![
        Figure::new("ours", per_byte(ours)),
        Figure::reference("rustls, unbuffered", per_byte(theirs)),
    ])
}

fn ours(
    plain: &[u8],
    client: &mut Records,
    server: &mut Records,
    queue: &mut Queue,
    pool: &mut Pool,
) -> Result<()> {
    let mut writer = client.writer(queue, pool)?;
    writer.push(plain)?;
    writer.finish()?;
    let mut opened = 0;
    while !queue.is_empty() {
        match server.open(queue.filled_mut())? {
            Opened::Data { payload, consumed } => {
                opened += payload.len();
                queue.consume(consumed, pool);
            }
            other => anyhow::bail!("not data: {other:?}"),
        }
    }
    ensure!(opened == plain.len(), "{opened} bytes");
    Ok(())
}
