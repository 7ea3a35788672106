//! Tokens: what verifies, and every forgery that must not.

mod fixture;

use fixture::{
    ED_KID, EXPECTED, ISSUER, KID, NOW, Signer, claims, header, header_with, joined, message,
};
use postern_access::token::{
    CLOCK_SKEW_S_MAX, Expected, JWS_BYTES_MAX, TOKEN_BYTES_MAX, TOKEN_JWS_TYPE, verify, verify_jws,
};
use postern_access::{Claims, TokenError, TokenType, UnixSeconds};
use proptest::prelude::*;
use ring::{digest, hmac};
use serde_json::{Value, json};

fn json_of(claims: &Claims) -> String {
    serde_json::to_string(claims).expect("encodes")
}

fn verdict(signer: &Signer, token: &str) -> Result<Claims, TokenError> {
    verify(&signer.keys(), token, &EXPECTED, NOW)
}

#[test]
fn a_good_token_of_either_algorithm_yields_its_claims() {
    let signer = Signer::new();
    assert_eq!(verdict(&signer, &signer.token(&claims())), Ok(claims()));
    let ed = json!({ "alg": "EdDSA", "kid": ED_KID, "typ": TOKEN_JWS_TYPE });
    assert_eq!(
        verdict(&signer, &signer.eddsa(&ed, &json_of(&claims()))),
        Ok(claims())
    );
}

#[test]
fn a_claim_that_is_not_known_is_ignored() {
    let signer = Signer::new();
    let mut payload: Value = serde_json::to_value(claims()).expect("encodes");
    payload["later"] = json!({ "x": 1 });
    let token = signer.es256(&header(), &payload.to_string());
    assert_eq!(verdict(&signer, &token), Ok(claims()));
}

#[test]
fn the_header_cannot_choose_the_algorithm() {
    let signer = Signer::new();
    let payload = json_of(&claims());
    for alg in [
        "none", "None", "NONE", "", "HS256", "HS384", "RS256", "PS256", "ES384", "es256", "EdDSA",
    ] {
        let header = header_with("alg", json!(alg)).to_string();
        let unsigned = format!("{}.", message(&header, &payload));
        assert_eq!(
            verdict(&signer, &unsigned),
            Err(TokenError::Algorithm),
            "{alg} unsigned"
        );
        let signed = signer.es256_text(&header, &payload);
        assert_eq!(
            verdict(&signer, &signed),
            Err(TokenError::Algorithm),
            "{alg} signed"
        );
    }
    // A true signature of one of our keys, named as the other one's.
    let ed_as_ec = signer.eddsa(&header(), &payload);
    assert_eq!(verdict(&signer, &ed_as_ec), Err(TokenError::Signature));
    let ec_as_ed = signer.es256(&header_with("kid", json!(ED_KID)), &payload);
    assert_eq!(verdict(&signer, &ec_as_ed), Err(TokenError::Algorithm));
}

#[test]
fn a_public_key_is_no_hmac_secret() {
    let signer = Signer::new();
    let payload = json_of(&claims());
    let jwk = serde_json::to_vec(&signer.jwks().keys[0]).expect("encodes");
    let x = signer.jwks().keys[0].x.clone();
    for secret in [
        signer.point(),
        &signer.point()[1..33],
        &jwk,
        x.as_bytes(),
        b"",
        KID.as_bytes(),
    ] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        for (alg, expected) in [
            ("HS256", TokenError::Algorithm),
            ("ES256", TokenError::Signature),
        ] {
            let message = message(&header_with("alg", json!(alg)).to_string(), &payload);
            let token = joined(&message, hmac::sign(&key, message.as_bytes()).as_ref());
            assert_eq!(verdict(&signer, &token), Err(expected));
        }
    }
}

#[test]
fn a_key_is_found_by_its_exact_id_or_not_at_all() {
    let signer = Signer::new();
    let payload = json_of(&claims());
    for kid in [
        "",
        "key",
        "key-1 ",
        "KEY-1",
        "key-1\0",
        "../key-1",
        "' or 1=1 --",
        "https://evil.example/k",
        "*",
    ] {
        let token = signer.es256(&header_with("kid", json!(kid)), &payload);
        assert_eq!(
            verdict(&signer, &token),
            Err(TokenError::UnknownKey),
            "{kid:?}"
        );
    }
    let without = json!({ "alg": "ES256", "typ": TOKEN_JWS_TYPE });
    assert_eq!(
        verdict(&signer, &signer.es256(&without, &payload)),
        Err(TokenError::UnknownKey)
    );
    let null = header_with("kid", Value::Null);
    assert_eq!(
        verdict(&signer, &signer.es256(&null, &payload)),
        Err(TokenError::UnknownKey)
    );
    let number = header_with("kid", json!(1));
    assert_eq!(
        verdict(&signer, &signer.es256(&number, &payload)),
        Err(TokenError::Malformed)
    );
}

#[test]
fn a_key_that_comes_with_the_token_is_not_used() {
    let (signer, attacker) = (Signer::new(), Signer::new());
    let payload = json_of(&claims());
    assert_eq!(
        verdict(&signer, &attacker.token(&claims())),
        Err(TokenError::Signature)
    );
    let jwk = serde_json::to_value(&attacker.jwks().keys[0]).expect("encodes");
    for (name, value) in [
        ("jwk", jwk),
        ("jku", json!("https://evil.example/jwks.json")),
        ("x5u", json!("https://evil.example/chain.pem")),
        ("x5c", json!(["MIIB"])),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("enc", json!("A128GCM")),
    ] {
        let header = header_with(name, value);
        for from in [&attacker, &signer] {
            let token = from.es256(&header, &payload);
            assert_eq!(
                verdict(&signer, &token),
                Err(TokenError::Malformed),
                "{name}"
            );
        }
    }
}

#[test]
fn a_header_that_says_a_thing_twice_is_refused() {
    let signer = Signer::new();
    let twice = r#"{"alg":"ES256","kid":"key-1","typ":"JWT","alg":"none"}"#;
    let token = signer.es256_text(twice, &json_of(&claims()));
    assert_eq!(verdict(&signer, &token), Err(TokenError::Malformed));
    let payload = json_of(&claims()).replacen('{', r#"{"sub":"u-2","#, 1);
    assert_eq!(
        verdict(&signer, &signer.es256(&header(), &payload)),
        Err(TokenError::Malformed)
    );
}

#[test]
fn a_signature_of_another_form_is_refused() {
    let signer = Signer::new();
    let message = message(&header().to_string(), &json_of(&claims()));
    let check = |signature: &[u8]| {
        let token = joined(&message, signature);
        assert_eq!(
            verdict(&signer, &token),
            Err(TokenError::Signature),
            "{signature:?}"
        );
    };
    check(b"");
    // r = s = 0, which a verifier without range checks takes for everything.
    check(&[0; 64]);
    check(&[0xff; 64]);
    check(&[0x30, 6, 2, 1, 1, 2, 1, 1]);
    check(digest::digest(&digest::SHA256, message.as_bytes()).as_ref());
}

#[test]
fn what_is_not_a_compact_token_is_malformed() {
    let signer = Signer::new();
    let good = signer.token(&claims());
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let (head, payload) = message.split_once('.').expect("three parts");
    let check = |token: &str| {
        assert_eq!(
            verdict(&signer, token),
            Err(TokenError::Malformed),
            "{token}"
        );
    };
    check("");
    check(".");
    check("..");
    check("....");
    check(message);
    check(&format!("{good}."));
    check(&format!(".{good}"));
    check(&format!("{good}.{signature}"));
    check(&format!("{head}=.{payload}.{signature}"));
    check(&format!("{good}="));
    check(&format!(" {good}"));
    check(&format!("{good}\n"));
    check(&format!("{head}.{payload}.+/{}", &signature[2..]));
    check(&format!("{good}é"));
    check(&signer.es256_text("[]", &json_of(&claims())));
    check(&signer.es256_text("", &json_of(&claims())));
}

#[test]
fn a_token_over_the_limit_is_not_looked_at() {
    let signer = Signer::new();
    let with_groups = |count: usize| Claims {
        groups: vec!["g".repeat(100); count],
        ..claims()
    };
    let long = signer.token(&with_groups(40));
    assert!(long.len() > TOKEN_BYTES_MAX);
    assert_eq!(verdict(&signer, &long), Err(TokenError::Malformed));
    let short = signer.token(&with_groups(20));
    assert!(short.len() < TOKEN_BYTES_MAX);
    assert_eq!(verdict(&signer, &short), Ok(with_groups(20)));
}

#[test]
fn a_payload_that_is_not_our_claims_is_malformed() {
    let signer = Signer::new();
    let check = |name: &str, value: Value| {
        let mut payload = serde_json::to_value(claims()).expect("encodes");
        payload[name] = value.clone();
        let token = signer.es256(&header(), &payload.to_string());
        assert_eq!(
            verdict(&signer, &token),
            Err(TokenError::Malformed),
            "{name} = {value}"
        );
    };
    check("exp", json!("9999999999"));
    check("exp", json!(1e300));
    check("exp", json!(-1));
    check("exp", Value::Null);
    check("aud", json!("app:lab"));
    check("aud", Value::Null);
    check("type", json!("App"));
    check("type", json!(["app", "org"]));
    check("sub", Value::Null);
    check("identity_nonce", Value::Null);
    for payload in ["", "null", "[]", "{}", "\u{0}"] {
        let token = signer.es256(&header(), payload);
        assert_eq!(
            verdict(&signer, &token),
            Err(TokenError::Malformed),
            "{payload:?}"
        );
    }
}

#[test]
fn a_token_says_exactly_what_is_expected_of_it() {
    let signer = Signer::new();
    let check = |claims: Claims, error: TokenError| {
        assert_eq!(
            verdict(&signer, &signer.token(&claims)),
            Err(error),
            "{claims:?}"
        );
    };
    for issuer in [
        "",
        "https://gw.example",
        "https://gw.example:8443/",
        "https://evil.example:8443",
    ] {
        check(
            Claims {
                iss: issuer.to_owned(),
                ..claims()
            },
            TokenError::Issuer,
        );
    }
    for audience in [
        "", "lab", "app:", "app:la", "app:lab2", "app:lab ", "APP:LAB", "app:*", "org",
    ] {
        check(
            Claims {
                aud: vec![audience.to_owned()],
                ..claims()
            },
            TokenError::Audience,
        );
    }
    check(
        Claims {
            aud: Vec::new(),
            ..claims()
        },
        TokenError::Audience,
    );
    check(
        Claims {
            token_type: TokenType::Org,
            ..claims()
        },
        TokenError::Type,
    );
    let organisation = Claims {
        token_type: TokenType::Org,
        aud: vec!["org".to_owned()],
        ..claims()
    };
    check(organisation, TokenError::Type);

    let application = signer.token(&claims());
    let expected = Expected {
        issuer: ISSUER,
        audience: "org",
        token_type: TokenType::Org,
    };
    assert_eq!(
        verify(&signer.keys(), &application, &expected, NOW),
        Err(TokenError::Type)
    );
}

#[test]
fn times_are_judged_by_the_callers_clock_with_little_skew() {
    let signer = Signer::new();
    let token = signer.token(&claims());
    let check = |now: u64, expected: Result<(), TokenError>| {
        let verdict = verify(&signer.keys(), &token, &EXPECTED, UnixSeconds(now)).map(drop);
        assert_eq!(verdict, expected, "{now}");
    };
    let Claims { exp, nbf, .. } = claims();
    check(exp - 1, Ok(()));
    check(exp + CLOCK_SKEW_S_MAX - 1, Ok(()));
    check(exp + CLOCK_SKEW_S_MAX, Err(TokenError::Expired));
    check(u64::MAX, Err(TokenError::Expired));
    check(nbf - CLOCK_SKEW_S_MAX, Ok(()));
    check(nbf - CLOCK_SKEW_S_MAX - 1, Err(TokenError::NotYetValid));
    check(0, Err(TokenError::NotYetValid));

    let from_the_future = Claims {
        iat: NOW.0 + CLOCK_SKEW_S_MAX + 1,
        ..claims()
    };
    assert_eq!(
        verdict(&signer, &signer.token(&from_the_future)),
        Err(TokenError::NotYetValid)
    );
    let endless = Claims {
        exp: u64::MAX,
        ..claims()
    };
    assert!(verdict(&signer, &signer.token(&endless)).is_ok());
}

#[test]
fn a_statement_of_one_kind_never_passes_for_another() {
    let signer = Signer::new();
    let keys = signer.keys();
    let payload = json_of(&claims());
    let statement = signer.es256(&header_with("typ", json!("other+jws")), &payload);
    assert_eq!(
        verify_jws(&keys, "other+jws", &statement),
        Ok(payload.clone().into_bytes())
    );
    assert_eq!(verdict(&signer, &statement), Err(TokenError::Type));
    assert_eq!(
        verify_jws(&keys, "other+jws", &signer.token(&claims())),
        Err(TokenError::Type)
    );
    for typ in [json!("jwt"), json!(""), json!("at+jwt"), Value::Null] {
        let token = signer.es256(&header_with("typ", typ), &payload);
        assert_eq!(verdict(&signer, &token), Err(TokenError::Type));
    }
    let endless = "a".repeat(JWS_BYTES_MAX + 1);
    assert_eq!(
        verify_jws(&keys, "other+jws", &endless),
        Err(TokenError::Malformed)
    );
}

#[test]
fn a_set_without_keys_verifies_nothing() {
    let signer = Signer::new();
    let keys = postern_access::KeySet::default();
    let verdict = verify(&keys, &signer.token(&claims()), &EXPECTED, NOW);
    assert_eq!(verdict, Err(TokenError::UnknownKey));
}

#[test]
fn a_token_with_any_byte_changed_is_refused() {
    let signer = Signer::new();
    let keys = signer.keys();
    let token = signer.token(&claims());
    for at in 0..token.len() {
        for bit in 0..7 {
            let mut bytes = token.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let changed = String::from_utf8(bytes).expect("ASCII stays ASCII");
            assert!(
                verify(&keys, &changed, &EXPECTED, NOW).is_err(),
                "bit {bit} of byte {at}"
            );
        }
    }
}

proptest! {
    #[test]
    fn a_token_cut_grown_or_spliced_is_refused(
        at in 0_usize..400,
        remove in 0_usize..8,
        insert in "[A-Za-z0-9_.-]{0,8}",
    ) {
        let signer = Signer::new();
        let token = signer.token(&claims());
        let at = at.min(token.len());
        let end = (at + remove).min(token.len());
        let changed = format!("{}{insert}{}", &token[..at], &token[end..]);
        prop_assume!(changed != token);
        prop_assert!(verdict(&signer, &changed).is_err());
    }

    #[test]
    fn any_text_is_judged_without_a_panic(text in any::<String>()) {
        let signer = Signer::new();
        prop_assert!(verdict(&signer, &text).is_err());
    }
}
