//! etcd on loopback ports of its own, with its data in a temporary folder.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{Process, port, process, program, wait};

/// How long it may take to serve; it has to win an election first.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// What differs from etcd's own ways.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Who may connect, and as whom etcd does; without it anybody, in plain.
    pub tls: Option<Tls>,
    /// Longest request that it takes, where not 1.5 MiB.
    pub request_bytes_max: Option<usize>,
}

/// Files in PEM.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Who signs the certificates of clients.
    pub ca_file: PathBuf,
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
}

/// A cluster of one member or of several. Dropping it ends all, and removes their data.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
    options: Options,
    folder: TempDir,
}

/// One process, and where it is reached.
#[derive(Debug)]
struct Member {
    name: String,
    clients: SocketAddr,
    peers: SocketAddr,
    process: Option<Process>,
    paused: bool,
}

impl Etcd {
    /// Starts one member.
    ///
    /// # Errors
    /// etcd is not installed or does not start.
    pub fn start() -> Result<Self> {
        Self::start_with(1, Options::default())
    }

    /// Starts a cluster of `count` members.
    ///
    /// # Errors
    /// As [`Etcd::start`].
    pub fn start_with(count: usize, options: Options) -> Result<Self> {
        program::require(&["etcd"])?;
        let member = |number: usize| {
            Ok(Member {
                name: format!("m{number}"),
                clients: port::free()?,
                peers: port::free()?,
                process: None,
                paused: false,
            })
        };
        let mut etcd = Self {
            members: (0..count).map(member).collect::<Result<_>>()?,
            options,
            folder: tempfile::tempdir()?,
        };
        etcd.restart()?;
        Ok(etcd)
    }

    /// Where clients reach each member.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        let scheme = self.scheme();
        let url = |member: &Member| format!("{scheme}://{}", member.clients);
        self.members.iter().map(url).collect()
    }

    /// Where clients reach the first member.
    #[must_use]
    pub fn url(&self) -> String {
        self.urls().swap_remove(0)
    }

    /// Ends every member at once, as a power cut does. The data stays.
    pub fn stop(&mut self) {
        for number in 0..self.members.len() {
            self.stop_member(number);
        }
    }

    /// Ends one member, as [`Etcd::stop`] does.
    ///
    /// # Panics
    /// There is no such member.
    pub fn stop_member(&mut self, number: usize) {
        let member = &mut self.members[number];
        if let Some(mut process) = member.process.take() {
            process::signal_group(process.pid(), Signal::KILL);
            process.stop();
        }
        member.paused = false;
    }

    /// Starts what does not run, with the data and the ports that it had, and goes on with what was
    /// paused.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.resume();
        let peers: Vec<String> = self
            .members
            .iter()
            .map(|member| format!("{}=http://{}", member.name, member.peers))
            .collect();
        for number in 0..self.members.len() {
            if self.members[number].process.is_none() {
                let command = self.command(&self.members[number], &peers.join(","));
                let log = self.folder.path().join(format!("m{number}.log"));
                let process = Process::start("etcd", &command, &log)?;
                self.members[number].process = Some(process);
            }
        }
        for member in &mut self.members {
            let process = member.process.as_mut().context("it was just started")?;
            wait::until("etcd", START_PATIENCE, || {
                process.expect_running()?;
                // It listens once the cluster has a leader.
                Ok(wait::accepts(member.clients).then_some(()))
            })?;
        }
        Ok(())
    }

    /// Starts anew without any data, on the same ports: what was there is lost.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart_empty(&mut self) -> Result<()> {
        self.stop();
        for member in &self.members {
            let data = self.folder.path().join(&member.name);
            std::fs::remove_dir_all(data).context("cannot remove etcd's data")?;
        }
        self.restart()
    }

    /// Stops every member's clock: it takes connections, and never answers.
    pub fn pause(&mut self) {
        for member in &mut self.members {
            if let Some(process) = &member.process {
                process.signal(Signal::STOP);
                member.paused = true;
            }
        }
    }

    /// Ends a pause.
    pub fn resume(&mut self) {
        for member in &mut self.members {
            if let (Some(process), true) = (&member.process, member.paused) {
                process.signal(Signal::CONT);
                member.paused = false;
            }
        }
    }

    fn scheme(&self) -> &'static str {
        match self.options.tls {
            Some(_) => "https",
            None => "http",
        }
    }

    fn command(&self, member: &Member, cluster: &str) -> Command {
        let clients = format!("{}://{}", self.scheme(), member.clients);
        let peers = format!("http://{}", member.peers);
        let mut command = Command::new(program::find("etcd").unwrap_or_else(|| "etcd".into()));
        command
            .env_clear()
            .arg("--name")
            .arg(&member.name)
            .arg("--data-dir")
            .arg(self.folder.path().join(&member.name))
            .args(["--listen-client-urls", &clients])
            .args(["--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers])
            .args(["--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", cluster])
            .args(["--logger", "zap", "--log-level", "warn"]);
        if let Some(bytes) = self.options.request_bytes_max {
            command.arg("--max-request-bytes").arg(bytes.to_string());
        }
        if let Some(tls) = &self.options.tls {
            command
                .arg("--client-cert-auth")
                .arg("--trusted-ca-file")
                .arg(&tls.ca_file)
                .arg("--cert-file")
                .arg(&tls.certificate_file)
                .arg("--key-file")
                .arg(&tls.key_file);
        }
        command
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_pauses_ends_and_starts_again_on_the_same_port() {
        let mut etcd = Etcd::start().unwrap();
        let address = etcd.members[0].clients;
        assert_eq!(etcd.url(), format!("http://{address}"));
        etcd.pause();
        etcd.stop();
        assert!(!wait::accepts(address));
        etcd.restart().unwrap();
        assert!(wait::accepts(address));
        etcd.restart_empty().unwrap();
        assert_eq!(etcd.url(), format!("http://{address}"));
        drop(etcd);
        assert!(!wait::accepts(address));
    }
}
