//! The audit trail: what a record says, how records are chained, how a chain is verified. No I/O.
#![forbid(unsafe_code)]

pub mod chain;
pub mod checkpoint;
pub mod flow;
pub mod reconcile;
pub mod record;

pub use chain::{Broken, Chain, Head, Verifier, verify};
pub use checkpoint::Checkpoint;
pub use flow::{FlowEnding, FlowLoss, FlowSide, KernelFlow};
pub use reconcile::{FLOW_CHAIN, Reconciled, Reconciliation};
pub use record::{Event, Record};
