//! What `[steering.store]` has to fulfil: one store, reachable in a way that others can't listen to.

use std::path::{Path, PathBuf};

use postern_steering::{STORE_PREFIX, StoreSettings};

use super::super::file::StoreSection;
use super::super::secret_file;
use super::Check;

/// Endpoints of etcd.
const ENDPOINTS_MAX: usize = 16;

/// Longest prefix of etcd's keys.
const PREFIX_BYTES_MAX: usize = 256;

impl Check<'_> {
    pub(super) fn steering_store(&mut self, section: &StoreSection) -> Option<StoreSettings> {
        match (&section.file, section.etcd.is_empty()) {
            (Some(file), true) => {
                self.nothing_of_etcd(section);
                let file = self.path(file);
                self.readable("steering.store.file", &file);
                Some(StoreSettings::File(file))
            }
            (None, false) => Some(self.etcd(section)),
            (Some(_), false) => {
                let what = "write file or etcd, not both";
                self.problem("steering.store", what);
                None
            }
            (None, true) => {
                let what = "nodes find each other nowhere; write etcd = [\"https://10.0.0.5:2379\"], \
                            or file = \"nodes.toml\"";
                self.problem("steering.store", what);
                None
            }
        }
    }

    fn nothing_of_etcd(&mut self, section: &StoreSection) {
        let of_etcd = [
            ("prefix", section.prefix != STORE_PREFIX),
            ("ca_file", section.ca_file.is_some()),
            ("certificate_file", section.certificate_file.is_some()),
            ("key_file", section.key_file.is_some()),
        ];
        for (name, there) in of_etcd {
            if there {
                let what = "this is of etcd; remove it, or write etcd instead of file";
                self.problem(format!("steering.store.{name}"), what);
            }
        }
    }

    fn etcd(&mut self, section: &StoreSection) -> StoreSettings {
        if section.etcd.len() > ENDPOINTS_MAX {
            let what = format!("write at most {ENDPOINTS_MAX} endpoints");
            self.problem("steering.store.etcd", what);
        }
        for (index, endpoint) in section.etcd.iter().enumerate() {
            let key = format!("steering.store.etcd[{index}]");
            if section.etcd[..index].contains(endpoint) {
                self.problem(key, format!("{endpoint} is there twice; remove one"));
            } else {
                self.endpoint(key, endpoint);
            }
        }
        let key = "steering.store.prefix";
        let prefix = &section.prefix;
        let framed = prefix.starts_with('/') && prefix.ends_with('/');
        if !framed || prefix.len() > PREFIX_BYTES_MAX || prefix.chars().any(char::is_control) {
            let what = format!(
                "{prefix:?} does not begin and end with / within {PREFIX_BYTES_MAX} bytes; write \
                 for example {STORE_PREFIX:?}"
            );
            self.problem(key, what);
        }
        let encrypted = section.etcd.iter().any(|one| one.starts_with("https://"));
        if encrypted && section.ca_file.is_none() {
            let what = "the system's roots are not asked who etcd is; write ca_file, the roots of its \
                        certificate";
            self.problem("steering.store.etcd", what);
        }
        let ca_file = self.tls_file("ca_file", section.ca_file.as_deref(), encrypted);
        let certificate_file = self.tls_file(
            "certificate_file",
            section.certificate_file.as_deref(),
            encrypted,
        );
        let key_file = section.key_file.as_deref().map(|path| {
            let path = self.path(path);
            if let Err(why) = secret_file::read(&path) {
                self.problem("steering.store.key_file", why);
            }
            path
        });
        match (&certificate_file, &key_file) {
            (Some(_), None) => {
                let what = "a certificate needs its key; write key_file too";
                self.problem("steering.store.certificate_file", what);
            }
            (None, Some(_)) => {
                let what = "a key needs its certificate; write certificate_file too";
                self.problem("steering.store.key_file", what);
            }
            _ => {}
        }
        StoreSettings::Etcd {
            endpoints: section.etcd.clone(),
            prefix: prefix.clone(),
            ca_file,
            certificate_file,
            key_file,
        }
    }

    fn endpoint(&mut self, key: String, endpoint: &str) {
        let rest = endpoint
            .strip_prefix("https://")
            .or_else(|| endpoint.strip_prefix("http://"));
        let authority = rest.map(|rest| rest.strip_suffix('/').unwrap_or(rest));
        let host_and_port = authority.and_then(|authority| authority.rsplit_once(':'));
        let plain = |host: &str| {
            let within = host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'));
            match within {
                Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
                None => {
                    let of_a_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
                    !host.is_empty() && host.chars().all(of_a_name)
                }
            }
        };
        let holds = host_and_port.is_some_and(|(host, port)| {
            plain(host) && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
        if !holds {
            let what = format!(
                "{endpoint:?} is no endpoint; write \"https://10.0.0.5:2379\" or \
                 \"https://etcd.example:2379\""
            );
            self.problem(key, what);
            return;
        }
        let host = host_and_port.map_or("", |(host, _)| host);
        let here = host == "localhost" || host.starts_with("127.") || host == "[::1]";
        if endpoint.starts_with("http://") && !here {
            let doubt = "everybody on the way can read and delay what the nodes tell each other; \
                         use https://";
            self.warn(key, doubt);
        }
    }

    fn tls_file(&mut self, name: &str, path: Option<&Path>, encrypted: bool) -> Option<PathBuf> {
        let path = self.path(path?);
        let key = format!("steering.store.{name}");
        if encrypted {
            self.readable(&key, &path);
        } else {
            let what = "no endpoint of etcd begins with https://; remove this, or use https://";
            self.problem(key, what);
        }
        Some(path)
    }

    fn readable(&mut self, key: &str, path: &Path) {
        if let Err(error) = std::fs::read(path) {
            self.problem(key, format!("{} can't be read: {error}", path.display()));
        }
    }
}
