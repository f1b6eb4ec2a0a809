//! Filters of rules and of backends.

use super::backends::{self, Source};
use super::cors;
use super::legal;
use super::paths::{Change, change};
use crate::import::native::{Cors, Edits, Mirror, Pairs, Redirect, Rewrite};
use crate::import::{Fields, Leaf, Work};
use crate::schema::{EditableHeader, HeaderText, HostName, RedirectStatus, Scheme};

/// Millionths of a share in one of the steps that copies have.
const STEP: i64 = 100;

/// What filters do.
#[derive(Debug, Default)]
pub(super) struct Filters<'a> {
    /// Edits of the request's headers.
    pub(super) request: Edits,
    /// Edits of the response's headers.
    pub(super) response: Edits,
    /// Copies.
    pub(super) mirrors: Vec<Mirror>,
    /// A redirect instead of backends.
    pub(super) redirect: Option<Redirect>,
    /// Edits of path and host.
    pub(super) rewrite: Rewrite,
    /// Browser rules.
    pub(super) cors: Option<Cors>,
    /// One of the filters cannot be done, and without it requests must not go on. A finding says so.
    pub(super) broken: bool,
    /// Where copies were written.
    pub(super) copying: Vec<Fields<'a>>,
    /// Where edits of the response's headers were written.
    pub(super) answering: Vec<Fields<'a>>,
}

/// Reads a list of filters.
///
/// * `prefixed`: all matches of the rule are prefixes
pub(super) fn read<'a>(
    holder: Fields<'a>,
    prefixed: bool,
    source: &Source<'_>,
    work: &mut Work<'_>,
) -> Filters<'a> {
    let mut found = Filters::default();
    let filters = holder.maps("filters");
    found.broken = holder.has("filters") && Some(filters.len()) != holder.count("filters");
    for filter in filters {
        let kind = filter.text("type");
        let done = match kind.as_ref().map(Leaf::as_str) {
            Some("RequestHeaderModifier") => {
                edits(filter, "requestHeaderModifier", &mut found.request)
            }
            Some("ResponseHeaderModifier") => {
                found.answering.push(filter);
                edits(filter, "responseHeaderModifier", &mut found.response)
            }
            Some("RequestMirror") => {
                found.copying.push(filter);
                if let Some(fields) = filter.map("requestMirror") {
                    found.mirrors.extend(mirror(fields, source, work));
                }
                Some(())
            }
            Some("RequestRedirect") => redirect(filter, &mut found),
            Some("URLRewrite") => rewrite(filter, prefixed, &mut found),
            Some("CORS") => {
                found.cors = filter.map("cors").and_then(cors::cors);
                Some(())
            }
            Some("ExternalAuth" | "ExtensionRef") => None,
            Some(_) => {
                filter.lost(
                    "type",
                    "this type is not known; what it filters is answered 500",
                );
                None
            }
            None => {
                filter.lost_here("`type` is missing; what it filters is answered 500");
                None
            }
        };
        found.broken |= done.is_none();
    }
    found
}

/// Reads edits of headers; what cannot be edited is lost, and the rest is done.
fn edits(filter: Fields<'_>, key: &str, edits: &mut Edits) -> Option<()> {
    let fields = filter.map(key)?;
    edits.at = Some(fields.at().clone());
    for (operation, pairs) in [("set", &mut edits.set), ("add", &mut edits.add)] {
        for item in fields.maps(operation) {
            header(item, pairs);
        }
    }
    for name in fields.texts("remove") {
        match legal::key::<EditableHeader>(name.as_str()) {
            Ok(()) => edits
                .remove
                .push(name.with(name.as_str().to_ascii_lowercase())),
            Err(why) => fields.lost("remove", why),
        }
    }
    Some(())
}

fn header(item: Fields<'_>, pairs: &mut Pairs<Leaf>) {
    let (name, value) = (item.text("name"), item.text("value"));
    let (Some(name), Some(value)) = (name, value) else {
        return item.lost_here("a header needs `name` and `value`, which are texts");
    };
    if let Err(why) = legal::key::<EditableHeader>(name.as_str()) {
        return item.lost("name", why);
    }
    if let Err(why) = legal::value::<HeaderText>(&value) {
        return item.lost("value", why);
    }
    let lower = name.with(name.as_str().to_ascii_lowercase());
    if !pairs.add(lower, value) {
        item.approximated_here("only the first of a name counts, as the specification says");
    }
}

fn mirror(fields: Fields<'_>, source: &Source<'_>, work: &mut Work<'_>) -> Option<Mirror> {
    let percent = fields.whole("percent", 0..=100);
    let fraction = fields.map("fraction");
    let backend = fields.map("backendRef");
    let sample = match (percent, fraction) {
        (Some(percent), None) => Some(percent.with(format!("{percent}%"))),
        (None, Some(fraction)) => Some(share(fraction)?),
        (None, None) if fields.has("percent") || fields.has("fraction") => return None,
        (None, None) => None,
        (Some(_), Some(_)) => {
            fields.lost("fraction", "`percent` and `fraction` exclude each other");
            return None;
        }
    };
    let Some(backend) = backend else {
        fields.lost_here("`backendRef` is missing");
        return None;
    };
    match backends::target(backend, source, work) {
        Ok(cluster) => Some(Mirror {
            at: Some(fields.at().clone()),
            cluster: Some(cluster),
            sample,
            ..Mirror::default()
        }),
        Err(why) => {
            backend.lost_here(format!("{why}; no copies are sent"));
            None
        }
    }
}

/// Reads a fraction as a share in steps of 0.01 %.
fn share(fraction: Fields<'_>) -> Option<Leaf> {
    let numerator = fraction.whole("numerator", 0..=i64::from(i32::MAX));
    let denominator = fraction.whole("denominator", 1..=i64::from(i32::MAX));
    if fraction.has("denominator") && denominator.is_none() {
        return None;
    }
    let Some(written) = numerator else {
        fraction.lost_here("`numerator` is missing");
        return None;
    };
    let number = written.whole()?;
    let all = denominator.map_or(Some(100), |leaf| leaf.whole())?;
    if number > all {
        fraction.lost_here("it is more than everything");
        return None;
    }
    let exact = i128::from(number) * i128::from(1_000_000 / STEP);
    let steps = (exact + i128::from(all) / 2) / i128::from(all);
    if steps * i128::from(all) != exact {
        fraction.approximated("numerator", "shares come in steps of 0.01%");
    }
    Some(written.with(format!("{}.{:02}%", steps / 100, steps % 100)))
}

/// Reads a redirect; `None`: it cannot be done.
fn redirect(filter: Fields<'_>, found: &mut Filters<'_>) -> Option<()> {
    let fields = filter.map("requestRedirect")?;
    let scheme = fields.text("scheme");
    let host = fields
        .text("hostname")
        .filter(|leaf| !leaf.as_str().is_empty());
    let port = fields.whole("port", 1..=65_535);
    let status = fields.whole("statusCode", 100..=599);
    let changed = change(fields)?;
    let wrong = |key: &str, value: &Option<Leaf>| fields.has(key) && value.is_none();
    if wrong("scheme", &scheme) || wrong("port", &port) || wrong("statusCode", &status) {
        return None;
    }
    for (key, leaf) in [
        ("scheme", &scheme),
        ("hostname", &host),
        ("statusCode", &status),
    ] {
        let Some(leaf) = leaf else { continue };
        let checked = match key {
            "scheme" => legal::value::<Scheme>(leaf),
            "hostname" => legal::value::<HostName>(leaf),
            _ => legal::value::<RedirectStatus>(leaf),
        };
        if let Err(why) = checked {
            fields.lost(key, why);
            return None;
        }
    }
    let path = match changed {
        None => None,
        Some(Change::Whole(path)) => Some(path),
        Some(Change::Prefix(_)) => return None,
    };
    if scheme.is_none() && host.is_none() && port.is_none() && path.is_none() {
        fields.lost_here("a redirect to the request's own address; the rule answers 500");
        return None;
    }
    found.redirect = Some(Redirect {
        at: Some(fields.at().clone()),
        scheme,
        host,
        port,
        path,
        status,
    });
    Some(())
}

/// Reads a rewrite; `None`: it cannot be done.
fn rewrite(filter: Fields<'_>, prefixed: bool, found: &mut Filters<'_>) -> Option<()> {
    let fields = filter.map("urlRewrite")?;
    let host = fields.text("hostname");
    if let Some(host) = &host
        && let Err(why) = legal::value::<HostName>(host)
    {
        fields.lost("hostname", why);
        return None;
    }
    if fields.has("hostname") && host.is_none() {
        return None;
    }
    let changed = change(fields)?;
    found.rewrite.at = Some(fields.at().clone());
    found.rewrite.host = host;
    match changed {
        None => {}
        Some(Change::Whole(path)) => found.rewrite.path = Some(path),
        Some(Change::Prefix(prefix)) if prefixed => found.rewrite.prefix = Some(prefix),
        Some(Change::Prefix(_)) => {
            let note = "not every match of the rule has a prefix; the rule answers 500";
            fields.lost("path", note);
            return None;
        }
    }
    Some(())
}
