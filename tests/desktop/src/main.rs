//! A small RDP server that shows something alive: the demo's desktop and a target for tests.
#![forbid(unsafe_code)]

mod backdrop;
mod canvas;
mod clipboard;
mod display;
mod identity;
mod keyboard;
mod scene;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use ironrdp_pdu::rdp::capability_sets::{BitmapCodecs, server_codecs_capabilities};
use ironrdp_server::{
    CredentialDecision, CredentialValidationError, CredentialValidator, Credentials, RdpServer,
};
use tokio::net::{TcpListener, TcpStream};

use crate::clipboard::{Clipboard, Factory};
use crate::display::View;
use crate::identity::Identity;
use crate::keyboard::Input;
use crate::scene::World;

/// Connections served at the same time; more are closed at once.
const CONNECTIONS_MAX: usize = 16;

/// An RDP server with one desktop that everybody who connects shares.
#[derive(Debug, Parser)]
#[command(name = "postern-desktop", version)]
struct Arguments {
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:3389")]
    listen: SocketAddr,
    /// The one user who may sign in.
    #[arg(long)]
    user: String,
    /// File with that user's password; a trailing newline is not part of it.
    #[arg(long, value_name = "FILE")]
    password_file: PathBuf,
    /// How clients must authenticate.
    #[arg(long, value_enum, default_value_t = Security::Nla)]
    security: Security,
    /// Folder that keeps the certificate, so that it stays the same after a restart.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Security {
    /// Network Level Authentication.
    Nla,
    /// TLS with the RDP login inside.
    Tls,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build()
        .context("cannot start the runtime")?
        .block_on(tokio::task::LocalSet::new().run_until(serve(arguments)))
}

async fn serve(arguments: Arguments) -> Result<()> {
    let password = std::fs::read_to_string(&arguments.password_file)
        .with_context(|| format!("cannot read {}", arguments.password_file.display()))?;
    let credentials = Credentials {
        username: arguments.user,
        password: password.trim_end_matches(['\r', '\n']).to_owned(),
        domain: None,
    };
    let identity = Identity::load_or_make(arguments.state.as_deref())?;
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    // Tests and the demo wait for this line, and read the port from it.
    println!(
        "listening on {} certificate {}",
        listener.local_addr()?,
        identity.fingerprint()
    );

    let world = Arc::new(Mutex::new(World::default()));
    let places = Rc::new(());
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                eprintln!("cannot accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if Rc::strong_count(&places) > CONNECTIONS_MAX {
            eprintln!("{peer}: closed, {CONNECTIONS_MAX} connections are served already");
            continue;
        }
        let server = session(&identity, arguments.security, &credentials, &world);
        let place = Rc::clone(&places);
        tokio::task::spawn_local(async move {
            let outcome = converse(server, stream).await;
            drop(place);
            match outcome {
                Ok(()) => eprintln!("{peer}: closed"),
                Err(error) => eprintln!("{peer}: {error:#}"),
            }
        });
    }
}

async fn converse(mut server: RdpServer, stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    server.run_connection(stream).await
}

/// One connection's server; all of them draw the same world.
fn session(
    identity: &Identity,
    security: Security,
    credentials: &Credentials,
    world: &Arc<Mutex<World>>,
) -> RdpServer {
    let acceptor = identity.acceptor();
    // `ironrdp-server` wants an address even where it does not listen itself.
    let builder = RdpServer::builder().with_addr(([127, 0, 0, 1], 0));
    let builder = match security {
        Security::Nla => builder.with_hybrid(acceptor, identity.public_key().to_vec()),
        Security::Tls => builder.with_tls(acceptor),
    };
    let validator: Arc<dyn CredentialValidator> = Arc::new(OneUser(credentials.clone()));
    let clipboard = Clipboard::default();
    let factory = Factory {
        clipboard: clipboard.clone(),
        world: Arc::clone(world),
    };
    let mut server = builder
        .with_input_handler(Input::new(Arc::clone(world), clipboard))
        .with_display_handler(View::new(Arc::clone(world)))
        .with_honor_client_desktop_size(true)
        .with_bitmap_codecs(codecs())
        .with_cliprdr_factory(Some(Box::new(factory)))
        .with_credential_validator((security == Security::Tls).then_some(validator))
        .build();
    if security == Security::Nla {
        server.set_credentials(Some(credentials.clone()));
    }
    server
}

/// No RemoteFX: it draws lines into soft colours, and plain pixels are cheap on one machine.
fn codecs() -> BitmapCodecs {
    server_codecs_capabilities(&["remotefx:off"]).expect("the codec's name is known")
}

/// Checks the login inside TLS; which domain the client names does not matter.
struct OneUser(Credentials);

#[async_trait::async_trait]
impl CredentialValidator for OneUser {
    async fn validate(
        &self,
        offered: &Credentials,
    ) -> Result<CredentialDecision, CredentialValidationError> {
        let right = offered.username == self.0.username && offered.password == self.0.password;
        Ok(if right {
            CredentialDecision::Accept
        } else {
            CredentialDecision::Reject
        })
    }
}

/// The world, also after a thread that held it has panicked: pictures have no invariant to lose.
fn lock(world: &Mutex<World>) -> std::sync::MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}
