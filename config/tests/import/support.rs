//! Texts in, translations, configurations and messages out.

use std::sync::Arc;

use forebay_config::Config;
use forebay_config::diagnostic::Diagnostics;
use forebay_config::import::{Level, Options, Translation, to_yaml, translate};
use forebay_config::load::{Loaded, SourceFile, load};
use forebay_config::node::{self, Node};

/// A file by this name.
pub(crate) fn file(name: &str, text: &str) -> SourceFile {
    SourceFile {
        name: Arc::from(name),
        directory: ".".into(),
        text: text.to_owned(),
    }
}

/// The documents of a text.
pub(crate) fn parsed(text: &str) -> Vec<Node> {
    let (documents, problems) = node::parse_documents(&file("a.yaml", text));
    assert_eq!(problems, []);
    documents.unwrap()
}

/// Translates a text as the command line does, and tells of everything.
pub(crate) fn translated(text: &str) -> Translation {
    let options = Options {
        verbose: true,
        ..Options::default()
    };
    translate(&parsed(text), &options)
}

/// What is not `ok`: `LINE:COLUMN LEVEL[!] PATH: NOTE`, with `!` where security is weaker.
pub(crate) fn findings(translation: &Translation) -> Vec<String> {
    let findings = translation.findings.iter();
    let worse = findings.filter(|finding| finding.level != Level::Ok);
    worse
        .map(|one| {
            let mark = if one.security { "!" } else { "" };
            let place = format!("{}:{}", one.position.line, one.position.column);
            format!("{place} {}{mark} {}: {}", one.level, one.path, one.note)
        })
        .collect()
}

/// Loads files.
pub(crate) fn loaded(files: &[(&str, &str)]) -> Result<Loaded, Diagnostics> {
    let files: Vec<SourceFile> = files.iter().map(|(name, text)| file(name, text)).collect();
    load(&files, &|_| None)
}

/// The configuration without what is about places.
pub(crate) fn comparable(config: &Config) -> String {
    let text = format!("{config:?}");
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("Position {") {
        out.push_str(before);
        rest = after.split_once('}').unwrap().1;
    }
    out + rest
}

/// Checks that the YAML that `import` prints gives the configuration that loading the documents gives; returns it.
pub(crate) fn round_trip(text: &str) -> Config {
    let direct = load(&[file("a.yaml", text)], &|_| None);
    let direct = direct.unwrap_or_else(|problems| panic!("{problems}"));
    let options = Options {
        wanted: Some(Default::default()),
        ..Options::default()
    };
    let printed = to_yaml(&translate(&parsed(text), &options).root);
    let again = load(&[file("b.yaml", &printed)], &|_| None);
    let again = again.unwrap_or_else(|problems| panic!("{problems}\n{printed}"));
    assert_eq!(
        comparable(&direct.config),
        comparable(&again.config),
        "{printed}"
    );
    direct.config
}
