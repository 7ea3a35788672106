//! Which library does what in TLS. Every configuration names its provider, so that none depends on
//! a default. The reasons are in `docs/adr/0004-tls-provider-and-record-layer.md`.

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;
use rustls::server::ProducesTickets;
use rustls::{CipherSuite, Error, NamedGroup};

static BROWSERS: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(base()));
static TARGETS: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(for_targets(base())));

/// What is used towards browsers: the post-quantum hybrid first, which they all offer.
#[must_use]
pub fn towards_browsers() -> Arc<CryptoProvider> {
    BROWSERS.clone()
}

/// What is used towards targets: classical groups alone, the cheaper cipher first.
#[must_use]
pub fn towards_targets() -> Arc<CryptoProvider> {
    TARGETS.clone()
}

/// Seals and opens session tickets, under keys that change and never leave the process.
///
/// # Errors
/// When there is no randomness.
pub fn ticketer() -> Result<Arc<dyn ProducesTickets>, Error> {
    #[cfg(feature = "fips")]
    return rustls::crypto::aws_lc_rs::Ticketer::new();
    #[cfg(not(feature = "fips"))]
    rustls::crypto::ring::Ticketer::new()
}

#[cfg(feature = "fips")]
fn base() -> CryptoProvider {
    rustls::crypto::default_fips_provider()
}

/// ring seals and hashes; aws-lc-rs signs, verifies and agrees on keys.
#[cfg(not(feature = "fips"))]
fn base() -> CryptoProvider {
    use rustls::crypto::aws_lc_rs::kx_group;
    use rustls::crypto::{aws_lc_rs, ring};

    let (symmetric, asymmetric) = (ring::default_provider(), aws_lc_rs::default_provider());
    CryptoProvider {
        cipher_suites: symmetric.cipher_suites,
        secure_random: symmetric.secure_random,
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        signature_verification_algorithms: asymmetric.signature_verification_algorithms,
        key_provider: asymmetric.key_provider,
    }
}

/// A hybrid's key share makes a hello longer than one packet, which some RDP servers do not take.
fn for_targets(mut provider: CryptoProvider) -> CryptoProvider {
    provider.kx_groups.retain(|group| {
        matches!(
            group.name(),
            NamedGroup::X25519 | NamedGroup::secp256r1 | NamedGroup::secp384r1
        )
    });
    provider
        .cipher_suites
        .sort_by_key(|suite| !is_cheap(suite.suite()));
    provider
}

/// AES-128-GCM costs a fifth less than AES-256-GCM; a target that prefers another still decides.
fn is_cheap(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(provider: &CryptoProvider) -> Vec<NamedGroup> {
        provider
            .kx_groups
            .iter()
            .map(|group| group.name())
            .collect()
    }

    #[test]
    fn browsers_get_the_post_quantum_hybrid_first_and_targets_never() {
        let hybrid = NamedGroup::X25519MLKEM768;
        let (browsers, targets) = (groups(&towards_browsers()), groups(&towards_targets()));
        assert!(
            !targets.is_empty() && !targets.contains(&hybrid),
            "{targets:?}"
        );
        if cfg!(not(feature = "fips")) {
            assert_eq!((browsers[0], targets[0]), (hybrid, NamedGroup::X25519));
        }
    }

    #[test]
    fn every_suite_is_offered_to_targets_the_cheap_ones_first() {
        let (browsers, targets) = (towards_browsers(), towards_targets());
        let (all, sorted) = (&browsers.cipher_suites, &targets.cipher_suites);
        assert!(all.len() == sorted.len() && all.iter().all(|suite| sorted.contains(suite)));
        assert!(sorted.is_sorted_by_key(|suite| !is_cheap(suite.suite())));
        assert!(is_cheap(sorted[0].suite()));
    }

    #[test]
    fn the_validated_module_is_used_throughout_where_it_is_asked_for() {
        let asked = cfg!(feature = "fips");
        for provider in [towards_browsers(), towards_targets()] {
            assert_eq!(provider.fips(), asked);
        }
    }
}
