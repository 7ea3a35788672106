//! FreeRDP's client under a display of its own: shows that a server is good without the gateway.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::display::Server;
use crate::{Display, Process, process, program, wait};

/// How long the picture may take.
const PICTURE_PATIENCE: Duration = Duration::from_secs(20);

/// A connected native client.
#[derive(Debug)]
pub struct Client {
    process: Process,
    display: Display,
}

impl Client {
    /// Connects to `server` with `security` (`nla`, `tls` or `rdp`).
    ///
    /// # Errors
    /// The client is not installed.
    pub fn connect(
        folder: &Path,
        server: SocketAddr,
        security: &str,
        user: &str,
        password: &str,
    ) -> Result<Self> {
        program::require(&["xfreerdp", "xdotool"])?;
        std::fs::create_dir_all(folder)?;
        let display = Display::start(
            folder,
            Server::Virtual {
                width: 1280,
                height: 800,
            },
        )?;
        let mut command = Command::new("xfreerdp");
        command.args([
            &format!("/v:{server}"),
            &format!("/u:{user}"),
            &format!("/p:{password}"),
        ]);
        command.args([
            &format!("/sec:{security}"),
            "/cert:ignore",
            "/size:1280x800",
        ]);
        display.show(&mut command).env("HOME", folder);
        let process = Process::start("xfreerdp", &command, &folder.join("xfreerdp.log"))?;
        Ok(Self { process, display })
    }

    /// Types as on a keyboard, with the pointer at `x`, `y`.
    ///
    /// # Errors
    /// The client has ended.
    pub fn type_at(&mut self, x: u16, y: u16, text: &str) -> Result<()> {
        self.process.expect_running()?;
        let mut tool = Command::new("xdotool");
        tool.args(["mousemove", &x.to_string(), &y.to_string(), "click", "1"]);
        tool.args(["type", "--delay", "40", text]);
        process::run(self.display.show(&mut tool))?;
        Ok(())
    }

    /// The pixels of the client's display.
    ///
    /// # Errors
    /// The client has ended.
    pub fn picture(&mut self) -> Result<Vec<u8>> {
        self.process.expect_running()?;
        self.display.picture()
    }

    /// Waits until at least `pixels` differ from `before`.
    ///
    /// # Errors
    /// They do not, or the client has ended.
    pub fn wait_for_change(&mut self, before: &[u8], pixels: usize) -> Result<Vec<u8>> {
        wait::until("a change of the picture", PICTURE_PATIENCE, || {
            let picture = self.picture()?;
            Ok((difference(before, &picture) >= pixels).then_some(picture))
        })
    }
}

/// How many four-byte pixels differ.
#[must_use]
pub fn difference(before: &[u8], after: &[u8]) -> usize {
    let common = before
        .chunks(4)
        .zip(after.chunks(4))
        .filter(|(old, new)| old != new)
        .count();
    common + before.len().abs_diff(after.len()) / 4
}
