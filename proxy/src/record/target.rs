//! Where batches are posted, and one attempt to do so.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_config::ClientTls;
use http::header::{self, HeaderValue};
use http::uri::Scheme;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls::{ALPN_HTTP1, client};

/// An answer that is longer costs its connection.
const MAX_ANSWER: usize = 64 << 10;

/// Longer waits that a server asks for are cut to this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(10);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What came of one attempt.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The server has the batch.
    Taken,
    /// It may take it later: why, and how long to wait when it said.
    Later(String, Option<Duration>),
    /// It will not take it: why.
    Refused(String),
}

/// A server, and the connection to it that is kept between batches.
pub(super) struct Target {
    host: String,
    port: u16,
    path: String,
    headers: HeaderMap,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Target {
    /// Reads the URL, which has neither user nor password.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: the URL has no host, another scheme, or the system has no trusted roots for `https`.
    pub(super) fn new(url: &Uri) -> io::Result<Self> {
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
        let authority = url
            .authority()
            .ok_or_else(|| invalid("the URL has no host".to_owned()))?;
        let host = authority.host().to_owned();
        let mut headers = HeaderMap::new();
        let value =
            |text: &str| HeaderValue::try_from(text).map_err(|error| invalid(error.to_string()));
        headers.insert(header::HOST, value(authority.as_str())?);
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-ndjson"),
        );
        headers.insert(header::USER_AGENT, HeaderValue::from_static("forebay"));
        let secure = url.scheme() == Some(&Scheme::HTTPS);
        if !secure && url.scheme() != Some(&Scheme::HTTP) {
            return Err(invalid("the URL is neither http nor https".to_owned()));
        }
        let tls = match secure {
            true => {
                let tls = ClientTls::default();
                let config = client::client_config(&tls, ALPN_HTTP1);
                let name = client::server_name(&tls, &host);
                let pair = config.and_then(|config| Ok((config, name?)));
                Some(pair.map_err(|error| invalid(error.to_string()))?)
            }
            false => None,
        };
        Ok(Self {
            port: authority
                .port_u16()
                .unwrap_or(if secure { 443 } else { 80 }),
            host: host.trim_matches(['[', ']']).to_owned(),
            path: url
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
            headers,
            tls,
            connection: None,
        })
    }

    /// Host and port, for the log.
    pub(super) fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Posts a batch once, within `timeout` from connecting to the answer's end.
    pub(super) async fn post(&mut self, batch: &Bytes, timeout: Duration) -> Outcome {
        match tokio::time::timeout(timeout, self.exchange(batch)).await {
            Err(_) => Outcome::Later(format!("no answer within {timeout:?}"), None),
            Ok(Err(error)) => Outcome::Later(error.to_string(), None),
            Ok(Ok((status, _))) if status.is_success() => Outcome::Taken,
            Ok(Ok((status, wait)))
                if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS =>
            {
                Outcome::Later(format!("status {status}"), wait)
            }
            Ok(Ok((status, _))) => Outcome::Refused(format!("status {status}")),
        }
    }

    async fn exchange(&mut self, batch: &Bytes) -> Result<(StatusCode, Option<Duration>), Error> {
        let mut sender = self.sender().await?;
        let mut request = Request::new(Full::new(batch.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.parse()?;
        *request.headers_mut() = self.headers.clone();
        let response = sender.send_request(request).await?;
        let status = response.status();
        let wait = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(seconds);
        let rest = Limited::new(response.into_body(), MAX_ANSWER);
        if rest.collect().await.is_ok() {
            self.connection = Some(sender);
        }
        Ok((status, wait))
    }

    /// The connection of the last batch while it lives, else a new one.
    async fn sender(&mut self) -> Result<SendRequest<Full<Bytes>>, Error> {
        if let Some(mut sender) = self.connection.take()
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => handshake(stream).await,
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                handshake(connector.connect(name.clone(), stream).await?).await
            }
        }
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection that recordings are posted on ended");
        }
    });
    Ok(sender)
}

/// `Retry-After` in seconds; dates are not understood.
fn seconds(value: &HeaderValue) -> Option<Duration> {
    let seconds = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_targets() {
        let target = Target::new(&Uri::from_static("http://[::1]:81/in?x=1")).unwrap();
        assert_eq!(
            (target.name().as_str(), target.path.as_str()),
            ("::1:81", "/in?x=1")
        );
        assert_eq!(target.headers["host"], "[::1]:81");
        let target = Target::new(&Uri::from_static("http://compare")).unwrap();
        assert_eq!((target.port, target.path.as_str()), (80, "/"));
        for bad in ["/ingest", "ftp://host/", "host:1"] {
            assert!(Target::new(&Uri::from_static(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_server_may_ask_for_ten_seconds_at_most() {
        let of = |text| seconds(&HeaderValue::from_static(text)).map(|wait| wait.as_secs());
        assert_eq!(
            [of("0"), of(" 3 "), of("86400")],
            [Some(0), Some(3), Some(10)]
        );
        assert_eq!(
            [of("-1"), of("Fri, 31 Dec 1999 23:59:59 GMT")],
            [None, None]
        );
    }

    #[tokio::test]
    async fn batches_go_over_tls_to_a_server_that_is_trusted() {
        let server = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let ca = directory.path().join("ca.pem");
        std::fs::write(&ca, server.cert.pem()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(server.signing_key.serialize_der());
        let config = rustls::ServerConfig::builder_with_provider(crate::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![server.cert.der().clone()], key.unwrap())
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = TokioIo::new(acceptor.accept(stream).await.unwrap());
            let echo = hyper::service::service_fn(async |request: Request<_>| {
                let body: hyper::body::Incoming = request.into_body();
                let body = body.collect().await?.to_bytes();
                let status = if body == "one\n" { 204 } else { 418 };
                let mut response = http::Response::new(Full::new(Bytes::new()));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                Ok::<_, hyper::Error>(response)
            });
            let server = hyper::server::conn::http1::Builder::new();
            server.serve_connection(stream, echo).await
        });
        let tls = ClientTls {
            ca: Some(ca),
            ..ClientTls::default()
        };
        let url: Uri = format!("http://127.0.0.1:{port}").parse().unwrap();
        let mut target = Target::new(&url).unwrap();
        target.tls = Some((
            client::client_config(&tls, ALPN_HTTP1).unwrap(),
            client::server_name(&tls, "localhost").unwrap(),
        ));
        let timeout = Duration::from_secs(20);
        let outcome = target.post(&Bytes::from("one\n"), timeout).await;
        assert!(matches!(outcome, Outcome::Taken), "{outcome:?}");
        let outcome = target.post(&Bytes::from("two\n"), timeout).await; // on the same connection
        assert!(
            matches!(&outcome, Outcome::Refused(why) if why.contains("418")),
            "{outcome:?}"
        );
    }
}
