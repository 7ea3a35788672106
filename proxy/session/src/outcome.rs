//! How a connection ended, and the ONE place where that is translated for the outside world.

use postern_access::RefusalKind;
use postern_relay::{Ended, Goodbye};
use postern_wire::http1::HeadError;

/// Every way a connection can end. Each has one [`Meaning`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    // Before a request was understood.
    ConnectionsFull,
    SourceFull,
    HandshakesFull,
    HandshakeTimeout,
    HandshakeFailed,
    ClosedEarly,
    HeadTimeout,
    HeadTooLarge,
    HeadMalformed(HeadError),
    Misdirected,
    // Not a session.
    Web,
    WebUnavailable,
    // The upgrade was refused.
    UpgradeMalformed(&'static str),
    UpgradeVersion,
    Refused(RefusalKind),
    SessionsFull,
    UserSessionsFull,
    LeaseEnded,
    AuditUnavailable,
    // After the 101, before the desktop.
    RequestTimeout,
    RequestMalformed(&'static str),
    RequestTooLarge,
    RequestDestination,
    RequestSecurity,
    TargetUnresolved,
    TargetAddressDenied,
    TargetUnreachable(std::io::ErrorKind),
    TargetTimeout,
    TargetProtocol(&'static str),
    TargetStandardSecurity,
    TargetNegotiation(u32),
    TargetSecurityNotOffered,
    TargetTls(String),
    TargetCertificateChanged,
    TargetCertificateUntrusted(String),
    PinUnavailable,
    // A live session ended.
    BrowserClosed,
    BrowserLost,
    BrowserSilent,
    BrowserStalled,
    TargetClosed,
    TargetLost,
    TargetStalled,
    FrameRefused(u16, &'static str),
    Killed,
    Revoked,
    PolicyChanged,
    Expired,
    Idle,
    Draining,
    /// A mistake of ours: the connection's code panicked.
    Internal,
    #[cfg(feature = "echo")]
    Echo,
}

/// What an outcome is called and says outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meaning {
    /// Metric label and the `reason` of audit records.
    pub label: &'static str,
    /// Status of the answer when the connection is still HTTP; 0 = no answer is owed.
    pub status: u16,
    /// WebSocket close code when the connection is a WebSocket already; 0 = no close frame.
    pub close: u16,
    /// What happened and what to do, for the person at the page.
    pub sentence: &'static str,
}

const fn meaning(label: &'static str, status: u16, close: u16, sentence: &'static str) -> Meaning {
    Meaning {
        label,
        status,
        close,
        sentence,
    }
}

const TRY_AGAIN: &str = "Something interrupted the connection. Try again.";
const BROKEN_CLIENT: &str =
    "The browser sent something that the gateway does not accept. Reload the page and try again.";
const SIGN_IN: &str = "You are not signed in to this machine any more. Sign in and try again.";
const BUSY: &str = "The gateway is busy. Wait a moment and try again.";
const NOT_ALLOWED: &str =
    "You may not open this machine from here. Ask your administrator for access.";
const TARGET_BROKEN: &str =
    "The machine does not answer as a desktop should. Tell your administrator.";
const WEAK: &str = "The machine only offers an outdated, insecure kind of connection, which the gateway \
                    refuses. Ask your administrator to enable TLS or Network Level Authentication on it.";

impl Outcome {
    /// The translation. Labels are documented in `docs/reasons.md`.
    #[must_use]
    pub fn meaning(&self) -> Meaning {
        match self {
            Self::ConnectionsFull => meaning("connections_full", 0, 0, BUSY),
            Self::SourceFull => meaning("source_full", 0, 0, BUSY),
            Self::HandshakesFull => meaning("handshakes_full", 0, 0, BUSY),
            Self::HandshakeTimeout => meaning("handshake_timeout", 0, 0, TRY_AGAIN),
            Self::HandshakeFailed => meaning("handshake_failed", 0, 0, TRY_AGAIN),
            Self::ClosedEarly => meaning("closed_early", 0, 0, TRY_AGAIN),
            Self::HeadTimeout => meaning("head_timeout", 408, 0, TRY_AGAIN),
            Self::HeadTooLarge => meaning("head_too_large", 431, 0, BROKEN_CLIENT),
            Self::HeadMalformed(error) => {
                meaning("head_malformed", error.status().0, 0, BROKEN_CLIENT)
            }
            Self::Misdirected => meaning("misdirected", 421, 0, BROKEN_CLIENT),
            Self::Web => meaning("web", 0, 0, ""),
            Self::WebUnavailable => meaning(
                "web_unavailable",
                503,
                0,
                "The sign-in service is restarting. Try again in a few seconds.",
            ),
            Self::UpgradeMalformed(_) => meaning("upgrade_malformed", 400, 0, BROKEN_CLIENT),
            Self::UpgradeVersion => meaning("upgrade_version", 426, 0, BROKEN_CLIENT),
            Self::Refused(kind) => refusal(*kind),
            Self::SessionsFull => meaning("sessions_full", 503, 0, BUSY),
            Self::UserSessionsFull => meaning(
                "user_sessions_full",
                429,
                0,
                "You have too many desktops open. Close one and try again.",
            ),
            Self::LeaseEnded => meaning(
                "lease_ended",
                503,
                0,
                "The gateway can't check permissions at the moment. Try again soon, or tell your administrator.",
            ),
            Self::AuditUnavailable => meaning(
                "audit_unavailable",
                503,
                0,
                "The gateway can't keep its records at the moment and opens no desktops. Tell your administrator.",
            ),
            Self::RequestTimeout => meaning("request_timeout", 0, 4010, BROKEN_CLIENT),
            Self::RequestMalformed(_) => meaning("request_malformed", 0, 4010, BROKEN_CLIENT),
            Self::RequestTooLarge => meaning("request_too_large", 0, 4010, BROKEN_CLIENT),
            Self::RequestDestination => meaning("request_destination", 0, 4010, BROKEN_CLIENT),
            Self::RequestSecurity => meaning("request_security", 0, 4010, BROKEN_CLIENT),
            Self::TargetUnresolved => meaning(
                "target_unresolved",
                0,
                4007,
                "The machine's name is not known. Tell your administrator.",
            ),
            Self::TargetAddressDenied => meaning(
                "target_address_denied",
                0,
                4007,
                "The machine's name leads to an address that the gateway does not open. Tell your administrator.",
            ),
            Self::TargetUnreachable(_) => meaning(
                "target_unreachable",
                0,
                4007,
                "The machine can't be reached. It may be switched off: try again later, or tell your administrator.",
            ),
            Self::TargetTimeout => meaning(
                "target_timeout",
                0,
                4007,
                "The machine does not answer. It may be switched off: try again later, or tell your administrator.",
            ),
            Self::TargetProtocol(_) => meaning("target_protocol", 0, 4006, TARGET_BROKEN),
            Self::TargetStandardSecurity => meaning("target_standard_security", 0, 4009, WEAK),
            Self::TargetNegotiation(_) => meaning(
                "target_negotiation",
                0,
                4009,
                "The machine and the gateway have no kind of secure connection in common. Tell your administrator.",
            ),
            Self::TargetSecurityNotOffered => meaning("target_security_not_offered", 0, 4009, WEAK),
            Self::TargetTls(_) => meaning(
                "target_tls",
                0,
                4009,
                "The machine's encryption can't be used. Tell your administrator.",
            ),
            Self::TargetCertificateChanged => meaning(
                "target_certificate_changed",
                0,
                4008,
                "The machine shows another certificate than before, so the gateway does not trust it. \
                 Do not try again; tell your administrator.",
            ),
            Self::TargetCertificateUntrusted(_) => meaning(
                "target_certificate_untrusted",
                0,
                4008,
                "The machine's certificate is not one that the gateway trusts. Tell your administrator.",
            ),
            Self::PinUnavailable => meaning(
                "pin_unavailable",
                0,
                4007,
                "The gateway can't check the machine's certificate at the moment. Try again in a minute.",
            ),
            Self::BrowserClosed => meaning("closed_by_browser", 0, 1000, "You closed the desktop."),
            Self::BrowserLost => meaning("browser_lost", 0, 0, TRY_AGAIN),
            Self::BrowserSilent => meaning("browser_silent", 0, 0, TRY_AGAIN),
            Self::BrowserStalled => meaning("browser_stalled", 0, 0, TRY_AGAIN),
            Self::TargetClosed => {
                meaning("target_closed", 0, 1000, "The machine ended the session.")
            }
            Self::TargetLost => meaning(
                "target_lost",
                0,
                4006,
                "The connection to the machine broke. Try again.",
            ),
            Self::TargetStalled => meaning(
                "target_stalled",
                0,
                4006,
                "The machine stopped answering. Try again later.",
            ),
            Self::FrameRefused(code, label) => meaning(label, 0, *code, BROKEN_CLIENT),
            Self::Killed => meaning("killed", 0, 4000, "An administrator ended this session."),
            Self::Revoked => meaning(
                "revoked",
                0,
                4001,
                "Your access was withdrawn or you signed out elsewhere. Sign in again if you still need the machine.",
            ),
            Self::PolicyChanged => meaning(
                "policy_changed",
                0,
                4002,
                "The rules have changed and you may not use this machine any more. Ask your administrator.",
            ),
            Self::Expired => meaning(
                "expired",
                0,
                4003,
                "The session has reached its longest allowed time. Sign in again to go on.",
            ),
            Self::Idle => meaning(
                "idle",
                0,
                4004,
                "The session ended because nothing was typed or clicked for a long time. Connect again to go on.",
            ),
            Self::Draining => meaning(
                "draining",
                0,
                4005,
                "The gateway is being restarted. Connect again in a moment.",
            ),
            Self::Internal => meaning("internal_error", 0, 0, TRY_AGAIN),
            #[cfg(feature = "echo")]
            Self::Echo => meaning("echo", 0, 0, ""),
        }
    }

    /// What only the audit record says; never shown to the person at the page.
    #[must_use]
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::HeadMalformed(error) => Some(error.to_string()),
            Self::UpgradeMalformed(why)
            | Self::RequestMalformed(why)
            | Self::TargetProtocol(why) => Some((*why).to_owned()),
            Self::TargetUnreachable(kind) => Some(kind.to_string()),
            Self::TargetNegotiation(code) => Some(format!("negotiation failure code {code}")),
            Self::TargetTls(why) | Self::TargetCertificateUntrusted(why) => Some(why.clone()),
            _ => None,
        }
    }
}

impl From<&Ended> for Outcome {
    fn from(ended: &Ended) -> Self {
        match ended {
            Ended::ClientClosed => Self::BrowserClosed,
            Ended::ClientLost => Self::BrowserLost,
            Ended::ClientSilent => Self::BrowserSilent,
            Ended::ClientStalled => Self::BrowserStalled,
            Ended::TargetClosed => Self::TargetClosed,
            Ended::TargetLost => Self::TargetLost,
            Ended::TargetStalled => Self::TargetStalled,
            Ended::FrameRefused(code, label) => Self::FrameRefused(*code, label),
            Ended::Expired => Self::Expired,
            Ended::Idle => Self::Idle,
            // Whoever stops a flow knows why; a flow that stops by itself is a mistake of ours.
            Ended::Stopped => Self::Internal,
        }
    }
}

/// What a browser whose desktop ended is told.
pub(crate) fn goodbye(outcome: &Outcome) -> Goodbye {
    let meaning = outcome.meaning();
    Goodbye {
        code: meaning.close,
        reason: meaning.label,
    }
}

/// What a browser is told when its flow ends by itself.
pub(crate) fn last_words(ended: &Ended) -> Goodbye {
    goodbye(&Outcome::from(ended))
}

fn refusal(kind: RefusalKind) -> Meaning {
    match kind {
        RefusalKind::OriginMissing => meaning("origin_missing", 403, 0, BROKEN_CLIENT),
        RefusalKind::OriginMismatch => meaning("origin_mismatch", 403, 0, BROKEN_CLIENT),
        RefusalKind::TokenMissing => meaning("token_missing", 401, 0, SIGN_IN),
        RefusalKind::TokenMalformed => meaning("token_malformed", 401, 0, SIGN_IN),
        RefusalKind::TokenUnknownKey => meaning("token_unknown_key", 401, 0, SIGN_IN),
        RefusalKind::TokenAlgorithm => meaning("token_algorithm", 401, 0, SIGN_IN),
        RefusalKind::TokenSignature => meaning("token_signature", 401, 0, SIGN_IN),
        RefusalKind::TokenExpired => meaning("token_expired", 401, 0, SIGN_IN),
        RefusalKind::TokenNotYetValid => meaning("token_not_yet_valid", 401, 0, SIGN_IN),
        RefusalKind::TokenIssuer => meaning("token_issuer", 401, 0, SIGN_IN),
        RefusalKind::TokenAudience => meaning("token_audience", 403, 0, SIGN_IN),
        RefusalKind::TokenType => meaning("token_type", 403, 0, SIGN_IN),
        RefusalKind::Revoked => meaning("revoked", 401, 0, SIGN_IN),
        RefusalKind::PolicyBlocked => meaning("policy_blocked", 403, 0, NOT_ALLOWED),
        RefusalKind::PolicyNoMatch => meaning("policy_no_match", 403, 0, NOT_ALLOWED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_of_a_flow_has_its_outcome_and_its_last_words() {
        let check = |ended: Ended, label: &'static str, code: u16| {
            assert_eq!(Outcome::from(&ended).meaning().label, label);
            let words = last_words(&ended);
            assert_eq!((words.code, words.reason), (code, label));
        };
        check(Ended::ClientClosed, "closed_by_browser", 1000);
        check(Ended::ClientLost, "browser_lost", 0);
        check(Ended::ClientSilent, "browser_silent", 0);
        check(Ended::ClientStalled, "browser_stalled", 0);
        check(Ended::TargetClosed, "target_closed", 1000);
        check(Ended::TargetLost, "target_lost", 4006);
        check(Ended::TargetStalled, "target_stalled", 4006);
        check(
            Ended::FrameRefused(1009, "frame_too_long"),
            "frame_too_long",
            1009,
        );
        check(Ended::Expired, "expired", 4003);
        check(Ended::Idle, "idle", 4004);
        check(Ended::Stopped, "internal_error", 0);
    }
}
