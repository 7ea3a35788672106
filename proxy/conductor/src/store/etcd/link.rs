//! The connection to one of etcd's endpoints: made, used with a deadline, given up for the next endpoint.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::Stream;
use http::Uri;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use super::codec::{Answer, Bounded, is_too_long};
use super::wire::Call;
use super::{Access, tls};
use crate::error::in_full;
use crate::store::StoreError;
use crate::store::limits::{
    ANSWER_PATIENCE, CONNECT_PATIENCE, CONNECTION_WINDOW_BYTES, MESSAGE_BYTES_MAX,
    REQUEST_PATIENCE, STREAM_WINDOW_BYTES,
};

/// etcd's own port.
const PORT: u16 = 2379;

/// One of etcd's members.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    url: Uri,
    host: String,
    port: u16,
    secure: bool,
}

/// A connection that is in use.
#[derive(Debug, Clone)]
pub(super) struct Live {
    number: u64,
    channel: Channel,
}

/// Endpoints, and the connection to one of them.
#[derive(Debug)]
pub(super) struct Link {
    members: Vec<Member>,
    access: Access,
    live: Mutex<Option<Live>>,
    /// How many connections have been tried. Held while one is: everybody waits for the same.
    tried: tokio::sync::Mutex<u64>,
}

impl Link {
    /// # Errors
    /// An endpoint is no URL, or the files of TLS can't be used.
    pub(super) fn new(access: &Access) -> Result<Self, StoreError> {
        let members = access.endpoints.iter().map(|text| Member::parse(text));
        let members = members.collect::<Result<Vec<_>, _>>()?;
        if members.is_empty() {
            return Err(StoreError::Settings("etcd has no endpoints".to_owned()));
        }
        if members.iter().any(|member| member.secure) {
            tls::configure(access)?;
        }
        Ok(Self {
            members,
            access: access.clone(),
            live: Mutex::new(None),
            tried: tokio::sync::Mutex::new(0),
        })
    }

    fn held(&self) -> MutexGuard<'_, Option<Live>> {
        // Whoever panicked has not left half of a connection.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, made where there is none: each endpoint is tried once.
    pub(super) async fn live(&self) -> Result<Live, StoreError> {
        let mut tried = self.tried.lock().await;
        if let Some(live) = self.held().clone() {
            return Ok(live);
        }
        let mut last = String::new();
        for _ in 0..self.members.len() {
            let at = usize::try_from(*tried % self.members.len() as u64).expect("it is an index");
            // Counted first: who gives up waiting leaves the next endpoint to the next attempt.
            *tried += 1;
            let member = &self.members[at];
            match timeout(CONNECT_PATIENCE, self.connect(member)).await {
                Ok(Ok(channel)) => {
                    let number = *tried;
                    let live = Live { number, channel };
                    *self.held() = Some(live.clone());
                    return Ok(live);
                }
                Ok(Err(why)) => last = format!("{}: {why}", member.url),
                Err(_) => last = format!("{}: no answer in time", member.url),
            }
        }
        Err(StoreError::Unreachable(last))
    }

    async fn connect(&self, member: &Member) -> Result<Channel, String> {
        let target = member.clone();
        // Read anew for each connection: certificates are renewed while the gateway runs.
        let tls = member.secure.then(|| tls::configure(&self.access));
        let tls = tls.transpose().map_err(|error| in_full(&error))?;
        let connector = tower::service_fn(move |_: Uri| {
            let (target, tls) = (target.clone(), tls.clone());
            async move { target.open(tls).await.map(TokioIo::new) }
        });
        Endpoint::from(member.url.clone())
            .connect_timeout(CONNECT_PATIENCE)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .connect_with_connector(connector)
            .await
            .map_err(|error| in_full(&error))
    }

    /// Gives `live` up: the next one is to another endpoint.
    pub(super) fn broken(&self, live: &Live) {
        let mut held = self.held();
        if held.as_ref().is_some_and(|held| held.number == live.number) {
            *held = None;
        }
    }

    /// Asks, and asks elsewhere where nothing comes and asking twice does no harm.
    pub(super) async fn ask<Q: Call>(&self, question: Q) -> Result<Q::Answer, StoreError> {
        let attempts = if Q::REPEATABLE {
            self.members.len() + 1
        } else {
            1
        };
        let asking = self.attempts(attempts, |live| once(live, question.clone()));
        timeout(REQUEST_PATIENCE, asking)
            .await
            .unwrap_or_else(|_| Err(StoreError::Unanswered("in time".to_owned())))
    }

    /// Asks on a stream of its own, for the first answer alone.
    pub(super) async fn ask_stream<Q: prost::Message + Clone + 'static, A: Answer>(
        &self,
        path: &'static str,
        question: Q,
    ) -> Result<A, StoreError> {
        let asking = self.attempts(self.members.len() + 1, |live| {
            let question = question.clone();
            let questions = futures_util::stream::once(async { question });
            async move {
                let mut answers = open(&live, path, questions).await?;
                let answer = answers.message().await?;
                answer.ok_or_else(|| Status::unavailable("no answer"))
            }
        });
        timeout(REQUEST_PATIENCE, asking)
            .await
            .unwrap_or_else(|_| Err(StoreError::Unanswered("in time".to_owned())))
    }

    async fn attempts<A, F: Future<Output = Result<A, Status>>>(
        &self,
        attempts: usize,
        ask: impl Fn(Live) -> F,
    ) -> Result<A, StoreError> {
        let mut last = String::new();
        for _ in 0..attempts {
            let live = self.live().await?;
            match timeout(ANSWER_PATIENCE, ask(live.clone())).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) if is_answer(&status) => return Err(refusal(&status)),
                Ok(Err(status)) => last = in_words(&status),
                Err(_) => "no answer in time".clone_into(&mut last),
            }
            self.broken(&live);
        }
        Err(StoreError::Unanswered(last))
    }
}

/// Asks on this connection, for one answer.
async fn once<Q: Call>(live: Live, question: Q) -> Result<Q::Answer, Status> {
    let mut client = client(&live);
    ready(&mut client).await?;
    let request = outgoing(question, Some(ANSWER_PATIENCE));
    let path = PathAndQuery::from_static(Q::PATH);
    let answer = client
        .unary(request, path, Bounded::<Q, Q::Answer>::new())
        .await?;
    Ok(answer.into_inner())
}

/// Opens a stream of answers to `questions`, the first of which must be on its way.
pub(super) async fn open<Q: prost::Message + 'static, A: Answer>(
    live: &Live,
    path: &'static str,
    questions: impl Stream<Item = Q> + Send + 'static,
) -> Result<Streaming<A>, Status> {
    let mut client = client(live);
    ready(&mut client).await?;
    let path = PathAndQuery::from_static(path);
    let answers = client
        .streaming(outgoing(questions, None), path, Bounded::<Q, A>::new())
        .await?;
    Ok(answers.into_inner())
}

fn client(live: &Live) -> tonic::client::Grpc<Channel> {
    tonic::client::Grpc::new(live.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

async fn ready(client: &mut tonic::client::Grpc<Channel>) -> Result<(), Status> {
    let failed = |error: tonic::transport::Error| Status::unavailable(in_full(&error));
    client.ready().await.map_err(failed)
}

fn outgoing<M>(message: M, patience: Option<Duration>) -> Request<M> {
    let mut request = Request::new(message);
    if let Some(patience) = patience {
        request.set_timeout(patience);
    }
    // A member that lost the others says so, rather than to answer from what it remembers.
    let yes = MetadataValue::from_static("true");
    request.metadata_mut().insert("hasleader", yes);
    request
}

/// True where etcd itself has decided: another endpoint would say the same.
fn is_answer(status: &Status) -> bool {
    !matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
            | Code::DataLoss
    )
}

/// What etcd's answer means. It tells its reasons in words alone; gRPC's codes are shared by many.
fn refusal(status: &Status) -> StoreError {
    let text = status.message();
    match status.code() {
        Code::NotFound if text.contains("lease") => StoreError::LeaseGone,
        Code::OutOfRange if is_too_long(status) => StoreError::TooLong(text.to_owned()),
        Code::OutOfRange if text.contains("compacted") => StoreError::Compacted,
        _ => StoreError::Rejected(in_words(status)),
    }
}

/// A status with its causes, without its metadata.
pub(super) fn in_words(status: &Status) -> String {
    let mut text = match status.message() {
        "" => status.code().description().to_owned(),
        message => message.to_owned(),
    };
    if let Some(cause) = std::error::Error::source(status) {
        text.push_str(": ");
        text.push_str(&in_full(cause));
    }
    text
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

impl Member {
    fn parse(text: &str) -> Result<Self, StoreError> {
        let refused = |why: &str| StoreError::Settings(format!("endpoint {text:?} of etcd {why}"));
        let url: Uri = text.parse().map_err(|_| refused("is not a URL"))?;
        let secure = match url.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(refused("begins with neither https:// nor http://")),
        };
        let authority = url.authority().ok_or_else(|| refused("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(refused("names a user; certificates say who a node is"));
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            return Err(refused("has a path"));
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err(refused("has no host"));
        }
        let port = match authority.port_u16() {
            Some(0) => return Err(refused("has port 0")),
            Some(port) => port,
            None if authority.as_str().ends_with(authority.host()) => PORT,
            None => return Err(refused("has no port that there is")),
        };
        Ok(Self {
            url,
            host,
            port,
            secure,
        })
    }

    async fn open(&self, tls: Option<Arc<ClientConfig>>) -> io::Result<Box<dyn Io>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = tls else {
            return Ok(Box::new(stream));
        };
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(tls).connect(name, stream).await?;
        Ok(Box::new(stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_scheme_a_host_and_a_port() {
        let check = |text: &str, expected: Result<(&str, u16, bool), &str>| {
            let parsed = Member::parse(text).map_err(|error| error.to_string());
            match (&parsed, expected) {
                (Ok(member), Ok((host, port, secure))) => {
                    let found = (member.host.as_str(), member.port, member.secure);
                    assert_eq!(found, (host, port, secure), "{text}");
                }
                (Err(error), Err(why)) => assert!(error.contains(why), "{text}: {error}"),
                _ => panic!("{text}: {parsed:?}"),
            }
        };
        check("http://10.0.0.1:2379", Ok(("10.0.0.1", 2379, false)));
        check("https://etcd.example/", Ok(("etcd.example", 2379, true)));
        check("https://[fd00::1]:1", Ok(("fd00::1", 1, true)));
        check("http://[fd00::1]", Ok(("fd00::1", 2379, false)));
        check("10.0.0.1:2379", Err("neither"));
        check("ftp://a", Err("neither"));
        check("unix:///run/etcd", Err("not a URL"));
        check("http://a/b", Err("path"));
        check("http://a?b", Err("path"));
        check("http://user:password@a", Err("user"));
        check("http://a:0", Err("port 0"));
        check("http://a:70000", Err(""));
        check("", Err(""));
    }
}
