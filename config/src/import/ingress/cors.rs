//! `enable-cors` and its companions.

use http::{HeaderName, Method};

use super::annotations::Annotations;
use super::legal;
use crate::import::Leaf;
use crate::import::native::Cors;
use crate::schema::OriginText;

const COMPANIONS: &[&str] = &[
    "cors-allow-origin",
    "cors-allow-methods",
    "cors-allow-headers",
    "cors-expose-headers",
    "cors-allow-credentials",
    "cors-max-age",
];

/// What ingress-nginx allows unless something else is said.
const METHODS: &str = "GET, PUT, POST, DELETE, PATCH, OPTIONS";
const HEADERS: &str = "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,\
                       Range,Authorization";
const MAX_AGE: i64 = 1_728_000;

/// Translates the browser rules of an Ingress.
pub(super) fn cors(notes: Annotations<'_>) -> Option<Cors> {
    let on = notes.flag("enable-cors").unwrap_or_default();
    if !on {
        COMPANIONS.iter().for_each(|name| notes.accept(name));
        return None;
    }
    let at = notes.place("enable-cors")?;
    let list = |name: &str, usual: &str, legal: &dyn Fn(&Leaf) -> bool| {
        let mut items = notes.list(name);
        if items.is_empty() {
            let usual = usual.split(',').map(str::trim);
            items = usual
                .filter(|item| !item.is_empty())
                .map(|item| Leaf::text(at, item))
                .collect();
        }
        items.retain(|item| {
            let good = item.as_str() == "*" || legal(item);
            if !good {
                notes.lost(name, format!("`{item}` has no counterpart"));
            }
            good
        });
        items
    };
    let origins = alone(list("cors-allow-origin", "*", &legal::is::<OriginText>));
    if origins.is_empty() {
        notes.lost("enable-cors", "no origin is left");
        return None;
    }
    let methods = alone(list("cors-allow-methods", METHODS, &legal::is::<Method>));
    let headers = alone(list(
        "cors-allow-headers",
        HEADERS,
        &legal::is::<HeaderName>,
    ));
    let expose = list("cors-expose-headers", "", &legal::is::<HeaderName>);
    let any = origins.iter().any(|origin| origin.as_str() == "*");
    let wanted = notes.flag("cors-allow-credentials").unwrap_or(true);
    if wanted && any && notes.has("cors-allow-credentials") {
        let note = "browsers refuse credentials for the origin `*`, and so does this";
        notes.approximated("cors-allow-credentials", note);
    }
    let max_age = notes.number("cors-max-age", 0..=31_536_000);
    let seconds = max_age.as_ref().and_then(Leaf::whole).unwrap_or(MAX_AGE);
    let place = max_age.as_ref().map_or(at, Leaf::at);
    Some(Cors {
        at: Some(at.clone()),
        origins: Some(origins),
        methods: Some(methods),
        headers: Some(headers),
        expose: (!expose.is_empty()).then_some(expose),
        credentials: (wanted && !any).then(|| Leaf::flag(at, true)),
        max_age: Some(Leaf::text(place, format!("{seconds}s"))),
    })
}

/// `*` stands for everything else.
fn alone(items: Vec<Leaf>) -> Vec<Leaf> {
    match items.iter().find(|item| item.as_str() == "*") {
        Some(star) => vec![star.clone()],
        None => items,
    }
}
