//! Asking a running control, from the command line.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use postern_access::Fingerprint;
use postern_snapshot::LiveSession;
use postern_snapshot::message::KillSelector;

use super::{RESPONSE_BYTES_MAX, Request, Response, Revoked, Status};

/// Control answers within this time.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Why an administrator got no answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error(
        "control can't be reached at its socket; is the gateway running, and are you its user or root?"
    )]
    Unreachable(#[source] std::io::Error),
    #[error("the link to control broke")]
    Broken(#[source] std::io::Error),
    #[error("control answered what this program does not understand; is it of another version?")]
    NotUnderstood,
    /// Control's own words.
    #[error("{0}")]
    Refused(String),
}

/// A connection to a running control; it blocks.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<UnixStream>,
}

impl Client {
    /// `socket` is [`crate::Config::admin_socket`].
    ///
    /// # Errors
    /// When control does not answer there.
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
    /// When there is no answer, or control refuses.
    pub fn ask(&mut self, request: &Request) -> Result<Response, AdminError> {
        let mut line = serde_json::to_vec(request).expect("requests are text");
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

    fn done(&mut self, request: &Request) -> Result<String, AdminError> {
        match self.ask(request)? {
            Response::Done(words) => Ok(words),
            _ => Err(AdminError::NotUnderstood),
        }
    }

    /// The live sessions.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn sessions(&mut self) -> Result<Vec<LiveSession>, AdminError> {
        match self.ask(&Request::Sessions)? {
            Response::Sessions(sessions) => Ok(sessions),
            _ => Err(AdminError::NotUnderstood),
        }
    }

    /// Ends live sessions; returns what was done in words.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn kill(&mut self, selector: KillSelector) -> Result<String, AdminError> {
        self.done(&Request::Kill(selector))
    }

    /// Voids tokens and ends the sessions that they opened.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn revoke(&mut self, what: Revoked) -> Result<String, AdminError> {
        self.done(&Request::Revoke(what))
    }

    /// Has the configuration file read again.
    ///
    /// # Errors
    /// As [`Self::ask`]; a refused configuration is told in full.
    pub fn reload(&mut self) -> Result<String, AdminError> {
        self.done(&Request::Reload)
    }

    /// How control stands.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn status(&mut self) -> Result<Status, AdminError> {
        match self.ask(&Request::Status)? {
            Response::Status(status) => Ok(*status),
            _ => Err(AdminError::NotUnderstood),
        }
    }

    /// First-use pins by application.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn pins(&mut self) -> Result<BTreeMap<String, Fingerprint>, AdminError> {
        match self.ask(&Request::Pins)? {
            Response::Pins(pins) => Ok(pins),
            _ => Err(AdminError::NotUnderstood),
        }
    }

    /// Forgets an application's pin: the next certificate that is seen will be kept.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn forget_pin(&mut self, application: &str) -> Result<String, AdminError> {
        self.done(&Request::ForgetPin(application.to_owned()))
    }
}
