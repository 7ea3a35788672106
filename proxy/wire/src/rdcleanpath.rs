//! RDCleanPath, version 1 (3390): how the browser asks for a desktop and hears how it went.
//!
//! The DER encoding is `ironrdp-rdcleanpath`'s; what is taken from a peer is decided here.

use ironrdp_rdcleanpath::{
    DetectionResult, NEGOTIATION_ERROR_CODE, RDCleanPathErr, RDCleanPathPdu, VERSION_1,
};

/// First byte of every PDU: a DER sequence.
const SEQUENCE: u8 = 0x30;

/// First byte inside it: the version's explicit tag.
const VERSION_TAG: u8 = 0xa0;

/// Why bytes are not a PDU that we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CleanPathError {
    #[error("not an RDCleanPath PDU of version 1")]
    NotCleanPath,
    #[error("the PDU is not as long as it says")]
    Length,
    #[error("the PDU does not decode")]
    Malformed,
    #[error("the PDU is not an ordinary request")]
    NotRequest,
    #[error("the PDU is not an answer")]
    NotAnswer,
    #[error("a field is too long to encode")]
    TooLong,
}

impl CleanPathError {
    /// The metric and log label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotCleanPath => "not_cleanpath",
            Self::Length => "cleanpath_length",
            Self::Malformed => "cleanpath_malformed",
            Self::NotRequest => "cleanpath_not_request",
            Self::NotAnswer => "cleanpath_not_answer",
            Self::TooLong => "cleanpath_too_long",
        }
    }
}

/// How long the PDU that begins `bytes` is in all; `None` when more bytes are needed to tell.
/// The caller caps the answer before it gathers that much.
///
/// # Errors
/// As soon as the bytes can't be a PDU of version 1.
pub fn request_length(bytes: &[u8]) -> Result<Option<usize>, CleanPathError> {
    if bytes.first().is_some_and(|first| *first != SEQUENCE) {
        return Err(CleanPathError::NotCleanPath);
    }
    match RDCleanPathPdu::detect(bytes) {
        DetectionResult::Detected { total_length, .. } => Ok(Some(total_length)),
        DetectionResult::NotEnoughBytes if may_become_version(bytes) => Ok(None),
        DetectionResult::NotEnoughBytes | DetectionResult::Failed => {
            Err(CleanPathError::NotCleanPath)
        }
    }
}

/// Whether the version can still come: `detect` asks for more bytes for ever when the first field
/// is another one.
fn may_become_version(bytes: &[u8]) -> bool {
    let header = match bytes.get(1) {
        Some(long) if long & 0x80 != 0 => 2 + usize::from(long & 0x7f),
        _ => 2,
    };
    bytes.get(header).is_none_or(|tag| *tag == VERSION_TAG)
}

/// What a browser asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What the client believes it connects to; to be compared, never to be dialled.
    pub destination: String,
    /// The X.224 Connection Request, as sent.
    pub x224: Vec<u8>,
    /// It wants bytes sent to the target before the X.224 request.
    pub has_preconnection_blob: bool,
}

impl Request {
    /// Reads the one PDU that `bytes` is; nothing may be left over.
    ///
    /// # Errors
    /// When it is anything but an ordinary request of version 1. A request without X.224
    /// (VMConnect) is refused: nothing of it could be checked before the target speaks.
    pub fn parse(bytes: &[u8]) -> Result<Self, CleanPathError> {
        let pdu = whole(bytes)?;
        let from_proxy =
            pdu.error.is_some() || pdu.server_cert_chain.is_some() || pdu.server_addr.is_some();
        match (pdu.destination, pdu.proxy_auth, pdu.x224_connection_pdu) {
            (Some(destination), Some(_), Some(x224)) if !from_proxy => Ok(Self {
                destination,
                x224: x224.as_bytes().to_vec(),
                has_preconnection_blob: pdu.preconnection_blob.is_some(),
            }),
            _ => Err(CleanPathError::NotRequest),
        }
    }
}

/// A request as a client sends it.
///
/// # Errors
/// When a field is longer than DER takes.
pub fn encode_request(
    destination: &str,
    proxy_auth: &str,
    x224: &[u8],
) -> Result<Vec<u8>, CleanPathError> {
    RDCleanPathPdu::new_request(x224.to_vec(), destination.into(), proxy_auth.into(), None)
        .and_then(|pdu| pdu.to_der())
        .map_err(|_| CleanPathError::TooLong)
}

/// The answer that carries a desktop: the target's X.224 confirm and its certificate chain (DER,
/// its own first). Fields that DER can't take make it a general failure.
#[must_use]
pub fn response<C: AsRef<[u8]>>(
    server_addr: &str,
    x224_confirm: &[u8],
    chain: impl IntoIterator<Item = C>,
) -> Vec<u8> {
    let chain = chain
        .into_iter()
        .map(|certificate| certificate.as_ref().to_vec());
    RDCleanPathPdu::new_response(server_addr.into(), x224_confirm.to_vec(), chain)
        .and_then(|pdu| pdu.to_der())
        .unwrap_or_else(|_| failure(&Failure::General))
}

/// Why there is no desktop, in the terms that the client can show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// An HTTP status, e.g. 403.
    Http(u16),
    /// A Winsock error, e.g. 10061 connection refused.
    Wsa(u16),
    /// A TLS alert, e.g. 40.
    Tls(u8),
    /// The target's X.224 Connection Confirm with its failure code.
    Negotiation(Vec<u8>),
    General,
}

/// The answer that carries a failure.
#[must_use]
pub fn failure(failure: &Failure) -> Vec<u8> {
    let pdu = match failure {
        Failure::Http(status) => RDCleanPathPdu::new_http_error(*status),
        Failure::Wsa(code) => RDCleanPathPdu::new_wsa_error(*code),
        Failure::Tls(alert) => RDCleanPathPdu::new_tls_error(*alert),
        Failure::Negotiation(confirm) => RDCleanPathPdu::new_negotiation_error(confirm.clone())
            .unwrap_or_else(|_| RDCleanPathPdu::new_general_error()),
        Failure::General => RDCleanPathPdu::new_general_error(),
    };
    pdu.to_der()
        .or_else(|_| RDCleanPathPdu::new_general_error().to_der())
        .expect("a general error is a few bytes of fixed form")
}

/// What a client hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Desktop {
        server_addr: String,
        x224_confirm: Vec<u8>,
        /// DER certificates, the target's own first.
        chain: Vec<Vec<u8>>,
    },
    Failed(Failure),
}

impl Answer {
    /// Reads the one PDU that `bytes` is; nothing may be left over.
    ///
    /// # Errors
    /// When it is anything but an answer of version 1.
    pub fn parse(bytes: &[u8]) -> Result<Self, CleanPathError> {
        let pdu = whole(bytes)?;
        if pdu.destination.is_some() {
            return Err(CleanPathError::NotAnswer);
        }
        if let Some(error) = pdu.error {
            let confirm = pdu.x224_connection_pdu.map(|x224| x224.as_bytes().to_vec());
            return Ok(Self::Failed(failed(&error, confirm)));
        }
        match (
            pdu.server_addr,
            pdu.x224_connection_pdu,
            pdu.server_cert_chain,
        ) {
            (Some(server_addr), Some(x224), Some(chain)) => Ok(Self::Desktop {
                server_addr,
                x224_confirm: x224.as_bytes().to_vec(),
                chain: chain.iter().map(|der| der.as_bytes().to_vec()).collect(),
            }),
            _ => Err(CleanPathError::NotAnswer),
        }
    }
}

fn failed(error: &RDCleanPathErr, confirm: Option<Vec<u8>>) -> Failure {
    match (error, confirm) {
        (error, Some(confirm)) if error.error_code == NEGOTIATION_ERROR_CODE => {
            Failure::Negotiation(confirm)
        }
        (
            RDCleanPathErr {
                http_status_code: Some(status),
                ..
            },
            _,
        ) => Failure::Http(*status),
        (
            RDCleanPathErr {
                wsa_last_error: Some(code),
                ..
            },
            _,
        ) => Failure::Wsa(*code),
        (
            RDCleanPathErr {
                tls_alert_code: Some(alert),
                ..
            },
            _,
        ) => Failure::Tls(*alert),
        _ => Failure::General,
    }
}

/// The PDU that `bytes` is exactly, of version 1.
fn whole(bytes: &[u8]) -> Result<RDCleanPathPdu, CleanPathError> {
    if request_length(bytes)? != Some(bytes.len()) {
        return Err(CleanPathError::Length);
    }
    let pdu = RDCleanPathPdu::from_der(bytes).map_err(|_| CleanPathError::Malformed)?;
    if pdu.version != VERSION_1 {
        return Err(CleanPathError::NotCleanPath);
    }
    Ok(pdu)
}

#[cfg(test)]
mod tests;
