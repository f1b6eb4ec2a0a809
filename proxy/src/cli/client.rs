//! A client of the admin API of a running proxy.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use forebay_config::ClientTls;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::{REFUSED, UNREACHABLE};
use crate::tls;

/// Where a proxy answers unless it was told otherwise.
const DEFAULT: &str = "http://127.0.0.1:9901";
/// TCP and TLS together.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take, except for commands that wait.
const ANSWER: Duration = Duration::from_secs(60);
/// Largest answer, in bytes.
const ANSWER_MAX: usize = 256 << 20;

/// Which running proxy is meant.
#[derive(Args, Clone, Debug, Default)]
pub struct AdminArgs {
    /// Admin address of the proxy, `http://` or `https://` [env: FOREBAY_ADMIN] [default: http://127.0.0.1:9901]
    #[arg(long, value_name = "URL")]
    pub admin: Option<String>,
    /// Token of the admin API [env: FOREBAY_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Take address, token and TLS of the admin API from this configuration.
    #[arg(short = 'c', long = "config", value_name = "PATH")]
    pub config: Vec<PathBuf>,
    /// Trust certificates signed by this PEM bundle instead of the system's roots.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Client certificate to show, PEM.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub certificate: Option<PathBuf>,
    /// Key of the client certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,
}

/// Why a command did not get what it asked for.
#[derive(Debug)]
pub enum ClientError {
    /// Nothing was sent: a bad address, a file that cannot be read, no proxy there.
    Unreachable(String),
    /// The request was sent and the connection ended without an answer.
    Cut(String),
    /// The proxy answered with an error.
    Refused(StatusCode, Value),
}

impl ClientError {
    /// Returns the exit code of commands that fail this way.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Unreachable(_) | Self::Cut(_) => UNREACHABLE,
            Self::Refused(..) => REFUSED,
        })
    }

    /// Prints the error for people and returns the exit code.
    pub fn report(&self) -> ExitCode {
        eprintln!("forebay: {self}");
        self.exit_code()
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(message) | Self::Cut(message) => f.write_str(message),
            Self::Refused(status, answer) => {
                let message = answer["error"]["message"].as_str().unwrap_or("no message");
                write!(
                    f,
                    "the proxy answered {status}: {}",
                    super::table::clean(message)
                )
            }
        }
    }
}

impl std::error::Error for ClientError {}

/// A connection's worth of knowledge about one proxy.
#[derive(Debug)]
pub struct Client {
    url: Uri,
    authority: String,
    token: Option<String>,
    tls: Option<ClientTls>,
}

/// What a configuration says about its own admin API.
#[derive(Default)]
struct Found {
    url: Option<String>,
    token: Option<String>,
    ca: Option<PathBuf>,
}

impl Client {
    /// Works out which proxy is meant: flags, then the configuration, then the environment, then the default.
    ///
    /// # Errors
    ///
    /// The address is no URL, or the configuration cannot be loaded.
    pub fn new(args: &AdminArgs) -> Result<Self, ClientError> {
        let found = if args.config.is_empty() {
            Found::default()
        } else {
            from_config(&args.config)?
        };
        let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let url = args
            .admin
            .clone()
            .or(found.url)
            .or_else(|| environment("FOREBAY_ADMIN"));
        let (url, authority) = parse_url(url.as_deref().unwrap_or(DEFAULT))?;
        let token = args
            .token
            .clone()
            .or(found.token)
            .or_else(|| environment("FOREBAY_TOKEN"));
        let tls = (url.scheme_str() == Some("https")).then(|| ClientTls {
            server_name: None,
            ca: args.ca.clone().or(found.ca),
            certificate: args.certificate.clone(),
            key: args.key.clone(),
        });
        Ok(Self {
            url,
            authority,
            token,
            tls,
        })
    }

    /// Asks for JSON.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.within(ANSWER, self.call(Method::GET, path, None))
            .await
    }

    /// Sends a command and waits for its answer as long as it takes.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.call(Method::POST, path, Some(body)).await
    }

    async fn within<T>(
        &self,
        time: Duration,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        tokio::time::timeout(time, work).await.unwrap_or_else(|_| {
            let message = format!("{} did not answer within {} s", self.url, time.as_secs());
            Err(ClientError::Unreachable(message))
        })
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let request = self.request(method, path, body)?;
        let stream = self.within(CONNECT, self.connect()).await?;
        match &self.tls {
            None => self.exchange(stream, request).await,
            Some(tls) => {
                let stream = self.within(CONNECT, self.secure(stream, tls)).await?;
                self.exchange(stream, request).await
            }
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.authority)
            .header(USER_AGENT, concat!("forebay/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            let value = HeaderValue::from_str(&format!("Bearer {token}"));
            let mut value =
                value.map_err(|_| unreachable("the token holds characters that cannot be sent"))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let bytes = body
            .map(|body| Bytes::from(body.to_string()))
            .unwrap_or_default();
        request
            .body(Full::new(bytes))
            .map_err(|error| unreachable(error.to_string()))
    }

    async fn connect(&self) -> Result<TcpStream, ClientError> {
        let host = self.url.host().unwrap_or_default();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let port = self
            .url
            .port_u16()
            .unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        TcpStream::connect((host, port))
            .await
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::ConnectionRefused => unreachable(format!(
                    "no proxy answers at {}: is it running?",
                    self.shown()
                )),
                _ => unreachable(format!("cannot connect to {}: {error}", self.shown())),
            })
    }

    async fn secure(
        &self,
        stream: TcpStream,
        wanted: &ClientTls,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static, ClientError> {
        let host = self.url.host().unwrap_or_default();
        let name: ServerName<'static> = tls::client::server_name(wanted, host)
            .map_err(|error| unreachable(error.to_string()))?;
        let config = tls::client::client_config(wanted, tls::ALPN_HTTP1)
            .map_err(|error| unreachable(error.to_string()))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&config));
        let failed = |error| unreachable(format!("no TLS with {}: {error}", self.shown()));
        connector.connect(name, stream).await.map_err(failed)
    }

    async fn exchange<S>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
    ) -> Result<Value, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let cut = |why: String| {
            ClientError::Cut(format!(
                "{} ended the connection without an answer: {why}",
                self.shown()
            ))
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| cut(chain(&e)))?;
        let connection = tokio::spawn(connection);
        let response = match sender.send_request(request).await {
            Ok(response) => response,
            // What the connection says is closer to the cause, such as a refused client certificate.
            Err(error) => {
                drop(sender);
                return Err(cut(match connection.await {
                    Ok(Err(cause)) => chain(&cause),
                    _ => chain(&error),
                }));
            }
        };
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX)
            .collect()
            .await;
        connection.abort();
        let body = body.map_err(|error| cut(chain(&*error)))?.to_bytes();
        let value: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        match (status.is_success(), value) {
            (true, Value::Null) => Err(unreachable(format!(
                "{} answers, but it is no admin API of Forebay",
                self.shown()
            ))),
            (true, value) => Ok(value),
            (false, value) => Err(ClientError::Refused(status, value)),
        }
    }

    fn shown(&self) -> String {
        format!(
            "{}://{}",
            self.url.scheme_str().unwrap_or("http"),
            self.authority
        )
    }
}

/// An error and its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

fn unreachable(message: impl Into<String>) -> ClientError {
    ClientError::Unreachable(message.into())
}

/// Returns the URL and what `Host` will be.
fn parse_url(text: &str) -> Result<(Uri, String), ClientError> {
    let full = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let wrong = |why: &str| {
        unreachable(format!(
            "`{text}` is no admin address: {why}; for example {DEFAULT}"
        ))
    };
    let url: Uri = full.parse().map_err(|_| wrong("it is no URL"))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(wrong("it starts with neither http:// nor https://"));
    }
    let Some(authority) = url.authority() else {
        return Err(wrong("the host is missing"));
    };
    if authority.as_str().contains('@') {
        return Err(wrong("a user name has no meaning here"));
    }
    let authority = authority.to_string();
    Ok((url, authority))
}

fn from_config(paths: &[PathBuf]) -> Result<Found, ClientError> {
    let (loaded, _) = crate::load::load(paths).map_err(|error| unreachable(error.to_string()))?;
    let admin = loaded.config.admin;
    let scheme = if admin.tls.is_some() { "https" } else { "http" };
    // Our own certificate is trusted as it is: `--ca` is only needed when it is not in the file.
    let ca = admin
        .tls
        .and_then(|tls| tls.certificates.into_iter().next())
        .map(|pair| pair.certificate);
    Ok(Found {
        url: Some(format!("{scheme}://{}", reachable(admin.address))),
        token: admin.token.map(|token| token.0),
        ca,
    })
}

/// An address that can be connected to, for one that is listened on.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_lack_its_scheme() {
        assert_eq!(parse_url("10.0.0.1:9901").unwrap().1, "10.0.0.1:9901");
        assert_eq!(parse_url("https://[::1]:9901").unwrap().1, "[::1]:9901");
        for wrong in ["ftp://a", "http://", "http://a b", "http://u@a"] {
            assert!(
                matches!(parse_url(wrong), Err(ClientError::Unreachable(_))),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_wildcard_is_reached_over_loopback() {
        assert_eq!(
            reachable("0.0.0.0:1".parse().unwrap()).to_string(),
            "127.0.0.1:1"
        );
        assert_eq!(reachable("[::]:1".parse().unwrap()).to_string(), "[::1]:1");
        assert_eq!(
            reachable("10.0.0.1:1".parse().unwrap()).to_string(),
            "10.0.0.1:1"
        );
    }

    #[tokio::test]
    async fn silence_is_told_as_no_proxy() {
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let args = AdminArgs {
            admin: Some(free.to_string()),
            ..AdminArgs::default()
        };
        let error = Client::new(&args)
            .unwrap()
            .get("/api/config/status")
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("no proxy answers at http://{free}: is it running?")
        );
        assert_eq!(error.exit_code(), ExitCode::from(2));
    }
}
