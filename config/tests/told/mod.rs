//! What is said about a configuration, and where.

#![allow(dead_code, reason = "each test uses its part")]

use forebay_config::Config;
use forebay_config::diagnostic::{Diagnostic, Severity};
use forebay_config::load::load;
use forebay_config::schema::json_schema;

use super::shipped;

/// Loads a text, where `PORT` is 7; returns it with its warnings, or everything that is wrong.
pub(crate) fn loaded(text: &str) -> Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>> {
    let env = |name: &str| (name == "PORT").then(|| "7".to_owned());
    load(&[shipped::source("a.yaml", text)], &env)
        .map(|loaded| (loaded.config, loaded.warnings))
        .map_err(|problems| problems.0)
}

/// True when the JSON Schema accepts the text.
pub(crate) fn fits_the_schema(text: &str) -> bool {
    static VALIDATOR: std::sync::LazyLock<jsonschema::Validator> =
        std::sync::LazyLock::new(|| jsonschema::validator_for(&json_schema()).unwrap());
    let instance: serde_json::Value = serde_saphyr::from_str(text).unwrap();
    VALIDATOR.is_valid(&instance)
}

/// Returns everything that is said about a text.
pub(crate) fn findings(text: &str) -> Vec<Diagnostic> {
    match loaded(text) {
        Ok((_, findings)) | Err(findings) => findings,
    }
}

/// Asserts which codes a file is answered with, and that the schema accepts what loads.
#[track_caller]
pub(crate) fn codes(text: &str, expected: &str) {
    let found = findings(text);
    let codes: Vec<&str> = found.iter().map(|one| one.code.as_str()).collect();
    assert_eq!(codes.join(" "), expected, "{text}\n{found:#?}");
    if found.iter().all(|one| one.severity == Severity::Warning) {
        assert!(fits_the_schema(text), "the schema refuses {text}");
    }
}

/// Asserts that one of the findings reads like this, as `line:column code message`, and helps like that.
#[track_caller]
pub(crate) fn says(text: &str, message: &str, help: &str) {
    let found = findings(text);
    let shown = |one: &Diagnostic| {
        let (line, column) = (one.position.line, one.position.column);
        format!("{line}:{column} {} {}", one.code.as_str(), one.message)
    };
    let one = found.iter().find(|one| shown(one) == message);
    let one = one.unwrap_or_else(|| {
        let all: Vec<String> = found.iter().map(shown).collect();
        panic!("{text}\n{all:#?}")
    });
    assert_eq!(one.help.as_deref().unwrap_or_default(), help, "{text}");
}
