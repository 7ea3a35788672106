//! The TLS record layer of a connection whose handshake is over: opens and seals in place.
//!
//! rustls does the handshake and keeps deriving secrets; it hands the record layer over
//! ([`rustls::kernel`]) because its own copies every record into memory of its own.

mod cipher;
mod handshake;
mod header;
mod protection;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets, ProtocolVersion, SupportedCipherSuite};

use handshake::{Assembler, Message};
use header::{Content, HEADER_BYTES, Header};
use protection::{Protection, Version};

pub use cipher::Library;
pub use writer::{SEAL_OVERHEAD_MAX, Writer, sealed_len};

/// [RFC 8446 §5.1] Plaintext bytes that a record holds at most.
pub const PLAINTEXT_BYTES_MAX: usize = 1 << 14;

/// [RFC 5246 §6.2.3] Bytes of the longest record that is accepted, its header included.
pub const RECORD_BYTES_MAX: usize = HEADER_BYTES + PLAINTEXT_BYTES_MAX + 2048;

/// Records without a byte in them that a peer may send in a row.
const EMPTY_RECORDS_MAX: u32 = 32;

/// Key updates that a peer may send without a byte of application data between them.
const KEY_UPDATES_MAX: u32 = 32;

/// Session tickets that a peer may send without a byte of application data between them.
const TICKETS_MAX: u32 = 256;

/// Alerts that mean nothing which a peer may send in a connection's life.
const WARNINGS_MAX: u32 = 4;

/// Requests to renegotiate that a peer may make in a connection's life: it is told no once.
const RENEGOTIATIONS_MAX: u32 = 1;

/// [RFC 8446 §6] Levels and descriptions of alerts.
mod alert {
    pub const WARNING: u8 = 1;
    pub const FATAL: u8 = 2;

    pub const CLOSE_NOTIFY: u8 = 0;
    pub const UNEXPECTED_MESSAGE: u8 = 10;
    pub const BAD_RECORD_MAC: u8 = 20;
    pub const RECORD_OVERFLOW: u8 = 22;
    pub const DECODE_ERROR: u8 = 50;
    pub const INTERNAL_ERROR: u8 = 80;
    pub const USER_CANCELED: u8 = 90;
    pub const NO_RENEGOTIATION: u8 = 100;
}

/// Why a connection can't go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("a record is malformed: {0}")]
    Malformed(&'static str),
    #[error("a record may not come now: {0}")]
    Unexpected(&'static str),
    #[error("a record is longer than the protocol allows")]
    Oversized,
    #[error("the peer sends too many of them: {0}")]
    Flood(&'static str),
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
    #[error("we have ended our side of the connection")]
    Ended,
    #[error("the queue has no room for a record")]
    NoRoom,
    #[error("a record can't be sealed")]
    Sealing,
}

/// What stands at the start of the bytes given to [`Records::open`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// The record is not whole; it will be when this many bytes are there.
    Incomplete { needed: usize },
    /// Application data, at least a byte of it, decrypted where it lay.
    Data {
        payload: Range<usize>,
        consumed: usize,
    },
    /// A record that carries nothing for the application; there may be something to answer
    /// ([`Records::has_replies`]).
    Quiet { consumed: usize },
    /// The peer sends nothing more; whatever followed is consumed unread (RFC 8446 §6.1).
    CloseNotify { consumed: usize },
}

/// Both directions of one connection.
pub struct Records {
    schedule: Schedule,
    version: Version,
    rx: Protection,
    tx: Protection,
    /// Records that one key may seal.
    limit: u64,
    assembler: Assembler,
    patience: Patience,
    receiving: Receiving,
    /// INVARIANT: nothing is sealed any more once this is set.
    has_ended: bool,
    owes_key_update: bool,
    owes_no_renegotiation: bool,
}

/// Who derives the next secrets; TLS 1.2 has none.
enum Schedule {
    None,
    Server(KernelConnection<ServerConnectionData>),
    Client(KernelConnection<ClientConnectionData>),
}

enum Receiving {
    Open,
    Closed,
    Failed(RecordError),
}

/// What a peer has left of the things that cost it nothing.
struct Patience {
    empty_records: u32,
    key_updates: u32,
    tickets: u32,
    warnings: u32,
    renegotiations: u32,
}

impl Records {
    /// The record layer of a connection in which we are the server.
    ///
    /// # Errors
    /// [`RecordError::Suite`] when version or cipher are unknown.
    pub fn server(
        secrets: ExtractedSecrets,
        connection: KernelConnection<ServerConnectionData>,
    ) -> Result<Self, RecordError> {
        let version = version(connection.protocol_version())?;
        let (suite, assembler) = (
            connection.negotiated_cipher_suite(),
            Assembler::server(version),
        );
        let schedule = match version {
            Version::Tls12 => Schedule::None,
            Version::Tls13 => Schedule::Server(connection),
        };
        Self::new(secrets, version, suite, schedule, assembler)
    }

    /// The record layer of a connection in which we are the client.
    ///
    /// # Errors
    /// [`RecordError::Suite`] when version or cipher are unknown.
    pub fn client(
        secrets: ExtractedSecrets,
        connection: KernelConnection<ClientConnectionData>,
    ) -> Result<Self, RecordError> {
        let version = version(connection.protocol_version())?;
        let (suite, assembler) = (
            connection.negotiated_cipher_suite(),
            Assembler::client(version),
        );
        let schedule = match version {
            Version::Tls12 => Schedule::None,
            Version::Tls13 => Schedule::Client(connection),
        };
        Self::new(secrets, version, suite, schedule, assembler)
    }

    fn new(
        secrets: ExtractedSecrets,
        version: Version,
        suite: SupportedCipherSuite,
        schedule: Schedule,
        assembler: Assembler,
    ) -> Result<Self, RecordError> {
        let common = match suite {
            SupportedCipherSuite::Tls12(suite) => &suite.common,
            SupportedCipherSuite::Tls13(suite) => &suite.common,
        };
        Ok(Self {
            schedule,
            version,
            rx: Protection::new(version, secrets.rx)?,
            tx: Protection::new(version, secrets.tx)?,
            limit: common.confidentiality_limit,
            assembler,
            patience: Patience::default(),
            receiving: Receiving::Open,
            has_ended: false,
            owes_key_update: false,
            owes_no_renegotiation: false,
        })
    }

    /// Looks at the record at the start of `bytes` and decrypts it where it lies. An error is final:
    /// every later call gives it again.
    ///
    /// # Errors
    /// The peer broke the protocol, or ended the connection with an alert.
    pub fn open(&mut self, bytes: &mut [u8]) -> Result<Opened, RecordError> {
        match &self.receiving {
            Receiving::Open => {}
            Receiving::Closed => {
                return Ok(Opened::CloseNotify {
                    consumed: bytes.len(),
                });
            }
            Receiving::Failed(error) => return Err(error.clone()),
        }
        let opened = self.open_record(bytes);
        match &opened {
            Ok(Opened::CloseNotify { .. }) => self.receiving = Receiving::Closed,
            Ok(_) => {}
            Err(error) => self.receiving = Receiving::Failed(error.clone()),
        }
        opened
    }

    fn open_record(&mut self, bytes: &mut [u8]) -> Result<Opened, RecordError> {
        let Some((header, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(Opened::Incomplete {
                needed: HEADER_BYTES,
            });
        };
        let header = Header::parse(*header)?;
        self.rx.admit(&header)?;
        let consumed = HEADER_BYTES + header.length;
        let available = bytes.len();
        let Some(record) = bytes.get_mut(..consumed) else {
            return Ok(Opened::Incomplete { needed: consumed });
        };

        let (content, payload) = self.rx.open(&header, record)?;
        if content != Content::Handshake && self.assembler.is_within_message() {
            // [RFC 8446 §5.1] Nothing may stand between the parts of a message.
            return Err(RecordError::Unexpected("it interrupts a handshake message"));
        }
        if payload.is_empty() {
            if content != Content::ApplicationData {
                return Err(RecordError::Malformed("it has no content"));
            }
            spend(&mut self.patience.empty_records, "empty records")?;
            return Ok(Opened::Quiet { consumed });
        }
        self.patience.empty_records = EMPTY_RECORDS_MAX;
        match content {
            Content::ApplicationData => {
                self.patience.key_updates = KEY_UPDATES_MAX;
                self.patience.tickets = TICKETS_MAX;
                Ok(Opened::Data { payload, consumed })
            }
            Content::Alert if self.is_closed_by(&record[payload.clone()])? => {
                Ok(Opened::CloseNotify {
                    consumed: available,
                })
            }
            Content::Alert => Ok(Opened::Quiet { consumed }),
            Content::Handshake => {
                self.take_handshake(&record[payload])?;
                Ok(Opened::Quiet { consumed })
            }
            Content::ChangeCipherSpec => Err(CHANGE_CIPHER_SPEC),
        }
    }

    /// [RFC 8446 §6, RFC 5246 §7.2] Whether an alert says that nothing more comes; one that says
    /// neither this nor an error counts against the peer's patience.
    fn is_closed_by(&mut self, payload: &[u8]) -> Result<bool, RecordError> {
        let &[level, description] = payload else {
            return Err(RecordError::Malformed("an alert is not two bytes long"));
        };
        if !matches!(level, alert::WARNING | alert::FATAL) {
            return Err(RecordError::Malformed("an alert has an unknown level"));
        }
        if description == alert::CLOSE_NOTIFY {
            return Ok(true);
        }
        let is_harmless = level == alert::WARNING
            && (self.version == Version::Tls12 || description == alert::USER_CANCELED);
        if !is_harmless {
            return Err(RecordError::Alert(description));
        }
        spend(&mut self.patience.warnings, "warnings")?;
        Ok(false)
    }

    fn take_handshake(&mut self, mut payload: &[u8]) -> Result<(), RecordError> {
        while !payload.is_empty() {
            match self.assembler.take(&mut payload)? {
                None => {}
                Some(Message::SessionTicket) => {
                    spend(&mut self.patience.tickets, "session tickets")?;
                }
                Some(Message::Renegotiation) => {
                    spend(&mut self.patience.renegotiations, "renegotiations")?;
                    self.owes_no_renegotiation = true;
                }
                Some(Message::KeyUpdate { is_requested }) => {
                    // [RFC 8446 §5.1] What comes before a change of keys ends with its record.
                    if !payload.is_empty() {
                        return Err(RecordError::Unexpected(
                            "a key update does not end its record",
                        ));
                    }
                    spend(&mut self.patience.key_updates, "key updates")?;
                    self.rx = Protection::new(self.version, self.schedule.next_rx()?)?;
                    self.owes_key_update |= is_requested;
                }
            }
        }
        Ok(())
    }

    /// Whether something is to be said to the peer: [`Self::seal_replies`] says it, and so does the
    /// next [`Writer`].
    #[must_use]
    pub fn has_replies(&self) -> bool {
        (self.owes_key_update || self.owes_no_renegotiation) && !self.has_ended
    }

    /// Whether the peer has said that it sends nothing more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.receiving, Receiving::Closed)
    }
}

const CHANGE_CIPHER_SPEC: RecordError =
    RecordError::Unexpected("a change of cipher after the handshake");

fn version(version: ProtocolVersion) -> Result<Version, RecordError> {
    match version {
        ProtocolVersion::TLSv1_2 => Ok(Version::Tls12),
        ProtocolVersion::TLSv1_3 => Ok(Version::Tls13),
        _ => Err(RecordError::Suite),
    }
}

fn spend(left: &mut u32, what: &'static str) -> Result<(), RecordError> {
    *left = left.checked_sub(1).ok_or(RecordError::Flood(what))?;
    Ok(())
}

impl RecordError {
    /// [RFC 8446 §6.2] The alert that tells the peer about it; none when the peer knows.
    fn alert(&self) -> Option<u8> {
        match self {
            Self::Malformed(_) => Some(alert::DECODE_ERROR),
            Self::Unexpected(_) | Self::Flood(_) => Some(alert::UNEXPECTED_MESSAGE),
            Self::Oversized => Some(alert::RECORD_OVERFLOW),
            Self::Forged => Some(alert::BAD_RECORD_MAC),
            Self::Suite | Self::Secrets(_) | Self::Exhausted | Self::NoRoom | Self::Sealing => {
                Some(alert::INTERNAL_ERROR)
            }
            Self::Alert(_) | Self::Ended => None,
        }
    }
}

impl Schedule {
    fn next_rx(&mut self) -> Result<(u64, ConnectionTrafficSecrets), RecordError> {
        match self {
            Self::None => return Err(RecordError::Suite),
            Self::Server(connection) => connection.update_rx_secret(),
            Self::Client(connection) => connection.update_rx_secret(),
        }
        .map_err(|error| RecordError::Secrets(error.to_string()))
    }

    fn next_tx(&mut self) -> Result<(u64, ConnectionTrafficSecrets), RecordError> {
        match self {
            Self::None => return Err(RecordError::Suite),
            Self::Server(connection) => connection.update_tx_secret(),
            Self::Client(connection) => connection.update_tx_secret(),
        }
        .map_err(|error| RecordError::Secrets(error.to_string()))
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            empty_records: EMPTY_RECORDS_MAX,
            key_updates: KEY_UPDATES_MAX,
            tickets: TICKETS_MAX,
            warnings: WARNINGS_MAX,
            renegotiations: RENEGOTIATIONS_MAX,
        }
    }
}

impl fmt::Debug for Records {
    /// Secrets stay out.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Records")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
