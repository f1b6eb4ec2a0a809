//! Every configuration that is shipped loads without a warning, and fits the JSON Schema.
#![allow(clippy::unwrap_used, reason = "a test")]

mod shipped;

use forebay_config::load::load;
use forebay_config::schema::json_schema;
use serde_json::Value;

#[test]
fn every_shipped_configuration_loads_without_a_warning() {
    for file in shipped::all() {
        let sources = [file];
        match load(&sources, &|_| None) {
            Ok(loaded) => assert_eq!(loaded.warnings, [], "{}", sources[0].name),
            Err(problems) => panic!("{}", problems.render(&sources)),
        }
    }
}

#[test]
fn every_shipped_configuration_fits_the_schema() {
    let validator = jsonschema::validator_for(&json_schema()).unwrap();
    for file in shipped::all() {
        let instance: Value = serde_saphyr::from_str(&file.text).unwrap();
        let problems: Vec<String> = validator
            .iter_errors(&instance)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(problems.is_empty(), "{}: {problems:#?}", file.name);
    }
}

#[test]
fn the_schema_refuses_what_the_parser_refuses() {
    let validator = jsonschema::validator_for(&json_schema()).unwrap();
    for text in [
        "nonsense: 1",
        "routes: [{name: a, clutser: b}]",
        "routes: [{name: a, pipeline: []}]",
        "routes: [{name: a, timeouts: {total: 5}}]",
        "listeners: [{name: a, address: 8080}]",
        "clusters: [{name: a, balance: fastest}]",
        "workers: 0",
        "max_memory: lots",
        "access_log: {sample: 120%}",
    ] {
        let instance: Value = serde_saphyr::from_str(text).unwrap();
        let refused = !validator.is_valid(&instance);
        assert!(refused || text.contains("120%"), "{text}");
        let file = shipped::source("a.yaml", text);
        assert!(load(&[file], &|_| None).is_err(), "{text}");
    }
}

#[test]
fn every_key_of_the_schema_is_described() {
    fn walk(schema: &Value, path: &str, keys: &mut usize) {
        match schema {
            Value::Object(fields) => {
                if let Some(Value::Object(properties)) = fields.get("properties") {
                    for (key, property) in properties {
                        *keys += 1;
                        let description = property["description"].as_str().unwrap_or_default();
                        assert!(
                            description.len() > 5 && description.ends_with('.'),
                            "{path}.{key}: {description:?}"
                        );
                    }
                }
                fields
                    .iter()
                    .for_each(|(key, value)| walk(value, &format!("{path}.{key}"), keys));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, path, keys)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let schema = json_schema();
    let mut keys = 0;
    walk(&schema, "", &mut keys);
    assert!(keys > 100, "{keys}");
    jsonschema::meta::validate(&schema).unwrap();
}
