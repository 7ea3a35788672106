//! The workspace's `Cargo.toml` files, as far as the checks need them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use toml::Table;

/// One package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub name: String,
    /// Where it lies, relative to the workspace.
    pub folder: PathBuf,
    /// Names of what it needs to run or to build, optional ones and all platforms included.
    pub dependencies: BTreeSet<String>,
}

/// Reads the members of the workspace in `root`.
///
/// # Errors
/// A manifest cannot be read.
pub fn read(root: &Path) -> Result<Vec<Manifest>> {
    let workspace = table(&root.join("Cargo.toml"))?;
    let members = workspace
        .get("workspace")
        .and_then(|workspace| workspace.get("members"))
        .and_then(toml::Value::as_array)
        .context("Cargo.toml lists no members")?;
    let mut manifests = Vec::new();
    for member in members.iter().filter_map(toml::Value::as_str) {
        let text = read_text(&root.join(member).join("Cargo.toml"))?;
        let manifest = parse(&text, Path::new(member))
            .with_context(|| format!("{member}/Cargo.toml is not a manifest"))?;
        manifests.push(manifest);
    }
    Ok(manifests)
}

/// Reads one manifest.
///
/// # Errors
/// It is not TOML or names no package.
pub fn parse(text: &str, folder: &Path) -> Result<Manifest> {
    let manifest: Table = text.parse()?;
    let name = manifest
        .get("package")
        .and_then(|package| package.get("name"))
        .and_then(toml::Value::as_str)
        .context("there is no package name")?;
    let mut dependencies = BTreeSet::new();
    collect(&manifest, &mut dependencies);
    let platforms = manifest.get("target").and_then(toml::Value::as_table);
    for platform in platforms.into_iter().flat_map(Table::values) {
        if let Some(platform) = platform.as_table() {
            collect(platform, &mut dependencies);
        }
    }
    Ok(Manifest {
        name: name.to_owned(),
        folder: folder.to_owned(),
        dependencies,
    })
}

/// Dependencies for development are free: tests may start anything.
fn collect(table: &Table, into: &mut BTreeSet<String>) {
    for kind in ["dependencies", "build-dependencies"] {
        let Some(dependencies) = table.get(kind).and_then(toml::Value::as_table) else {
            continue;
        };
        for (name, settings) in dependencies {
            let renamed = settings.get("package").and_then(toml::Value::as_str);
            into.insert(renamed.unwrap_or(name).to_owned());
        }
    }
}

fn table(file: &Path) -> Result<Table> {
    read_text(file)?
        .parse()
        .with_context(|| format!("{} is not TOML", file.display()))
}

fn read_text(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renamed_and_platform_dependencies_are_seen_and_those_for_tests_are_not() {
        let text = r#"
            [package]
            name = "postern-wire"
            [dependencies]
            http = "1"
            io = { package = "tokio", version = "1" }
            [build-dependencies]
            cc = "1"
            [target.'cfg(unix)'.dependencies]
            libc = "0.2"
            [dev-dependencies]
            proptest = "1"
        "#;
        let manifest = parse(text, Path::new("proxy/wire")).unwrap();
        let names: Vec<_> = manifest.dependencies.iter().map(String::as_str).collect();
        assert_eq!(names, ["cc", "http", "libc", "tokio"]);
    }
}
