//! The bare hop carries a gigabyte each way on every way that it has, and every byte arrives once.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use postern_bench::peers::{Certificate, HOST};
use postern_engine::relay::ktls;
use postern_parts::{Process, port, wait};
use postern_tests::duplex::Duplex;
use postern_tests::fake_target::send_noise;
use postern_tests::noise::{Digest, Tally};
use postern_tests::{Browser, on_each_driver};
use postern_wire::websocket::{Opcode, client_frame};

const MIB: u64 = 1 << 20;

/// What is carried each way.
const BYTES: u64 = 1024 * MIB;

/// Until the hop listens; and no peer is silent for longer.
const PATIENCE: Duration = Duration::from_secs(60);

const CHUNK_BYTES: usize = 64 * 1024;

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

on_each_driver!(
    passthrough_arrives_unchanged_and_is_spliced,
    passthrough_to_a_unix_socket_arrives_unchanged_and_is_spliced,
    tls_arrives_unchanged,
    tls_to_a_unix_socket_arrives_unchanged,
    ws_arrives_unchanged,
    wss_arrives_unchanged,
);

fn passthrough_arrives_unchanged_and_is_spliced(driver: &'static str) -> Result<()> {
    let (target, echoed) = echo_on_tcp()?;
    let hop = Hop::start("passthrough", driver, &target)?;
    let (client, pipes) = (hop.connect()?, hop.pipes()?);
    let most = hop.carry(&Client::Plain(client), false, &echoed)?;
    ensure!(most > pipes, "no lane went through a pipe");
    Ok(())
}

fn passthrough_to_a_unix_socket_arrives_unchanged_and_is_spliced(
    driver: &'static str,
) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("target");
    let echoed = echo_on_unix(&path)?;
    let hop = Hop::start("passthrough", driver, &format!("unix:{}", path.display()))?;
    let (client, pipes) = (hop.connect()?, hop.pipes()?);
    let most = hop.carry(&Client::Plain(client), false, &echoed)?;
    ensure!(most > pipes, "no lane went through a pipe");
    Ok(())
}

fn tls_arrives_unchanged(driver: &'static str) -> Result<()> {
    let (target, echoed) = echo_on_tcp()?;
    carry_tls(driver, &target, &echoed)
}

fn tls_to_a_unix_socket_arrives_unchanged(driver: &'static str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("target");
    let echoed = echo_on_unix(&path)?;
    carry_tls(driver, &format!("unix:{}", path.display()), &echoed)
}

/// Spliced where the records are the kernel's; the hop says whose they are.
fn carry_tls(driver: &'static str, target: &str, echoed: &Receiver<Digest>) -> Result<()> {
    let hop = Hop::start("tls", driver, target)?;
    let (stream, _) = Browser::new(hop.address, HOST).connect()?;
    let pipes = hop.pipes()?;
    let most = hop.carry(&Client::Tls(Box::new(stream)), false, echoed)?;
    let (said, is_kernels) = match ktls::available() {
        Ok(()) => ("records of TLS 1.3 are the kernel's".to_owned(), true),
        Err(absence) => (format!("records are our own: {absence}"), false),
    };
    ensure!(hop.process.log_tail().contains(&said), "not told: {said}");
    ensure!((most > pipes) == is_kernels, "{most} pipes, {said}");
    Ok(())
}

fn ws_arrives_unchanged(driver: &'static str) -> Result<()> {
    let (target, echoed) = echo_on_tcp()?;
    let hop = Hop::start("ws", driver, &target)?;
    let client = Client::Plain(hop.connect()?);
    client.upgrade()?;
    hop.carry(&client, true, &echoed).map(drop)
}

fn wss_arrives_unchanged(driver: &'static str) -> Result<()> {
    let (target, echoed) = echo_on_tcp()?;
    let hop = Hop::start("wss", driver, &target)?;
    let (stream, _) = Browser::new(hop.address, HOST).connect()?;
    let client = Client::Tls(Box::new(stream));
    client.upgrade()?;
    hop.carry(&client, true, &echoed).map(drop)
}

/// A running `postern-bench-hop`.
struct Hop {
    process: Process,
    address: std::net::SocketAddr,
    way: &'static str,
    driver: &'static str,
    _folder: tempfile::TempDir,
}

impl Hop {
    fn start(way: &'static str, driver: &'static str, target: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let address = port::free()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_postern-bench-hop"));
        command.args(["--way", way, "--driver", driver, "--target", target]);
        command.args(["--listen", &address.to_string()]);
        if matches!(way, "tls" | "wss") {
            let Certificate { chain, key, .. } = Certificate::write(folder.path())?;
            command.arg("--chain").arg(chain).arg("--key").arg(key);
        }
        let mut process = Process::start("hop", &command, &folder.path().join("log"))?;
        wait::until("the hop", PATIENCE, || {
            process.expect_running()?;
            Ok(wait::accepts(address).then_some(()))
        })?;
        Ok(Self {
            process,
            address,
            way,
            driver,
            _folder: folder,
        })
    }

    fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Ends of pipes that the hop has open.
    fn pipes(&self) -> Result<usize> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.process.pid()))?;
        let links = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        Ok(links
            .filter(|link| link.to_string_lossy().starts_with("pipe:"))
            .count())
    }

    /// Sends bytes through the hop and gets them back, at the same time; all three ends must have
    /// seen the same. The most ends of pipes that the hop had meanwhile.
    fn carry(&self, client: &Client, framed: bool, echoed: &Receiver<Digest>) -> Result<usize> {
        let began = Instant::now();
        let (sent, returned, most) = std::thread::scope(|scope| -> Result<_> {
            let sender = scope.spawn(|| client.send(framed));
            let receiver = scope.spawn(|| client.receive(framed));
            let mut most = 0;
            while !receiver.is_finished() {
                most = most.max(self.pipes()?);
                std::thread::sleep(Duration::from_millis(20));
            }
            let joined = (sender.join(), receiver.join());
            let (Ok(sent), Ok(returned)) = joined else {
                bail!("a thread panicked");
            };
            Ok((sent?, returned?, most))
        })
        .with_context(|| self.process.log_tail())?;
        let rate = (BYTES / MIB) as f64 / began.elapsed().as_secs_f64();
        println!(
            "{} MiB each way, {} on {}: {rate:.0} MiB/s",
            BYTES / MIB,
            self.way,
            self.driver
        );
        let echoed = echoed.recv_timeout(PATIENCE)?;
        ensure!(sent.bytes == BYTES);
        ensure!(
            echoed == sent && returned == sent,
            "sent {sent:?}, at the target {echoed:?}, came back {returned:?}"
        );
        Ok(most)
    }
}

/// The client's end.
enum Client {
    Plain(TcpStream),
    Tls(Box<Duplex>),
}

impl Client {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => (&*stream).write_all(bytes),
            Self::Tls(stream) => stream.send(bytes),
        }
    }

    fn upgrade(&self) -> Result<()> {
        self.write(UPGRADE.as_bytes())?;
        let mut head = Vec::new();
        // One by one: what follows is the first frame.
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            (&*self).read_exact(&mut byte)?;
            head.extend(byte);
        }
        ensure!(head.starts_with(b"HTTP/1.1 101 "), "no upgrade: {head:?}");
        Ok(())
    }

    /// Sends [`BYTES`] and says that this was all.
    fn send(&self, framed: bool) -> Result<Digest> {
        let frame = |payload: &[u8]| client_frame(Opcode::Binary, true, [7, 1, 8, 2], payload);
        let sent = send_noise(BYTES, 1, |chunk| match framed {
            true => self.write(&frame(chunk)),
            false => self.write(chunk),
        })?;
        match self {
            Self::Plain(stream) if !framed => stream.shutdown(Shutdown::Write)?,
            Self::Tls(stream) if !framed => stream.finish()?,
            _ => self.write(&client_frame(
                Opcode::Close,
                true,
                [0; 4],
                &1000_u16.to_be_bytes(),
            ))?,
        }
        Ok(sent)
    }

    /// Takes everything up to the peer's own end.
    fn receive(&self, framed: bool) -> Result<Digest> {
        let mut tally = Tally::default();
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let length = if framed {
                let (opcode, length) = self.frame_header()?;
                ensure!(opcode != 8 || length >= 2, "a close frame without a code");
                if opcode == 8 {
                    return Ok(tally.digest());
                }
                ensure!(opcode == 2, "a frame of opcode {opcode}");
                length
            } else {
                match (&*self).read(&mut buffer)? {
                    0 => return Ok(tally.digest()),
                    read => {
                        tally.add(&buffer[..read]);
                        continue;
                    }
                }
            };
            if length > buffer.len() {
                buffer.resize(length, 0);
            }
            (&*self).read_exact(&mut buffer[..length])?;
            tally.add(&buffer[..length]);
        }
    }

    /// [RFC 6455 §5.2] Opcode and payload length of a whole message from a server.
    fn frame_header(&self) -> Result<(u8, usize)> {
        let mut header = [0; 2];
        (&*self).read_exact(&mut header)?;
        ensure!(header[0] & 0xf0 == 0x80, "a fragment: {header:?}");
        let mut extended = [0; 8];
        let digits = match header[1] {
            126 => 2,
            127 => 8,
            length => return Ok((header[0] & 0x0f, usize::from(length))),
        };
        (&*self).read_exact(&mut extended[8 - digits..])?;
        Ok((
            header[0] & 0x0f,
            usize::try_from(u64::from_be_bytes(extended))?,
        ))
    }
}

impl Read for &Client {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Client::Plain(stream) => (&*stream).read(buffer),
            Client::Tls(stream) => stream.receive(buffer),
        }
    }
}

/// An echo on TCP: its address, and what each connection brought that brought anything.
fn echo_on_tcp() -> Result<(String, Receiver<Digest>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let (echoed, digests) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let reading = stream.try_clone().map_err(anyhow::Error::from);
            let end = |stream: &TcpStream| stream.shutdown(Shutdown::Write);
            echo_beside(reading, stream, end, echoed.clone());
        }
    });
    Ok((address.to_string(), digests))
}

/// The same on a UNIX socket.
fn echo_on_unix(path: &Path) -> Result<Receiver<Digest>> {
    let listener = UnixListener::bind(path)?;
    let (echoed, digests) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let reading = stream.try_clone().map_err(anyhow::Error::from);
            let end = |stream: &UnixStream| stream.shutdown(Shutdown::Write);
            echo_beside(reading, stream, end, echoed.clone());
        }
    });
    Ok(digests)
}

fn echo_beside<S: Read + Write + Send + 'static>(
    reading: Result<S>,
    writing: S,
    end: fn(&S) -> io::Result<()>,
    echoed: Sender<Digest>,
) {
    std::thread::spawn(move || {
        let outcome = reading.and_then(|reading| echo(reading, writing, end));
        match outcome {
            Ok(digest) if digest.bytes == 0 => {}
            // A test that has failed listens no more.
            Ok(digest) => drop(echoed.send(digest)),
            Err(error) => eprintln!("echo: {error:#}"),
        }
    });
}

fn echo<S: Read + Write>(
    mut reading: S,
    mut writing: S,
    end: fn(&S) -> io::Result<()>,
) -> Result<Digest> {
    let mut tally = Tally::default();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let read = reading.read(&mut buffer)?;
        if read == 0 {
            end(&writing).map_err(|error| anyhow!("the end: {error}"))?;
            return Ok(tally.digest());
        }
        tally.add(&buffer[..read]);
        writing.write_all(&buffer[..read])?;
    }
}
