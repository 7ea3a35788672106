//! Verification keys by key id, from a JWKS.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::{Algorithm, DecodingKey};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::provider;

/// One public key [RFC 7517]; only EC P-256 (`ES256`) and OKP Ed25519 (`EdDSA`) are taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    pub kid: String,
    pub kty: String,
    /// Empty in keys of a kind that has no curve; such a set is read and then refused by name.
    #[serde(default)]
    pub crv: String,
    /// Base64url, 32 bytes.
    #[serde(default)]
    pub x: String,
    /// Base64url, 32 bytes; absent for OKP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
    /// The one algorithm that this key verifies.
    pub alg: String,
    #[serde(rename = "use")]
    pub usage: String,
}

/// A published key set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwks {
    pub keys: Vec<Jwk>,
}

/// Verification keys, looked up by exact `kid`. Cannot sign.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: Arc<BTreeMap<String, VerificationKey>>,
    /// SHA-256 of the keys, in the order of their ids.
    fingerprint: [u8; 32],
}

/// A public key and the one algorithm that it verifies.
pub(crate) struct VerificationKey {
    pub(crate) algorithm: Algorithm,
    pub(crate) key: DecodingKey,
}

impl VerificationKey {
    /// The `alg` that a token of this key must name.
    pub(crate) fn algorithm_name(&self) -> &'static str {
        if self.algorithm == Algorithm::EdDSA {
            "EdDSA"
        } else {
            "ES256"
        }
    }
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.keys.keys()).finish()
    }
}

/// Why a key set was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("key {kid:?}: {why}")]
pub struct KeySetError {
    pub kid: String,
    pub why: String,
}

impl KeySet {
    /// # Errors
    /// The first key that is of an unknown kind, malformed or a duplicate.
    pub fn from_jwks(jwks: &Jwks) -> Result<Self, KeySetError> {
        provider::install();
        let mut keys = BTreeMap::new();
        let mut parts = BTreeMap::new();
        for jwk in &jwks.keys {
            let refused = |why: String| KeySetError {
                kid: jwk.kid.clone(),
                why,
            };
            let key = VerificationKey::from_jwk(jwk).map_err(refused)?;
            if keys.insert(jwk.kid.clone(), key).is_some() {
                return Err(refused("another key has the same id".to_owned()));
            }
            parts.insert(&jwk.kid, jwk);
        }
        let text = serde_json::to_vec(&parts).expect("keys are plain text");
        let fingerprint = digest(&SHA256, &text);
        Ok(Self {
            keys: Arc::new(keys),
            fingerprint: fingerprint
                .as_ref()
                .try_into()
                .expect("SHA-256 is 32 bytes"),
        })
    }

    /// Whether both hold the same keys: what one of them verifies, the other does.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }

    pub(crate) fn get(&self, kid: &str) -> Option<&VerificationKey> {
        self.keys.get(kid)
    }
}

impl VerificationKey {
    fn from_jwk(jwk: &Jwk) -> Result<Self, String> {
        if jwk.kid.is_empty() {
            return Err("the key id is empty".to_owned());
        }
        if jwk.usage != "sig" {
            return Err(format!("the use is {:?}, not \"sig\"", jwk.usage));
        }
        match (jwk.kty.as_str(), jwk.crv.as_str(), jwk.alg.as_str(), &jwk.y) {
            ("RSA", ..) => Err("RSA keys are not supported".to_owned()),
            ("EC", "P-256", "ES256", Some(y)) => {
                // [SEC 1 §2.3.3] An uncompressed point: 4, then x and y.
                let point = [
                    &[4],
                    &coordinate("x", &jwk.x)?[..],
                    &coordinate("y", y)?[..],
                ]
                .concat();
                Ok(Self {
                    algorithm: Algorithm::ES256,
                    key: DecodingKey::from_ec_der(&point),
                })
            }
            ("OKP", "Ed25519", "EdDSA", None) => {
                let key = DecodingKey::from_ed_der(&coordinate("x", &jwk.x)?);
                Ok(Self {
                    algorithm: Algorithm::EdDSA,
                    key,
                })
            }
            (kty, crv, alg, _) => Err(format!(
                "a key is EC P-256 with ES256 or OKP Ed25519 with EdDSA, not {kty:?} {crv:?} with {alg:?}"
            )),
        }
    }
}

fn coordinate(name: &str, text: &str) -> Result<[u8; 32], String> {
    BASE64URL
        .decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| format!("{name} is not 32 bytes of base64url"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ec(kid: &str) -> Jwk {
        Jwk {
            kid: kid.to_owned(),
            kty: "EC".to_owned(),
            crv: "P-256".to_owned(),
            x: BASE64URL.encode([1; 32]),
            y: Some(BASE64URL.encode([2; 32])),
            alg: "ES256".to_owned(),
            usage: "sig".to_owned(),
        }
    }

    fn ed(kid: &str) -> Jwk {
        Jwk {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            y: None,
            alg: "EdDSA".to_owned(),
            ..ec(kid)
        }
    }

    #[test]
    fn a_key_fixes_its_algorithm() {
        let keys = KeySet::from_jwks(&Jwks {
            keys: vec![ec("a"), ed("b")],
        })
        .expect("two keys");
        let name = |kid: &str| keys.get(kid).map(VerificationKey::algorithm_name);
        assert_eq!((name("a"), name("b")), (Some("ES256"), Some("EdDSA")));
        for kid in ["", "A", "a ", "ab"] {
            assert_eq!(name(kid), None, "{kid:?} is no exact key id");
        }
    }

    #[test]
    fn a_key_that_is_not_understood_is_refused_by_name() {
        let check = |jwk: Jwk, why: &str| {
            let error = KeySet::from_jwks(&Jwks {
                keys: vec![ed("good"), jwk.clone()],
            })
            .expect_err("is refused");
            assert_eq!(
                (error.kid, error.why.contains(why)),
                (jwk.kid, true),
                "{}",
                error.why
            );
        };
        let text = str::to_owned;
        check(ed("good"), "same id");
        check(ec(""), "key id is empty");
        check(
            Jwk {
                usage: text("enc"),
                ..ec("k")
            },
            "use is",
        );
        check(Jwk { y: None, ..ec("k") }, "EC P-256");
        check(
            Jwk {
                alg: text("HS256"),
                ..ec("k")
            },
            "HS256",
        );
        check(
            Jwk {
                alg: text("none"),
                ..ec("k")
            },
            "none",
        );
        check(
            Jwk {
                alg: text("EdDSA"),
                ..ec("k")
            },
            "EdDSA",
        );
        check(
            Jwk {
                alg: text("ES256"),
                ..ed("k")
            },
            "ES256",
        );
        check(
            Jwk {
                crv: text("P-384"),
                ..ec("k")
            },
            "P-384",
        );
        check(
            Jwk {
                crv: text("X25519"),
                ..ed("k")
            },
            "X25519",
        );
        check(
            Jwk {
                kty: text("oct"),
                ..ec("k")
            },
            "oct",
        );
        check(
            Jwk {
                x: BASE64URL.encode([1; 31]),
                ..ec("k")
            },
            "x is not 32 bytes",
        );
        check(
            Jwk {
                y: Some(text("+/")),
                ..ec("k")
            },
            "y is not 32 bytes",
        );
    }

    #[test]
    fn an_rsa_key_is_refused_in_plain_words() {
        let json =
            r#"{"keys":[{"kid":"r","kty":"RSA","n":"AQAB","e":"AQAB","alg":"RS256","use":"sig"}]}"#;
        let jwks: Jwks = serde_json::from_str(json).expect("reads");
        let error = KeySet::from_jwks(&jwks).expect_err("is refused");
        assert_eq!(error.to_string(), "key \"r\": RSA keys are not supported");
    }
}
