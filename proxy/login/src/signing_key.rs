//! The ES256 key that signs access tokens and checkpoints. Lives in control only.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use postern_access::token::{TOKEN_BYTES_MAX, TOKEN_JWS_TYPE};
use postern_access::{Claims, Jwk, provider};
use ring::digest::{SHA256, digest};
pub use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use zeroize::Zeroizing;

use crate::LoginError;

/// A P-256 private key with its public half and key id.
#[derive(Clone)]
pub struct SigningKey {
    jwk: Jwk,
    key: EncodingKey,
}

impl SigningKey {
    /// A new private key as PKCS#8 DER, for the store.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate(random: &SystemRandom) -> Result<Zeroizing<Vec<u8>>, LoginError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, random)
            .map_err(|_| LoginError::SigningKey("the system has no randomness"))?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }

    /// From the PKCS#8 DER that [`Self::generate`] made.
    ///
    /// # Errors
    /// When it is not a P-256 private key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, LoginError> {
        provider::install();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &SystemRandom::new())
                .map_err(|_| LoginError::SigningKey("not a P-256 private key in PKCS#8"))?;
        let jwk = public_jwk(pair.public_key().as_ref())
            .ok_or(LoginError::SigningKey("not an uncompressed point"))?;
        Ok(Self {
            jwk,
            key: EncodingKey::from_ec_der(der),
        })
    }

    /// The key's [RFC 7638] thumbprint: the same key always has the same id.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.jwk.kid
    }

    /// What verifiers need.
    #[must_use]
    pub fn public_jwk(&self) -> &Jwk {
        &self.jwk
    }

    /// An access token.
    ///
    /// # Errors
    /// When it would be over [`TOKEN_BYTES_MAX`] (many groups), or the system has no randomness.
    pub fn sign(&self, claims: &Claims) -> Result<String, LoginError> {
        let payload = serde_json::to_vec(claims).expect("claims are plain text and numbers");
        let token = self.sign_jws(TOKEN_JWS_TYPE, &payload)?;
        if token.len() > TOKEN_BYTES_MAX {
            return Err(LoginError::TokenTooLong {
                bytes: token.len(),
                max: TOKEN_BYTES_MAX,
            });
        }
        Ok(token)
    }

    /// A compact JWS [RFC 7515 §3.1] over any payload; `typ` keeps its kind apart from tokens.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn sign_jws(&self, typ: &str, payload: &[u8]) -> Result<String, LoginError> {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some(typ.to_owned());
        header.kid = Some(self.jwk.kid.clone());
        let header = serde_json::to_vec(&header).expect("a header is plain text");
        let message = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(payload));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, Algorithm::ES256)
            .map_err(|_| LoginError::SigningKey("the system has no randomness"))?;
        Ok(format!("{message}.{signature}"))
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.jwk.kid)
            .finish_non_exhaustive()
    }
}

/// [SEC 1 §2.3.3] An uncompressed point: 4, then x and y of 32 bytes each.
fn public_jwk(point: &[u8]) -> Option<Jwk> {
    let (x, y) = point.strip_prefix(&[4])?.split_at_checked(32)?;
    let (x, y) = (BASE64URL.encode(x), BASE64URL.encode(y));
    Some(Jwk {
        kid: thumbprint(&x, &y),
        kty: "EC".to_owned(),
        crv: "P-256".to_owned(),
        x,
        y: Some(y),
        alg: "ES256".to_owned(),
        usage: "sig".to_owned(),
    })
}

/// [RFC 7638 §3.2] The required members of an EC key in lexicographic order, hashed.
fn thumbprint(x: &str, y: &str) -> String {
    let json = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    BASE64URL.encode(digest(&SHA256, json.as_bytes()))
}
