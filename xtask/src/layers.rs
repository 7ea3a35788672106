//! Which crate may import which, and what the crates without I/O may not touch.

use anyhow::Result;

use crate::command::workspace;
use crate::manifests::{self, Manifest};
use crate::source::{self, Source};

/// What a crate may depend on inside of the workspace.
enum Arrows {
    To(&'static [&'static str]),
    ToAnything,
}

/// The arrows, all of them; a crate that is not listed must be added here first.
const ARROWS: &[(&str, Arrows)] = &[
    ("postern-wire", Arrows::To(&[])),
    ("postern-access", Arrows::To(&[])),
    ("postern-relay", Arrows::To(&["postern-wire"])),
    ("postern-engine", Arrows::To(&["postern-relay"])),
    ("postern-audit", Arrows::To(&[])),
    ("postern-web", Arrows::To(&[])),
    ("postern-ebpf-abi", Arrows::To(&[])),
    ("postern-ebpf", Arrows::To(&["postern-ebpf-abi"])),
    ("postern-steering", Arrows::To(&[])),
    (
        "postern-conductor",
        Arrows::To(&[
            "postern-steering",
            "postern-ebpf",
            "postern-ebpf-abi",
            "postern-audit",
        ]),
    ),
    ("postern-snapshot", Arrows::To(&["postern-access"])),
    ("postern-login", Arrows::To(&["postern-access"])),
    (
        "postern-session",
        Arrows::To(&[
            "postern-wire",
            "postern-relay",
            "postern-access",
            "postern-snapshot",
            "postern-audit",
        ]),
    ),
    (
        "postern-control",
        Arrows::To(&[
            "postern-wire",
            "postern-access",
            "postern-audit",
            "postern-login",
            "postern-snapshot",
            "postern-steering",
            "postern-ebpf-abi",
            "postern-web",
        ]),
    ),
    (
        "postern",
        Arrows::To(&[
            "postern-wire",
            "postern-access",
            "postern-relay",
            "postern-audit",
            "postern-login",
            "postern-snapshot",
            "postern-session",
            "postern-engine",
            "postern-control",
            "postern-conductor",
            "postern-steering",
            "postern-ebpf",
            "postern-ebpf-abi",
            "postern-web",
        ]),
    ),
    ("postern-desktop", Arrows::To(&[])),
    ("postern-parts", Arrows::To(&[])),
    ("xtask", Arrows::To(&["postern-parts"])),
    ("postern-bench", Arrows::ToAnything),
    ("postern-tests", Arrows::ToAnything),
];

/// Crates that decide, encode or decode: they do no I/O and read no clock.
const PURE: [&str; 8] = [
    "postern-wire",
    "postern-relay",
    "postern-access",
    "postern-login",
    "postern-snapshot",
    "postern-audit",
    "postern-steering",
    "postern-ebpf-abi",
];

/// Crates that bring I/O with them.
const IO_CRATES: [&str; 14] = [
    "tokio",
    "glommio",
    "hyper",
    "hyper-util",
    "axum",
    "rusqlite",
    "reqwest",
    "mio",
    "socket2",
    "async-std",
    "smol",
    "futures-rustls",
    "tokio-rustls",
    "io-uring",
];

/// Paths and names that do I/O or read the world.
const IO_NAMES: [&str; 13] = [
    "std::fs",
    "std::os",
    "std::process",
    "std::thread",
    "std::env",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "SystemTime",
    "Instant",
    "std::io::stdin",
];

/// Names that sign with jsonwebtoken.
const SIGNING_NAMES: [&str; 2] = ["EncodingKey", "jsonwebtoken::encode"];

/// The process's one cryptography provider: jsonwebtoken wants its signer and its verifier in the
/// same place. It holds no key and makes no token.
const PROVIDER: &str = "proxy/access/src/provider.rs";

/// Everything that is wrong with the workspace's layers.
///
/// # Errors
/// The workspace cannot be read.
pub fn check() -> Result<Vec<String>> {
    let manifests = manifests::read(&workspace())?;
    let sources = source::read(&workspace())?;
    let mut findings: Vec<String> = manifests.iter().flat_map(check_manifest).collect();
    findings.extend(
        sources
            .iter()
            .flat_map(|source| check_source(source, &manifests)),
    );
    Ok(findings)
}

fn check_manifest(manifest: &Manifest) -> Vec<String> {
    let name = manifest.name.as_str();
    let Some((_, arrows)) = ARROWS.iter().find(|(known, _)| *known == name) else {
        return vec![format!(
            "{name} has no arrows: add it to xtask/src/layers.rs"
        )];
    };
    let mut findings = Vec::new();
    for dependency in manifest.dependencies.iter().map(String::as_str) {
        let internal = ARROWS.iter().any(|(known, _)| *known == dependency)
            || dependency.starts_with("postern");
        let allowed = match arrows {
            Arrows::ToAnything => true,
            Arrows::To(targets) => !internal || targets.contains(&dependency),
        };
        if !allowed {
            findings.push(format!("{name} must not depend on {dependency}"));
        }
        if PURE.contains(&name) && IO_CRATES.contains(&dependency) {
            findings.push(format!(
                "{name} does no I/O, so it must not depend on {dependency}"
            ));
        }
        let bpf = dependency == "aya" || dependency.starts_with("aya-");
        if bpf && !manifest.folder.starts_with("ebpf") {
            findings.push(format!(
                "{name} must not depend on {dependency}: only ebpf/ does"
            ));
        }
    }
    findings
}

/// Looks at one file of a crate's `src`.
fn check_source(source: &Source, manifests: &[Manifest]) -> Vec<String> {
    let Some(manifest) = manifests.iter().find(|manifest| {
        source
            .path
            .starts_with(&format!("{}/src/", manifest.folder.display()))
    }) else {
        return Vec::new();
    };
    if !source.is_rust() || source.path.ends_with("/tests.rs") || source.path.contains("/tests/") {
        return Vec::new();
    }
    let name = manifest.name.as_str();
    let code = source::product_code(&source.text);
    let mut findings = Vec::new();
    let mut forbid = |names: &[&str], why: &str| {
        for (number, line) in code.lines().enumerate() {
            if let Some(found) = names.iter().find(|name| has_word(line, name)) {
                findings.push(format!("{}:{}: {found}: {why}", source.path, number + 1));
            }
        }
    };
    if PURE.contains(&name) {
        forbid(&IO_NAMES, "this crate does no I/O and reads no clock");
    }
    // Harness and checks sign false tokens and name what they look for.
    let signs = ["postern-login", "postern-tests", "xtask"].contains(&name);
    if !signs && source.path != PROVIDER {
        forbid(&SIGNING_NAMES, "only postern-login signs tokens");
    }
    findings
}

/// True where `word` stands in `line` and is not a part of a longer name.
pub fn has_word(line: &str, word: &str) -> bool {
    let part = |character: Option<char>| {
        character.is_some_and(|character| character.is_alphanumeric() || character == '_')
    };
    line.match_indices(word).any(|(at, _)| {
        !part(line[..at].chars().next_back()) && !part(line[at + word.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn manifest(name: &str, folder: &str, dependencies: &[&str]) -> Manifest {
        let lines: String = dependencies
            .iter()
            .map(|name| format!("{name} = \"1\"\n"))
            .collect();
        let text = format!("[package]\nname = \"{name}\"\n[dependencies]\n{lines}");
        manifests::parse(&text, Path::new(folder)).unwrap()
    }

    #[test]
    fn forbidden_edges_are_found() {
        let check = |name: &str, folder: &str, dependencies: &[&str], findings: usize| {
            let found = check_manifest(&manifest(name, folder, dependencies));
            assert_eq!(
                found.len(),
                findings,
                "{name} → {dependencies:?}: {found:?}"
            );
        };
        check(
            "postern-session",
            "proxy/session",
            &["postern-wire", "rustls"],
            0,
        );
        check("postern-session", "proxy/session", &["postern-login"], 1);
        check(
            "postern-session",
            "proxy/session",
            &["postern-control", "postern-engine"],
            2,
        );
        check("postern-wire", "proxy/wire", &["postern-access"], 1);
        check("postern-wire", "proxy/wire", &["tokio"], 1);
        check("postern-access", "proxy/access", &["glommio"], 1);
        check(
            "postern-control",
            "proxy/control",
            &["tokio", "postern-login"],
            0,
        );
        check("postern-engine", "proxy/engine", &["aya"], 1);
        check(
            "postern-engine",
            "proxy/engine",
            &["postern-nobody-knows"],
            1,
        );
        check("postern-unknown", "proxy/unknown", &[], 1);
    }

    #[test]
    fn clocks_sockets_and_signing_are_found_where_they_must_not_be() {
        let manifests = [
            manifest("postern-wire", "proxy/wire", &[]),
            manifest("postern", "proxy", &[]),
        ];
        let check = |path: &str, text: &str, findings: usize| {
            let source = Source {
                path: path.to_owned(),
                text: text.to_owned(),
            };
            let found = check_source(&source, &manifests);
            assert_eq!(found.len(), findings, "{path}: {text}: {found:?}");
        };
        check("proxy/wire/src/a.rs", "use std::time::Instant;\n", 1);
        check(
            "proxy/wire/src/a.rs",
            "// an Instant\nstruct Instantly;\n",
            0,
        );
        check(
            "proxy/wire/src/a.rs",
            "#[cfg(test)]\nmod tests { use std::time::Instant; }\n",
            0,
        );
        check(
            "proxy/wire/src/a.rs",
            "fn f(s: std::net::TcpStream) { std::fs::read(s) }\n",
            1,
        );
        check("proxy/wire/src/a.rs", "use std::net::IpAddr;\n", 0);
        check("proxy/wire/tests/a.rs", "use std::time::Instant;\n", 0);
        check("proxy/src/main.rs", "use std::time::Instant;\n", 0);
        check("proxy/src/main.rs", "use jsonwebtoken::EncodingKey;\n", 1);
    }

    #[test]
    fn the_workspace_keeps_its_layers() {
        let manifests = manifests::read(&workspace()).unwrap();
        let findings: Vec<_> = manifests.iter().flat_map(check_manifest).collect();
        assert_eq!(findings, Vec::<String>::new());
    }
}
