//! Which node gets how many new connections: asked of the kernel of every node, for each connection.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use socket2::{Domain, Socket, Type};

use crate::fleet::Fleet;
use crate::network::counted_source;

/// Connections that are open at once.
const BATCH: usize = 250;

/// Until a node takes a connection; more than a lost SYN costs.
const PATIENCE: Duration = Duration::from_secs(4);

/// A node's part of new connections may be wrong by this part of it.
const SHARE_ERROR_MAX: f64 = 0.05;

/// So many standard deviations are chance.
const DEVIATIONS_MAX: f64 = 3.0;

/// New connections by the node that has them.
#[derive(Debug, Clone, Default)]
pub struct Shares {
    pub counts: BTreeMap<u16, u64>,
    /// Nobody took them in time.
    pub refused: u64,
}

impl Shares {
    /// Makes so many connections to a shared address, and sees where each lands.
    pub fn count(fleet: &Fleet, vip: SocketAddr, number: usize) -> Result<Self> {
        let mut shares = Self::default();
        let mut left = number;
        let mut source = 0;
        while left > 0 {
            let batch = left.min(BATCH);
            shares.count_batch(fleet, vip, batch, source)?;
            source = source.wrapping_add(1);
            left -= batch;
        }
        Ok(shares)
    }

    fn count_batch(
        &mut self,
        fleet: &Fleet,
        vip: SocketAddr,
        batch: usize,
        source: u8,
    ) -> Result<()> {
        let connect = || -> Result<TcpStream> {
            let socket = Socket::new(Domain::for_address(vip), Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(counted_source(source, vip), 0).into())?;
            socket.connect_timeout(&vip.into(), PATIENCE)?;
            Ok(socket.into())
        };
        let open: Vec<Result<TcpStream>> = fleet
            .network
            .client
            .on(|| (0..batch).map(|_| connect()).collect());
        let mut streams = Vec::new();
        for stream in open {
            match stream {
                Ok(stream) => streams.push(stream),
                Err(_) => self.refused += 1,
            }
        }
        let mut ends = Vec::new();
        for stream in &streams {
            ends.push(stream.local_addr()?);
        }
        let start = Instant::now();
        loop {
            let holders = fleet.holders(vip)?;
            ends.retain(|end| match holders.get(end) {
                Some(node) => {
                    *self.counts.entry(*node).or_default() += 1;
                    false
                }
                None => true,
            });
            if ends.is_empty() {
                return Ok(());
            }
            ensure!(
                start.elapsed() < PATIENCE,
                "{} connections that no node has",
                ends.len()
            );
        }
    }

    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// The part of all that a node got.
    pub fn part(&self, node: u16) -> f64 {
        let count = self.counts.get(&node).copied().unwrap_or_default();
        count as f64 / self.total().max(1) as f64
    }

    /// The largest difference between a node's part and what its weight gives it, as a part of that.
    ///
    /// # Errors
    /// It is more than a share may be wrong by, and what chance may do to so few connections.
    pub fn check(&self, weights: &[(u16, u32)]) -> Result<f64> {
        ensure!(self.refused == 0, "{self}");
        let sum: u32 = weights.iter().map(|(_, weight)| weight).sum();
        let mut largest: f64 = 0.0;
        for (node, weight) in weights {
            let due = f64::from(*weight) / f64::from(sum);
            let error = (self.part(*node) - due).abs() / due;
            let chance = ((1.0 - due) / due / self.total() as f64).sqrt();
            let most = SHARE_ERROR_MAX + DEVIATIONS_MAX * chance;
            ensure!(error <= most, "node {node} should have {due:.3} of {self}");
            largest = largest.max(error);
        }
        let strangers = self.counts.keys().filter(|node| {
            let is_due = weights.iter().any(|(one, _)| one == *node);
            !is_due
        });
        ensure!(strangers.count() == 0, "a node without a weight: {self}");
        Ok(largest)
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "n = {}:", self.total())?;
        for node in self.counts.keys() {
            write!(out, " node {node} {:.1} %", self.part(*node) * 100.0)?;
        }
        if self.refused > 0 {
            write!(out, ", refused {}", self.refused)?;
        }
        Ok(())
    }
}
