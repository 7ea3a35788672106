//! The compiled rules of a node, and the one decision that yields a [`Permit`].

use std::net::IpAddr;
use std::sync::Arc;

use crate::application::WEBSOCKET_PATH;
use crate::token::Expected;
use crate::{
    Application, Claims, Decision, KeySet, Permit, Revocations, Subject, TokenError, TokenType,
    UnixSeconds, Verified,
};

/// Everything an upgrade is judged by. Immutable; a new snapshot makes a new one.
#[derive(Debug, Clone)]
pub struct Rules {
    pub issuer: String,
    /// Snapshot version, carried into audit records.
    pub version: u64,
    pub keys: KeySet,
    pub applications: Vec<Arc<Application>>,
    pub revocations: Revocations,
}

/// What an upgrade request says of itself.
#[derive(Debug, Clone, Copy)]
pub struct UpgradeRequest<'a> {
    /// The application that host and path name.
    pub application: &'a Arc<Application>,
    /// The `Origin` header, exactly as sent.
    pub origin: Option<&'a str>,
    /// The application token from the cookie.
    pub token: Option<&'a str>,
    pub source: IpAddr,
    /// ISO 3166-1 alpha-2, where known.
    pub country: Option<&'a str>,
    pub now: UnixSeconds,
}

/// Why an upgrade was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub kind: RefusalKind,
    /// Full sentence fragment for the audit record, naming the rule; never a secret.
    pub detail: String,
    /// `(sub, email, identity_nonce)` once the token's signature was verified.
    pub identity: Option<(String, String, String)>,
    /// Name of the policy that decided, where one did.
    pub policy: Option<String>,
}

/// The closed set of refusals; each has one metric label and one HTTP status (in `session`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusalKind {
    OriginMissing,
    OriginMismatch,
    TokenMissing,
    TokenMalformed,
    TokenUnknownKey,
    TokenAlgorithm,
    TokenSignature,
    TokenExpired,
    TokenNotYetValid,
    TokenIssuer,
    TokenAudience,
    TokenType,
    Revoked,
    PolicyBlocked,
    PolicyNoMatch,
}

impl Refusal {
    fn new(kind: RefusalKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            identity: None,
            policy: None,
        }
    }

    /// The same, saying whose token it was.
    fn of(self, claims: &Claims) -> Self {
        let identity = (
            claims.sub.clone(),
            claims.email.clone(),
            claims.identity_nonce.clone(),
        );
        Self {
            identity: Some(identity),
            ..self
        }
    }

    fn of_decision(decision: Decision) -> Self {
        let kind = if decision.policy.is_some() {
            RefusalKind::PolicyBlocked
        } else {
            RefusalKind::PolicyNoMatch
        };
        Self {
            policy: decision.policy,
            ..Self::new(kind, decision.reason)
        }
    }
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        let kind = match error {
            TokenError::Malformed => RefusalKind::TokenMalformed,
            TokenError::UnknownKey => RefusalKind::TokenUnknownKey,
            TokenError::Algorithm => RefusalKind::TokenAlgorithm,
            TokenError::Signature => RefusalKind::TokenSignature,
            TokenError::Expired => RefusalKind::TokenExpired,
            TokenError::NotYetValid => RefusalKind::TokenNotYetValid,
            TokenError::Issuer => RefusalKind::TokenIssuer,
            TokenError::Audience => RefusalKind::TokenAudience,
            TokenError::Type => RefusalKind::TokenType,
        };
        Self::new(kind, error.to_string())
    }
}

impl Rules {
    /// The application whose WebSocket lives at `host` (without port) and `path` (without query),
    /// if any. The path is compared as it was sent: no decoding, no dots resolved.
    #[must_use]
    pub fn application_at(&self, host: &str, path: &str) -> Option<&Arc<Application>> {
        self.applications.iter().find(|application| {
            let public = &application.public;
            public.host.eq_ignore_ascii_case(host)
                && path.strip_prefix(public.prefix.as_str()) == Some(WEBSOCKET_PATH)
        })
    }

    /// Judges an upgrade: origin, token, revocation, policy, in this order. What `verified` spares is
    /// the check of a signature that held before, under the same keys.
    ///
    /// # Errors
    /// A [`Refusal`] for the first check that fails.
    pub fn authorize(
        &self,
        request: &UpgradeRequest<'_>,
        verified: &mut Verified,
    ) -> Result<Permit, Refusal> {
        let application = request.application;
        check_origin(request.origin, &application.public.origin)?;
        let token = request.token.ok_or_else(|| {
            Refusal::new(RefusalKind::TokenMissing, "the request carries no token")
        })?;
        let claims = verified.authenticate(&self.keys, token, request.now)?;
        match self.judge(application, &claims, request) {
            Ok((decision, valid_until)) => Ok(Permit {
                application: application.clone(),
                policy: decision.policy.expect("an allow names its policy"),
                reason: decision.reason,
                source: request.source.to_canonical(),
                country: request.country.map(str::to_owned),
                valid_until,
                rules_version: self.version,
                claims,
            }),
            Err(refusal) => Err(refusal.of(&claims)),
        }
    }

    /// What follows once the token's signature was verified: the decision and how long it holds.
    fn judge(
        &self,
        application: &Application,
        claims: &Claims,
        request: &UpgradeRequest<'_>,
    ) -> Result<(Decision, UnixSeconds), Refusal> {
        let expected = Expected {
            issuer: &self.issuer,
            audience: &application.audience(),
            token_type: TokenType::App,
        };
        expected.check(claims, request.now)?;
        let decision = self.decide(application, claims, request.source, request.country)?;
        let duration_s = decision
            .session_duration_s
            .unwrap_or(application.session.duration_s);
        let valid_until = request.now.plus(duration_s).min(UnixSeconds(claims.exp));
        // The skew that a token's end is forgiven does not make a session: it would end at once.
        if valid_until <= request.now {
            return Err(TokenError::Expired.into());
        }
        Ok((decision, valid_until))
    }

    /// Judges a live session again under these rules (new snapshot): the application still exists
    /// with the same target, nothing was revoked, the policy still allows, the permit has not expired.
    ///
    /// # Errors
    /// A [`Refusal`] for the first check that fails.
    pub fn recheck(&self, permit: &Permit, now: UnixSeconds) -> Result<(), Refusal> {
        self.judge_again(permit, now)
            .map_err(|refusal| refusal.of(&permit.claims))
    }

    fn judge_again(&self, permit: &Permit, now: UnixSeconds) -> Result<(), Refusal> {
        if now >= permit.valid_until {
            return Err(Refusal::new(
                RefusalKind::TokenExpired,
                "the session's time is over",
            ));
        }
        let name = &permit.application.name;
        let application = self
            .applications
            .iter()
            .find(|application| application.name == *name);
        let application = application.ok_or_else(|| {
            let detail = format!("there is no application \"{name}\" any more");
            Refusal::new(RefusalKind::PolicyNoMatch, detail)
        })?;
        if application.target != permit.application.target {
            let detail = format!("application \"{name}\" has another target now");
            return Err(Refusal::new(RefusalKind::PolicyNoMatch, detail));
        }
        self.decide(
            application,
            &permit.claims,
            permit.source,
            permit.country.as_deref(),
        )?;
        Ok(())
    }

    /// Revocation, then policy.
    fn decide(
        &self,
        application: &Application,
        claims: &Claims,
        source: IpAddr,
        country: Option<&str>,
    ) -> Result<Decision, Refusal> {
        if let Some(detail) = self.revocations.find(claims, Some(&application.name)) {
            return Err(Refusal::new(RefusalKind::Revoked, detail));
        }
        let decision = application.decide(&Subject::of(claims, source, country));
        if decision.allowed {
            Ok(decision)
        } else {
            Err(Refusal::of_decision(decision))
        }
    }
}

/// [RFC 6455 §10.2] A browser names the page's origin in every WebSocket upgrade; a page of another
/// origin must not use this browser's cookie.
fn check_origin(sent: Option<&str>, expected: &str) -> Result<(), Refusal> {
    match sent {
        Some(sent) if sent == expected => Ok(()),
        Some(_) => Err(Refusal::new(
            RefusalKind::OriginMismatch,
            format!("the origin is not {expected}"),
        )),
        None => Err(Refusal::new(
            RefusalKind::OriginMissing,
            "the request names no origin",
        )),
    }
}
