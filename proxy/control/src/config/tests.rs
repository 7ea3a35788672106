//! What a configuration may get wrong, and how it is told.

use super::*;
use crate::fixture::{CONFIG, Folder};

/// The problems of a file that is refused.
fn problems(text: &str) -> Vec<Problem> {
    let folder = Folder::new(text);
    let errors = Config::load(&folder.path("postern.toml")).expect_err("is refused");
    errors.problems
}

/// The fixture's file with one change is refused for one reason.
fn check(from: &str, to: &str, key: &str, what: &str) {
    assert!(CONFIG.contains(from), "{from}");
    let problems = problems(&CONFIG.replacen(from, to, 1));
    let [problem] = &problems[..] else {
        panic!("one problem: {problems:?}");
    };
    assert_eq!(problem.key, key, "{problem:?}");
    assert!(problem.what.contains(what), "{problem:?}");
    assert!(problem.place.is_some(), "{problem:?}");
}

#[test]
fn the_fixture_holds_and_is_understood() {
    let folder = Folder::new(CONFIG);
    let (config, warnings) = Config::load(&folder.path("postern.toml")).expect("holds");
    assert_eq!(config.origin, "https://gw.example:8443");
    assert_eq!(config.host, "gw.example");
    assert_eq!(config.session_s, 24 * 60 * 60);
    assert_eq!(config.state_directory, folder.path("state"));
    assert_eq!(config.audit.directory, folder.path("state/audit"));
    assert!(config.audit.fail_closed);
    let lab = config.application("lab").expect("lab");
    assert_eq!(lab.public.prefix, "/app/lab");
    assert_eq!(lab.policies[0].session_duration_s, Some(3600));
    let office = config.application("office").expect("office");
    assert_eq!(office.public.origin, "https://office.example:8443");
    assert_eq!(office.public.prefix, "");
    assert_eq!(config.hosts(), ["gw.example", "office.example"]);
    let keys: Vec<_> = warnings
        .problems
        .iter()
        .map(|one| one.key.as_str())
        .collect();
    assert_eq!(keys, ["certificate.self_signed"]);
    let summary = config.summary();
    assert!(
        summary.contains("\"staff\" allows group \"staff\", for 1h"),
        "{summary}"
    );
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_one_and_its_place() {
    let check = |from: &str, to: &str, key: &str, near: &str, place: (usize, usize)| {
        let problems = problems(&CONFIG.replacen(from, to, 1));
        let [problem] = &problems[..] else {
            panic!("one problem: {problems:?}");
        };
        assert_eq!((problem.key.as_str(), problem.place), (key, Some(place)));
        assert!(problem.what.contains(near), "{problem:?}");
    };
    check(
        "[organisation]",
        "[organisation]\nnmae = \"x\"",
        "organisation.nmae",
        "\"name\"",
        (3, 1),
    );
    check(
        "title = \"Lab <PC>\"",
        "titel = \"Lab\"",
        "application[0].titel",
        "\"title\"",
        (16, 1),
    );
    check(
        "  session_duration = \"1h\"",
        "  sesion_duration = \"1h\"",
        "application[0].policy[0].sesion_duration",
        "\"session_duration\"",
        (23, 3),
    );
    check("[metrics]", "[metric]", "metric", "\"metrics\"", (11, 2));
    check(
        "[listen]",
        "[listen]\nwhatever = 1",
        "listen.whatever",
        "addresses, cores, driver",
        (6, 1),
    );
}

#[test]
fn every_mistake_is_told_at_once() {
    let text = CONFIG
        .replacen("[organisation]", "[organisation]\nnmae = \"x\"", 1)
        .replacen("127.0.0.1:3389", "127.0.0.1", 1)
        .replacen("8h", "99d", 1)
        .replacen("\"bob\"", "\"Alice\"", 1);
    let problems = problems(&text);
    let keys: Vec<_> = problems
        .iter()
        .map(|problem| problem.key.as_str())
        .collect();
    assert_eq!(
        keys,
        [
            "organisation.nmae",
            "application[0].target",
            "application[0].session_duration",
            "user[1].name"
        ]
    );
}

#[test]
fn what_does_not_hold_is_refused() {
    let url = "\"https://gw.example:8443\"";
    let key = "organisation.public_url";
    check(url, "\"http://gw.example\"", key, "https://");
    check(url, "\"https://gw.example/login\"", key, "host name");
    check(url, "\"https://user@gw.example\"", key, "host name");
    check(url, "\"https://gw.example:0\"", key, "1 to 65535");
    check(url, "\"https://gw.example:https\"", key, "more than");
    check(url, "\"https://1.2.3\"", key, "IPv4");
    check(
        "name = \"Example\"",
        "name = \" \"",
        "organisation.name",
        "characters",
    );
    let listen = "[\"127.0.0.1:8443\"]";
    check(listen, "[]", "listen.addresses", "no address");
    check(listen, "[\"8443\"]", "listen.addresses[0]", "0.0.0.0:443");
    check(
        listen,
        "[\"[::]:1\", \"[::]:1\"]",
        "listen.addresses[1]",
        "twice",
    );
    check(
        "self_signed = true",
        "self_signed = false",
        "certificate",
        "chain_file",
    );
    check(
        "listen = \"off\"",
        "listen = \"no\"",
        "metrics.listen",
        "off",
    );
    let session = "[metrics]";
    check(
        session,
        "[session]\nduration = \"1m\"\n[metrics]",
        "session.duration",
        "15m to 31d",
    );
    check(
        "name = \"lab\"",
        "name = \"Lab\"",
        "application[0].name",
        "a-z",
    );
    check(
        "name = \"vault\"",
        "name = \"lab\"",
        "application[1].name",
        "another name",
    );
    check(
        "host = \"office.example\"",
        "host = \"gw.example\"",
        "application[3].host",
        "taken",
    );
    check(
        "host = \"office.example\"",
        "host = \"off ice\"",
        "application[3].host",
        "host name",
    );
    let target = "target = \"127.0.0.1:3389\"";
    let with = |line: &str| format!("{target}\n{line}");
    check(
        target,
        "target = \"127.0.0.1\"",
        "application[0].target",
        "host:3389",
    );
    check(
        target,
        &with("security = []"),
        "application[0].security",
        "nla",
    );
    check(
        target,
        &with("certificate = { pin = [] }"),
        "application[0].certificate",
        "SHA-256",
    );
    check(
        target,
        &with("certificate = { pin = [\"00\"] }"),
        "application[0].certificate.pin[0]",
        "64 hex",
    );
    check(
        target,
        &with("certificate = { ca_file = \"none.pem\" }"),
        "application[0].certificate.ca_file",
        "can't be read",
    );
    check(
        target,
        &with("certificate = { ca_file = \"hash\" }"),
        "application[0].certificate.ca_file",
        "no certificate",
    );
    check(
        "include = [{ group = \"staff\" }]",
        "include = []",
        "application[0].policy[0].include",
        "everyone",
    );
    check("alice@example.org", "alice", "user[0].email", "email");
    check(
        "name = \"alice\"",
        "name = \"al ice\"",
        "user[0].name",
        "spaces",
    );
    check(
        "[metrics]",
        "[limits]\nsessions_max = 0\n[metrics]",
        "limits.sessions_max",
        "0",
    );
    check(
        "[metrics]",
        "[limits]\nhead_bytes_max = 100000\n[metrics]",
        "limits.head_bytes_max",
        "65536",
    );
}

#[test]
fn what_has_the_wrong_form_is_refused_with_its_place() {
    let check = |from: &str, to: &str, what: &str| {
        let problems = problems(&CONFIG.replacen(from, to, 1));
        let found = problems
            .iter()
            .any(|one| one.what.contains(what) && one.place.is_some());
        assert!(found, "{what}: {problems:?}");
    };
    check("\"8h\"", "\"8 hours\"", "is no duration");
    check("\"8h\"", "8", "invalid type");
    check(
        "action = \"allow\"",
        "action = \"alow\"",
        "did you mean \"allow\"?",
    );
    check(
        "action = \"allow\"",
        "action = \"bypass\"",
        "unknown variant",
    );
    check(
        "{ group = \"staff\" }",
        "{ grup = \"staff\" }",
        "did you mean \"group\"?",
    );
    check("{ ip = \"10.0.0.0/8\" }", "{ ip = \"10.0.0.0/99\" }", "");
    check("name = \"alice\"\n", "", "missing field `name`");
    check("[organisation]", "[organisation", "");
    check("target = ", "target = target = ", "");
}

#[test]
fn a_secret_file_that_others_can_read_is_refused() {
    let folder = Folder::new(CONFIG);
    let hash = std::fs::read_to_string(folder.path("hash")).expect("hash");
    for mode in [0o604, 0o640, 0o644, 0o660, 0o620] {
        folder.write("hash", &hash, mode);
        // The umask may have taken bits away.
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(folder.path("hash"), permissions).expect("set");
        let errors = Config::load(&folder.path("postern.toml")).expect_err("is refused");
        assert_eq!(errors.problems.len(), 2, "{errors}");
        assert_eq!(errors.problems[0].key, "user[0].password_hash_file");
        let advice = format!("chmod 600 {}", folder.path("hash").display());
        assert!(errors.problems[0].what.contains(&advice), "{errors}");
    }
    folder.write("hash", "plain password", 0o600);
    let errors = Config::load(&folder.path("postern.toml")).expect_err("is refused");
    assert!(
        errors.to_string().contains("postern hash-password"),
        "{errors}"
    );
    assert!(!errors.to_string().contains("plain password"), "{errors}");
}

#[test]
fn what_looks_wrong_is_warned_of() {
    let check = |from: &str, to: &str, key: &str| {
        let folder = Folder::new(&CONFIG.replacen(from, to, 1));
        let (_, warnings) = Config::load(&folder.path("postern.toml")).expect("holds");
        let found = warnings.problems.iter().any(|one| one.key == key);
        assert!(found, "{key}: {warnings}");
    };
    check(
        "listen = \"off\"",
        "listen = \"0.0.0.0:9300\"",
        "metrics.listen",
    );
    check(
        "action = \"allow\"",
        "action = \"block\"",
        "application[0].policy",
    );
    check(
        "{ group = \"staff\" }",
        "{ country = \"DE\" }",
        "application[0].policy[0].include",
    );
}

#[test]
fn problems_are_shown_as_editors_read_them() {
    let folder = Folder::new(&CONFIG.replacen("[listen]", "[listen]\ncore = [1]", 1));
    let errors = Config::load(&folder.path("postern.toml")).expect_err("is refused");
    let file = folder.path("postern.toml");
    let expected = format!(
        "{}:6:1: listen.core: unknown key; did you mean \"cores\"?",
        file.display()
    );
    assert_eq!(errors.to_string(), expected);
}

#[test]
fn the_manual_and_the_schema_know_every_key() {
    let manual = manual_markdown();
    for text in [
        "## `[organisation]`",
        "## `[[application]]`",
        "## `[[application.policy]]`",
        "| `public_url` | string | required |",
        "| `duration` | duration | `\"1d\"` |",
        "| `when_unwritable` | `\"refuse\"`, `\"continue\"` | `\"refuse\"` |",
        "| `sessions_max` | number | `",
        "| `security` | list of `\"tls\"`, `\"nla\"` | `[\"nla\"]` |",
    ] {
        assert!(manual.contains(text), "{text}\n{manual}");
    }
    let schema: serde_json::Value = serde_json::from_str(&schema_json()).expect("JSON");
    assert_eq!(schema["additionalProperties"], false);
    assert!(schema["properties"]["application"].is_object());
}

#[test]
fn the_administrators_socket_is_found_beside_other_mistakes() {
    let folder = Folder::new(CONFIG);
    let file = folder.path("postern.toml");
    let socket = folder.config().admin_socket();
    let found = |file: &Path| Config::places_of(file).map(|places| places.admin_socket());
    assert_eq!(found(&file), Ok(socket.clone()));
    folder.write(
        "postern.toml",
        "[state]\ndirectory = \"state\"\n[x]\n",
        0o644,
    );
    assert_eq!(found(&file), Ok(socket));
    folder.write("postern.toml", "[state", 0o644);
    assert!(found(&file).is_err());
}
