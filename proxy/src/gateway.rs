//! The life of a request, told once, top to bottom. Read this first.

use std::borrow::Cow;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_config::route::{CompiledMatch, Lookup, RequestHead};
use forebay_config::{Balance, HashKey, rewrite};
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, TE, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::answer::{self, Refusal};
use crate::body::{Body, RequestBody};
use crate::canonical::{self, Target};
use crate::cluster::{Choice, Endpoint};
use crate::connection::Connection;
use crate::error::{Cut, Reason};
use crate::exchange::{Exchange, LogEntry};
use crate::flow::Flow;
use crate::headers::{self, Origin, Survey};
use crate::snapshot::{ListenerView, MemberView, RouteView, WorkerSnapshot};
use crate::tunnel::Tunnel;
use crate::upstream::Lease;
use crate::worker::Stage;

/// Attempts of one request, the first included, while no byte of it was written.
const ATTEMPTS: usize = 3;

/// Serves the requests of one connection.
pub struct Gateway {
    connection: Rc<Connection>,
}

/// What came of a request.
enum Outcome {
    /// An endpoint answered.
    Upstream(http::response::Parts, Incoming, Lease),
    /// The route itself answers.
    Own(Response<Bytes>),
    /// The endpoint switched protocols.
    Tunnel(http::response::Parts),
}

impl Gateway {
    /// The gateway of a connection.
    pub fn new(connection: &Rc<Connection>) -> Self {
        Self {
            connection: Rc::clone(connection),
        }
    }

    /// What hyper calls for each request.
    pub fn service(
        self,
    ) -> impl hyper::service::Service<
        Request<Incoming>,
        Response = Response<Body>,
        Error = Cut,
        Future = impl Future<Output = Result<Response<Body>, Cut>> + 'static,
    > + Unpin
    + 'static {
        hyper::service::service_fn(move |request| {
            let flow = self.connection.request_began();
            answer(Rc::clone(&self.connection), flow, request)
        })
    }
}

/// Answers a request, whatever happens to it.
async fn answer(
    connection: Rc<Connection>,
    flow: Rc<Flow>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Cut> {
    let snapshot = connection.worker.snapshot();
    let log = snapshot
        .shared
        .log
        .as_ref()
        .map(|log| LogEntry::new(log, &request, &connection, snapshot.shared.generation));
    let mut exchange = Exchange::new(&connection, flow, log);
    let survey = Survey::of(request.headers());
    let manners = answer::Manners::of(&request, &survey);
    let http10 = request.version() == Version::HTTP_10;
    let outcome = {
        let mut life = std::pin::pin!(forward(
            &connection,
            &snapshot,
            &mut exchange,
            request,
            survey
        ));
        std::future::poll_fn(|cx| isolated(life.as_mut(), cx)).await
    };
    let mut response = match outcome {
        Some(Ok(outcome)) => finish(&connection, exchange, outcome),
        Some(Err(refusal)) => refuse(exchange, &manners, &refusal)?,
        None => {
            connection.worker.shared.metrics.panicked();
            refuse(exchange, &manners, &Reason::Internal.into())?
        }
    };
    if !connection.http2 {
        if connection.stage() >= Stage::Announcing
            && response.status() != StatusCode::SWITCHING_PROTOCOLS
        {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        connection.set_close_delimited(http10 && !response.headers().contains_key(CONTENT_LENGTH));
    }
    Ok(response)
}

/// Polls a request so that a panic in it reaches no other. `None`: it panicked.
fn isolated<F: Future>(future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
    match std::panic::catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
        Ok(polled) => polled.map(Some),
        Err(_) => Poll::Ready(None),
    }
}

fn finish(connection: &Connection, mut exchange: Exchange, outcome: Outcome) -> Response<Body> {
    match outcome {
        Outcome::Upstream(head, incoming, lease) => {
            exchange.answered(head.status.as_u16());
            if let Some(log) = &mut exchange.log {
                log.answer(&head.headers);
            }
            Response::from_parts(head, Body::upstream(incoming, lease, exchange))
        }
        Outcome::Own(response) => {
            exchange.responded(response.status().as_u16());
            response.map(|bytes| Body::own(bytes, exchange))
        }
        Outcome::Tunnel(head) => {
            exchange.answered(head.status.as_u16());
            connection.tunnel_counts(exchange);
            Response::from_parts(head, Body::none())
        }
    }
}

fn refuse(
    mut exchange: Exchange,
    manners: &answer::Manners,
    refusal: &Refusal,
) -> Result<Response<Body>, Cut> {
    exchange.refused(refusal.reason);
    if refusal.reason == Reason::ClientClosed {
        return Err(Cut(refusal.reason));
    }
    Ok(answer::refusal(refusal, manners).map(|bytes| Body::own(bytes, exchange)))
}

/// A request on its way: canonical, matched, allowed, sent, answered.
async fn forward(
    connection: &Rc<Connection>,
    snapshot: &WorkerSnapshot,
    exchange: &mut Exchange,
    request: Request<Incoming>,
    survey: Survey,
) -> Result<Outcome, Refusal> {
    let view = connection.view(snapshot).ok_or(Reason::Draining)?;
    if connection.worker.shared.overloaded.load(Ordering::Relaxed) {
        return Err(Reason::Overloaded.into());
    }
    canonical::check_framing(&request, &survey, &view.config.limits)?;
    let target = canonical::target(&request, connection, view.config.path)?;
    if target.path == "*" {
        return Ok(Outcome::Own(answer::options_of_the_server()));
    }
    let (route, matched) = find(view, &request, &target)?;
    let config = &route.config;
    if let Some(log) = &mut exchange.log {
        log.route.clone_from(&config.name);
        log.client = headers::client_ip(
            request.headers(),
            connection.peer_ip(),
            &view.config.trusted_proxies,
        );
    }
    let Some(split) = &route.split else {
        exchange.admit(snapshot.traffic(route.cell));
        return Ok(Outcome::Own(answer::by_route(config, connection, &target)?));
    };
    let member = split.pick(connection.worker.roll());
    exchange.admit(snapshot.traffic(member.cell));
    if let Some(log) = &mut exchange.log {
        log.cluster.clone_from(&member.cluster.config.name);
    }
    if survey.content_length
        && config
            .body_max
            .is_some_and(|max| declared_length(request.headers()) > max)
    {
        return Err(Reason::BodyTooLarge.into());
    }
    exchange.flow().bind(
        &config.timeouts,
        connection.limits.write_stall.filter(|_| connection.http2),
    );
    let upgrade = if survey.upgrade {
        headers::requested_upgrade(request.headers(), request.version())
    } else {
        None
    };
    let http2 = upgrade.is_none()
        && member
            .cluster
            .wants_http2(survey.content_type && is_grpc(request.headers()));
    let key = hash_key(&member.cluster.config.balance, &request, connection, view);
    let path = match &config.rewrite.path {
        None => target.path,
        Some(rewrite) => {
            let path = rewrite::rewritten_path(rewrite, matched, &target.path, view.config.path)
                .map_err(|_| Reason::BadPath)?;
            Cow::Owned(path.into_owned())
        }
    };
    let uri = new_uri(&request, path, http2, || {
        authority(config, &target.authority, member)
    })?;
    let trusted = view
        .config
        .trusted_proxies
        .iter()
        .any(|net| net.contains(&connection.peer_ip()));
    let host = target.authority;
    let host_moved = request.uri().authority().is_some();
    let version = request.version();
    let (mut head, incoming) = request.into_parts();
    headers::prepare_request(
        &mut head.headers,
        &survey,
        &Origin {
            peer: &connection.peer_value,
            trusted,
            tls: connection.tls.is_some(),
            host: &host,
        },
    );
    identify(&mut head.headers, &survey, connection, trusted, exchange);
    headers::edit(&mut head.headers, &config.request_headers);
    headers::edit(&mut head.headers, &member.request_headers);
    address(&mut head.headers, config, host_moved.then_some(host), http2);
    if survey.hop_by_hop && !http2 && head.headers.contains_key(TE) {
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if let Some(upgrade) = &upgrade {
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, upgrade.clone());
    }
    head.uri = uri;
    head.version = if http2 {
        Version::HTTP_2
    } else {
        Version::HTTP_11
    };
    head.extensions.clear();
    let flow = Rc::clone(exchange.flow());
    let body = RequestBody::new(
        incoming,
        Rc::clone(&flow),
        config.body_max,
        version == Version::HTTP_2,
    );
    let request = Request::from_parts(head, body);

    let sent = Sending {
        connection,
        member,
        key: key.as_deref(),
        http2,
        upgrade: upgrade.is_some(),
    };
    let (mut response, lease, switched) = sent.run(request, &flow, exchange).await?;
    flow.head_came();

    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let new_protocol = response
        .headers()
        .get(UPGRADE)
        .cloned()
        .filter(|_| switching);
    if switching && (upgrade.is_none() || new_protocol.is_none()) {
        return Err(Reason::UpstreamProtocol.into());
    }
    *response.version_mut() = if connection.http2 {
        Version::HTTP_2
    } else {
        Version::HTTP_11
    };
    headers::prepare_response(response.headers_mut());
    headers::edit(response.headers_mut(), &config.response_headers);
    headers::edit(response.headers_mut(), &member.response_headers);
    let (mut head, incoming) = response.into_parts();
    head.extensions.clear();
    match (new_protocol, switched) {
        (Some(protocol), Some(switched)) => {
            head.headers
                .insert(CONNECTION, HeaderValue::from_static("upgrade"));
            head.headers.insert(UPGRADE, protocol);
            connection.switch_to(Tunnel::new(
                switched,
                lease.into_in_flight(),
                config.timeouts.tunnel,
            ));
            Ok(Outcome::Tunnel(head))
        }
        _ => Ok(Outcome::Upstream(head, incoming, lease)),
    }
}

/// The only look at the configuration.
fn find<'v>(
    view: &'v ListenerView,
    request: &Request<Incoming>,
    target: &Target<'_>,
) -> Result<(&'v Arc<RouteView>, &'v CompiledMatch), Refusal> {
    let head = RequestHead {
        host: &target.host,
        path: &target.path,
        query: request.uri().query(),
        method: request.method(),
        headers: request.headers(),
    };
    match view.table.find(&head) {
        Lookup::Found { route, matched } => Ok((&view.routes[route], matched)),
        Lookup::MethodNotAllowed { allow } => Err(Refusal::method_not_allowed(&allow)),
        Lookup::NotFound => Err(Reason::NoRoute.into()),
    }
}

/// A request that goes to an endpoint, and to another one while nothing of it was written.
struct Sending<'a> {
    connection: &'a Connection,
    member: &'a MemberView,
    key: Option<&'a [u8]>,
    http2: bool,
    upgrade: bool,
}

type Switched = tokio::sync::oneshot::Receiver<crate::upstream::Switched>;

impl Sending<'_> {
    async fn run(
        &self,
        mut request: Request<RequestBody>,
        flow: &Flow,
        exchange: &mut Exchange,
    ) -> Result<(Response<Incoming>, Lease, Option<Switched>), Refusal> {
        let cluster = &self.member.cluster;
        let connector = &cluster.connector;
        let worker = &self.connection.worker;
        let wary = !request.method().is_idempotent();
        let mut tried: Vec<u64> = Vec::new();
        let mut last = Reason::NoEndpoint;
        for attempt in 1..=ATTEMPTS {
            let Some(endpoint) = self.choose(&tried) else {
                break;
            };
            if attempt > 1 {
                exchange.retry(last);
            }
            if let Some(log) = &mut exchange.log {
                log.endpoint = Some(Arc::clone(&endpoint.label));
                log.attempts = attempt as u32;
            }
            if cluster
                .config
                .breaker
                .requests
                .is_some_and(|most| cluster.state.requests() >= most)
            {
                return Err(Reason::BreakerOpen.into());
            }
            let now = exchange.leave();
            let pool = worker
                .pools
                .of(&endpoint, connector, &cluster.config.keepalive);
            let taken = flow
                .unless_failed(pool.checkout(connector, self.http2, wary, now))
                .await?;
            let (connection, reused) = match taken {
                Ok(taken) => taken,
                Err(error) => {
                    tracing::debug!(endpoint = %endpoint.label, ?error, "no connection");
                    last = error.reason();
                    tried.push(endpoint.id);
                    continue;
                }
            };
            let mut lease = Lease::new(connection, pool);
            let switched = if self.upgrade {
                lease.on_switch()
            } else {
                None
            };
            flow.dispatch(
                if reused { now } else { Instant::now() },
                request.body().is_empty(),
            );
            match flow.unless_failed(lease.send(request)).await? {
                Ok(response) => return Ok((response, lease, switched)),
                Err(failed) => {
                    last = flow.failure().unwrap_or(failed.reason);
                    let Some(unsent) = failed.request else { break };
                    request = *unsent;
                    if !reused {
                        tried.push(endpoint.id);
                    }
                }
            }
        }
        Err(last.into())
    }

    fn choose(&self, tried: &[u64]) -> Option<Arc<Endpoint>> {
        let cluster = &self.member.cluster;
        let set = cluster.state.endpoints();
        let roll = if set.endpoints.len() > 1 {
            self.connection.worker.roll()
        } else {
            0
        };
        let choice = Choice {
            balance: &cluster.config.balance,
            key: self.key,
            roll,
            tried,
        };
        cluster.state.choose(&set, &choice)
    }
}

fn declared_length(headers: &HeaderMap) -> u64 {
    headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .unwrap_or(0)
}

/// True for gRPC in any of its encodings.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// What a consistent hash looks at in this request.
fn hash_key(
    balance: &Balance,
    request: &Request<Incoming>,
    connection: &Connection,
    view: &ListenerView,
) -> Option<Vec<u8>> {
    let Balance::Hash(key) = balance else {
        return None;
    };
    match key {
        HashKey::Header(name) => request
            .headers()
            .get(name)
            .map(|value| value.as_bytes().to_vec()),
        HashKey::Cookie(name) => {
            cookie(request.headers(), name).map(|value| value.as_bytes().to_vec())
        }
        HashKey::ClientIp => {
            let ip = headers::client_ip(
                request.headers(),
                connection.peer_ip(),
                &view.config.trusted_proxies,
            );
            Some(match ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            })
        }
    }
}

fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let pairs = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs
        .into_iter()
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// The target as the endpoint sees it: canonical path, the query as it was sent.
fn new_uri(
    request: &Request<Incoming>,
    path: Cow<'_, str>,
    http2: bool,
    authority: impl FnOnce() -> Result<(Scheme, Authority), Reason>,
) -> Result<Uri, Reason> {
    let old = request.uri();
    if !http2 && old.authority().is_none() && path == old.path() {
        return Ok(old.clone());
    }
    let path_and_query = match old.query() {
        None if path == old.path() => old.path_and_query().cloned().ok_or(Reason::BadPath)?,
        None => PathAndQuery::try_from(path.as_ref()).map_err(|_| Reason::BadPath)?,
        Some(query) => {
            PathAndQuery::try_from(format!("{path}?{query}")).map_err(|_| Reason::BadPath)?
        }
    };
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(path_and_query);
    if http2 {
        let (scheme, authority) = authority()?;
        parts.scheme = Some(scheme);
        parts.authority = Some(authority);
    }
    Uri::from_parts(parts).map_err(|_| Reason::BadPath)
}

fn authority(
    config: &forebay_config::Route,
    host: &HeaderValue,
    member: &MemberView,
) -> Result<(Scheme, Authority), Reason> {
    let host = config.rewrite.host.as_ref().unwrap_or(host);
    let authority = Authority::try_from(host.as_bytes()).map_err(|_| Reason::BadHost)?;
    let scheme = if member.cluster.connector.tls.is_some() {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    };
    Ok((scheme, authority))
}

/// `Host` for HTTP/1.1; HTTP/2 carries it in the target. `moved`: the client named it in its target.
fn address(
    headers: &mut HeaderMap,
    config: &forebay_config::Route,
    moved: Option<HeaderValue>,
    http2: bool,
) {
    if http2 {
        headers.remove(HOST);
    } else if let Some(host) = config.rewrite.host.clone().or(moved) {
        headers.insert(HOST, host);
    }
}

/// Request id and trace: continued from whom we trust, begun otherwise.
fn identify(
    headers: &mut HeaderMap,
    survey: &Survey,
    connection: &Connection,
    trusted: bool,
    exchange: &mut Exchange,
) {
    let trace = connection.worker.rng(|rng| {
        if !(trusted && survey.request_id) {
            headers.insert(&headers::X_REQUEST_ID, headers::new_request_id(rng));
        }
        let old = if survey.traceparent {
            headers.get(&headers::TRACEPARENT)
        } else {
            None
        };
        headers::traceparent(old, rng)
    });
    if let Some(log) = &mut exchange.log {
        log.request_id = headers.get(&headers::X_REQUEST_ID).cloned();
        log.trace_id = trace.to_str().ok().map(|text| text[3..35].to_owned());
    }
    headers.insert(&headers::TRACEPARENT, trace);
}

/// True for methods that a rule of ours refuses before any route is asked.
pub fn is_refused_method(method: &Method) -> bool {
    method == Method::CONNECT || method == Method::TRACE
}
