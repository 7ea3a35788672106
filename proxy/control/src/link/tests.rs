//! A fake engine on the real socket.

use postern_access::UnixSeconds;
use postern_snapshot::{Ended, LiveSession, Snapshot};

use super::*;
use crate::fixture::{CONFIG, Folder};
use crate::live::tests::{ended, session};
use crate::run::Running;
use crate::store::Revoked;

struct FakeEngine {
    stream: UnixStream,
    bytes: Vec<u8>,
}

impl FakeEngine {
    async fn connect(folder: &Folder) -> Self {
        let socket = folder.path("state/run/link.sock");
        Self {
            stream: UnixStream::connect(socket).await.expect("connects"),
            bytes: Vec::new(),
        }
    }

    async fn say(&mut self, message: ToControl) {
        let bytes = frame::encode(&message).expect("encodes");
        self.stream.write_all(&bytes).await.expect("written");
    }

    /// The next message that is not a lease.
    async fn hear(&mut self) -> ToEngine {
        loop {
            if let Some((message, used)) = frame::decode(&self.bytes).expect("a frame") {
                self.bytes.drain(..used);
                if !matches!(message, ToEngine::Lease) {
                    return message;
                }
                continue;
            }
            let read = timeout(WRITE_MAX, self.stream.read_buf(&mut self.bytes)).await;
            assert!(
                read.expect("in time").expect("reads") > 0,
                "control is gone"
            );
        }
    }

    async fn snapshot(&mut self) -> Snapshot {
        match self.hear().await {
            ToEngine::Snapshot(snapshot) => *snapshot,
            other => panic!("a snapshot: {other:?}"),
        }
    }

    async fn hello(&mut self, sessions: Vec<LiveSession>) {
        self.say(ToControl::Hello {
            pid: 1,
            cores: 1,
            version: 1,
            info: epoll_info(),
            sessions,
        })
        .await;
    }
}

fn epoll_info() -> EngineInfo {
    EngineInfo {
        driver: "epoll".to_owned(),
        kernel_tls: "no".to_owned(),
        placement: "hash".to_owned(),
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}");
}

async fn started() -> (Folder, Running, FakeEngine) {
    let folder = Folder::new(CONFIG);
    let running = folder.start().await;
    let engine = FakeEngine::connect(&folder).await;
    (folder, running, engine)
}

#[tokio::test]
async fn an_engine_hears_the_state_first_and_every_change_of_it() {
    let (folder, running, mut engine) = started().await;
    let first = engine.snapshot().await;
    assert_eq!(first.issuer, "https://gw.example:8443");
    assert_eq!(first.lease_s, 3600);
    assert_eq!(first.applications.len(), 4);
    assert_eq!(first.web_socket, folder.path("state/run/web.sock"));
    assert_eq!(first.audit.directory, folder.path("state/audit"));
    assert!(!first.certificates[0].key_pem.expose().is_empty());
    let revoked = Revoked::User("alice".to_owned());
    running
        .site
        .publisher
        .revoke(revoked)
        .await
        .expect("revoked");
    let second = engine.snapshot().await;
    assert_eq!(second.version, first.version + 1);
    assert!(second.revocations.users.contains_key("alice"));
    let text = CONFIG.replace("127.0.0.1:3389", "127.0.0.1:4000");
    folder.write("postern.toml", &text, 0o644);
    running.site.publisher.reload().await.expect("reloaded");
    assert_eq!(engine.snapshot().await.applications[0].target.port, 4000);
}

#[tokio::test]
async fn a_refused_configuration_changes_nothing() {
    let (folder, running, mut engine) = started().await;
    let before = engine.snapshot().await.version;
    folder.write("postern.toml", "[organisation]\n", 0o644);
    assert!(running.site.publisher.reload().await.is_err());
    assert_eq!(running.site.publisher.current().snapshot.version, before);
    assert_eq!(
        running.site.publisher.current().config.applications.len(),
        4
    );
}

#[tokio::test]
async fn what_a_running_process_can_not_change_is_kept_and_named() {
    let (folder, running, _engine) = started().await;
    let text = CONFIG.replace("127.0.0.1:8443", "127.0.0.1:9443");
    folder.write(
        "postern.toml",
        &text.replace("\"state\"", "\"elsewhere\""),
        0o644,
    );
    let reloaded = running.site.publisher.reload().await.expect("reloaded");
    assert_eq!(
        reloaded.restart,
        ["listen.addresses", "state.directory", "audit.directory"]
    );
    let current = running.site.publisher.current();
    assert_eq!(
        current.snapshot.listen,
        ["127.0.0.1:8443".parse().expect("address")]
    );
}

#[tokio::test]
async fn the_live_list_follows_the_engine() {
    let (_folder, running, mut engine) = started().await;
    let live = || running.site.live.count();
    engine.hello(vec![session("1", "alice", "lab")]).await;
    until("hello is heard", || live() == 1).await;
    engine
        .say(ToControl::Opened(session("2", "bob", "lab")))
        .await;
    until("a session is live", || live() == 2).await;
    engine
        .say(ToControl::Ended(ended(
            &session("1", "alice", "lab"),
            "idle",
        )))
        .await;
    until("a session is over", || live() == 1).await;
    engine
        .say(ToControl::Ended(Ended {
            session: None,
            application: "lab".to_owned(),
            identity_nonce: Some("n".to_owned()),
            reason: "target_unreachable".to_owned(),
            sentence: String::new(),
            at: UnixSeconds(1),
        }))
        .await;
    engine.say(ToControl::Applied { version: 42 }).await;
    until("a state is applied", || running.site.engine.applied() == 42).await;
    let (_, last) = running.site.live.of_login("lab", "n");
    assert_eq!(last.expect("an end").reason, "target_unreachable");
}

#[tokio::test]
async fn an_engine_that_connects_again_takes_the_place_of_the_old_one() {
    let (folder, running, mut old) = started().await;
    old.snapshot().await;
    old.hello(vec![session("1", "alice", "lab")]).await;
    let mut new = FakeEngine::connect(&folder).await;
    new.snapshot().await;
    new.hello(Vec::new()).await;
    until("the new list counts", || running.site.live.count() == 0).await;
    running
        .site
        .engine
        .kill(KillSelector::All)
        .await
        .expect("told");
    assert!(matches!(
        new.hear().await,
        ToEngine::Kill {
            selector: KillSelector::All
        }
    ));
    let closed = async { while let Ok(1..) = old.stream.read_buf(&mut old.bytes).await {} };
    timeout(WRITE_MAX, closed)
        .await
        .expect("the old link is closed");
    drop(new);
    until("the engine is away", || !running.site.engine.is_up()).await;
    assert_eq!(
        running.site.engine.kill(KillSelector::All).await,
        Err(NoEngine)
    );
}

#[tokio::test]
async fn the_first_certificate_is_kept_and_recorded_and_a_second_one_is_not() {
    let (folder, running, mut engine) = started().await;
    engine.snapshot().await;
    let (one, two) = (Fingerprint([1; 32]), Fingerprint([2; 32]));
    let ask = |request, application: &str, sha256| ToControl::Pin {
        request,
        application: application.to_owned(),
        sha256,
    };
    for (request, application, seen, expected) in [
        (1, "lab", one, Some(one)),
        (2, "lab", two, Some(one)),
        (3, "nothing", two, None),
    ] {
        engine.say(ask(request, application, seen)).await;
        loop {
            match engine.hear().await {
                ToEngine::Pin {
                    request: of,
                    stored,
                } => {
                    assert_eq!((of, stored), (request, expected));
                    break;
                }
                ToEngine::Snapshot(snapshot) => assert_eq!(snapshot.pins["lab"], one),
                other => panic!("a pin or a state: {other:?}"),
            }
        }
    }
    engine
        .say(ToControl::CertificateChanged {
            application: "lab".to_owned(),
            expected: one,
            seen: Some(two),
        })
        .await;
    until("it is counted", || {
        running.site.counts.certificate_changes.get() == 1
    })
    .await;
    until("it is recorded", || folder.records().len() == 3).await;
    let records = folder.records();
    assert_eq!(records[1].decision.as_deref(), Some("pinned"));
    assert_eq!(records[1].target_certificate, Some(one.to_string()));
    assert_eq!(
        records[2].reason.as_deref(),
        Some("target_certificate_changed")
    );
    assert_eq!(records[2].target_certificate, Some(two.to_string()));
}

#[tokio::test]
async fn the_engines_measurements_are_served_and_an_absent_engine_is_no_error() {
    let (_folder, running, mut engine) = started().await;
    let site = running.site.clone();
    engine.snapshot().await;
    let scrape = tokio::spawn(async move { crate::metrics::text(&site).await });
    let ToEngine::Metrics { request } = engine.hear().await else {
        panic!("a question");
    };
    let core = CoreMetrics {
        core: 5,
        dials: 9,
        ..CoreMetrics::default()
    };
    engine
        .say(ToControl::Metrics {
            request,
            cores: vec![core],
        })
        .await;
    let text = scrape.await.expect("no panic");
    assert!(text.contains("postern_dials_total{core=\"5\"} 9"), "{text}");
    assert!(text.contains("postern_engine_up 1"));
    assert!(!text.contains("postern_engine_info{"), "it said no hello");
    // It is asked and does not answer.
    let text = crate::metrics::text(&running.site).await;
    assert!(!text.contains("core=") && text.contains("postern_snapshot_version "));
}

#[tokio::test]
async fn how_busy_the_engine_is_can_be_asked() {
    use crate::admin::{Client, Load, Request, Response};
    let (folder, _running, mut engine) = started().await;
    engine.snapshot().await;
    let socket = folder.path("state/run/admin.sock");
    let asked = tokio::task::spawn_blocking(move || {
        let mut client = Client::connect(&socket).expect("connects");
        client.ask(&Request::Load).expect("is answered")
    });
    let ToEngine::Metrics { request } = engine.hear().await else {
        panic!("a question");
    };
    let core = |core: usize, handshakes: u64| CoreMetrics {
        core,
        tls_handshakes_live: handshakes,
        sessions_live: 20,
        ..CoreMetrics::default()
    };
    let cores = vec![core(0, 3), core(1, 4)];
    engine.say(ToControl::Metrics { request, cores }).await;
    let load = Load {
        sessions: 40,
        sessions_max: 4_000,
        handshakes: 7,
        handshakes_max: 2 * 256,
    };
    assert_eq!(asked.await.expect("no panic"), Response::Load(load));
}

#[tokio::test]
async fn what_the_engine_runs_on_is_served() {
    let (_folder, running, mut engine) = started().await;
    engine.hello(Vec::new()).await;
    until("the hello is heard", || {
        running.site.engine.info() == Some(epoll_info())
    })
    .await;
    let text = crate::metrics::text(&running.site).await;
    assert!(
        text.contains(
            "postern_engine_info{driver=\"epoll\",kernel_tls=\"no\",placement=\"hash\"} 1"
        ),
        "{text}"
    );
}

#[tokio::test]
async fn rubbish_on_the_link_ends_it() {
    let (_folder, running, mut engine) = started().await;
    engine.snapshot().await;
    engine.stream.write_all(&[0xff; 64]).await.expect("written");
    until("the link is closed", || !running.site.engine.is_up()).await;
}
