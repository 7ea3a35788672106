//! Decisions: a token's signature, and everything that is judged again without it.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, ensure};
use postern_access::token::{Expected, verify};
use postern_access::{
    Action, Application, CertificatePolicy, Claims, Jwks, KeySet, Policy, PublicAddress,
    RdpSecurity, Revocations, Rules, Selector, SessionLimits, TokenType, UnixSeconds,
    UpgradeRequest, Verified,
};
use postern_login::signing_key::SigningKey;
use ring::rand::SystemRandom;

use super::{Figure, cost_ns};

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
const ISSUER: &str = "https://gateway.example";

/// Policies of the application; the last one allows.
const POLICIES: usize = 10;

/// Applications that the rules have beside it.
const OTHER_APPLICATIONS: usize = 9;

/// An upgrade with a token whose signature was verified before.
pub(super) fn decision() -> Result<Vec<Figure>> {
    let scene = Scene::new()?;
    let request = scene.request()?;
    let mut verified = Verified::new();
    let ns = cost_ns(|| {
        let permit = scene.rules.authorize(black_box(&request), &mut verified);
        black_box(permit.map_err(|refusal| anyhow!("refused: {}", refusal.detail))?);
        Ok(())
    })?;
    ensure!(verified.len() == 1, "the token is remembered");
    Ok(vec![Figure::new("", ns / 1000.0)])
}

/// A token that is seen for the first time.
pub(super) fn token_verify() -> Result<Vec<Figure>> {
    let scene = Scene::new()?;
    let expected = Expected {
        issuer: ISSUER,
        audience: "app:lab-0",
        token_type: TokenType::App,
    };
    let ns = cost_ns(|| {
        let token = black_box(scene.token.as_str());
        black_box(verify(&scene.rules.keys, token, &expected, NOW)?);
        Ok(())
    })?;
    Ok(vec![Figure::new("", ns / 1000.0)])
}

/// Rules and a good token under them.
struct Scene {
    rules: Rules,
    token: String,
}

impl Scene {
    fn new() -> Result<Self> {
        let key = SigningKey::from_pkcs8(&SigningKey::generate(&SystemRandom::new())?)?;
        let token = key.sign(&claims())?;
        let keys = KeySet::from_jwks(&Jwks {
            keys: vec![key.public_jwk().clone()],
        })?;
        let applications = (0..=OTHER_APPLICATIONS).rev().map(application);
        let rules = Rules {
            issuer: ISSUER.to_owned(),
            version: 1,
            keys,
            applications: applications.collect::<Result<_>>()?,
            revocations: Revocations::default(),
        };
        Ok(Self { rules, token })
    }

    fn request(&self) -> Result<UpgradeRequest<'_>> {
        Ok(UpgradeRequest {
            application: self.rules.applications.last().context("there is one")?,
            origin: Some(ISSUER),
            token: Some(&self.token),
            source: IpAddr::V4(Ipv4Addr::LOCALHOST),
            country: None,
            now: NOW,
        })
    }
}

fn application(number: usize) -> Result<Arc<Application>> {
    let name = format!("lab-{number}");
    let policies = (0..POLICIES).map(|at| Policy {
        name: format!("policy {at}"),
        action: Action::Allow,
        include: vec![Selector::Group(if at + 1 == POLICIES {
            "staff".to_owned()
        } else {
            format!("group {at}")
        })],
        require: Vec::new(),
        exclude: Vec::new(),
        session_duration_s: None,
    });
    Ok(Arc::new(Application {
        title: name.clone(),
        public: PublicAddress {
            origin: ISSUER.to_owned(),
            host: "gateway.example".to_owned(),
            prefix: format!("/app/{name}"),
        },
        target: "127.0.0.1:3389".parse()?,
        certificate: CertificatePolicy::FirstUse,
        security: vec![RdpSecurity::Nla],
        policies: policies.collect(),
        session: SessionLimits {
            duration_s: 8 * 3_600,
            idle_s: 1_800,
        },
        name,
    }))
}

fn claims() -> Claims {
    Claims {
        iss: ISSUER.to_owned(),
        sub: "u-1".to_owned(),
        email: "alice@example.org".to_owned(),
        aud: vec!["app:lab-0".to_owned()],
        iat: NOW.0 - 60,
        nbf: NOW.0 - 60,
        exp: NOW.0 + 3_600,
        token_type: TokenType::App,
        identity_nonce: "nonce-1".to_owned(),
        groups: vec!["staff".to_owned()],
        amr: vec!["pwd".to_owned()],
        country: None,
        auth_time: NOW.0 - 600,
    }
}
