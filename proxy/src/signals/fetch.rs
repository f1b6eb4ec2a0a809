//! One endpoint's metrics page, over a connection that is kept from one look to the next.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_config::UpstreamProtocol;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::board::Fault;
use super::scan::{Reading, Scanner};
use crate::cluster::Endpoint;
use crate::health::Subject;
use crate::health::dial::{Driver, Target};
use crate::server_kind::{metrics_port, of};

/// A page that is not there by then is no page.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The most of a page that is read, bytes.
const MAX_PAGE: usize = 8 << 20;
/// Largest head of an answer, bytes.
const MAX_HEAD: usize = 64 << 10;
/// Value of `user-agent`.
const USER_AGENT: &str = concat!("forebay-signals/", env!("CARGO_PKG_VERSION"));
/// The text format.
const TEXT: &str = "text/plain;version=0.0.4";

/// The connection to one endpoint's page, if there is one.
#[derive(Default)]
pub(super) struct Link(Option<Kept>);

/// A connection that may be used again.
struct Kept {
    whose: Whose,
    sender: Sender,
    target: Target,
    _driver: Driver,
}

/// What a connection must agree in to be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Whose {
    address: SocketAddr,
    http2: bool,
    /// Of the cluster's TLS; `None`: plain.
    tls: Option<u64>,
}

enum Sender {
    Http1(conn::http1::SendRequest<Empty<Bytes>>),
    Http2(conn::http2::SendRequest<Empty<Bytes>>),
}

impl Link {
    /// Reads the page.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(super) async fn read(
        &mut self,
        subject: &Subject,
        endpoint: &Endpoint,
    ) -> Result<Reading, Fault> {
        let kept = self.0.take(); // given back when all went well
        // Boxed: a connection's state is large and most of the time nothing is under way.
        let asked = Box::pin(ask(kept, subject, endpoint));
        let asked = tokio::time::timeout(TIMEOUT, asked).await;
        let (reading, kept) = asked.map_err(|_| Fault::Unreachable)??;
        self.0 = kept;
        Ok(reading)
    }
}

async fn ask(
    kept: Option<Kept>,
    subject: &Subject,
    endpoint: &Endpoint,
) -> Result<(Reading, Option<Kept>), Fault> {
    let server = of(subject.config.server);
    let path = server.metrics.unwrap_or("/metrics");
    let whose = Whose::of(subject, endpoint);
    let kept = kept.filter(|kept| kept.whose == whose && kept.sender.is_open());
    let (mut kept, answer) = match kept {
        Some(mut kept) => match kept.ask(path).await {
            Ok(answer) => (kept, answer),
            Err(_) => connect(whose, subject, endpoint, path).await?, // it was idle for too long
        },
        None => connect(whose, subject, endpoint, path).await?,
    };
    if answer.status() != StatusCode::OK {
        return Err(Fault::Status(answer.status().as_u16()));
    }
    let mut scanner = Scanner::new(&server.gauges);
    let mut body = answer.into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Fault::Unreachable)?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        read += data.len();
        if read > MAX_PAGE {
            return Err(Fault::TooLarge);
        }
        scanner.feed(data);
    }
    let stays = kept.sender.is_open() && kept.sender.is_idle().await;
    Ok((scanner.finish(), stays.then_some(kept)))
}

async fn connect(
    whose: Whose,
    subject: &Subject,
    endpoint: &Endpoint,
    path: &str,
) -> Result<(Kept, Response<Incoming>), Fault> {
    let tls = subject
        .connector
        .tls
        .clone()
        .filter(|_| whose.tls.is_some());
    let target = Target::new(whose.address, Arc::clone(&endpoint.host), tls, whose.http2);
    let (sender, driver) = open(&target).await.map_err(|error| {
        tracing::debug!(endpoint = %endpoint.label, error, "no metrics page");
        Fault::Unreachable
    })?;
    let mut kept = Kept {
        whose,
        sender,
        target,
        _driver: driver,
    };
    let answer = kept.ask(path).await.map_err(|_| Fault::Unreachable)?;
    Ok((kept, answer))
}

async fn open(target: &Target) -> Result<(Sender, Driver), String> {
    let io = target.open().await?;
    if target.http2 {
        let (sender, connection) = conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_header_list_size(MAX_HEAD as u32)
            .handshake(io)
            .await
            .map_err(|error| error.to_string())?;
        return Ok((Sender::Http2(sender), Driver::spawn(connection)));
    }
    let (sender, connection) = conn::http1::Builder::new()
        .max_header_size(MAX_HEAD)
        .handshake(io)
        .await
        .map_err(|error| error.to_string())?;
    Ok((Sender::Http1(sender), Driver::spawn(connection)))
}

impl Whose {
    /// A port of its own speaks plain HTTP/1.1, as all servers have it.
    fn of(subject: &Subject, endpoint: &Endpoint) -> Self {
        let mut address = endpoint.address;
        address.set_port(metrics_port(&subject.config, address.port()));
        let same = address == endpoint.address;
        let has_tls = same && subject.connector.tls.is_some();
        Self {
            address,
            http2: same && subject.config.protocol == UpstreamProtocol::Http2,
            tls: has_tls.then_some(subject.connector.key),
        }
    }
}

impl Kept {
    async fn ask(&mut self, path: &str) -> Result<Response<Incoming>, hyper::Error> {
        let request = Request::get(match self.sender {
            Sender::Http1(_) => path.to_owned(),
            Sender::Http2(_) => {
                format!(
                    "{}://{}{path}",
                    self.target.scheme(),
                    self.target.authority()
                )
            }
        });
        let request = request
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::ACCEPT, TEXT);
        let request = match self.sender {
            Sender::Http1(_) => request.header(header::HOST, self.target.authority()),
            Sender::Http2(_) => request.version(http::Version::HTTP_2),
        };
        // A path of the table, an address and a name that an endpoint may have: always legal.
        let request = request.body(Empty::new()).unwrap_or_default();
        match &mut self.sender {
            Sender::Http1(sender) => sender.send_request(request).await,
            Sender::Http2(sender) => sender.send_request(request).await,
        }
    }
}

impl Sender {
    fn is_open(&self) -> bool {
        match self {
            Self::Http1(sender) => !sender.is_closed(),
            Self::Http2(sender) => !sender.is_closed(),
        }
    }

    /// Whether it can take the next request; one that cannot is of no use.
    async fn is_idle(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }
}
