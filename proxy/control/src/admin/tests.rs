//! The command line's client on the real socket.

use std::sync::Arc;

use postern_audit::Event;

use super::*;
use crate::fixture::{CONFIG, Folder};
use crate::live::tests::session;
use crate::run::Running;

/// Asks on a thread of its own: the client blocks.
async fn ask(folder: &Folder, request: Request) -> Result<Response, String> {
    let socket = folder.path("state/run/admin.sock");
    let asked = tokio::task::spawn_blocking(move || {
        let mut client = Client::connect(&socket)?;
        client.ask(&request)
    });
    let answer = asked.await.expect("no panic");
    answer.map_err(|error| error.to_string())
}

fn words(answer: Result<Response, String>) -> String {
    match answer {
        Ok(Response::Done(words)) => words,
        other => panic!("done: {other:?}"),
    }
}

async fn started() -> (Folder, Running) {
    let folder = Folder::new(CONFIG);
    let running = folder.start().await;
    (folder, running)
}

#[tokio::test]
async fn what_changes_something_is_done_and_recorded_with_the_caller() {
    let (folder, running) = started().await;
    let answer = ask(&folder, Request::Revoke(Revoked::User("Alice".to_owned()))).await;
    assert_eq!(words(answer), "revoked all logins of user alice");
    let current = running.site.publisher.current();
    assert!(current.snapshot.revocations.users.contains_key("alice"));
    let seen = Fingerprint([1; 32]);
    let pinned = running.site.publisher.pin("lab".to_owned(), seen).await;
    pinned.expect("pinned");
    let Ok(Response::Pins(pins)) = ask(&folder, Request::Pins).await else {
        panic!("pins");
    };
    assert_eq!(pins["lab"], seen);
    words(ask(&folder, Request::ForgetPin("lab".to_owned())).await);
    assert!(running.site.publisher.current().pins.is_empty());
    let again = ask(&folder, Request::ForgetPin("lab".to_owned())).await;
    assert!(again.expect_err("refused").contains("no certificate"));
    let records: Vec<_> = folder.records().into_iter().skip(1).collect();
    assert_eq!(records.len(), 2);
    assert!(records.iter().all(|one| one.event == Event::Administration));
    let user = records[0].user.as_deref().expect("a caller");
    assert!(user.starts_with("uid "), "{user}");
    assert_eq!(records[1].reason.as_deref(), Some("forget_pin"));
}

#[tokio::test]
async fn a_reload_is_done_or_refused_in_full() {
    let (folder, running) = started().await;
    folder.write(
        "postern.toml",
        &CONFIG.replace("Lab <PC>", "Laboratory"),
        0o644,
    );
    let done = words(ask(&folder, Request::Reload).await);
    assert!(done.contains("in force as version 2"), "{done}");
    let wrong = CONFIG.replace("[listen]", "[listen]\ncore = [1]");
    folder.write("postern.toml", &wrong, 0o644);
    let refused = ask(&folder, Request::Reload).await.expect_err("refused");
    assert!(refused.contains("did you mean \"cores\"?"), "{refused}");
    assert_eq!(running.site.publisher.current().snapshot.version, 2);
    assert_eq!(running.site.counts.reloads_refused.get(), 1);
    let record = folder.records().pop().expect("a record");
    assert_eq!(record.decision.as_deref(), Some("refused"));
}

/// What docs/steering.md tells administrators of several nodes behind one address.
#[tokio::test]
async fn keys_of_another_node_are_in_force_after_a_reload() {
    let ((first, one), (second, other)) = (started().await, started().await);
    let signs = |running: &Running| {
        let keys = &running.site.publisher.current().keys;
        (keys.signing.kid().to_owned(), keys.jwks.clone())
    };
    assert_ne!(signs(&one).0, signs(&other).0);
    let sql = |folder: &Folder, text: &str| {
        let store = rusqlite::Connection::open(folder.path("state/store.sqlite"));
        let store = store.expect("opens");
        store.execute_batch(text).expect("is done");
    };
    let copy = second.path("keys.sqlite");
    let copy = copy.display();
    sql(&first, &format!("VACUUM INTO '{copy}'"));
    let taken = format!(
        "ATTACH '{copy}' AS other; BEGIN IMMEDIATE; DELETE FROM signing_key; \
         INSERT INTO signing_key SELECT * FROM other.signing_key; \
         REPLACE INTO secret SELECT * FROM other.secret; COMMIT;"
    );
    sql(&second, &taken);
    words(ask(&second, Request::Reload).await);
    assert_eq!(signs(&one), signs(&other));
}

#[tokio::test]
async fn sessions_are_listed_and_a_kill_needs_an_engine() {
    let (folder, running) = started().await;
    running.site.live.opened(session("1", "alice", "lab"));
    let Ok(Response::Sessions(sessions)) = ask(&folder, Request::Sessions).await else {
        panic!("sessions");
    };
    assert_eq!(sessions, [session("1", "alice", "lab")]);
    let kill = |id: &str| Request::Kill(KillSelector::Session(id.to_owned()));
    let unknown = ask(&folder, kill("2")).await.expect_err("refused");
    assert!(unknown.contains("no live session 2"), "{unknown}");
    let away = ask(&folder, kill("1")).await.expect_err("refused");
    assert!(away.contains("the engine is not connected"), "{away}");
    let load = ask(&folder, Request::Load).await.expect_err("refused");
    assert!(load.contains("the engine is not connected"), "{load}");
    let Ok(Response::Status(status)) = ask(&folder, Request::Status).await else {
        panic!("status");
    };
    assert_eq!((status.live_sessions, status.engine_up), (1, false));
    assert_eq!((status.applications, status.users), (4, 2));
}

#[tokio::test]
async fn what_is_not_a_request_is_refused_and_the_connection_goes_on() {
    use std::io::{BufRead as _, BufReader, Write as _};
    let (folder, _running) = started().await;
    let socket = folder.path("state/run/admin.sock");
    let asked = tokio::task::spawn_blocking(move || {
        let stream = std::os::unix::net::UnixStream::connect(socket).expect("connects");
        let mut reader = BufReader::new(stream);
        let mut exchange = |line: &str| {
            reader
                .get_mut()
                .write_all(line.as_bytes())
                .expect("written");
            let mut answer = String::new();
            reader.read_line(&mut answer).expect("read");
            answer
        };
        (exchange("rubbish\n"), exchange("{\"command\":\"pins\"}\n"))
    });
    let (refused, pins) = asked.await.expect("no panic");
    assert!(refused.contains("not understood"), "{refused}");
    assert_eq!(pins, "{\"answer\":\"pins\",\"of\":{}}\n");
}

#[tokio::test]
async fn a_second_control_does_not_take_the_folder() {
    let (folder, running) = started().await;
    let second = crate::run::start(folder.config()).await;
    assert!(matches!(second.err(), Some(crate::ControlError::Locked(_))));
    assert!(Arc::strong_count(&running.site) > 1);
}
