//! rustls' unbuffered connection of either side, advanced one state at a time.

use std::ops::Deref;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{CommonState, Error};

use super::backlog::Backlog;

/// What a record of application data adds to its payload, at most: header, explicit nonce, type, tag.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// The handshake and the keys of one side of a connection.
pub(super) enum Connection {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

/// What is to be said as soon as the connection can say it.
#[derive(Clone, Copy)]
pub(super) enum Wish<'a> {
    Nothing,
    /// Application data, one record of it.
    Data(&'a [u8]),
    CloseNotify,
    /// An answer that rustls holds back until there is something to write: a key update.
    HeldBack,
}

/// Where a step stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There is more to do at once.
    Again,
    /// Data was received and decrypted.
    Received,
    /// The peer said that it sends nothing more.
    PeerClosed,
    /// The wish is fulfilled.
    Said,
    /// Nothing more can be done without more from the peer.
    Blocked,
}

impl Connection {
    /// Goes on to the next state. Whole records are taken from `incoming`, what is to be sent is put
    /// into `outgoing`, what was decrypted into `plaintext`.
    ///
    /// # Errors
    /// When the peer breaks the protocol or is not who it should be.
    pub(super) fn step(
        &mut self,
        incoming: &mut Backlog,
        outgoing: &mut Backlog,
        plaintext: &mut Backlog,
        wish: Wish<'_>,
    ) -> Result<Step, Error> {
        let (discard, step) = match self {
            Self::Server(connection) => {
                let status = connection.process_tls_records(incoming.filled_mut());
                handle(status, outgoing, plaintext, wish)
            }
            Self::Client(connection) => {
                let status = connection.process_tls_records(incoming.filled_mut());
                handle(status, outgoing, plaintext, wish)
            }
        };
        incoming.consume(discard);
        step
    }
}

impl Deref for Connection {
    type Target = CommonState;

    fn deref(&self) -> &CommonState {
        match self {
            Self::Server(connection) => connection,
            Self::Client(connection) => connection,
        }
    }
}

/// Does what a state asks for; how much of the incoming bytes is done with.
fn handle<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    outgoing: &mut Backlog,
    plaintext: &mut Backlog,
    wish: Wish<'_>,
) -> (usize, Result<Step, Error>) {
    let mut discard = status.discard;
    let step = match status.state {
        Err(error) => Err(error),
        Ok(ConnectionState::EncodeTlsData(mut state)) => {
            encode(outgoing, |space| state.encode(space))
        }
        // What was encoded is queued in order behind what was queued before: it is as good as sent.
        Ok(ConnectionState::TransmitTlsData(state)) => {
            state.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::ReadTraffic(mut state)) => loop {
            match state.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    plaintext.append(record.payload);
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Step::Received),
            }
        },
        Ok(ConnectionState::PeerClosed) => Ok(Step::PeerClosed),
        Ok(ConnectionState::Closed | ConnectionState::BlockedHandshake) => Ok(Step::Blocked),
        Ok(ConnectionState::WriteTraffic(mut state)) => match wish {
            Wish::Nothing => Ok(Step::Blocked),
            Wish::Data(bytes) => say(outgoing, bytes.len(), |space| state.encrypt(bytes, space)),
            Wish::CloseNotify => say(outgoing, 0, |space| state.queue_close_notify(space)),
            // What is held back is let go by any attempt to write, also by one without room.
            Wish::HeldBack => {
                let _ = state.encrypt(&[0], &mut []);
                Ok(Step::Said)
            }
        },
        // No configuration of ours takes early data.
        Ok(_) => Err(Error::General("a state that nobody asked for".to_owned())),
    };
    (discard, step)
}

fn encode(
    outgoing: &mut Backlog,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<Step, Error> {
    let room = match write(&mut []) {
        Err(EncodeError::InsufficientSize(size)) => size.required_size,
        _ => 0,
    };
    outgoing
        .append_with(room, write)
        .map(|_| Step::Again)
        .map_err(|error| Error::General(error.to_string()))
}

fn say(
    outgoing: &mut Backlog,
    bytes: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<Step, Error> {
    let mut written = outgoing.append_with(bytes + RECORD_OVERHEAD_BYTES, &mut write);
    // What was held back goes out in front of it and needs room of its own.
    if let Err(EncryptError::InsufficientSize(size)) = written {
        written = outgoing.append_with(size.required_size, write);
    }
    written
        .map(|_| Step::Said)
        .map_err(|error| Error::General(error.to_string()))
}
