//! Asking a running conductor, from the command line.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use postern_steering::NodeId;

use super::{Announcement, RESPONSE_BYTES_MAX, Request, Response, Status, Tuple};

/// The conductor answers within this time.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error(
        "the conductor can't be reached at its socket; is the gateway running with steering, and are you its user or root?"
    )]
    Unreachable(#[source] std::io::Error),
    #[error("the link to the conductor broke")]
    Broken(#[source] std::io::Error),
    #[error(
        "the conductor answered what this program does not understand; is it of another version?"
    )]
    NotUnderstood,
    /// The conductor's own words.
    #[error("{0}")]
    Refused(String),
}

/// A connection to a running conductor; it blocks.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<UnixStream>,
}

impl Client {
    /// `socket` is [`crate::Settings::socket`].
    ///
    /// # Errors
    /// When the conductor does not answer there.
    pub fn connect(socket: &Path) -> Result<Self, AdminError> {
        let stream = UnixStream::connect(socket).map_err(AdminError::Unreachable)?;
        let patience = Some(ANSWER_MAX);
        stream
            .set_read_timeout(patience)
            .map_err(AdminError::Broken)?;
        stream
            .set_write_timeout(patience)
            .map_err(AdminError::Broken)?;
        Ok(Self {
            reader: BufReader::new(stream),
        })
    }

    /// Asks one thing.
    ///
    /// # Errors
    /// When there is no answer, or the conductor refuses.
    pub fn ask(&mut self, request: &Request) -> Result<Response, AdminError> {
        let mut line = serde_json::to_vec(request).expect("requests are text and numbers");
        line.push(b'\n');
        let stream = self.reader.get_mut();
        stream.write_all(&line).map_err(AdminError::Broken)?;
        let mut answer = Vec::new();
        self.reader
            .by_ref()
            .take(RESPONSE_BYTES_MAX)
            .read_until(b'\n', &mut answer)
            .map_err(AdminError::Broken)?;
        match serde_json::from_slice(&answer) {
            Ok(Response::Refused(why)) => Err(AdminError::Refused(why)),
            Ok(response) => Ok(response),
            Err(_) if answer.is_empty() => {
                Err(AdminError::Broken(std::io::ErrorKind::UnexpectedEof.into()))
            }
            Err(_) => Err(AdminError::NotUnderstood),
        }
    }

    fn words(&mut self, request: &Request) -> Result<String, AdminError> {
        match self.ask(request)? {
            Response::Done(words) | Response::Text(words) => Ok(words),
            _ => Err(AdminError::NotUnderstood),
        }
    }

    /// How node and cluster stand.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn status(&mut self) -> Result<Status, AdminError> {
        match self.ask(&Request::Status)? {
            Response::Status(status) => Ok(*status),
            _ => Err(AdminError::NotUnderstood),
        }
    }

    /// Sends new connections elsewhere; returns what was done in words.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn drain(&mut self, node: NodeId) -> Result<String, AdminError> {
        self.words(&Request::Drain(node.get()))
    }

    /// Takes a drain back.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn undrain(&mut self, node: NodeId) -> Result<String, AdminError> {
        self.words(&Request::Undrain(node.get()))
    }

    /// Takes a node out of the cluster; without `yes` tells only what that would end.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn remove(&mut self, node: NodeId, yes: bool) -> Result<String, AdminError> {
        let node = node.get();
        self.words(&Request::Remove { node, yes })
    }

    /// Where the packets of a connection go, and why.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn explain(&mut self, tuple: Tuple) -> Result<String, AdminError> {
        self.words(&Request::Explain(tuple))
    }

    /// Reads the settings again; returns what was taken over in words.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn reload(&mut self) -> Result<String, AdminError> {
        self.words(&Request::Reload)
    }

    /// Measurements, as Prometheus reads them.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn metrics(&mut self) -> Result<String, AdminError> {
        self.words(&Request::Metrics)
    }

    /// Whether routers should send packets of the services here.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn announcement(&mut self) -> Result<Announcement, AdminError> {
        match self.ask(&Request::Announce)? {
            Response::Announcement(announcement) => Ok(announcement),
            _ => Err(AdminError::NotUnderstood),
        }
    }
}
