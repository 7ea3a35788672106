//! A configuration file of a gateway under test, with what tests change about it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, Result};

/// Every user's password.
pub const PASSWORD: &str = "correct horse 9";

/// What a gateway is told.
#[derive(Debug, Clone, Default)]
pub struct Configuration {
    pub applications: Vec<Application>,
    pub users: Vec<User>,
    /// Keys of `[limits]`.
    pub limits: BTreeMap<&'static str, u64>,
    /// In the state folder when there is none.
    pub audit_directory: Option<PathBuf>,
    /// `refuse` or `continue`; the default when empty.
    pub when_unwritable: &'static str,
    /// Of logins; the default when empty.
    pub session_duration: &'static str,
    /// Empty means all.
    pub cores: Vec<usize>,
    /// All with one port; 127.0.0.1 when empty.
    pub listen: Vec<IpAddr>,
    /// `auto`, `io_uring` or `epoll`; the default when empty.
    pub driver: &'static str,
    /// `hash` or `load`; the default when empty.
    pub placement: &'static str,
    /// Where the kernel's programs are pinned, unless where the gateway does it by itself.
    pub bpf_directory: Option<PathBuf>,
    /// The gateway's processes may set up no ring.
    pub io_uring_is_forbidden: bool,
    /// More of the file, as it is written there.
    pub sections: String,
}

/// An `[[application]]`.
#[derive(Debug, Clone)]
pub struct Application {
    pub name: String,
    pub target: String,
    /// A host name of its own.
    pub host: Option<String>,
    pub certificate: Certificate,
    pub security: Vec<&'static str>,
    pub session_duration: &'static str,
    pub idle: &'static str,
    pub policies: Vec<Policy>,
}

/// How the target's certificate is judged.
#[derive(Debug, Clone)]
pub enum Certificate {
    FirstUse,
    Pin(String),
    Ca(PathBuf),
}

/// An `[[application.policy]]`; rules are written as in TOML.
#[derive(Debug, Clone)]
pub struct Policy {
    pub name: String,
    pub action: &'static str,
    pub include: String,
    pub require: String,
    pub exclude: String,
}

/// A `[[user]]` with [`PASSWORD`].
#[derive(Debug, Clone)]
pub struct User {
    pub name: String,
    pub groups: Vec<String>,
}

impl Policy {
    #[must_use]
    pub fn allow(name: &str, include: &str) -> Self {
        Self {
            name: name.to_owned(),
            action: "allow",
            include: include.to_owned(),
            require: String::new(),
            exclude: String::new(),
        }
    }

    #[must_use]
    pub fn block(name: &str, include: &str) -> Self {
        Self {
            action: "block",
            ..Self::allow(name, include)
        }
    }
}

impl User {
    #[must_use]
    pub fn new(name: &str, groups: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        }
    }
}

impl Application {
    /// With NLA, first use, and `staff` allowed.
    #[must_use]
    pub fn new(name: &str, target: impl ToString) -> Self {
        Self {
            name: name.to_owned(),
            target: target.to_string(),
            host: None,
            certificate: Certificate::FirstUse,
            security: vec!["nla"],
            session_duration: "8h",
            idle: "0s",
            policies: vec![Policy::allow("staff", "{ group = \"staff\" }")],
        }
    }
}

impl Configuration {
    /// One application `lab`, one user `alice` of `staff`.
    #[must_use]
    pub fn for_target(target: SocketAddr) -> Self {
        Self {
            applications: vec![Application::new("lab", target)],
            users: vec![User::new("alice", &["staff"])],
            ..Self::default()
        }
    }

    /// The same with one more application.
    #[must_use]
    pub fn with(mut self, application: Application) -> Self {
        self.applications.push(application);
        self
    }

    /// The same with one more user.
    #[must_use]
    pub fn with_user(mut self, user: User) -> Self {
        self.users.push(user);
        self
    }

    /// The same with one limit changed.
    #[must_use]
    pub fn limit(mut self, key: &'static str, value: u64) -> Self {
        self.limits.insert(key, value);
        self
    }

    /// The same on that driver.
    #[must_use]
    pub fn driver(mut self, driver: &'static str) -> Self {
        self.driver = driver;
        self
    }

    /// The same where io_uring is forbidden, by a filter as containers have one.
    #[must_use]
    pub fn without_io_uring(mut self) -> Self {
        self.io_uring_is_forbidden = true;
        self
    }

    /// The application of that name.
    ///
    /// # Panics
    /// There is none.
    pub fn application(&mut self, name: &str) -> &mut Application {
        let mut named = self.applications.iter_mut().filter(|one| one.name == name);
        named.next().expect("a test names its own application")
    }

    fn addresses(&self, port: u16) -> Vec<String> {
        let alone = [Ipv4Addr::LOCALHOST.into()];
        let all = match self.listen.as_slice() {
            [] => &alone,
            listen => listen,
        };
        let addresses = all.iter().map(|ip| SocketAddr::new(*ip, port).to_string());
        addresses.collect()
    }

    pub(super) fn to_toml(
        &self,
        folder: &Path,
        host: &str,
        port: u16,
        metrics: SocketAddr,
    ) -> Result<String> {
        let shown = folder.display();
        let mut toml = String::new();
        writeln!(toml, "[organisation]\nname = \"Example\"")?;
        writeln!(toml, "public_url = \"https://{host}:{port}\"")?;
        writeln!(
            toml,
            "[listen]\naddresses = {:?}\ncores = {:?}",
            self.addresses(port),
            self.cores
        )?;
        if !self.driver.is_empty() {
            writeln!(toml, "driver = \"{}\"", self.driver)?;
        }
        if !self.placement.is_empty() {
            writeln!(toml, "placement = \"{}\"", self.placement)?;
        }
        writeln!(toml, "[certificate]\nchain_file = \"{shown}/chain.pem\"")?;
        writeln!(toml, "key_file = \"{shown}/key.pem\"")?;
        writeln!(toml, "[state]\ndirectory = \"{shown}/state\"")?;
        if let Some(directory) = &self.bpf_directory {
            writeln!(toml, "bpf_directory = \"{}\"", directory.display())?;
        }
        writeln!(toml, "[metrics]\nlisten = \"{metrics}\"")?;
        writeln!(toml, "[audit]")?;
        if let Some(directory) = &self.audit_directory {
            writeln!(toml, "directory = \"{}\"", directory.display())?;
        }
        if !self.when_unwritable.is_empty() {
            writeln!(toml, "when_unwritable = \"{}\"", self.when_unwritable)?;
        }
        if !self.session_duration.is_empty() {
            writeln!(toml, "[session]\nduration = \"{}\"", self.session_duration)?;
        }
        writeln!(toml, "[limits]")?;
        for (key, value) in &self.limits {
            writeln!(toml, "{key} = {value}")?;
        }
        for application in &self.applications {
            application.write(&mut toml)?;
        }
        let hash_file = folder.join("password.hash");
        write_secret(&hash_file, password_hash()?.as_bytes())?;
        for User { name, groups } in &self.users {
            writeln!(
                toml,
                "[[user]]\nname = \"{name}\"\nemail = \"{name}@example.org\""
            )?;
            writeln!(toml, "groups = {groups:?}")?;
            writeln!(toml, "password_hash_file = \"{}\"", hash_file.display())?;
        }
        toml.push_str(&self.sections);
        Ok(toml)
    }
}

impl Application {
    fn write(&self, toml: &mut String) -> Result<()> {
        writeln!(toml, "[[application]]\nname = \"{}\"", self.name)?;
        writeln!(toml, "title = \"The {} machine\"", self.name)?;
        writeln!(toml, "target = \"{}\"", self.target)?;
        if let Some(host) = &self.host {
            writeln!(toml, "host = \"{host}\"")?;
        }
        match &self.certificate {
            Certificate::FirstUse => writeln!(toml, "certificate = \"first_use\"")?,
            Certificate::Pin(sha256) => {
                writeln!(toml, "certificate = {{ pin = [\"{sha256}\"] }}")?;
            }
            Certificate::Ca(file) => {
                writeln!(toml, "certificate = {{ ca_file = \"{}\" }}", file.display())?;
            }
        }
        writeln!(toml, "security = {:?}", self.security)?;
        writeln!(toml, "session_duration = \"{}\"", self.session_duration)?;
        writeln!(toml, "idle = \"{}\"", self.idle)?;
        for policy in &self.policies {
            writeln!(toml, "[[application.policy]]\nname = \"{}\"", policy.name)?;
            writeln!(toml, "action = \"{}\"", policy.action)?;
            writeln!(toml, "include = [{}]", policy.include)?;
            writeln!(toml, "require = [{}]", policy.require)?;
            writeln!(toml, "exclude = [{}]", policy.exclude)?;
        }
        Ok(())
    }
}

/// Writes a file that its owner alone can read.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options
        .open(path)
        .with_context(|| path.display().to_string())?;
    file.write_all(bytes)?;
    Ok(())
}

/// [`PASSWORD`]'s hash, worked out once: it is meant to be slow.
fn password_hash() -> Result<&'static str> {
    static HASH: OnceLock<String> = OnceLock::new();
    if let Some(hash) = HASH.get() {
        return Ok(hash);
    }
    let hash = postern_login::local::hash_password(PASSWORD, b"a salt for tests")?;
    Ok(HASH.get_or_init(|| hash.to_string()))
}
