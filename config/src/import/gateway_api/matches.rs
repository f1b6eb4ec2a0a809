//! Conditions of rules. What cannot be expressed drops its whole match.

use http::Method;

use super::legal;
use crate::import::native::{Match, Pairs, PathRule, ValueRule};
use crate::import::{Fields, Leaf};
use crate::schema::{MatchHeader, PathText, Pattern};

/// What gRPC requests have for a content type.
const GRPC_TYPE: &str = "application/grpc([+;].*)?";
/// One segment of a path as a regular expression.
const SEGMENT: &str = "[^/]+";

/// Reads the matches of a rule for HTTP, without hosts. `None`: it has some, and none of them is left.
pub(super) fn http(rule: Fields<'_>) -> Option<Vec<Match>> {
    let everything = || Match {
        path: Some(PathRule::Prefix(Leaf::text(rule.at(), "/"))),
        ..Match::default()
    };
    all(rule, http_match, everything)
}

/// Reads the matches of a rule for gRPC, without hosts. `None`: it has some, and none of them is left.
pub(super) fn grpc(rule: Fields<'_>) -> Option<Vec<Match>> {
    let mut matches = all(rule, grpc_match, Match::default)?;
    for one in &mut matches {
        let name = Leaf::text(rule.at(), "content-type");
        let value = ValueRule::Regex(Leaf::text(rule.at(), GRPC_TYPE));
        one.headers.add(name, value);
    }
    Some(matches)
}

fn all(
    rule: Fields<'_>,
    read: fn(Fields<'_>) -> Option<Match>,
    everything: impl Fn() -> Match,
) -> Option<Vec<Match>> {
    if !rule.has("matches") || rule.count("matches") == Some(0) {
        let _read = rule.maps("matches");
        return Some(vec![everything()]);
    }
    let matches: Vec<Match> = rule.maps("matches").into_iter().filter_map(read).collect();
    (!matches.is_empty()).then_some(matches)
}

fn http_match(fields: Fields<'_>) -> Option<Match> {
    let path = path(fields);
    let headers = values(fields, "headers", Some(header_name));
    let query = values(fields, "queryParams", None);
    let method = method(fields);
    Some(Match {
        at: Some(fields.at().clone()),
        path: Some(path?),
        headers: headers?,
        query: query?,
        methods: method?,
        ..Match::default()
    })
}

/// Reads the path; `None`: it cannot be expressed.
fn path(fields: Fields<'_>) -> Option<PathRule> {
    let whole = || PathRule::Prefix(Leaf::text(fields.at(), "/"));
    if !fields.has("path") {
        return Some(whole());
    }
    let path = fields.map("path")?;
    let kind = word(path, "type", "PathPrefix")?;
    let value = match path.has("value") {
        true => path.text("value")?,
        false => Leaf::text(path.at(), "/"),
    };
    let checked = match kind.as_str() {
        "Exact" | "PathPrefix" => legal::value::<PathText>(&value),
        "RegularExpression" => legal::value::<Pattern>(&value),
        _ => return unknown(path, "type"),
    };
    if let Err(why) = checked {
        path.lost("value", why);
        return None;
    }
    Some(match kind.as_str() {
        "Exact" => PathRule::Exact(value),
        "PathPrefix" => {
            if value.as_str() != "/" {
                let note = "a custom verb may be behind the prefix too, as in `/m:predict`";
                path.approximated("value", note);
            }
            PathRule::Prefix(value)
        }
        _ => PathRule::Regex(value),
    })
}

/// Reads a word that may be left out; `None`: it is no text.
fn word(fields: Fields<'_>, key: &str, default: &str) -> Option<String> {
    match fields.has(key) {
        true => Some(fields.text(key)?.as_str().to_owned()),
        false => Some(default.to_owned()),
    }
}

fn unknown<T>(fields: Fields<'_>, key: &str) -> Option<T> {
    fields.lost(key, "this type is not known");
    None
}

/// Reads the method; `None`: it cannot be expressed.
fn method(fields: Fields<'_>) -> Option<Vec<Leaf>> {
    if !fields.has("method") {
        return Some(Vec::new());
    }
    let method = fields.text("method")?;
    match legal::value::<Method>(&method) {
        Ok(()) => Some(vec![method]),
        Err(why) => {
            fields.lost("method", why);
            None
        }
    }
}

/// Checks the name of a header and writes it as native files do.
fn header_name(name: &str) -> Result<String, String> {
    legal::key::<MatchHeader>(name)?;
    Ok(name.to_ascii_lowercase())
}

/// Checks a name and returns its native spelling.
type Spell = fn(&str) -> Result<String, String>;

/// Reads conditions on named values, of which the first of a name counts; `None`: one cannot be expressed.
fn values(fields: Fields<'_>, key: &str, spell: Option<Spell>) -> Option<Pairs<ValueRule>> {
    let mut found = Pairs::default();
    if !fields.has(key) {
        return Some(found);
    }
    let items = fields.maps(key);
    let complete = Some(items.len()) == fields.count(key);
    let mut expressed = true;
    for item in items {
        let kind = word(item, "type", "Exact");
        let (name, value) = (item.text("name"), item.text("value"));
        let (Some(kind), Some(name), Some(value)) = (kind, name, value) else {
            item.lost_here("a condition needs `name` and `value`, which are texts");
            expressed = false;
            continue;
        };
        let spelled = spell.map_or_else(|| Ok(name.to_string()), |spell| spell(name.as_str()));
        let spelled = match spelled {
            Ok(spelled) => name.with(spelled),
            Err(why) => {
                item.lost("name", why);
                expressed = false;
                continue;
            }
        };
        let rule = match kind.as_str() {
            "Exact" => ValueRule::Equals(value),
            "RegularExpression" => match legal::value::<Pattern>(&value) {
                Ok(()) => ValueRule::Regex(whole(value)),
                Err(why) => {
                    item.lost("value", why);
                    expressed = false;
                    continue;
                }
            },
            _ => {
                item.lost("type", "this type is not known");
                expressed = false;
                continue;
            }
        };
        if !found.add(spelled, rule) {
            item.approximated_here("only the first of a name counts, as the specification says");
        }
    }
    (complete && expressed).then_some(found)
}

/// An expression matches whole values, which native ones with an anchor at one of their ends do not.
fn whole(expression: Leaf) -> Leaf {
    let text = expression.as_str();
    match text.starts_with('^') || text.ends_with('$') {
        true => expression.with(format!("(?:{text})")),
        false => expression,
    }
}

fn grpc_match(fields: Fields<'_>) -> Option<Match> {
    let path = grpc_path(fields);
    let headers = values(fields, "headers", Some(header_name));
    Some(Match {
        at: Some(fields.at().clone()),
        path: path?,
        headers: headers?,
        ..Match::default()
    })
}

/// Reads service and method; the inner `None`: any. The outer: they cannot be expressed.
fn grpc_path(fields: Fields<'_>) -> Option<Option<PathRule>> {
    if !fields.has("method") {
        return Some(None);
    }
    let method = fields.map("method")?;
    let kind = word(method, "type", "Exact")?;
    let part = |key: &str| match method.has(key) {
        true => Some(method.text(key).filter(|leaf| !leaf.as_str().is_empty())),
        false => Some(None),
    };
    let wrong = |key: &str| method.has(key) && method.text(key).is_none();
    if wrong("service") || wrong("method") {
        return None;
    }
    let (service, name) = (part("service")?, part("method")?);
    let at = method.at();
    let exact = kind == "Exact";
    if !exact && kind != "RegularExpression" {
        return unknown(method, "type");
    }
    for (key, leaf) in [("service", &service), ("method", &name)] {
        let Some(leaf) = leaf else { continue };
        let checked = match exact {
            true => legal::value::<PathText>(&leaf.with(format!("/{leaf}"))),
            false => legal::value::<Pattern>(leaf),
        };
        let slash = exact && leaf.as_str().contains('/');
        let checked = match slash {
            true => Err("a name has no `/`".to_owned()),
            false => checked,
        };
        if let Err(why) = checked {
            method.lost(key, why);
            return None;
        }
    }
    let expression = |leaf: &Option<Leaf>| match leaf {
        None => SEGMENT.to_owned(),
        Some(leaf) if exact => regex::escape(leaf.as_str()),
        Some(leaf) => format!("(?:{leaf})"),
    };
    Some(match (exact, &service, &name) {
        (_, None, None) => None,
        (true, Some(service), Some(name)) => Some(PathRule::Exact(Leaf::text(
            at,
            format!("/{service}/{name}"),
        ))),
        (true, Some(service), None) => {
            Some(PathRule::Prefix(Leaf::text(at, format!("/{service}"))))
        }
        _ => {
            let text = format!("/{}/{}", expression(&service), expression(&name));
            Some(PathRule::Regex(Leaf::text(at, text)))
        }
    })
}
