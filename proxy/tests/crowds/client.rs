//! Clients: over HTTP/1.1 byte by byte, and a stream over HTTP/2.

use h2::RecvStream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::running::PATIENCE;

/// A connection with one request.
pub(crate) struct Caller {
    stream: TcpStream,
    got: Vec<u8>,
}

impl Caller {
    async fn send(port: u16, request: &[u8]) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(request).await.unwrap();
        Self {
            stream,
            got: Vec::new(),
        }
    }

    pub(crate) async fn get(port: u16, path: &str) -> Self {
        let request = format!("GET {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n");
        Self::send(port, request.as_bytes()).await
    }

    /// Its body is its path over and over.
    pub(crate) async fn post(port: u16, path: &str, length: usize) -> Self {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        let mut request = head.into_bytes();
        request.extend(path.as_bytes().iter().cycle().take(length));
        Self::send(port, &request).await
    }

    /// Reads until these words have come.
    pub(crate) async fn hears(&mut self, words: &str) {
        while !String::from_utf8_lossy(&self.got).contains(words) {
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.got));
            let read = read.await.expect("something comes").unwrap();
            assert!(
                read > 0,
                "it ended after {:?}",
                String::from_utf8_lossy(&self.got)
            );
        }
    }

    /// Everything until the end of the connection, however it ends.
    pub(crate) async fn whole(mut self) -> String {
        let read = self.stream.read_to_end(&mut self.got);
        let _ = tokio::time::timeout(PATIENCE, read).await.expect("it ends");
        String::from_utf8(self.got).unwrap()
    }
}

/// An answer in chunks came to its end.
pub(crate) fn is_whole(answer: &str) -> bool {
    answer.ends_with("\r\n0\r\n\r\n")
}

/// The body of an answer over HTTP/2.
pub(crate) async fn stream_over_http2(port: u16, path: &str) -> RecvStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(format!("http://t{path}"))
        .body(())
        .unwrap();
    let (answer, _) = sender.send_request(request, true).unwrap();
    let answer = tokio::time::timeout(PATIENCE, answer)
        .await
        .expect("an answer");
    answer.unwrap().into_body()
}
