//! What can go wrong in a login.

/// Why something of a login was not made or not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// Internal: the store's key does not parse or the system has no randomness.
    #[error("signing key: {0}")]
    SigningKey(&'static str),
    /// Policy: the user has so many groups that no verifier would look at the token.
    #[error("the token would be {bytes} bytes long, over the limit of {max}")]
    TokenTooLong { bytes: usize, max: usize },
    /// Configuration: the text is not a hash that this crate makes.
    #[error("password hash: {0}")]
    PasswordHash(&'static str),
    /// Client: the password is empty or over [`crate::local::PASSWORD_BYTES_MAX`].
    #[error("a password has 1 to {max} bytes", max = crate::local::PASSWORD_BYTES_MAX)]
    PasswordLength,
    /// Client: the value was not made by [`crate::signed_value`] with this secret and purpose.
    #[error("the value is not one of ours")]
    ForeignValue,
    /// Client: the value was ours and its time has passed.
    #[error("the value has expired")]
    ExpiredValue,
    /// Client: the hand-over is for another application.
    #[error("the hand-over is for another application")]
    OtherApplication,
}
