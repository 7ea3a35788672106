//! Identity: signing keys, local users, cookies and what a login puts into a token. No sockets,
//! no clock: time and randomness come in as arguments.
#![forbid(unsafe_code)]

pub mod claims;
pub mod cookie;
pub mod csrf;
pub mod error;
pub mod hand_over;
pub mod local;
pub mod next;
pub mod rate_limit;
pub mod rotation;
pub mod signed_value;
pub mod signing_key;

pub use claims::{Login, User};
pub use error::LoginError;
pub use hand_over::HandOver;
pub use local::PasswordHash;
pub use next::ReturnTarget;
pub use rate_limit::{Answer, RateLimiter};
pub use rotation::KeyRecord;
pub use signed_value::ValueSecret;
pub use signing_key::SigningKey;
