//! The file beneath a journal: written and made durable without keeping its core waiting.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};

use glommio::io::{BufferedFile, OpenOptions};
use tokio::sync::oneshot;

use crate::front::{self, Kind};

/// Permissions of a new file.
const MODE: u32 = 0o640;

/// An open file of one core.
pub(super) enum JournalFile {
    Ring(BufferedFile),
    /// A thread that does what its core asks, one thing after the other; it ends with this sender.
    /// The journal asks for one batch at a time, so that is how many wait here.
    Thread(Sender<Batch>),
}

/// Bytes for the file, and who waits until they are on disk.
pub(super) struct Batch {
    bytes: Vec<u8>,
    at: u64,
    done: oneshot::Sender<io::Result<()>>,
}

impl JournalFile {
    /// Opens or makes the file; its length, too.
    ///
    /// # Errors
    /// As the file system says.
    pub(super) async fn open(path: &Path) -> io::Result<(Self, u64)> {
        match front::kind() {
            Kind::IoUring => {
                let file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create(true)
                    .mode(MODE)
                    .buffered_open(path)
                    .await?;
                let length = file.file_size().await?;
                Ok((Self::Ring(file), length))
            }
            Kind::Epoll => {
                let file = File::options()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .mode(MODE)
                    .open(path)?;
                let length = file.metadata()?.len();
                let (batches, asked) = channel();
                std::thread::Builder::new()
                    .name("journal".to_owned())
                    .spawn(move || write_what_comes(&file, &asked))?;
                Ok((Self::Thread(batches), length))
            }
        }
    }

    /// Writes a batch at an offset; resolves when it is on disk.
    ///
    /// # Errors
    /// When it is not, or not all of it.
    pub(super) async fn write_durably(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        match self {
            Self::Ring(file) => {
                let mut written = 0;
                while written < bytes.len() {
                    let rest = bytes[written..].to_vec();
                    match file.write_at(rest, at + written as u64).await? {
                        0 => return Err(io::ErrorKind::WriteZero.into()),
                        more => written += more,
                    }
                }
                Ok(file.fdatasync().await?)
            }
            Self::Thread(batches) => {
                let (done, on_disk) = oneshot::channel();
                let bytes = bytes.to_vec();
                let gone = || io::Error::other("the journal's thread is gone");
                batches
                    .send(Batch { bytes, at, done })
                    .map_err(|_| gone())?;
                on_disk.await.map_err(|_| gone())?
            }
        }
    }
}

fn write_what_comes(file: &File, asked: &Receiver<Batch>) {
    while let Ok(Batch { bytes, at, done }) = asked.recv() {
        let result = file
            .write_all_at(&bytes, at)
            .and_then(|()| file.sync_data());
        // The core may have ended meanwhile.
        let _ = done.send(result);
    }
}
