//! `postern`: the command line. One binary has every role.
#![forbid(unsafe_code)]

mod commands;
mod node;
mod privileges;
mod steer;
mod supervise;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A self-hosted Zero Trust gateway: remote desktops in the browser.
#[derive(Debug, Parser)]
#[command(name = "postern", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway: starts and watches its roles
    Serve(ConfigArgument),
    /// Check a configuration and print what it means
    Check(ConfigArgument),
    /// List or end live sessions
    Sessions {
        #[command(flatten)]
        config: ConfigArgument,
        #[command(subcommand)]
        action: Sessions,
    },
    /// Void what was granted, and cut what lives on it
    Revoke {
        #[command(flatten)]
        config: ConfigArgument,
        #[command(subcommand)]
        what: Revoke,
    },
    /// Read the configuration again; a broken one changes nothing
    Reload(ConfigArgument),
    /// Say how the running gateway is
    Status(ConfigArgument),
    /// List or forget certificates that were kept at first use
    Pins {
        #[command(flatten)]
        config: ConfigArgument,
        #[command(subcommand)]
        action: Pins,
    },
    /// See and change how connections are steered between nodes
    Steer {
        #[command(flatten)]
        config: ConfigArgument,
        #[command(subcommand)]
        action: steer::Steer,
    },
    /// Work with the audit trail
    Audit {
        #[command(subcommand)]
        action: Audit,
    },
    /// Read a password from standard input and print its argon2id hash for a `password_hash_file`
    HashPassword,
    /// Print the manual of the configuration file (Markdown)
    Manual,
    /// Print the JSON schema of the configuration file
    Schema,
    /// The role that signs, stores and logs in (started by `serve`)
    #[command(hide = true)]
    Control(ConfigArgument),
    /// The role that installs what runs in the kernel, and steers (started by `serve`)
    #[command(hide = true)]
    Conductor(ConfigArgument),
    /// The role that carries sessions (started by `serve`)
    #[command(hide = true)]
    Engine {
        /// Folder of the sockets
        #[arg(long)]
        run_dir: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct ConfigArgument {
    /// The configuration file
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/postern/postern.toml",
        global = true
    )]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Sessions {
    /// One line a live session; `--json` for all there is
    List {
        #[arg(long)]
        json: bool,
    },
    /// End sessions; their pages say that an administrator did it
    Kill {
        /// A session's id, or `user:NAME`, `application:NAME`, `all`
        what: String,
    },
}

#[derive(Debug, Subcommand)]
enum Revoke {
    /// Everything that was granted to a user until now
    User { name: String },
    /// Everything that was granted for an application until now
    Application { name: String },
    /// One login, by its id
    Login { id: String },
}

#[derive(Debug, Subcommand)]
enum Pins {
    /// One line a kept certificate
    List,
    /// Forget one: the next certificate that the target shows is kept
    Forget { application: String },
}

#[derive(Debug, Subcommand)]
enum Audit {
    /// Verify every chain and checkpoint; names the first bad record
    Verify {
        /// Folder of the audit trail
        #[arg(long, value_name = "FOLDER", default_value = "/var/lib/postern/audit")]
        directory: PathBuf,
        /// Verification keys from elsewhere instead of the folder's own `keys.json`
        #[arg(long, value_name = "FILE")]
        keys: Option<PathBuf>,
    },
    /// Hold what connections carried against what the kernel counted of them (`[accounting]`)
    Reconcile {
        /// Folder of the audit trail
        #[arg(long, value_name = "FOLDER", default_value = "/var/lib/postern/audit")]
        directory: PathBuf,
        /// Print what was found as JSON
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_log();
    match commands::run(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("postern: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Logs go to standard error; `POSTERN_LOG` filters them, e.g. `debug` or `postern=trace,info`.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("POSTERN_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}
