//! Every shipped configuration, broken in every small way: never a panic, always refused, and reported where it is
//! broken.
#![allow(clippy::unwrap_used, reason = "a test")]

mod shipped;

use std::collections::BTreeSet;

use forebay_config::diagnostic::{Diagnostic, Severity};
use forebay_config::load::{SourceFile, load};
use forebay_config::node::{Kind, Node, Value, parse};

/// Maps whose keys are names that users choose.
const FREE: &[&str] = &[
    "set",
    "add",
    "header",
    "headers",
    "query",
    "cookies",
    "labels",
    "subset",
    "overrides",
    "env",
];
/// Keys whose value can be any text.
const ANY_TEXT: &[&str] = &[
    "body",
    "with",
    "certificate",
    "key",
    "ca",
    "client_ca",
    "path",
    "token",
    "file",
    "service",
    "ignore",
    "redact",
    "json",
    "command",
    "stop",
    "directory",
    "model",
    "models",
];

/// One place of a file that can be broken.
struct Spot {
    line: usize,
    column: usize,
    text: String,
    /// The key whose value it is, or that it is itself.
    key: String,
    /// The key of the map or list around that.
    parent: String,
    is_key: bool,
    /// Its map or list holds what users choose.
    free: bool,
}

fn spots(node: &Node, (parent, key): (&str, &str), free: bool, found: &mut Vec<Spot>) {
    let (line, column) = (node.position.line as usize, node.position.column as usize);
    match &node.value {
        Value::Map(entries) => {
            let inside = FREE.contains(&key);
            for entry in entries {
                let (line, column) = (entry.position.line as usize, entry.position.column as usize);
                let text = entry.key.clone();
                found.push(Spot {
                    line,
                    column,
                    text,
                    key: entry.key.clone(),
                    parent: key.to_owned(),
                    is_key: true,
                    free: inside,
                });
                let keys = if inside {
                    (parent, key)
                } else {
                    (key, &*entry.key)
                };
                spots(&entry.value, keys, inside, found);
            }
        }
        Value::List(items) => items
            .iter()
            .for_each(|item| spots(item, (parent, key), free, found)),
        Value::Scalar(scalar) if scalar.kind != Kind::Null => {
            found.push(Spot {
                line,
                column,
                text: scalar.text.clone(),
                key: key.to_owned(),
                parent: parent.to_owned(),
                is_key: false,
                free,
            });
        }
        Value::Scalar(_) => {}
    }
}

/// Replaces the text at a spot, its quotes included; `None` when it is not written as it reads.
fn replaced(file: &SourceFile, spot: &Spot, text: &str) -> Option<String> {
    let mut lines: Vec<String> = file.text.lines().map(str::to_owned).collect();
    let line = &lines[spot.line - 1];
    let start = line.char_indices().nth(spot.column - 1)?.0;
    let quotes = ["", "\"", "'"]
        .into_iter()
        .map(|quote| format!("{quote}{}{quote}", spot.text));
    let written = quotes
        .into_iter()
        .find(|written| line[start..].starts_with(written.as_str()))?;
    lines[spot.line - 1] = format!("{}{text}{}", &line[..start], &line[start + written.len()..]);
    Some(lines.join("\n") + "\n")
}

fn load_text(file: &SourceFile, text: &str) -> Result<(), Vec<Diagnostic>> {
    let file = SourceFile {
        text: text.to_owned(),
        ..file.clone()
    };
    load(&[file], &|_| None)
        .map(|_| ())
        .map_err(|problems| problems.0)
}

fn error_lines(problems: &[Diagnostic]) -> BTreeSet<usize> {
    let errors = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error);
    errors
        .map(|problem| problem.position.line as usize)
        .collect()
}

/// Asserts that the broken text is refused and that no other line is blamed.
fn blames_only(file: &SourceFile, line: usize, text: &str) {
    let place = format!(
        "{}:{line}: {}",
        file.name,
        text.lines().nth(line - 1).unwrap_or_default()
    );
    let problems = load_text(file, text).expect_err(&place);
    assert_eq!(
        error_lines(&problems),
        BTreeSet::from([line]),
        "{place}\n{problems:#?}"
    );
}

fn typos(key: &str) -> BTreeSet<String> {
    let chars: Vec<char> = key.chars().collect();
    let mut typos = BTreeSet::from([
        format!("{key}x"),
        format!("x{key}"),
        format!("{key}_2"),
        key.to_uppercase(),
    ]);
    for at in 0..chars.len() {
        let mut less = chars.clone();
        less.remove(at);
        typos.insert(less.into_iter().collect());
        let mut more = chars.clone();
        more.insert(at, chars[at]);
        typos.insert(more.into_iter().collect());
        if at > 0 {
            let mut swapped = chars.clone();
            swapped.swap(at - 1, at);
            typos.insert(swapped.into_iter().collect());
        }
    }
    typos.remove(key);
    typos.remove("");
    typos.remove("certificate"); // a key of its own
    typos
}

fn bad_values(spot: &Spot) -> Vec<&'static str> {
    let mut values = vec![
        "{zz: 1}",
        "[[1]]",
        "{a: {b: c}}",
        "\"${env:UNSET_VARIABLE}\"",
        "\"${env:no name}\"",
    ];
    match spot.key.as_str() {
        "find" if spot.parent == "replace" => {} // any text
        "regex" | "find" => values.extend(["\"(\"", "\"a)|(b\"", "\"(a{999}){999}\""]),
        key if ANY_TEXT.contains(&key) || spot.free => {}
        "cluster" | "listeners" => values.extend(["no-such-name", "\"two words\""]),
        _ => values.extend(["\"\\x01\"", "\"two words\"", "\"\"", "\"//:\""]),
    }
    values
}

#[test]
fn a_broken_key_type_or_value_is_reported_in_its_own_line() {
    for file in shipped::all_and_traffic() {
        let (tree, problems) = parse(&file);
        assert_eq!(problems, []);
        let mut found = Vec::new();
        spots(&tree.unwrap(), ("", ""), false, &mut found);
        let mut broken = 0;
        for spot in &found {
            let mut texts: Vec<String> = Vec::new();
            if spot.is_key && !spot.free {
                texts.extend(typos(&spot.text));
            } else if !spot.is_key {
                texts.extend(bad_values(spot).into_iter().map(str::to_owned));
            }
            // A name may be anything, so that only its references break; they are elsewhere.
            texts.retain(|text| !(spot.key == "name" && text == "\"//:\""));
            for text in texts {
                if let Some(changed) = replaced(&file, spot, &text) {
                    blames_only(&file, spot.line, &changed);
                    broken += 1;
                }
            }
        }
        assert!(broken >= 100, "{}: only {broken} ways", file.name);
    }
}

/// The lines of the top-level entry that holds `line`, both 1-based and inclusive.
fn entry_around(text: &str, line: usize) -> std::ops::RangeInclusive<usize> {
    let lines: Vec<&str> = text.lines().collect();
    let starts =
        |line: &str| line.starts_with("- ") || line.starts_with(|c: char| c.is_ascii_alphabetic());
    let first = (1..=line)
        .rev()
        .find(|number| starts(lines[number - 1]))
        .unwrap_or(1);
    let last = (line + 1..=lines.len())
        .find(|number| starts(lines[number - 1]))
        .unwrap_or(lines.len());
    first..=last
}

/// A tree without its places.
fn shape(node: &Node) -> String {
    match &node.value {
        Value::Map(entries) => {
            entries
                .iter()
                .map(|entry| format!("{}:{},", entry.key, shape(&entry.value)))
                .collect::<String>()
                + "}"
        }
        Value::List(items) => {
            items
                .iter()
                .map(|item| format!("-{},", shape(item)))
                .collect::<String>()
                + "]"
        }
        Value::Scalar(scalar) => format!("{:?}", scalar.text),
    }
}

/// Asserts that the text means the same as before, or is refused with an error inside the entry at `line`.
fn same_or_blames_the_entry(file: &SourceFile, line: usize, text: &str) {
    let place = format!("{}:{line}\n{text}", file.name);
    let changed = SourceFile {
        text: text.to_owned(),
        ..file.clone()
    };
    match load(std::slice::from_ref(&changed), &|_| None) {
        Ok(_) => {
            let [before, after] = [file, &changed].map(|file| shape(&parse(file).0.unwrap()));
            assert_eq!(before, after, "{place}");
        }
        Err(problems) => {
            let entries = [entry_around(&file.text, line), entry_around(text, line)];
            let blamed = error_lines(&problems.0);
            let found = blamed
                .iter()
                .any(|line| entries.iter().any(|entry| entry.contains(line)));
            assert!(
                found,
                "reported lines {blamed:?}, not in {entries:?}\n{problems}\n{place}"
            );
        }
    }
}

/// True for what is inside quotes, which the quotes themselves are not.
fn in_quotes(code: &str, at: usize) -> bool {
    let mut quote = None;
    for c in code[..at].chars() {
        match quote {
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ => {}
        }
    }
    quote.is_some_and(|open| !code[at..].starts_with(open))
}

#[test]
fn broken_syntax_is_reported_in_its_entry() {
    for file in shipped::all_and_traffic() {
        let lines: Vec<&str> = file.text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let code = line.split(" #").next().unwrap_or_default();
            if code.trim().is_empty() || code.trim_start().starts_with('#') {
                continue;
            }
            let mut changes: Vec<String> = Vec::new();
            for (at, _) in code.match_indices([':', '[', ']', '{', '}', '"', ',']) {
                let rest = &code[at + 1..];
                if in_quotes(code, at) {
                    continue; // text
                }
                if code[at..].starts_with(',') && code.trim_start().starts_with("models:") {
                    continue; // a name with a space
                }
                // A comma or a colon inside a word is text as well.
                if !code[at..].starts_with([':', ',']) || rest.is_empty() || rest.starts_with(' ') {
                    changes.push(format!("{}{}", &code[..at], rest));
                }
            }
            changes.push(format!(" {code}"));
            changes.push(format!("   {code}"));
            changes.push(format!("\t{code}"));
            changes.extend(code.strip_prefix(' ').map(str::to_owned));
            // What a member of a split and its route both have moves from one to the other.
            if !code.contains("_headers:") {
                changes.extend(code.strip_prefix("  ").map(str::to_owned));
            }
            for change in changes {
                let mut changed = lines.clone();
                changed[index] = &change;
                same_or_blames_the_entry(&file, index + 1, &(changed.join("\n") + "\n"));
            }
        }
    }
}

#[test]
fn a_key_written_twice_is_reported_at_the_second() {
    for file in shipped::all_and_traffic() {
        let lines: Vec<&str> = file.text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let code = line.split(" #").next().unwrap_or_default().trim_end();
            let whole = !code.is_empty()
                && !code.trim_start().starts_with(['-', '#'])
                && code.contains(": ");
            let balanced = ['{', '[']
                .iter()
                .zip(['}', ']'])
                .all(|(open, close)| code.matches(*open).count() == code.matches(close).count());
            if whole && balanced {
                let mut changed = lines.clone();
                changed.insert(index + 1, code);
                blames_only(&file, index + 2, &(changed.join("\n") + "\n"));
            }
        }
    }
}
