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

#[cfg(test)]
mod tests {
    use postern_access::token::{Expected, verify, verify_jws};
    use postern_access::{Jwks, KeySet, TokenError, TokenType, UnixSeconds};

    use super::*;
    use crate::{Login, User};

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
    const EXPECTED: Expected<'static> = Expected {
        issuer: "https://gw.example",
        audience: "org",
        token_type: TokenType::Org,
    };

    fn key() -> SigningKey {
        let der = SigningKey::generate(&SystemRandom::new()).expect("randomness");
        SigningKey::from_pkcs8(&der).expect("a key")
    }

    fn published(key: &SigningKey) -> KeySet {
        let jwks = Jwks {
            keys: vec![key.public_jwk().clone()],
        };
        KeySet::from_jwks(&jwks).expect("a key set")
    }

    fn claims(groups: usize) -> Claims {
        let user = User {
            id: "u-1".to_owned(),
            email: "alice@example.org".to_owned(),
            groups: vec!["staff".to_owned(); groups],
        };
        Login::by_password(&[1; 16], None, NOW).organisation_claims(
            EXPECTED.issuer,
            &user,
            3_600,
            NOW,
        )
    }

    #[test]
    fn a_signed_token_verifies_by_the_published_key_alone() {
        let key = key();
        let token = key.sign(&claims(1)).expect("signs");
        assert_eq!(
            verify(&published(&key), &token, &EXPECTED, NOW),
            Ok(claims(1))
        );
        let other = published(&self::key());
        assert_eq!(
            verify(&other, &token, &EXPECTED, NOW),
            Err(TokenError::UnknownKey)
        );
    }

    #[test]
    fn a_checkpoint_is_no_token() {
        let key = key();
        let statement = key.sign_jws("checkpoint+jws", b"{}").expect("signs");
        let keys = published(&key);
        assert_eq!(
            verify_jws(&keys, "checkpoint+jws", &statement),
            Ok(b"{}".to_vec())
        );
        assert_eq!(
            verify(&keys, &statement, &EXPECTED, NOW),
            Err(TokenError::Type)
        );
    }

    #[test]
    fn a_key_keeps_its_id_and_another_key_has_another() {
        let der = SigningKey::generate(&SystemRandom::new()).expect("randomness");
        let kid = |der: &[u8]| SigningKey::from_pkcs8(der).expect("a key").kid().to_owned();
        assert_eq!(kid(&der), kid(&der));
        assert_ne!(kid(&der), key().kid());
    }

    /// The key of [RFC 7515 §A.3.1]. The RFCs give no thumbprint of an EC key; this one is the
    /// SHA-256 that `openssl` computes over the text of [RFC 7638 §3.2].
    #[test]
    fn the_id_is_the_thumbprint_of_rfc_7638() {
        let x = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
        let y = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
        assert_eq!(
            thumbprint(x, y),
            "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"
        );
    }

    #[test]
    fn what_is_no_p256_key_is_refused() {
        let der = SigningKey::generate(&SystemRandom::new()).expect("randomness");
        let ed = ring::signature::Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .expect("randomness");
        for bytes in [
            &b""[..],
            b"-----BEGIN PRIVATE KEY-----",
            &der[..der.len() - 1],
            ed.as_ref(),
        ] {
            assert!(matches!(
                SigningKey::from_pkcs8(bytes),
                Err(LoginError::SigningKey(_))
            ));
        }
    }

    #[test]
    fn a_token_that_no_verifier_would_read_is_not_signed() {
        let long = key().sign(&claims(500)).expect_err("is refused");
        assert!(matches!(long, LoginError::TokenTooLong { .. }));
    }

    #[test]
    fn a_key_shows_nothing_but_its_id() {
        let key = key();
        assert_eq!(
            format!("{key:?}"),
            format!("SigningKey {{ kid: {:?}, .. }}", key.kid())
        );
    }
}
