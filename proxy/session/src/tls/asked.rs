//! Remembers the name that a browser asked for: rustls' unbuffered connection tells it to the
//! certificate resolver alone.

use std::sync::{Arc, OnceLock};

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The resolver of one connection: a listener in front of the real one.
#[derive(Debug)]
pub(super) struct Asked {
    resolver: Arc<dyn ResolvesServerCert>,
    /// The first hello counts; a second one, after a retry, must name the same server.
    name: OnceLock<Option<Box<str>>>,
}

impl Asked {
    /// `config` for one connection, and where the name will be.
    pub(super) fn listen(config: &ServerConfig) -> (Arc<ServerConfig>, Arc<Self>) {
        let mut config = config.clone();
        let asked = Arc::new(Self {
            resolver: config.cert_resolver.clone(),
            name: OnceLock::new(),
        });
        config.cert_resolver = asked.clone();
        (Arc::new(config), asked)
    }

    pub(super) fn name(&self) -> Option<Box<str>> {
        self.name.get().cloned().flatten()
    }
}

impl ResolvesServerCert for Asked {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(Box::from);
        // Set already: this is the hello after a retry.
        let _ = self.name.set(name);
        self.resolver.resolve(hello)
    }

    fn only_raw_public_keys(&self) -> bool {
        self.resolver.only_raw_public_keys()
    }
}
