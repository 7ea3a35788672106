//! What `[steering]` may get wrong, and how it is told.

use postern_steering::{ModeWish, SourceRule, StoreSettings};

use super::*;
use crate::fixture::{CONFIG, Folder};

/// What every test begins with; `lo` is an interface everywhere.
pub(crate) const STEERING: &str = r#"
[steering]
node = 3
addresses = ["10.0.0.1", "2001:db8::1"]
interface = "lo"
vips = ["203.0.113.10:8443", "[2001:db8:5::10]:8443"]
peers = ["10.0.0.7/24", "2001:db8::/64"]
secret_file = "steering.secret"
[steering.store]
etcd = ["http://127.0.0.1:2379"]
"#;

const SECRET: &str = "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef\n";

pub(crate) fn folder(steering: &str) -> Folder {
    let config = CONFIG.replace("[\"127.0.0.1:8443\"]", "[\"[::]:8443\"]");
    let folder = Folder::new(&format!("{config}{steering}"));
    folder.write("steering.secret", SECRET, 0o600);
    folder.write("key.pem", "a key", 0o600);
    folder.write("nodes.toml", "", 0o644);
    folder
}

fn problems(folder: &Folder) -> Vec<Problem> {
    let errors = Config::load(&folder.path("postern.toml")).expect_err("is refused");
    errors.problems
}

/// The file with one change is refused for one reason.
fn check(from: &str, to: &str, key: &str, what: &str) {
    assert!(STEERING.contains(from), "{from}");
    let problems = problems(&folder(&STEERING.replacen(from, to, 1)));
    let [problem] = &problems[..] else {
        panic!("{to}: one problem: {problems:?}");
    };
    assert_eq!(problem.key, key, "{problem:?}");
    assert!(problem.what.contains(what), "{problem:?}");
    assert!(problem.place.is_some(), "{problem:?}");
}

fn loaded(text: &str) -> (Config, Warnings) {
    Config::load(&folder(text).path("postern.toml")).expect("holds")
}

#[test]
fn without_it_nothing_steers_and_no_role_has_privileges() {
    let config = Folder::new(CONFIG).config();
    assert_eq!(config.steering, None);
    assert!(!config.accounting && !config.needs_conductor());
    assert_eq!(config.placement_pins(), None);
    assert_eq!(config.segment_bytes_max(), None);
    assert_eq!(config.bpf_directory, Path::new("/sys/fs/bpf/postern"));
}

#[test]
fn placement_and_accounting_alone_need_the_conductor() {
    let check = |from: &str, to: &str, pins: Option<&str>| {
        let config = Folder::new(&CONFIG.replacen(from, to, 1)).config();
        assert!(config.needs_conductor(), "{to}");
        assert_eq!(config.placement_pins().as_deref(), pins.map(Path::new));
    };
    check("[state]", "[accounting]\nenabled = true\n[state]", None);
    check(
        "[listen]",
        "[listen]\nplacement = \"load\"",
        Some("/sys/fs/bpf/postern"),
    );
}

#[test]
fn what_is_written_and_what_is_not_is_understood() {
    let (config, warnings) = loaded(STEERING);
    let steering = config.steering.clone().expect("steering");
    assert_eq!((steering.node.get(), steering.weight.get()), (3, 100));
    assert_eq!(steering.address_v4, Some([10, 0, 0, 1].into()));
    assert_eq!(
        steering.address_v6,
        Some("2001:db8::1".parse().expect("v6"))
    );
    assert_eq!((steering.tunnel_port, steering.mtu), (6080, 1500));
    assert_eq!(steering.mode, ModeWish::Auto);
    assert_eq!(steering.vips.len(), 2);
    assert_eq!(steering.peers[0].to_string(), "10.0.0.0/24");
    assert_eq!((steering.syns_per_second, steering.syns_burst), (0, 0));
    let StoreSettings::Etcd { prefix, .. } = &steering.store else {
        panic!("etcd: {:?}", steering.store);
    };
    assert_eq!(prefix, "/postern/steering/");
    // 76 of the tunnel over IPv6, 40 of IPv6, 20 of TCP.
    assert_eq!(config.segment_bytes_max(), Some(1364));
    let keys: Vec<_> = warnings.problems.iter().map(|one| &one.key[..]).collect();
    for key in [
        "steering.vips[0]",
        "steering.vips[1]",
        "steering.addresses[0]",
    ] {
        assert!(keys.contains(&key), "{keys:?}");
    }
    let summary = config.summary();
    for words in [
        "steering as node 3",
        "203.0.113.10:8443, [2001:db8:5::10]:8443",
        "etcd at http://127.0.0.1:2379",
    ] {
        assert!(summary.contains(words), "{words}\n{summary}");
    }
}

#[test]
fn every_key_is_taken() {
    let text = STEERING.replace(
        "[steering.store]\netcd = [\"http://127.0.0.1:2379\"]\n",
        "weight = 7\nmode = \"native\"\ntunnel_port = 7000\nmtu = 9000\n\
         store = { file = \"nodes.toml\" }\nsyns = { per_second = 50 }\n\
         [[steering.source]]\nprefix = \"198.51.0.0/16\"\nrule = \"deny\"\n\
         [[steering.source]]\nprefix = \"198.51.100.7\"\nrule = \"allow\"\n",
    );
    let folder = folder(&text);
    let config = folder.config();
    let steering = config.steering.expect("steering");
    assert_eq!(steering.weight.get(), 7);
    assert_eq!(steering.mode, ModeWish::Native);
    assert_eq!((steering.tunnel_port, steering.mtu), (7000, 9000));
    assert_eq!((steering.syns_per_second, steering.syns_burst), (50, 50));
    assert_eq!(
        steering.store,
        StoreSettings::File(folder.path("nodes.toml"))
    );
    // The longest prefix is asked first.
    let sources = [
        (
            "198.51.100.7/32".parse().expect("a prefix"),
            SourceRule::Allow,
        ),
        ("198.51.0.0/16".parse().expect("a prefix"), SourceRule::Deny),
    ];
    assert_eq!(steering.sources, sources);
}

#[test]
fn what_does_not_hold_of_this_node_is_refused() {
    check("node = 3", "node = 0", "steering.node", "1 to 4095");
    check("node = 3", "node = 4096", "steering.node", "1 to 4095");
    check(
        "node = 3",
        "node = 3\nweight = 0",
        "steering.weight",
        "1 to 10000",
    );
    let own = "[\"10.0.0.1\", \"2001:db8::1\"]";
    let key = "steering.addresses[0]";
    check(own, "[]", "steering.addresses", "[\"10.0.0.1\"]");
    check(own, "[\"gw.example\"]", key, "10.0.0.1");
    check(own, "[\"10.0.0.1:443\"]", key, "10.0.0.1");
    check(own, "[\"10.0.1.1\"]", key, "none of steering.peers");
    check(own, "[\"127.0.0.1\"]", key, "loopback");
    check(own, "[\"224.0.0.1\"]", key, "of many");
    check(own, "[\"0.0.0.0\"]", key, "no address of a machine");
    check(own, "[\"fe80::1\"]", key, "link-local");
    check(own, "[\"::ffff:10.0.0.1\"]", key, "IPv6's form");
    check(own, "[\"203.0.113.10\"]", key, "all nodes share");
    check(
        own,
        "[\"10.0.0.1\", \"10.0.0.2\"]",
        "steering.addresses[1]",
        "one of a family",
    );
    check(
        "interface = \"lo\"",
        "interface = \"nowhere0\"",
        "steering.interface",
        "write one of: ",
    );
    check(
        "node = 3",
        "node = 3\nmtu = 1279",
        "steering.mtu",
        "1280 to 9000",
    );
    check(
        "node = 3",
        "node = 3\nmtu = 9001",
        "steering.mtu",
        "1280 to 9000",
    );
}

#[test]
fn an_unknown_interface_is_told_with_those_that_are_there() {
    let text = STEERING.replace("\"lo\"", "\"l0\"");
    let problems = problems(&folder(&text));
    assert!(
        problems[0].what.split([' ', ',']).any(|word| word == "lo"),
        "{problems:?}"
    );
}

#[test]
fn what_does_not_hold_of_services_and_trust_is_refused() {
    let vips = "[\"203.0.113.10:8443\", \"[2001:db8:5::10]:8443\"]";
    let key = "steering.vips[0]";
    check(vips, "[]", "steering.vips", "no service");
    check(vips, "[\"203.0.113.10\"]", key, "203.0.113.10:443");
    check(vips, "[\"203.0.113.10:443\"]", key, "port 443");
    check(vips, "[\"0.0.0.0:8443\"]", key, "browsers reach");
    check(vips, "[\"127.0.0.1:8443\"]", key, "loopback");
    check(vips, "[\"[ff02::1]:8443\"]", key, "of many");
    check(
        vips,
        "[\"203.0.113.10:8443\", \"203.0.113.10:8443\"]",
        "steering.vips[1]",
        "twice",
    );
    let many: Vec<_> = (1..=33)
        .map(|n| format!("\"203.0.113.{n}:8443\""))
        .collect();
    check(
        vips,
        &format!("[{}]", many.join(", ")),
        "steering.vips",
        "at most 32",
    );
    check(
        "node = 3",
        "node = 3\ntunnel_port = 8443",
        "steering.tunnel_port",
        "port of a service",
    );
    check(
        "node = 3",
        "node = 3\ntunnel_port = 0",
        "steering.tunnel_port",
        "any port",
    );
    let peers = "[\"10.0.0.7/24\", \"2001:db8::/64\"]";
    check(
        peers,
        "[\"10.0.0.7/24\", \"2001:db8::/64\", \"10.0.0.0/33\"]",
        "steering.peers[2]",
        "10.0.0.0/24",
    );
    let store = "[steering.store]";
    let source = |prefix: &str, rule: &str| {
        format!("[[steering.source]]\nprefix = \"{prefix}\"\nrule = \"{rule}\"\n{store}")
    };
    check(
        store,
        &source("198.51.100.0", "deny").replace("100.0", "100"),
        "steering.source[0].prefix",
        "no address range",
    );
    check(
        store,
        &source("198.51.100.1/24", "deny").replace(store, &source("198.51.100.2/24", "allow")),
        "steering.source[1].prefix",
        "twice",
    );
    check(
        store,
        &format!("[steering.syns]\nburst = 5\n{store}"),
        "steering.syns.burst",
        "per_second",
    );
}

#[test]
fn a_service_that_nobody_listens_at_is_refused() {
    let check = |listen: &str, keys: &[&str]| {
        let config = CONFIG.replace("[\"127.0.0.1:8443\"]", listen);
        let folder = Folder::new(&format!("{config}{STEERING}"));
        folder.write("steering.secret", SECRET, 0o600);
        let problems = problems(&folder);
        let found: Vec<_> = problems.iter().map(|one| &one.key[..]).collect();
        assert_eq!(found, keys, "{problems:?}");
    };
    check(
        "[\"0.0.0.0:8443\"]",
        &["steering.addresses", "steering.vips[1]"],
    );
    check(
        "[\"203.0.113.10:8443\", \"[2001:db8:5::10]:8443\"]",
        &["steering.addresses", "steering.addresses"],
    );
}

#[test]
fn a_store_is_one_and_kept_from_others() {
    let etcd = "etcd = [\"http://127.0.0.1:2379\"]";
    let with = |line: &str| format!("{etcd}\n{line}");
    check(etcd, "", "steering.store", "file = \"nodes.toml\"");
    check(
        etcd,
        &with("file = \"nodes.toml\""),
        "steering.store",
        "not both",
    );
    check(
        etcd,
        "file = \"none.toml\"",
        "steering.store.file",
        "can't be read",
    );
    check(
        etcd,
        "file = \"nodes.toml\"\nprefix = \"/x/\"",
        "steering.store.prefix",
        "of etcd",
    );
    let at = |endpoint: &str| match endpoint.starts_with("https:") {
        true => format!("etcd = [\"{endpoint}\"]\nca_file = \"hash\""),
        false => format!("etcd = [\"{endpoint}\"]"),
    };
    for endpoint in [
        "10.0.0.5:2379",
        "https://10.0.0.5",
        "https://10.0.0.5:0",
        "https://10.0.0.5:2379/v3",
        "https://user@10.0.0.5:2379",
        "https://[10.0.0.5]:2379",
        "ftp://10.0.0.5:2379",
        "https://:2379",
    ] {
        check(etcd, &at(endpoint), "steering.store.etcd[0]", "no endpoint");
    }
    check(
        etcd,
        "etcd = [\"http://[::1]:1\", \"http://[::1]:1\"]",
        "steering.store.etcd[1]",
        "twice",
    );
    for prefix in ["", "postern/", "/postern"] {
        let line = format!("prefix = {prefix:?}");
        check(etcd, &with(&line), "steering.store.prefix", "begin and end");
    }
    check(
        etcd,
        &with("ca_file = \"hash\""),
        "steering.store.ca_file",
        "https://",
    );
    check(
        etcd,
        "etcd = [\"https://a:1\"]",
        "steering.store.etcd",
        "write ca_file",
    );
    let roots = "ca_file = \"hash\"";
    let tls = |line: &str| format!("etcd = [\"https://a:1\"]\n{line}");
    let tls_known = |line: &str| tls(&format!("{roots}\n{line}"));
    check(
        etcd,
        &tls("ca_file = \"none.pem\""),
        "steering.store.ca_file",
        "can't be read",
    );
    check(
        etcd,
        &tls_known("certificate_file = \"hash\""),
        "steering.store.certificate_file",
        "key_file too",
    );
    check(
        etcd,
        &tls_known("key_file = \"key.pem\""),
        "steering.store.key_file",
        "certificate_file too",
    );
    check(
        etcd,
        &tls_known("certificate_file = \"hash\"\nkey_file = \"nodes.toml\""),
        "steering.store.key_file",
        "chmod 600",
    );
}

#[test]
fn what_crosses_the_network_in_plain_text_is_warned_of() {
    let text = STEERING.replace("http://127.0.0.1", "http://10.0.0.5");
    let (_, warnings) = loaded(&text);
    let found = warnings
        .problems
        .iter()
        .any(|one| one.key == "steering.store.etcd[0]");
    assert!(found, "{warnings}");
    let (_, warnings) = loaded(&STEERING.replace("10.0.0.7/24", "0.0.0.0/0"));
    let found = warnings
        .problems
        .iter()
        .any(|one| one.key == "steering.peers[0]");
    assert!(found, "{warnings}");
}

#[test]
fn a_secret_that_others_can_read_or_is_none_is_refused_and_never_shown() {
    let folder = folder(STEERING);
    let check = |text: &str, mode: u32, what: &str| {
        folder.write("steering.secret", text, mode);
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(folder.path("steering.secret"), permissions).expect("set");
        let problems = problems(&folder);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].key, "steering.secret_file");
        assert!(problems[0].what.contains(what), "{problems:?}");
        let shown = text.trim();
        assert!(shown.is_empty() || !problems[0].what.contains(shown));
    };
    check(SECRET, 0o640, "chmod 600");
    check(SECRET, 0o604, "chmod 600");
    check("", 0o600, "postern steer secret");
    check(&SECRET[1..], 0o600, "64 hex digits");
    check(&SECRET.replace('0', "g"), 0o600, "64 hex digits");
    std::fs::remove_file(folder.path("steering.secret")).expect("removed");
    let problems = problems(&folder);
    assert!(problems[0].what.contains("is not there"), "{problems:?}");
}

#[test]
fn every_mistake_is_told_at_once() {
    let text = STEERING
        .replace("node = 3", "node = 0\nmtu = 5\nweigth = 3")
        .replace("10.0.0.1\"", "10.9.0.1\"")
        .replace("203.0.113.10:8443", "203.0.113.10:1")
        .replace("etcd = [", "etcd = [\"x\", ");
    let problems = problems(&folder(&text));
    let keys: Vec<_> = problems.iter().map(|one| &one.key[..]).collect();
    let expected = [
        "steering.node",
        "steering.mtu",
        "steering.weigth",
        "steering.addresses[0]",
        "steering.vips[0]",
        "steering.store.etcd[0]",
    ];
    assert_eq!(keys, expected, "{problems:?}");
}
