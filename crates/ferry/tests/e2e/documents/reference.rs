//! The fields of `ferry.yaml` in the documents are those of its schema.

use std::fmt::Write as _;
use std::fs;

use serde_json::Value;

use super::{LANGUAGES, document, path_of};
use crate::harness::Ferry;

/// Around the table, in both languages.
const BEGIN: &str = "<!-- fields: begin -->\n";
const END: &str = "<!-- fields: end -->";

/// Set it to write the English table afresh.
const UPDATE: &str = "UPDATE_DOCUMENTS";

/// A field that can be written.
struct Field {
    path: String,
    kind: String,
    meaning: String,
}

struct Reference<'a> {
    schema: &'a Value,
    fields: Vec<Field>,
}

impl<'a> Reference<'a> {
    fn resolved(&self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(to) => self.schema.pointer(to.trim_start_matches('#')).unwrap(),
            None => schema,
        }
    }

    /// What a value may be, apart from nothing at all.
    fn choices(schema: &'a Value) -> Vec<&'a Value> {
        let choices = ["anyOf", "oneOf"].iter().find_map(|key| schema[key].as_array());
        let choices = choices.map_or_else(|| vec![schema], |choices| choices.iter().collect());
        choices.into_iter().filter(|choice| choice["type"] != "null").collect()
    }

    fn is_secret(schema: &Value) -> bool {
        schema["$ref"] == "#/$defs/Secret"
    }

    /// The type of a value in words.
    fn kind(&self, schema: &'a Value) -> String {
        if Self::is_secret(schema) {
            return "secret".to_owned();
        }
        let schema = self.resolved(schema);
        if let Some(only) = schema["const"].as_str() {
            return format!("`{only}`");
        }
        let choices = Self::choices(schema);
        if choices.len() > 1 || choices[0] != schema {
            return choices.iter().map(|choice| self.kind(choice)).collect::<Vec<_>>().join(" or ");
        }
        let name = match &schema["type"] {
            Value::Array(names) => names.iter().find(|name| *name != "null").unwrap(),
            name => name,
        };
        match name.as_str().unwrap() {
            "string" => "text".to_owned(),
            "boolean" => "true or false".to_owned(),
            "integer" => "number".to_owned(),
            "array" => format!("list of {}", self.kind(&schema["items"])),
            "object" => "settings".to_owned(),
            other => panic!("the table has no word for {other}"),
        }
    }

    /// The fields below a value; secrets have a place of their own.
    fn below(&mut self, path: &str, schema: &'a Value) {
        if Self::is_secret(schema) {
            return;
        }
        let schema = self.resolved(schema);
        for choice in Self::choices(schema).into_iter().filter(|choice| *choice != schema) {
            self.below(path, choice);
        }
        if schema["items"].is_object() {
            self.below(&format!("{path}[]"), &schema["items"]);
        }
        if schema["additionalProperties"].is_object() {
            self.below(&format!("{path}.REGISTRY"), &schema["additionalProperties"]);
        }
        for (name, value) in schema["properties"].as_object().into_iter().flatten() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let said = value["description"].as_str().or_else(|| schema["description"].as_str());
            let meaning = said.unwrap_or_else(|| panic!("{path} has no description")).replace('\n', " ");
            let meaning = meaning.trim_end_matches('.').replace('|', "\\|");
            self.fields.push(Field { kind: self.kind(value), meaning, path: path.clone() });
            self.below(&path, value);
        }
    }
}

async fn fields() -> Vec<Field> {
    let schema = Ferry::new().run(&["config", "schema"]).await.ok();
    let schema: Value = serde_json::from_str(&schema.out).unwrap();
    let mut reference = Reference { schema: &schema, fields: Vec::new() };
    reference.below("", &schema);
    reference.below("SECRET", &schema["$defs"]["Secret"]);
    assert!(reference.fields.len() > 25, "the schema has changed its form");
    reference.fields
}

/// The table of a language, and what is before and after it.
fn parts(text: &str) -> [&str; 3] {
    let (before, rest) = text.split_once(BEGIN).expect("the table has a beginning");
    let (table, after) = rest.split_once(END).expect("the table has an end");
    [before, table, after]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_fields_is_that_of_the_schema() {
    let fields = fields().await;
    let mut table = "| field | type | meaning |\n| --- | --- | --- |\n".to_owned();
    for Field { path, kind, meaning } in &fields {
        writeln!(table, "| `{path}` | {kind} | {meaning} |").unwrap();
    }
    let text = document("en", "configuration.md");
    let [before, written, after] = parts(&text);
    if std::env::var_os(UPDATE).is_some() {
        fs::write(path_of("en", "configuration.md"), format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    } else {
        assert_eq!(written, table, "run this test with {UPDATE}=1, and translate what has changed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_languages_have_the_same_fields() {
    let fields = fields().await;
    for language in LANGUAGES {
        let text = document(language, "configuration.md");
        let [_, table, _] = parts(&text);
        let rows: Vec<Vec<&str>> = table
            .lines()
            .skip(2)
            .map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect())
            .collect();
        let paths: Vec<&str> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
        let expected: Vec<&str> = fields.iter().map(|field| field.path.as_str()).collect();
        assert_eq!(paths, expected, "{language}/configuration.md");
        let whole = |row: &Vec<&str>| row.len() == 3 && row.iter().all(|cell| !cell.is_empty());
        assert!(rows.iter().all(whole), "{language}/configuration.md: a cell is missing");
    }
}
