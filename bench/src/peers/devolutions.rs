//! Devolutions Gateway, whose binary `--peer` names: as it ships, or with TCP_NODELAY set from outside.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::token::Provisioner;
use super::{Entrance, Ground, HOST, Peer, Relay, Way, folder, free_port, nodelay, on_core, write};
use crate::load::{Target, Upgrade};

/// Tokens that are made at most for one run. Runs that open more sessions use one again; the
/// gateway allows it for RDP within some seconds.
const TOKENS_MAX: usize = 1_000;

/// The way in, with a fresh token for every session.
#[derive(Debug)]
pub(super) struct Door {
    listen: SocketAddr,
    server: SocketAddr,
    way: Way,
    provisioner: Provisioner,
}

impl Door {
    pub fn target(&self, sessions: usize) -> Result<Target> {
        let upgrades = (0..sessions.clamp(1, TOKENS_MAX))
            .map(|_| self.upgrade())
            .collect::<Result<Vec<_>>>()?;
        Ok(match self.way {
            Way::Ws => Target::ws(self.listen, upgrades),
            Way::Wss => Target::wss(self.listen, HOST, upgrades),
            _ => Target::rdp(self.listen, HOST, upgrades, &self.server.to_string()),
        })
    }

    fn upgrade(&self) -> Result<Upgrade> {
        let token = self.provisioner.token(self.server)?;
        let host = format!("{HOST}:{}", self.listen.port());
        let upgrade = Upgrade {
            host,
            ..Upgrade::default()
        };
        Ok(match self.way {
            Way::Rdp => Upgrade {
                path: "/jet/rdp".to_owned(),
                proxy_auth: token.text,
                ..upgrade
            },
            _ => Upgrade {
                path: format!("/jet/fwd/tcp/{}?token={}", token.session, token.text),
                ..upgrade
            },
        })
    }
}

pub(super) fn start(peer: Peer, way: Way, ground: &Ground<'_>) -> Result<Relay> {
    let folder = folder()?;
    let listen = free_port()?;
    let provisioner = Provisioner::new()?;
    write(
        &folder.path().join("provisioner.pem"),
        &provisioner.public_pem()?,
    )?;
    let scheme = if way == Way::Ws { "http" } else { "https" };
    let file = |name: &str| folder.path().join(name);
    let configuration = json!({
        "Id": provisioner.uuid()?,
        "Hostname": HOST,
        "ProvisionerPublicKeyFile": file("provisioner.pem"),
        "TlsCertificateSource": "External",
        "TlsCertificateFile": ground.certificate.chain,
        "TlsPrivateKeyFile": ground.certificate.key,
        "TlsVerifyStrict": false,
        "Listeners": [{
            "InternalUrl": format!("{scheme}://{listen}"),
            "ExternalUrl": format!("{scheme}://{HOST}:{}", listen.port()),
        }],
        "VerbosityProfile": "Quiet",
        "LogFile": file("gateway"),
        "JrlFile": file("jrl.json"),
        "RecordingPath": file("recordings"),
        "JobQueueDatabase": file("job_queue.db"),
        "TrafficAuditDatabase": file("traffic_audit.db"),
    });
    write(&file("gateway.json"), &configuration.to_string())?;
    let mut command = on_core(ground.cores.relay, &ground.binaries.get("devolutions")?);
    command.arg("--config-path").arg(folder.path());
    command.current_dir(folder.path());
    if peer == Peer::DevolutionsNoDelay {
        let library = nodelay::compile(folder.path()).context("TCP_NODELAY")?;
        command.env("LD_PRELOAD", library);
    }
    let server = match way {
        Way::Rdp => ground.server.rdp,
        _ => ground.server.plain,
    };
    let door = Door {
        listen,
        server,
        way,
        provisioner,
    };
    let mut relay = Relay {
        name: peer.name(),
        entrance: Entrance::Devolutions(door),
        processes: Vec::new(),
        folder,
    };
    relay.add(peer.name(), &command)?;
    relay.ready(listen)
}
