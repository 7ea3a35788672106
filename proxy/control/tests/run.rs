//! The control process as its supervisor sees it: start, signals, end.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use postern_control::admin::{Client, Status};
use postern_control::audit;

const CONFIG: &str = r#"
[organisation]
name = "Example"
public_url = "https://gw.example"
[listen]
addresses = ["127.0.0.1:8443"]
[certificate]
chain_file = "chain.pem"
key_file = "key.pem"
[state]
directory = "state"
[metrics]
listen = "off"
"#;

fn write_certificate(folder: &Path, name: &str) {
    let certificate = rcgen::generate_simple_self_signed([name.to_owned()]).expect("makes");
    let key = folder.join("key.pem");
    std::fs::write(&key, certificate.signing_key.serialize_pem()).expect("written");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("set");
    std::fs::write(folder.join("chain.pem"), certificate.cert.pem()).expect("written");
}

fn signal(name: &str) {
    let own = std::process::id().to_string();
    let status = Command::new("kill").args(["-s", name, &own]).status();
    assert!(status.expect("kill runs").success());
}

async fn status(socket: PathBuf) -> Option<Status> {
    let asked = tokio::task::spawn_blocking(move || Client::connect(&socket).ok()?.status().ok());
    asked.await.expect("no panic")
}

/// Waits for a state that `holds`.
async fn until(socket: &Path, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
    for _ in 0..200 {
        if let Some(status) = status(socket.to_owned()).await
            && holds(&status)
        {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn control_starts_reloads_and_ends_by_signals() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("postern.toml");
    std::fs::write(&file, CONFIG).expect("written");
    write_certificate(folder.path(), "gw.example");
    let socket = folder.path().join("state/run/admin.sock");
    let config = file.clone();
    let running = tokio::spawn(async move { postern_control::run(&config).await });

    let first = until(&socket, "control is up", |_| true).await;
    assert_eq!((first.snapshot_version, first.applications), (1, 0));

    let with_application =
        format!("{CONFIG}[[application]]\nname = \"lab\"\ntarget = \"127.0.0.1:3389\"\n");
    std::fs::write(&file, with_application).expect("written");
    signal("HUP");
    until(&socket, "the file is read again", |one| {
        one.applications == 1
    })
    .await;
    std::fs::write(&file, "[organisation").expect("written");
    signal("HUP");

    // The key comes first: for a moment chain and key do not fit, and the old pair stays.
    write_certificate(folder.path(), "gw.example");
    let changed = until(&socket, "the new certificate", |one| {
        one.snapshot_version == 3
    })
    .await;
    assert_eq!(changed.applications, 1);

    signal("TERM");
    running.await.expect("no panic").expect("ends well");
    assert_eq!(status(socket).await, None);
    let report = audit::verify(&folder.path().join("state/audit"), None).expect("is read");
    assert!(report.holds(), "{report}");
    // One when it started, one when it ended.
    assert_eq!(report.checkpoints, 2);
    assert_eq!(report.chains[0].checkpointed, report.chains[0].records);
}
