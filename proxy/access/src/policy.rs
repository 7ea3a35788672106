//! Policies: include OR and mandatory, require AND, exclude NOT; no match denies.

use std::fmt;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Claims;
use crate::selector::Selector;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Allow,
    Block,
}

/// One policy of an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    pub name: String,
    pub action: Action,
    /// At least one must match.
    pub include: Vec<Selector>,
    /// All must match.
    pub require: Vec<Selector>,
    /// None may match.
    pub exclude: Vec<Selector>,
    /// Wins over the application's duration.
    pub session_duration_s: Option<u64>,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    pub email: &'a str,
    pub groups: &'a [String],
    pub amr: &'a [String],
    pub source: IpAddr,
    /// ISO 3166-1 alpha-2, where known; an unknown country matches no country selector.
    pub country: Option<&'a str>,
}

/// What the policies say, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    /// Name of the deciding policy; none when nothing matched.
    pub policy: Option<String>,
    /// Names the rule, e.g. `policy "staff" allows: include group "staff" matched`.
    pub reason: String,
    pub session_duration_s: Option<u64>,
}

impl<'a> Subject<'a> {
    /// The identity of verified `claims`, asking from `source`.
    #[must_use]
    pub fn of(claims: &'a Claims, source: IpAddr, country: Option<&'a str>) -> Self {
        Self {
            email: &claims.email,
            groups: &claims.groups,
            amr: &claims.amr,
            source,
            country,
        }
    }
}

/// Evaluates `policies` in order; the first that matches decides.
#[must_use]
pub fn decide(policies: &[Policy], subject: &Subject<'_>) -> Decision {
    for policy in policies {
        if let Ok(included) = policy.judge(subject) {
            return Decision {
                allowed: policy.action == Action::Allow,
                policy: Some(policy.name.clone()),
                reason: policy.explain(included),
                session_duration_s: policy.session_duration_s,
            };
        }
    }
    Decision {
        allowed: false,
        policy: None,
        reason: explain_misses(policies, subject),
        session_duration_s: None,
    }
}

/// Why nothing matched. Words are found only now: most decisions pass by policies that miss.
fn explain_misses(policies: &[Policy], subject: &Subject<'_>) -> String {
    let mut reason = "no policy matches: ".to_owned();
    for (at, policy) in policies.iter().enumerate() {
        let (separator, name) = (if at == 0 { "" } else { "; " }, &policy.name);
        if let Err(miss) = policy.judge(subject) {
            reason.push_str(&format!("{separator}policy \"{name}\": {miss}"));
        }
    }
    match policies {
        [] => "there is no policy".to_owned(),
        _ => reason,
    }
}

/// The first thing that keeps a policy from deciding.
enum Miss<'a> {
    Include,
    Require(&'a Selector),
    Exclude(&'a Selector),
}

impl fmt::Display for Miss<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Include => f.write_str("no include matched"),
            Self::Require(missed) => write!(f, "require {missed} did not match"),
            Self::Exclude(excluded) => write!(f, "exclude {excluded} matched"),
        }
    }
}

impl Policy {
    /// The include that matched, or what keeps this policy from deciding.
    fn judge(&self, subject: &Subject<'_>) -> Result<&Selector, Miss<'_>> {
        let Some(included) = self.include.iter().find(|rule| rule.matches(subject)) else {
            return Err(Miss::Include);
        };
        if let Some(missed) = self.require.iter().find(|rule| !rule.matches(subject)) {
            return Err(Miss::Require(missed));
        }
        if let Some(excluded) = self.exclude.iter().find(|rule| rule.matches(subject)) {
            return Err(Miss::Exclude(excluded));
        }
        Ok(included)
    }

    /// Why it decides as it does.
    fn explain(&self, included: &Selector) -> String {
        let verb = if self.action == Action::Allow {
            "allows"
        } else {
            "blocks"
        };
        let mut reason = format!(
            "policy \"{}\" {verb}: include {included} matched",
            self.name
        );
        for rule in &self.require {
            reason.push_str(&format!(", require {rule} matched"));
        }
        reason
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(name: &str, action: Action, include: Vec<Selector>) -> Policy {
        Policy {
            name: name.to_owned(),
            action,
            include,
            require: Vec::new(),
            exclude: Vec::new(),
            session_duration_s: None,
        }
    }

    fn group(name: &str) -> Selector {
        Selector::Group(name.to_owned())
    }

    fn net(text: &str) -> Selector {
        Selector::Ip(text.parse().expect("a network"))
    }

    /// Alice of staff and ops, by password from 10.1.2.3.
    fn decision(policies: &[Policy]) -> Decision {
        let groups = ["staff".to_owned(), "ops".to_owned()];
        let amr = ["pwd".to_owned()];
        decide(
            policies,
            &Subject {
                email: "alice@example.org",
                groups: &groups,
                amr: &amr,
                source: "10.1.2.3".parse().expect("an address"),
                country: None,
            },
        )
    }

    #[test]
    fn without_a_matching_policy_the_answer_is_no() {
        let check = |policies: &[Policy], reason: &str| {
            let decision = decision(policies);
            assert_eq!((decision.allowed, decision.policy), (false, None));
            assert_eq!(decision.reason, reason);
        };
        check(&[], "there is no policy");
        check(
            &[policy("empty", Action::Allow, vec![])],
            "no policy matches: policy \"empty\": no include matched",
        );
        check(
            &[
                Policy {
                    require: vec![group("staff"), Selector::AuthMethod("otp".to_owned())],
                    ..policy("strong", Action::Allow, vec![Selector::Everyone])
                },
                Policy {
                    exclude: vec![net("10.0.0.0/8")],
                    ..policy("outside", Action::Allow, vec![Selector::Everyone])
                },
            ],
            "no policy matches: policy \"strong\": require authentication method \"otp\" did not match; \
             policy \"outside\": exclude ip 10.0.0.0/8 matched",
        );
    }

    #[test]
    fn the_first_match_decides_and_names_its_rules() {
        let staff = Policy {
            require: vec![net("10.0.0.0/8"), group("ops")],
            session_duration_s: Some(3600),
            ..policy("staff", Action::Allow, vec![group("other"), group("staff")])
        };
        let everyone = policy("nobody", Action::Block, vec![Selector::Everyone]);

        let first = decision(&[staff.clone(), everyone.clone()]);
        assert!(first.allowed);
        assert_eq!(first.session_duration_s, Some(3600));
        assert_eq!(
            first.reason,
            "policy \"staff\" allows: include group \"staff\" matched, \
             require ip 10.0.0.0/8 matched, require group \"ops\" matched"
        );

        let second = decision(&[everyone, staff]);
        assert_eq!(
            (second.allowed, second.policy.as_deref()),
            (false, Some("nobody"))
        );
        assert_eq!(
            second.reason,
            "policy \"nobody\" blocks: include everyone matched"
        );
    }

    fn selector() -> impl Strategy<Value = Selector> {
        prop_oneof![
            Just(Selector::Everyone),
            "[ab]@[cd]\\.example".prop_map(Selector::Email),
            "[cd]\\.example".prop_map(Selector::EmailDomain),
            "[xyz]".prop_map(Selector::Group),
            prop_oneof![
                Just("10.0.0.0/8"),
                Just("10.1.0.0/16"),
                Just("::/0"),
                Just("fd00::/8")
            ]
            .prop_map(net),
            "(DE|FR)".prop_map(Selector::Country),
            "(pwd|otp)".prop_map(Selector::AuthMethod),
        ]
    }

    fn policies() -> impl Strategy<Value = Vec<Policy>> {
        let rules = || proptest::collection::vec(selector(), 0..4);
        let one = (
            "[p-s]",
            any::<bool>(),
            rules(),
            rules(),
            rules(),
            any::<Option<u64>>(),
        );
        let one = one.prop_map(
            |(name, allow, include, require, exclude, session_duration_s)| Policy {
                action: if allow { Action::Allow } else { Action::Block },
                name,
                include,
                require,
                exclude,
                session_duration_s,
            },
        );
        proptest::collection::vec(one, 0..6)
    }

    proptest! {
        #[test]
        fn a_policy_decides_only_if_included_required_and_not_excluded(
            policies in policies(),
            email in "[ab]@[cd]\\.example",
            groups in proptest::collection::vec("[xyz]", 0..3),
            amr in proptest::collection::vec("(pwd|otp)", 0..2),
            v4 in any::<bool>(),
            country in proptest::option::of("(DE|FR)"),
        ) {
            let source = if v4 { "::ffff:10.1.0.1" } else { "fd00::1" };
            let subject = Subject {
                email: &email,
                groups: &groups,
                amr: &amr,
                source: source.parse().expect("an address"),
                country: country.as_deref(),
            };
            let matches = |rule: &Selector| rule.matches(&subject);
            let expected = policies.iter().find(|policy| {
                policy.include.iter().any(matches)
                    && policy.require.iter().all(matches)
                    && !policy.exclude.iter().any(matches)
            });
            let decision = decide(&policies, &subject);
            prop_assert_eq!(decision.policy.as_deref(), expected.map(|policy| policy.name.as_str()));
            prop_assert_eq!(
                decision.allowed,
                expected.is_some_and(|policy| policy.action == Action::Allow)
            );
            let duration_s = expected.and_then(|policy| policy.session_duration_s);
            prop_assert_eq!(decision.session_duration_s, duration_s);
        }
    }
}
