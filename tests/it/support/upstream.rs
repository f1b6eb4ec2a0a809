//! An endpoint that records every byte it got and answers as the test says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::until;

/// What one connection brought, head and body as they came.
pub type Transcript = Arc<Mutex<Vec<u8>>>;

/// A raw TCP server: the script gets each connection, reads through [`Peer`] and writes what it likes.
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    connections: Arc<Mutex<Vec<Transcript>>>,
    task: tokio::task::JoinHandle<()>,
}

/// One connection of an [`Upstream`].
pub struct Peer {
    /// The socket.
    pub stream: TcpStream,
    /// Bytes read and not consumed yet.
    pub buffer: Vec<u8>,
    transcript: Transcript,
}

impl Upstream {
    /// Listens and runs `script` for each connection.
    pub async fn start<F, S>(script: S) -> Self
    where
        S: Fn(Peer) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), script)
    }

    /// Runs `script` for each connection of a socket that listens already.
    pub fn on<F, S>(listener: TcpListener, script: S) -> Self
    where
        S: Fn(Peer) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let connections: Arc<Mutex<Vec<Transcript>>> = Arc::default();
        let all = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let transcript = Transcript::default();
                all.lock().unwrap().push(Arc::clone(&transcript));
                tokio::spawn(script(Peer {
                    stream,
                    buffer: Vec::new(),
                    transcript,
                }));
            }
        });
        Self {
            address,
            connections,
            task,
        }
    }

    /// Answers every request with 200 and this body, keeping connections open.
    pub async fn fixed(body: &'static str) -> Self {
        Self::start(move |mut peer| async move {
            while peer.request().await.is_some() {
                if peer.stream.write_all(&respond(200, body)).await.is_err() {
                    break;
                }
            }
        })
        .await
    }

    /// Everything that each connection brought, in the order of their arrival.
    pub fn transcripts(&self) -> Vec<Vec<u8>> {
        self.connections
            .lock()
            .unwrap()
            .iter()
            .map(|t| t.lock().unwrap().clone())
            .collect()
    }

    /// All bytes of all connections as text.
    pub fn text(&self) -> String {
        self.transcripts()
            .iter()
            .map(|t| String::from_utf8_lossy(t).into_owned())
            .collect()
    }

    /// Waits until the text of all connections contains `needle`.
    pub async fn saw(&self, needle: &str) {
        until(&format!("upstream saw {needle:?}"), async || {
            self.text().contains(needle)
        })
        .await;
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer {
    /// Reads more; `false` at the end.
    pub async fn read(&mut self) -> bool {
        let mut block = [0u8; 4 << 10];
        match self.stream.read(&mut block).await {
            Ok(0) | Err(_) => false,
            Ok(n) => {
                self.buffer.extend_from_slice(&block[..n]);
                self.transcript
                    .lock()
                    .unwrap()
                    .extend_from_slice(&block[..n]);
                true
            }
        }
    }

    /// Reads one head and returns it as text, blank line included; `None` at the end.
    pub async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = self.buffer.drain(..end + 4).collect::<Vec<_>>();
                return Some(String::from_utf8(head).unwrap());
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// Reads one whole request, its body by length or chunks; returns head and raw body.
    pub async fn request(&mut self) -> Option<(String, Vec<u8>)> {
        let head = self.head().await?;
        let lower = head.to_ascii_lowercase();
        let mut body = Vec::new();
        if lower.contains("transfer-encoding: chunked") {
            loop {
                let at = self.buffer.windows(5).position(|w| w == b"0\r\n\r\n");
                if let Some(end) = at {
                    body = self.buffer.drain(..end + 5).collect();
                    break;
                }
                if !self.read().await {
                    return None;
                }
            }
        } else if let Some(rest) = lower.split("content-length: ").nth(1) {
            let length: usize = rest.split("\r\n").next()?.trim().parse().ok()?;
            while self.buffer.len() < length {
                if !self.read().await {
                    return None;
                }
            }
            body = self.buffer.drain(..length).collect();
        }
        Some((head, body))
    }

    /// Writes bytes; errors are the test's peer leaving.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Reads until the other side closes; `true`: by FIN, `false`: by reset.
    pub async fn closed(&mut self) -> bool {
        let mut block = [0u8; 4 << 10];
        loop {
            match self.stream.read(&mut block).await {
                Ok(0) => return true,
                Ok(n) => self
                    .transcript
                    .lock()
                    .unwrap()
                    .extend_from_slice(&block[..n]),
                Err(_) => return false,
            }
        }
    }
}

/// A whole answer with a length.
pub fn respond(status: u16, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
