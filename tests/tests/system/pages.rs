//! What comes with every page: strict headers, and files that are kept for good.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use postern_tests::Browser;
use postern_tests::browserless::Response;
use postern_tests::gateway::Application;

use crate::scene::Scene;

fn strict(what: &str, answer: &Response) -> Result<()> {
    let policy = answer
        .header("content-security-policy")
        .context("a policy")?;
    for directive in [
        "default-src 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ] {
        ensure!(policy.contains(directive), "{what}: {policy}");
    }
    let (_, scripts) = policy.split_once("script-src ").context("script-src")?;
    let scripts = scripts.split(';').next().unwrap_or_default();
    ensure!(scripts == "'self' 'wasm-unsafe-eval'", "{what}: {scripts}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("strict-transport-security", "max-age=31536000"),
    ] {
        let all: Vec<&str> = answer.all(name).collect();
        ensure!(all == [value], "{what}: {name}: {all:?}");
    }
    let features = answer.header("permissions-policy").unwrap_or_default();
    ensure!(features.contains("camera=()"), "{what}: {features:?}");
    ensure!(answer.header("server").is_none(), "{what} names its server");
    Ok(())
}

#[test]
fn every_answer_has_strict_headers() -> Result<()> {
    let scene = Scene::start(|configuration| {
        let host = Some("own.localhost".to_owned());
        let policies = Vec::new();
        configuration
            .with(Application {
                host,
                ..Application::new("own", "127.0.0.1:9")
            })
            .with(Application {
                policies,
                ..Application::new("nobodys", "127.0.0.1:9")
            })
    })?;
    let own = scene.alice.on_own_host("own.localhost");
    let stranger = scene.gateway.browser();
    for (browser, path, status) in [
        (&stranger, "/", 303),
        (&stranger, "/login", 200),
        (&stranger, "/app/lab/", 303),
        (&stranger, "/app/lab/status", 401),
        (&stranger, "/nowhere", 404),
        (&stranger, "/assets/nothing-00000000.js", 404),
        (&stranger, "/login?next=https://evil.example/", 200),
        (&scene.alice, "/", 200),
        (&scene.alice, "/app/lab/", 200),
        (&scene.alice, "/app/lab/status", 200),
        (&scene.alice, "/app/lab/ping", 204),
        (&scene.alice, "/app/nobodys/", 403),
        (&own, "/", 303),
        (&own, "/.postern/handover?code=made-up", 403),
        (&own, "/nowhere", 404),
    ] {
        let answer = browser.clone().get(path)?;
        let what = format!("{}{path}", browser.host);
        ensure!(answer.status == status, "{what}: {}", answer.status);
        strict(&what, &answer)?;
        ensure!(answer.header("cache-control") == Some("no-store"), "{what}");
        let text = answer.text();
        ensure!(
            !text.contains("<script>") && !text.contains("onclick"),
            "{what}"
        );
    }
    Ok(())
}

/// Files over this are not sent uncompressed.
const IDENTITY_BYTES_MAX: usize = 64 * 1024;

/// Names of files that a text refers to.
fn files_in(text: &str) -> impl Iterator<Item = String> {
    text.split("/assets/").skip(1).map(|rest| {
        let end =
            rest.find(|letter: char| !letter.is_ascii_alphanumeric() && !"-_.".contains(letter));
        format!("/assets/{}", &rest[..end.unwrap_or(rest.len())])
    })
}

fn file(browser: &Browser, path: &str, accepted: &str) -> Result<Response> {
    let headers = [("Accept-Encoding", accepted)];
    let headers = if accepted.is_empty() {
        &[][..]
    } else {
        &headers
    };
    browser.clone().request("GET", path, headers, None)
}

/// Unpacked by Node.js, which the client is bundled with.
fn unpacked(coding: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let script = format!(
        "const z = require('zlib'); process.stdout.write(z.{coding}(require('fs').readFileSync(0)))"
    );
    let mut node = Command::new("node")
        .args(["-e", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("node can't be started")?;
    node.stdin.take().context("an input")?.write_all(bytes)?;
    let output = node.wait_with_output()?;
    ensure!(output.status.success(), "no {coding} data");
    Ok(output.stdout)
}

#[test]
fn files_are_kept_for_good_and_sent_as_the_browser_likes() -> Result<()> {
    let scene = Scene::start(|configuration| configuration)?;
    let browser = scene.gateway.browser();
    let mut paths: BTreeSet<String> = BTreeSet::new();
    for page in ["/", "/login", "/app/lab/"] {
        paths.extend(files_in(&scene.alice.clone().get(page)?.text()));
    }
    // Scripts name further files: other scripts, and the WebAssembly.
    let mut new: Vec<String> = paths.iter().cloned().collect();
    while let Some(script) = new.pop() {
        if script.ends_with(".js") {
            let packed = file(&browser, &script, "gzip")?.body;
            let text = String::from_utf8(unpacked("gunzipSync", &packed)?)?;
            let named = files_in(&text).collect::<Vec<_>>();
            new.extend(named.into_iter().filter(|path| paths.insert(path.clone())));
        }
    }
    for ending in [".js", ".css", ".svg", ".wasm"] {
        ensure!(
            paths.iter().any(|path| path.ends_with(ending)),
            "no {ending} in {paths:?}"
        );
    }
    for path in &paths {
        let media = match path.rsplit_once('.').map(|(_, ending)| ending) {
            Some("js") => "text/javascript",
            Some("css") => "text/css",
            Some("svg") => "image/svg+xml",
            Some("wasm") => "application/wasm",
            _ => "",
        };
        let check = |accepted: &str, coding: Option<&str>| -> Result<Vec<u8>> {
            let answer = file(&browser, path, accepted)?;
            let what = format!("{path} for {accepted:?}");
            ensure!(answer.status == 200, "{what}: {}", answer.status);
            ensure!(answer.header("content-encoding") == coding, "{what}");
            let caching = answer.header("cache-control").unwrap_or_default();
            ensure!(
                caching == "public, max-age=31536000, immutable",
                "{what}: {caching}"
            );
            ensure!(answer.header("vary") == Some("Accept-Encoding"), "{what}");
            let told = answer.header("content-type").unwrap_or_default();
            ensure!(told.split(';').next() == Some(media), "{what}: {told}");
            strict(&what, &answer)?;
            Ok(answer.body)
        };
        let brotli = unpacked(
            "brotliDecompressSync",
            &check("gzip, deflate, br, zstd", Some("br"))?,
        )?;
        let gzip = unpacked("gunzipSync", &check("gzip", Some("gzip"))?)?;
        ensure!(
            brotli == gzip && !gzip.is_empty(),
            "{path} differs by coding"
        );
        ensure!(
            media != "application/wasm" || gzip.starts_with(b"\0asm"),
            "{path} is no WebAssembly"
        );
        // Large files are there compressed alone: every browser takes that.
        for accepted in ["", "br;q=0, gzip;q=0"] {
            if gzip.len() <= IDENTITY_BYTES_MAX {
                ensure!(check(accepted, None)? == gzip, "{path} differs by coding");
            } else {
                let answer = file(&browser, path, accepted)?;
                ensure!(answer.status == 406, "{path}: {}", answer.status);
            }
        }
    }
    Ok(())
}
