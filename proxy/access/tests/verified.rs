//! Remembered tokens: what is spared, and everything that is judged all the same.

mod fixture;

use fixture::{ISSUER, NOW, Signer, claims, first, rules};
use postern_access::verified::VERIFIED_TOKENS_MAX;
use postern_access::{
    Action, Claims, Jwks, KeySet, Permit, RefusalKind, Rules, UnixSeconds, UpgradeRequest, Verified,
};

/// Asks for the application whose WebSocket is at `path`.
fn ask_at(
    rules: &Rules,
    verified: &mut Verified,
    path: &str,
    token: &str,
    now: UnixSeconds,
) -> Result<Permit, RefusalKind> {
    let request = UpgradeRequest {
        application: rules
            .application_at("gw.example", path)
            .expect("there is one"),
        origin: Some(ISSUER),
        token: Some(token),
        source: "192.0.2.7".parse().expect("an address"),
        country: None,
        now,
    };
    rules
        .authorize(&request, verified)
        .map_err(|refusal| refusal.kind)
}

fn ask(rules: &Rules, verified: &mut Verified, token: &str) -> Result<Permit, RefusalKind> {
    ask_at(rules, verified, "/app/lab/rdp", token, NOW)
}

/// Rules, a good token, and a cache that knows it.
fn known() -> (Signer, Rules, String, Verified) {
    let signer = Signer::new();
    let (rules, token) = (rules(&signer), signer.token(&claims()));
    let mut verified = Verified::new();
    ask(&rules, &mut verified, &token).expect("is allowed");
    assert_eq!(verified.len(), 1);
    (signer, rules, token, verified)
}

#[test]
fn a_token_that_is_known_gives_the_same_permit() {
    let (_, rules, token, mut verified) = known();
    let fresh = ask(&rules, &mut Verified::new(), &token).expect("is allowed");
    let again = ask(&rules, &mut verified, &token).expect("is allowed");
    assert_eq!(format!("{again:?}"), format!("{fresh:?}"));
    assert_eq!(verified.len(), 1);
}

#[test]
fn a_known_token_is_refused_for_everything_but_its_signature_as_ever() {
    let check = |change: &dyn Fn(&mut Rules), expected: RefusalKind| {
        let (_, mut rules, token, mut verified) = known();
        change(&mut rules);
        let refused = ask(&rules, &mut verified, &token).expect_err("is refused");
        assert_eq!(refused, expected);
    };
    check(
        &|rules| {
            let login = claims().identity_nonce;
            rules.revocations.logins.insert(login, NOW);
        },
        RefusalKind::Revoked,
    );
    check(
        &|rules| {
            rules.revocations.users.insert(claims().sub, NOW);
        },
        RefusalKind::Revoked,
    );
    check(
        &|rules| {
            rules.revocations.applications.insert("lab".to_owned(), NOW);
        },
        RefusalKind::Revoked,
    );
    check(
        &|rules| first(rules).policies[0].action = Action::Block,
        RefusalKind::PolicyBlocked,
    );
    check(
        &|rules| first(rules).policies.clear(),
        RefusalKind::PolicyNoMatch,
    );
    check(
        &|rules| rules.issuer = "https://other.example".to_owned(),
        RefusalKind::TokenIssuer,
    );
}

#[test]
fn a_known_token_expires_on_time() {
    let (_, rules, token, mut verified) = known();
    let check = |verified: &mut Verified, at: u64, expected: Option<RefusalKind>| {
        let at = UnixSeconds(at);
        let asked = ask_at(&rules, verified, "/app/lab/rdp", &token, at);
        assert_eq!(asked.err(), expected, "{at:?}");
    };
    let exp = claims().exp;
    check(&mut verified, exp - 1, None);
    check(&mut verified, exp, Some(RefusalKind::TokenExpired));
    check(&mut verified, exp + 60, Some(RefusalKind::TokenExpired));
    check(&mut verified, exp + 10_000, Some(RefusalKind::TokenExpired));
    // A clock that jumps back makes no token valid before its time.
    check(
        &mut verified,
        NOW.0 - 1_000,
        Some(RefusalKind::TokenNotYetValid),
    );
}

#[test]
fn a_known_token_opens_no_other_application() {
    let (_, rules, token, mut verified) = known();
    let other = ask_at(&rules, &mut verified, "/app/lab2/rdp", &token, NOW);
    assert_eq!(other.err(), Some(RefusalKind::TokenAudience));
}

#[test]
fn a_key_that_is_gone_takes_its_tokens_along() {
    let (signer, mut rules, token, mut verified) = known();
    let mut keys = signer.jwks().keys;
    keys.remove(0);
    rules.keys = KeySet::from_jwks(&Jwks { keys }).expect("a key set");
    let refused = ask(&rules, &mut verified, &token).expect_err("is refused");
    assert_eq!((refused, verified.len()), (RefusalKind::TokenUnknownKey, 0));
}

#[test]
fn another_key_of_the_same_name_does_not_inherit_tokens() {
    let (_, mut rules, token, mut verified) = known();
    rules.keys = Signer::new().keys();
    let refused = ask(&rules, &mut verified, &token).expect_err("is refused");
    assert_eq!((refused, verified.len()), (RefusalKind::TokenSignature, 0));
}

#[test]
fn the_same_keys_published_again_forget_nothing() {
    let (signer, mut rules, token, mut verified) = known();
    let mut keys = signer.jwks().keys;
    keys.reverse();
    rules.keys = KeySet::from_jwks(&Jwks { keys }).expect("a key set");
    // Would be verified anew, and again be the only one, had it been forgotten: so add another.
    let other = signer.token(&Claims {
        sub: "u-2".to_owned(),
        ..claims()
    });
    ask(&rules, &mut verified, &other).expect("is allowed");
    assert_eq!(verified.len(), 2);
    ask(&rules, &mut verified, &token).expect("is allowed");
    assert_eq!(verified.len(), 2);
}

#[test]
fn a_known_token_with_any_bit_flipped_is_refused() {
    let (_, rules, token, mut verified) = known();
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(flipped) = String::from_utf8(bytes) else {
            continue;
        };
        assert!(ask(&rules, &mut verified, &flipped).is_err(), "byte {at}");
    }
    assert_eq!(verified.len(), 1);
}

#[test]
fn what_is_remembered_is_bounded_and_the_oldest_goes_first() {
    let (signer, rules, token, mut verified) = known();
    let tokens: Vec<String> = (0..VERIFIED_TOKENS_MAX)
        .map(|number| {
            signer.token(&Claims {
                sub: format!("u-{number}"),
                ..claims()
            })
        })
        .collect();
    for token in &tokens {
        ask(&rules, &mut verified, token).expect("is allowed");
    }
    assert_eq!(verified.len(), VERIFIED_TOKENS_MAX);
    assert!(!verified.knows(&token) && verified.knows(&tokens[0]));
    ask(&rules, &mut verified, &token).expect("is allowed");
    assert_eq!(verified.len(), VERIFIED_TOKENS_MAX);
    assert!(verified.knows(&token) && !verified.knows(&tokens[0]));
}

#[test]
fn a_token_that_is_no_good_is_not_remembered() {
    let (signer, rules, _, _) = known();
    let mut verified = Verified::new();
    let stranger = Signer::new().token(&claims());
    let expired = signer.token(&Claims {
        exp: NOW.0 - 61,
        ..claims()
    });
    for token in [stranger.as_str(), &expired, "", "a.b.c", &"x".repeat(5_000)] {
        assert!(ask(&rules, &mut verified, token).is_err());
        assert!(verified.is_empty(), "{token}");
    }
}
