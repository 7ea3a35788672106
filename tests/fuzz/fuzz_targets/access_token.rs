//! Access tokens: nothing is accepted that does not say what is expected, well signed or not.
#![no_main]

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use libfuzzer_sys::fuzz_target;
use postern_access::token::{CLOCK_SKEW_S_MAX, Expected, TokenType, verify};
use postern_access::{Jwk, Jwks, KeySet, UnixSeconds};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

const NOW: u64 = 1_800_000_000;
const HEADER: &str = r#"{"typ":"JWT","alg":"EdDSA","kid":"k"}"#;
const EXPECTED: Expected<'static> = Expected {
    issuer: "https://gw.example",
    audience: "lab",
    token_type: TokenType::App,
};

/// A key of this target alone: what it signs is worth nothing anywhere.
static SIGNER: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("32 bytes are a seed"));

static KEYS: LazyLock<KeySet> = LazyLock::new(|| {
    let jwk = Jwk {
        kid: "k".into(),
        kty: "OKP".into(),
        crv: "Ed25519".into(),
        x: BASE64URL.encode(SIGNER.public_key()),
        y: None,
        alg: "EdDSA".into(),
        usage: "sig".into(),
    };
    KeySet::from_jwks(&Jwks { keys: vec![jwk] }).expect("a good key")
});

fn check(token: &str) {
    let Ok(claims) = verify(&KEYS, token, &EXPECTED, UnixSeconds(NOW)) else {
        return;
    };
    assert_eq!(claims.iss, EXPECTED.issuer);
    assert!(
        claims
            .aud
            .iter()
            .any(|audience| audience == EXPECTED.audience)
    );
    assert_eq!(claims.token_type, TokenType::App);
    assert!(claims.exp.saturating_add(CLOCK_SKEW_S_MAX) >= NOW);
    assert!(claims.nbf <= NOW + CLOCK_SKEW_S_MAX);
}

// `text` is tried as a token, as signed claims, and as the header of signed claims.
fuzz_target!(|text: &str| {
    check(text);
    let sign = |header: &str, claims: &str| {
        let message = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(claims));
        let signature = BASE64URL.encode(SIGNER.sign(message.as_bytes()));
        check(&format!("{message}.{signature}"));
    };
    sign(HEADER, text);
    if let Some((header, claims)) = text.split_once('\n') {
        sign(header, claims);
    }
    if let Ok(jwks) = serde_json::from_str::<Jwks>(text) {
        let _ = KeySet::from_jwks(&jwks);
    }
});
