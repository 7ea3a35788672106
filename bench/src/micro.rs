//! What is measured within the bench's own process, without a relay.

/// One micro-benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Micro {
    /// A cached token check and a policy of ten rules.
    Decision,
    /// A token's signature and claims.
    TokenVerify,
    /// WebSocket unmasking, against a loop over bytes.
    Masking,
    /// TLS handshakes, by provider and key exchange, full and resumed.
    Handshake,
    /// Opening and sealing TLS records, ours against rustls.
    Record,
}

/// One figure of a micro-benchmark.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// What of the case it is: `ring, X25519, full`.
    pub variant: String,
    /// In the case's unit, lower is better.
    pub value: f64,
    /// The variant that the others are compared with.
    pub is_reference: bool,
}

/// Measures once; every variant, in the same order each time.
///
/// # Errors
/// The cryptography refuses.
pub fn run(micro: Micro) -> anyhow::Result<Vec<Figure>> {
    anyhow::bail!("{micro:?} is not measured")
}

/// Seconds of CPU for 10⁹ bytes through bare rustls and loopback in one thread: what [`crate::cases::Task::Floor`]
/// is compared with. `up` is from the browser.
///
/// # Errors
/// The cryptography or a socket refuses.
pub fn floor(up: bool, bytes: u64) -> anyhow::Result<f64> {
    anyhow::bail!("the floor of {bytes} bytes is not measured (up: {up})")
}
