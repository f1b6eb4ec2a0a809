//! The CORS filter.

use http::{HeaderName, Method};

use super::legal;
use crate::import::native::Cors;
use crate::import::{Fields, Leaf};
use crate::schema::{OriginText, Shape};

/// Methods that browsers send without asking.
const SIMPLE: &[&str] = &["GET", "HEAD", "POST"];

/// Reads the filter; `None`: no site is left that may do anything.
pub(super) fn cors(filter: Fields<'_>) -> Option<Cors> {
    let origins = list::<OriginText>(filter, "allowOrigins");
    let methods = list::<Method>(filter, "allowMethods");
    let headers = list::<HeaderName>(filter, "allowHeaders");
    let expose = list::<HeaderName>(filter, "exposeHeaders");
    let credentials = filter.flag("allowCredentials");
    let age = filter.whole("maxAge", 1..=31_536_000);
    let at = filter.at();
    if origins.is_empty() {
        filter.approximated_here("without origins the proxy leaves CORS to the backend");
        return None;
    }
    let simple = || SIMPLE.iter().map(|word| Leaf::text(at, *word)).collect();
    let age = age.map_or_else(
        || Leaf::text(at, "5s"),
        |age| age.with(format!("{}s", age.as_str())),
    );
    Some(Cors {
        at: Some(at.clone()),
        origins: Some(origins),
        methods: Some(match methods.is_empty() {
            true => simple(),
            false => methods,
        }),
        headers: Some(headers),
        expose: Some(expose),
        credentials: credentials.map(|flag| Leaf::flag(filter.place("allowCredentials"), flag)),
        max_age: Some(age),
    })
}

/// Reads a list; `*` is all of it, and what is not legal is lost.
fn list<S: Shape>(filter: Fields<'_>, key: &str) -> Vec<Leaf> {
    let written = filter.texts(key);
    if let Some(star) = written.iter().find(|leaf| leaf.as_str() == "*") {
        return vec![star.clone()];
    }
    let mut found = Vec::new();
    for leaf in written {
        match legal::value::<S>(&leaf) {
            Ok(()) => found.push(leaf),
            Err(why) => filter.lost(key, why),
        }
    }
    found
}
