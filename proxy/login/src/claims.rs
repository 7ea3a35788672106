//! What a login puts into tokens.

use postern_access::token::ORGANISATION_AUDIENCE;
use postern_access::{Application, Claims, TokenType, UnixSeconds};

/// [RFC 8176] The authentication method of a local user.
pub const AMR_PASSWORD: &str = "pwd";

/// A user as the directory knows them now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Stable id, the token's `sub`.
    pub id: String,
    pub email: String,
    pub groups: Vec<String>,
}

/// One login: what stays the same in every token that descends from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Random id, 32 hex digits.
    pub identity_nonce: String,
    /// When the user proved who they are.
    pub auth_time: UnixSeconds,
    /// Authentication methods [RFC 8176].
    pub amr: Vec<String>,
    /// ISO 3166-1 alpha-2, where known.
    pub country: Option<String>,
}

impl Login {
    /// A login by password, now; `random` becomes its id.
    #[must_use]
    pub fn by_password(random: &[u8; 16], country: Option<&str>, now: UnixSeconds) -> Self {
        Self {
            identity_nonce: hex(random),
            auth_time: now,
            amr: vec![AMR_PASSWORD.to_owned()],
            country: country.map(str::to_owned),
        }
    }

    /// The login that a verified token descends from.
    #[must_use]
    pub fn of(claims: &Claims) -> Self {
        Self {
            identity_nonce: claims.identity_nonce.clone(),
            auth_time: UnixSeconds(claims.auth_time),
            amr: claims.amr.clone(),
            country: claims.country.clone(),
        }
    }

    /// Claims of the organisation token.
    #[must_use]
    pub fn organisation_claims(
        &self,
        issuer: &str,
        user: &User,
        duration_s: u64,
        now: UnixSeconds,
    ) -> Claims {
        self.claims(
            issuer,
            user,
            TokenType::Org,
            ORGANISATION_AUDIENCE.to_owned(),
            duration_s,
            now,
        )
    }

    /// Claims of an application token. The policy must have allowed; `duration_s` is its duration
    /// or else the application's. The user is read again from the directory, so that a change of
    /// groups counts at the next issue.
    #[must_use]
    pub fn application_claims(
        &self,
        issuer: &str,
        user: &User,
        application: &Application,
        duration_s: u64,
        now: UnixSeconds,
    ) -> Claims {
        self.claims(
            issuer,
            user,
            TokenType::App,
            application.audience(),
            duration_s,
            now,
        )
    }

    fn claims(
        &self,
        issuer: &str,
        user: &User,
        token_type: TokenType,
        audience: String,
        duration_s: u64,
        now: UnixSeconds,
    ) -> Claims {
        Claims {
            iss: issuer.to_owned(),
            sub: user.id.clone(),
            email: user.email.clone(),
            aud: vec![audience],
            iat: now.0,
            nbf: now.0,
            exp: now.plus(duration_s).0,
            token_type,
            identity_nonce: self.identity_nonce.clone(),
            groups: user.groups.clone(),
            amr: self.amr.clone(),
            country: self.country.clone(),
            auth_time: self.auth_time.0,
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    fn alice(groups: &[&str]) -> User {
        User {
            id: "u-1".to_owned(),
            email: "alice@example.org".to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        }
    }

    #[test]
    fn an_organisation_token_says_who_logged_in_how_and_when() {
        let login = Login::by_password(&[0x0f; 16], Some("DE"), NOW);
        let claims = login.organisation_claims("https://gw.example", &alice(&["staff"]), 900, NOW);
        let json = serde_json::to_value(&claims).expect("encodes");
        assert_eq!(
            json,
            serde_json::json!({
                "iss": "https://gw.example", "sub": "u-1", "email": "alice@example.org",
                "aud": ["org"], "type": "org",
                "iat": NOW.0, "nbf": NOW.0, "exp": NOW.0 + 900, "auth_time": NOW.0,
                "identity_nonce": "0f".repeat(16),
                "groups": ["staff"], "amr": ["pwd"], "country": "DE",
            })
        );
    }

    #[test]
    fn an_application_token_descends_from_the_login_and_has_todays_groups() {
        let application = crate::next::tests::application("lab", "gw.example", "/app/lab");
        let login = Login::by_password(&[1; 16], None, NOW);
        let organisation = login.organisation_claims("i", &alice(&["staff"]), 900, NOW);
        assert_eq!(Login::of(&organisation), login);

        let later = NOW.plus(60);
        let claims =
            Login::of(&organisation).application_claims("i", &alice(&[]), &application, 30, later);
        assert_eq!(claims.aud, ["app:lab"]);
        assert_eq!(claims.token_type, TokenType::App);
        assert_eq!((claims.iat, claims.exp), (later.0, later.0 + 30));
        assert_eq!(claims.auth_time, NOW.0);
        assert_eq!(claims.identity_nonce, organisation.identity_nonce);
        assert!(claims.groups.is_empty());
    }

    #[test]
    fn a_duration_without_end_does_not_wrap() {
        let login = Login::by_password(&[1; 16], None, NOW);
        assert_eq!(
            login
                .organisation_claims("i", &alice(&[]), u64::MAX, NOW)
                .exp,
            u64::MAX
        );
    }
}
