//! X displays without a screen: their cookie, and the programs on them.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::{Process, process, program, wait};

/// How long an X server may take to start.
const START_PATIENCE: Duration = Duration::from_secs(15);

/// An X server that only holders of its cookie may use.
#[derive(Debug)]
pub struct Display {
    /// As in `DISPLAY`.
    pub name: String,
    cookie_file: PathBuf,
    program: Option<Process>,
    server: Process,
}

/// Which X server to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server<'a> {
    /// A frame buffer of this size.
    Virtual { width: u16, height: u16 },
    /// One that draws into an RDP session of xrdp; its sockets are in this folder.
    Xrdp { sockets: &'a Path },
}

impl Display {
    /// Starts an X server on the first free display; its files go to `folder`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(folder: &Path, server: Server<'_>) -> Result<Self> {
        program::require(&["xauth", "mcookie"])?;
        let (cookie_file, number_file) = (folder.join("cookie"), folder.join("display"));
        let cookie = process::run(&mut Command::new("mcookie"))?;
        // The server takes any cookie in the file; which display it gets is known only later.
        add_cookie(&cookie_file, ":0", &cookie)?;
        let mut command = match server {
            Server::Virtual { width, height } => {
                program::require(&["Xvfb"])?;
                let mut command = Command::new("Xvfb");
                command.args(["-screen", "0", &format!("{width}x{height}x24"), "-fbdir"]);
                command.arg(folder);
                command
            }
            Server::Xrdp { sockets } => {
                // The server itself, as xrdp starts it: the one in PATH may be a wrapper for consoles.
                let mut command = Command::new("/usr/lib/xorg/Xorg");
                command.args(["-config", "xrdp/xorg.conf", "-logfile"]);
                command
                    .arg(folder.join("xorg.log"))
                    .env("XRDP_SOCKET_PATH", sockets);
                command
            }
        };
        command.args(["-displayfd", "1", "-noreset", "-nolisten", "tcp", "-auth"]);
        command.arg(&cookie_file);
        let mut server = Process::start_split(
            "the X server",
            &command,
            &number_file,
            &folder.join("x.log"),
        )?;
        let number = wait::until("the X server", START_PATIENCE, || {
            server.expect_running()?;
            let text = std::fs::read_to_string(&number_file).unwrap_or_default();
            Ok(text.ends_with('\n').then(|| text.trim().to_owned()))
        })?;
        let name = format!(":{number}");
        add_cookie(&cookie_file, &name, &cookie)?;
        Ok(Self {
            name,
            cookie_file,
            program: None,
            server,
        })
    }

    /// What a virtual display shows, as the X server keeps it: an XWD file of 4-byte pixels.
    ///
    /// # Errors
    /// The display is not a virtual one.
    pub fn picture(&self) -> Result<Vec<u8>> {
        let file = self.cookie_file.with_file_name("Xvfb_screen0");
        std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))
    }

    /// Points `command` at this display.
    pub fn show<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("DISPLAY", &self.name)
            .env("XAUTHORITY", &self.cookie_file)
    }

    /// Opens a terminal with a shell that fills most of the display. Where we are root the shell
    /// is `nobody`'s, so that no desktop hands out root.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn open_terminal(&mut self, folder: &Path) -> Result<()> {
        program::require(&["xterm"])?;
        let mut command = Command::new("xterm");
        if rustix::process::geteuid().is_root() {
            let (user, group) = nobody()?;
            let cookie = folder.join("cookie-of-nobody");
            std::fs::copy(&self.cookie_file, &cookie).context("cannot copy the cookie")?;
            chown(&cookie, Some(user), Some(group)).context("cannot give the cookie away")?;
            std::fs::set_permissions(folder, Permissions::from_mode(0o711))?;
            command = Command::new("setpriv");
            command.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]);
            command.args(["--reset-env", "--", "env"]);
            command.arg(format!("DISPLAY={}", self.name));
            command.arg(format!("XAUTHORITY={}", cookie.display()));
            command.args(["HOME=/tmp", "xterm"]);
        }
        command.args(["-geometry", "110x36+24+24", "-fa", "Monospace", "-fs", "11"]);
        command.args(["-bg", "#0e1222", "-fg", "#ecf0f8", "-cr", "#ffc468"]);
        command.args(["-title", "Terminal", "-e", "/bin/sh"]);
        self.show(&mut command).env("PS1", "$ ");
        self.program = Some(Process::start(
            "xterm",
            &command,
            &folder.join("xterm.log"),
        )?);
        Ok(())
    }

    /// # Errors
    /// The server or the terminal has ended.
    pub fn expect_running(&mut self) -> Result<()> {
        self.server.expect_running()?;
        self.program
            .as_mut()
            .map_or(Ok(()), Process::expect_running)
    }
}

fn add_cookie(file: &Path, display: &str, cookie: &str) -> Result<()> {
    process::run(Command::new("xauth").args(["-q", "-f"]).arg(file).args([
        "add",
        display,
        ".",
        cookie.trim(),
    ]))
    .context("cannot write the cookie of the X display")?;
    Ok(())
}

/// User and group id of `nobody`.
fn nobody() -> Result<(u32, u32)> {
    let read = |flag: &str| -> Result<u32> {
        let text = process::run(Command::new("id").args([flag, "nobody"]))?;
        text.trim().parse().context("id did not print a number")
    };
    Ok((read("-u")?, read("-g")?))
}
