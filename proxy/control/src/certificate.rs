//! The server certificate: from files or made by ourselves, checked before the engine gets it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use postern_access::UnixSeconds;
use postern_snapshot::{Certificate, Secret};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::{CertificateSource, Config, secret_file};
use crate::{ControlError, clock};

/// A self-signed certificate is made for this long.
const SELF_SIGNED_S: u64 = 397 * 24 * 60 * 60;

/// A clock that is behind ours by this much finds it valid.
const CLOCK_S: u64 = 24 * 60 * 60;

/// One that ends sooner than this is made anew.
const RENEW_S: u64 = 30 * 24 * 60 * 60;

const CHAIN_FILE: &str = "self-signed.chain.pem";
const KEY_FILE: &str = "self-signed.key.pem";

/// A certificate that holds, with what control watches of it.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) certificate: Certificate,
    pub(crate) expires_at: UnixSeconds,
    /// Whether its files have changed.
    pub(crate) mark: Mark,
}

/// What a change of files shows by: inode, modification time and length of each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Mark(Vec<Option<(u64, i64, i64, u64)>>);

impl Mark {
    pub(crate) fn of(config: &Config) -> Self {
        let (chain, key) = files(config);
        Self(
            [chain, key]
                .iter()
                .map(|path| {
                    let metadata = std::fs::metadata(path).ok()?;
                    let (inode, size) = (metadata.ino(), metadata.len());
                    Some((inode, metadata.mtime(), metadata.mtime_nsec(), size))
                })
                .collect(),
        )
    }
}

fn files(config: &Config) -> (PathBuf, PathBuf) {
    match &config.certificate {
        CertificateSource::Files { chain, key } => (chain.clone(), key.clone()),
        CertificateSource::SelfSigned => (
            config.state_directory.join(CHAIN_FILE),
            config.state_directory.join(KEY_FILE),
        ),
    }
}

/// Loads the certificate of a configuration; a self-signed one is made when it is not there, does
/// not name every host, or ends soon.
///
/// # Errors
/// When it can't be read, or chain and key do not belong together.
pub(crate) fn load(config: &Config) -> Result<Loaded, ControlError> {
    let now = clock::now();
    let loaded = read(config);
    if config.certificate != CertificateSource::SelfSigned {
        return loaded;
    }
    if let Ok(loaded) = loaded
        && missing_hosts(&loaded, config).is_empty()
        && now.until(loaded.expires_at) > RENEW_S
    {
        return Ok(loaded);
    }
    make(config)?;
    read(config)
}

/// Hosts of the configuration that the certificate does not name.
pub(crate) fn missing_hosts(loaded: &Loaded, config: &Config) -> Vec<String> {
    let names = &loaded.certificate.names;
    let covers = |host: &str| {
        names.iter().any(|name| match name.strip_prefix("*.") {
            Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest == parent),
            None => name == host,
        })
    };
    let hosts = config.hosts().into_iter().filter(|host| !covers(host));
    hosts.map(str::to_owned).collect()
}

/// Loads it as it is; makes nothing.
///
/// # Errors
/// As [`load`].
pub(crate) fn read(config: &Config) -> Result<Loaded, ControlError> {
    // Taken first: a file that changes while it is read is read again.
    let mark = Mark::of(config);
    let (chain_path, key_path) = files(config);
    let chain_pem = std::fs::read_to_string(&chain_path)
        .map_err(ControlError::file("certificate", &chain_path))?;
    let refused = |path: &Path, why: String| ControlError::Certificate {
        path: path.to_owned(),
        why,
    };
    let key_pem = secret_file::read(&key_path).map_err(|why| refused(&key_path, why))?;
    let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| refused(&chain_path, format!("not PEM: {error}")))?;
    let leaf = chain
        .first()
        .ok_or_else(|| refused(&chain_path, "it holds no certificate".to_owned()))?;
    let (names, expires_at) = facts(leaf).map_err(|why| refused(&chain_path, why))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .map_err(|error| refused(&key_path, format!("it holds no private key: {error}")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    CertifiedKey::from_der(chain.clone(), key, &provider).map_err(|error| {
        refused(
            &key_path,
            format!("it does not fit the certificate: {error}"),
        )
    })?;
    Ok(Loaded {
        certificate: Certificate {
            names,
            chain_pem,
            key_pem: Secret::new(key_pem.to_string()),
        },
        expires_at,
        mark,
    })
}

/// Names and end of a certificate. Addresses are written as hosts of an origin are.
fn facts(leaf: &CertificateDer<'_>) -> Result<(Vec<String>, UnixSeconds), String> {
    let (_, certificate) =
        X509Certificate::from_der(leaf).map_err(|error| format!("not a certificate: {error}"))?;
    let alternatives = certificate
        .subject_alternative_name()
        .map_err(|error| format!("its names can't be read: {error}"))?;
    let mut names = Vec::new();
    for name in alternatives
        .iter()
        .flat_map(|names| &names.value.general_names)
    {
        match name {
            GeneralName::DNSName(name) => names.push(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => names.extend(address(bytes)),
            _ => {}
        }
    }
    let seconds = certificate.validity().not_after.timestamp();
    Ok((names, UnixSeconds(u64::try_from(seconds).unwrap_or(0))))
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(octets).to_string());
    }
    let octets = <[u8; 16]>::try_from(bytes).ok()?;
    Some(format!("[{}]", IpAddr::from(octets)))
}

fn make(config: &Config) -> Result<(), ControlError> {
    let (chain_path, key_path) = files(config);
    let refused = |error: rcgen::Error| ControlError::Certificate {
        path: chain_path.clone(),
        why: error.to_string(),
    };
    let names: Vec<String> = config
        .hosts()
        .into_iter()
        .map(|host| host.trim_matches(['[', ']']).to_owned())
        .collect();
    let mut parameters = rcgen::CertificateParams::new(names).map_err(refused)?;
    parameters
        .distinguished_name
        .push(rcgen::DnType::CommonName, config.organisation.as_str());
    let now_s = clock::now().0;
    let date = |seconds| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    let key = rcgen::KeyPair::generate().map_err(refused)?;
    parameters.not_before = date(now_s.saturating_sub(CLOCK_S));
    parameters.not_after = date(now_s + SELF_SIGNED_S);
    let certificate = parameters.self_signed(&key).map_err(refused)?;
    write_private(&key_path, &key.serialize_pem())?;
    write_private(&chain_path, &certificate.pem())?;
    tracing::info!(file = %chain_path.display(), "a self-signed certificate was made");
    Ok(())
}

/// Whole or not at all: a crash leaves the old file.
fn write_private(path: &Path, text: &str) -> Result<(), ControlError> {
    let failed = || ControlError::file("certificate", path);
    let new = path.with_extension("new");
    // A left-over of a crash may have another mode.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed()(error)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(failed())?;
    file.write_all(text.as_bytes()).map_err(failed())?;
    file.sync_all().map_err(failed())?;
    std::fs::rename(&new, path).map_err(failed())
}

#[cfg(test)]
mod tests;
