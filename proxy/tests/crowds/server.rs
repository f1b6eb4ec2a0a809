//! The played model server. It speaks as llama.cpp does, notes what it does in files, and does what it finds there.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub(crate) const ROLE: &str = "FOREBAY_TEST_ROLE";
pub(crate) const FILES: &str = "FOREBAY_TEST_FILES";
/// It listens only once the test says so.
const GATED: &str = "GATED";
/// Checks that are told that it is loading.
const LOADING: usize = 2;

struct Server {
    files: PathBuf,
    checks: AtomicUsize,
    inside: AtomicUsize,
}

/// Serves until it is ended; its port is the last argument.
pub(crate) fn play() {
    if std::env::var(ROLE).as_deref() != Ok("server") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(serve());
}

async fn serve() {
    let files = PathBuf::from(std::env::var(FILES).unwrap());
    let server = Arc::new(Server {
        files,
        checks: AtomicUsize::new(0),
        inside: AtomicUsize::new(0),
    });
    server.note("pids", &std::process::id().to_string());
    if std::env::var_os(GATED).is_some() {
        wait_for(&server.files.join("listen")).await;
    }
    let port: u16 = std::env::args().next_back().unwrap().parse().unwrap();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(([127, 0, 0, 1], port).into()).unwrap();
    let listener: TcpListener = socket.listen(1024).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let server = Arc::clone(&server);
        tokio::spawn(async move { server.answer_all(stream).await });
    }
}

async fn wait_for(file: &Path) {
    while !file.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Server {
    fn note(&self, name: &str, text: &str) {
        let path = self.files.join(name);
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        file.write_all(format!("{text}\n").as_bytes()).unwrap();
    }

    /// The requests of one connection, one after the other.
    async fn answer_all(&self, mut stream: TcpStream) -> Option<()> {
        let mut bytes = Vec::new();
        loop {
            let end = loop {
                match bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                    Some(end) => break end + 4,
                    None => more(&mut stream, &mut bytes).await?,
                }
            };
            let head: Vec<u8> = bytes.drain(..end).collect();
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1);
            let length = length.map_or(0, |rest| {
                rest.lines().next().unwrap().trim().parse().unwrap()
            });
            while bytes.len() < length {
                more(&mut stream, &mut bytes).await?;
            }
            let body: Vec<u8> = bytes.drain(..length).collect();
            let path = head.split(' ').nth(1).unwrap();
            self.answer(&mut stream, path, &body).await?;
        }
    }

    async fn answer(&self, stream: &mut TcpStream, path: &str, body: &[u8]) -> Option<()> {
        if path == "/health" {
            let loads = self.checks.fetch_add(1, Ordering::SeqCst) < LOADING;
            if loads {
                self.note("loading", "");
            }
            return say(stream, if loads { 503 } else { 200 }, "{}").await;
        }
        if self.checks.load(Ordering::SeqCst) <= LOADING {
            self.note("early", path);
            return say(stream, 503, "loading").await;
        }
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.note("inside", &inside.to_string());
        self.note("served", path);
        if !body
            .iter()
            .eq(path.as_bytes().iter().cycle().take(body.len()))
        {
            self.note("wrong", path);
        }
        let said = match path {
            "/stream" => self.stream(stream).await,
            _ => {
                tokio::time::sleep(Duration::from_millis(2)).await; // its work
                self.inside.fetch_sub(1, Ordering::SeqCst);
                return say(stream, 200, path).await;
            }
        };
        self.inside.fetch_sub(1, Ordering::SeqCst);
        said
    }

    /// Something at once, and the rest when the test says so.
    async fn stream(&self, stream: &mut TcpStream) -> Option<()> {
        let first = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
        stream.write_all(first.as_bytes()).await.ok()?;
        wait_for(&self.files.join("end")).await;
        stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").await.ok()
    }
}

async fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    match stream.read_buf(bytes).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(()),
    }
}

async fn say(stream: &mut TcpStream, status: u16, text: &str) -> Option<()> {
    let length = text.len();
    let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{text}");
    stream.write_all(answer.as_bytes()).await.ok()
}
