//! Opening a connection: TCP, TLS, and the HTTP handshake, all within the connect timeout.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use super::pool::{Http1, Http2, MAX_STREAMS, Pool};
use crate::cluster::{Berth, ConnectionCount, Endpoint};
use crate::error::Reason;
use crate::io::{Io, Stream};
use crate::local::UpstreamExecutor;

/// Largest response head from an endpoint, bytes.
const RESPONSE_HEAD: usize = 256 << 10;

/// Answer bytes on their way in one HTTP/2 stream. The connection has room for all its streams: a client that reads
/// slowly holds up nobody else.
const STREAM_WINDOW: u32 = 256 << 10;

/// How to open connections to a cluster's endpoints.
#[derive(Clone)]
pub struct Connector {
    /// Deadline over TCP, TLS and handshake together.
    pub timeout: Duration,
    /// Bound of the cluster's open connections.
    pub limit: Option<u32>,
    /// TLS settings that offer HTTP/1.1 and HTTP/2 respectively.
    pub tls: Option<Arc<ConnectorTls>>,
    /// Changes whenever old connections must not be used any more.
    pub key: u64,
    /// Where the endpoints are dialed; `None`: at their own ports.
    pub port: Option<u16>,
}

/// TLS towards endpoints.
pub struct ConnectorTls {
    /// Offers `http/1.1`.
    pub http1: Arc<rustls::ClientConfig>,
    /// Offers `h2`.
    pub http2: Arc<rustls::ClientConfig>,
    /// Name that overrides the endpoint's.
    pub server_name: Option<ServerName<'static>>,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// TCP, TLS or the handshake failed.
    Failed(io::Error),
    /// It took longer than the connect timeout.
    TimedOut,
    /// The cluster has as many connections as its breaker allows.
    Breaker,
    /// None of as many connections as the endpoint may have was closed in time for another one.
    Crowded,
}

impl ConnectError {
    /// The same failure for somebody else who waited for the same connection.
    #[must_use]
    pub fn again(&self) -> Self {
        match self {
            Self::Failed(error) => Self::Failed(match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(error.kind(), error.to_string()),
            }),
            Self::TimedOut => Self::TimedOut,
            Self::Breaker => Self::Breaker,
            Self::Crowded => Self::Crowded,
        }
    }

    /// True when it says nothing of the endpoint: a bound of ours, or this machine, let nobody out.
    pub fn is_ours(&self) -> bool {
        match self {
            Self::Failed(error) => is_out_of_sockets(error),
            Self::TimedOut => false,
            Self::Breaker | Self::Crowded => true,
        }
    }

    /// What the client is told.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Failed(_) => Reason::ConnectFailed,
            Self::TimedOut | Self::Crowded => Reason::ConnectTimeout,
            Self::Breaker => Reason::BreakerOpen,
        }
    }
}

/// True for what the system says when it has no file descriptor, port or memory for another socket.
pub fn is_out_of_sockets(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let ours = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::ADDRNOTAVAIL,
        Errno::NOBUFS,
        Errno::NOMEM,
    ];
    let code = error.raw_os_error();
    ours.iter().any(|ours| code == Some(ours.raw_os_error()))
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl Connector {
    /// The same at another port of each endpoint. The two share no connection.
    #[must_use]
    pub fn at_port(&self, port: u16) -> Self {
        let mut hasher = DefaultHasher::new();
        (self.key, port).hash(&mut hasher);
        Self {
            key: hasher.finish(),
            port: Some(port),
            ..self.clone()
        }
    }

    /// Opens a byte stream to the endpoint, for tunnels.
    ///
    /// * `berth`: held for as long as the connection is counted
    ///
    /// # Errors
    ///
    /// See [`ConnectError`].
    pub async fn stream(
        &self,
        endpoint: &Arc<Endpoint>,
        http2: bool,
        berth: Option<Berth>,
    ) -> Result<(Stream, ConnectionCount), ConnectError> {
        let count = ConnectionCount::begin(endpoint, self.limit, berth);
        let count = count.ok_or(ConnectError::Breaker)?;
        match tokio::time::timeout(self.timeout, self.open(endpoint, http2)).await {
            Ok(opened) => Ok((opened?, count)),
            Err(_) => Err(ConnectError::TimedOut),
        }
    }

    async fn open(&self, endpoint: &Endpoint, http2: bool) -> io::Result<Stream> {
        let mut address = endpoint.address;
        address.set_port(self.port.unwrap_or(address.port()));
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return Ok(Stream::Plain(tcp));
        };
        let name = match &tls.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(endpoint.host.to_string())
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?,
        };
        let config = if http2 { &tls.http2 } else { &tls.http1 };
        let stream = tokio_rustls::TlsConnector::from(Arc::clone(config))
            .connect(name, tcp)
            .await?;
        if http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::other(
                "the endpoint does not offer HTTP/2 in ALPN",
            ));
        }
        Ok(Stream::Client(Box::new(stream)))
    }

    /// Opens an HTTP/1.1 connection.
    ///
    /// * `berth`: `None`: it serves one request and is closed
    ///
    /// # Errors
    ///
    /// See [`ConnectError`].
    pub async fn http1(
        &self,
        endpoint: &Arc<Endpoint>,
        berth: Option<Berth>,
    ) -> Result<Http1, ConnectError> {
        let stays = berth.is_some();
        let (stream, count) = self.stream(endpoint, false, berth).await?;
        let (io, wire) = Io::upstream(stream);
        let (sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(RESPONSE_HEAD)
            .max_header_size(RESPONSE_HEAD)
            .handshake(TokioIo::new(io))
            .await
            .map_err(io::Error::other)?;
        let mut connection = Http1::spawn(sender, connection, wire, count);
        connection.stays = stays;
        Ok(connection)
    }

    /// Opens an HTTP/2 connection, by ALPN on TLS and with prior knowledge without.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`].
    pub async fn http2(&self, pool: &Rc<Pool>) -> Result<Rc<Http2>, ConnectError> {
        let (stream, count) = self.stream(&pool.endpoint, true, None).await?;
        let (io, _) = Io::new(stream, bytes::Bytes::new());
        let executor = UpstreamExecutor::default();
        let hitch = executor.hitch().clone();
        let (sender, connection) = hyper::client::conn::http2::Builder::new(executor)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW * MAX_STREAMS as u32)
            .max_send_buf_size(64 << 10)
            .max_frame_size(64 << 10)
            .keep_alive_interval(Duration::from_secs(30))
            .timer(hyper_util::rt::TokioTimer::new())
            .handshake(TokioIo::new(io))
            .await
            .map_err(io::Error::other)?;
        Ok(Http2::spawn(sender, connection, hitch, count))
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn what_this_machine_lacks_is_no_fault_of_an_endpoint() {
        let failed =
            |errno: Errno| ConnectError::Failed(io::Error::from_raw_os_error(errno.raw_os_error()));
        for errno in [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL] {
            assert!(failed(errno).is_ours() && failed(errno).again().is_ours());
        }
        assert!(!failed(Errno::CONNREFUSED).is_ours());
        assert!(!ConnectError::from(io::Error::from(io::ErrorKind::ConnectionReset)).is_ours());
        assert!(ConnectError::Breaker.is_ours() && !ConnectError::TimedOut.is_ours());
        assert!(ConnectError::Crowded.again().is_ours());
    }
}
