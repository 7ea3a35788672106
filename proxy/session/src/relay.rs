//! Gives a desktop that is ready to the core's relay, and waits for its end.

use futures_lite::future::or;
use postern_access::Permit;
use postern_relay::flow::{Framing, Line};
use postern_relay::memory::RECEIVE_BYTES_MAX;
use postern_relay::{Ended, Flow, Leg, Report, Times};
use postern_snapshot::Limits;
use postern_wire::websocket::Decoder;

use crate::close::GOODBYE_MS_MAX;
use crate::core::{Carriage, within};
use crate::inbox::{INBOX_BYTES, Inbox};
use crate::tls::{LEFTOVER_BYTES_MAX, Leftover, TlsStream};
use crate::{Core, Outcome, Stop, outcome};

const _: () = assert!(
    INBOX_BYTES + LEFTOVER_BYTES_MAX <= RECEIVE_BYTES_MAX,
    "what was read before fits a flow's memory"
);

/// A desktop that is ready to be carried.
pub(crate) struct Desktop<S> {
    pub(crate) browser: TlsStream<S>,
    /// What was read of the browser's stream and not consumed, and the frame that it stands in.
    pub(crate) inbox: Inbox,
    pub(crate) decoder: Decoder,
    pub(crate) target: TlsStream<S>,
}

/// How long the flow of a session may take for what.
pub(crate) fn times(limits: &Limits, permit: &Permit, unix_ms: u64) -> Times {
    let until_ms = permit.valid_until().0.saturating_mul(1000);
    Times {
        // Counted on the monotonic clock from here on: a wall clock that jumps ends nothing. A time
        // of 0 would be no limit.
        absolute_ms: until_ms.saturating_sub(unix_ms).max(1),
        idle_ms: permit.application().session.idle_s.saturating_mul(1000),
        ping_ms: limits.ping_ms,
        stall_ms: limits.stall_ms_max,
        half_close_ms: limits.half_close_ms_max,
        goodbye_ms: GOODBYE_MS_MAX,
    }
}

/// Hands a desktop over to the core: sockets, record layers, and every byte that was read too early.
///
/// # Errors
/// When one of the peers is gone already; the browser's stream comes back if it can still be told.
pub(crate) async fn begin<C: Core>(
    core: &C,
    limits: &Limits,
    desktop: Desktop<C::Stream>,
    times: Times,
) -> Result<C::Carriage, (Outcome, Option<TlsStream<C::Stream>>)> {
    let Desktop {
        browser,
        mut inbox,
        decoder,
        target,
    } = desktop;
    let handed = within(core, limits.negotiate_ms_max, target.into_relay()).await;
    let lost = match handed {
        Ok(Ok((_, _, Leftover { closed: true, .. }))) => Outcome::TargetClosed,
        Ok(Ok(target)) => {
            let handed = within(core, limits.negotiate_ms_max, browser.into_relay()).await;
            return match handed {
                Ok(Ok(browser)) if !browser.2.closed => {
                    let framing = Framing::WebSocket(Box::new(decoder));
                    join(core, browser, inbox.filled(), target, framing, times)
                        .map_err(|outcome| (outcome, None))
                }
                _ => Err((Outcome::BrowserLost, None)),
            };
        }
        Ok(Err(_)) => Outcome::TargetLost,
        Err(_) => Outcome::TargetTimeout,
    };
    Err((lost, Some(browser)))
}

/// A socket, its record layer, and what had arrived.
type Handed<S> = (S, postern_relay::Records, Leftover);

fn join<C: Core>(
    core: &C,
    browser: Handed<C::Stream>,
    consumed_not: &[u8],
    target: Handed<C::Stream>,
    framing: Framing,
    times: Times,
) -> Result<C::Carriage, Outcome> {
    let (client_socket, client_records, from_browser) = browser;
    let (target_socket, target_records, from_target) = target;
    let mut flow = Flow::framed(
        Line::Tls(Box::new(client_records)),
        Line::Tls(Box::new(target_records)),
        framing,
        times,
        outcome::last_words,
    );
    for (leg, socket) in Leg::BOTH.into_iter().zip([&client_socket, &target_socket]) {
        flow.seed_stream(leg, core.meter(socket).count());
    }
    let browser_fits =
        flow.seed_plain(Leg::Client, consumed_not) && from_browser.seed(&mut flow, Leg::Client);
    let target_fits = from_target.seed(&mut flow, Leg::Target);
    match (browser_fits, target_fits) {
        (true, true) => Ok(core.carry(client_socket, target_socket, flow)),
        (false, _) => Err(Outcome::BrowserLost),
        (true, false) => Err(Outcome::TargetProtocol("too much before the first input")),
    }
}

/// Waits until the desktop has ended, which `stop` makes it; how, and what the relay says of it.
pub(crate) async fn attend(mut carriage: impl Carriage, stop: &Stop) -> (Outcome, Report) {
    let ended = or(async { Err(stop.raised().await) }, async {
        Ok((&mut carriage).await)
    });
    match ended.await {
        Ok(report) => (Outcome::from(&report.ended), report),
        Err(outcome) => {
            carriage.stop(outcome::goodbye(&outcome));
            let report = carriage.await;
            match &report.ended {
                Ended::Stopped => (outcome, report),
                // It was ending by itself already.
                ended => (Outcome::from(ended), report),
            }
        }
    }
}
