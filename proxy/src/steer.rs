//! `postern steer`: how connections are steered between nodes, asked of the conductor that runs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};
use clap::{Subcommand, ValueEnum};
use postern_conductor::admin::{Client, Protocol, Status, Tuple};
use postern_conductor::{ConductorError, Settings};
use postern_control::Config;
use postern_snapshot::Placement;
use postern_steering::NodeId;

use crate::commands::{print, say};

#[derive(Debug, Subcommand)]
pub enum Steer {
    /// Say how this node and its cluster are; `--json` for all there is
    Status {
        #[arg(long)]
        json: bool,
    },
    /// Give a node no new connections; the desktops that it has stay
    Drain {
        /// The node's number
        #[arg(value_parser = node)]
        node: NodeId,
    },
    /// Take a drain back
    Undrain {
        /// The node's number
        #[arg(value_parser = node)]
        node: NodeId,
    },
    /// Take a node out of the cluster for good; says first what that cuts
    Remove {
        /// The node's number
        #[arg(value_parser = node)]
        node: NodeId,
        /// Cut it
        #[arg(long)]
        yes: bool,
    },
    /// Say where the packets of a connection go, and why
    Explain {
        /// The client's address and port
        source: SocketAddr,
        /// The service's address and port
        destination: SocketAddr,
        #[arg(long, value_enum, default_value_t)]
        protocol: ProtocolArgument,
    },
    /// Take everything out of the kernel that the conductor has left there; works without it
    Detach,
    /// Make the secret of a cluster in a new file, which all its nodes need
    Secret {
        /// The file to make, e.g. /etc/postern/steering.secret
        file: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub enum ProtocolArgument {
    #[default]
    Tcp,
    Udp,
}

fn node(text: &str) -> Result<NodeId, String> {
    let number = text.parse().ok().and_then(NodeId::new);
    number.ok_or_else(|| "a node's number is 1 to 65535".to_owned())
}

pub fn run(path: &Path, action: Steer) -> Result<ExitCode> {
    match action {
        Steer::Status { json: true } => {
            say(&serde_json::to_string_pretty(&client(path)?.status()?)?)
        }
        Steer::Status { json: false } => say(&client(path)?.status()?.to_string()),
        Steer::Drain { node } => say(&client(path)?.drain(node)?),
        Steer::Undrain { node } => say(&client(path)?.undrain(node)?),
        Steer::Remove { node, yes } => say(&client(path)?.remove(node, yes)?),
        Steer::Explain {
            source,
            destination,
            protocol,
        } => {
            let tuple = Tuple {
                source,
                destination,
                protocol: match protocol {
                    ProtocolArgument::Tcp => Protocol::Tcp,
                    ProtocolArgument::Udp => Protocol::Udp,
                },
            };
            let told = client(path)?.explain(tuple)?;
            print(&format!("{}\n", told.trim_end()))
        }
        Steer::Detach => detach(path),
        Steer::Secret { file } => {
            postern_conductor::make_secret(&file).map_err(|error| anyhow!(error.in_full()))?;
            say(&format!(
                "{} is made; copy it to all nodes of the cluster, readable by the gateway's user alone",
                file.display()
            ))
        }
    }
}

/// Speaks to the conductor that runs with this configuration, even when the file has been broken
/// since.
fn client(path: &Path) -> Result<Client> {
    let places = Config::places_of(path)?;
    Ok(Client::connect(&places.steer_socket())?)
}

fn detach(path: &Path) -> Result<ExitCode> {
    let places = Config::places_of(path)?;
    let settings = Settings {
        steering: None,
        accounting: false,
        placement: false,
        run_directory: places.run_directory(),
        admin_socket: places.admin_socket(),
        audit_directory: places.state_directory.join("audit"),
        pins: places.bpf_directory,
        state_directory: places.state_directory,
    };
    match postern_conductor::detach(&settings) {
        Ok(()) => say("nothing of the gateway is left in the kernel"),
        Err(ConductorError::Locked(_)) => bail!("the conductor runs: stop the gateway first"),
        Err(error) => bail!(error.in_full()),
    }
}

/// What the conductor is told of a configuration.
pub fn settings(config: Config) -> Settings {
    Settings {
        accounting: config.accounting,
        placement: config.placement == Placement::Load,
        run_directory: config.run_directory(),
        admin_socket: config.admin_socket(),
        pins: config.bpf_directory,
        state_directory: config.state_directory,
        audit_directory: config.audit.directory,
        steering: config.steering,
    }
}

/// True where starting the conductor again with the same configuration on the same machine is no use.
pub fn is_lasting(error: &ConductorError) -> bool {
    let of_the_machine = matches!(
        error,
        ConductorError::Kernel(_) | ConductorError::Capabilities(_)
    );
    of_the_machine || error.is_lasting()
}

/// Steering's state for `postern status`.
pub fn in_a_line(path: &Path) -> String {
    match client(path).and_then(|mut client| Ok(client.status()?)) {
        Ok(status) => line(&status),
        Err(_) => match Config::load(path) {
            Ok((config, _)) if !config.needs_conductor() => "off".to_owned(),
            _ => "the conductor does not answer".to_owned(),
        },
    }
}

/// Lets the conductor read its settings again; nothing where the configuration needs none.
///
/// # Errors
/// It refuses them, or does not answer.
pub fn reload(path: &Path) -> Result<Option<String>> {
    match client(path).and_then(|mut client| Ok(client.reload()?)) {
        Ok(words) => Ok(Some(words)),
        Err(error) => match Config::load(path) {
            Ok((config, _)) if !config.needs_conductor() => Ok(None),
            _ => Err(error),
        },
    }
}

fn line(status: &Status) -> String {
    let Some(steering) = &status.steering else {
        return "off".to_owned();
    };
    let leader = match steering.leader {
        Some(leader) if leader == steering.node => "leads".to_owned(),
        Some(leader) => format!("node {leader} leads"),
        None => "nobody leads".to_owned(),
    };
    let table = match steering.generation {
        0 => "no table yet".to_owned(),
        generation => format!(
            "generation {generation} of {} nodes",
            steering.members.len()
        ),
    };
    let mut text = format!(
        "node {}, {leader}, {table}, {} mode",
        steering.node, steering.mode
    );
    if !steering.is_store_up {
        text.push_str("; the store is out of reach");
    }
    if steering.is_isolated {
        text.push_str("; isolated");
    }
    if !steering.is_announced {
        text.push_str("; not to be announced: ");
        text.push_str(&steering.announcement);
    }
    text
}

#[cfg(test)]
mod tests {
    use postern_conductor::admin::Steering;

    use super::*;

    fn steering() -> Steering {
        Steering {
            node: 2,
            mode: "native".to_owned(),
            native_refused: None,
            store: "etcd".to_owned(),
            is_store_up: true,
            generation: 12,
            generation_newest: 12,
            leader: Some(1),
            is_isolated: false,
            is_announced: true,
            announcement: "it serves".to_owned(),
            members: Vec::new(),
            buckets_waiting: None,
            store_refused: 0,
        }
    }

    #[test]
    fn a_line_says_what_an_administrator_must_know() {
        let check = |steering: Option<Steering>, expected: &str| {
            let told = line(&Status {
                program: "1".to_owned(),
                steering,
                accounting: None,
                placement: true,
            });
            assert_eq!(told, expected);
        };
        check(None, "off");
        check(
            Some(steering()),
            "node 2, node 1 leads, generation 12 of 0 nodes, native mode",
        );
        check(
            Some(Steering {
                leader: Some(2),
                generation: 0,
                is_store_up: false,
                is_isolated: true,
                is_announced: false,
                announcement: "isolated".to_owned(),
                ..steering()
            }),
            "node 2, leads, no table yet, native mode; the store is out of reach; isolated; not \
             to be announced: isolated",
        );
    }

    #[test]
    fn only_a_number_is_a_node() {
        let check = |text: &str, expected: Option<u16>| {
            assert_eq!(node(text).ok().map(NodeId::get), expected, "{text}");
        };
        check("1", Some(1));
        check("65535", Some(65535));
        check("0", None);
        check("65536", None);
        check("node1", None);
        check("-1", None);
    }
}
