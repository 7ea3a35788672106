//! FreeRDP's shadow server in front of a real X display with a terminal in it.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::display::Server;
use crate::{Display, Process, port, process, program, wait};

/// How long it may take to listen.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// How clients authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Network Level Authentication against the given user.
    Nla,
    /// TLS alone: whoever connects is in.
    Tls,
}

/// A running shadow server.
#[derive(Debug)]
pub struct Shadow {
    pub address: SocketAddr,
    server: Process,
    pub display: Display,
}

impl Shadow {
    /// Starts an X display, a terminal in it and the server; files go to `folder`.
    ///
    /// # Errors
    /// A part is not installed or does not start.
    pub fn start(folder: &Path, security: Security, user: &str, password: &str) -> Result<Self> {
        program::require(&["freerdp-shadow-cli", "winpr-hash", "Xvfb", "xterm"])?;
        std::fs::create_dir_all(folder)?;
        let mut display = Display::start(
            folder,
            Server::Virtual {
                width: 1280,
                height: 800,
            },
        )?;
        display.open_terminal(folder)?;

        let address = port::free()?;
        let mut command = Command::new("freerdp-shadow-cli");
        command.args([
            "/bind-address:127.0.0.1",
            &format!("/port:{}", address.port()),
        ]);
        match security {
            Security::Nla => {
                let users = folder.join("users.sam");
                write_users(&users, user, password)?;
                command.args([
                    "/sec:nla",
                    "+auth",
                    &format!("/sam-file:{}", users.display()),
                ]);
            }
            Security::Tls => {
                command.args(["/sec:tls", "-auth"]);
            }
        }
        // Its certificate is made in its configuration folder.
        display
            .show(&mut command)
            .env("HOME", folder)
            .env("XDG_CONFIG_HOME", folder.join("config"));
        let mut server = Process::start("freerdp-shadow", &command, &folder.join("shadow.log"))?;
        wait::until("freerdp-shadow", START_PATIENCE, || {
            server.expect_running()?;
            Ok(wait::accepts(address).then_some(()))
        })?;
        Ok(Self {
            address,
            server,
            display,
        })
    }

    /// Ends the server and leaves the display, as a machine that goes away.
    pub fn stop_server(&mut self) {
        self.server.stop();
    }

    /// # Errors
    /// A part has ended.
    pub fn expect_running(&mut self) -> Result<()> {
        self.server.expect_running()?;
        self.display.expect_running()
    }
}

/// The NTLM user file of one user.
fn write_users(file: &Path, user: &str, password: &str) -> Result<()> {
    let line = process::run(
        Command::new("winpr-hash").args(["-u", user, "-p", password, "-v", "1", "-f", "sam"]),
    )?;
    std::fs::write(file, line).with_context(|| format!("cannot write {}", file.display()))?;
    std::fs::set_permissions(file, Permissions::from_mode(0o600))?;
    Ok(())
}
