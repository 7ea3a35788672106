//! Bundles the browser's part with npm and esbuild in `OUT_DIR` and lists the results for embedding.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// What the bundle is made from, relative to this crate. `client` is a folder.
const SOURCES: [&str; 4] = ["package.json", "package-lock.json", "build.mjs", "client"];

/// The oldest Node.js that the bundle is built with: Debian 12's.
const NODE_MAJOR_MIN: u32 = 18;

const INSTALL_ADVICE: &str = "the web client is bundled with Node.js 18 or newer and npm; on Debian: apt-get install nodejs npm";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for source in SOURCES {
        println!("cargo:rerun-if-changed={source}");
    }
    if let Err(problem) = build() {
        eprintln!("error: {problem}");
        exit(1);
    }
}

fn build() -> Result<(), String> {
    let crate_folder = folder_from("CARGO_MANIFEST_DIR")?;
    let out = folder_from("OUT_DIR")?;
    let work = out.join("web");
    check_node()?;
    copy_sources(&crate_folder, &work).map_err(|e| format!("copying the web sources: {e}"))?;
    install_packages(&work)?;

    let dist = work.join("dist");
    let mut node = Command::new("node");
    node.arg("build.mjs").arg(&dist).current_dir(&work);
    if std::env::var_os("PROFILE").is_some_and(|profile| profile != "release") {
        node.arg("--quick");
    }
    run(&mut node, "bundling the web client")?;
    let manifest = dist.join("manifest.tsv");
    let manifest =
        fs::read_to_string(&manifest).map_err(|e| format!("{}: {e}", manifest.display()))?;
    let table = table(&manifest, &dist)?;
    fs::write(out.join("assets.rs"), table).map_err(|e| format!("writing assets.rs: {e}"))
}

fn folder_from(variable: &str) -> Result<PathBuf, String> {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .ok_or_else(|| format!("{variable} is not set"))
}

fn check_node() -> Result<(), String> {
    let output = Command::new("node")
        .arg("--version")
        .output()
        .map_err(|e| format!("node does not start ({e}): {INSTALL_ADVICE}"))?;
    let version = String::from_utf8_lossy(&output.stdout);
    let major: Option<u32> = version
        .trim()
        .trim_start_matches('v')
        .split('.')
        .next()
        .and_then(|text| text.parse().ok());
    match major {
        Some(major) if major >= NODE_MAJOR_MIN => Ok(()),
        _ => Err(format!(
            "node {} is too old: {INSTALL_ADVICE}",
            version.trim()
        )),
    }
}

/// The source folder stays untouched: npm and esbuild write next to the copies only.
fn copy_sources(from: &Path, to: &Path) -> io::Result<()> {
    for folder in ["client", "dist"] {
        match fs::remove_dir_all(to.join(folder)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    fs::create_dir_all(to)?;
    for source in SOURCES {
        copy(&from.join(source), &to.join(source))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to).map(|_| ());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Installs exactly what the lock file names, unless that has been done for this very lock file.
fn install_packages(work: &Path) -> Result<(), String> {
    let lock =
        fs::read(work.join("package-lock.json")).map_err(|e| format!("package-lock.json: {e}"))?;
    let installed = work.join("node_modules/.installed-lock");
    if fs::read(&installed).is_ok_and(|done| done == lock) {
        return Ok(());
    }
    let mut npm = Command::new("npm");
    // Scripts of packages are never run: what they contain is data until esbuild has bundled it.
    npm.args([
        "ci",
        "--ignore-scripts",
        "--omit=dev",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
    ])
    .current_dir(work);
    run(
        &mut npm,
        "installing the web client's packages from the npm registry",
    )?;
    fs::write(&installed, lock).map_err(|e| format!("{}: {e}", installed.display()))
}

fn run(command: &mut Command, what: &str) -> Result<(), String> {
    let output = command.output().map_err(|e| {
        format!(
            "{what}: {} does not start ({e}): {INSTALL_ADVICE}",
            command.get_program().to_string_lossy()
        )
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{what} failed ({})\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// Rust source from the manifest that build.mjs wrote: a line a file with the source's name, the
/// hashed file's name, its media type, and whether the uncompressed form is embedded as well.
fn table(manifest: &str, dist: &Path) -> Result<String, String> {
    let mut constants = String::new();
    let mut entries: Vec<(String, String)> = Vec::new();
    for line in manifest.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, file, content_type, identity] = fields[..] else {
            return Err(format!("manifest line without four fields: {line}"));
        };
        let include =
            |suffix: &str| format!("include_bytes!({:?})", dist.join(format!("{file}{suffix}")));
        let identity = match identity {
            "identity" => format!("Some({})", include("")),
            "compressed" => "None".to_owned(),
            other => return Err(format!("manifest names an unknown form: {other}")),
        };
        let path = format!("/assets/{file}");
        let entry = format!(
            "    Asset {{ path: {path:?}, content_type: {content_type:?}, identity: {identity}, gzip: {}, brotli: {} }},\n",
            include(".gz"),
            include(".br")
        );
        entries.push((path.clone(), entry));
        if !name.is_empty() {
            let constant = name.replace(['.', '-'], "_").to_uppercase();
            writeln!(constants, "pub(crate) const {constant}: &str = {path:?};")
                .expect("a String takes all");
        }
    }
    // INVARIANT: sorted by path, because `asset` searches by bisection.
    entries.sort();
    let entries: String = entries.into_iter().map(|(_, entry)| entry).collect();
    Ok(format!(
        "{constants}\npub(crate) static ASSETS: &[Asset] = &[\n{entries}];\n"
    ))
}
