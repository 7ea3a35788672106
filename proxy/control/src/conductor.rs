//! What control asks the conductor, where there is one, for those who ask control.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Whoever scrapes waits no longer for the conductor than this.
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// Longest answer: the measurements of as many nodes as a table has.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Ends what Prometheus reads; only the whole text has it [OpenMetrics 1.0 §3.2.1].
const END_MARK: &str = "# EOF";

/// The answers that control understands.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer", content = "of")]
enum Answer {
    Text(String),
    Announcement(Announcement),
    Refused(String),
}

/// Whether routers should send packets of the services to this node.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Announcement {
    pub(crate) is_announced: bool,
    /// In words, also when they should.
    pub(crate) why: String,
}

/// The conductor's measurements, without an end mark; none when it does not answer in time.
pub(crate) async fn metrics(socket: &Path) -> Option<String> {
    match ask(socket, "metrics").await? {
        Answer::Text(text) => {
            let lines = text.lines().filter(|line| line.trim() != END_MARK);
            Some(lines.flat_map(|line| [line, "\n"]).collect())
        }
        _ => None,
    }
}

/// Without an answer in time nothing should be announced.
pub(crate) async fn announcement(socket: &Path) -> Announcement {
    let not = |why: String| Announcement {
        is_announced: false,
        why,
    };
    match ask(socket, "announce").await {
        Some(Answer::Announcement(announcement)) => announcement,
        Some(Answer::Refused(why)) => not(why),
        Some(Answer::Text(_)) | None => not("the conductor does not answer".to_owned()),
    }
}

async fn ask(socket: &Path, command: &str) -> Option<Answer> {
    let asked = async {
        let mut stream = UnixStream::connect(socket).await.ok()?;
        let request = format!("{{\"command\":\"{command}\"}}\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut line = Vec::new();
        let mut reader = BufReader::new(stream).take(ANSWER_BYTES_MAX);
        reader.read_until(b'\n', &mut line).await.ok()?;
        serde_json::from_slice(&line).ok()
    };
    timeout(ANSWER_MAX, asked).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    /// Answers one request with `answer`, and says what was asked.
    async fn answered(answer: String) -> (tempfile::TempDir, tokio::task::JoinHandle<String>) {
        let folder = tempfile::tempdir().expect("folder");
        let listener = UnixListener::bind(folder.path().join("steer.sock")).expect("binds");
        let task = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("accepts");
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line).await.expect("read");
            // Whoever asked may have hung up.
            let _ = stream.write_all(answer.as_bytes()).await;
            line
        });
        (folder, task)
    }

    #[tokio::test]
    async fn measurements_come_without_an_end_mark() {
        let text = "{\"answer\":\"text\",\"of\":\"# TYPE a gauge\\na 1\\n# EOF\\n\"}\n".to_owned();
        let (folder, asked) = answered(text).await;
        let told = metrics(&folder.path().join("steer.sock")).await;
        assert_eq!(told.as_deref(), Some("# TYPE a gauge\na 1\n"));
        assert_eq!(asked.await.expect("ends"), "{\"command\":\"metrics\"}\n");
    }

    #[tokio::test]
    async fn nothing_is_announced_without_a_clear_yes() {
        let check = async |answer: &str, expected: bool, why: &str| {
            let (folder, asked) = answered(format!("{answer}\n")).await;
            let told = announcement(&folder.path().join("steer.sock")).await;
            assert_eq!(told.is_announced, expected, "{answer}");
            assert!(told.why.contains(why), "{told:?}");
            assert_eq!(asked.await.expect("ends"), "{\"command\":\"announce\"}\n");
        };
        let of = |yes: bool| {
            format!(
                "{{\"answer\":\"announcement\",\"of\":{{\"is_announced\":{yes},\"why\":\"so\"}}}}"
            )
        };
        check(&of(true), true, "so").await;
        check(&of(false), false, "so").await;
        check("{\"answer\":\"refused\",\"of\":\"later\"}", false, "later").await;
        check(
            "{\"answer\":\"text\",\"of\":\"yes\"}",
            false,
            "does not answer",
        )
        .await;
        check("rubbish", false, "does not answer").await;
        let gone = announcement(Path::new("/nowhere/steer.sock")).await;
        assert!(!gone.is_announced);
    }

    #[tokio::test]
    async fn a_conductor_that_hangs_holds_nobody_up() {
        let folder = tempfile::tempdir().expect("folder");
        let socket = folder.path().join("steer.sock");
        let listener = UnixListener::bind(&socket).expect("binds");
        let began = tokio::time::Instant::now();
        assert_eq!(metrics(&socket).await, None);
        assert!(began.elapsed() < 10 * ANSWER_MAX, "{:?}", began.elapsed());
        drop(listener);
    }
}
