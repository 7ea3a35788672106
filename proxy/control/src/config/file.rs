//! The configuration file as it is written: one struct tree, from whose documentation the manual
//! and the JSON schema are made.

mod steering;

use std::path::PathBuf;

use postern_access::{Action, Duration, RdpSecurity, Selector};
use postern_snapshot::{Driver, Limits, Placement};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use steering::{
    ModeRule, RuleOfSource, SourceSection, SteeringSection, StoreSection, SynsSection,
};

/// The configuration of a node.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Who runs this gateway, and where browsers find it.
    pub organisation: OrganisationSection,
    /// Where the engine listens.
    pub listen: ListenSection,
    /// The server certificate that browsers see: files, or self-signed.
    pub certificate: CertificateSection,
    /// Where the node keeps what it must remember.
    #[serde(default)]
    pub state: StateSection,
    /// The audit trail.
    #[serde(default)]
    pub audit: AuditSection,
    /// Measurements for Prometheus.
    #[serde(default)]
    pub metrics: MetricsSection,
    /// Logins.
    #[serde(default)]
    pub session: SessionSection,
    /// The published desktops, a table each.
    #[serde(default)]
    pub application: Vec<ApplicationSection>,
    /// The local users, a table each. Removing one, or changing email, groups or password, ends that
    /// user's logins and live sessions.
    #[serde(default)]
    pub user: Vec<UserSection>,
    /// Several nodes behind one address: every node steers each connection to the node that has it, or
    /// should get it. Without this table the node is alone and runs without privileges.
    /// [steering.md](steering.md) says how to set it up. SIGHUP to `postern serve` takes weight, services,
    /// peers, sources and limits over; anything else needs a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steering: Option<SteeringSection>,
    /// Accounts of every connection by the kernel, beside the audit trail.
    #[serde(default)]
    pub accounting: AccountingSection,
    /// Limits that peers can run into. Times end in `_ms`, sizes in `_bytes_max`.
    #[serde(default)]
    pub limits: Limits,
}

/// Who runs this gateway, and where browsers find it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OrganisationSection {
    /// Shown on every page.
    pub name: String,
    /// Origin of login and launcher, e.g. `https://gw.example:8443`: `https`, a host name, and a
    /// port unless it is 443. It is also the issuer of tokens: changing it ends all logins.
    pub public_url: String,
}

/// Where the engine listens.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenSection {
    /// Addresses and ports, e.g. `"0.0.0.0:443"` or `"[::]:443"`. A change needs a restart.
    pub addresses: Vec<String>,
    /// Processor cores to run on, by number; empty means all that the process may use. A change
    /// needs a restart.
    #[serde(default)]
    pub cores: Vec<usize>,
    /// What carries the bytes: `"auto"` (io_uring where the kernel allows it, epoll elsewhere),
    /// `"io_uring"` (the gateway does not start without it) or `"epoll"`. A change needs a restart.
    #[serde(default)]
    pub driver: Driver,
    /// What puts a new connection on a core: `"hash"` (the kernel's own) or `"load"` (a program in the
    /// kernel, by live sessions and CPU time; needs privileges at the start, as `[steering]` does). A
    /// change needs a restart.
    #[serde(default)]
    pub placement: Placement,
}

/// The server certificate that browsers see: `chain_file` and `key_file`, or `self_signed`.
/// Files that change are loaded again by themselves.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateSection {
    /// PEM file: the certificate, then its intermediates. It has to name the host of `public_url`
    /// and every application's own host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_file: Option<PathBuf>,
    /// PEM file with the private key, readable by its owner alone (`chmod 600`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Make a certificate and keep it in the state folder. Browsers warn of it: for trying out.
    #[serde(default)]
    pub self_signed: bool,
}

/// Where the node keeps what it must remember.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StateSection {
    /// Folder of the store, the sockets and a self-signed certificate. Made when it is not there,
    /// open to its owner alone. A change needs a restart.
    pub directory: PathBuf,
    /// Folder on a BPF file system where the kernel's programs and tables of `[steering]`,
    /// `[accounting]` and `listen.placement` are pinned, so that they outlive the process. Of this
    /// node alone. A change needs a restart.
    pub bpf_directory: PathBuf,
}

impl Default for StateSection {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("/var/lib/postern"),
            bpf_directory: PathBuf::from("/sys/fs/bpf/postern"),
        }
    }
}

/// The audit trail.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSection {
    /// Folder of the chains and checkpoints; without it `audit` in the state folder. A change needs
    /// a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// What happens when records can't be written, for example because the disk is full.
    pub when_unwritable: WhenUnwritable,
}

/// What happens when audit records can't be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenUnwritable {
    /// No new session begins and nobody logs in.
    #[default]
    Refuse,
    /// Go on, and count what is lost.
    Continue,
}

/// Accounts of every connection by the kernel, beside the audit trail.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccountingSection {
    /// The kernel counts packets and bytes of every connection of the gateway, and `flows.jsonl` in
    /// the audit folder keeps them; `postern audit reconcile` holds them against the audit records.
    /// Needs privileges at the start, as `[steering]` does. A change needs a restart.
    pub enabled: bool,
}

/// Measurements for Prometheus.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsSection {
    /// Address and port that serve `/metrics` and `/healthz` over plain HTTP, or `off`. Keep it on
    /// loopback: it asks nobody who they are. A change needs a restart.
    pub listen: String,
}

impl Default for MetricsSection {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9300".to_owned(),
        }
    }
}

/// Logins.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SessionSection {
    /// How long a login lasts, 15 minutes to 31 days. Within it applications are opened without a
    /// password, as far as their policies allow.
    pub duration: Duration,
}

impl Default for SessionSection {
    fn default() -> Self {
        Self {
            duration: Duration(24 * 60 * 60),
        }
    }
}

/// A published desktop.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplicationSection {
    /// Short unique name: 1 to 63 of `a-z`, `0-9` and `-`. Part of its address and of audit records.
    pub name: String,
    /// What people read on the tile; without it the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The RDP server: `host:port`, `192.0.2.1:3389` or `[2001:db8::1]:3389`.
    pub target: String,
    /// A public host name of its own; without it the desktop is at `/app/NAME` of `public_url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// How the RDP server's certificate is judged: `"first_use"` (the first one seen is kept, another
    /// one later is refused), `{ pin = ["<SHA-256 hex>"] }` or `{ ca_file = "/path/roots.pem" }`.
    #[serde(default)]
    pub certificate: CertificateRule,
    /// RDP security protocols that may be used: `"nla"`, `"tls"`. Standard RDP security never is.
    #[serde(default = "only_nla")]
    pub security: Vec<RdpSecurity>,
    /// How long a session may live, 1 second to 31 days; a policy's own duration wins.
    #[serde(default = "a_day")]
    pub session_duration: Duration,
    /// A session without input for this long ends; `0s` means never.
    #[serde(default)]
    pub idle: Duration,
    /// Who may open it, a table each, judged in order: the first that matches decides. When none
    /// matches the answer is no.
    #[serde(default)]
    pub policy: Vec<PolicySection>,
}

fn only_nla() -> Vec<RdpSecurity> {
    vec![RdpSecurity::Nla]
}

fn a_day() -> Duration {
    Duration(24 * 60 * 60)
}

/// How an RDP server's certificate is judged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CertificateRule {
    /// The first one seen is kept; another one later is refused and reported.
    #[default]
    FirstUse,
    /// The certificate is one of these: SHA-256 of its DER, 64 hex digits.
    Pin(Vec<String>),
    /// The certificate leads to a root in this PEM file and names the target's host.
    CaFile(PathBuf),
}

/// Who may open an application, or may not.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicySection {
    /// Unique within the application; named in audit records.
    pub name: String,
    /// `"allow"` or `"block"`.
    pub action: Action,
    /// At least one has to match: `"everyone"`, `{ email = "a@b.c" }`, `{ email_domain = "b.c" }`,
    /// `{ group = "staff" }`, `{ ip = "10.0.0.0/8" }`, `{ country = "DE" }`,
    /// `{ auth_method = "pwd" }`.
    pub include: Vec<Selector>,
    /// All have to match.
    #[serde(default)]
    pub require: Vec<Selector>,
    /// None may match.
    #[serde(default)]
    pub exclude: Vec<Selector>,
    /// Wins over the application's duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_duration: Option<Duration>,
}

/// A local user.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserSection {
    /// What is typed at login; letter case does not matter. Also the user's id in tokens.
    pub name: String,
    /// What policies and audit records name.
    pub email: String,
    /// Groups that policies name.
    #[serde(default)]
    pub groups: Vec<String>,
    /// File with the password's hash, readable by its owner alone (`chmod 600`);
    /// `postern hash-password` makes one.
    pub password_hash_file: PathBuf,
}
