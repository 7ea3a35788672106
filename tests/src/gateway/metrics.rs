//! What a gateway under test measures, as Prometheus would read it.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the port of measurements; the status and the whole answer.
pub(super) fn ask(address: SocketAddr, path: &'static str) -> Result<(u16, String)> {
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE).context(path)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes())?;
    let mut text = String::new();
    socket.read_to_string(&mut text).context(path)?;
    let status = text
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    let status = status.context("no answer of HTTP")?.parse()?;
    Ok((status, text))
}

/// One look at `/metrics`.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub text: String,
}

impl Metrics {
    pub(super) fn get(address: SocketAddr) -> Result<Self> {
        let (status, text) = ask(address, "/metrics")?;
        ensure!(status == 200, "/metrics: {text}");
        Ok(Self { text })
    }

    /// The samples of a metric: their labels as written, and their values.
    pub fn samples(&self, name: &str) -> impl Iterator<Item = (&str, f64)> {
        self.text.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.split_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            Some((labels, value.trim().parse().ok()?))
        })
    }

    /// The sum over all cores.
    #[must_use]
    pub fn sum(&self, name: &str) -> f64 {
        self.samples(name).map(|(_, value)| value).sum()
    }

    /// The sum over all cores, by `reason`; reasons that never came are left out.
    #[must_use]
    pub fn by_reason(&self, name: &str) -> BTreeMap<String, u64> {
        let mut reasons = BTreeMap::new();
        for (labels, value) in self.samples(name) {
            let reason = labels
                .split(',')
                .find_map(|label| label.strip_prefix("reason=\"")?.strip_suffix('"'));
            if let Some(reason) = reason
                && value > 0.0
            {
                // Counters are whole numbers far below 2^53.
                *reasons.entry(reason.to_owned()).or_default() += value as u64;
            }
        }
        reasons
    }

    /// Refusals and ends of sessions by reason, in one table.
    #[must_use]
    pub fn reasons(&self) -> BTreeMap<String, u64> {
        let mut reasons = self.by_reason("postern_refusals_total");
        for (reason, count) in self.by_reason("postern_closes_total") {
            *reasons.entry(reason).or_default() += count;
        }
        reasons
    }
}
