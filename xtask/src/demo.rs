//! `cargo xtask demo`: a gateway and a desktop on this machine, until Ctrl-C.

use std::fs::{OpenOptions, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use postern_parts::demo_desktop::{self, DemoDesktop};
use postern_parts::{Process, Shadow, Xrdp, port, program, shadow, wait, xrdp};
use tempfile::TempDir;

use crate::setup::{self, Purpose};

/// How long the gateway may take to answer.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Time between two looks at the parts.
const LOOK: Duration = Duration::from_millis(200);
const USER: &str = "demo";

/// What to show.
#[derive(Debug, Args)]
pub struct Arguments {
    /// `demo` (a small desktop of our own), `shadow` (a real X desktop, NLA), `xrdp` (the same over
    /// TLS), or HOST:PORT of an RDP server of yours.
    #[arg(long, default_value = "demo")]
    desktop: Desktop,
    /// Port of the gateway on loopback.
    #[arg(long, default_value_t = 8443)]
    port: u16,
    /// Open the URL in this machine's browser.
    #[arg(long)]
    open: bool,
    /// Cargo profile to build with; `dev` is for those who change the code.
    #[arg(long, default_value = "release", hide = true)]
    profile: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Desktop {
    Demo,
    Shadow,
    Xrdp,
    Yours { host: String, port: u16 },
}

impl FromStr for Desktop {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "demo" => Ok(Self::Demo),
            "shadow" => Ok(Self::Shadow),
            "xrdp" => Ok(Self::Xrdp),
            _ => {
                let wrong = || format!("{text} is neither demo, shadow, xrdp nor HOST:PORT");
                let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
                let host = host
                    .trim_start_matches('[')
                    .trim_end_matches(']')
                    .to_owned();
                let port = port.parse().map_err(|_| wrong())?;
                if host.is_empty() {
                    Err(wrong())
                } else {
                    Ok(Self::Yours { host, port })
                }
            }
        }
    }
}

/// The RDP server behind the gateway, kept alive.
enum Running {
    Demo(DemoDesktop),
    Shadow(Shadow),
    Xrdp(Xrdp),
    Yours,
}

impl Running {
    fn expect_running(&mut self) -> Result<()> {
        match self {
            Self::Demo(desktop) => desktop.expect_running(),
            Self::Shadow(desktop) => desktop.expect_running(),
            Self::Xrdp(desktop) => desktop.expect_running(),
            Self::Yours => Ok(()),
        }
    }
}

/// Starts everything, says how to use it, waits for Ctrl-C and stops what it started.
///
/// # Errors
/// A part cannot be built or started, or has died.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut purposes = vec![Purpose::Build];
    match arguments.desktop {
        Desktop::Shadow => purposes.push(Purpose::Shadow),
        Desktop::Xrdp => purposes.push(Purpose::Xrdp),
        Desktop::Demo | Desktop::Yours { .. } => {}
    }
    setup::install(&purposes, false)?;
    expect_free(arguments.port)?;

    eprintln!("demo: building the gateway (a few minutes the first time)");
    let postern = program::build("postern", "postern", &arguments.profile)?;
    let desktop_program = match arguments.desktop {
        Desktop::Demo => {
            eprintln!("demo: building the desktop");
            Some(program::build(
                "postern-desktop",
                "postern-desktop",
                &arguments.profile,
            )?)
        }
        _ => None,
    };

    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || flag.store(true, Ordering::SeqCst))
        .context("cannot listen for Ctrl-C")?;

    // Others may pass through it to their own cookie of the X display, and see nothing else.
    let folder = tempfile::Builder::new()
        .prefix("postern-demo-")
        .permissions(Permissions::from_mode(0o711))
        .tempdir()?;
    let password = fresh_password()?;
    // Order matters: what is dropped first is the gateway, then the desktop, then the folder.
    let outcome = start(arguments, &postern, desktop_program, &folder, &password)
        .and_then(|(desktop, gateway)| attend(desktop, gateway, &interrupted));
    eprintln!("demo: stopped");
    outcome
}

fn start(
    arguments: &Arguments,
    postern: &Path,
    desktop_program: Option<PathBuf>,
    folder: &TempDir,
    password: &str,
) -> Result<(Running, Process)> {
    let folder = folder.path();
    write_private(&folder.join("password"), password)?;
    let (mut desktop, target) = start_desktop(arguments, desktop_program, folder, password)?;
    let config = write_config(arguments, folder, postern, &target)?;

    eprintln!("demo: starting the gateway");
    let mut command = Command::new(postern);
    command.arg("serve").arg("--config").arg(&config);
    let mut gateway = Process::start("postern serve", &command, &folder.join("gateway.log"))?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port));
    wait::until("the gateway", START_PATIENCE, || {
        gateway.expect_running()?;
        desktop.expect_running()?;
        Ok((wait::accepts(address) && healthy(arguments.port)).then_some(()))
    })
    .with_context(|| format!("the gateway did not start:\n{}", gateway.log_tail()))?;
    announce(arguments, password, folder);
    Ok((desktop, gateway))
}

fn start_desktop(
    arguments: &Arguments,
    program: Option<PathBuf>,
    folder: &Path,
    password: &str,
) -> Result<(Running, Target)> {
    let local = |address: SocketAddr, security| Target {
        address: address.to_string(),
        security,
    };
    let parts = folder.join("desktop");
    std::fs::create_dir_all(&parts)?;
    eprintln!("demo: starting the desktop");
    Ok(match &arguments.desktop {
        Desktop::Demo => {
            let desktop = DemoDesktop::start(&demo_desktop::Settings {
                program: program.context("the desktop was not built")?,
                folder,
                listen: port::free()?,
                user: USER,
                password_file: &folder.join("password"),
                security: demo_desktop::Security::Nla,
                keep_certificate: true,
            })?;
            let target = local(desktop.address, "nla");
            (Running::Demo(desktop), target)
        }
        Desktop::Shadow => {
            let desktop = Shadow::start(&parts, shadow::Security::Nla, USER, password)?;
            let target = local(desktop.address, "nla");
            (Running::Shadow(desktop), target)
        }
        Desktop::Xrdp => {
            let desktop = Xrdp::start(&parts, xrdp::SecurityLayer::Tls)?;
            let target = local(desktop.address, "tls");
            (Running::Xrdp(desktop), target)
        }
        Desktop::Yours { host, port } => {
            let host = if host.contains(':') {
                format!("[{host}]")
            } else {
                host.clone()
            };
            // What the server offers is not known: both are safe, standard RDP security is not.
            let target = Target {
                address: format!("{host}:{port}"),
                security: "nla\", \"tls",
            };
            (Running::Yours, target)
        }
    })
}

/// What the gateway dials.
struct Target {
    address: String,
    /// Inside of the quotes of a TOML list.
    security: &'static str,
}

fn write_config(
    arguments: &Arguments,
    folder: &Path,
    postern: &Path,
    target: &Target,
) -> Result<PathBuf> {
    let hash = hash_password(postern, &folder.join("password"))?;
    write_private(&folder.join("demo.hash"), &hash)?;
    let metrics = port::free()?;
    let (title, home) = match arguments.desktop {
        Desktop::Demo => ("Demo desktop", folder.display()),
        Desktop::Shadow => ("X desktop", folder.display()),
        Desktop::Xrdp => ("xrdp desktop", folder.display()),
        Desktop::Yours { .. } => ("Your desktop", folder.display()),
    };
    let Target { address, security } = target;
    let port = arguments.port;
    let text = format!(
        "[organisation]\n\
         name = \"Postern demo\"\n\
         public_url = \"https://localhost:{port}\"\n\
         [listen]\n\
         addresses = [\"127.0.0.1:{port}\"]\n\
         [certificate]\n\
         self_signed = true\n\
         [state]\n\
         directory = \"{home}/state\"\n\
         [metrics]\n\
         listen = \"{metrics}\"\n\
         [[application]]\n\
         name = \"desktop\"\n\
         title = \"{title}\"\n\
         target = \"{address}\"\n\
         certificate = \"first_use\"\n\
         security = [\"{security}\"]\n\
         [[application.policy]]\n\
         name = \"demo\"\n\
         action = \"allow\"\n\
         include = [{{ group = \"demo\" }}]\n\
         [[user]]\n\
         name = \"{USER}\"\n\
         email = \"demo@postern.example\"\n\
         groups = [\"demo\"]\n\
         password_hash_file = \"{home}/demo.hash\"\n"
    );
    let config = folder.join("postern.toml");
    write_private(&config, &text)?;
    Ok(config)
}

fn announce(arguments: &Arguments, password: &str, folder: &Path) {
    let url = format!("https://localhost:{}/", arguments.port);
    println!();
    println!("  Open      {url}");
    println!("  User      {USER}");
    println!("  Password  {password}");
    println!();
    println!("  The certificate is self-signed: the browser will warn once. Go on from there.");
    match arguments.desktop {
        Desktop::Demo | Desktop::Shadow => {
            println!("  The desktop asks for a login of its own: the same user and password.");
        }
        Desktop::Xrdp => {
            println!(
                "  The desktop has no login of its own: type any name there, and press Enter in"
            );
            println!(
                "  xrdp's first dialog. While the demo runs, whoever can reach its port on this"
            );
            println!("  machine can use its terminal, too.");
        }
        Desktop::Yours { .. } => println!("  The desktop's login is that of your own server."),
    }
    println!(
        "  Logs and state are in {} until the end.",
        folder.display()
    );
    println!();
    println!("  Ctrl-C stops everything that was started, and removes that folder.");
    println!();
    if arguments.open {
        let opener = Command::new("xdg-open")
            .arg(&url)
            .stderr(Stdio::null())
            .status();
        if !opener.is_ok_and(|status| status.success()) {
            eprintln!("demo: cannot open a browser here; open the URL yourself");
        }
    }
}

/// Watches the parts until Ctrl-C.
fn attend(mut desktop: Running, mut gateway: Process, interrupted: &AtomicBool) -> Result<()> {
    while !interrupted.load(Ordering::SeqCst) {
        std::thread::sleep(LOOK);
        gateway.expect_running()?;
        desktop.expect_running()?;
    }
    eprintln!("\ndemo: stopping");
    gateway.stop();
    drop(desktop);
    Ok(())
}

fn expect_free(port: u16) -> Result<()> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .map(drop)
        .with_context(|| format!("port {port} is not free: choose another one with --port"))
}

/// Node is here anyway, for the web client, and knows HTTPS.
fn healthy(port: u16) -> bool {
    let script = format!(
        "require('https').get({{host:'127.0.0.1',port:{port},path:'/healthz',\
         headers:{{host:'localhost:{port}'}},servername:'localhost',rejectUnauthorized:false,\
         timeout:3000}},r=>process.exit(r.statusCode===200?0:1)).on('error',()=>process.exit(1))"
    );
    let mut node = Command::new("node");
    node.args(["-e", &script]).stderr(Stdio::null());
    node.status().is_ok_and(|status| status.success())
}

/// Close to 80 random bits in letters and digits that cannot be mistaken for each other.
fn fresh_password() -> Result<String> {
    const LETTERS: &[u8; 31] = b"abcdefghjkmnpqrstuvwxyz23456789";
    let mut random = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut random))
        .context("cannot read random bytes")?;
    Ok(random
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(byte % 31)]))
        .collect())
}

fn hash_password(postern: &Path, password_file: &Path) -> Result<String> {
    let password = std::fs::File::open(password_file)?;
    let output = Command::new(postern)
        .arg("hash-password")
        .stdin(password)
        .output()
        .context("cannot start postern hash-password")?;
    if !output.status.success() {
        bail!(
            "postern hash-password: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn write_private(file: &Path, text: &str) -> Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn desktops_are_named_or_addressed() {
        let yours = |host: &str, port| {
            Ok(Desktop::Yours {
                host: host.to_owned(),
                port,
            })
        };
        let check = |text: &str, expected: Result<Desktop, ()>| {
            assert_eq!(text.parse::<Desktop>().map_err(drop), expected, "{text}");
        };
        check("demo", Ok(Desktop::Demo));
        check("xrdp", Ok(Desktop::Xrdp));
        check("pc.example:3389", yours("pc.example", 3389));
        check("[::1]:3390", yours("::1", 3390));
        check("pc.example", Err(()));
        check(":3389", Err(()));
        check("pc:rdp", Err(()));
    }

    #[test]
    fn passwords_are_fresh_and_plain() {
        let (first, second) = (fresh_password().unwrap(), fresh_password().unwrap());
        assert_ne!(first, second);
        assert!(
            first.len() == 16 && first.chars().all(|c| c.is_ascii_alphanumeric()),
            "{first}"
        );
    }
}
