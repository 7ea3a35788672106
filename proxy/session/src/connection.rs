//! The way of one connection, stage by stage, from accept to its one audit record.

use std::future::Future;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::rc::Rc;

use futures_lite::FutureExt as _;
use futures_lite::future::or;
use postern_access::application::APPLICATION_COOKIE;
use postern_access::{Permit, UnixSeconds, UpgradeRequest};
use postern_relay::Report;
use postern_snapshot::Limits;
use postern_wire::http1::{self, Head, UpgradeError};
use postern_wire::rdcleanpath;
use postern_wire::websocket::{self, Decoder, DecoderLimits, TextPolicy};

use crate::account::Account;
use crate::authorize::{Authorized, authorize};
use crate::core::send;
use crate::inbox::Inbox;
use crate::negotiate::{Negotiated, negotiate};
use crate::relay::{self, Desktop};
use crate::tls::TlsStream;
use crate::{Core, Full, Outcome, Seat, Stop, cleanpath, close, dial, handshake, upgrade, web};

/// What a connection turned out to be.
enum Request {
    /// Not a session: already served.
    Web,
    /// The 101 is out.
    Session(Box<Authorized>),
    #[cfg(feature = "echo")]
    Echo,
}

/// A desktop that the core carries.
struct Live<C: Core> {
    carriage: C::Carriage,
    stop: Rc<Stop>,
    _connection: Seat,
    _session: Seat,
}

/// Serves one accepted connection to its end. Exactly one connection record comes of it, also when
/// `stop` cuts it off.
pub async fn serve<C: Core>(
    core: &C,
    socket: C::Stream,
    source: SocketAddr,
    local: SocketAddr,
    stop: &Stop,
) {
    let mut account = Account::open(core, core.meter(&socket), source, local);
    let ended = {
        // What it takes to open a session is freed when it is live: it may live for hours.
        let opening = Box::pin(open(core, socket, local, &mut account));
        // A mistake of ours in one connection ends that connection, not its core.
        let mut work = pin!(AssertUnwindSafe(follow(opening)).catch_unwind());
        let carried = async { work.as_mut().await.unwrap_or((Outcome::Internal, None)) };
        or(carried, async { (stop.raised().await, None) }).await
    };
    let (outcome, report) = ended;
    if let Some(report) = report {
        account.report(&report);
    }
    account.close(core, &outcome);
}

/// Waits for a session to open, then for its end; how it ended, and what the relay says of it.
async fn follow<C: Core>(
    opening: Pin<Box<impl Future<Output = Result<Live<C>, Outcome>>>>,
) -> (Outcome, Option<Report>) {
    let live = match opening.await {
        Ok(live) => live,
        Err(outcome) => return (outcome, None),
    };
    let (outcome, report) = relay::attend(live.carriage, &live.stop).await;
    (outcome, Some(report))
}

/// Everything before a desktop lives. Nothing of it is held after that.
async fn open<C: Core>(
    core: &C,
    socket: C::Stream,
    local: SocketAddr,
    account: &mut Account,
) -> Result<Live<C>, Outcome> {
    let seat = core
        .admit(account.source().ip())
        .map_err(|full| match full {
            Full::ConnectionsOfSource => Outcome::SourceFull,
            _ => Outcome::ConnectionsFull,
        })?;
    let mut browser = handshake::shake(core, &core.state(), socket, account.source().ip()).await?;
    let limits = core.state().limits;
    match request(core, &limits, &mut browser, local, account).await {
        Ok(Request::Web) => Err(Outcome::Web),
        // In memory of its own: a web connection may stay for minutes and needs none of it.
        Ok(Request::Session(authorized)) => {
            Box::pin(session(core, browser, *authorized, account, seat)).await
        }
        #[cfg(feature = "echo")]
        Ok(Request::Echo) => Err(crate::echo::serve(core, &mut browser).await),
        Err(outcome) => {
            close::answer_http(core, &mut browser, &outcome).await;
            Err(outcome)
        }
    }
}

/// Reads the request head; serves what is not an application's WebSocket; authorizes what is.
async fn request<C: Core>(
    core: &C,
    limits: &Limits,
    browser: &mut TlsStream<C::Stream>,
    local: SocketAddr,
    account: &mut Account,
) -> Result<Request, Outcome> {
    let mut buffer = Vec::new();
    upgrade::read_head(core, limits, browser, &mut buffer).await?;
    // Only now: a browser may take seconds to send its head, and what was revoked or forbidden in
    // the meantime must count. From here to the seat in the live list nothing waits, so that a
    // change that comes later finds the session there.
    let state = &*core.state();
    let head = http1::parse_head(&buffer).map_err(upgrade::malformed)?;
    let head = head.expect("read_head returns when the head is whole");
    let host = upgrade::host(&head, browser.server_name())?;

    #[cfg(feature = "echo")]
    if head.path == crate::echo::PATH && head.wants_websocket() {
        let accept = accept(&head, &buffer)?;
        let sent = send(browser, &accept).await;
        sent.map_err(|_| Outcome::ClosedEarly)?;
        return Ok(Request::Echo);
    }

    let application = state
        .rules
        .application_at(host, head.path)
        .filter(|_| head.wants_websocket());
    let Some(application) = application else {
        web::hand_over(core, state, browser, &buffer, account.source(), local).await?;
        return Ok(Request::Web);
    };
    let accept = accept(&head, &buffer)?;
    let request = UpgradeRequest {
        application,
        origin: head.header("origin").map_err(upgrade::malformed)?,
        token: head
            .cookie(APPLICATION_COOKIE)
            .map_err(upgrade::malformed)?,
        source: account.source().ip(),
        country: None,
        now: UnixSeconds(core.unix_ms() / 1000),
    };
    let authorized = authorize(core, state, &request, account).await?;
    let sent = send(browser, &accept).await;
    sent.map_err(|_| Outcome::ClosedEarly)?;
    Ok(Request::Session(Box::new(authorized)))
}

/// The 101 for a head at the start of `buffer`, behind which nothing may stand yet.
fn accept(head: &Head<'_>, buffer: &[u8]) -> Result<Vec<u8>, Outcome> {
    let accept = http1::websocket_accept(head).map_err(refused_upgrade)?;
    if buffer.len() > head.length {
        return Err(Outcome::UpgradeMalformed(
            "bytes before the upgrade was accepted",
        ));
    }
    Ok(accept)
}

fn refused_upgrade(error: UpgradeError) -> Outcome {
    match error {
        UpgradeError::Version => Outcome::UpgradeVersion,
        other => Outcome::UpgradeMalformed(other.label()),
    }
}

/// From the 101 to the live desktop.
async fn session<C: Core>(
    core: &C,
    mut browser: TlsStream<C::Stream>,
    authorized: Authorized,
    account: &mut Account,
    connection: Seat,
) -> Result<Live<C>, Outcome> {
    let Authorized { permit, stop, seat } = authorized;
    let asked = core.now();
    let desktop = prepare(core, &mut browser, &permit, account);
    let (negotiated, inbox, decoder) = match or(async { Err(stop.raised().await) }, desktop).await {
        Ok(prepared) => prepared,
        Err(outcome) => {
            close::answer_websocket(core, &mut browser, &outcome).await;
            return Err(outcome);
        }
    };
    account.desktop(
        core,
        negotiated.security,
        negotiated.fingerprint.to_string(),
        asked,
    );
    let desktop = Desktop {
        browser,
        inbox,
        decoder,
        target: negotiated.stream,
    };
    let limits = core.state().limits;
    let times = relay::times(&limits, &permit, core.unix_ms());
    let begin = relay::begin(core, &limits, desktop, times);
    match or(async { Err((stop.raised().await, None)) }, begin).await {
        Ok(carriage) => {
            account.handed_over();
            Ok(Live {
                carriage,
                stop,
                _connection: connection,
                _session: seat,
            })
        }
        Err((outcome, browser)) => {
            if let Some(mut browser) = browser {
                close::answer_websocket(core, &mut browser, &outcome).await;
            }
            Err(outcome)
        }
    }
}

/// From the `RDCleanPath` request to its answer; with the target comes what is left of the reading
/// side.
async fn prepare<C: Core>(
    core: &C,
    browser: &mut TlsStream<C::Stream>,
    permit: &Permit,
    account: &mut Account,
) -> Result<(Negotiated<C::Stream>, Inbox, Decoder), Outcome> {
    let state = &*core.state();
    let limits = DecoderLimits {
        frame_bytes_max: state.limits.frame_bytes_max,
    };
    let mut decoder = Decoder::new(limits, TextPolicy::Refuse);
    let mut inbox = Inbox::new();
    let application = permit.application();
    let offer = cleanpath::receive(
        core,
        &state.limits,
        browser,
        &mut inbox,
        &mut decoder,
        application,
    )
    .await?;
    let (socket, address) = dial::dial(core, permit, &state.limits).await?;
    account.dialled(core, &socket, address);
    let negotiated = negotiate(core, state, application, &offer, socket, address).await?;
    let response =
        rdcleanpath::response(&address.to_string(), &negotiated.confirm, &negotiated.chain);
    let frame = websocket::binary_frame(&response);
    let sent = send(browser, &frame).await;
    sent.map_err(|_| Outcome::BrowserLost)?;
    Ok((negotiated, inbox, decoder))
}
