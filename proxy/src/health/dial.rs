//! A connection for one check.

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
use crate::upstream::{ConnectorTls, is_out_of_sockets};

/// A plain or encrypted connection.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Where one check goes.
pub(super) struct Target {
    address: SocketAddr,
    host: Arc<str>,
    tls: Option<Arc<ConnectorTls>>,
    out_of_sockets: AtomicBool,
    /// HTTP/2 is spoken.
    pub(super) http2: bool,
}

/// Ends the connection when dropped.
pub(super) struct Driver(#[expect(dead_code, reason = "held until the check is over")] Task);

impl Driver {
    /// Keeps a connection going.
    pub(super) fn spawn(connection: impl Future + Send + 'static) -> Self {
        let task = tokio::spawn(async move {
            connection.await;
        });
        Self(Task(task.abort_handle()))
    }
}

impl Target {
    pub(super) fn of(subject: &Subject, health: &Health, endpoint: &Endpoint) -> Self {
        let mut address = endpoint.address;
        if let Some(port) = health.port {
            address.set_port(port);
        }
        let http2 = match health.kind {
            HealthKind::Grpc { .. } => true,
            HealthKind::Http { .. } => subject.config.protocol == UpstreamProtocol::Http2,
            HealthKind::Tcp => false,
        };
        Self {
            address,
            host: Arc::clone(&endpoint.host),
            tls: subject.connector.tls.clone(),
            out_of_sockets: AtomicBool::new(false),
            http2,
        }
    }

    /// True when the connection failed because this machine, not the endpoint, had nothing left for it.
    pub(super) fn is_out_of_sockets(&self) -> bool {
        self.out_of_sockets.load(Ordering::Relaxed)
    }

    /// `host:port`, IPv6 addresses in brackets.
    pub(super) fn authority(&self) -> String {
        let port = self.address.port();
        match self.host.contains(':') && !self.host.starts_with('[') {
            true => format!("[{}]:{port}", self.host),
            false => format!("{}:{port}", self.host),
        }
    }

    pub(super) fn scheme(&self) -> &'static str {
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
    pub(super) async fn connect(&self) -> Result<TcpStream, String> {
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
    pub(super) async fn open(&self) -> Result<TokioIo<Box<dyn Wire>>, String> {
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
