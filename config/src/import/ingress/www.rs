//! `from-to-www-redirect`: the other of `x` and `www.x` is sent to the host.

use std::collections::BTreeMap;

use super::Context;
use super::collect::Server;
use crate::import::native::{Action, Match, Order, Redirect, Route};
use crate::import::{Leaf, Work};

const NAME: &str = "from-to-www-redirect";

/// Adds the redirects of all hosts.
pub(super) fn translate(
    work: &mut Work<'_>,
    servers: &BTreeMap<String, Server<'_>>,
    context: &mut Context<'_>,
) {
    for server in servers.values() {
        let mut owners = server.locations.iter().map(|location| location.ingress);
        let owner = owners.find(|owner| {
            let notes = context.ingresses[*owner].notes;
            notes.flag(NAME).unwrap_or_default()
        });
        let Some(owner) = owner else { continue };
        let notes = context.ingresses[owner].notes;
        let other = match server.host.strip_prefix("www.") {
            Some(bare) => bare.to_owned(),
            None => format!("www.{}", server.host),
        };
        if server.host.is_empty() || server.host.starts_with('*') {
            notes.lost(NAME, "the host is no name");
            continue;
        }
        let alias = |one: &Server<'_>| one.aliases.iter().any(|name| name.as_str() == other);
        if servers.contains_key(&other) || servers.values().any(alias) {
            notes.approximated(NAME, format!("an Ingress has the host `{other}`"));
            continue;
        }
        let at = notes.place(NAME).unwrap_or(&server.at);
        let redirect = Redirect {
            host: Some(Leaf::text(at, server.host.as_str())),
            status: Some(Leaf::number(at, 308)),
            ..Redirect::default()
        };
        let name = context.name(work, owner, at);
        let mut route = Route::new(at, name, Action::Redirect(Box::new(redirect)));
        route.order = Order::FirstMatch;
        route.matches.push(Match {
            hosts: vec![Leaf::text(at, other)],
            ..Match::default()
        });
        work.output.routes.push(route);
    }
}
