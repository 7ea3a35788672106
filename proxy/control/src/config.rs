//! The configuration: read, checked as a whole, and turned into values that hold.

mod check;
mod document;
mod file;
mod manual;
mod origin;
mod problem;
pub(crate) mod secret_file;
mod summary;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use postern_access::Application;
use postern_login::{PasswordHash, User};
use postern_snapshot::message::AuditSettings;
use postern_snapshot::{Driver, Limits, Placement};

use crate::certificate;

pub use file::ConfigFile;
pub use manual::{manual_markdown, schema_json};
pub use problem::{ConfigErrors, Problem, Warnings};

/// Longest configuration file.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What a tunnel over IPv6 and the IPv6 and TCP headers of a browser's packet take of an IP packet.
const TUNNEL_BYTES: u16 = postern_ebpf_abi::chain::OVERHEAD_V6 as u16 + 40 + 20;

const RUN_DIRECTORY: &str = "run";
const ADMIN_SOCKET: &str = "admin.sock";
const STEER_SOCKET: &str = "steer.sock";

/// A configuration that holds.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that it was read from.
    pub path: PathBuf,
    /// Name of the organisation.
    pub organisation: String,
    /// Origin of login and launcher; the issuer of tokens.
    pub origin: String,
    /// Host of the origin, lower case, without port.
    pub host: String,
    pub listen: Vec<SocketAddr>,
    pub cores: Vec<usize>,
    pub driver: Driver,
    pub placement: Placement,
    pub certificate: CertificateSource,
    pub state_directory: PathBuf,
    /// Where the kernel's programs and tables are pinned.
    pub bpf_directory: PathBuf,
    /// Several nodes behind one address.
    pub steering: Option<postern_steering::Settings>,
    /// The kernel counts every connection.
    pub accounting: bool,
    pub audit: AuditSettings,
    /// Where Prometheus asks; `None` when switched off.
    pub metrics: Option<SocketAddr>,
    /// How long a login lasts.
    pub session_s: u64,
    pub applications: Vec<Application>,
    pub users: Vec<LocalUser>,
    pub limits: Limits,
}

/// Where the files of a gateway are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    pub state_directory: PathBuf,
    /// Where the kernel's programs and tables are pinned.
    pub bpf_directory: PathBuf,
}

impl Places {
    /// Folder of the sockets.
    #[must_use]
    pub fn run_directory(&self) -> PathBuf {
        self.state_directory.join(RUN_DIRECTORY)
    }

    /// Where control answers administrators.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.run_directory().join(ADMIN_SOCKET)
    }

    /// Where the conductor answers, when there is one.
    #[must_use]
    pub fn steer_socket(&self) -> PathBuf {
        self.run_directory().join(STEER_SOCKET)
    }
}

/// Where the server certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    Files { chain: PathBuf, key: PathBuf },
    SelfSigned,
}

/// A user of the configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalUser {
    pub user: User,
    pub hash: PasswordHash,
}

impl LocalUser {
    /// Changes with whatever the configuration says of the user.
    pub(crate) fn digest(&self) -> String {
        let User { id, email, groups } = &self.user;
        let said = serde_json::to_vec(&(id, email, groups, self.hash.to_string()))
            .expect("plain text encodes");
        let digest = ring::digest::digest(&ring::digest::SHA256, &said);
        digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

impl Config {
    /// Reads and checks a file; relative paths in it start at its folder.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn load(path: &Path) -> Result<(Self, Warnings), ConfigErrors> {
        let refused = |problems| ConfigErrors {
            file: path.to_owned(),
            problems,
        };
        let unreadable = |why: String| refused(vec![Problem::new("", why)]);
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
                return Err(unreadable("the file is over 4 MiB".to_owned()));
            }
            Ok(_) => {}
            Err(error) => return Err(unreadable(format!("can't be read: {error}"))),
        }
        let text = std::fs::read_to_string(path)
            .map_err(|error| unreadable(format!("can't be read: {error}")))?;
        let document = document::read(&text);
        let mut problems = document.problems;
        let mut warnings = Vec::new();
        let mut config = None;
        if let Some(file) = document.file {
            let found = check::check(path, file);
            problems.extend(found.problems);
            warnings = found.warnings;
            if problems.is_empty() {
                found.config.check_certificate(&mut problems, &mut warnings);
            }
            config = Some(found.config);
        }
        for problem in problems.iter_mut().chain(&mut warnings) {
            problem.place = problem.place.or_else(|| document.places.find(&problem.key));
        }
        problems.sort_by_key(|problem| problem.place);
        match config {
            Some(config) if problems.is_empty() => Ok((
                config,
                Warnings {
                    file: path.to_owned(),
                    problems: warnings,
                },
            )),
            _ => Err(refused(problems)),
        }
    }

    /// A certificate of files has to hold, and should name every host.
    fn check_certificate(&self, problems: &mut Vec<Problem>, warnings: &mut Vec<Problem>) {
        if self.certificate == CertificateSource::SelfSigned {
            return;
        }
        match certificate::read(self) {
            Ok(loaded) => {
                let missing = certificate::missing_hosts(&loaded, self);
                if !missing.is_empty() {
                    let hosts = missing.join(", ");
                    let doubt = format!("it does not name {hosts}: browsers will refuse it there");
                    warnings.push(Problem::new("certificate.chain_file", doubt));
                }
            }
            Err(error) => problems.push(Problem::new("certificate", error.to_string())),
        }
    }

    /// Where the files of a running gateway are by its configuration file, whatever else is wrong with
    /// that: it can be asked while its file is being edited.
    ///
    /// # Errors
    /// When the file can't be read as one at all.
    pub fn places_of(path: &Path) -> Result<Places, ConfigErrors> {
        #[derive(serde::Deserialize)]
        struct OnlyState {
            #[serde(default)]
            state: file::StateSection,
        }
        let refused = |why: String| ConfigErrors {
            file: path.to_owned(),
            problems: vec![Problem::new("", why)],
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| refused(format!("can't be read: {error}")))?;
        let file: OnlyState =
            toml::from_str(&text).map_err(|error| refused(error.message().to_owned()))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let absolute = |path: PathBuf| {
            let path = folder.join(path);
            std::path::absolute(&path).unwrap_or(path)
        };
        Ok(Places {
            state_directory: absolute(file.state.directory),
            bpf_directory: absolute(file.state.bpf_directory),
        })
    }

    /// True where something of the kernel is to be installed: the role with privileges has work.
    #[must_use]
    pub fn needs_conductor(&self) -> bool {
        self.steering.is_some() || self.accounting || self.placement == Placement::Load
    }

    /// Where the engine finds the program that places connections; none where the kernel's hash does.
    pub(crate) fn placement_pins(&self) -> Option<PathBuf> {
        (self.placement == Placement::Load).then(|| self.bpf_directory.clone())
    }

    /// What browsers may send in one TCP segment, so that a tunnel between nodes takes it whichever
    /// families are outside and inside.
    pub(crate) fn segment_bytes_max(&self) -> Option<u16> {
        let steering = self.steering.as_ref()?;
        Some(steering.mtu.saturating_sub(TUNNEL_BYTES))
    }

    /// Folder of the sockets.
    #[must_use]
    pub fn run_directory(&self) -> PathBuf {
        self.state_directory.join(RUN_DIRECTORY)
    }

    #[must_use]
    pub fn link_socket(&self) -> PathBuf {
        self.run_directory().join("link.sock")
    }

    #[must_use]
    pub fn web_socket(&self) -> PathBuf {
        self.run_directory().join("web.sock")
    }

    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.run_directory().join(ADMIN_SOCKET)
    }

    /// The conductor's, when there is one.
    #[must_use]
    pub fn steer_socket(&self) -> PathBuf {
        self.run_directory().join(STEER_SOCKET)
    }

    pub(crate) fn store_path(&self) -> PathBuf {
        self.state_directory.join("store.sqlite")
    }

    /// Lifetime of the longest token.
    pub(crate) fn token_s_max(&self) -> u64 {
        let of_applications = self.applications.iter().flat_map(|application| {
            let policies = application.policies.iter();
            policies
                .filter_map(|policy| policy.session_duration_s)
                .chain([application.session.duration_s])
        });
        of_applications.fold(self.session_s, u64::max)
    }

    /// The user who types `name`; letter case does not matter.
    pub(crate) fn user_named(&self, name: &str) -> Option<&LocalUser> {
        let name = name.trim();
        self.users
            .iter()
            .find(|local| local.user.id.eq_ignore_ascii_case(name))
    }

    /// The user with the id of a token.
    pub(crate) fn user(&self, id: &str) -> Option<&User> {
        let mut users = self.users.iter().map(|local| &local.user);
        users.find(|user| user.id == id)
    }

    pub(crate) fn application(&self, name: &str) -> Option<&Application> {
        self.applications
            .iter()
            .find(|application| application.name == name)
    }

    /// Every host name that browsers use, each once, the organisation's first.
    pub(crate) fn hosts(&self) -> Vec<&str> {
        let mut hosts = vec![self.host.as_str()];
        for application in &self.applications {
            let host = application.public.host.as_str();
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        hosts
    }
}

#[cfg(test)]
pub(crate) mod steering_tests;
#[cfg(test)]
mod tests;
