//! A control over a folder of its own, for tests.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::config::Config;
use crate::run::{Running, start};

pub(crate) const ORIGIN: &str = "https://gw.example:8443";
pub(crate) const PASSWORD: &str = "correct horse";

/// Paths, own host, closed to some, open from some addresses only.
pub(crate) const CONFIG: &str = r#"
[organisation]
name = "Example"
public_url = "https://gw.example:8443"
[listen]
addresses = ["127.0.0.1:8443"]
[certificate]
self_signed = true
[state]
directory = "state"
[metrics]
listen = "off"

[[application]]
name = "lab"
title = "Lab <PC>"
target = "127.0.0.1:3389"
session_duration = "8h"
  [[application.policy]]
  name = "staff"
  action = "allow"
  include = [{ group = "staff" }]
  session_duration = "1h"

[[application]]
name = "vault"
target = "127.0.0.1:3390"
  [[application.policy]]
  name = "nobody from staff"
  action = "block"
  include = [{ group = "staff" }]
  [[application.policy]]
  name = "others"
  action = "allow"
  include = ["everyone"]

[[application]]
name = "field"
target = "127.0.0.1:3391"
  [[application.policy]]
  name = "inside"
  action = "allow"
  include = [{ ip = "10.0.0.0/8" }]

[[application]]
name = "office"
host = "office.example"
target = "127.0.0.1:3392"
  [[application.policy]]
  name = "staff"
  action = "allow"
  include = [{ group = "staff" }]

[[user]]
name = "alice"
email = "alice@example.org"
groups = ["staff"]
password_hash_file = "hash"
[[user]]
name = "bob"
email = "bob@example.org"
password_hash_file = "hash"
"#;

/// A folder with a configuration file and a password hash.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new(config: &str) -> Self {
        static HASH: OnceLock<String> = OnceLock::new();
        let hash = HASH.get_or_init(|| {
            let hash = postern_login::local::hash_password(PASSWORD, b"salt of sixteen!");
            hash.expect("hashes").to_string()
        });
        let folder = Self(tempfile::tempdir().expect("folder"));
        folder.write("hash", hash, 0o600);
        folder.write("postern.toml", config, 0o644);
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.path(name);
        // A file that is there keeps its mode otherwise.
        let _ = std::fs::remove_file(&path);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(path)
            .expect("opens");
        file.write_all(text.as_bytes()).expect("written");
    }

    pub(crate) fn config(&self) -> Config {
        let (config, _) = Config::load(&self.path("postern.toml")).expect("the config holds");
        config
    }

    pub(crate) async fn start(&self) -> Running {
        postern_access::provider::install();
        start(self.config()).await.expect("control starts")
    }

    /// Control's audit records.
    pub(crate) fn records(&self) -> Vec<postern_audit::Record> {
        let path = self.path("state/audit/control.jsonl");
        let text = std::fs::read_to_string(path).expect("chain");
        let mut records = Vec::new();
        postern_audit::verify("control", text.lines(), |_, record| {
            records.push(record.clone());
        })
        .expect("the chain holds");
        records
    }
}
