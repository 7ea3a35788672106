//! Text files of the workspace, and Rust code with its comments, strings and tests taken out.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Folders that hold what was made or fetched, not written.
const SKIPPED: [&str; 6] = [
    "target",
    "node_modules",
    "artefacts",
    "corpus",
    "artifacts",
    "dist",
];
/// Files that people write.
const ENDINGS: [&str; 11] = [
    "rs", "toml", "md", "ts", "mjs", "css", "html", "json", "sh", "yml", "svg",
];

/// One file.
#[derive(Debug, Clone)]
pub struct Source {
    /// Relative to the workspace, with `/`.
    pub path: String,
    pub text: String,
}

impl Source {
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// Reads every text file below `root`, sorted by path.
///
/// # Errors
/// A folder or file cannot be read.
pub fn read(root: &Path) -> Result<Vec<Source>> {
    let mut files = Vec::new();
    walk(root, &mut files)?;
    files.sort();
    let mut sources = Vec::new();
    for file in files {
        let bytes =
            std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        if let (Ok(text), Ok(path)) = (String::from_utf8(bytes), file.strip_prefix(root)) {
            sources.push(Source {
                path: path.to_string_lossy().into_owned(),
                text,
            });
        }
    }
    Ok(sources)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
                walk(&entry.path(), files)?;
            }
        } else if kind.is_file()
            && ENDINGS
                .iter()
                .any(|ending| name.ends_with(&format!(".{ending}")))
        {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// Rust code before its `#[cfg(test)]` module, with comments and the insides of strings blanked;
/// line numbers stay.
#[must_use]
pub fn product_code(text: &str) -> String {
    let code = bare_code(text);
    match code.find("#[cfg(test)]\nmod ") {
        Some(at) => code[..at].to_owned(),
        None => code,
    }
}

/// Rust code with comments and the insides of strings blanked; line numbers stay.
#[must_use]
pub fn bare_code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let taken = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if let Some(length) = raw_string(rest) {
            length
        } else if next == '"' {
            string(rest)
        } else if let Some(length) = character(rest) {
            length
        } else {
            code.push(next);
            rest = &rest[next.len_utf8()..];
            continue;
        };
        code.extend(rest[..taken].chars().filter(|character| *character == '\n'));
        code.push(' ');
        rest = &rest[taken..];
    }
    code
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of a raw string literal that `text` begins with.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].strip_prefix('"')?;
    let start = text.len() - after.len() + hashes + 1;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(
        text[start..]
            .find(&end)
            .map_or(text.len(), |at| start + at + end.len()),
    )
}

/// Length of a character literal that `text` begins with; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let mut characters = text.strip_prefix('\'')?.char_indices();
    let (_, first) = characters.next()?;
    if first == '\\' {
        return text[3..].find('\'').map(|at| at + 4);
    }
    let (at, second) = characters.next()?;
    (second == '\'').then_some(at + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_tests_are_no_product_code() {
        let text = "//! unsafe\nfn a<'a>(x: &'a str) { let _ = \"unsafe \\\" unsafe\"; }\n\
            /* unsafe\n unsafe */ const B: char = '\"';\nconst R: &str = r#\"unsafe \" \"#;\n\
            fn c() {}\n#[cfg(test)]\nmod tests { fn unsafe_one() {} }\n";
        let code = product_code(text);
        assert!(!code.contains("unsafe"), "{code}");
        assert!(
            code.contains("fn a<'a>") && code.contains("fn c()"),
            "{code}"
        );
        assert_eq!(bare_code(text).lines().count(), text.lines().count());
    }
}
