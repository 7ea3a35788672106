//! Answers on the socket: who may ask, how many at a time, and how long.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{REQUEST_BYTES_MAX, Request, Response};
use crate::ConductorError;

/// Who asks at a time.
const CONNECTIONS_MAX: usize = 32;

/// A connection without a request for this long is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Whoever waits for the socket to be there and looks again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who answers.
pub trait Answers: Send + Sync + 'static {
    fn answer(&self, request: Request) -> impl Future<Output = Response> + Send;
}

/// Listens on `path`, in a folder that is open to its owner alone.
///
/// # Errors
/// When folder or socket can't be made.
pub fn listen(path: &Path) -> Result<UnixListener, ConductorError> {
    let failed = || ConductorError::file("socket", path);
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed())?;
    }
    // The state folder is locked: a socket that is there was left by a run that is over.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed()(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed())?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed())?;
    Ok(listener)
}

/// Serves for as long as the conductor lives.
pub async fn serve<A: Answers>(answers: Arc<A>, listener: UnixListener) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if let Err(error) = trusted(&stream) {
            tracing::error!(%error, "a stranger at the conductor's socket");
            continue;
        }
        let Ok(seat) = seats.clone().try_acquire_owned() else {
            continue;
        };
        let answers = answers.clone();
        tokio::spawn(async move {
            converse(&*answers, stream).await;
            drop(seat);
        });
    }
}

/// The user at the other end is this process's own, or root.
fn trusted(stream: &UnixStream) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let (own, _) = UnixStream::pair()?;
    if uid == 0 || uid == own.peer_cred()?.uid() {
        return Ok(());
    }
    let why = format!("user {uid} may not connect");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

async fn converse<A: Answers>(answers: &A, stream: UnixStream) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(REQUEST_BYTES_MAX);
        let read = timeout(IDLE_MAX, limited.read_until(b'\n', &mut line)).await;
        if !matches!(read, Ok(Ok(1..))) {
            return;
        }
        let response = match serde_json::from_slice(&line) {
            Ok(request) => answers.answer(request).await,
            Err(error) => Response::Refused(format!("the request is not understood: {error}")),
        };
        let mut line = serde_json::to_vec(&response).expect("answers are text and numbers");
        line.push(b'\n');
        if !matches!(timeout(IDLE_MAX, writer.write_all(&line)).await, Ok(Ok(()))) {
            return;
        }
    }
}
