//! What a configuration has to fulfil beyond its form; every mistake is found, not only the first.

mod applications;
mod steering;
mod steering_store;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use postern_access::Duration;
use postern_login::{PasswordHash, User};
use postern_snapshot::Limits;
use postern_snapshot::message::AuditSettings;

use super::file::{CertificateSection, ConfigFile, UserSection, WhenUnwritable};
use super::origin::Origin;
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
    let listen = check.addresses(&file.listen.addresses);
    let steering = file
        .steering
        .and_then(|section| check.steering(section, &listen));
    let config = Config {
        path: path.to_owned(),
        organisation: file.organisation.name,
        origin: origin.to_string(),
        host: origin.host.clone(),
        listen,
        cores: check.cores(file.listen.cores),
        driver: file.listen.driver,
        placement: file.listen.placement,
        certificate: check.certificate(&file.certificate),
        state_directory,
        bpf_directory: check.path(&file.state.bpf_directory),
        steering,
        accounting: file.accounting.enabled,
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
}
