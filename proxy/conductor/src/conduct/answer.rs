//! Answers to administrators: how it stands, and what they want of nodes.

use postern_steering::NodeId;
use tokio::sync::oneshot;

use super::Conductor;
use crate::admin::{Request, Response, Status, Steering};
use crate::leader::members;
use crate::store::Key;
use crate::values::{self, Intent};

impl Conductor {
    /// Answers at once, or lets the answer come when the store has taken what was asked.
    pub(super) fn answer(&mut self, request: Request, reply: oneshot::Sender<Response>) {
        let answer = match request {
            Request::Status => Response::Status(Box::new(Status {
                program: env!("CARGO_PKG_VERSION").to_owned(),
                steering: Some(self.status()),
                accounting: None,
                placement: false,
            })),
            Request::Explain(tuple) => match self.explain(tuple) {
                Ok(words) => Response::Text(words),
                Err(why) => Response::Refused(why),
            },
            // Whoever has the settings is asked instead.
            Request::Reload => Response::Refused("steering reads no settings".to_owned()),
            Request::Metrics => Response::Text(self.metrics()),
            Request::Announce => Response::Announcement(self.station.announcement(&self.around)),
            Request::Drain(node) => return self.want(node, Intent::Drain, reply),
            Request::Undrain(node) => return self.want(node, Intent::Serve, reply),
            Request::Remove { node, yes: true } => return self.want(node, Intent::Remove, reply),
            Request::Remove { node, yes: false } => self.preview(node),
        };
        // Whoever asked may have gone.
        let _ = reply.send(answer);
    }

    fn preview(&self, number: u16) -> Response {
        let Some(node) = NodeId::new(number) else {
            return Response::Refused("node 0 is nobody".to_owned());
        };
        let Some(term) = &self.term else {
            return Response::Refused(match self.seat.holder {
                Some((leader, _)) => {
                    format!("{leader} leads and knows what that would end: ask there")
                }
                None => "nobody leads now, so nobody knows what that would end".to_owned(),
            });
        };
        match term.leader.preview_removal(node, &self.nodes, self.now()) {
            None => Response::Refused(format!("{node} is not a member")),
            Some((0, _)) => Response::Text(format!(
                "taking {node} out ends no connection that is known; --yes does it"
            )),
            Some((flows, buckets)) => Response::Text(format!(
                "taking {node} out ends {flows} connections in {buckets} buckets; drain it first, or --yes does it now"
            )),
        }
    }

    /// Writes what is wanted of a node into the store, for whoever leads.
    fn want(&mut self, number: u16, intent: Intent, reply: oneshot::Sender<Response>) {
        let refused = |reply: oneshot::Sender<Response>, why: String| {
            let _ = reply.send(Response::Refused(why));
        };
        let Some(etcd) = self.etcd.clone() else {
            let why = "the nodes are those of a file: this needs etcd";
            return refused(reply, why.to_owned());
        };
        let Some(node) = NodeId::new(number) else {
            return refused(reply, "node 0 is nobody".to_owned());
        };
        let is_known = self.nodes.get(node).is_some()
            || self
                .station
                .in_force()
                .is_some_and(|publication| publication.roster().contains_key(&node));
        if !is_known {
            return refused(reply, format!("{node} is not a member"));
        }
        let key = format!("{}/{}", values::INTENTS, node.get());
        let key = Key::new(&key).expect("a folder and digits make a key");
        let done = match intent {
            Intent::Serve => format!("{node} takes its share of new connections again"),
            Intent::Drain => format!("{node} gets no new connections; those it has stay"),
            Intent::Remove => format!("{node} is taken out; `undrain` takes it in again"),
        };
        tracing::info!(%node, intent = intent.name(), "wanted by an administrator");
        while self.beside.try_join_next().is_some() {}
        self.beside.spawn(async move {
            let written = match intent {
                // To serve is what is wanted where nothing is said.
                Intent::Serve => etcd.delete(&key).await,
                Intent::Drain | Intent::Remove => {
                    etcd.put(&key, &values::encode(&intent), None).await
                }
            };
            let answer = match written {
                Ok(_) => Response::Done(done),
                Err(error) => Response::Refused(format!(
                    "the store does not take it: {}",
                    crate::error::in_full(&error)
                )),
            };
            let _ = reply.send(answer);
        });
    }

    fn status(&self) -> Steering {
        let announcement = self.station.announcement(&self.around);
        let mut members = match self.station.in_force() {
            Some(publication) => members(publication, &self.nodes),
            None => Vec::new(),
        };
        if let Some(term) = &self.term {
            term.leader.enrich(&mut members);
        }
        Steering {
            node: self.settings.node.get(),
            mode: self.installed.mode.clone(),
            native_refused: self.installed.native_refused.clone(),
            store: if self.etcd.is_some() { "etcd" } else { "file" }.to_owned(),
            is_store_up: self.around.is_store_up,
            generation: self.steers_by().0,
            generation_newest: self.newest().0,
            leader: self.seat.holder.map(|(node, _)| node.get()),
            is_isolated: self.station.is_isolated(),
            is_announced: announcement.is_announced,
            announcement: announcement.why,
            members,
            buckets_waiting: self.term.as_ref().map(|term| term.leader.waiting()),
            store_refused: self.counts.refused.values().sum(),
        }
    }

    fn metrics(&self) -> String {
        let counts = match self.kernel.counts() {
            Ok(counts) => Some(counts),
            Err(error) => {
                tracing::warn!(error = error.in_full(), "packets are not counted");
                None
            }
        };
        crate::metrics::steering(&crate::metrics::Measured {
            status: &self.status(),
            counts: counts.as_ref(),
            seen: self.around.newest_seen.0,
            published: self.around.published.0,
            leads: self.term.is_some(),
            moves: self.counts.moves,
            terms: self.counts.terms,
            refused: &self.counts.refused,
            probe_failures: &self.counts.probe_failures,
            connections: self.around.connections,
        })
    }
}
