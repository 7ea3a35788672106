//! Sessions that are opened and closed over and over.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::flows::ping;
use super::{BUFFER_BYTES, Observe, Shared, all, order, own_cpu_ns, server_cpu_ns};
use crate::load::command::{Command, LAST};
use crate::load::measured::Measured;
use crate::load::open::Opener;
use crate::load::{Job, Phase};
use crate::measure;

/// Until every client has opened a session or more.
const WARM_SECONDS: f64 = 0.2;

/// Opens, says one word and closes, over and over.
pub(super) async fn open_and_close(
    job: &Job,
    concurrency: usize,
    seconds: f64,
    resumed: bool,
    observe: Observe<'_>,
) -> Result<Measured> {
    // A person's browser each: what one resumes, no other can have used up.
    let openers = (0..concurrency).map(|number| {
        let opener = Opener::new(&job.target, resumed, BUFFER_BYTES)?;
        Ok(Rc::new(opener.one_of(number, concurrency)))
    });
    let openers = openers.collect::<Result<Vec<_>>>()?;
    let shared = Shared::default();
    let counts: Rc<RefCell<Measured>> = Rc::default();
    let round = async |seconds: f64| {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        let clients = openers.iter().map(|opener| {
            let (opener, shared, counts) = (opener.clone(), shared.clone(), counts.clone());
            async move {
                while Instant::now() < end {
                    let from = measure::monotonic_ns();
                    let mut stream = opener.open().await?;
                    order(&mut stream, Command::Echo).await?;
                    ping(&mut stream, LAST, &shared.pattern).await?;
                    let ns = measure::monotonic_ns() - from;
                    shared.latency.borrow_mut().record(ns);
                    let mut counts = counts.borrow_mut();
                    counts.sessions += 1;
                    counts.resumed += u64::from(stream.is_resumed());
                }
                Ok(())
            }
        });
        all(clients).await
    };
    round(WARM_SECONDS).await?;
    counts.take();
    shared.latency.take();
    let server_before = server_cpu_ns(&mut openers[0].open().await?).await?;
    observe(Phase::Ready)?;
    let (begin, cpu_before) = (Instant::now(), own_cpu_ns()?);
    round(seconds).await?;
    let (seconds, cpu_after) = (begin.elapsed().as_secs_f64(), own_cpu_ns()?);
    observe(Phase::Done)?;
    let server_after = server_cpu_ns(&mut openers[0].open().await?).await?;
    let counted = counts.take();
    Ok(Measured {
        seconds,
        messages: counted.sessions,
        latency: shared.latency.take(),
        client_cpu_ns: cpu_after - cpu_before,
        server_cpu_ns: server_after - server_before,
        ..counted
    })
}
