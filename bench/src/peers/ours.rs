//! Ourselves: the gateway as it ships, and the engine's relay alone for the ways that it has no stages for.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use postern_parts::{program, wait};
use postern_tests::Browser;
use postern_tests::browserless::APPLICATION_COOKIE;

use super::certificate::write_secret;
use super::{Entrance, Ground, HOST, OURS, Relay, START_PATIENCE, Way, folder, free_port, on_core};
use crate::load::{Target, Upgrade};

const APPLICATION: &str = "lab";
const USER: &str = "bench";
const PASSWORD: &str = "correct horse 9";
/// Policies of the application that are judged before one lets the user in, and that one.
const POLICIES: usize = 10;
/// More than any case has at a time.
const LIMIT: u64 = 20_000;

/// What carries the engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Driver {
    /// The gateway's own choice: io_uring where it is allowed.
    #[default]
    Auto,
    IoUring,
    Epoll,
}

impl Driver {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

impl FromStr for Driver {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::Auto, Self::IoUring, Self::Epoll];
        all.into_iter()
            .find(|driver| driver.name() == text)
            .ok_or_else(|| anyhow!("{text} is no driver: there are auto, io_uring and epoll"))
    }
}

/// Where our own programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    postern: PathBuf,
    hop: PathBuf,
}

impl Programs {
    /// Those that lie beside this one, or above it when this is a test; `postern` may be elsewhere.
    ///
    /// # Errors
    /// This program does not know where it lies.
    pub fn find(postern: Option<PathBuf>) -> Result<Self> {
        let beside =
            |name: &str| Ok::<_, std::io::Error>(program::beside(name)?.unwrap_or(name.into()));
        Ok(Self {
            postern: match postern {
                Some(postern) => postern,
                None => beside("postern")?,
            },
            hop: beside("postern-bench-hop")?,
        })
    }
}

fn built(program: &Path) -> Result<&Path> {
    ensure!(
        program.is_file(),
        "{} is not built: `cargo xtask bench` builds it",
        program.display()
    );
    Ok(program)
}

/// `postern serve` with one application, a user who has signed in, and that user's token.
pub(super) fn gateway(ground: &Ground<'_>) -> Result<Relay> {
    let folder = folder()?;
    let (listen, metrics) = (free_port()?, free_port()?);
    let file = configure(folder.path(), ground, listen, metrics)?;
    let mut command = on_core(ground.cores.relay, built(&ground.programs.postern)?);
    command.arg("serve").arg("--config").arg(&file);
    command.env("POSTERN_LOG", "warn");
    let mut relay = Relay {
        name: OURS,
        entrance: Entrance::Fixed(Target::tcp(listen)),
        processes: Vec::new(),
        folder,
    };
    relay.add(OURS, &command)?;
    let token = wait::until("a login", START_PATIENCE, || {
        relay.expect_running()?;
        if !wait::accepts(listen) {
            return Ok(None);
        }
        let mut browser = Browser::new(listen, HOST);
        let up = browser.get("/healthz").is_ok_and(|page| page.status == 200);
        if !up {
            return Ok(None);
        }
        browser.sign_in(USER, PASSWORD)?;
        browser.open(APPLICATION)?;
        Ok(browser.token(APPLICATION).map(str::to_owned))
    })
    .with_context(|| relay.complaint())?;
    let host = format!("{HOST}:{}", listen.port());
    let upgrade = Upgrade {
        path: format!("/app/{APPLICATION}/rdp"),
        headers: vec![
            ("Origin".to_owned(), format!("https://{host}")),
            ("Cookie".to_owned(), format!("{APPLICATION_COOKIE}={token}")),
        ],
        host,
        proxy_auth: "none".to_owned(),
    };
    relay.entrance = Entrance::Fixed(Target::rdp(listen, HOST, vec![upgrade], APPLICATION));
    Ok(relay)
}

fn configure(
    folder: &Path,
    ground: &Ground<'_>,
    listen: SocketAddr,
    metrics: SocketAddr,
) -> Result<PathBuf> {
    let hash = folder.join("password.hash");
    write_secret(&hash, &hash_password(&ground.programs.postern, folder)?)?;
    let mut text = format!(
        "[organisation]\n\
         name = \"Bench\"\n\
         public_url = \"https://{HOST}:{}\"\n\
         [listen]\n\
         addresses = [\"{listen}\"]\n\
         cores = [{}]\n\
         {}\
         [certificate]\n\
         chain_file = \"{}\"\n\
         key_file = \"{}\"\n\
         [state]\n\
         directory = \"{}/state\"\n\
         [metrics]\n\
         listen = \"{metrics}\"\n\
         [limits]\n\
         connections_max = {LIMIT}\n\
         connections_per_source_max = {LIMIT}\n\
         handshakes_per_core_max = {LIMIT}\n\
         handshakes_per_source_max = {LIMIT}\n\
         sessions_max = {LIMIT}\n\
         sessions_per_user_max = {LIMIT}\n",
        listen.port(),
        ground.cores.relay,
        driver_line(ground.driver),
        ground.certificate.chain.display(),
        ground.certificate.key.display(),
        folder.display(),
    );
    let _ = write!(
        text,
        "[[application]]\n\
         name = \"{APPLICATION}\"\n\
         target = \"{}\"\n\
         certificate = {{ pin = [\"{}\"] }}\n\
         security = [\"tls\", \"nla\"]\n",
        ground.server.rdp, ground.server.fingerprint,
    );
    for number in 1..=POLICIES {
        let (action, who) = if number == POLICIES {
            ("allow", "staff".to_owned())
        } else {
            ("block", format!("others-{number}"))
        };
        let _ = write!(
            text,
            "[[application.policy]]\n\
             name = \"policy-{number}\"\n\
             action = \"{action}\"\n\
             include = [{{ group = \"{who}\" }}]\n"
        );
    }
    let _ = write!(
        text,
        "[[user]]\n\
         name = \"{USER}\"\n\
         email = \"{USER}@example.org\"\n\
         groups = [\"staff\"]\n\
         password_hash_file = \"{}\"\n",
        hash.display(),
    );
    let file = folder.join("postern.toml");
    write_secret(&file, &text)?;
    Ok(file)
}

fn driver_line(driver: Driver) -> String {
    match driver {
        Driver::Auto => String::new(),
        forced => format!("driver = \"{}\"\n", forced.name()),
    }
}

/// The engine's relay on one core, without the gateway's stages around it.
pub(super) fn hop(way: Way, ground: &Ground<'_>) -> Result<Relay> {
    let listen = free_port()?;
    let mut command = on_core(ground.cores.relay, built(&ground.programs.hop)?);
    command.args(["--way", hop_way(way)?]);
    command.args(["--listen", &listen.to_string()]);
    command.args(["--target", &ground.server.plain.to_string()]);
    command.args(["--core", &ground.cores.relay.to_string()]);
    if ground.driver != Driver::Auto {
        command.args(["--driver", ground.driver.name()]);
    }
    if matches!(way, Way::Tls | Way::Wss) {
        command.arg("--chain").arg(&ground.certificate.chain);
        command.arg("--key").arg(&ground.certificate.key);
    }
    let upgrades = vec![Upgrade {
        path: "/".to_owned(),
        host: HOST.to_owned(),
        ..Upgrade::default()
    }];
    let target = match way {
        Way::Ws => Target::ws(listen, upgrades),
        Way::Tls => Target::tls(listen, HOST),
        Way::Wss => Target::wss(listen, HOST, upgrades),
        _ => Target::tcp(listen),
    };
    Relay::single(OURS, target, &command, folder()?)?.ready(listen)
}

fn hop_way(way: Way) -> Result<&'static str> {
    Ok(match way {
        Way::Passthrough => "passthrough",
        Way::Tls => "tls",
        Way::Ws => "ws",
        Way::Wss => "wss",
        Way::Rdp | Way::InProcess => bail!("the hop has no way {way:?}"),
    })
}

fn hash_password(postern: &Path, folder: &Path) -> Result<String> {
    let file = folder.join("password");
    write_secret(&file, PASSWORD)?;
    let output = Command::new(postern)
        .arg("hash-password")
        .stdin(std::fs::File::open(&file)?)
        .stderr(Stdio::inherit())
        .output()
        .context("postern hash-password")?;
    if !output.status.success() {
        bail!("postern hash-password: {}", output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}
