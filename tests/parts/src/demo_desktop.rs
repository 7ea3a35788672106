//! Our own small RDP server, `postern-desktop`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::{Process, process, wait};

/// How long it may take to listen.
const START_PATIENCE: Duration = Duration::from_secs(15);

/// How clients authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    Nla,
    Tls,
}

/// How to start one.
#[derive(Debug, Clone)]
pub struct Settings<'a> {
    /// The built program.
    pub program: PathBuf,
    /// Files go here.
    pub folder: &'a Path,
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    pub user: &'a str,
    pub password_file: &'a Path,
    pub security: Security,
    /// Keep the certificate, so that a restarted server shows the same one.
    pub keep_certificate: bool,
}

/// A running demo desktop.
#[derive(Debug)]
pub struct DemoDesktop {
    pub address: SocketAddr,
    /// SHA-256 of its certificate, as a pin is written.
    pub certificate: String,
    process: Process,
}

impl DemoDesktop {
    /// # Errors
    /// It does not start.
    pub fn start(settings: &Settings<'_>) -> Result<Self> {
        let mut command = Command::new(&settings.program);
        command.args([
            "--user",
            settings.user,
            "--listen",
            &settings.listen.to_string(),
        ]);
        command.args([
            "--security",
            if settings.security == Security::Nla {
                "nla"
            } else {
                "tls"
            },
        ]);
        command.arg("--password-file").arg(settings.password_file);
        if settings.keep_certificate {
            command.arg("--state").arg(settings.folder.join("desktop"));
        }
        let output = settings.folder.join("desktop.out");
        let log = settings.folder.join("desktop.log");
        let mut process = Process::start_split("postern-desktop", &command, &output, &log)?;
        let (address, certificate) = wait::until("postern-desktop", START_PATIENCE, || {
            process.expect_running()?;
            Ok(announced(
                &std::fs::read_to_string(&output).unwrap_or_default(),
            ))
        })?;
        let address = address
            .parse()
            .context("postern-desktop printed no address")?;
        Ok(Self {
            address,
            certificate,
            process,
        })
    }

    pub fn stop(&mut self) {
        self.process.stop();
    }

    /// # Errors
    /// It has ended.
    pub fn expect_running(&mut self) -> Result<()> {
        self.process.expect_running()
    }

    /// What it wrote.
    #[must_use]
    pub fn log(&self) -> String {
        process::tail(self.process.log_file())
    }
}

/// Reads `listening on ADDRESS certificate SHA256`.
fn announced(output: &str) -> Option<(String, String)> {
    let line = output.lines().find(|_| output.ends_with('\n'))?;
    let (address, certificate) = line
        .strip_prefix("listening on ")?
        .split_once(" certificate ")?;
    Some((address.to_owned(), certificate.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_announcement_is_read_once_it_is_complete() {
        let whole = "listening on 127.0.0.1:4000 certificate ab12\n";
        let expected = Some(("127.0.0.1:4000".to_owned(), "ab12".to_owned()));
        assert_eq!(announced(whole), expected);
        for part in [
            "",
            "listening on 127.0.0.1:4000 certificate ab",
            "something else\n",
        ] {
            assert_eq!(announced(part), None, "{part:?}");
        }
    }
}
