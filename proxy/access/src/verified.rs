//! Tokens whose signature was verified already, so that the next check of one costs a hash.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use ring::digest::{SHA256, digest};

use crate::token::{CLOCK_SKEW_S_MAX, TOKEN_BYTES_MAX, authenticate};
use crate::{Claims, KeySet, TokenError, UnixSeconds};

/// Tokens that are remembered; the one that came first is forgotten for a new one.
pub const VERIFIED_TOKENS_MAX: usize = 4_096;

/// SHA-256 of a token, as it was sent.
type TokenHash = [u8; 32];

/// What verified tokens of one core say. Only the signature is remembered: times, audience,
/// revocations and policy are judged every time.
#[derive(Debug, Default)]
pub struct Verified {
    /// INVARIANT: every token that is remembered was signed by a key of this set.
    keys: KeySet,
    claims: HashMap<TokenHash, Arc<Claims>>,
    /// INVARIANT: the keys of `claims`, in the order in which they came.
    order: VecDeque<TokenHash>,
}

impl Verified {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Tokens that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether `token` is remembered.
    #[must_use]
    pub fn knows(&self, token: &str) -> bool {
        self.claims.contains_key(&hash(token))
    }

    /// The claims of a token that one of `keys` signed, whatever they say. Another set of keys than
    /// the time before makes it forget everything: the key of a token may not be among them.
    ///
    /// # Errors
    /// When the token is malformed, of another kind, or its signature does not hold.
    pub(crate) fn authenticate(
        &mut self,
        keys: &KeySet,
        token: &str,
        now: UnixSeconds,
    ) -> Result<Arc<Claims>, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        if !self.keys.is_same(keys) {
            *self = Self {
                keys: keys.clone(),
                ..Self::default()
            };
        }
        let hash = hash(token);
        let is_current = |claims: &Claims| now < UnixSeconds(claims.exp).plus(CLOCK_SKEW_S_MAX);
        if let Some(claims) = self.claims.get(&hash).filter(|claims| is_current(claims)) {
            return Ok(claims.clone());
        }
        let claims = Arc::new(authenticate(keys, token)?);
        if is_current(&claims) {
            self.remember(hash, claims.clone());
        }
        Ok(claims)
    }

    fn remember(&mut self, hash: TokenHash, claims: Arc<Claims>) {
        if self.order.len() == VERIFIED_TOKENS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.claims.remove(&oldest);
        }
        if self.claims.insert(hash, claims).is_none() {
            self.order.push_back(hash);
        }
    }
}

fn hash(token: &str) -> TokenHash {
    let hash = digest(&SHA256, token.as_bytes());
    hash.as_ref().try_into().expect("SHA-256 is 32 bytes")
}
