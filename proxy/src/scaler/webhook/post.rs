//! Where changes are posted, and one attempt to do so. Changes are rare: each has its own connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_config::ClientTls;
use http::header::{self, HeaderValue};
use http::uri::Scheme;
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls::{ALPN_HTTP1, client};

/// More of an answer is not read.
const MAX_ANSWER: usize = 64 << 10;
/// Longer waits that a server asks for are cut to this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What came of one attempt.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The server knows.
    Taken,
    /// It may listen later: why not now, and how long to wait when it said.
    Later(String, Option<Duration>),
    /// It does not want to know this: why.
    Refused(String),
}

/// A server that wants to know.
pub(super) struct Target {
    host: String,
    port: u16,
    path: Uri,
    authority: HeaderValue,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Target {
    /// Reads the URL.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: it has no host, another scheme, or the system has no trusted roots for `https`.
    pub(super) fn new(url: &Uri) -> io::Result<Self> {
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
        let authority = url
            .authority()
            .ok_or_else(|| invalid("the URL has no host"))?;
        let host = authority.host().to_owned();
        let secure = url.scheme() == Some(&Scheme::HTTPS);
        if !secure && url.scheme() != Some(&Scheme::HTTP) {
            return Err(invalid("the URL is neither http nor https"));
        }
        let tls = match secure {
            true => {
                let tls = ClientTls::default();
                let config = client::client_config(&tls, ALPN_HTTP1);
                let name = client::server_name(&tls, &host);
                let pair = config.and_then(|config| Ok((config, name?)));
                Some(pair.map_err(|error| invalid(&error.to_string()))?)
            }
            false => None,
        };
        let place = match authority.as_str().rsplit_once('@') {
            Some((_, place)) => place,
            None => authority.as_str(),
        };
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            port: authority
                .port_u16()
                .unwrap_or(if secure { 443 } else { 80 }),
            host: host.trim_matches(['[', ']']).to_owned(),
            path: path.parse().map_err(|_| invalid("the path is no path"))?,
            authority: HeaderValue::try_from(place).map_err(|_| invalid("the host is no host"))?,
            tls,
        })
    }

    /// Host and port, for the log.
    pub(super) fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Posts JSON once, within `timeout` from connecting to the answer's end.
    pub(super) async fn post(&self, body: &Bytes, timeout: Duration) -> Outcome {
        // Boxed: a TLS connection's state is large, and most of the time there is none.
        let exchange = Box::pin(self.exchange(body));
        let response = match tokio::time::timeout(timeout, exchange).await {
            Err(_) => return Outcome::Later(format!("no answer within {timeout:?}"), None),
            Ok(Err(error)) => return Outcome::Later(error.to_string(), None),
            Ok(Ok(response)) => response,
        };
        let status = response.status();
        let wait = response.headers().get(header::RETRY_AFTER);
        match status.as_u16() {
            200..300 => Outcome::Taken,
            408 | 425 | 429 | 500.. => {
                Outcome::Later(format!("status {status}"), wait.and_then(seconds))
            }
            _ => Outcome::Refused(format!("status {status}")),
        }
    }

    async fn exchange(&self, body: &Bytes) -> Result<Response<()>, Error> {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        headers.insert(header::HOST, self.authority.clone());
        for (name, value) in [
            (header::CONTENT_TYPE, "application/json"),
            (header::USER_AGENT, "forebay"),
            (header::CONNECTION, "close"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => send(stream, request).await,
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                send(connector.connect(name.clone(), stream).await?, request).await
            }
        }
    }
}

/// Sends the request and reads the answer; the connection ends with it, or when this is dropped.
async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<()>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let (parts, body): (_, Incoming) = response.into_parts();
        // What it says does not matter, nor whether it says it to the end.
        let _ = Limited::new(body, MAX_ANSWER).collect().await;
        Ok::<_, Error>(Response::from_parts(parts, ()))
    };
    let connection = std::pin::pin!(connection);
    let exchange = std::pin::pin!(exchange);
    match futures_util::future::select(exchange, connection).await {
        futures_util::future::Either::Left((response, _)) => response,
        futures_util::future::Either::Right((_, exchange)) => exchange.await,
    }
}

/// `Retry-After` in seconds; dates are not understood.
fn seconds(value: &HeaderValue) -> Option<Duration> {
    let seconds = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}
