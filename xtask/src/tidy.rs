//! Rules about files that no compiler checks.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::command::workspace;
use crate::layers::has_word;
use crate::source::{self, Source};

/// Longest Rust file, and longest file of nothing but tests: tables grow where code must not.
const LINES_MAX: usize = 450;
const TEST_LINES_MAX: usize = 900;

/// Where `unsafe` may stand: beginnings of paths.
const UNSAFE_PATHS: [&str; 4] = [
    "proxy/engine/",
    "ebpf/",
    "bench/",
    // A test's allocator that counts.
    "proxy/relay/tests/no_allocation.rs",
];

/// Marks of work that is not done, put together so that this file has none.
const MARKS: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("to", "do!("),
    concat!("unimplem", "ented!("),
    concat!("db", "g!("),
    concat!("#[ign", "ore"),
];

/// Beginnings of paths that exist on one machine only.
const MACHINE_PATHS: [&str; 3] = [
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/wo", "rk/"),
];

/// What must be written down where.
struct Documented {
    what: &'static str,
    /// Paths begin with this.
    sources: &'static [&'static str],
    document: &'static str,
    names: fn(&str) -> BTreeSet<String>,
}

const DOCUMENTED: [Documented; 3] = [
    Documented {
        what: "configuration key",
        sources: &[
            "proxy/control/src/config/file.rs",
            "proxy/control/src/config/file/",
            "proxy/snapshot/src/limits.rs",
        ],
        document: "docs/configuration.md",
        names: public_fields,
    },
    Documented {
        what: "metric",
        sources: &["proxy/control/src/metrics", "proxy/conductor/src/metrics"],
        document: "docs/metrics.md",
        names: metric_names,
    },
    Documented {
        what: "reason",
        sources: &["proxy/session/src/outcome.rs"],
        document: "docs/reasons.md",
        names: reason_labels,
    },
];

/// Everything that is not tidy.
///
/// # Errors
/// The workspace cannot be read.
pub fn check() -> Result<Vec<String>> {
    let sources = source::read(&workspace())?;
    let mut findings: Vec<String> = sources.iter().flat_map(check_file).collect();
    for documented in &DOCUMENTED {
        findings.extend(check_documented(documented, &sources));
    }
    Ok(findings)
}

fn check_file(source: &Source) -> Vec<String> {
    let Source { path, text } = source;
    let mut findings = Vec::new();
    if source.is_rust() {
        if !text.starts_with("//!") {
            findings.push(format!("{path}: does not begin with //! and what it owns"));
        }
        let lines = text.lines().count();
        let most = if is_test_file(path) {
            TEST_LINES_MAX
        } else {
            LINES_MAX
        };
        if lines > most {
            findings.push(format!("{path}: {lines} lines, {most} are the most"));
        }
        findings.extend(check_unsafe(source));
    }
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        // Lock files and licences quote others.
        if path.ends_with("package-lock.json") {
            break;
        }
        if let Some(mark) = MARKS.iter().find(|mark| marked(line, mark)) {
            findings.push(format!(
                "{path}:{number}: {mark} marks work that is not done"
            ));
        }
        if let Some(found) = MACHINE_PATHS.iter().find(|found| machine_path(line, found)) {
            findings.push(format!(
                "{path}:{number}: {found} exists on one machine only"
            ));
        }
    }
    findings
}

fn is_test_file(path: &str) -> bool {
    path.ends_with("tests.rs") || path.contains("/tests/")
}

/// Words must stand alone; the others are found as they are.
fn marked(line: &str, mark: &str) -> bool {
    if mark.chars().all(char::is_alphanumeric) {
        has_word(line, mark)
    } else {
        line.contains(mark)
    }
}

/// A path that *begins* so; `web/home/` and URLs do not.
fn machine_path(line: &str, beginning: &str) -> bool {
    line.match_indices(beginning).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|character| character.is_whitespace() || "\"'`=(:".contains(character))
    })
}

fn check_unsafe(source: &Source) -> Vec<String> {
    let Source { path, text } = source;
    if UNSAFE_PATHS.iter().any(|begin| path.starts_with(begin)) {
        return Vec::new();
    }
    let code = source::bare_code(text);
    let mut findings: Vec<String> = code
        .lines()
        .enumerate()
        .filter(|(_, line)| has_word(line, "unsafe"))
        .map(|(number, _)| format!("{path}:{}: unsafe lives in the engine alone", number + 1))
        .collect();
    let root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
    if root && !code.contains("#![forbid(unsafe_code)]") {
        findings.push(format!("{path}: lacks #![forbid(unsafe_code)]"));
    }
    findings
}

fn check_documented(documented: &Documented, sources: &[Source]) -> Vec<String> {
    let Documented { what, document, .. } = documented;
    let names: BTreeSet<String> = sources
        .iter()
        .filter(|source| {
            documented
                .sources
                .iter()
                .any(|start| source.path.starts_with(start))
        })
        .flat_map(|source| (documented.names)(&source.text))
        .collect();
    if names.is_empty() {
        return vec![format!(
            "no {what} found: xtask/src/tidy.rs looks in the wrong place"
        )];
    }
    let Some(document) = sources.iter().find(|source| source.path == *document) else {
        return vec![format!("{document} is missing; it describes every {what}")];
    };
    let described = words_in_code(&document.text);
    names
        .iter()
        .filter(|name| !described.contains(name.as_str()))
        // Prometheus shows a counter's family under this name.
        .filter(|name| !described.contains(format!("{name}_total").as_str()))
        .map(|name| format!("{}: {what} `{name}` is not described", document.path))
        .collect()
}

/// Every name between backquotes or in a code block of a Markdown text.
fn words_in_code(text: &str) -> BTreeSet<&str> {
    let mut words = BTreeSet::new();
    let mut block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            block = !block;
            continue;
        }
        let pieces: Vec<&str> = if block {
            vec![line]
        } else {
            line.split('`').skip(1).step_by(2).collect()
        };
        for piece in pieces {
            words.extend(piece.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-'));
        }
    }
    words
}

/// Names of `pub` fields: what a configuration struct takes from the file.
fn public_fields(text: &str) -> BTreeSet<String> {
    let code = source::product_code(text);
    let mut names = BTreeSet::new();
    for line in code.lines() {
        let Some((name, _)) = line
            .trim()
            .strip_prefix("pub ")
            .and_then(|rest| rest.split_once(':'))
        else {
            continue;
        };
        if !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
            names.insert(name.to_owned());
        }
    }
    names
}

/// String literals that are a metric's whole name.
fn metric_names(text: &str) -> BTreeSet<String> {
    let product = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
    literals(product)
        .filter(|literal| literal.starts_with("postern_"))
        .collect()
}

/// First arguments of `meaning("label", …)`.
fn reason_labels(text: &str) -> BTreeSet<String> {
    text.match_indices("meaning(")
        .filter_map(|(at, call)| {
            let argument = text[at + call.len()..].trim_start().strip_prefix('"')?;
            Some(argument.split('"').next()?.to_owned())
        })
        .collect()
}

/// What stands between quotes, where it is a plain name.
fn literals(text: &str) -> impl Iterator<Item = String> {
    text.split('"')
        .filter(|piece| {
            !piece.is_empty() && piece.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> Source {
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn untidy_files_are_found() {
        let check = |path: &str, text: &str, expected: &str| {
            let findings = check_file(&file(path, text)).join("\n");
            let right = if expected.is_empty() {
                findings.is_empty()
            } else {
                findings.contains(expected)
            };
            assert!(right, "{path}: {findings:?} lacks {expected:?}");
        };
        let long = "//! Long.\n".repeat(LINES_MAX + 1);
        check("a/src/x.rs", "//! Owns x.\nfn x() {}\n", "");
        check("a/src/x.rs", "fn x() {}\n", "does not begin with //!");
        check("a/src/x.rs", &long, "451 lines");
        check(
            "a/src/x.rs",
            &format!("//! X.\n// {} later\n", MARKS[0]),
            "x.rs:2",
        );
        check(
            "a/src/x.rs",
            &format!("//! X.\nfn x() {{ {}) }}\n", MARKS[2]),
            "not done",
        );
        check(
            "a/src/x.rs",
            &format!("//! X.\n{}]\nfn x() {{}}\n", MARKS[5]),
            "not done",
        );
        check("a/x.md", "The methodology and a mastodon.\n", "");
        check(
            "a/x.md",
            &format!("see `{}me/x`\n", MACHINE_PATHS[0]),
            "one machine",
        );
        check(
            "a/x.md",
            &format!("https://example{}x web{0}y\n", MACHINE_PATHS[1]),
            "",
        );
    }

    #[test]
    fn unsafe_is_found_outside_of_the_engine() {
        let code = "//! X.\n#![forbid(unsafe_code)]\nfn x() { unsafe { y() } }\n";
        let found = |path: &str, text: &str| check_file(&file(path, text)).len();
        assert_eq!(found("proxy/session/src/lib.rs", code), 1);
        assert_eq!(found("proxy/engine/src/lib.rs", code), 0);
        assert_eq!(
            found("proxy/session/src/lib.rs", "//! X.\n"),
            1,
            "the root must forbid it"
        );
        assert_eq!(found("proxy/session/src/x.rs", "//! X, not unsafe.\n"), 0);
    }

    #[test]
    fn undocumented_names_are_found() {
        let labels = Documented {
            what: "reason",
            sources: &["outcome.rs"],
            document: "docs/reasons.md",
            names: reason_labels,
        };
        let code = "//! X.\nA => meaning(\"idle\", 0),\nB => meaning(\n  \"killed\", 0),\n";
        let check = |document: Option<&str>, expected: usize| {
            let mut sources = vec![file("outcome.rs", code)];
            sources.extend(document.map(|text| file("docs/reasons.md", text)));
            let findings = check_documented(&labels, &sources);
            assert_eq!(findings.len(), expected, "{findings:?}");
        };
        check(Some("| `idle` | … |\n| `killed` | … |\n"), 0);
        check(Some("| `idle` | killed, but not as a name |\n"), 1);
        check(Some("```\nidle killed\n```\n"), 0);
        check(None, 1);
        assert_eq!(
            check_documented(&labels, &[]).len(),
            1,
            "no names is suspicious"
        );
    }

    #[test]
    fn names_are_read_from_code() {
        let fields = public_fields(
            "pub struct A {\n    pub name: String,\n    pub b_c: u8,\n}\npub fn d() {}\n",
        );
        assert_eq!(fields.into_iter().collect::<Vec<_>>(), ["b_c", "name"]);
        let metrics = metric_names("register(\"postern_bytes_total\", \"Bytes in postern_x\")");
        assert_eq!(
            metrics.into_iter().collect::<Vec<_>>(),
            ["postern_bytes_total"]
        );
    }
}
