//! The TLS record layer of a connection whose handshake is over: opens and seals in place.
//!
//! rustls does the handshake and keeps deriving secrets; it hands the record layer over
//! ([`rustls::kernel`]) because its own copies every record into memory of its own.

use std::ops::Range;

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ExtractedSecrets, SupportedCipherSuite};

use crate::memory::{Pool, Queue};

/// Why a connection can't go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("a record is malformed: {0}")]
    Malformed(&'static str),
    #[error("a record does not authenticate")]
    Forged,
    #[error("the peer ended the connection with alert {0}")]
    Alert(u8),
    #[error("the cipher suite is not one that the record layer knows")]
    Suite,
    #[error("secrets can't be derived: {0}")]
    Secrets(String),
    #[error("the cipher's limit of records is reached")]
    Exhausted,
}

/// What stands at the start of the bytes given to [`Records::open`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// The record is not whole; it will be when this many bytes are there.
    Incomplete { needed: usize },
    /// Application data, decrypted where it lay.
    Data {
        payload: Range<usize>,
        consumed: usize,
    },
    /// A record that carries nothing for the application; there may be something to answer
    /// ([`Records::has_replies`]).
    Quiet { consumed: usize },
    /// The peer sends nothing more.
    CloseNotify { consumed: usize },
}

