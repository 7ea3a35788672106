//! What a reconciliation found, for people and for programs.

use std::fmt;
use std::net::SocketAddr;

use serde::Serialize;

use super::{DIFFERENCES_MAX, Side};
use crate::FlowLoss;

/// How many legs of connections, and what they carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sum {
    pub legs: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// How a leg and the kernel's accounts are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Both have it, with other counts.
    Differs,
    /// The audit trail has it, the accounts have not.
    NotAccounted,
    /// The accounts have it, at an address of the gateway, the audit trail has not.
    NotRecorded,
}

/// One leg that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub what: What,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub side: Option<Side>,
    /// Chain and number of the connection; empty and 0 where there is no record.
    pub chain: String,
    pub connection: u64,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// Unix time in milliseconds.
    pub ended_ms: u64,
    /// What the audit trail says.
    pub received: u64,
    pub sent: u64,
    pub unsent: u64,
    /// What the kernel says.
    pub payload_in: u64,
    pub payload_out: u64,
}

/// What was found. Every leg of a recorded connection, and every flow that belongs to none, is in exactly
/// one sum. Sums of legs have the recorded bytes, sums of flows the kernel's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reconciled {
    /// Legs whose counts are the kernel's, byte for byte.
    pub agreeing: Sum,
    /// Bytes of theirs that were still to be sent when their sockets were closed, and never were.
    pub unsent_and_gone: u64,
    /// Legs that are older than the account that the kernel has of them, which has no more than they.
    pub adopted: Sum,
    pub differing: Sum,
    /// Legs that the kernel has no account of, while it kept accounts.
    pub unaccounted: Sum,
    /// The kernel lost at least as many.
    pub missing_are_explained: bool,
    /// Legs from before the accounts began or from after what was written down last.
    pub outside: Sum,
    /// Legs whose bytes nobody could count.
    pub uncounted: u64,
    /// Flows at an address of the gateway that no record speaks of.
    pub unrecorded: Sum,
    /// The same without a byte sent: nobody took the connection before it ended.
    pub unserved: Sum,
    /// The same that were idle, and live on.
    pub living: Sum,
    /// Flows of other connections: administration, metrics, membership.
    pub others: Sum,
    pub losses: FlowLoss,
    /// Places where records of the audit trail are missing.
    pub gaps: u64,
    /// Of what is not as it should be the first ones.
    pub differences: Vec<Difference>,
}

impl Sum {
    pub(super) fn add(&mut self, bytes_in: u64, bytes_out: u64) {
        self.legs += 1;
        self.bytes_in = self.bytes_in.saturating_add(bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(bytes_out);
    }
}

impl Reconciled {
    pub(super) fn tell(&mut self, difference: Difference) {
        if self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(difference);
        }
    }

    /// True when nothing contradicts: what is missing in the accounts the kernel knows that it lost.
    #[must_use]
    pub fn holds(&self) -> bool {
        let missing = self.unaccounted.legs > 0 && !self.missing_are_explained;
        self.differing.legs == 0 && self.unrecorded.legs == 0 && !missing
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            legs,
            bytes_in,
            bytes_out,
        } = self;
        write!(f, "{legs:>9}  {bytes_in:>16} in  {bytes_out:>16} out")
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            What::Differs => "differs",
            What::NotAccounted => "not accounted",
            What::NotRecorded => "not recorded",
        };
        write!(f, "  {what}: {} <- {}", self.local, self.remote)?;
        if let Some(side) = self.side {
            let side = match side {
                Side::Client => "client",
                Side::Target => "target",
            };
            let (chain, connection) = (&self.chain, self.connection);
            write!(f, ", {side} of connection {connection} in {chain}")?;
            write!(f, ", recorded {} in {} out", self.received, self.sent)?;
            if self.unsent > 0 {
                write!(f, " ({} unsent)", self.unsent)?;
            }
        }
        if self.what != What::NotAccounted {
            let (payload_in, payload_out) = (self.payload_in, self.payload_out);
            write!(f, ", kernel {payload_in} in {payload_out} out")?;
        }
        Ok(())
    }
}

impl fmt::Display for Reconciled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let legs = [
            ("legs that agree to the byte", self.agreeing),
            ("legs older than their account", self.adopted),
            ("legs that differ", self.differing),
            ("legs without an account", self.unaccounted),
            ("legs outside of the accounts' time", self.outside),
            ("flows without a record", self.unrecorded),
            ("flows that nobody served", self.unserved),
            ("flows that live on", self.living),
            ("flows of other connections", self.others),
        ];
        for (what, sum) in legs {
            writeln!(f, "{what:<36}{sum}")?;
        }
        if self.unsent_and_gone > 0 {
            let unsent = self.unsent_and_gone;
            writeln!(
                f,
                "{unsent} bytes were unsent at a close, and never were sent"
            )?;
        }
        if self.uncounted > 0 {
            writeln!(f, "{} legs have no counts", self.uncounted)?;
        }
        if self.gaps > 0 {
            writeln!(f, "{} gaps in the audit trail", self.gaps)?;
        }
        let lost = &self.losses;
        writeln!(
            f,
            "the kernel lost {} flows, {} packets, {} bytes in, {} bytes out",
            lost.flows.saturating_add(lost.replaced),
            lost.packets,
            lost.payload_in,
            lost.payload_out
        )?;
        for difference in &self.differences {
            writeln!(f, "{difference}")?;
        }
        f.write_str(if self.holds() {
            "the audit trail and the kernel's accounts agree"
        } else {
            "the audit trail and the kernel's accounts DIFFER"
        })
    }
}
