//! Upgrades: who gets a permit, who does not, and what ends one.

mod fixture;

use std::sync::Arc;

use fixture::{NOW, Signer, application, claims, first, policy, rules};
use postern_access::{
    Action, Application, Claims, Permit, PublicAddress, Refusal, RefusalKind, Rules, Selector,
    TokenType, UnixSeconds, UpgradeRequest, Verified,
};

/// Asks for `lab` with the good origin.
fn ask(rules: &Rules, token: Option<&str>) -> Result<Permit, Refusal> {
    ask_from(rules, Some("https://gw.example:8443"), token)
}

fn ask_from(rules: &Rules, origin: Option<&str>, token: Option<&str>) -> Result<Permit, Refusal> {
    let request = UpgradeRequest {
        application: rules
            .application_at("gw.example", "/app/lab/rdp")
            .expect("lab"),
        origin,
        token,
        source: "::ffff:192.0.2.7".parse().expect("an address"),
        country: Some("DE"),
        now: NOW,
    };
    rules.authorize(&request, &mut Verified::new())
}

fn refusal(result: Result<Permit, Refusal>) -> Refusal {
    result.expect_err("is refused")
}

#[test]
fn a_good_upgrade_yields_a_permit_that_explains_itself() {
    let signer = Signer::new();
    let rules = rules(&signer);
    let permit = ask(&rules, Some(&signer.token(&claims()))).expect("a permit");
    assert_eq!(permit.application(), &*rules.applications[0]);
    assert_eq!(permit.claims(), &claims());
    assert_eq!(permit.policy(), "staff");
    assert_eq!(
        permit.reason(),
        r#"policy "staff" allows: include group "staff" matched"#
    );
    assert_eq!(permit.source().to_string(), "192.0.2.7");
    assert_eq!(permit.country(), Some("DE"));
    assert_eq!(permit.rules_version(), 7);
}

#[test]
fn an_application_is_found_by_host_and_exact_path() {
    let signer = Signer::new();
    let mut rules = rules(&signer);
    let own_host = PublicAddress {
        origin: "https://own.gw.example".to_owned(),
        host: "own.gw.example".to_owned(),
        prefix: String::new(),
    };
    rules.applications.push(Arc::new(Application {
        public: own_host,
        ..application("own")
    }));
    let check = |host: &str, path: &str, expected: Option<&str>| {
        let found = rules
            .application_at(host, path)
            .map(|found| found.name.as_str());
        assert_eq!(found, expected, "{host} {path}");
    };
    check("gw.example", "/app/lab/rdp", Some("lab"));
    check("GW.Example", "/app/lab2/rdp", Some("lab2"));
    check("own.gw.example", "/rdp", Some("own"));
    check("own.gw.example", "/app/own/rdp", None);
    check("own.gw.example", "/app/lab/rdp", None);
    check("gw.example", "/rdp", None);
    check("gw.example.", "/app/lab/rdp", None);
    check("evil.gw.example", "/app/lab/rdp", None);
    check("", "/app/lab/rdp", None);
    for path in [
        "",
        "/",
        "/app/lab",
        "/app/lab/",
        "/app/lab/rdp/",
        "/app/lab/rdp?x",
        "/app/lab//rdp",
        "//app/lab/rdp",
        "/app/LAB/rdp",
        "/app/lab/%72dp",
        "/app/lab2/../lab/rdp",
        "/app/other/rdp",
        "/app/lab/rdp/../rdp",
        "app/lab/rdp",
    ] {
        check("gw.example", path, None);
    }
}

#[test]
fn only_the_exact_origin_is_taken() {
    let signer = Signer::new();
    let rules = rules(&signer);
    let token = signer.token(&claims());
    let missing = refusal(ask_from(&rules, None, Some(&token)));
    assert_eq!(
        (missing.kind, missing.identity),
        (RefusalKind::OriginMissing, None)
    );
    for origin in [
        "",
        "null",
        "*",
        "https://gw.example",
        "https://gw.example:443",
        "https://gw.example:8443/",
        "http://gw.example:8443",
        "https://GW.example:8443",
        "HTTPS://gw.example:8443",
        "https://gw.example:84430",
        "https://gw.example:8443.evil.example",
        "https://evil.example",
        "https://evilgw.example:8443",
        "https://gw.example:8443@evil.example",
        "https://evil.example/https://gw.example:8443",
        "https://gw.example.evil.example:8443",
        "https://gw.example:8443, https://evil.example",
        " https://gw.example:8443",
        "https://gw.example:8443\0",
        "https://gw.example:8443#",
        "https://gw.example.:8443",
    ] {
        let refusal = refusal(ask_from(&rules, Some(origin), Some(&token)));
        assert_eq!(refusal.kind, RefusalKind::OriginMismatch, "{origin:?}");
        assert_eq!(refusal.identity, None, "the token was not looked at");
    }
}

#[test]
fn a_bad_token_is_refused_by_its_reason() {
    let signer = Signer::new();
    let rules = rules(&signer);
    assert_eq!(refusal(ask(&rules, None)).kind, RefusalKind::TokenMissing);
    assert_eq!(
        refusal(ask(&rules, Some(""))).kind,
        RefusalKind::TokenMalformed
    );
    let forged = refusal(ask(&rules, Some(&Signer::new().token(&claims()))));
    assert_eq!(
        (forged.kind, forged.identity),
        (RefusalKind::TokenSignature, None)
    );

    let check = |claims: Claims, kind: RefusalKind| {
        let refusal = refusal(ask(&rules, Some(&signer.token(&claims))));
        let known = (claims.sub, claims.email, claims.identity_nonce);
        assert_eq!((refusal.kind, refusal.identity), (kind, Some(known)));
        assert_eq!(refusal.policy, None);
    };
    let aud = |audience: &str| vec![audience.to_owned()];
    check(
        Claims {
            aud: aud("app:lab2"),
            ..claims()
        },
        RefusalKind::TokenAudience,
    );
    check(
        Claims {
            aud: aud("org"),
            token_type: TokenType::Org,
            ..claims()
        },
        RefusalKind::TokenType,
    );
    check(
        Claims {
            iss: "https://evil.example".to_owned(),
            ..claims()
        },
        RefusalKind::TokenIssuer,
    );
    check(
        Claims {
            exp: NOW.0 - 600,
            ..claims()
        },
        RefusalKind::TokenExpired,
    );
    check(
        Claims {
            nbf: NOW.0 + 600,
            ..claims()
        },
        RefusalKind::TokenNotYetValid,
    );
    // Within the skew a token may still be shown, but a session would be over as it began.
    check(
        Claims {
            exp: NOW.0,
            ..claims()
        },
        RefusalKind::TokenExpired,
    );
}

#[test]
fn a_permit_ends_with_the_token_or_the_duration_whichever_is_first() {
    let signer = Signer::new();
    let mut rules = rules(&signer);
    let mut check = |policy_s: Option<u64>, application_s: u64, token_s: u64, expected_s: u64| {
        first(&mut rules).policies[0].session_duration_s = policy_s;
        first(&mut rules).session.duration_s = application_s;
        let token = signer.token(&Claims {
            exp: NOW.0 + token_s,
            ..claims()
        });
        let permit = ask(&rules, Some(&token)).expect("a permit");
        assert_eq!(permit.valid_until(), NOW.plus(expected_s));
    };
    check(None, 100, 200, 100);
    check(None, 200, 100, 100);
    check(Some(50), 100, 200, 50);
    check(Some(150), 100, 200, 150);
    check(Some(u64::MAX), 100, 200, 200);

    first(&mut rules).policies[0].session_duration_s = Some(0);
    let refusal = refusal(ask(&rules, Some(&signer.token(&claims()))));
    assert_eq!(refusal.kind, RefusalKind::TokenExpired);
}

#[test]
fn policy_refusals_name_the_policy_and_the_application() {
    let signer = Signer::new();
    let mut rules = rules(&signer);
    let token = signer.token(&Claims {
        groups: vec!["guests".to_owned()],
        ..claims()
    });
    let none = refusal(ask(&rules, Some(&token)));
    assert_eq!((none.kind, none.policy), (RefusalKind::PolicyNoMatch, None));
    assert_eq!(
        none.detail,
        r#"no policy of application "lab" matches: policy "staff": no include matched"#
    );
    assert!(none.identity.is_some());

    let net = Selector::Ip("192.0.2.0/24".parse().expect("a network"));
    first(&mut rules)
        .policies
        .insert(0, policy("outside", Action::Block, net));
    let blocked = refusal(ask(&rules, Some(&signer.token(&claims()))));
    assert_eq!(blocked.kind, RefusalKind::PolicyBlocked);
    assert_eq!(blocked.policy.as_deref(), Some("outside"));
    assert_eq!(
        blocked.detail,
        r#"policy "outside" blocks: include ip 192.0.2.0/24 matched"#
    );

    first(&mut rules).policies.clear();
    let empty = refusal(ask(&rules, Some(&signer.token(&claims()))));
    assert_eq!(empty.detail, r#"there is no policy of application "lab""#);
}

/// Revokes one thing at `since` and asks with the good token, live and anew.
fn check_revocation(revoke: impl Fn(&mut Rules, UnixSeconds), since: u64, revoked: bool) {
    let signer = Signer::new();
    let mut rules = rules(&signer);
    let token = signer.token(&claims());
    let permit = ask(&rules, Some(&token)).expect("a permit");
    revoke(&mut rules, UnixSeconds(since));
    let expected = revoked.then_some(RefusalKind::Revoked);
    let anew = ask(&rules, Some(&token)).err().map(|refusal| refusal.kind);
    let live = rules
        .recheck(&permit, NOW)
        .err()
        .map(|refusal| refusal.kind);
    assert_eq!((anew, live), (expected, expected), "at {since}");
}

#[test]
fn a_revocation_voids_what_was_issued_before_it_and_nothing_else() {
    let Claims { iat, auth_time, .. } = claims();
    let of_user = |name: &'static str| {
        move |rules: &mut Rules, at| {
            rules.revocations.users.insert(name.to_owned(), at);
        }
    };
    check_revocation(of_user("u-1"), NOW.0, true);
    check_revocation(of_user("u-1"), auth_time, true);
    check_revocation(of_user("u-1"), auth_time - 1, false);
    check_revocation(of_user("u-2"), NOW.0, false);

    let of_login = |nonce: &'static str| {
        move |rules: &mut Rules, at| {
            rules.revocations.logins.insert(nonce.to_owned(), at);
        }
    };
    // The token is younger than the logout, as one is that was being issued when it came.
    check_revocation(of_login("nonce-1"), iat - 1, true);
    check_revocation(of_login("nonce-2"), NOW.0, false);

    let of_application = |name: &'static str| {
        move |rules: &mut Rules, at| {
            rules.revocations.applications.insert(name.to_owned(), at);
        }
    };
    check_revocation(of_application("lab"), iat, true);
    check_revocation(of_application("lab"), iat - 1, false);
    check_revocation(of_application("lab2"), NOW.0, false);
}

#[test]
fn revocations_are_kept_as_long_as_a_token_could_live() {
    let mut revocations = postern_access::Revocations::default();
    revocations.users.insert("u-1".to_owned(), NOW);
    revocations.prune(3_600, NOW.plus(3_600));
    assert_eq!(revocations.users.len(), 1);
    revocations.prune(3_600, NOW.plus(3_600 + 120));
    assert_eq!(revocations, postern_access::Revocations::default());
}

#[test]
fn a_live_session_ends_when_the_rules_no_longer_carry_it() {
    let signer = Signer::new();
    let token = signer.token(&claims());
    let permit = ask(&rules(&signer), Some(&token)).expect("a permit");
    assert_eq!(rules(&signer).recheck(&permit, NOW), Ok(()));

    let check = |change: &dyn Fn(&mut Rules), now: UnixSeconds, kind: RefusalKind, words: &str| {
        let mut rules = rules(&signer);
        change(&mut rules);
        let refusal = rules.recheck(&permit, now).expect_err("ends");
        assert_eq!(refusal.kind, kind);
        assert!(refusal.detail.contains(words), "{}", refusal.detail);
        assert!(refusal.identity.is_some());
    };
    let same: &dyn Fn(&mut Rules) = &|_| {};
    check(
        same,
        permit.valid_until(),
        RefusalKind::TokenExpired,
        "over",
    );
    let gone: &dyn Fn(&mut Rules) = &|rules| drop(rules.applications.remove(0));
    check(
        gone,
        NOW,
        RefusalKind::PolicyNoMatch,
        r#"no application "lab""#,
    );
    let moved: &dyn Fn(&mut Rules) = &|rules| first(rules).target.port = 3390;
    check(moved, NOW, RefusalKind::PolicyNoMatch, "another target");
    let closed: &dyn Fn(&mut Rules) = &|rules| first(rules).policies.clear();
    check(closed, NOW, RefusalKind::PolicyNoMatch, "no policy");
    let blocked: &dyn Fn(&mut Rules) = &|rules| first(rules).policies[0].action = Action::Block;
    check(
        blocked,
        NOW,
        RefusalKind::PolicyBlocked,
        r#"policy "staff" blocks"#,
    );
}

#[test]
fn a_live_session_is_judged_by_where_it_came_from() {
    let signer = Signer::new();
    let mut rules = rules(&signer);
    let country = policy("home", Action::Allow, Selector::Country("DE".to_owned()));
    first(&mut rules).policies = vec![country];
    let permit = ask(&rules, Some(&signer.token(&claims()))).expect("a permit");
    assert_eq!(rules.recheck(&permit, NOW), Ok(()));
    first(&mut rules).policies[0].exclude =
        vec![Selector::Ip("192.0.2.7/32".parse().expect("a network"))];
    let refusal = rules.recheck(&permit, NOW).expect_err("ends");
    assert_eq!(refusal.kind, RefusalKind::PolicyNoMatch);
}
