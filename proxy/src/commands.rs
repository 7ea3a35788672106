//! What each command does.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use postern_access::UnixSeconds;
use postern_access::duration::Duration;
use postern_control::admin::{Client, Revoked};
use postern_control::clock::now;
use postern_control::{Config, ControlError, audit};
use postern_snapshot::message::KillSelector;
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use crate::node::{self, EngineArguments};
use crate::{Audit, Command, Pins, Revoke, Sessions, privileges, steer, supervise};

/// Runs a command; its exit status.
pub fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Serve(argument) => serve(&argument.config),
        Command::Check(argument) => check(&argument.config),
        Command::Control(argument) => control(&argument.config),
        Command::Conductor(argument) => conductor(&argument.config),
        Command::Engine { run_dir } => engine(&EngineArguments {
            run_directory: run_dir,
        }),
        Command::Audit {
            action: Audit::Verify { directory, keys },
        } => verify(&directory, keys.as_deref()),
        Command::Audit {
            action: Audit::Reconcile { directory, json },
        } => reconcile(&directory, json),
        Command::HashPassword => hash_password(),
        Command::Manual => print(&postern_control::config::manual_markdown()),
        Command::Schema => print(&postern_control::config::schema_json()),
        Command::Sessions { config, action } => sessions(&config.config, action),
        Command::Revoke { config, what } => revoke(&config.config, what),
        Command::Reload(argument) => reload(&argument.config),
        Command::Status(argument) => status(&argument.config),
        Command::Pins { config, action } => pins(&config.config, &action),
        Command::Steer { config, action } => steer::run(&config.config, action),
    }
}

pub fn print(text: &str) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        other => other?,
    }
    Ok(ExitCode::SUCCESS)
}

fn load(path: &Path) -> Result<Config> {
    let (config, warnings) = Config::load(path)?;
    if !warnings.problems.is_empty() {
        eprintln!("{warnings}");
    }
    Ok(config)
}

fn serve(path: &Path) -> Result<ExitCode> {
    let config = load(path)?;
    let conductor_socket = config.needs_conductor().then(|| config.steer_socket());
    supervise::run(&supervise::Roles {
        config: path,
        run_directory: &config.run_directory(),
        conductor_socket: conductor_socket.as_deref(),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn check(path: &Path) -> Result<ExitCode> {
    print(&load(path)?.summary())
}

pub fn say(text: &str) -> Result<ExitCode> {
    print(&format!("{text}\n"))
}

/// Speaks to the control process that runs with this configuration, even when the file has been
/// broken since.
fn client(path: &Path) -> Result<Client> {
    let places = Config::places_of(path)?;
    Ok(Client::connect(&places.admin_socket())?)
}

fn sessions(path: &Path, action: Sessions) -> Result<ExitCode> {
    let mut client = client(path)?;
    match action {
        Sessions::List { json: true } => {
            let text = serde_json::to_string_pretty(&client.sessions()?)?;
            say(&text)
        }
        Sessions::List { json: false } => {
            let mut sessions = client.sessions()?;
            sessions.sort_by_key(|session| session.opened_at);
            let now = now();
            let mut text = String::new();
            for session in &sessions {
                let lived = Duration(session.opened_at.until(now));
                let left = Duration(now.until(session.valid_until));
                text.push_str(&format!(
                    "{}  {}  {}  {} -> {}  open for {lived}, ends in {left}\n",
                    session.id, session.email, session.application, session.source, session.target,
                ));
            }
            if sessions.is_empty() {
                text.push_str("no live sessions\n");
            }
            print(&text)
        }
        Sessions::Kill { what } => {
            let selector = match what.split_once(':') {
                Some(("user", name)) => KillSelector::User(name.to_owned()),
                Some(("application", name)) => KillSelector::Application(name.to_owned()),
                Some((kind, _)) => {
                    bail!("{kind:?} is not a kind of session: use user:NAME or application:NAME")
                }
                None if what == "all" => KillSelector::All,
                None => KillSelector::Session(what),
            };
            say(&client.kill(selector)?)
        }
    }
}

fn revoke(path: &Path, what: Revoke) -> Result<ExitCode> {
    let revoked = match what {
        Revoke::User { name } => Revoked::User(name),
        Revoke::Application { name } => Revoked::Application(name),
        Revoke::Login { id } => Revoked::Login(id),
    };
    say(&client(path)?.revoke(revoked)?)
}

fn reload(path: &Path) -> Result<ExitCode> {
    let mut words = client(path)?.reload()?;
    if let Some(of_conductor) = steer::reload(path)? {
        words.push('\n');
        words.push_str(&of_conductor);
    }
    say(&words)
}

fn status(path: &Path) -> Result<ExitCode> {
    let status = client(path)?.status()?;
    let steering = steer::in_a_line(path);
    let up = if status.engine_up { "up" } else { "down" };
    print(&format!(
        "version             {}\nengine              {up}\nsnapshot            {} (in force: {})\n\
         live sessions       {}\napplications        {}\nusers               {}\n\
         kept certificates   {}\naudit checkpoint    {}\ncertificate ends in {}\n\
         steering            {steering}\n",
        status.program,
        status.snapshot_version,
        status.snapshot_version_applied,
        status.live_sessions,
        status.applications,
        status.users,
        status.pins,
        status.checkpoint,
        Duration(now().until(UnixSeconds(status.certificate_expires_at))),
    ))
}

fn pins(path: &Path, action: &Pins) -> Result<ExitCode> {
    let mut client = client(path)?;
    match action {
        Pins::List => {
            let pins = client.pins()?;
            let lines: String = pins
                .iter()
                .map(|(name, pin)| format!("{name}  {pin}\n"))
                .collect();
            print(if lines.is_empty() {
                "no certificates are kept\n"
            } else {
                &lines
            })
        }
        Pins::Forget { application } => say(&client.forget_pin(application)?),
    }
}

/// A role keeps its secrets out of core files, and ends with the supervisor.
fn become_role() {
    postern_engine::resources::forbid_dumps();
    postern_engine::resources::die_with_parent(signal_hook::consts::SIGTERM);
}

/// The role that loads programs into the kernel. What is configured and can't be had is an error: a
/// cluster that believes in a node which does not steer would cut its desktops.
fn conductor(path: &Path) -> Result<ExitCode> {
    become_role();
    let refused = |why: String| {
        eprintln!("postern: conductor: {why}");
        Ok(ExitCode::from(supervise::EXIT_CONFIGURATION))
    };
    let settings = match Config::load(path) {
        Ok((config, _)) => steer::settings(config),
        Err(error) => return refused(error.to_string()),
    };
    if let Some(lacking) = privileges::missing_for_conductor()? {
        return refused(lacking);
    }
    let file = path.to_owned();
    let reread = move || {
        let (config, _) = Config::load(&file).map_err(|error| error.to_string())?;
        Ok(steer::settings(config))
    };
    match postern_conductor::main(settings, Box::new(reread)) {
        Err(error) if steer::is_lasting(&error) => refused(error.in_full()),
        Err(error) => bail!(error.in_full()),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

fn control(path: &Path) -> Result<ExitCode> {
    privileges::give_up()?;
    become_role();
    match postern_control::main(path) {
        Err(error @ ControlError::Config(_)) => {
            eprintln!("postern: {}", error.in_full());
            Ok(ExitCode::from(supervise::EXIT_CONFIGURATION))
        }
        Err(error) => bail!(error.in_full()),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

fn engine(arguments: &EngineArguments) -> Result<ExitCode> {
    privileges::give_up()?;
    become_role();
    match node::run(arguments) {
        Err(error)
            if error
                .downcast_ref::<postern_engine::EngineError>()
                .is_some() =>
        {
            eprintln!("postern: engine: {error:#}");
            Ok(ExitCode::from(supervise::EXIT_CONFIGURATION))
        }
        other => other.map(|()| ExitCode::SUCCESS),
    }
}

fn verify(directory: &Path, keys: Option<&Path>) -> Result<ExitCode> {
    let keys = keys
        .map(|path| {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            serde_json::from_str(&text).with_context(|| format!("{} is not a JWKS", path.display()))
        })
        .transpose()?;
    let report = audit::verify(directory, keys.as_ref())
        .map_err(|error| anyhow::anyhow!(error.in_full()))?;
    print(&format!("{report}\n"))?;
    Ok(if report.holds() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn reconcile(directory: &Path, json: bool) -> Result<ExitCode> {
    let found = audit::reconcile(directory).map_err(|error| anyhow::anyhow!(error.in_full()))?;
    if json {
        say(&serde_json::to_string_pretty(&found)?)?;
    } else {
        say(&found.to_string())?;
    }
    Ok(if found.holds() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn hash_password() -> Result<ExitCode> {
    let password = Zeroizing::new(read_password()?);
    let password = password.trim_end_matches(['\r', '\n']);
    let mut salt = [0; 16];
    SystemRandom::new()
        .fill(&mut salt)
        .map_err(|_| anyhow::anyhow!("the system has no randomness"))?;
    let hash = postern_login::local::hash_password(password, &salt)?;
    print(&format!("{hash}\n"))
}

/// The first line of standard input; at a terminal asked for twice and not shown.
fn read_password() -> Result<String> {
    if !std::io::stdin().is_terminal() {
        let mut password = String::new();
        let read = std::io::stdin().lock().read_line(&mut password);
        read.context("standard input")?;
        return Ok(password);
    }
    let password = rpassword::prompt_password("Password: ")?;
    let again = Zeroizing::new(rpassword::prompt_password("Again: ")?);
    ensure!(
        password == *again,
        "the two are not the same; nothing was printed"
    );
    Ok(password)
}
