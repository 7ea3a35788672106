//! Where requests come in: each goes to whom it concerns, and what all know together is put together.

use tokio::sync::{mpsc, oneshot, watch};

use crate::admin::{Accounting, Announcement, Answers, Request, Response, Status};
use crate::conduct::Asked;
use crate::metrics;

/// Whom requests go to.
#[derive(Debug)]
pub struct Desk {
    pub conductor: Option<mpsc::Sender<Asked>>,
    pub accounting: Option<watch::Receiver<Accounting>>,
    pub placement: bool,
}

impl Answers for Desk {
    async fn answer(&self, request: Request) -> Response {
        match request {
            Request::Status => self.status().await,
            Request::Metrics => self.metrics().await,
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
            placement: self.placement,
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
        if let Some(accounting) = self.accounting() {
            text.push_str(&metrics::accounting(&accounting));
        }
        Response::Text(text)
    }
}
