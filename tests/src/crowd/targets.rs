//! Targets that echo, of which one costs no more than a descriptor and its TLS.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use postern_wire::x224::Protocol;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustls::ServerConfig;

use super::unknown;
use crate::duplex::Duplex;
use crate::fake_target;

/// Threads that negotiate.
const DOORMEN: usize = 4;

/// What has begun to arrive is whole within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Events that one look takes.
const EVENTS: usize = 256;

/// Bytes that one turn of an echo handles.
const CHUNK_BYTES: usize = 16 * 1024;

pub(super) struct Targets {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    epoll: OwnedFd,
    live: Mutex<Live>,
    tls: Arc<ServerConfig>,
}

#[derive(Default)]
struct Live {
    streams: HashMap<u64, Arc<Duplex>>,
    last: u64,
}

impl Targets {
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            live: Mutex::default(),
            tls: fake_target::new_tls()?,
        });
        for _ in 0..DOORMEN {
            let (listener, shared) = (listener.try_clone()?, shared.clone());
            std::thread::spawn(move || shared.admit(&listener));
        }
        let echo = shared.clone();
        std::thread::spawn(move || echo.echo());
        Ok(Self { address, shared })
    }

    /// `address`: where they listen. `live`: how many connections there are.
    pub(super) fn obey(&self, order: &[&str]) -> Result<String> {
        match order {
            ["address"] => Ok(self.address.to_string()),
            ["live"] => Ok(self.shared.live().streams.len().to_string()),
            other => unknown(other),
        }
    }
}

impl Shared {
    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, listener: &TcpListener) {
        for socket in listener.incoming() {
            let admitted = socket.and_then(|socket| {
                let stream = fake_target::negotiate(socket, Protocol::Nla, self.tls.clone())?;
                stream.set_patience(PATIENCE)?;
                let stream = Arc::new(stream);
                let mut live = self.live();
                live.last += 1;
                let key = live.last;
                let data = EventData::new_u64(key);
                epoll::add(&self.epoll, stream.socket(), data, EventFlags::IN)?;
                live.streams.insert(key, stream);
                Ok(())
            });
            if let Err(error) = admitted {
                eprintln!("a target's connection did not come about: {error}");
            }
        }
    }

    fn echo(&self) {
        let mut events = Vec::with_capacity(EVENTS);
        let mut buffer = vec![0; CHUNK_BYTES];
        while epoll::wait(&self.epoll, spare_capacity(&mut events), None).is_ok() {
            for event in events.drain(..) {
                let key = event.data.u64();
                let stream = self.live().streams.get(&key).cloned();
                let goes_on = stream.is_some_and(|stream| {
                    let read = stream.receive(&mut buffer);
                    read.is_ok_and(|read| read > 0 && stream.send(&buffer[..read]).is_ok())
                });
                if !goes_on {
                    // Closed with its last handle, and so forgotten by epoll.
                    self.live().streams.remove(&key);
                }
            }
        }
    }
}
