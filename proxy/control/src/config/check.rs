//! What a configuration has to fulfil beyond its form; every mistake is found, not only the first.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use postern_access::{
    Action, Application, CertificatePolicy, Duration, Fingerprint, Policy, PublicAddress,
    SessionLimits, Target,
};
use postern_login::{PasswordHash, User};
use postern_snapshot::Limits;
use postern_snapshot::message::AuditSettings;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::file::{
    ApplicationSection, CertificateRule, CertificateSection, ConfigFile, PolicySection,
    UserSection, WhenUnwritable,
};
use super::origin::{Origin, host_name};
use super::problem::Problem;
use super::{CertificateSource, Config, LocalUser, secret_file};

const LOGIN_S_MIN: u64 = 15 * 60;
const DURATION_S_MAX: u64 = 31 * 24 * 60 * 60;

/// Longest text that pages show: a title, a name.
const TEXT_CHARS_MAX: usize = 200;

/// Longest name of a user: what the login form takes.
pub(crate) const USER_BYTES_MAX: usize = 256;

/// A configuration and what was found; it holds when there is no problem.
pub(super) struct Checked {
    pub(super) config: Config,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

/// Collects what is wrong.
struct Check<'a> {
    folder: &'a Path,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

pub(super) fn check(path: &Path, file: ConfigFile) -> Checked {
    let mut check = Check {
        folder: path.parent().unwrap_or(Path::new(".")),
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    let origin = check.public_url(&file.organisation.public_url);
    check.text("organisation.name", &file.organisation.name);
    let state_directory = check.path(&file.state.directory);
    let audit_directory = match &file.audit.directory {
        Some(directory) => check.path(directory),
        None => state_directory.join("audit"),
    };
    let config = Config {
        path: path.to_owned(),
        organisation: file.organisation.name,
        origin: origin.to_string(),
        host: origin.host.clone(),
        listen: check.addresses(&file.listen.addresses),
        cores: check.cores(file.listen.cores),
        certificate: check.certificate(&file.certificate),
        state_directory,
        audit: AuditSettings {
            directory: audit_directory,
            fail_closed: file.audit.when_unwritable == WhenUnwritable::Refuse,
        },
        metrics: check.metrics(&file.metrics.listen),
        session_s: check.duration(
            "session.duration",
            file.session.duration,
            LOGIN_S_MIN..=DURATION_S_MAX,
        ),
        applications: check.applications(file.application, &origin),
        users: check.users(file.user),
        limits: check.limits(file.limits),
    };
    Checked {
        config,
        problems: check.problems,
        warnings: check.warnings,
    }
}

impl Check<'_> {
    fn problem(&mut self, key: impl Into<String>, what: impl Into<String>) {
        self.problems.push(Problem::new(key, what));
    }

    fn warn(&mut self, key: impl Into<String>, what: impl Into<String>) {
        self.warnings.push(Problem::new(key, what));
    }

    fn path(&self, path: &Path) -> PathBuf {
        let path = self.folder.join(path);
        // Sockets and chains are opened after the working folder may have changed.
        std::path::absolute(&path).unwrap_or(path)
    }

    fn public_url(&mut self, text: &str) -> Origin {
        Origin::parse(text).unwrap_or_else(|why| {
            self.problem("organisation.public_url", why);
            Origin {
                host: "invalid".to_owned(),
                port: None,
            }
        })
    }

    fn text(&mut self, key: &str, text: &str) {
        let chars = text.chars().count();
        if text.trim().is_empty() || chars > TEXT_CHARS_MAX || text.chars().any(char::is_control) {
            self.problem(
                key,
                format!("write 1 to {TEXT_CHARS_MAX} characters in one line"),
            );
        }
    }

    fn addresses(&mut self, texts: &[String]) -> Vec<SocketAddr> {
        if texts.is_empty() {
            self.problem(
                "listen.addresses",
                "there is no address to listen on; write for example [\"0.0.0.0:443\"]",
            );
        }
        let mut addresses = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let key = format!("listen.addresses[{index}]");
            match text.parse::<SocketAddr>() {
                Ok(address) if addresses.contains(&address) => {
                    self.problem(key, format!("{text} is there twice; remove one"));
                }
                Ok(address) if address.port() == 0 => {
                    self.problem(key, "port 0 is any port; write the one that browsers use");
                }
                Ok(address) => addresses.push(address),
                Err(_) => self.problem(
                    key,
                    format!(
                        "{text:?} is no address and port; write \"0.0.0.0:443\" or \"[::]:443\""
                    ),
                ),
            }
        }
        addresses
    }

    fn cores(&mut self, cores: Vec<usize>) -> Vec<usize> {
        let unique: BTreeSet<_> = cores.iter().collect();
        if unique.len() != cores.len() {
            self.problem("listen.cores", "a core is there twice; remove one");
        }
        cores
    }

    fn certificate(&mut self, section: &CertificateSection) -> CertificateSource {
        match (&section.chain_file, &section.key_file, section.self_signed) {
            (Some(chain), Some(key), false) => {
                let (chain, key) = (self.path(chain), self.path(key));
                let readable = std::fs::read(&chain);
                if let Err(error) = readable {
                    let what = format!("{} can't be read: {error}", chain.display());
                    self.problem("certificate.chain_file", what);
                }
                if let Err(why) = secret_file::read(&key) {
                    self.problem("certificate.key_file", why);
                }
                CertificateSource::Files { chain, key }
            }
            (None, None, true) => {
                let doubt = "browsers warn of a self-signed certificate; use files of a real one";
                self.warn("certificate.self_signed", doubt);
                CertificateSource::SelfSigned
            }
            _ => {
                let what = "write chain_file and key_file, or self_signed = true, not both";
                self.problem("certificate", what);
                CertificateSource::SelfSigned
            }
        }
    }

    fn metrics(&mut self, text: &str) -> Option<SocketAddr> {
        if text == "off" {
            return None;
        }
        match text.parse::<SocketAddr>() {
            Ok(address) => {
                if !address.ip().to_canonical().is_loopback() {
                    let doubt = "everybody who reaches this address can read the measurements; \
                                 use 127.0.0.1, or guard the port";
                    self.warn("metrics.listen", doubt);
                }
                Some(address)
            }
            Err(_) => {
                let what =
                    format!("{text:?} is no address and port; write \"127.0.0.1:9300\" or \"off\"");
                self.problem("metrics.listen", what);
                None
            }
        }
    }

    fn duration(
        &mut self,
        key: &str,
        duration: Duration,
        bounds: std::ops::RangeInclusive<u64>,
    ) -> u64 {
        if !bounds.contains(&duration.seconds()) {
            let (min, max) = (Duration(*bounds.start()), Duration(*bounds.end()));
            let what = format!("{duration} is out of bounds; write {min} to {max}");
            self.problem(key, what);
        }
        duration.seconds()
    }

    fn limits(&mut self, limits: Limits) -> Limits {
        let fields = serde_json::to_value(limits).expect("limits are numbers");
        for (key, value) in fields.as_object().into_iter().flatten() {
            if value.as_u64() == Some(0) {
                self.problem(
                    format!("limits.{key}"),
                    "0 would refuse everybody; write more",
                );
            }
        }
        if limits.head_bytes_max > 64 * 1024 {
            self.problem("limits.head_bytes_max", "write at most 65536");
        }
        if limits.cleanpath_bytes_max > 64 * 1024 {
            self.problem("limits.cleanpath_bytes_max", "write at most 65536");
        }
        limits
    }

    fn users(&mut self, sections: Vec<UserSection>) -> Vec<LocalUser> {
        let mut users: Vec<LocalUser> = Vec::new();
        let mut names = BTreeSet::new();
        for (index, section) in sections.into_iter().enumerate() {
            let key = |name: &str| format!("user[{index}].{name}");
            let UserSection {
                name,
                email,
                groups,
                password_hash_file,
            } = section;
            let plain = |text: &str| {
                !text.is_empty()
                    && text.len() <= USER_BYTES_MAX
                    && !text.chars().any(|c| c.is_control() || c.is_whitespace())
            };
            if !plain(&name) {
                self.problem(key("name"), "write a name without spaces, 1 to 256 bytes");
            }
            if !names.insert(name.to_ascii_lowercase()) {
                let what = format!("another user is named {name:?}; choose another name");
                self.problem(key("name"), what);
            }
            let parts = email.rsplit_once('@');
            if !plain(&email)
                || parts.is_none_or(|(local, domain)| local.is_empty() || domain.is_empty())
            {
                self.problem(key("email"), format!("{email:?} is no email address"));
            }
            match self.password_hash(&password_hash_file) {
                Ok(hash) => users.push(LocalUser {
                    user: User {
                        id: name,
                        email,
                        groups,
                    },
                    hash,
                }),
                Err(why) => self.problem(key("password_hash_file"), why),
            }
        }
        if names.is_empty() {
            self.warn(
                "user",
                "there is no user: nobody can log in; add a [[user]]",
            );
        }
        users
    }

    fn password_hash(&self, path: &Path) -> Result<PasswordHash, String> {
        let path = self.path(path);
        let text = secret_file::read(&path)?;
        text.parse().map_err(|error| {
            let shown = path.display();
            format!("{shown}: {error}; make the file again with: postern hash-password")
        })
    }

    fn applications(
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
