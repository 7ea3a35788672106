//! How busy this node is: its processors by /proc/stat, sessions and handshakes by control's word.

use std::path::Path;
use std::time::Duration;

use postern_steering::Load;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Control answers within this time or is not waited for.
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// Longest answer.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

/// Without control nothing is known but the processors: no session counts, and none is too many.
const SESSIONS: Sessions = Sessions {
    sessions: 0,
    sessions_max: u64::MAX,
    handshakes: 0,
    handshakes_max: u64::MAX,
};

/// What control says of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
struct Sessions {
    sessions: u64,
    sessions_max: u64,
    handshakes: u64,
    handshakes_max: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer", content = "of")]
enum Answer {
    Load(Sessions),
}

/// Time of all processors since the machine started, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Ticks {
    busy: u64,
    all: u64,
}

/// Measures between one look and the next.
#[derive(Debug, Default)]
pub struct Meter {
    last: Option<Ticks>,
}

impl Meter {
    /// The load since the last look; `None` at the first one.
    pub async fn look(&mut self, admin_socket: &Path) -> Option<Load> {
        let text = tokio::fs::read_to_string("/proc/stat").await.ok()?;
        let now = ticks(&text)?;
        let last = self.last.replace(now)?;
        let sessions = match timeout(ANSWER_MAX, ask(admin_socket)).await {
            Ok(Some(sessions)) => sessions,
            _ => SESSIONS,
        };
        let number = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        Some(Load {
            cpu: part(last, now),
            sessions: number(sessions.sessions),
            sessions_max: number(sessions.sessions_max),
            handshakes: number(sessions.handshakes),
            handshakes_max: number(sessions.handshakes_max),
        })
    }
}

fn part(last: Ticks, now: Ticks) -> f64 {
    let all = now.all.saturating_sub(last.all);
    let busy = now.busy.saturating_sub(last.busy).min(all);
    if all == 0 {
        return 0.0;
    }
    busy as f64 / all as f64
}

/// `cpu user nice system idle iowait irq softirq steal …`; time that a guest has is in user's already.
fn ticks(stat: &str) -> Option<Ticks> {
    let line = stat.lines().find(|line| line.starts_with("cpu "))?;
    let numbers: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .map(|number| number.parse().ok())
        .collect::<Option<_>>()?;
    let idle = numbers.get(3)? + numbers.get(4)?;
    let all = numbers.iter().sum();
    Some(Ticks {
        busy: u64::saturating_sub(all, idle),
        all,
    })
}

async fn ask(socket: &Path) -> Option<Sessions> {
    let mut stream = UnixStream::connect(socket).await.ok()?;
    stream.write_all(b"{\"command\":\"load\"}\n").await.ok()?;
    let mut line = Vec::new();
    BufReader::new(stream)
        .take(ANSWER_BYTES_MAX)
        .read_until(b'\n', &mut line)
        .await
        .ok()?;
    let Answer::Load(sessions) = serde_json::from_slice(&line).ok()?;
    Some(sessions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_is_not_idle_is_busy() {
        let read = |line: &str| ticks(&format!("{line}\ncpu0 1 1 1 1 1 1 1 1\n"));
        let check = |line: &str, expected: Option<(u64, u64)>| {
            let expected = expected.map(|(busy, all)| Ticks { busy, all });
            assert_eq!(read(line), expected, "{line}");
        };
        check("cpu  10 1 9 70 5 2 2 1 4 0", Some((25, 100)));
        check("cpu  10 1", None);
        check("cpu  a b c d e", None);
        check("intr 5", None);
        let at = |busy, all| Ticks { busy, all };
        assert_eq!(part(at(25, 100), at(75, 200)), 0.5);
        assert_eq!(part(at(25, 100), at(25, 100)), 0.0);
        // A processor was taken away.
        assert_eq!(part(at(25, 100), at(5, 50)), 0.0);
    }

    #[tokio::test]
    async fn control_is_asked_and_not_needed() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin.sock");
        let mut meter = Meter::default();
        assert_eq!(meter.look(&socket).await, None);
        let load = meter.look(&socket).await.unwrap();
        assert_eq!((load.sessions, load.sessions_max), (0, u32::MAX));

        let check = async |answer: &'static str, expected: (u32, u32, u32, u32)| {
            let _ = std::fs::remove_file(&socket);
            let listener = tokio::net::UnixListener::bind(&socket).unwrap();
            let control = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = vec![0; 64];
                let length = stream.read(&mut asked).await.unwrap();
                assert_eq!(&asked[..length], b"{\"command\":\"load\"}\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
            let mut meter = Meter {
                last: Some(Ticks::default()),
            };
            let load = meter.look(&socket).await.unwrap();
            control.await.unwrap();
            let found = (
                load.sessions,
                load.sessions_max,
                load.handshakes,
                load.handshakes_max,
            );
            assert_eq!(found, expected, "{answer}");
        };
        let of = "{\"sessions\":3,\"sessions_max\":100,\"handshakes\":1,\"handshakes_max\":8}";
        let line = format!("{{\"answer\":\"load\",\"of\":{of}}}\n");
        check(line.leak(), (3, 100, 1, 8)).await;
        check(
            "{\"answer\":\"refused\",\"of\":\"no\"}\n",
            (0, u32::MAX, 0, u32::MAX),
        )
        .await;
        check("", (0, u32::MAX, 0, u32::MAX)).await;
    }
}
