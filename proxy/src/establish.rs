//! From accept to the first request: PROXY header, TLS, protocol.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use forebay_config::ListenerProtocol;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::io::Stream;
use crate::proxy_protocol;
use crate::snapshot::ListenerView;
use crate::sniff::{self, Protocol};
use crate::tls::{self, Loaded};

/// Bytes read at once while the protocol is found out.
const FIRST_READ: usize = 8 << 10;

/// What is known of a connection before its first request.
pub struct Established {
    /// The bytes.
    pub stream: Stream,
    /// The client.
    pub peer: SocketAddr,
    /// Certificates shown, and the name asked for.
    pub tls: Option<(Arc<Loaded>, Option<String>)>,
    /// What it speaks.
    pub protocol: Protocol,
    /// Read while the protocol was found out.
    pub prefix: Bytes,
}

/// Reads the PROXY header, shakes hands and finds the protocol. Has no deadline of its own.
///
/// # Errors
///
/// The label to count the failure by.
pub async fn establish(
    view: &ListenerView,
    mut socket: TcpStream,
    peer: SocketAddr,
) -> Result<Established, &'static str> {
    let mut peer = peer;
    let mut prefix = BytesMut::new();
    if view.config.proxy_protocol {
        let ip = peer.ip().to_canonical();
        if !view
            .config
            .trusted_proxies
            .iter()
            .any(|net| net.contains(&ip))
        {
            return Err("proxy_protocol");
        }
        let source = proxy_protocol::read_header(&mut socket)
            .await
            .map_err(|_| "proxy_protocol")?;
        peer = source.unwrap_or(peer);
    }
    let plain_http = view.config.protocol == ListenerProtocol::Http;
    let Some(state) = &view.tls else {
        let mut protocol = Protocol::Http1;
        if plain_http {
            protocol = find_protocol(&mut socket, &mut prefix).await?;
        }
        let stream = Stream::Plain(socket);
        return Ok(Established {
            stream,
            peer,
            tls: None,
            protocol,
            prefix: prefix.freeze(),
        });
    };
    let loaded = state.current();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(loaded.config()));
    let stream = acceptor.accept(socket).await.map_err(|_| "tls_handshake")?;
    let session = stream.get_ref().1;
    if !tls::client_is_current(session, SystemTime::now()) {
        return Err("tls_handshake"); // rustls does not look at dates again on resumption
    }
    let protocol = if session.alpn_protocol() == Some(b"h2") {
        Protocol::Http2
    } else {
        Protocol::Http1
    };
    let name = session.server_name().map(str::to_ascii_lowercase);
    let stream = Stream::Server(Box::new(stream));
    Ok(Established {
        stream,
        peer,
        tls: Some((loaded, name)),
        protocol,
        prefix: Bytes::new(),
    })
}

async fn find_protocol(
    socket: &mut TcpStream,
    prefix: &mut BytesMut,
) -> Result<Protocol, &'static str> {
    loop {
        match sniff::sniff(prefix) {
            Protocol::Undecided => {}
            Protocol::Tls => return Err("tls_on_plain"),
            decided => return Ok(decided),
        }
        prefix.reserve(FIRST_READ);
        match socket.read_buf(prefix).await {
            Ok(0) if prefix.is_empty() => return Err("closed_unused"),
            Ok(0) | Err(_) => return Err("closed_early"),
            Ok(_) => {}
        }
    }
}
