//! What the life of a request asks of its route's [`filter`](crate::filter)s: once before it has a cluster, once for
//! the member of the split.

use std::net::IpAddr;

use bytes::Bytes;
use forebay_config::ServerKind;
use forebay_config::peek::Found;
use forebay_config::split::Split;
use http::{Request, Response};

use crate::answer::Refusal;
use crate::canonical::Target;
use crate::connection::Connection;
use crate::exchange::Exchange;
use crate::filter::bucket::Ticks;
use crate::filter::sticky::Place;
use crate::filter::{Asked, Dressing, Filters, cors};
use crate::headers;
use crate::model_name::Opened;
use crate::snapshot::{ListenerView, MemberView, RouteView};

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

/// The model that a request names in its path, if one of the routes on its listener asks for a model.
pub fn model_in_path(
    view: &ListenerView,
    request: &Request<()>,
    target: &Target<'_>,
    opened: &Opened,
) -> Option<String> {
    opened.in_head(view.asks, request, &target.path).ok()?.name
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
