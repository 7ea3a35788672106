//! A TOML text as a [`ConfigFile`]: unknown keys with the nearest known one, and where keys stand.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use serde::Deserialize as _;
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::ConfigFile;
use super::problem::Problem;

/// Further from a known key than this a suggestion is a guess.
const DISTANCE_MAX: usize = 4;

/// The file, if it can be read as one, and everything that is wrong with its form.
pub(super) struct Document {
    pub(super) file: Option<ConfigFile>,
    pub(super) problems: Vec<Problem>,
    pub(super) places: Places,
}

/// Where each key stands in the text.
pub(super) struct Places {
    /// Byte offset by key, as problems name them.
    keys: BTreeMap<String, usize>,
    /// Byte offset of every line.
    lines: Vec<usize>,
    text: String,
}

impl Places {
    fn new(text: &str) -> Self {
        let feeds = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            keys: BTreeMap::new(),
            lines: std::iter::once(0).chain(feeds).collect(),
            text: text.to_owned(),
        }
    }

    /// Line and column of a key; of the nearest table around it when it is missing.
    pub(super) fn find(&self, key: &str) -> Option<(usize, usize)> {
        let mut key = key;
        loop {
            if let Some(offset) = self.keys.get(key) {
                return Some(self.line_and_column(*offset));
            }
            key = &key[..key.rfind(['.', '['])?];
        }
    }

    fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines[line - 1];
        let before = self.text.get(start..offset).unwrap_or("");
        (line, before.chars().count() + 1)
    }
}

pub(super) fn read(text: &str) -> Document {
    let mut places = Places::new(text);
    let mut problems = Vec::new();
    let at = |places: &Places, error: &toml::de::Error| Problem {
        place: error.span().map(|span| places.line_and_column(span.start)),
        key: String::new(),
        what: in_words(error.message()),
    };
    let (mut table, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        problems.extend(syntax.iter().map(|error| at(&places, error)));
        return Document {
            file: None,
            problems,
            places,
        };
    }
    let schema = schema();
    let mut walk = Walk {
        definitions: schema.get("$defs").unwrap_or(&Value::Null),
        places: &mut places,
        problems: &mut problems,
    };
    walk.table(table.get_mut(), &schema, "");
    let file = match ConfigFile::deserialize(toml::Deserializer::from(table)) {
        Ok(file) => Some(file),
        Err(error) => {
            problems.push(at(&places, &error));
            None
        }
    };
    Document {
        file,
        problems,
        places,
    }
}

/// The JSON schema of the file.
pub(super) fn schema() -> Value {
    SchemaSettings::draft2020_12()
        .for_deserialize()
        .into_generator()
        .into_root_schema_for::<ConfigFile>()
        .to_value()
}

/// `schema` behind a reference, and without the "or null" of an optional key.
pub(super) fn resolve<'a>(schema: &'a Value, definitions: &'a Value) -> &'a Value {
    if let Some(name) = schema
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|reference| reference.rsplit('/').next())
    {
        return definitions.get(name).unwrap_or(schema);
    }
    let Some(choices) = schema.get("anyOf").and_then(Value::as_array) else {
        return schema;
    };
    let is_null = |choice: &&Value| choice.get("type").and_then(Value::as_str) != Some("null");
    let mut choices = choices.iter().filter(is_null);
    match (choices.next(), choices.next()) {
        (Some(only), None) => resolve(only, definitions),
        _ => schema,
    }
}

/// Goes through the text and the schema side by side.
struct Walk<'a> {
    definitions: &'a Value,
    places: &'a mut Places,
    problems: &'a mut Vec<Problem>,
}

impl Walk<'_> {
    /// Reports and removes what the schema does not know, so that the rest can be judged too.
    fn table(&mut self, table: &mut DeTable<'_>, schema: &Value, path: &str) {
        let definitions = self.definitions;
        let known = resolve(schema, definitions)
            .get("properties")
            .and_then(Value::as_object);
        let mut unknown = Vec::new();
        for (key, value) in table.iter_mut() {
            let name = key.get_ref();
            let path = if path.is_empty() {
                name.to_string()
            } else {
                format!("{path}.{name}")
            };
            self.places.keys.insert(path.clone(), key.span().start);
            let Some(known) = known else { continue };
            match known.get(name.as_ref()) {
                Some(schema) => self.value(value, schema, &path),
                None => {
                    let what = unknown_key(name, known.keys().map(String::as_str));
                    self.problems.push(Problem {
                        place: Some(self.places.line_and_column(key.span().start)),
                        key: path,
                        what,
                    });
                    unknown.push(key.clone());
                }
            }
        }
        for key in unknown {
            table.remove(&key);
        }
    }

    fn value(&mut self, value: &mut Spanned<DeValue<'_>>, schema: &Value, path: &str) {
        let definitions = self.definitions;
        match value.get_mut() {
            DeValue::Table(table) => self.table(table, schema, path),
            DeValue::Array(array) => {
                let items = resolve(schema, definitions).get("items");
                for (index, item) in array.iter_mut().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.places.keys.insert(path.clone(), item.span().start);
                    if let Some(items) = items {
                        self.value(item, items, &path);
                    }
                }
            }
            _ => {}
        }
    }
}

fn unknown_key<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(name, known.clone()) {
        Some(near) => format!("unknown key; did you mean \"{near}\"?"),
        None => format!(
            "unknown key; remove it, or use one of: {}",
            known.collect::<Vec<_>>().join(", ")
        ),
    }
}

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|near| {
            (
                strsim::damerau_levenshtein(&name.to_lowercase(), near),
                near,
            )
        })
        .filter(|(distance, near)| *distance <= DISTANCE_MAX.min(near.len().max(2) / 2))
        .min()
        .map(|(_, near)| near)
}

/// A message of the parser; for a value out of a list, the nearest one is added.
fn in_words(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let wrong = message
        .starts_with("unknown variant")
        .then(|| quoted.next())
        .flatten();
    match wrong.and_then(|wrong| nearest(wrong, quoted)) {
        Some(near) => format!("{}; did you mean \"{near}\"?", message.trim_end()),
        None => message.trim_end().to_owned(),
    }
}
