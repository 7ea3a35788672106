//! What applications and their policies have to fulfil.

use std::collections::BTreeSet;
use std::path::Path;

use postern_access::{
    Action, Application, CertificatePolicy, Fingerprint, Policy, PublicAddress, Selector,
    SessionLimits, Target,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::{Check, DURATION_S_MAX};
use crate::config::file::{ApplicationSection, CertificateRule, PolicySection};
use crate::config::origin::{Origin, host_name};

impl Check<'_> {
    pub(super) fn applications(
        &mut self,
        sections: Vec<ApplicationSection>,
        origin: &Origin,
    ) -> Vec<Application> {
        let mut names = BTreeSet::new();
        let mut hosts = BTreeSet::from([origin.host.clone()]);
        let mut applications = Vec::new();
        if sections.is_empty() {
            let doubt = "there is no application: nobody can open anything; add an [[application]]";
            self.warn("application", doubt);
        }
        for (index, section) in sections.into_iter().enumerate() {
            let key = |name: &str| format!("application[{index}].{name}");
            if let Err(error) = Application::check_name(&section.name) {
                self.problem(key("name"), error.to_string());
            }
            if !names.insert(section.name.clone()) {
                let what = format!(
                    "another application is named {:?}; choose another name",
                    section.name
                );
                self.problem(key("name"), what);
            }
            let public = self.public_address(&key("host"), &section, origin, &mut hosts);
            let title = section
                .title
                .clone()
                .unwrap_or_else(|| section.name.clone());
            self.text(&key("title"), &title);
            if section.security.is_empty() {
                self.problem(
                    key("security"),
                    "nothing could be negotiated; write [\"nla\"]",
                );
            }
            let idle = section.idle;
            applications.push(Application {
                target: self.target(&key("target"), &section.target),
                certificate: self.certificate_rule(&key("certificate"), section.certificate),
                session: SessionLimits {
                    duration_s: self.duration(
                        &key("session_duration"),
                        section.session_duration,
                        1..=DURATION_S_MAX,
                    ),
                    idle_s: self.duration(&key("idle"), idle, 0..=DURATION_S_MAX),
                },
                policies: self.policies(index, &section.name, section.policy),
                name: section.name,
                title,
                public,
                security: section.security,
            });
        }
        applications
    }

    fn public_address(
        &mut self,
        key: &str,
        section: &ApplicationSection,
        origin: &Origin,
        hosts: &mut BTreeSet<String>,
    ) -> PublicAddress {
        let Some(host) = &section.host else {
            return PublicAddress {
                origin: origin.to_string(),
                host: origin.host.clone(),
                prefix: format!("/app/{}", section.name),
            };
        };
        let host = host_name(host).unwrap_or_else(|why| {
            self.problem(key, format!("{host:?}: {why}"));
            host.clone()
        });
        if !hosts.insert(host.clone()) {
            let what =
                format!("{host} is taken; an application's own host is used by nothing else");
            self.problem(key, what);
        }
        PublicAddress {
            origin: origin.on_host(&host).to_string(),
            host,
            prefix: String::new(),
        }
    }

    fn target(&mut self, key: &str, text: &str) -> Target {
        text.parse().unwrap_or_else(|error| {
            self.problem(key, format!("{error}"));
            Target {
                host: String::new(),
                port: 0,
            }
        })
    }

    fn certificate_rule(&mut self, key: &str, rule: CertificateRule) -> CertificatePolicy {
        match rule {
            CertificateRule::FirstUse => CertificatePolicy::FirstUse,
            CertificateRule::Pin(pins) => {
                if pins.is_empty() {
                    self.problem(
                        key,
                        "no certificate could match; write at least one SHA-256",
                    );
                }
                let mut fingerprints = Vec::new();
                for (index, pin) in pins.iter().enumerate() {
                    match pin.parse::<Fingerprint>() {
                        Ok(fingerprint) => fingerprints.push(fingerprint),
                        Err(error) => {
                            self.problem(format!("{key}.pin[{index}]"), format!("{pin:?}: {error}"))
                        }
                    }
                }
                CertificatePolicy::Pin(fingerprints)
            }
            CertificateRule::CaFile(path) => {
                let path = self.path(&path);
                match roots(&path) {
                    Ok(pem) => CertificatePolicy::Ca(pem),
                    Err(why) => {
                        self.problem(format!("{key}.ca_file"), why);
                        CertificatePolicy::Ca(String::new())
                    }
                }
            }
        }
    }

    fn policies(
        &mut self,
        application: usize,
        name: &str,
        sections: Vec<PolicySection>,
    ) -> Vec<Policy> {
        let allows = sections.iter().any(|policy| policy.action == Action::Allow);
        if !allows {
            let doubt = format!("no policy allows anybody to open \"{name}\": nobody can open it");
            self.warn(format!("application[{application}].policy"), doubt);
        }
        let mut names = BTreeSet::new();
        let mut policies = Vec::new();
        for (index, section) in sections.into_iter().enumerate() {
            let key = |name: &str| format!("application[{application}].policy[{index}].{name}");
            self.text(&key("name"), &section.name);
            if !names.insert(section.name.clone()) {
                let what = format!(
                    "another policy is named {:?}; choose another name",
                    section.name
                );
                self.problem(key("name"), what);
            }
            if section.include.is_empty() {
                let what = "it would match nobody; write at least one rule, e.g. [\"everyone\"]";
                self.problem(key("include"), what);
            }
            let rules = section.include.iter().chain(&section.require);
            let mut rules = rules.chain(&section.exclude);
            if rules.any(|rule| matches!(rule, Selector::Country(_))) {
                let doubt = "this version does not know where an address is: a country never \
                             matches, so a rule that blocks one blocks nobody; use ip";
                self.warn(key("include"), doubt);
            }
            let session_duration_s = section.session_duration.map(|duration| {
                self.duration(&key("session_duration"), duration, 1..=DURATION_S_MAX)
            });
            policies.push(Policy {
                name: section.name,
                action: section.action,
                include: section.include,
                require: section.require,
                exclude: section.exclude,
                session_duration_s,
            });
        }
        policies
    }
}

/// A PEM file with at least one certificate.
fn roots(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let pem =
        std::fs::read_to_string(path).map_err(|error| format!("{shown} can't be read: {error}"))?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        certificate.map_err(|error| format!("{shown} is no PEM file: {error}"))?;
        count += 1;
    }
    if count == 0 {
        return Err(format!("{shown} holds no certificate"));
    }
    Ok(pem)
}
