//! UNIX sockets that only the gateway's own user can use.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use tokio::net::{UnixListener, UnixStream};

use crate::ControlError;

/// Makes a folder that is open to its owner alone.
///
/// # Errors
/// When it can't be made or changed.
pub(crate) fn private_folder(path: &Path) -> Result<(), ControlError> {
    let failed = || ControlError::file("folder", path);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed())?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(failed())
}

/// Listens on `path`. The folder is private, so nobody can connect before the mode is set.
///
/// # Errors
/// When the socket can't be made.
pub(crate) fn listen(path: &Path) -> Result<UnixListener, ControlError> {
    let failed = || ControlError::file("socket", path);
    // The state folder is locked: a socket that is there was left by a run that is over.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed()(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed())?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed())?;
    Ok(listener)
}

/// The user at the other end, when it is this process's own or root.
///
/// # Errors
/// When it is anybody else.
pub(crate) fn trusted_uid(stream: &UnixStream) -> io::Result<u32> {
    let uid = stream.peer_cred()?.uid();
    let (own, _) = UnixStream::pair()?;
    if uid == 0 || uid == own.peer_cred()?.uid() {
        return Ok(uid);
    }
    let why = format!("user {uid} may not connect");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn folder_and_socket_are_private_and_a_stale_socket_is_replaced() {
        let folder = tempfile::tempdir().expect("folder");
        let run = folder.path().join("state/run");
        private_folder(&run).expect("made");
        let mode = |path: &Path| {
            let metadata = std::fs::metadata(path).expect("there");
            metadata.permissions().mode() & 0o777
        };
        assert_eq!(mode(&run), 0o700);
        let socket = run.join("web.sock");
        drop(listen(&socket).expect("listens"));
        let listener = listen(&socket).expect("listens again");
        assert_eq!(mode(&socket), 0o600);
        let client = UnixStream::connect(&socket).await.expect("connects");
        let (accepted, _) = listener.accept().await.expect("accepts");
        trusted_uid(&accepted).expect("the own user is trusted");
        drop(client);
    }
}
