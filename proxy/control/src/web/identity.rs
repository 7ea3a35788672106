//! Who is signed in, what the policy says, and fresh application tokens.

use axum::response::Response;
use postern_access::token::{Expected, ORGANISATION_AUDIENCE, verify};
use postern_access::{Application, Claims, Decision, Subject, TokenType, UnixSeconds};
use postern_audit::Event;
use postern_login::{Login, User, cookie};

use super::pages;
use super::visit::Visit;
use crate::site::record;

/// A login whose user the directory still knows.
pub(super) struct SignedIn {
    /// As the directory has them now.
    pub(super) user: User,
    pub(super) login: Login,
    /// When the token that said so ends.
    pub(super) expires_at: UnixSeconds,
}

impl Visit {
    /// By the organisation's cookie.
    pub(super) fn organisation_login(&self) -> Option<SignedIn> {
        let token = self.cookie(cookie::ORGANISATION)?;
        let claims = self.verified(token, ORGANISATION_AUDIENCE, TokenType::Org)?;
        self.signed_in(&claims, None)
    }

    /// By an application's cookie.
    pub(super) fn application_login(&self, application: &Application) -> Option<SignedIn> {
        let token = self.cookie(cookie::APPLICATION)?;
        let claims = self.verified(token, &application.audience(), TokenType::App)?;
        self.signed_in(&claims, Some(&application.name))
    }

    fn verified(&self, token: &str, audience: &str, token_type: TokenType) -> Option<Claims> {
        let expected = Expected {
            issuer: &self.current.config.origin,
            audience,
            token_type,
        };
        verify(&self.current.keys.set, token, &expected, self.now).ok()
    }

    fn signed_in(&self, claims: &Claims, application: Option<&str>) -> Option<SignedIn> {
        if self.current.revocations.find(claims, application).is_some() {
            return None;
        }
        let user = self.current.config.user(&claims.sub)?;
        Some(SignedIn {
            user: user.clone(),
            login: Login::of(claims),
            expires_at: UnixSeconds(claims.exp),
        })
    }

    /// True while the login itself lasts, whatever tokens descend from it.
    pub(super) fn lasts(&self, login: &Login) -> bool {
        self.now < login.auth_time.plus(self.current.config.session_s)
    }

    /// What the application's policies say of this user, from here, now.
    pub(super) fn decide(&self, application: &Application, who: &SignedIn) -> Decision {
        application.decide(&Subject {
            email: &who.user.email,
            groups: &who.user.groups,
            amr: &who.login.amr,
            source: self.source.ip(),
            country: who.login.country.as_deref(),
        })
    }

    /// Asks the policy and, when it allows, sets a fresh application cookie on `allowed`.
    ///
    /// # Errors
    /// The answer to give instead.
    pub(super) async fn admit(
        &self,
        application: &Application,
        who: &SignedIn,
        mut allowed: Response,
    ) -> Result<Response, Response> {
        let decision = self.decide(application, who);
        if !decision.allowed {
            let mut record = record(Event::Decision, "block");
            record.user = Some(who.user.email.clone());
            record.application = Some(application.name.clone());
            record.rules_version = Some(self.current.snapshot.version);
            record.reason = Some(if decision.policy.is_some() {
                "policy_blocked".to_owned()
            } else {
                "policy_no_match".to_owned()
            });
            record.policy.clone_from(&decision.policy);
            record.detail = Some(decision.reason.clone());
            record.source = Some(self.source.to_string());
            // A loss is logged and counted; the answer is no in any case.
            let _ = self.site.record(record).await;
            return Err(pages::not_allowed(
                self,
                &application.title,
                &decision.reason,
            ));
        }
        let of_application = application.session.duration_s;
        let duration_s = decision.session_duration_s.unwrap_or(of_application);
        let claims = who.login.application_claims(
            &self.current.config.origin,
            &who.user,
            application,
            duration_s,
            self.now,
        );
        match self.current.keys.signing.sign(&claims) {
            Ok(token) => {
                let prefix = &application.public.prefix;
                let cookie = cookie::set_application(prefix, &token, duration_s);
                pages::set_cookie(&mut allowed, &cookie);
                Ok(allowed)
            }
            Err(error) => {
                tracing::error!(%error, user = who.user.id, "no token can be made");
                Err(pages::unavailable(self))
            }
        }
    }
}
