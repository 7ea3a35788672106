//! The manual of the configuration file and its JSON schema, both out of the field documentation.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::document::{resolve, schema};

/// The JSON schema [draft 2020-12] of the configuration file.
#[must_use]
pub fn schema_json() -> String {
    let mut json = serde_json::to_string_pretty(&schema()).expect("a schema is JSON");
    json.push('\n');
    json
}

/// Every key with its type, default and meaning, as Markdown.
#[must_use]
pub fn manual_markdown() -> String {
    let schema = schema();
    let definitions = schema.get("$defs").unwrap_or(&Value::Null);
    let mut text = "# Configuration\n\n\
        One TOML file. `postern check --config FILE` says what it understood and everything that is \
        wrong with it; a running gateway reads it again on SIGHUP or `postern reload`, and keeps the \
        old configuration when the new one is refused. Relative paths start at the file's folder. \
        Unknown keys are refused.\n\n\
        A duration is written `90s`, `15m`, `8h`, `1d` or `1h30m`.\n"
        .to_owned();
    section(&mut text, &schema, definitions, "");
    text
}

/// The keys of one table, then its tables.
fn section(text: &mut String, schema: &Value, definitions: &Value, path: &str) {
    let resolved = resolve(schema, definitions);
    let Some(properties) = resolved.get("properties").and_then(Value::as_object) else {
        return;
    };
    let required: Vec<&str> = resolved
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let (tables, keys): (Vec<_>, Vec<_>) = properties
        .iter()
        .partition(|(_, value)| table_of(value, definitions).is_some());
    if !keys.is_empty() {
        text.push_str("\n| key | type | default | meaning |\n|---|---|---|---|\n");
    }
    for (name, value) in keys {
        let default = match value.get("default") {
            Some(Value::Null) | None if required.contains(&name.as_str()) => "required".to_owned(),
            Some(Value::Null) | None => String::new(),
            Some(default) => format!("`{default}`"),
        };
        let kind = kind(resolve(value, definitions), definitions);
        let meaning = description(value, definitions);
        writeln!(text, "| `{name}` | {kind} | {default} | {meaning} |").expect("a string grows");
    }
    for (name, value) in tables {
        let (table, repeats) = table_of(value, definitions).expect("partitioned by it");
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let heading = if repeats {
            format!("[[{path}]]")
        } else {
            format!("[{path}]")
        };
        let meaning = description(value, definitions);
        writeln!(text, "\n## `{heading}`\n\n{meaning}").expect("a string grows");
        section(text, table, definitions, &path);
    }
}

/// The table behind a key, and whether there may be many of it.
fn table_of<'a>(value: &'a Value, definitions: &'a Value) -> Option<(&'a Value, bool)> {
    let resolved = resolve(value, definitions);
    let is_table = |schema: &Value| schema.get("properties").is_some_and(Value::is_object);
    if is_table(resolved) && resolved.get("oneOf").is_none() {
        return Some((resolved, false));
    }
    let items = resolve(resolved.get("items")?, definitions);
    (is_table(items) && items.get("oneOf").is_none()).then_some((items, true))
}

fn description(value: &Value, definitions: &Value) -> String {
    let of = |value: &Value| {
        let text = value.get("description")?.as_str()?;
        Some(text.replace('\n', " ").replace('|', "\\|"))
    };
    of(value)
        .or_else(|| of(resolve(value, definitions)))
        .unwrap_or_default()
}

fn kind(schema: &Value, definitions: &Value) -> String {
    let listed = |values: &[Value]| {
        let names: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
        names.join(", ")
    };
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return listed(values);
    }
    if let Some(choices) = schema.get("oneOf").and_then(Value::as_array) {
        let names: Vec<String> = choices.iter().map(choice).collect();
        return names.join(", ");
    }
    if schema
        .get("pattern")
        .is_some_and(|pattern| pattern.as_str().is_some_and(|p| p.contains("[0-9]+d")))
    {
        return "duration".to_owned();
    }
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().find(|kind| *kind != "null"),
        kind => kind,
    };
    match kind.and_then(Value::as_str) {
        Some("array") => {
            let items = schema.get("items").map(|items| resolve(items, definitions));
            match items.map(|items| self::kind(items, definitions)) {
                Some(kind) => format!("list of {kind}"),
                None => "list".to_owned(),
            }
        }
        Some("integer") => "number".to_owned(),
        Some("boolean") => "`true`, `false`".to_owned(),
        Some(kind) => kind.to_owned(),
        None => "value".to_owned(),
    }
}

/// One of several forms of a value.
fn choice(schema: &Value) -> String {
    if let Some(value) = schema.get("const") {
        return format!("`{value}`");
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let names: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
        return names.join(", ");
    }
    let properties: Option<&Map<String, Value>> =
        schema.get("properties").and_then(Value::as_object);
    let names: Vec<&str> = properties
        .into_iter()
        .flat_map(Map::keys)
        .map(String::as_str)
        .collect();
    format!("`{{ {} = … }}`", names.join(", "))
}
