//! What the life of a request asks of its route's [`filter`](crate::filter)s: once before it has a cluster, once for
//! the member of the split.

use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use forebay_config::peek::Found;
use forebay_config::split::Split;
use forebay_config::{Cluster, Route, ServerKind};
use http::{Request, Response};

use crate::answer::Refusal;
use crate::canonical::Target;
use crate::connection::Connection;
use crate::exchange::Exchange;
use crate::filter::bucket::Ticks;
use crate::filter::sticky::Place;
use crate::filter::{Asked, Dressing, Filters, cors};
use crate::headers;
use crate::model_name::{Grammar, Opened, Renaming, Served, Wanted, renaming};
use crate::snapshot::{ListenerView, MemberView, OwnTraffic, RouteView};

/// The client behind the listener's trusted proxies.
pub fn client_ip(request: &Request<()>, connection: &Connection, view: &ListenerView) -> IpAddr {
    let trusted = &view.config.trusted_proxies;
    headers::client_ip(request.headers(), connection.peer_ip(), trusted)
}

/// Takes a request through the first steps of its route: preflight, access, key, size. Returns the answer to a CORS
/// preflight.
///
/// * `client`: behind trusted proxies
///
/// # Errors
///
/// A step refuses it.
pub fn enter<'s>(
    filters: &'s Filters,
    request: &Request<()>,
    client: IpAddr,
    exchange: &mut Exchange,
    dressing: &mut Dressing<'s>,
) -> Result<Option<Response<Bytes>>, Refusal> {
    if let Some(cors) = &filters.cors {
        if cors::requested_method(request).is_some()
            && let Some(answer) = filters.preflight(request.headers())
        {
            exchange.responded(answer.status().as_u16());
            return Ok(Some(answer));
        }
        dressing.cors = Some((cors, cors.allowed(request.headers())));
    }
    exchange.passed.caller = filters.enter(client, request.headers())?;
    Ok(None)
}

/// Takes what the route's limits ask of a request that is in.
///
/// # Errors
///
/// A limit is exceeded.
pub fn admit(
    filters: &Filters,
    request: &Request<()>,
    client: IpAddr,
    fields: &Found,
    exchange: &mut Exchange,
) -> Result<(), Refusal> {
    let caller = exchange.passed.caller.as_ref();
    let permits = filters.admit(&Asked {
        headers: request.headers(),
        client,
        identity: caller.map(|caller| &*caller.name),
        fields,
        now: Ticks::at(exchange.flow().start.into_std()),
    })?;
    exchange.passed.permits = permits;
    Ok(())
}

/// Who answers a request on a route with `by_model`.
pub enum Chosen<'s> {
    /// The cluster that serves the model.
    Member(&'s MemberView, Wanted),
    /// The configuration itself: the request asks which models there are.
    Listing(Response<Bytes>),
}

/// The cluster that serves the model that a request asks for, or the list of all models if it asks for that.
///
/// * `own`: where the route counts what reaches no cluster
/// * `path`: as the servers see it
///
/// # Errors
///
/// `unknown_model`, or what is wrong with the body.
pub async fn by_model<'s>(
    models: &'s Served,
    own: &Rc<OwnTraffic>,
    opened: &mut Opened,
    request: &Request<()>,
    path: &str,
    config: &Route,
    exchange: &mut Exchange,
) -> Result<Chosen<'s>, Refusal> {
    if let Some(answer) = models.listing(request.method(), path) {
        exchange.belong(own);
        return Ok(Chosen::Listing(answer));
    }
    let grammar = models.grammar();
    let wanted = opened.model(grammar, request, path, config, exchange).await;
    let chosen = wanted.and_then(|wanted| Ok(Chosen::Member(models.member(&wanted)?, wanted)));
    if chosen.is_err() {
        exchange.belong(own);
        exchange.server = models.server();
    }
    chosen
}

/// The model that a request names in its path, if one of the routes on its listener asks for a model.
pub fn model_in_path(
    view: &ListenerView,
    request: &Request<()>,
    target: &Target<'_>,
    opened: &Opened,
) -> Option<String> {
    opened.in_head(view.asks, request, &target.path).ok()?.name
}

/// True when a cluster that gets a request, or a copy of it, may have to be told another name of the model.
pub fn may_rename(route: &RouteView, cluster: &Cluster) -> bool {
    renaming::has_aliases(cluster)
        || route
            .mirrors
            .as_ref()
            .is_some_and(|mirrors| mirrors.clusters().any(renaming::has_aliases))
}

/// What clusters have to be told in place of the name of the model; `None`: nothing.
///
/// * `asked`: what the request calls it, when that is known already
/// * `path`: as the servers see it
///
/// # Errors
///
/// What is wrong with the body, or an alias that cannot be replaced.
pub async fn renaming(
    asked: Option<Wanted>,
    route: &RouteView,
    cluster: &Cluster,
    opened: &mut Opened,
    request: &Request<()>,
    path: &str,
    exchange: &mut Exchange,
) -> Result<Option<Renaming>, Refusal> {
    let asked = match asked {
        Some(asked) => asked,
        None => {
            let grammar = Grammar::of(cluster.server);
            opened
                .model(grammar, request, path, &route.config, exchange)
                .await?
        }
    };
    let mirrors = route.mirrors.iter();
    let others = mirrors.flat_map(|mirrors| mirrors.clusters());
    Renaming::new(asked, cluster, others, path, request.uri().query())
}

/// What speaks behind a route, for the shape of our own answers.
pub fn server(route: &RouteView) -> Option<ServerKind> {
    if let Some(models) = &route.models {
        return models.server();
    }
    let mut members = route.split.as_ref()?.members();
    members
        .next()
        .map(|(member, _)| member.cluster.config.server)
}

/// The member of the split that serves a request: the one its key belongs to, else one by chance.
pub fn member<'s>(
    route: &RouteView,
    split: &'s Split<MemberView>,
    request: &Request<()>,
    fields: &Found,
    connection: &Connection,
    view: &ListenerView,
    dressing: &mut Dressing<'_>,
) -> &'s MemberView {
    let worker = &connection.worker;
    let Some(sticky) = route.filters.as_ref().and_then(|f| f.sticky.as_ref()) else {
        return split.pick(worker.roll());
    };
    let client = client_ip(request, connection, view);
    let random = || worker.rng(|rng| rng.u128(..));
    let key = match sticky.place(
        client,
        request.headers(),
        connection.tls.is_some(),
        fields,
        random,
    ) {
        Place::Random => return split.pick(worker.roll()),
        Place::Keyed(key) => key,
        Place::Issued(key, cookie) => {
            dressing.cookie = Some(cookie);
            key
        }
    };
    let index = sticky.choose(key, split.members().map(|(_, weight)| weight));
    let mut members = split.members();
    members
        .nth(index)
        .map_or_else(|| split.pick(worker.roll()), |(member, _)| member)
}
