//! Ingress with the annotations of ingress-nginx.
//!
//! What is known of nginx's ways, and kept: a host is chosen before a path, and never another one afterwards; whole
//! paths come first, then the longest path. `ImplementationSpecific` is the beginning of a string. Once an Ingress of a
//! host has `use-regex` or `rewrite-target`, all paths of that host are expressions for the beginning, in any case of
//! letters, the longest first. The oldest Ingress has a host and path that several name. A canary has no say but in
//! which requests it gets. Limits hold for a client's address, and nginx's burst is what may come early.
//!
//! What is otherwise, and meant to be: paths are compared in their canonical spelling, in which nginx's decoded
//! characters are escapes; a custom verb such as `:predict` may follow a prefix; nothing is limited unless somebody
//! says so, where nginx has 60 s between bytes and bodies of 1 MiB; buffers are none.

mod annotations;
mod backend;
mod canary;
mod collect;
mod cors;
mod kind;
mod legal;
mod mirror;
mod path;
mod policy;
mod redirect;
mod server;
mod snippet;
mod tls;
mod www;

use std::collections::HashSet;

use self::backend::{Upstream, Wishes};
use self::collect::Ingress;
use self::policy::Template;
use self::tls::Listeners;
use super::{Leaf, Translator, Work};
use crate::model::Position;

/// Every kind translated here, and how.
pub(super) const TRANSLATOR: Translator = Translator {
    kinds: &[kind::KIND],
    services: |_| {},
    routes,
};

/// What is known of all Ingresses; the lists are in their order.
struct Context<'a> {
    ingresses: Vec<Ingress<'a>>,
    templates: Vec<Template>,
    upstreams: Vec<Upstream>,
    listeners: Listeners,
    wishes: Wishes,
}

impl Context<'_> {
    /// Makes the name of the next route of an Ingress.
    fn name(&mut self, work: &Work<'_>, ingress: usize, at: &Position) -> Leaf {
        let ingress = &mut self.ingresses[ingress];
        ingress.routes += 1;
        work.name(&ingress.document, ingress.routes - 1, at)
    }
}

fn routes(work: &mut Work<'_>) {
    let ingresses = collect::ingresses(work);
    if ingresses.is_empty() {
        return;
    }
    let names = kind::KIND.fields.iter();
    let names = names.filter_map(|field| field.path.rsplit_once(".io/").map(|(_, name)| name));
    let known: HashSet<&str> = names.collect();
    let mut templates = Vec::new();
    let mut upstreams = Vec::new();
    for ingress in &ingresses {
        match ingress.canary {
            true => inherits(ingress),
            false => ingress.notes.unknown(|name| known.contains(name)),
        }
        templates.push(match ingress.canary {
            true => Template::empty(ingress.spec.at()),
            false => policy::template(work, ingress, ingress.spec.at()),
        });
        upstreams.push(match ingress.canary {
            true => Upstream::default(),
            false => Upstream::of(ingress.notes),
        });
    }
    let servers = collect::servers(&ingresses);
    let listeners = Listeners::new(work, &ingresses);
    let mut context = Context {
        ingresses,
        templates,
        upstreams,
        listeners,
        wishes: Wishes::new(),
    };
    for server in servers.values() {
        server::translate(work, server, &mut context);
    }
    www::translate(work, &servers, &mut context);
    backend::settle(
        work,
        std::mem::take(&mut context.wishes),
        &context.ingresses,
    );
    for ingress in &context.ingresses {
        for name in [
            "use-regex",
            "ssl-redirect",
            "force-ssl-redirect",
            "rewrite-target",
        ] {
            ingress.notes.accept(name);
        }
    }
}

/// Says what of a canary the main Ingress decides.
fn inherits(canary: &Ingress<'_>) {
    const NOTE: &str = "the Ingress that is not a canary decides";
    let harmless: HashSet<&str> = kind::KIND
        .fields
        .iter()
        .filter(|field| field.harmless)
        .filter_map(|field| Some(field.path.rsplit_once(".io/")?.1))
        .collect();
    for name in canary.notes.names() {
        let own = name.starts_with("canary") || name.starts_with("upstream-hash-by");
        if own || name == "load-balance" || harmless.contains(name) {
            continue;
        }
        canary.notes.approximated(name, NOTE);
    }
    for key in ["tls", "defaultBackend"] {
        canary.spec.approximated(key, NOTE);
    }
}
