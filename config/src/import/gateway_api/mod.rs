//! Gateway API: `gateway.networking.k8s.io`.
//!
//! Gateways come first: each port of theirs becomes a listener, and each of their listeners a
//! [`Place`](gateway::Place) where routes may be attached. Then routes, the oldest first, else by `namespace/name`:
//! [`attach`](attach::attach) finds their places and the hosts they get there, and each of their rules becomes one
//! native route for all places that give it the same hosts.
//!
//! Where the specification lets implementations choose:
//!
//! * A path that is a regular expression comes behind every prefix but `/`.
//! * Listeners are isolated: a request belongs to the listener with the most specific hostname, and where none of its
//!   routes takes it the answer is 404. Gateways that share a port are one.
//! * Precedence is by the intersected hostname, not by the one the route has written.
//! * A rule that cannot be translated as it was meant answers 500; without it another rule would take its requests.
//! * An expression matches whole paths and whole values.
//! * A Service that no document describes is looked up by its name, unless documents describe others of its namespace:
//!   then it does not exist.
//! * Without any Gateway among the documents a route is on every HTTP listener.

mod admission;
mod attach;
mod backends;
mod clocks;
mod cors;
mod filters;
mod gateway;
mod grants;
mod hosts;
mod kinds;
mod legal;
mod matches;
mod paths;
mod rules;

use super::{Document, Translator, Work};

use self::attach::Attached;
use self::gateway::Places;
use self::grants::Grants;

/// Group of all kinds.
const GROUP: &str = "gateway.networking.k8s.io";
/// Kind of routes for HTTP.
const HTTP: &str = "HTTPRoute";
/// Kind of routes for gRPC.
const GRPC: &str = "GRPCRoute";

/// Every kind translated here, and how.
pub(super) const TRANSLATOR: Translator = Translator {
    kinds: kinds::KINDS,
    services: |_| {},
    routes: translate,
};

fn translate(work: &mut Work<'_>) {
    let grants = Grants::read(work);
    let mut places = Places::read(work, &grants);
    let http = work.documents(GROUP, HTTP);
    let mut routes: Vec<Document<'_>> = http.chain(work.documents(GROUP, GRPC)).collect();
    routes.sort_by_cached_key(age);
    for document in &routes {
        let fields = document.fields(work.audit);
        let Some(spec) = fields.map("spec") else {
            fields.lost_here("`spec` is missing");
            continue;
        };
        match attach::attach(document, spec, &mut places, &grants) {
            Attached::At(groups) => rules::translate(document, spec, &groups, &grants, work),
            Attached::Nowhere => spec.lost("rules", "the route is attached to no listener"),
        }
    }
    places.fence(work);
}

/// Orders routes: the oldest first, those that no cluster has seen yet last, then by `namespace/name`, HTTP first.
fn age(document: &Document<'_>) -> (bool, String, String, bool) {
    let created = document.created().unwrap_or_default();
    let name = format!("{}/{}", document.namespace, document.name);
    (
        created.is_empty(),
        created.to_owned(),
        name,
        document.kind == GRPC,
    )
}
