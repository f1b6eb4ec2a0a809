//! The life of a request, told once, top to bottom. Read this first.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_config::peek::Found;
use forebay_config::rewrite;
use forebay_config::route::{CompiledMatch, Lookup, RequestHead};
use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;

use crate::answer::{self, Refusal};
use crate::body::{Body, Manner};
use crate::canonical::{self, Target};
use crate::connection::Connection;
use crate::error::{Cut, Reason};
use crate::exchange::{Exchange, LogEntry};
use crate::filter::{Dressing, cors};
use crate::flow::Flow;
use crate::headers::{self, Origin, Survey, X_REQUEST_ID};
use crate::mirror::Sampled;
use crate::outgoing::{self, is_grpc};
use crate::replace::{self, Applies};
use crate::retry::Allowance;
use crate::screen;
use crate::sending::{Sending, Switched};
use crate::snapshot::{ListenerView, MemberView, RouteView, WorkerSnapshot};
use crate::tunnel::Tunnel;
use crate::upload::{Ahead, Client, RequestBody, Upload};
use crate::upstream::Lease;
use crate::worker::Stage;

/// Serves the requests of one connection.
pub struct Gateway {
    connection: Rc<Connection>,
}

/// What came of a request.
enum Outcome {
    /// An endpoint answered.
    Upstream(
        http::response::Parts,
        Incoming,
        Lease,
        Option<Box<replace::Stream>>,
    ),
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
    let head_only = request.method() == Method::HEAD;
    let mut dressing = Dressing::default();
    let (head, incoming) = request.into_parts();
    let outcome = {
        let mut life = std::pin::pin!(forward(
            &connection,
            &snapshot,
            &mut exchange,
            &mut dressing,
            Request::from_parts(head, ()),
            Client::new(incoming, connection.http2),
            survey
        ));
        std::future::poll_fn(|cx| isolated(life.as_mut(), cx)).await
    };
    let last = matches!(&outcome, Some(Err(refusal)) if refusal.reason.ends_connection());
    let mut response = match outcome {
        Some(Ok(outcome)) => finish(&connection, exchange, head_only, outcome),
        Some(Err(refusal)) => refuse(exchange, head_only, &manners, &refusal)?,
        None => {
            connection.worker.shared.metrics.panicked();
            refuse(exchange, head_only, &manners, &Reason::Internal.into())?
        }
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        dressing.put_on(response.headers_mut());
    }
    if !connection.http2 {
        if (last || connection.stage() >= Stage::Announcing)
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

fn finish(
    connection: &Connection,
    mut exchange: Exchange,
    head_only: bool,
    outcome: Outcome,
) -> Response<Body> {
    match outcome {
        Outcome::Upstream(head, incoming, lease, edit) => {
            exchange.answered(head.status.as_u16());
            if let Some(log) = &mut exchange.log {
                log.answer(&head.headers);
            }
            let bodiless = head_only || has_no_body(head.status);
            let manner = Manner {
                bodiless,
                small: connection.http2,
                edit,
            };
            Response::from_parts(head, Body::upstream(incoming, lease, exchange, manner))
        }
        Outcome::Own(response) => {
            exchange.responded(response.status().as_u16());
            own(response, head_only, exchange)
        }
        Outcome::Tunnel(head) => {
            exchange.answered(head.status.as_u16());
            connection.tunnel_counts(exchange);
            Response::from_parts(head, Body::none())
        }
    }
}

/// True for statuses whose answers have no body (RFC 9110 §6.4.1).
fn has_no_body(status: StatusCode) -> bool {
    status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

/// An answer of our own; `head_only`: to HEAD, whose body nobody reads.
fn own(mut response: Response<Bytes>, head_only: bool, exchange: Exchange) -> Response<Body> {
    if has_no_body(response.status()) {
        response.body_mut().clear();
    }
    if head_only && !response.body().is_empty() {
        let length = HeaderValue::from(response.body().len());
        response.headers_mut().insert(CONTENT_LENGTH, length);
        response.body_mut().clear();
    }
    response.map(|bytes| Body::own(bytes, exchange))
}

fn refuse(
    mut exchange: Exchange,
    head_only: bool,
    manners: &answer::Manners,
    refusal: &Refusal,
) -> Result<Response<Body>, Cut> {
    if refusal.reason == Reason::ClientClosed {
        exchange.flow().fail(refusal.reason);
        return Err(Cut(refusal.reason)); // counted as aborted
    }
    exchange.refused(refusal.reason);
    let manners = manners.for_server(exchange.server);
    Ok(own(answer::refusal(refusal, &manners), head_only, exchange))
}

/// A request on its way: canonical, matched, allowed, sent, answered.
async fn forward<'s>(
    connection: &Rc<Connection>,
    snapshot: &'s WorkerSnapshot,
    exchange: &mut Exchange,
    dressing: &mut Dressing<'s>,
    request: Request<()>,
    mut client: Client,
    survey: Survey,
) -> Result<Outcome, Refusal> {
    let head_only = request.method() == Method::HEAD;
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
        log.canonical(&target);
        log.route.clone_from(&config.name);
        log.client = screen::client_ip(&request, connection, view);
    }
    let (mut peeked, mut fields) = (None, Found::default());
    if let Some(filters) = &route.filters {
        let mut screened = screen::enter(filters, &request, connection, view, exchange, dressing);
        if let (Ok(None), Some(places)) = (&screened, filters.fields()) {
            match screen::peek(places, &mut client, config, exchange).await {
                Ok(found) => (peeked, fields) = found,
                Err(reason) => screened = Err(reason.into()),
            }
        }
        if matches!(screened, Ok(None)) {
            let admitted = screen::admit(filters, &request, &fields, connection, view, exchange);
            screened = admitted.map(|()| None);
        }
        if !matches!(screened, Ok(None)) {
            exchange.belong(snapshot.traffic(route.cell));
            exchange.server = screen::server(route);
        }
        if let Some(answer) = screened? {
            return Ok(Outcome::Own(answer));
        }
    }
    let Some(split) = &route.split else {
        exchange.admit(snapshot.traffic(route.cell));
        return Ok(Outcome::Own(answer::by_route(config, connection, &target)?));
    };
    let member = screen::member(route, split, &request, &fields, connection, view, dressing);
    exchange.admit(snapshot.traffic(member.cell));
    exchange.server = Some(member.cluster.config.server);
    if let Some(log) = &mut exchange.log {
        log.cluster.clone_from(&member.cluster.config.name);
    }
    if survey.content_length
        && config
            .body_max
            .is_some_and(|max| outgoing::declared_length(request.headers()) > max)
    {
        return Err(Reason::BodyTooLarge.into());
    }
    exchange.flow().bind(&config.timeouts);
    let allowance = Allowance::new(config.retry.as_ref(), request.method(), request.headers());
    let way = Way {
        connection,
        view,
        route,
        matched,
        member,
        allowance,
    };
    let mut plan = way.plan(&request, target, &survey, client.is_over())?;
    let (request, copies) = way.depart(request, (client, peeked), &mut plan, &survey, exchange);
    let flow = Rc::clone(exchange.flow());
    let sent = Sending {
        connection,
        member,
        key: plan.key.as_deref(),
        http2: plan.http2,
        upgrade: plan.upgrade.is_some(),
        allowance,
        copies,
    };
    let (response, lease, switched) = sent.run(request, &flow, exchange).await?;
    flow.head_came();
    if let Some(watch) = &exchange.watch {
        watch.head(response.status(), response.headers());
    }
    way.arrive(response, lease, switched, head_only)
}

/// The way of one request through the configuration.
struct Way<'w> {
    connection: &'w Connection,
    view: &'w ListenerView,
    route: &'w RouteView,
    matched: &'w CompiledMatch,
    member: &'w MemberView,
    allowance: Allowance<'w>,
}

/// What is settled before the request is taken apart.
struct Plan {
    /// `None`: as the client wrote it.
    uri: Option<Uri>,
    /// As the client wrote it.
    host: HeaderValue,
    http2: bool,
    /// The protocol to switch to.
    upgrade: Option<HeaderValue>,
    /// Key of a consistent hash.
    key: Option<Vec<u8>>,
}

impl<'w> Way<'w> {
    /// Settles where the request goes and over which protocol.
    fn plan(
        &self,
        request: &Request<()>,
        target: Target<'_>,
        survey: &Survey,
        bodiless: bool,
    ) -> Result<Plan, Refusal> {
        let (connection, view, member) = (self.connection, self.view, self.member);
        let config = &self.route.config;
        let upgrade = if survey.upgrade && bodiless {
            headers::requested_upgrade(request.headers(), request.version())
        } else {
            None
        };
        let http2 = upgrade.is_none()
            && member
                .cluster
                .wants_http2(survey.content_type && is_grpc(request.headers()));
        let key = outgoing::hash_key(&member.cluster.config.balance, request, connection, view);
        let path = match &config.rewrite.path {
            None => target.path,
            Some(rewrite) => {
                let path =
                    rewrite::rewritten_path(rewrite, self.matched, &target.path, view.config.path)
                        .map_err(|_| Reason::BadPath)?;
                Cow::Owned(path.into_owned())
            }
        };
        let uri = outgoing::new_uri(request, path, http2, || {
            outgoing::authority(config, &target.authority, member)
        })?;
        Ok(Plan {
            uri,
            host: target.authority,
            http2,
            upgrade,
            key,
        })
    }

    /// Turns the client's request into the endpoint's: identity, host and headers.
    fn depart(
        &self,
        request: Request<()>,
        (client, peeked): (Client, Option<Ahead>),
        plan: &mut Plan,
        survey: &Survey,
        exchange: &mut Exchange,
    ) -> (Request<RequestBody>, Option<Sampled<'w>>) {
        let (connection, view, member) = (self.connection, self.view, self.member);
        let (config, http2) = (&self.route.config, plan.http2);
        let trusted = view
            .config
            .trusted_proxies
            .iter()
            .any(|net| net.contains(&connection.peer_ip()));
        let host_moved = request.uri().authority().is_some();
        let version = request.version();
        let (mut head, ()) = request.into_parts();
        headers::prepare_request(
            &mut head.headers,
            survey,
            &Origin {
                peer: &connection.peer_value,
                trusted,
                tls: connection.tls.is_some(),
                host: &plan.host,
            },
        );
        if let Some(filters) = &self.route.filters {
            filters.remove_key(exchange.passed.caller.as_ref(), &mut head.headers);
        }
        outgoing::identify(&mut head.headers, survey, connection, trusted, exchange);
        headers::edit(&mut head.headers, &config.request_headers);
        headers::edit(&mut head.headers, &member.request_headers);
        if self.route.replace.is_some() {
            replace::edit_request_headers(&mut head.headers);
        }
        // Named in the target, or named as hop-by-hop, or not there at all in HTTP/1.0.
        let host_lost = host_moved || survey.hop_by_hop || version == Version::HTTP_10;
        outgoing::address(
            &mut head.headers,
            config,
            host_lost.then(|| plan.host.clone()),
            http2,
        );
        if survey.hop_by_hop && !http2 && head.headers.contains_key(TE) {
            head.headers
                .insert(CONNECTION, HeaderValue::from_static("te"));
        }
        if let Some(upgrade) = &plan.upgrade {
            head.headers
                .insert(CONNECTION, HeaderValue::from_static("upgrade"));
            head.headers.insert(UPGRADE, upgrade.clone());
        }
        if let Some(uri) = plan.uri.take() {
            head.uri = uri;
        }
        head.version = if http2 {
            Version::HTTP_2
        } else {
            Version::HTTP_11
        };
        head.extensions.clear();
        let copies = self.copies(&head.headers, plan.upgrade.is_some());
        let body = self.body(client, peeked, copies.as_ref(), exchange);
        if !http2 && !body.is_empty() && !head.headers.contains_key(CONTENT_LENGTH) {
            // hyper's client sends a GET or HEAD of unknown length without its body unless told how to frame it.
            head.headers
                .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        (Request::from_parts(head, body), copies)
    }

    /// The copies that the request gets.
    fn copies(&self, headers: &HeaderMap, upgrade: bool) -> Option<Sampled<'w>> {
        let mirrors = self.route.mirrors.as_ref()?;
        let sampled = mirrors.sample(headers.get(&X_REQUEST_ID))?;
        if upgrade {
            sampled.refuse("upgrade");
            return None;
        }
        Some(sampled)
    }

    /// The request's body, shared when others want it as well.
    fn body(
        &self,
        mut client: Client,
        peeked: Option<Ahead>,
        copies: Option<&Sampled<'_>>,
        exchange: &Exchange,
    ) -> RequestBody {
        let flow = Rc::clone(exchange.flow());
        if peeked.is_none() {
            client.bound(self.route.config.body_max);
        }
        let keep = self.allowance.keeps();
        if peeked.is_none() && copies.is_none() && (keep.is_none() || client.is_over()) {
            return RequestBody::direct(client, flow);
        }
        let seen = copies.and_then(Sampled::capture);
        let upload = Upload::new(client, peeked.unwrap_or_default(), keep, seen);
        RequestBody::shared(&upload, flow)
    }

    /// Prepares the answer for edits of its body, if it gets any.
    fn edit(
        &self,
        response: &mut Response<Incoming>,
        head_only: bool,
    ) -> Option<Box<replace::Stream>> {
        let replacing = self.route.replace.as_ref()?;
        let (status, headers) = (response.status(), response.headers());
        let stream = match replacing.replacer.applies(status, headers, head_only) {
            Applies::No => return None,
            Applies::Skipped(coding) => {
                replacing.skipped(&self.route.config.name, &coding);
                return None;
            }
            Applies::Head => None,
            Applies::Stream(stream) => Some(Box::new(stream)),
        };
        replace::edit_response_headers(response.headers_mut());
        stream
    }

    /// Turns the endpoint's answer into the client's. `switched`: the request asked for another protocol.
    fn arrive(
        &self,
        mut response: Response<Incoming>,
        lease: Lease,
        switched: Option<Switched>,
        head_only: bool,
    ) -> Result<Outcome, Refusal> {
        let (connection, config) = (self.connection, &self.route.config);
        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let new_protocol = response
            .headers()
            .get(UPGRADE)
            .cloned()
            .filter(|_| switching);
        if switching && (switched.is_none() || new_protocol.is_none()) {
            return Err(Reason::UpstreamProtocol.into());
        }
        *response.version_mut() = if connection.http2 {
            Version::HTTP_2
        } else {
            Version::HTTP_11
        };
        let edit = self.edit(&mut response, head_only);
        headers::prepare_response(response.headers_mut());
        headers::edit(response.headers_mut(), &config.response_headers);
        headers::edit(response.headers_mut(), &self.member.response_headers);
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
            _ => Ok(Outcome::Upstream(head, incoming, lease, edit)),
        }
    }
}

/// The only look at the configuration.
fn find<'v>(
    view: &'v ListenerView,
    request: &Request<()>,
    target: &Target<'_>,
) -> Result<(&'v Arc<RouteView>, &'v CompiledMatch), Refusal> {
    let head = RequestHead {
        host: &target.host,
        path: &target.path,
        query: request.uri().query(),
        method: request.method(),
        headers: request.headers(),
    };
    if let Some(method) = cors::requested_method(request) {
        let asked = RequestHead {
            method: &method,
            ..head
        };
        // A route that answers preflights, else one that wants them for itself, else the one they ask about.
        if let Lookup::Found { route, matched } = view.table.find(&asked) {
            let filters = view.routes[route].filters.as_ref();
            let answers = filters.is_some_and(|filters| filters.cors.is_some());
            if answers || !matches!(view.table.find(&head), Lookup::Found { .. }) {
                return Ok((&view.routes[route], matched));
            }
        }
    }
    match view.table.find(&head) {
        Lookup::Found { route, matched } => Ok((&view.routes[route], matched)),
        Lookup::MethodNotAllowed { allow } => Err(Refusal::method_not_allowed(&allow)),
        Lookup::NotFound => Err(Reason::NoRoute.into()),
    }
}
