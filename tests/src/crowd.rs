//! Thousands of browsers or targets in a process of their own: one process may not open as many
//! files as a test of the whole has ends.

mod browsers;
mod targets;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use postern_parts::process;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::Browser;
use crate::browserless::APPLICATION_COOKIE;

/// What an answer begins with when the order was carried out.
const DONE: &str = "done ";

/// A running crowd. Dropping it ends the process.
#[derive(Debug)]
pub struct Crowd {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Crowd {
    /// Targets that echo; their address. `program` is this package's `postern-tests-crowd`.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn targets(program: &Path) -> Result<(Self, SocketAddr)> {
        let mut crowd = Self::start(Command::new(program).arg("targets"))?;
        let address = crowd.ask("address")?.parse()?;
        Ok((crowd, address))
    }

    /// Browsers with the cookies that `browser` has for `application`.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn browsers(program: &Path, browser: &Browser, application: &str) -> Result<Self> {
        let token = browser.token(application).context("no token")?;
        let mut command = Command::new(program);
        command
            .arg("browsers")
            .arg(browser.gateway().to_string())
            .args([&browser.host, application, token]);
        Self::start(&command)
    }

    fn start(command: &Command) -> Result<Self> {
        let (input, output) = (Stdio::piped(), Stdio::piped());
        let mut child = process::start_guarded(command, input, output, Stdio::inherit())
            .context("a crowd can't be started")?;
        let orders = child.stdin.take().context("the crowd has no input")?;
        let answers = child.stdout.take().context("the crowd has no output")?;
        Ok(Self {
            child,
            orders,
            answers: BufReader::new(answers),
        })
    }

    /// Gives an order and waits for the answer to it, for which the crowd itself has its time limits.
    ///
    /// # Errors
    /// It could not be carried out.
    pub fn ask(&mut self, order: &str) -> Result<String> {
        writeln!(self.orders, "{order}").with_context(|| format!("{order}: the crowd is gone"))?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        match answer.trim_end().strip_prefix(DONE) {
            Some(done) => Ok(done.to_owned()),
            None => bail!("{order}: {answer}"),
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        process::signal_group(self.child.id(), Signal::KILL);
        // It is killed: this is the end of it.
        let _ = self.child.wait();
    }
}

/// What the program does: carries out one order a line until there are no more.
///
/// # Errors
/// The arguments are wrong, or the process may open too few files.
pub fn run(arguments: &[String]) -> Result<()> {
    allow_descriptors()?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["targets"] => {
            let targets = targets::Targets::start()?;
            obey(|order| targets.obey(order))
        }
        ["browsers", gateway, host, application, token] => {
            let mut browser = Browser::new(gateway.parse()?, host);
            browser.set_cookie(&browser.home(application), APPLICATION_COOKIE, token);
            let mut browsers = browsers::Browsers::new(browser, application);
            obey(|order| browsers.obey(order))
        }
        _ => bail!("targets | browsers GATEWAY HOST APPLICATION TOKEN"),
    }
}

fn obey(mut carry_out: impl FnMut(&[&str]) -> Result<String>) -> Result<()> {
    for order in std::io::stdin().lines() {
        let order = order?;
        let words: Vec<&str> = order.split(' ').collect();
        match carry_out(&words) {
            Ok(done) => println!("{DONE}{done}"),
            // One line, as every answer.
            Err(error) => println!("{}", format!("{error:#}").replace('\n', " ")),
        }
    }
    Ok(())
}

/// As many as the system lets this process have.
///
/// # Errors
/// The limit can't be raised.
pub fn allow_descriptors() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).context("the limit of open files can't be raised")
}

fn unknown(order: &[&str]) -> Result<String> {
    bail!("nobody knows what {order:?} is")
}
