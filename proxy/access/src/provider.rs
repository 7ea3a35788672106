//! jsonwebtoken's crypto provider on ring: ES256 and EdDSA, nothing else.
//!
//! A token's algorithm can only be one of these two, whatever its header says: the provider has no
//! other, least of all HMAC.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind, Result};
use jsonwebtoken::signature::{Error as SignatureError, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair,
    UnparsedPublicKey,
};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes ring the process's provider; further calls do nothing. Whatever verifies or signs calls it
/// first, because jsonwebtoken panics when it finds no provider.
pub fn install() {
    static INSTALL: Once = Once::new();
    // A binary that has installed another provider on purpose keeps it.
    INSTALL.call_once(|| {
        let _ = PROVIDER.install_default();
    });
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    if (*algorithm, key.family()) != (Algorithm::ES256, AlgorithmFamily::Ec) {
        return Err(Error::from(ErrorKind::InvalidAlgorithm));
    }
    let random = SystemRandom::new();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_bytes(), &random)
        .map_err(|_| Error::from(ErrorKind::InvalidEcdsaKey))?;
    Ok(Box::new(Es256Signer { pair, random }))
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    let scheme: &'static dyn ring::signature::VerificationAlgorithm =
        match (algorithm, key.family()) {
            (Algorithm::ES256, AlgorithmFamily::Ec) => &ECDSA_P256_SHA256_FIXED,
            (Algorithm::EdDSA, AlgorithmFamily::Ed) => &ED25519,
            _ => return Err(Error::from(ErrorKind::InvalidAlgorithm)),
        };
    let key = UnparsedPublicKey::new(scheme, key.try_get_as_bytes()?.to_vec());
    Ok(Box::new(RingVerifier {
        algorithm: *algorithm,
        key,
    }))
}

struct Es256Signer {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl Signer<Vec<u8>> for Es256Signer {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, SignatureError> {
        let signature = self
            .pair
            .sign(&self.random, message)
            .map_err(|_| SignatureError::new())?;
        Ok(signature.as_ref().to_vec())
    }
}

impl JwtSigner for Es256Signer {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
    }
}

struct RingVerifier {
    algorithm: Algorithm,
    key: UnparsedPublicKey<Vec<u8>>,
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(
        &self,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> std::result::Result<(), SignatureError> {
        self.key
            .verify(message, signature)
            .map_err(|_| SignatureError::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_algorithm_but_es256_and_eddsa() {
        install();
        install();
        let (secret, ec, ed) = (
            DecodingKey::from_secret(b"secret"),
            DecodingKey::from_ec_der(&[4; 65]),
            DecodingKey::from_ed_der(&[4; 32]),
        );
        let check = |algorithm: Algorithm, key: &DecodingKey, taken: bool| {
            assert_eq!(
                verifier(&algorithm, key).is_ok(),
                taken,
                "{algorithm:?} {key:?}"
            );
        };
        check(Algorithm::ES256, &ec, true);
        check(Algorithm::EdDSA, &ed, true);
        check(Algorithm::ES256, &ed, false);
        check(Algorithm::EdDSA, &ec, false);
        for algorithm in [
            Algorithm::HS256,
            Algorithm::RS256,
            Algorithm::PS256,
            Algorithm::ES384,
        ] {
            for key in [&secret, &ec, &ed] {
                check(algorithm, key, false);
            }
        }
        let secret = EncodingKey::from_secret(b"secret");
        assert!(jsonwebtoken::crypto::sign(b"", &secret, Algorithm::HS256).is_err());
    }
}
