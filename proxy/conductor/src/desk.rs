//! Where requests come in: each goes to whom it concerns, and what all know together is put together.

use postern_ebpf::Decisions;
use tokio::sync::{mpsc, oneshot, watch};

use crate::admin::{Accounting, Announcement, Answers, Request, Response, Status};
use crate::conduct::Asked;
use crate::metrics;

/// Whom requests go to.
#[derive(Debug)]
pub struct Desk {
    pub conductor: Option<mpsc::Sender<Asked>>,
    pub accounting: Option<watch::Receiver<Accounting>>,
    /// Of placement, where it is installed.
    pub placement: Option<Decisions>,
    pub rereads: mpsc::Sender<Rereading>,
}

/// The settings are to be read again; what came of it goes here, in words.
pub type Rereading = oneshot::Sender<Result<String, String>>;

impl Answers for Desk {
    async fn answer(&self, request: Request) -> Response {
        match request {
            Request::Status => self.status().await,
            Request::Metrics => self.metrics().await,
            Request::Reload => self.reload().await,
            Request::Announce if self.conductor.is_none() => Response::Announcement(Announcement {
                is_announced: false,
                why: "steering is off".to_owned(),
            }),
            request => self.ask(request).await,
        }
    }
}

impl Desk {
    async fn ask(&self, request: Request) -> Response {
        let refused = |why: &str| Response::Refused(why.to_owned());
        let Some(conductor) = &self.conductor else {
            return refused("steering is off");
        };
        let (reply, answer) = oneshot::channel();
        // With a full queue whoever asks waits.
        if conductor.send((request, reply)).await.is_err() {
            return refused("the conductor ends");
        }
        answer
            .await
            .unwrap_or_else(|_| refused("the conductor ends"))
    }

    async fn reload(&self) -> Response {
        let (reply, answer) = oneshot::channel();
        // Where the receiver is gone, so is the answer.
        let _ = self.rereads.send(reply).await;
        match answer.await {
            Ok(Ok(words)) => Response::Done(words),
            Ok(Err(why)) => Response::Refused(why),
            Err(_) => Response::Refused("the conductor ends".to_owned()),
        }
    }

    fn accounting(&self) -> Option<Accounting> {
        let accounting = self.accounting.as_ref()?;
        Some(accounting.borrow().clone())
    }

    async fn status(&self) -> Response {
        let steering = match &self.conductor {
            None => None,
            Some(_) => match self.ask(Request::Status).await {
                Response::Status(status) => status.steering,
                other => return other,
            },
        };
        Response::Status(Box::new(Status {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            steering,
            accounting: self.accounting(),
            placement: self.placement.is_some(),
        }))
    }

    async fn metrics(&self) -> Response {
        let mut text = String::new();
        if self.conductor.is_some() {
            match self.ask(Request::Metrics).await {
                Response::Text(steering) => text.push_str(&steering),
                other => return other,
            }
        }
        match self.placement.as_ref().map(Decisions::counts) {
            Some(Ok(counts)) => text.push_str(&metrics::placement(&counts)),
            Some(Err(error)) => tracing::warn!(%error, "decisions of placement are not counted"),
            None => {}
        }
        if let Some(accounting) = self.accounting() {
            text.push_str(&metrics::accounting(&accounting));
        }
        Response::Text(text)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use postern_steering::NodeId;

    use super::*;
    use crate::admin::{self, AdminError, Client};

    /// A desk of a node that accounts and does not steer, at a socket; it refuses the first settings.
    fn desk(folder: &std::path::Path) -> std::path::PathBuf {
        let (rereads, mut asked) = mpsc::channel::<Rereading>(1);
        tokio::spawn(async move {
            for outcome in [Err("no such key".to_owned()), Ok("read".to_owned())] {
                let _ = asked.recv().await.unwrap().send(outcome);
            }
        });
        let socket = folder.join("run/steer.sock");
        let (_, accounting) = watch::channel(Accounting {
            records: 5,
            ..Accounting::default()
        });
        let desk = Desk {
            conductor: None,
            accounting: Some(accounting),
            placement: None,
            rereads,
        };
        let listener = admin::listen(&socket).unwrap();
        tokio::spawn(admin::serve(Arc::new(desk), listener));
        socket
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_does_not_steer_says_so_and_tells_what_else_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let socket = desk(folder.path());
        let asked = tokio::task::spawn_blocking(move || {
            let mode = |path: &std::path::Path| {
                std::fs::metadata(path).unwrap().permissions().mode() & 0o777
            };
            assert_eq!(
                (mode(&socket), mode(socket.parent().unwrap())),
                (0o600, 0o700)
            );
            let mut client = Client::connect(&socket).unwrap();
            let status = client.status().unwrap();
            assert_eq!((status.steering, status.placement), (None, false));
            assert_eq!(status.accounting.unwrap().records, 5);
            let metrics = client.metrics().unwrap();
            assert!(
                metrics.contains("postern_account_flows_total 5\n"),
                "{metrics}"
            );
            let announcement = client.announcement().unwrap();
            assert!(!announcement.is_announced);
            let refused = client.reload();
            assert!(matches!(refused, Err(AdminError::Refused(why)) if why == "no such key"));
            assert_eq!(client.reload().unwrap(), "read");
            let refused = client.drain(NodeId::new(2).unwrap());
            assert!(matches!(refused, Err(AdminError::Refused(why)) if why == "steering is off"));
        });
        asked.await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_no_request_is_refused_and_what_is_too_long_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let socket = desk(folder.path());
        let asked = tokio::task::spawn_blocking(move || {
            let answer = |request: &[u8]| {
                let mut stream = UnixStream::connect(&socket).unwrap();
                // It may be hung up on before all is said.
                let _ = stream.write_all(request);
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let mut answer = String::new();
                let _ = stream.read_to_string(&mut answer);
                answer
            };
            assert!(answer(b"{\"command\":\"announce\"}\n").contains("\"is_announced\":false"));
            assert!(answer(b"rubbish\n").contains("\"answer\":\"refused\""));
            let long = answer(&b"x".repeat(1 << 20));
            assert!(long.is_empty() || long.contains("refused"), "{long}");
        });
        asked.await.unwrap();
    }
}
