//! A snapshot made ready for use: compiled rules, TLS for browsers, TLS for targets.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use postern_access::{Application, CertificatePolicy, Fingerprint, KeySet, Rules};
use postern_snapshot::{Certificate, Limits, Snapshot};
use rustls::RootCertStore;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::provider;

/// Immutable and shared by all cores; replaced whole.
#[derive(Debug)]
pub struct State {
    pub rules: Rules,
    pub limits: Limits,
    /// Towards browsers.
    pub tls: Arc<rustls::ServerConfig>,
    /// Roots for targets that are judged by a CA, by application name.
    pub target_roots: HashMap<String, Arc<RootCertStore>>,
    /// First-use pins by application name.
    pub pins: BTreeMap<String, Fingerprint>,
    pub snapshot: Box<Snapshot>,
}

/// Why a snapshot can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("verification keys: {0}")]
    Keys(#[from] postern_access::keyset::KeySetError),
    #[error("there is no certificate to answer with")]
    NoCertificate,
    #[error("certificate for {names}: {why}")]
    Certificate { names: String, why: String },
    #[error("roots of application {application}: {why}")]
    Roots { application: String, why: String },
}

impl State {
    /// Compiles a snapshot. `previous` lends what did not change: TLS tickets outlive a new policy.
    ///
    /// # Errors
    /// Names what is wrong with the snapshot; the state before stays in force then.
    pub fn compile(snapshot: Snapshot, previous: Option<&Self>) -> Result<Self, StateError> {
        let rules = Rules {
            issuer: snapshot.issuer.clone(),
            version: snapshot.version,
            keys: KeySet::from_jwks(&snapshot.jwks)?,
            applications: snapshot
                .applications
                .iter()
                .cloned()
                .map(Arc::new)
                .collect(),
            revocations: snapshot.revocations.clone(),
        };
        let mut target_roots = HashMap::new();
        for application in &snapshot.applications {
            if let Some(roots) = roots(application)? {
                target_roots.insert(application.name.clone(), Arc::new(roots));
            }
        }
        let unchanged = previous.filter(|previous| {
            same_certificates(&previous.snapshot.certificates, &snapshot.certificates)
        });
        let tls = match unchanged {
            Some(previous) => previous.tls.clone(),
            None => Arc::new(server_config(&snapshot.certificates)?),
        };
        Ok(Self {
            rules,
            limits: snapshot.limits,
            tls,
            target_roots,
            pins: snapshot.pins.clone(),
            snapshot: Box::new(snapshot),
        })
    }
}

fn same_certificates(one: &[Certificate], other: &[Certificate]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| {
            one.names == other.names
                && one.chain_pem == other.chain_pem
                && one.key_pem.expose() == other.key_pem.expose()
        })
}

fn server_config(certificates: &[Certificate]) -> Result<rustls::ServerConfig, StateError> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider::towards_browsers())
        .with_safe_default_protocol_versions()
        .expect("the provider has the default protocol versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Resolver::new(certificates)?));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = provider::ticketer().map_err(|error| StateError::Certificate {
        names: String::new(),
        why: error.to_string(),
    })?;
    config.send_tls13_tickets = 2;
    config.enable_secret_extraction = true;
    Ok(config)
}

/// Picks the certificate by the name that the browser asks for.
#[derive(Debug)]
struct Resolver {
    by_name: HashMap<String, Arc<CertifiedKey>>,
    default: Arc<CertifiedKey>,
}

impl Resolver {
    fn new(certificates: &[Certificate]) -> Result<Self, StateError> {
        let mut by_name = HashMap::new();
        let mut default = None;
        for certificate in certificates {
            let key = Arc::new(certified_key(certificate)?);
            default.get_or_insert_with(|| key.clone());
            for name in &certificate.names {
                by_name.entry(name.clone()).or_insert_with(|| key.clone());
            }
        }
        Ok(Self {
            by_name,
            default: default.ok_or(StateError::NoCertificate)?,
        })
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let Some(name) = hello.server_name().map(str::to_ascii_lowercase) else {
            return Some(self.default.clone());
        };
        let wildcard = name
            .split_once('.')
            .map(|(_, parent)| format!("*.{parent}"));
        let exact = self.by_name.get(&name);
        let found = exact.or_else(|| self.by_name.get(&wildcard?));
        Some(found.unwrap_or(&self.default).clone())
    }
}

fn certified_key(certificate: &Certificate) -> Result<CertifiedKey, StateError> {
    let failed = |why: &dyn fmt::Display| StateError::Certificate {
        names: certificate.names.join(", "),
        why: why.to_string(),
    };
    let chain = CertificateDer::pem_slice_iter(certificate.chain_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(&error))?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key_pem.expose().as_bytes())
        .map_err(|error| failed(&error))?;
    CertifiedKey::from_der(chain, key, &provider::towards_browsers())
        .map_err(|error| failed(&error))
}

fn roots(application: &Application) -> Result<Option<RootCertStore>, StateError> {
    let CertificatePolicy::Ca(pem) = &application.certificate else {
        return Ok(None);
    };
    let failed = |why: &dyn fmt::Display| StateError::Roots {
        application: application.name.clone(),
        why: why.to_string(),
    };
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let root = root.map_err(|error| failed(&error))?;
        roots.add(root).map_err(|error| failed(&error))?;
    }
    if roots.is_empty() {
        return Err(failed(&"the bundle holds no certificate"));
    }
    Ok(Some(roots))
}
