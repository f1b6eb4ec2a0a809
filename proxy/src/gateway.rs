//! The life of a request, told once, top to bottom. Read this first.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::Either;
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use crate::answer::{self, Refusal};
use crate::body::{Body, Manner};
use crate::canonical;
use crate::connection::Connection;
use crate::course::{Chosen, Course};
use crate::error::{Cut, Reason};
use crate::exchange::{Exchange, LogEntry};
use crate::filter::Dressing;
use crate::flow::Flow;
use crate::headers::Survey;
use crate::lookup;
use crate::model_name::Opened;
use crate::outgoing;
use crate::patience::{self, Attended, Parting, Pulse};
use crate::replace::{self};
use crate::retry::Allowance;
use crate::screen;
use crate::sending::Arrived;
use crate::snapshot::WorkerSnapshot;
use crate::upload::Client;
use crate::way::Way;
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
    let (route, matched) = lookup::route(view, request, &target, &mut opened, exchange).await?;
    let config = &route.config;
    opened.bound(config.body_max)?;
    if let Some(log) = &mut exchange.log {
        log.canonical(&target);
        log.route.clone_from(&config.name);
        log.client = screen::client_ip(request, connection, view);
    }
    let course = Course {
        connection,
        snapshot,
        view,
        route,
        matched,
        request,
        target: &target,
    };
    let chosen = course.run(&mut opened, exchange, dressing).await?;
    let (member, asked) = match chosen {
        Chosen::Member(member, asked) => (member, asked),
        Chosen::Answered(answer) => return Ok(Outcome::Own(answer)),
    };
    let probe = answer::is_probe(&member.cluster, &target.path, request);
    if probe && let Some(answer) = answer::for_a_sleeper(&member.cluster) {
        exchange.belong(snapshot.traffic(member.cell));
        return Ok(Outcome::Own(answer));
    }
    exchange.enter(member, snapshot.traffic(member.cell));
    if survey.content_length {
        outgoing::check_declared(request.headers(), config.body_max)?;
    }
    exchange.flow().bind(&config.timeouts);
    let renaming = match course.may_rename(member) {
        false => None,
        true => {
            let renaming = course.renaming(asked, member, &mut opened, exchange);
            Box::pin(renaming).await?
        }
    };
    let way = Way {
        connection,
        view,
        route,
        matched,
        member,
        allowance: Allowance::new(config.retry.as_ref(), request.method(), request.headers()),
        renaming: renaming.as_ref(),
    };
    let mut plan = way.plan(request, target, &survey, opened.is_bodiless())?;
    let (request, copies) = way.depart(request, opened, &mut plan, &survey, exchange);
    let flow = Rc::clone(exchange.flow());
    let sent = way.sending(&plan, copies, dressing, !probe);
    let mut arrived = sent.run(request, &flow, exchange).await?;
    arrived.lease.head_came();
    flow.head_came();
    if let Some(watch) = &exchange.watch {
        watch.head(arrived.response.status(), arrived.response.headers());
    }
    way.arrive(arrived, head_only)
}
