//! xrdp with an Xorg session of its own: a configuration in a temporary folder, no system user, no
//! session manager, nothing of the machine's configuration touched.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::display::Server;
use crate::{Display, Process, port, process, program, wait};

/// How long it may take to listen.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// xrdp's `security_layer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityLayer {
    Tls,
    /// Standard RDP security: what a gateway must refuse.
    Rdp,
}

/// A running xrdp. It asks for no password: it opens its one session for whoever connects.
#[derive(Debug)]
pub struct Xrdp {
    pub address: SocketAddr,
    server: Process,
    pub display: Display,
}

impl Xrdp {
    /// Starts Xorg with a terminal in it, and xrdp; files go to `folder`.
    ///
    /// # Errors
    /// A part is not installed or does not start.
    pub fn start(folder: &Path, security: SecurityLayer) -> Result<Self> {
        program::require(&["xrdp", "xterm", "openssl"])?;
        let sockets = folder.join("sockets");
        std::fs::create_dir_all(&sockets)?;
        let mut display = Display::start(folder, Server::Xrdp { sockets: &sockets })?;
        display.open_terminal(folder)?;
        make_certificate(folder)?;

        let address = port::free()?;
        let number = display.name.trim_start_matches(':');
        let socket = sockets.join(format!("xrdp_display_{number}"));
        let file = folder.join("xrdp.ini");
        std::fs::write(&file, configuration(folder, address, security, &socket))
            .context("cannot write xrdp.ini")?;
        let mut command = Command::new(program::find("xrdp").context("xrdp is not installed")?);
        command
            .arg("--nodaemon")
            .arg("--config")
            .arg(&file)
            .env("XRDP_SOCKET_PATH", &sockets);
        let mut server = Process::start("xrdp", &command, &folder.join("xrdp-output.log"))?;
        wait::until("xrdp", START_PATIENCE, || {
            server.expect_running()?;
            Ok(wait::accepts(address).then_some(()))
        })?;
        Ok(Self {
            address,
            server,
            display,
        })
    }

    /// # Errors
    /// A part has ended.
    pub fn expect_running(&mut self) -> Result<()> {
        self.server.expect_running()?;
        self.display.expect_running()
    }
}

fn make_certificate(folder: &Path) -> Result<()> {
    process::run(
        Command::new("openssl")
            .args([
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30",
            ])
            .args([
                "-subj",
                "/CN=xrdp",
                "-keyout",
                "key.pem",
                "-out",
                "certificate.pem",
            ])
            .current_dir(folder),
    )
    .context("cannot make xrdp's certificate")?;
    Ok(())
}

fn configuration(
    folder: &Path,
    address: SocketAddr,
    security: SecurityLayer,
    socket: &Path,
) -> String {
    // xrdp 0.9 and FreeRDP 2 disagree on the checksums of standard RDP security: without
    // encryption a native client can still show that the server works.
    let (layer, level) = match security {
        SecurityLayer::Tls => ("tls", "high"),
        SecurityLayer::Rdp => ("rdp", "none"),
    };
    let (folder, socket) = (folder.display(), socket.display());
    format!(
        "[Globals]\n\
         ini_version=1\n\
         fork=true\n\
         port=tcp://{address}\n\
         tcp_nodelay=true\n\
         security_layer={layer}\n\
         crypt_level={level}\n\
         certificate={folder}/certificate.pem\n\
         key_file={folder}/key.pem\n\
         ssl_protocols=TLSv1.2, TLSv1.3\n\
         autorun=Desktop\n\
         allow_channels=true\n\
         max_bpp=32\n\
         use_fastpath=both\n\
         [Logging]\n\
         LogFile={folder}/xrdp.log\n\
         LogLevel=INFO\n\
         EnableSyslog=false\n\
         [Channels]\n\
         rdpdr=false\n\
         rdpsnd=false\n\
         drdynvc=true\n\
         cliprdr=true\n\
         [Desktop]\n\
         name=Desktop\n\
         lib=libxup.so\n\
         username=na\n\
         password=na\n\
         ip=127.0.0.1\n\
         port={socket}\n\
         code=20\n"
    )
}
