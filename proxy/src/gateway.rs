//! The life of a request, told once, top to bottom. Read this first.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_config::peek::Found;
use forebay_config::route::{CompiledMatch, Lookup, ModelName, RequestHead};
use futures_util::future::Either;
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use crate::answer::{self, Refusal};
use crate::body::{Body, Manner};
use crate::canonical::{self, Target};
use crate::connection::Connection;
use crate::error::{Cut, Reason};
use crate::exchange::{Exchange, LogEntry};
use crate::filter::{Dressing, cors};
use crate::flow::Flow;
use crate::headers::Survey;
use crate::model_name::Opened;
use crate::outgoing::{self};
use crate::patience::{self, Attended, Parting, Pulse};
use crate::replace::{self};
use crate::retry::Allowance;
use crate::screen::{self, Chosen};
use crate::sending::{Arrived, Sending};
use crate::snapshot::{ListenerView, RouteView, WorkerSnapshot};
use crate::upload::Client;
use crate::way::{self, Way};
use crate::worker::Stage;

/// Serves the requests of one connection.
pub struct Gateway {
    connection: Rc<Connection>,
}

/// What came of a request.
pub enum Outcome {
    /// An endpoint answered.
    Upstream(Box<Arrived>, Option<Box<replace::Stream>>),
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
            let connection = Rc::clone(&self.connection);
            let flow = connection.request_began();
            let snapshot = connection.worker.snapshot();
            match Pulse::of(&snapshot, &request) {
                None => Either::Left(answer(connection, snapshot, flow, request, None)),
                Some(pulse) => {
                    let (beats, clocks) = (Rc::clone(&pulse), Rc::clone(&flow));
                    let life = answer(connection, snapshot, flow, request, Some(pulse));
                    Either::Right(Attended::new(life, beats, clocks))
                }
            }
        })
    }
}

/// Answers a request, whatever happens to it.
///
/// * `pulse`: begins the answer early; `None`: that cannot be
async fn answer(
    connection: Rc<Connection>,
    snapshot: Rc<WorkerSnapshot>,
    flow: Rc<Flow>,
    request: Request<Incoming>,
    pulse: Option<Rc<Pulse>>,
) -> Result<Response<Body>, Cut> {
    let log = snapshot
        .shared
        .log
        .as_ref()
        .map(|log| LogEntry::new(log, &request, &connection, snapshot.shared.generation));
    let mut exchange = Exchange::new(&connection, flow, log);
    exchange.pulse = pulse;
    let survey = Survey::of(request.headers());
    let manners = answer::Manners::of(&request, &survey);
    let http10 = request.version() == Version::HTTP_10;
    let head_only = request.method() == Method::HEAD;
    let mut dressing = Dressing::default();
    let (head, incoming) = request.into_parts();
    let mut request = Request::from_parts(head, ());
    let outcome = {
        let mut life = std::pin::pin!(forward(
            &connection,
            &snapshot,
            &mut exchange,
            &mut dressing,
            &mut request,
            Client::new(incoming, connection.http2),
            survey
        ));
        std::future::poll_fn(|cx| isolated(life.as_mut(), cx)).await
    };
    let last = matches!(&outcome, Some(Err(refusal)) if refusal.reason.ends_connection());
    dressing.waited = exchange.waited;
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
        Outcome::Upstream(arrived, edit) => {
            let Arrived {
                response, lease, ..
            } = *arrived;
            let status = response.status();
            let early = exchange.flow().is_early();
            if early && !patience::are_events(&response) {
                let parting = Parting::upstream(response, lease);
                return Response::new(Body::parting(parting, exchange));
            }
            if !early {
                exchange.answered(status.as_u16());
                if let Some(log) = &mut exchange.log {
                    log.answer(response.headers());
                }
            }
            let bodiless = head_only || has_no_body(status);
            let manner = Manner {
                bodiless,
                small: connection.http2,
                edit,
            };
            response.map(|incoming| Body::upstream(incoming, lease, exchange, manner))
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
    if exchange.flow().is_early() {
        let parting = Parting::refusal(refusal.reason); // counted as aborted, too
        return Ok(Response::new(Body::parting(parting, exchange)));
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
    request: &mut Request<()>,
    client: Client,
    survey: Survey,
) -> Result<Outcome, Refusal> {
    let head_only = request.method() == Method::HEAD;
    let view = connection.view(snapshot).ok_or(Reason::Draining)?;
    if connection.worker.shared.overloaded.load(Ordering::Relaxed) {
        return Err(Reason::Overloaded.into());
    }
    canonical::check_framing(request, &survey, &view.config.limits)?;
    let target = canonical::target(request, connection, view.config.path)?;
    if target.path == "*" {
        return Ok(Outcome::Own(answer::options_of_the_server()));
    }
    let mut opened = Opened::new(client);
    let (route, matched) = match find(view, request, &target, ModelName::Unknown, &opened)? {
        Where::Route(route, matched) => (route, matched),
        Where::Depends(route, matched) => {
            let maybe = (&**route, matched);
            Box::pin(find_by_model(
                view,
                request,
                &target,
                maybe,
                &mut opened,
                exchange,
            ))
            .await?
        }
    };
    let config = &route.config;
    opened.bound(config.body_max)?;
    if let Some(log) = &mut exchange.log {
        log.canonical(&target);
        log.route.clone_from(&config.name);
        log.client = screen::client_ip(request, connection, view);
    }
    let mut fields = Found::default();
    if let Some(filters) = &route.filters {
        let client_ip = match &exchange.log {
            Some(log) => log.client,
            None => screen::client_ip(request, connection, view),
        };
        let mut screened = screen::enter(filters, request, client_ip, exchange, dressing);
        if let (Ok(None), Some(places)) = (&screened, filters.fields()) {
            match opened.fields(places, config, exchange).await {
                Ok(found) => fields = found,
                Err(reason) => screened = Err(reason.into()),
            }
        }
        if matches!(screened, Ok(None)) {
            let admitted = screen::admit(filters, request, client_ip, &fields, exchange);
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
    let mut asked = None;
    let member = match (&route.split, &route.models) {
        (Some(split), _) => {
            screen::member(route, split, request, &fields, connection, view, dressing)
        }
        (None, None) => {
            exchange.admit(snapshot.traffic(route.cell));
            return Ok(Outcome::Own(answer::by_route(config, connection, &target)?));
        }
        (None, Some(models)) => {
            let path = way::path(view, config, matched, &target)?;
            let own = snapshot.traffic(route.cell);
            let chosen =
                screen::by_model(models, own, &mut opened, request, &path, config, exchange);
            match Box::pin(chosen).await? {
                Chosen::Listing(answer) => return Ok(Outcome::Own(answer)),
                Chosen::Member(member, wanted) => {
                    asked = Some(wanted);
                    member
                }
            }
        }
    };
    let probe = answer::is_probe(&member.cluster, &target.path, request);
    if probe && let Some(answer) = answer::for_a_sleeper(&member.cluster) {
        exchange.belong(snapshot.traffic(member.cell));
        return Ok(Outcome::Own(answer));
    }
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
    let renaming = match screen::may_rename(route, &member.cluster.config) {
        false => None,
        true => {
            let path = way::path(view, config, matched, &target)?;
            let cluster = &member.cluster.config;
            let renaming =
                screen::renaming(asked, route, cluster, &mut opened, request, &path, exchange);
            Box::pin(renaming).await?
        }
    };
    let allowance = Allowance::new(config.retry.as_ref(), request.method(), request.headers());
    let way = Way {
        connection,
        view,
        route,
        matched,
        member,
        allowance,
        renaming: renaming.as_ref(),
    };
    let mut plan = way.plan(request, target, &survey, opened.is_bodiless())?;
    let (request, copies) = way.depart(request, opened, &mut plan, &survey, exchange);
    let flow = Rc::clone(exchange.flow());
    let sent = Sending {
        connection,
        member,
        key: plan.key.as_deref(),
        http2: plan.http2,
        upgrade: plan.upgrade.is_some(),
        allowance,
        copies,
        wake: config.wake,
        response_headers: &config.response_headers,
        dressing,
        demand: !probe,
    };
    let mut arrived = sent.run(request, &flow, exchange).await?;
    arrived.lease.head_came();
    flow.head_came();
    if let Some(watch) = &exchange.watch {
        watch.head(arrived.response.status(), arrived.response.headers());
    }
    way.arrive(arrived, head_only)
}

/// Where a request belongs.
enum Where<'v> {
    /// To this route.
    Route(&'v Arc<RouteView>, &'v CompiledMatch),
    /// To this one, if it asks for its model.
    Depends(&'v Arc<RouteView>, &'v CompiledMatch),
}

/// The second look at the configuration, with the model's name.
///
/// * `maybe`: the route that asks for it
async fn find_by_model<'v>(
    view: &'v ListenerView,
    request: &Request<()>,
    target: &Target<'_>,
    maybe: (&RouteView, &CompiledMatch),
    opened: &mut Opened,
    exchange: &mut Exchange,
) -> Result<(&'v Arc<RouteView>, &'v CompiledMatch), Refusal> {
    let config = &maybe.0.config;
    let path = way::path(view, config, maybe.1, target)?;
    let wanted = opened
        .model(view.asks, request, &path, config, exchange)
        .await?;
    let name = wanted.name.as_deref();
    let name = name.map_or(ModelName::None, ModelName::Named);
    match find(view, request, target, name, opened)? {
        Where::Route(route, matched) | Where::Depends(route, matched) => Ok((route, matched)),
    }
}

/// The only look at the configuration, unless the model matters.
///
/// * `model`: unknown until the answer is that it matters
fn find<'v>(
    view: &'v ListenerView,
    request: &Request<()>,
    target: &Target<'_>,
    model: ModelName<'_>,
    opened: &Opened,
) -> Result<Where<'v>, Refusal> {
    let head = RequestHead {
        host: &target.host,
        path: &target.path,
        query: request.uri().query(),
        method: request.method(),
        headers: request.headers(),
        model,
    };
    if let Some(method) = cors::requested_method(request) {
        // It names no model but in its path; whoever the request itself may belong to answers for it.
        let named = match view.asks.is_empty() {
            true => None,
            false => screen::model_in_path(view, request, target, opened),
        };
        let head = RequestHead {
            model: named
                .as_deref()
                .map_or(ModelName::Unknown, ModelName::Named),
            ..head
        };
        let asked = RequestHead {
            method: &method,
            ..head
        };
        // A route that answers preflights, else one that wants them for itself, else the one they ask about.
        if let Lookup::Found { route, matched } | Lookup::NeedsModel { route, matched } =
            view.table.find(&asked)
        {
            let filters = view.routes[route].filters.as_ref();
            let answers = filters.is_some_and(|filters| filters.cors.is_some());
            if answers || !matches!(view.table.find(&head), Lookup::Found { .. }) {
                return Ok(Where::Route(&view.routes[route], matched));
            }
        }
    }
    match view.table.find(&head) {
        Lookup::Found { route, matched } => Ok(Where::Route(&view.routes[route], matched)),
        Lookup::NeedsModel { route, matched } => Ok(Where::Depends(&view.routes[route], matched)),
        Lookup::MethodNotAllowed { allow } => Err(Refusal::method_not_allowed(&allow)),
        Lookup::NotFound => Err(Reason::NoRoute.into()),
    }
}
