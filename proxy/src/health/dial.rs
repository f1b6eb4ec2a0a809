//! A connection for one check, or for a metrics page.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use forebay_config::{Health, HealthKind, UpstreamProtocol};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::{Subject, Task};
use crate::cluster::Endpoint;
use crate::server_kind::Question;
use crate::upstream::{ConnectorTls, is_out_of_sockets};

/// A plain or encrypted connection.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Where one check goes.
pub(crate) struct Target {
    address: SocketAddr,
    host: Arc<str>,
    tls: Option<Arc<ConnectorTls>>,
    out_of_sockets: AtomicBool,
    /// HTTP/2 is spoken.
    pub(crate) http2: bool,
}

/// Ends the connection when dropped.
pub(crate) struct Driver(#[expect(dead_code, reason = "held until the check is over")] Task);

impl Driver {
    /// Keeps a connection going.
    pub(crate) fn spawn(connection: impl Future + Send + 'static) -> Self {
        let task = tokio::spawn(async move {
            connection.await;
        });
        Self(Task(task.abort_handle()))
    }
}

fn at_port(endpoint: &Endpoint, port: Option<u16>) -> SocketAddr {
    let mut address = endpoint.address;
    address.set_port(port.unwrap_or(address.port()));
    address
}

impl Target {
    pub(crate) fn of(subject: &Subject, health: &Health, endpoint: &Endpoint) -> Self {
        let (http2, own_port) = match health.kind {
            HealthKind::Grpc { .. } => (true, subject.config.ports.grpc),
            HealthKind::Http { .. } => (subject.config.protocol == UpstreamProtocol::Http2, None),
            HealthKind::Server | HealthKind::Tcp => (false, None),
        };
        let address = at_port(endpoint, health.port.or(own_port));
        let tls = subject.connector.tls.clone();
        Self::new(address, Arc::clone(&endpoint.host), tls, http2)
    }

    /// Where an endpoint is asked for a model.
    pub(crate) fn asked(subject: &Subject, question: &Question, endpoint: &Endpoint) -> Self {
        let address = at_port(endpoint, question.port);
        let tls = subject.connector.tls.clone();
        Self::new(address, Arc::clone(&endpoint.host), tls, false)
    }

    /// * `host`: the name for `host` and SNI
    pub(crate) fn new(
        address: SocketAddr,
        host: Arc<str>,
        tls: Option<Arc<ConnectorTls>>,
        http2: bool,
    ) -> Self {
        Self {
            address,
            host,
            tls,
            out_of_sockets: AtomicBool::new(false),
            http2,
        }
    }

    /// True when the connection failed because this machine, not the endpoint, had nothing left for it.
    pub(crate) fn is_out_of_sockets(&self) -> bool {
        self.out_of_sockets.load(Ordering::Relaxed)
    }

    /// `host:port`, IPv6 addresses in brackets.
    pub(crate) fn authority(&self) -> String {
        let port = self.address.port();
        match self.host.contains(':') && !self.host.starts_with('[') {
            true => format!("[{}]:{port}", self.host),
            false => format!("{}:{port}", self.host),
        }
    }

    pub(crate) fn scheme(&self) -> &'static str {
        match self.tls {
            Some(_) => "https",
            None => "http",
        }
    }

    /// Makes the TCP connection.
    ///
    /// # Errors
    ///
    /// Nobody accepts it.
    pub(crate) async fn connect(&self) -> Result<TcpStream, String> {
        let tcp = TcpStream::connect(self.address).await;
        let tcp = tcp.map_err(|error| {
            let ours = is_out_of_sockets(&error);
            self.out_of_sockets.store(ours, Ordering::Relaxed);
            format!("cannot connect: {error}")
        })?;
        let _ = tcp.set_nodelay(true); // only for speed
        Ok(tcp)
    }

    /// Makes the connection, with TLS when the cluster has it.
    ///
    /// # Errors
    ///
    /// Nobody accepts it, or the handshake fails.
    pub(crate) async fn open(&self) -> Result<TokioIo<Box<dyn Wire>>, String> {
        let tcp = self.connect().await?;
        let Some(tls) = &self.tls else {
            return Ok(TokioIo::new(Box::new(tcp)));
        };
        let name = match &tls.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(self.host.to_string())
                .map_err(|_| format!("`{}` is no name for TLS", self.host))?,
        };
        let config = match self.http2 {
            true => &tls.http2,
            false => &tls.http1,
        };
        let stream = tokio_rustls::TlsConnector::from(Arc::clone(config))
            .connect(name, tcp)
            .await
            .map_err(|error| format!("TLS handshake: {error}"))?;
        if self.http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err("the endpoint does not offer HTTP/2 in ALPN".to_owned());
        }
        Ok(TokioIo::new(Box::new(stream)))
    }
}
