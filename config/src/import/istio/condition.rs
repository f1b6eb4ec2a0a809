//! HTTPMatchRequest: the conditions of a rule.

use super::place::Asked;
use super::text::{Replaced, Text, shaped};
use crate::import::fields::camel;
use crate::import::native::{Match, Pairs, ValueRule};
use crate::import::{Fields, Leaf};
use crate::schema::{Key, MatchHeader};

/// Methods that an expression is held against.
const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];
/// Conditions there are.
const KNOWN: &[&str] = &[
    "name",
    "uri",
    "scheme",
    "method",
    "authority",
    "headers",
    "port",
    "sourceLabels",
    "gateways",
    "queryParams",
    "ignoreUriCase",
    "withoutHeaders",
    "sourceNamespace",
    "statPrefix",
];

/// A conjunction of conditions.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    /// All but the host.
    pub(super) native: Match,
    /// The one host it is for.
    pub(super) authority: Option<Leaf>,
    /// The gateways it is for, instead of those of the VirtualService.
    pub(super) gateways: Option<Vec<Leaf>>,
    /// What it asks of the listener.
    pub(super) asked: Asked,
    /// What a rewrite replaces.
    pub(super) replaced: Replaced,
}

impl Condition {
    /// Holds for every request.
    pub(super) fn none() -> Self {
        Self {
            native: Match::default(),
            authority: None,
            gateways: None,
            asked: Asked::default(),
            replaced: Replaced::Front("^/".to_owned()),
        }
    }

    /// Reads the conditions. `Err` says why they cannot be expressed.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, String> {
        if let Some(unknown) = fields.keys().find(|key| !KNOWN.contains(&&*camel(key))) {
            return Err(format!("the condition `{unknown}` is not known"));
        }
        for key in ["sourceLabels", "sourceNamespace"] {
            if fields.has(key) {
                return Err(format!("`{key}`: who calls is not known by labels"));
            }
        }
        let mut condition = Self::none();
        condition.native.at = Some(fields.at().clone());
        let ignore_case = given(fields, "ignoreUriCase", Fields::flag)?.unwrap_or(false);
        if let Some(text) = text(fields, "uri")? {
            let (path, replaced) = text.0.path(ignore_case)?;
            condition.native.path = path;
            condition.replaced = replaced;
        }
        if let Some((text, at)) = text(fields, "method")? {
            condition.native.methods = methods(&text, &at)?;
        }
        if let Some((text, _)) = text(fields, "scheme")? {
            condition.asked.tls = match text.among(&["http", "https"])?[..] {
                ["http"] => Some(false),
                ["https"] => Some(true),
                [_, ..] => None,
                [] => return Err("no request has this scheme".to_owned()),
            };
        }
        if let Some((text, _)) = text(fields, "authority")? {
            condition.authority = authority(&text)?;
        }
        if fields.has("port") {
            let port = given(fields, "port", |fields, key| fields.whole(key, 1..=65_535))?;
            condition.asked.port = port.and_then(|port| u16::try_from(port.whole()?).ok());
        }
        if fields.has("gateways") {
            condition.gateways = Some(fields.texts("gateways"));
        }
        headers(fields, &mut condition.native.headers)?;
        query(fields, &mut condition.native.query)?;
        Ok(condition)
    }

    /// True when it holds for every request to its hosts.
    pub(super) fn holds_always(&self) -> bool {
        let Match {
            path,
            methods,
            headers,
            query,
            ..
        } = &self.native;
        let all = path.is_none() && methods.is_empty() && headers.is_empty() && query.is_empty();
        all && self.authority.is_none()
    }

    /// True when it holds on every listener of the VirtualService.
    pub(super) fn holds_everywhere(&self) -> bool {
        self.gateways.is_none() && self.asked.port.is_none() && self.asked.tls.is_none()
    }
}

/// Reads a value that must not be lost. `Err`: it is there and has another type.
fn given<'f, T>(
    fields: &Fields<'f>,
    key: &str,
    read: impl Fn(&Fields<'f>, &str) -> Option<T>,
) -> Result<Option<T>, String> {
    match read(fields, key) {
        None if fields.has(key) => Err(format!("`{key}` has a value that is not legal")),
        value => Ok(value),
    }
}

/// Reads a StringMatch and where it is.
fn text<'f>(fields: &Fields<'f>, key: &str) -> Result<Option<(Text, Fields<'f>)>, String> {
    let Some(inner) = given(fields, key, |fields, key| fields.map(key))? else {
        return Ok(None);
    };
    let text = Text::read(&inner).map_err(|note| format!("`{key}`: {note}"))?;
    Ok(Some((text, inner)))
}

/// Reads a map of StringMatches.
fn texts<'f>(fields: &Fields<'f>, key: &str) -> Result<Vec<(Leaf, Text, Fields<'f>)>, String> {
    let Some(all) = given(fields, key, |fields, key| fields.map(key))? else {
        return Ok(Vec::new());
    };
    let named = fields.named(key);
    if named.len() != all.keys().count() {
        return Err(format!("`{key}` has a value that is not legal"));
    }
    let read = |(name, inner): (Leaf, Fields<'f>)| {
        let text = Text::read(&inner).map_err(|note| format!("`{key}.{name}`: {note}"))?;
        Ok((name, text, inner))
    };
    named.into_iter().map(read).collect()
}

fn methods(text: &Text, at: &Fields<'_>) -> Result<Vec<Leaf>, String> {
    let leaf = |word: &str| Leaf::text(at.at(), word);
    match text {
        Text::Exact(method) => {
            shaped::<http::Method>(method)?;
            Ok(vec![method.clone()])
        }
        Text::Present => Ok(Vec::new()),
        Text::Prefix(_) | Text::Regex(_) => {
            let found = text.among(METHODS)?;
            match found.is_empty() {
                true => Err("no method is like this".to_owned()),
                false => Ok(found.into_iter().map(leaf).collect()),
            }
        }
    }
}

/// Reads the host that a condition is for; `None`: for any.
fn authority(text: &Text) -> Result<Option<Leaf>, String> {
    match text {
        Text::Exact(name) if name.as_str().contains('*') => {
            Err("no request has this `authority`".to_owned())
        }
        Text::Exact(name) => super::place::host(name)
            .map(Some)
            .map_err(|note| format!("`authority`: {note}")),
        Text::Present => Ok(None),
        Text::Prefix(_) | Text::Regex(_) => {
            Err("`authority` is matched by whole names; use `hosts`".to_owned())
        }
    }
}

fn headers(fields: &Fields<'_>, found: &mut Pairs<ValueRule>) -> Result<(), String> {
    let all = [("headers", true), ("withoutHeaders", false)];
    for (key, with) in all {
        for (name, text, inner) in texts(fields, key)? {
            let lower = name.with(name.as_str().to_ascii_lowercase());
            if matches!(lower.as_str(), "uri" | "scheme" | "method" | "authority") {
                inner.approximated_here("conditions on this key are ignored, as there");
                continue;
            }
            let refused = |(_, message, _)| format!("`{key}`: {message}");
            MatchHeader::parse(lower.as_str()).map_err(refused)?;
            let rule = match with {
                true => text.value(&inner),
                false => text.without(&inner),
            };
            let rule = rule.map_err(|note| format!("`{key}.{name}`: {note}"))?;
            if !found.add(lower, rule) {
                return Err(format!(
                    "`{key}.{name}`: there is a condition on it already"
                ));
            }
        }
    }
    Ok(())
}

fn query(fields: &Fields<'_>, found: &mut Pairs<ValueRule>) -> Result<(), String> {
    for (name, text, inner) in texts(fields, "queryParams")? {
        let rule = text.value(&inner);
        let rule = rule.map_err(|note| format!("`queryParams.{name}`: {note}"))?;
        found.add(name, rule);
    }
    Ok(())
}
