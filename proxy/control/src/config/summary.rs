//! What a configuration means, in words, for `postern check`.

use std::fmt::Write as _;

use postern_access::{Action, CertificatePolicy, Duration, RdpSecurity, Selector};

use super::{CertificateSource, Config};

impl Config {
    /// A paragraph on the node, then one on every application and user.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = String::new();
        self.write_summary(&mut text).expect("a string grows");
        text
    }

    fn write_summary(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "{} at {}", self.organisation, self.origin)?;
        let listen: Vec<_> = self.listen.iter().map(ToString::to_string).collect();
        writeln!(text, "  listens on {}", listen.join(", "))?;
        match &self.certificate {
            CertificateSource::Files { chain, key } => {
                writeln!(
                    text,
                    "  certificate {}, key {}",
                    chain.display(),
                    key.display()
                )?;
            }
            CertificateSource::SelfSigned => writeln!(text, "  certificate self-signed")?,
        }
        writeln!(text, "  state in {}", self.state_directory.display())?;
        let when = if self.audit.fail_closed {
            "no session without it"
        } else {
            "sessions go on without it"
        };
        writeln!(
            text,
            "  audit in {}, {when}",
            self.audit.directory.display()
        )?;
        match self.metrics {
            Some(address) => writeln!(text, "  metrics at http://{address}/metrics")?,
            None => writeln!(text, "  no metrics")?,
        }
        writeln!(text, "  a login lasts {}", Duration(self.session_s))?;
        for application in &self.applications {
            let public = &application.public;
            writeln!(
                text,
                "\napplication \"{}\" ({})",
                application.name, application.title
            )?;
            writeln!(
                text,
                "  {}{}/ opens {}",
                public.origin, public.prefix, application.target
            )?;
            let security: Vec<_> = application
                .security
                .iter()
                .map(|security| match security {
                    RdpSecurity::Nla => "NLA",
                    RdpSecurity::Tls => "TLS",
                })
                .collect();
            let judged = match &application.certificate {
                CertificatePolicy::FirstUse => "is kept at first use",
                CertificatePolicy::Pin(_) => "is pinned",
                CertificatePolicy::Ca(_) => "leads to a given root",
            };
            writeln!(
                text,
                "  {}; its certificate {judged}",
                security.join(" or ")
            )?;
            let session = application.session;
            write!(text, "  a session lasts {}", Duration(session.duration_s))?;
            match session.idle_s {
                0 => writeln!(text)?,
                idle_s => writeln!(text, ", {} without input", Duration(idle_s))?,
            }
            for policy in &application.policies {
                let verb = match policy.action {
                    Action::Allow => "allows",
                    Action::Block => "blocks",
                };
                write!(
                    text,
                    "  \"{}\" {verb} {}",
                    policy.name,
                    rules(&policy.include, " or ")
                )?;
                if !policy.require.is_empty() {
                    write!(text, ", only with {}", rules(&policy.require, " and "))?;
                }
                if !policy.exclude.is_empty() {
                    write!(text, ", never {}", rules(&policy.exclude, " or "))?;
                }
                match policy.session_duration_s {
                    Some(seconds) => writeln!(text, ", for {}", Duration(seconds))?,
                    None => writeln!(text)?,
                }
            }
            writeln!(text, "  everybody else is refused")?;
        }
        for local in &self.users {
            let user = &local.user;
            write!(text, "\nuser \"{}\" <{}>", user.id, user.email)?;
            if !user.groups.is_empty() {
                write!(text, " in {}", user.groups.join(", "))?;
            }
        }
        writeln!(text)
    }
}

fn rules(selectors: &[Selector], joint: &str) -> String {
    let rules: Vec<_> = selectors.iter().map(ToString::to_string).collect();
    rules.join(joint)
}
