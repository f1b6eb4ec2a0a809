//! The tables of what is translated say the truth, and users read the same.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use forebay_config::import::coverage::markdown;
use forebay_config::import::{CertificateFiles, Format, Level, Options, kinds, translate};

use crate::support::parsed;

const START: &str =
    "<!-- tables: written by FOREBAY_UPDATE=1 cargo test -p forebay-config --test import -->\n";

fn corpus() -> Vec<(PathBuf, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import/corpus");
    let entries = fs::read_dir(directory).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// Files for the Secrets that the corpus names.
fn certificates() -> HashMap<String, CertificateFiles> {
    let files = CertificateFiles {
        certificate: "a.crt".to_owned(),
        key: "a.key".to_owned(),
    };
    let secrets = ["ml/web-tls", "other/wildcard"].map(str::to_owned);
    secrets.map(|secret| (secret, files.clone())).into()
}

/// A document of the corpus has each field that is said to be translated, and there it is.
#[test]
fn every_field_of_the_tables_is_translated_in_the_corpus() {
    let mut met: BTreeSet<(String, String, Level)> = BTreeSet::new();
    for (path, text) in corpus() {
        let name = path.file_name().unwrap().to_string_lossy();
        let options = Options {
            format: name.starts_with("llama-swap").then_some(Format::LlamaSwap),
            verbose: true,
            certificates: certificates(),
            ..Options::default()
        };
        for finding in translate(&parsed(&text), &options).findings {
            let kind = finding.document.split(' ').next().unwrap_or_default();
            assert_ne!(
                finding.note,
                "not translated",
                "{}: {finding}",
                path.display()
            );
            met.insert((kind.to_owned(), finding.field, finding.level));
        }
    }
    let mut missing = Vec::new();
    for kind in kinds() {
        for field in kind
            .fields
            .iter()
            .filter(|field| !field.harmless && field.level != Level::Lost)
        {
            let key = (kind.name.to_owned(), field.path.to_owned(), field.level);
            if !met.contains(&key) {
                missing.push(format!("{} {}: {}", kind.name, field.path, field.level));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn no_field_is_listed_twice() {
    for kind in kinds() {
        let mut seen = BTreeSet::new();
        for field in kind.fields {
            assert!(seen.insert(field.path), "{} {}", kind.name, field.path);
        }
    }
}

#[test]
fn users_read_the_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/import/README.md");
    let written = fs::read_to_string(&path).unwrap();
    let (above, below) = written.split_once(START).unwrap();
    let tables = markdown(&kinds());
    if std::env::var_os("FOREBAY_UPDATE").is_some() {
        fs::write(&path, format!("{above}{START}{tables}")).unwrap();
        return;
    }
    assert_eq!(below, tables, "write it anew with FOREBAY_UPDATE=1");
}
