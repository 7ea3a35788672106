//! The engine's end of the link to control: plain threads that block, away from the cores.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use postern_session::State;
use postern_snapshot::{Snapshot, ToControl, ToEngine, frame};

use super::{Command, Cores, Node};

/// Between attempts to reach a control that is not there.
const RETRY: Duration = Duration::from_millis(200);

/// How soon the writer notices that the reader has lost control.
const LOOK: Duration = Duration::from_millis(100);

/// Cores answer within this time, or the answer goes on without them.
const CORE_ANSWER_MAX: Duration = Duration::from_secs(1);

/// A control that takes no bytes for this long is as good as gone.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// Connects, waiting for control for as long as it takes.
pub(super) fn connect(path: &Path) -> UnixStream {
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return stream,
            Err(_) => std::thread::sleep(RETRY),
        }
    }
}

/// Reads messages off a link, whatever pieces they come in.
pub(super) struct Messages {
    stream: UnixStream,
    bytes: Vec<u8>,
}

impl Messages {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            bytes: Vec::new(),
        }
    }

    /// The next message; `None` when control is gone or says what can't be understood.
    pub(super) fn next(&mut self) -> Option<ToEngine> {
        let mut chunk = vec![0; 64 * 1024];
        loop {
            match frame::decode(&self.bytes) {
                Ok(Some((message, used))) => {
                    self.bytes.drain(..used);
                    return Some(message);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%error, "control sent what is not a message");
                    return None;
                }
            }
            match self.stream.read(&mut chunk) {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.bytes.extend_from_slice(&chunk[..read]),
            }
        }
    }

    /// The first snapshot of a fresh link.
    pub(super) fn snapshot(&mut self) -> Option<Snapshot> {
        loop {
            if let ToEngine::Snapshot(snapshot) = self.next()? {
                return Some(*snapshot);
            }
        }
    }
}

/// Serves the link for as long as the process lives; `first` is the link that is up already.
pub(super) fn serve(
    node: &Arc<Node>,
    cores: &Cores,
    path: &Path,
    mut first: Option<Messages>,
    outbox: &Receiver<ToControl>,
) {
    loop {
        let messages = first.take().unwrap_or_else(|| Messages::new(connect(path)));
        let alive = AtomicBool::new(true);
        let writer = messages.stream.try_clone();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                read(node, cores, messages);
                alive.store(false, Ordering::Relaxed);
            });
            match writer {
                Ok(stream) => write(node, cores, stream, outbox, &alive),
                Err(error) => tracing::error!(%error, "the link to control can't be written"),
            }
        });
        tracing::warn!("the link to control is down; live sessions go on");
        std::thread::sleep(RETRY);
    }
}

fn read(node: &Arc<Node>, cores: &Cores, mut messages: Messages) {
    while let Some(message) = messages.next() {
        match message {
            ToEngine::Snapshot(snapshot) => adopt(node, cores, *snapshot),
            ToEngine::Lease => {}
            ToEngine::Kill { selector } => {
                cores
                    .iter()
                    .for_each(|core| core.send(Command::Kill(selector.clone())));
            }
            ToEngine::Pin { request, stored } => {
                cores
                    .iter()
                    .for_each(|core| core.send(Command::Pin { request, stored }));
            }
            ToEngine::Metrics { request } => {
                let measured = ask(cores, Command::Metrics);
                node.tell_control(ToControl::Metrics {
                    request,
                    cores: measured,
                });
            }
            ToEngine::Drain => node.drain(cores),
        }
        // Every word of control renews the lease.
        node.renew_lease();
    }
}

/// Puts a snapshot in force on every core. One that can't be used changes nothing.
fn adopt(node: &Arc<Node>, cores: &Cores, snapshot: Snapshot) {
    let version = snapshot.version;
    let previous = node.state.load_full();
    match State::compile(snapshot, Some(&previous)) {
        Ok(state) => {
            node.state.store(Arc::new(state));
            ask(cores, Command::StateChanged);
            tracing::info!(version, "snapshot in force");
            node.tell_control(ToControl::Applied { version });
        }
        Err(error) => {
            tracing::error!(version, %error, "snapshot refused; the one before stays in force")
        }
    }
}

/// Asks every core and collects what answers in time.
fn ask<T>(cores: &Cores, command: impl Fn(std::sync::mpsc::Sender<T>) -> Command) -> Vec<T> {
    let (sender, receiver) = channel();
    cores
        .iter()
        .for_each(|core| core.send(command(sender.clone())));
    drop(sender);
    let mut answers = Vec::with_capacity(cores.len());
    while answers.len() < cores.len() {
        match receiver.recv_timeout(CORE_ANSWER_MAX) {
            Ok(answer) => answers.push(answer),
            Err(_) => break,
        }
    }
    answers
}

fn write(
    node: &Arc<Node>,
    cores: &Cores,
    mut stream: UnixStream,
    outbox: &Receiver<ToControl>,
    alive: &AtomicBool,
) {
    let hello = ToControl::Hello {
        pid: std::process::id(),
        cores: cores.len(),
        version: node.state.load().rules.version,
        info: node.info.get().cloned().unwrap_or_default(),
        sessions: node.ledger.sessions(),
    };
    let timeout = stream.set_write_timeout(Some(WRITE_MAX));
    let mut next = Some(hello);
    while alive.load(Ordering::Relaxed) && timeout.is_ok() {
        let message = match next.take() {
            Some(message) => message,
            None => match outbox.recv_timeout(LOOK) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            },
        };
        let written = frame::encode(&message).map(|bytes| stream.write_all(&bytes));
        if !matches!(written, Ok(Ok(()))) {
            break;
        }
    }
    // The reader may still wait on the socket: end it for both.
    let _ = stream.shutdown(std::net::Shutdown::Both);
}
