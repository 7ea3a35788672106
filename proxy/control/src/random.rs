//! Randomness from the system.

use ring::rand::{SecureRandom as _, SystemRandom};

use crate::ControlError;

/// `N` random bytes.
///
/// # Errors
/// When the system has none.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], ControlError> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| ControlError::Randomness)?;
    Ok(bytes)
}
