//! Tokens of Devolutions Gateway: RS256, one for every session.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

/// How long a token is good for: longer than any run.
const VALID_SECONDS: u64 = 4 * 60 * 60;
/// Clocks agree within a process; this only keeps a token from being issued "in the future".
const SKEW_SECONDS: u64 = 60;
const PEM_COLUMNS: usize = 64;

/// The provisioner's key.
#[derive(Debug)]
pub(super) struct Provisioner {
    key: KeyPair,
    random: SystemRandom,
}

/// A token and the session that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub text: String,
    pub session: String,
}

impl Provisioner {
    pub fn new() -> Result<Self> {
        let key = KeyPair::generate(KeySize::Rsa2048).context("no RSA key can be made")?;
        let random = SystemRandom::new();
        Ok(Self { key, random })
    }

    /// The public key as `SubjectPublicKeyInfo` in PEM.
    pub fn public_pem(&self) -> Result<String> {
        let der: PublicKeyX509Der<'_> = self
            .key
            .public_key()
            .as_der()
            .context("the public key has no encoding")?;
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(PEM_COLUMNS)
            .filter_map(|line| std::str::from_utf8(line).ok())
            .collect();
        Ok(format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            lines.join("\n")
        ))
    }

    /// Lets one session through to `destination`.
    pub fn token(&self, destination: SocketAddr) -> Result<Token> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let session = self.uuid()?;
        let header = json!({ "alg": "RS256", "typ": "JWT", "cty": "ASSOCIATION" });
        let claims = json!({
            "jti": self.uuid()?,
            "nbf": now - SKEW_SECONDS,
            "exp": now + VALID_SECONDS,
            "dst_hst": destination.to_string(),
            "jet_cm": "fwd",
            "jet_ap": "rdp",
            "jet_rec": "none",
            "jet_aid": session,
            "jet_ttl": 0,
        });
        let encode = |part: &serde_json::Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(
                &RSA_PKCS1_SHA256,
                &self.random,
                signed.as_bytes(),
                &mut signature,
            )
            .context("a token cannot be signed")?;
        let text = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        Ok(Token { text, session })
    }

    /// A random UUID.
    pub fn uuid(&self) -> Result<String> {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes).context("no random bytes")?;
        // RFC 9562 §5.4: version 4, variant 10.
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let groups = [
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        ];
        Ok(groups.join("-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_where_to_and_is_signed() {
        let provisioner = Provisioner::new().unwrap();
        let destination = SocketAddr::from(([127, 0, 0, 1], 3389));
        let token = provisioner.token(destination).unwrap();
        let parts: Vec<&str> = token.text.split('.').collect();
        let read = |part: &str| -> serde_json::Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        assert_eq!(read(parts[0])["cty"], "ASSOCIATION");
        let claims = read(parts[1]);
        assert_eq!(claims["dst_hst"], "127.0.0.1:3389");
        assert_eq!(claims["jet_aid"], token.session.as_str());
        let key = aws_lc_rs::signature::UnparsedPublicKey::new(
            &aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256,
            provisioner.key.public_key().as_ref(),
        );
        let signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
        let signed = format!("{}.{}", parts[0], parts[1]);
        key.verify(signed.as_bytes(), &signature).unwrap();
        assert_ne!(provisioner.token(destination).unwrap(), token);
    }

    #[test]
    fn the_public_key_is_pem() {
        let pem = Provisioner::new().unwrap().public_pem().unwrap();
        assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----\nMII"), "{pem}");
        assert!(pem.lines().all(|line| line.len() <= PEM_COLUMNS), "{pem}");
    }
}
