//! HTTP/2 as the `h2` crate speaks it, with no HTTP library above: clients and endpoints that see trailers, resets
//! and windows; and frames by hand for what `h2` would never send.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ::h2::client::{Builder, ResponseFuture, SendRequest};
use ::h2::server::SendResponse;
use ::h2::{RecvStream, SendStream};
use bytes::Bytes;
use http::{HeaderMap, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::PATIENCE;

/// Waits for what should happen soon.
///
/// # Panics
///
/// When it does not happen within [`PATIENCE`].
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    let result = tokio::time::timeout(PATIENCE, future).await;
    result.unwrap_or_else(|_| panic!("never happened: {what}"))
}

/// A client's connection.
pub struct H2 {
    /// Opens streams.
    pub sender: SendRequest<Bytes>,
    /// Ends with the connection.
    pub connection: JoinHandle<Result<(), ::h2::Error>>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// Status and fields.
    pub head: http::response::Parts,
    /// All data.
    pub body: Vec<u8>,
    /// Fields after the data.
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// Status code.
    pub fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    /// A field's first value, empty without one.
    pub fn field(&self, name: &str) -> &str {
        text(&self.head.headers, name)
    }

    /// `x-forebay-reason`.
    pub fn reason(&self) -> &str {
        self.field("x-forebay-reason")
    }

    /// A trailer's first value, empty without one.
    pub fn trailer(&self, name: &str) -> &str {
        self.trailers.as_ref().map_or("", |t| text(t, name))
    }
}

fn text<'a>(fields: &'a HeaderMap, name: &str) -> &'a str {
    fields.get(name).map_or("", |v| v.to_str().unwrap())
}

impl H2 {
    /// Connects with prior knowledge.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &Builder::new()).await
    }

    /// Connects with prior knowledge and these settings.
    pub async fn connect_with(address: SocketAddr, builder: &Builder) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap(), builder).await
    }

    /// Speaks over a byte stream.
    pub async fn over<T>(io: T, builder: &Builder) -> Self
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = soon("a handshake", builder.handshake(io)).await.unwrap();
        let connection = tokio::spawn(connection);
        Self { sender, connection }
    }

    /// Opens a stream; `end`: without a body.
    pub async fn begin(
        &self,
        request: Request<()>,
        end: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let ready = soon("room for a stream", self.sender.clone().ready()).await;
        ready.unwrap().send_request(request, end).unwrap()
    }

    /// One whole request without a body.
    pub async fn send(&self, request: Request<()>) -> Result<Answer, ::h2::Error> {
        let (answer, _) = self.begin(request, true).await;
        soon("an answer", collect(answer)).await
    }

    /// One whole GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(get(path)).await.unwrap()
    }
}

/// A GET for the host `test`.
pub fn get(path: &str) -> Request<()> {
    Request::get(format!("http://test{path}")).body(()).unwrap()
}

/// A POST for the host `test`.
pub fn post(path: &str) -> http::request::Builder {
    Request::post(format!("http://test{path}"))
}

/// Receives a whole answer.
pub async fn collect(answer: ResponseFuture) -> Result<Answer, ::h2::Error> {
    let (head, body) = answer.await?.into_parts();
    let (body, trailers) = whole(body).await?;
    Ok(Answer {
        head,
        body,
        trailers,
    })
}

/// Receives a whole body and its trailers.
pub async fn whole(mut body: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), ::h2::Error> {
    let mut bytes = Vec::new();
    while let Some(block) = body.data().await {
        let block = block?;
        body.flow_control().release_capacity(block.len())?;
        bytes.extend_from_slice(&block);
    }
    Ok((bytes, body.trailers().await?))
}

/// Receives data until `bytes` are there.
pub async fn take(body: &mut RecvStream, bytes: usize) -> Vec<u8> {
    let mut taken = Vec::new();
    while taken.len() < bytes {
        let block = soon("data", body.data()).await.expect("more data").unwrap();
        body.flow_control().release_capacity(block.len()).unwrap();
        taken.extend_from_slice(&block);
    }
    taken
}

/// A map of these fields.
pub fn fields(list: &[(&'static str, &'static str)]) -> HeaderMap {
    let pairs = list
        .iter()
        .map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap()));
    pairs.collect()
}

/// An endpoint that speaks HTTP/2 only.
pub struct H2Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    /// Heads of all requests, in the order of their arrival.
    pub heads: Arc<Mutex<Vec<http::request::Parts>>>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl H2Upstream {
    /// Listens in cleartext and runs `script` for each stream.
    pub async fn start<F, S>(script: S) -> Self
    where
        S: Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start_with(None, script).await
    }

    /// Listens, with TLS if told so, and runs `script` for each stream.
    pub async fn start_with<F, S>(tls: Option<TlsAcceptor>, script: S) -> Self
    where
        S: Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads: Arc<Mutex<Vec<http::request::Parts>>> = Arc::default();
        let connections: Arc<AtomicUsize> = Arc::default();
        let (seen, count) = (Arc::clone(&heads), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let (seen, script, tls) = (Arc::clone(&seen), script.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(socket, seen, script).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(socket).await {
                                serve(stream, seen, script).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            heads,
            connections,
            task,
        }
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for H2Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve<T, F, S>(io: T, seen: Arc<Mutex<Vec<http::request::Parts>>>, script: S)
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: Fn(Request<RecvStream>, SendResponse<Bytes>) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let Ok(mut connection) = ::h2::server::handshake(io).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (head, body) = request.into_parts();
        seen.lock().unwrap().push(head.clone());
        tokio::spawn(script(Request::from_parts(head, body), respond));
    }
}

/// Frame types, by the names of RFC 9113.
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const CONTINUATION: u8 = 9;
}

/// A frame as it came.
#[derive(Debug)]
pub struct Frame {
    /// One of [`kind`].
    pub kind: u8,
    /// 1: END_STREAM or ACK; 4: END_HEADERS.
    pub flags: u8,
    /// 0: the connection.
    pub stream: u32,
    /// Everything after the nine bytes.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of a RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == kind::GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// A client that writes frames by hand.
pub struct RawH2 {
    /// The socket.
    pub stream: TcpStream,
}

impl RawH2 {
    /// Connects and sends the preface with empty settings.
    pub async fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        stream
            .write_all(&frame(kind::SETTINGS, 0, 0, &[]))
            .await
            .unwrap();
        Self { stream }
    }

    /// Reads a frame; `None` at the end of the connection, however it ends.
    pub async fn next(&mut self) -> Option<Frame> {
        let mut head = [0u8; 9];
        soon("a frame", self.stream.read_exact(&mut head))
            .await
            .ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0u8; length];
        soon("a payload", self.stream.read_exact(&mut payload))
            .await
            .ok()?;
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream,
            payload,
        })
    }

    /// Reads until a frame of this kind comes; `None` when the connection ends first.
    pub async fn until(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block for `GET /` on host `test`, with literal fields that no table keeps.
pub fn block(more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x84, 0x01, 4];
    block.extend(b"test");
    for (name, value) in more {
        assert!(
            name.len() < 127 && value.len() < 127,
            "a length of one byte"
        );
        block.extend([0x00, name.len() as u8]);
        block.extend(name.as_bytes());
        block.push(value.len() as u8);
        block.extend(value.as_bytes());
    }
    block
}
