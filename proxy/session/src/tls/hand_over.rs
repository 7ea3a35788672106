//! The end of a stream: its socket, its secrets and what had arrived go to whoever carries on.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_lite::{AsyncRead, AsyncWrite};
use postern_relay::flow::{KernelLine, Line};
use postern_relay::memory::RECEIVE_BYTES_MAX;
use postern_relay::{Flow, Leg, RecordError, Records};
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ExtractedSecrets, SupportedCipherSuite};

use super::connection::{Connection, Step, Wish};
use super::{
    READ_BYTES, RECORD_BYTES_MAX, RECORD_PAYLOAD_BYTES_MAX, TlsStream, invalid,
    starts_with_a_record,
};

/// [RFC 8446 §5.1] Type, version and length of a record.
const RECORD_HEADER_BYTES: usize = 5;

/// What can have arrived too early for its reader: a record that was read in part, another that was
/// not looked at, and a read behind it.
pub(crate) const LEFTOVER_BYTES_MAX: usize =
    RECORD_PAYLOAD_BYTES_MAX + RECORD_BYTES_MAX + READ_BYTES;

const _: () = assert!(
    LEFTOVER_BYTES_MAX + RECORD_BYTES_MAX <= RECEIVE_BYTES_MAX,
    "a flow takes it, also when a record that was cut has been completed"
);

/// What had arrived when the record layer was handed over. `plaintext` comes before `ciphertext`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leftover {
    pub plaintext: Vec<u8>,
    /// Not decrypted yet; may end within a record.
    pub ciphertext: Vec<u8>,
    /// The peer has said already that nothing more comes.
    pub closed: bool,
}

impl Leftover {
    /// Gives `flow` what had arrived from `leg`; whether all of it fits.
    #[must_use]
    pub fn seed(&self, flow: &mut Flow, leg: Leg) -> bool {
        flow.seed_plain(leg, &self.plaintext) && flow.seed(leg, &self.ciphertext)
    }
}

/// The secrets of a connection, and who derives the next ones.
pub struct HandOver {
    secrets: ExtractedSecrets,
    schedule: Schedule,
}

enum Schedule {
    Server(KernelConnection<ServerConnectionData>),
    Client(KernelConnection<ClientConnectionData>),
}

impl HandOver {
    fn new(connection: Connection) -> Result<Self, rustls::Error> {
        let (secrets, schedule) = match connection {
            Connection::Server(connection) => {
                let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
                (secrets, Schedule::Server(kernel))
            }
            Connection::Client(connection) => {
                let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
                (secrets, Schedule::Client(kernel))
            }
        };
        Ok(Self { secrets, schedule })
    }

    /// The keys of both directions, and the numbers of their next records.
    #[must_use]
    pub fn secrets(&self) -> &ExtractedSecrets {
        &self.secrets
    }

    /// The line of a flow whose socket has got these secrets.
    #[must_use]
    pub fn kernel_line(&self) -> Line {
        let suite = match &self.schedule {
            Schedule::Server(connection) => connection.negotiated_cipher_suite(),
            Schedule::Client(connection) => connection.negotiated_cipher_suite(),
        };
        let common = match suite {
            SupportedCipherSuite::Tls12(suite) => &suite.common,
            SupportedCipherSuite::Tls13(suite) => &suite.common,
        };
        let (sealed, _) = self.secrets.tx;
        Line::Kernel(KernelLine::new(
            common.confidentiality_limit.saturating_sub(sealed),
        ))
    }

    /// The record layer that goes on with them in this process.
    ///
    /// # Errors
    /// When it does not know the cipher.
    pub fn into_records(self) -> Result<Records, RecordError> {
        match self.schedule {
            Schedule::Server(connection) => Records::server(self.secrets, connection),
            Schedule::Client(connection) => Records::client(self.secrets, connection),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Gives the record layer away: the socket, its records, and what had arrived.
    ///
    /// Waits until everything is sent, and for the rest of a handshake message that was cut.
    ///
    /// # Errors
    /// When the connection fails before that, or its secrets can't be had.
    pub async fn into_relay(self) -> io::Result<(S, Records, Leftover)> {
        let (socket, handed, leftover) = self.hand_over().await?;
        let records = handed
            .into_records()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok((socket, records, leftover))
    }

    /// The same between two records, as somebody needs it who reads on from the socket alone: nothing
    /// is left that is not decrypted.
    ///
    /// Waits for the rest of a record that was cut, too.
    ///
    /// # Errors
    /// As [`Self::into_relay`].
    pub async fn hand_over_between_records(mut self) -> io::Result<(S, HandOver, Leftover)> {
        poll_fn(|cx| self.poll_border(cx)).await?;
        self.hand_over().await
    }

    async fn hand_over(mut self) -> io::Result<(S, HandOver, Leftover)> {
        poll_fn(|cx| self.poll_settle(cx)).await?;
        let handed = HandOver::new(self.connection).map_err(invalid)?;
        let leftover = Leftover {
            plaintext: self.plaintext.into_bytes(),
            ciphertext: self.incoming.into_bytes(),
            closed: self.peer_closed,
        };
        Ok((self.socket, handed, leftover))
    }

    fn poll_settle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_aligned() {
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            while self.step(Wish::Nothing)? == Step::Again {}
        }
        // The first lets it go, the second takes it along.
        for _ in 0..2 {
            self.say(Wish::HeldBack)?;
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    /// Decrypts everything that has arrived, and reads no byte behind the last record of it.
    fn poll_border(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.step(Wish::Nothing)? != Step::Blocked {}
            let missing = missing_bytes(self.incoming.filled());
            // What stands behind a good-bye is nobody's.
            if missing == 0 || self.peer_closed {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_fill_up_to(missing, cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

/// How many bytes are needed next, so that `bytes` end with a record: of its header, then of the rest.
/// A record that is there and was not taken is a piece of a message, whose next piece is needed.
fn missing_bytes(mut bytes: &[u8]) -> usize {
    if bytes.is_empty() {
        return 0;
    }
    while starts_with_a_record(bytes) {
        bytes = &bytes[record_bytes(bytes)..];
    }
    match bytes.len() {
        there if there < RECORD_HEADER_BYTES => RECORD_HEADER_BYTES - there,
        there => record_bytes(bytes) - there,
    }
}

/// The length of the record whose header stands at the start of `bytes`.
fn record_bytes(bytes: &[u8]) -> usize {
    RECORD_HEADER_BYTES + usize::from(u16::from_be_bytes([bytes[3], bytes[4]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_completes_a_record_is_asked_for() {
        let check = |bytes: &[u8], missing: usize| {
            assert_eq!(missing_bytes(bytes), missing, "{bytes:?}");
        };
        check(&[], 0);
        check(&[23], 4);
        check(&[23, 3, 3, 1], 1);
        check(&[23, 3, 3, 1, 2], 0x102);
        check(&[23, 3, 3, 0, 3, 7], 2);
        // Whole records that nobody took: there is more to a message.
        check(&[22, 3, 3, 0, 1, 7], 5);
        check(&[22, 3, 3, 0, 1, 7, 22, 3], 3);
        check(&[22, 3, 3, 0, 1, 7, 22, 3, 3, 0, 9, 0], 8);
    }
}
