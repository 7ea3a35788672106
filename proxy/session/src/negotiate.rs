//! Negotiates with a target: X.224 with modern security only, TLS, and the certificate.

use std::sync::Arc;

use futures_lite::AsyncReadExt as _;
use postern_access::{Application, CertificatePolicy, Fingerprint, RdpSecurity};
use postern_snapshot::ToControl;
use postern_wire::x224::{self, Confirm, ConnectionRequest, Protocol, Protocols, Refused};
use rustls_pki_types::ServerName;

use crate::core::{send, within};
use crate::provider;
use crate::tls::{self, TlsStream};
use crate::verifier::{Judge, TargetVerifier};
use crate::{Core, Outcome, State};

/// [RFC 1006 §6] A TPKT header: version, reserved, length in two bytes.
const TPKT_HEADER_BYTES: usize = 4;

/// A target that is ready for CredSSP or the RDP connect sequence.
pub(crate) struct Negotiated<S> {
    pub(crate) stream: TlsStream<S>,
    /// The raw X.224 Connection Confirm.
    pub(crate) confirm: Vec<u8>,
    /// Leaf first, DER.
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) security: &'static str,
}

/// Runs the negotiation on a fresh connection to `application`'s target.
///
/// # Errors
/// When the target has no allowed security in common, its certificate is not the right one, or
/// it does not speak the protocol.
pub(crate) async fn negotiate<C: Core>(
    core: &C,
    state: &State,
    application: &Application,
    offer: &Offer,
    socket: C::Stream,
    address: std::net::SocketAddr,
) -> Result<Negotiated<C::Stream>, Outcome> {
    let work = async {
        let mut socket = socket;
        let (confirm, selected) = agree(offer, &mut socket).await?;
        let stream = secure(state, application, socket, address).await?;
        let chain: Vec<Vec<u8>> = stream
            .agreed()
            .peer_certificates()
            .unwrap_or_default()
            .iter()
            .map(|certificate| certificate.to_vec())
            .collect();
        let leaf = chain
            .first()
            .ok_or(Outcome::TargetTls("no certificate".to_owned()))?;
        let fingerprint = Fingerprint::of(leaf);
        Ok(Negotiated {
            stream,
            confirm,
            chain,
            fingerprint,
            security: selected,
        })
    };
    let negotiated = match within(core, state.limits.negotiate_ms_max, work).await {
        Ok(Ok(negotiated)) => negotiated,
        Ok(Err(outcome)) => {
            if outcome == Outcome::TargetCertificateChanged
                && let Some(expected) = state.pins.get(&application.name)
            {
                report_change(core, application, *expected, None);
            }
            return Err(outcome);
        }
        Err(_) => return Err(Outcome::TargetTimeout),
    };
    if application.certificate == CertificatePolicy::FirstUse
        && !state.pins.contains_key(&application.name)
    {
        first_use(core, state, application, negotiated.fingerprint).await?;
    }
    Ok(negotiated)
}

/// What a target is offered: of what the client wants, what its application allows.
pub(crate) struct Offer {
    /// The X.224 Connection Request, as it is sent.
    request: Vec<u8>,
    protocols: Protocols,
}

impl Offer {
    /// Restricts a client's X.224 Connection Request, before anything is dialled.
    ///
    /// # Errors
    /// When it is malformed, or nothing that is allowed is left of it.
    pub(crate) fn restrict(
        application: &Application,
        x224_request: &[u8],
    ) -> Result<Self, Outcome> {
        let request = ConnectionRequest::parse(x224_request)
            .map_err(|error| Outcome::RequestMalformed(error.label()))?;
        let protocols = request.protocols().intersection(allowed(application));
        if protocols.is_empty() {
            return Err(Outcome::RequestSecurity);
        }
        let request = x224::encode_request(request.cookie.as_ref(), protocols)
            .map_err(|error| Outcome::RequestMalformed(error.label()))?;
        Ok(Self { request, protocols })
    }
}

/// X.224: exactly one thing that was offered must be selected.
async fn agree(
    offer: &Offer,
    socket: &mut (impl futures_lite::AsyncRead + futures_lite::AsyncWrite + Unpin),
) -> Result<(Vec<u8>, &'static str), Outcome> {
    let lost = |_| Outcome::TargetProtocol("the target closed during the X.224 negotiation");
    send(socket, &offer.request).await.map_err(lost)?;
    let mut confirm = vec![0; TPKT_HEADER_BYTES];
    socket.read_exact(&mut confirm).await.map_err(lost)?;
    let length = x224::confirm_length(&confirm)
        .map_err(|error| Outcome::TargetProtocol(error.label()))?
        .ok_or(Outcome::TargetProtocol("short TPKT header"))?;
    let head = confirm.len();
    confirm.resize(length, 0);
    socket
        .read_exact(&mut confirm[head..])
        .await
        .map_err(lost)?;
    let parsed =
        Confirm::parse(&confirm).map_err(|error| Outcome::TargetProtocol(error.label()))?;
    match x224::judge(parsed, offer.protocols) {
        Ok(Protocol::Tls) => Ok((confirm, "tls")),
        Ok(Protocol::Nla) => Ok((confirm, "nla")),
        Ok(Protocol::NlaEx) => Ok((confirm, "nla_ex")),
        Err(Refused::StandardSecurity) => Err(Outcome::TargetStandardSecurity),
        Err(Refused::ByTarget(code)) => Err(Outcome::TargetNegotiation(code)),
        Err(Refused::NotOffered(_)) => Err(Outcome::TargetSecurityNotOffered),
    }
}

fn allowed(application: &Application) -> Protocols {
    application
        .security
        .iter()
        .fold(Protocols::NONE, |all, security| {
            all.union(match security {
                RdpSecurity::Tls => Protocols::TLS,
                RdpSecurity::Nla => Protocols::NLA.union(Protocols::NLA_EX),
            })
        })
}

async fn secure<S: futures_lite::AsyncRead + futures_lite::AsyncWrite + Unpin>(
    state: &State,
    application: &Application,
    socket: S,
    address: std::net::SocketAddr,
) -> Result<TlsStream<S>, Outcome> {
    let provider = provider::towards_targets();
    let judge = judge(state, application)?;
    let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider has the default protocol versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TargetVerifier::new(judge, provider)))
        .with_no_client_auth();
    // A target is met once a session: tickets would only be held.
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_secret_extraction = true;
    let name = ServerName::try_from(application.target.host.clone())
        .unwrap_or_else(|_| ServerName::IpAddress(address.ip().into()));
    tls::connect(Arc::new(config), name, socket)
        .await
        .map_err(|error| tls_outcome(application, &error))
}

fn judge(state: &State, application: &Application) -> Result<Judge, Outcome> {
    match &application.certificate {
        CertificatePolicy::Pin(pins) => Ok(Judge::Pins(pins.clone())),
        CertificatePolicy::FirstUse => Ok(match state.pins.get(&application.name) {
            Some(pin) => Judge::Pins(vec![*pin]),
            None => Judge::FirstUse,
        }),
        CertificatePolicy::Ca(_) => {
            let roots = state.target_roots.get(&application.name).cloned();
            let roots = roots.ok_or_else(|| Outcome::TargetTls("no roots".to_owned()))?;
            Judge::roots(roots, provider::towards_targets()).map_err(Outcome::TargetTls)
        }
    }
}

fn tls_outcome(application: &Application, error: &std::io::Error) -> Outcome {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(why)) => match application.certificate {
            CertificatePolicy::FirstUse => Outcome::TargetCertificateChanged,
            CertificatePolicy::Pin(_) => Outcome::TargetCertificateUntrusted(
                "the certificate is not a pinned one".to_owned(),
            ),
            CertificatePolicy::Ca(_) => Outcome::TargetCertificateUntrusted(format!("{why:?}")),
        },
        _ => Outcome::TargetTls(error.to_string()),
    }
}

/// Asks control to keep the first certificate of a target. Somebody else may have been first.
async fn first_use<C: Core>(
    core: &C,
    state: &State,
    application: &Application,
    seen: Fingerprint,
) -> Result<(), Outcome> {
    let answer = within(
        core,
        state.limits.negotiate_ms_max,
        core.pin(&application.name, seen),
    )
    .await;
    match answer {
        Ok(Some(stored)) if stored == seen => Ok(()),
        Ok(Some(stored)) => {
            report_change(core, application, stored, Some(seen));
            Err(Outcome::TargetCertificateChanged)
        }
        Ok(None) | Err(_) => Err(Outcome::PinUnavailable),
    }
}

fn report_change<C: Core>(
    core: &C,
    application: &Application,
    expected: Fingerprint,
    seen: Option<Fingerprint>,
) {
    core.report(ToControl::CertificateChanged {
        application: application.name.clone(),
        expected,
        seen,
    });
}
