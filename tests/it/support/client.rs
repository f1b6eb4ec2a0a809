//! A raw HTTP/1.1 client that sends exactly the bytes it is told to.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

/// One connection.
pub struct Client {
    /// The socket.
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// The head as text.
    pub head: String,
    /// The body, chunks taken apart.
    pub body: Vec<u8>,
}

impl Answer {
    /// A field's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// `x-forebay-reason`.
    pub fn reason(&self) -> &str {
        self.header("x-forebay-reason").unwrap_or("")
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// One request on a connection of its own.
    pub async fn once(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
        let mut client = Self::connect(address).await;
        client.send(request).await;
        client.answer().await
    }

    /// GET on a connection of its own.
    pub async fn get(address: SocketAddr, path: &str) -> Answer {
        Self::once(
            address,
            format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"),
        )
        .await
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends bytes to a proxy that may have closed already.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Reads one whole answer after any number of interim ones, or what came before the connection ended.
    pub async fn final_answer(&mut self) -> Result<Answer, Vec<u8>> {
        loop {
            let answer = self.try_answer().await?;
            if answer.status >= 200 {
                return Ok(answer);
            }
        }
    }

    async fn more(&mut self) -> bool {
        let mut block = [0u8; 4 << 10];
        let read = timeout(PATIENCE, self.stream.read(&mut block))
            .await
            .expect("the proxy says something");
        match read {
            Ok(0) | Err(_) => false,
            Ok(n) => {
                self.buffer.extend_from_slice(&block[..n]);
                true
            }
        }
    }

    /// Reads a head; `None` when the connection ends first.
    pub async fn try_head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Reads one whole answer.
    ///
    /// # Panics
    ///
    /// When the connection ends before it is complete.
    pub async fn answer(&mut self) -> Answer {
        self.try_answer()
            .await
            .unwrap_or_else(|got| panic!("a cut answer: {got:?}"))
    }

    /// Reads one whole answer, or what came of it before the connection ended.
    pub async fn try_answer(&mut self) -> Result<Answer, Vec<u8>> {
        let Some(head) = self.try_head().await else {
            return Err(std::mem::take(&mut self.buffer));
        };
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        let lower = head.to_ascii_lowercase();
        let mut body = Vec::new();
        if lower.contains("transfer-encoding: chunked") {
            loop {
                let Some(line) = self.line().await else {
                    return Err(body);
                };
                let size =
                    usize::from_str_radix(line.split(';').next().unwrap().trim(), 16).unwrap();
                if !self.fill(size + 2).await {
                    body.extend_from_slice(&self.buffer);
                    return Err(body);
                }
                if size == 0 {
                    self.buffer.drain(..2);
                    break;
                }
                body.extend(self.buffer.drain(..size));
                self.buffer.drain(..2);
            }
        } else if let Some(rest) = lower.split("content-length: ").nth(1) {
            let length: usize = rest.split("\r\n").next().unwrap().trim().parse().unwrap();
            if !self.fill(length).await {
                return Err(std::mem::take(&mut self.buffer));
            }
            body.extend(self.buffer.drain(..length));
        } else if status >= 200 && status != 204 && status != 304 {
            while self.more().await {}
            body = std::mem::take(&mut self.buffer);
        }
        Ok(Answer { status, head, body })
    }

    async fn fill(&mut self, bytes: usize) -> bool {
        while self.buffer.len() < bytes {
            if !self.more().await {
                return false;
            }
        }
        true
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Some(String::from_utf8(line).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Waits for `bytes` more bytes and returns them.
    pub async fn bytes(&mut self, bytes: usize) -> Vec<u8> {
        assert!(self.fill(bytes).await, "ended after {:?}", self.buffer);
        self.buffer.drain(..bytes).collect()
    }

    /// Waits for the end of the connection; `true`: by FIN, `false`: by reset.
    pub async fn closed(&mut self) -> bool {
        let mut block = [0u8; 4 << 10];
        loop {
            match timeout(PATIENCE, self.stream.read(&mut block))
                .await
                .expect("the proxy closes")
            {
                Ok(0) => return true,
                Ok(n) => self.buffer.extend_from_slice(&block[..n]),
                Err(_) => return false,
            }
        }
    }

    /// Everything until the end of the connection, and whether a FIN ended it rather than a reset.
    pub async fn all(&mut self) -> (Vec<u8>, bool) {
        let by_fin = self.closed().await;
        (std::mem::take(&mut self.buffer), by_fin)
    }
}
