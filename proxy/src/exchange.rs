//! The record of one request and its answer: counted once, logged once, however it ends.

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, Method, Version};
use tokio::time::Instant;

use crate::access_log::{AccessLog, Captured, Record};
use crate::canonical::Target;
use crate::connection::Connection;
use crate::error::Reason;
use crate::filter::Passed;
use crate::flow::Flow;
use crate::metrics::TrafficCells;
use crate::mirror::Observation;
use crate::patience::Pulse;
use crate::snapshot::{MemberView, OwnTraffic};

/// What the access log needs of a request whose head is gone upstream.
pub struct LogEntry {
    log: Arc<AccessLog>,
    time: SystemTime,
    method: Method,
    version: Version,
    path: String,
    authority: String,
    request_headers: Captured,
    response_headers: Captured,
    /// The request id, which also decides whether the request is in the sample.
    pub request_id: Option<HeaderValue>,
    /// The 32 hex digits of the trace.
    pub trace_id: Option<String>,
    /// The route's name.
    pub route: String,
    /// The cluster's name.
    pub cluster: String,
    /// What the request calls its model, where somebody had to know.
    pub model: Option<String>,
    /// The last endpoint tried.
    pub endpoint: Option<Arc<str>>,
    /// Attempts made.
    pub attempts: u32,
    /// The client behind trusted proxies.
    pub client: std::net::IpAddr,
    generation: u64,
}

impl LogEntry {
    /// Keeps what will be logged of a request.
    pub fn new(
        log: &Arc<AccessLog>,
        request: &http::Request<hyper::body::Incoming>,
        connection: &Connection,
        generation: u64,
    ) -> Box<Self> {
        Box::new(Self {
            log: Arc::clone(log),
            time: SystemTime::now(),
            method: request.method().clone(),
            version: request.version(),
            path: request
                .uri()
                .path_and_query()
                .map_or_else(String::new, |p| p.as_str().to_owned()),
            authority: authority_of(request).to_owned(),
            request_headers: log.capture_request(request.headers()),
            response_headers: Captured::default(),
            request_id: None,
            trace_id: None,
            route: String::new(),
            cluster: String::new(),
            model: None,
            endpoint: None,
            attempts: 0,
            client: connection.peer_ip(),
            generation,
        })
    }

    /// Logs the canonical host and path, which routing went by.
    pub fn canonical(&mut self, target: &Target<'_>) {
        self.authority = target.host.to_string();
        self.path = match target.query {
            Some(query) => format!("{}?{query}", target.path),
            None => target.path.to_string(),
        };
    }

    /// Keeps what will be logged of the answer's head.
    pub fn answer(&mut self, headers: &HeaderMap) {
        self.response_headers = self.log.capture_response(headers);
    }
}

fn authority_of(request: &http::Request<hyper::body::Incoming>) -> &str {
    match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => request
            .headers()
            .get(http::header::HOST)
            .and_then(|h| h.to_str().ok())
            .unwrap_or(""),
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

/// One request from its head to the last byte of its answer. Dropped before [`Exchange::finish`], it was aborted.
pub struct Exchange {
    flow: Rc<Flow>,
    connection: Rc<Connection>,
    traffic: Option<Rc<OwnTraffic>>,
    /// What the chosen cluster's servers are.
    pub server: Option<forebay_config::ServerKind>,
    /// Only with an access log.
    pub log: Option<Box<LogEntry>>,
    /// Who sent the request, and what it holds of its limits until the last byte.
    pub passed: Passed,
    status: u16,
    reason: Option<Reason>,
    /// When the request left us for an endpoint.
    left: Option<Instant>,
    /// How long it waited for its endpoint; `None`: it did not.
    pub waited: Option<std::time::Duration>,
    /// What its copies and those who write it down are told; `None`: there are none.
    pub watch: Option<Rc<Observation>>,
    /// Begins its answer early; `None`: that cannot be.
    pub pulse: Option<Rc<Pulse>>,
    done: bool,
}

impl Exchange {
    /// A request whose head is complete.
    pub fn new(connection: &Rc<Connection>, flow: Rc<Flow>, log: Option<Box<LogEntry>>) -> Self {
        Self {
            flow,
            connection: Rc::clone(connection),
            traffic: None,
            server: None,
            log,
            passed: Passed::default(),
            status: 0,
            reason: None,
            left: None,
            watch: None,
            pulse: None,
            waited: None,
            done: false,
        }
    }

    /// The request's clocks.
    pub fn flow(&self) -> &Rc<Flow> {
        &self.flow
    }

    /// The request belongs to a route and cluster from now on.
    pub fn admit(&mut self, traffic: &Rc<OwnTraffic>) {
        traffic.cells().arrived();
        self.belong(traffic);
    }

    /// The request is counted under a route which it does not get beyond.
    pub fn belong(&mut self, traffic: &Rc<OwnTraffic>) {
        traffic.cells().begin();
        self.traffic = Some(Rc::clone(traffic));
    }

    /// The request belongs to a member of its route from now on, counted by `traffic`.
    pub fn enter(&mut self, member: &MemberView, traffic: &Rc<OwnTraffic>) {
        self.admit(traffic);
        let cluster = &member.cluster.config;
        self.server = Some(cluster.server);
        if let Some(log) = &mut self.log {
            log.cluster.clone_from(&cluster.name);
        }
    }

    /// The request goes to an endpoint now, which it returns.
    pub fn leave(&mut self) -> Instant {
        let now = Instant::now();
        self.left.get_or_insert(now);
        now
    }

    /// The request goes to an endpoint once more.
    pub fn retry(&self, reason: &'static str) {
        if let Some(cells) = self.cells() {
            cells.retried(reason);
        }
    }

    /// The endpoint's answer goes to the client.
    pub fn answered(&mut self, status: u16) {
        self.status = status;
        if let Some(cells) = self.cells() {
            cells.answered(status);
        }
    }

    /// Our own answer goes to the client.
    pub fn refused(&mut self, reason: Reason) {
        self.status = reason.code();
        self.reason = Some(reason);
        self.count_refused(reason);
    }

    /// Our own answer that is no refusal: a redirect or a fixed response.
    pub fn responded(&mut self, status: u16) {
        self.status = status;
        if let Some(cells) = self.cells() {
            cells.answered(status);
        }
    }

    fn count_refused(&self, reason: Reason) {
        let unrouted;
        let cells = match self.cells() {
            Some(cells) => cells,
            None => {
                unrouted = self.connection.worker.shared.metrics.unrouted();
                unrouted.worker(self.connection.worker.index).as_ref()
            }
        };
        cells.refused(reason.code(), reason.label());
    }

    fn cells(&self) -> Option<&TrafficCells> {
        self.traffic.as_deref().map(OwnTraffic::cells)
    }

    /// The last byte went to the client.
    pub fn finish(mut self) {
        let now = self.flow.last();
        self.end(now, None);
    }

    fn end(&mut self, now: Instant, aborted: Option<Reason>) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        self.flow.end();
        let duration = now.duration_since(self.flow.start);
        let first_byte = self
            .flow
            .head()
            .map(|head| head.duration_since(self.flow.start));
        let overhead = self.left.map(|left| left.duration_since(self.flow.start));
        if let Some(cells) = self.cells() {
            cells.observe_duration(duration);
            if let Some(first_byte) = first_byte {
                cells.observe_first_byte(first_byte);
            }
            if let Some(overhead) = overhead {
                cells.observe_overhead(overhead);
            }
            cells.request_bytes(self.flow.request_bytes.get());
            cells.response_bytes(self.flow.response_bytes.get());
            cells.end();
            if let Some(reason) = aborted {
                cells.aborted(reason.label());
            }
        }
        self.connection.request_ended(now);
        if let Some(watch) = self.watch.take() {
            watch.finish(aborted.or(self.reason));
        }
        let Some(entry) = self.log.take() else { return };
        let reason = aborted.or(self.reason).map_or("", Reason::label);
        let status = if self.status == 0 {
            Reason::ClientClosed.code()
        } else {
            self.status
        };
        let roll = entry
            .request_id
            .as_ref()
            .map_or(0, |id| xxhash_rust::xxh3::xxh3_64(id.as_bytes()) as u32);
        if !entry.log.keep(status, reason, duration, roll) {
            return;
        }
        entry.log.write(
            &Record {
                time: entry.time,
                method: entry.method.as_str(),
                authority: &entry.authority,
                path: &entry.path,
                scheme: if self.connection.tls.is_some() {
                    "https"
                } else {
                    "http"
                },
                protocol: protocol(entry.version),
                status,
                reason,
                request_bytes: self.flow.request_bytes.get(),
                response_bytes: self.flow.response_bytes.get(),
                duration,
                request_duration: self
                    .flow
                    .sent()
                    .map(|sent| sent.duration_since(self.flow.start)),
                first_byte,
                overhead,
                queue: self.waited,
                route: &entry.route,
                cluster: &entry.cluster,
                model: entry.model.as_deref(),
                endpoint: entry.endpoint.as_deref(),
                request_id: entry.request_id.as_ref().and_then(|v| v.to_str().ok()),
                trace_id: entry.trace_id.as_deref(),
                client: entry.client,
                identity: self.passed.caller.as_ref().map(|caller| &*caller.name),
                peer: self.connection.peer,
                local: self.connection.local,
                listener: &self.connection.listener.name,
                attempts: entry.attempts,
                generation: entry.generation,
            },
            &entry.request_headers,
            &entry.response_headers,
        );
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let reason = self.flow.failure().unwrap_or(Reason::ClientClosed);
        if !self.done {
            self.end(Instant::now(), Some(reason));
        }
    }
}
