//! Pages over real sockets.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use forebay_config::load::{SourceFile, load};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::cluster::{Candidate, ClusterState};
use crate::upstream::Connector;

/// A server whose answers are what is in there.
struct Server {
    address: SocketAddr,
    answer: watch::Sender<Vec<u8>>,
    heads: Arc<Mutex<String>>,
    asked: watch::Receiver<usize>,
    connections: Arc<AtomicUsize>,
    _task: Task,
}

impl Server {
    async fn start(answer: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = watch::Sender::new(answer);
        let (heads, connections) = (Arc::new(Mutex::new(String::new())), Arc::default());
        let (count, asked) = watch::channel(0);
        let told = answer.subscribe();
        let (seen, opened) = (Arc::clone(&heads), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                AtomicUsize::fetch_add(&opened, 1, SeqCst);
                let (told, seen, count) = (told.clone(), Arc::clone(&seen), count.clone());
                tokio::spawn(serve(tcp, told, seen, count));
            }
        });
        Self {
            address,
            answer,
            heads,
            asked,
            connections,
            _task: Task::new(task.abort_handle()),
        }
    }

    async fn asked(&self, times: usize) {
        let mut asked = self.asked.clone();
        asked.wait_for(|count| *count >= times).await.unwrap();
    }
}

async fn serve(
    mut tcp: TcpStream,
    told: watch::Receiver<Vec<u8>>,
    seen: Arc<Mutex<String>>,
    count: watch::Sender<usize>,
) {
    let mut head = Vec::new();
    let mut block = [0; 1024];
    while let Ok(read @ 1..) = tcp.read(&mut block).await {
        head.extend_from_slice(&block[..read]);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8(std::mem::take(&mut head)).unwrap();
        seen.lock().unwrap().push_str(&text);
        let answer = told.borrow().clone();
        let _ = tcp.write_all(&answer).await; // it may have heard enough
        count.send_modify(|count| *count += 1);
    }
}

fn page(text: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    )
    .into_bytes()
}

fn waiting(requests: u32) -> Vec<u8> {
    page(&format!(
        "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting {requests}\n"
    ))
}

/// A cluster with these endpoints.
fn cluster(keys: &str, addresses: &[SocketAddr]) -> Subject {
    let source = SourceFile {
        name: "a.yaml".into(),
        directory: "/".into(),
        text: format!("clusters: [{{name: a, server: vllm, endpoints: ['127.0.0.1:1'], {keys}}}]"),
    };
    let mut config = load(&[source], &|_| None).unwrap().config;
    let config = config.clusters.pop().unwrap();
    let state = Arc::new(ClusterState::new("a"));
    let candidates = addresses.iter().map(|&address| Candidate {
        address,
        host: "127.0.0.1".into(),
        weight: 1,
    });
    state.update(candidates.collect(), &config.balance);
    Subject {
        config,
        state,
        connector: Connector {
            timeout: Duration::from_secs(5),
            limit: Some(0), // pages are not held up by it
            tls: None,
            key: 0,
            port: None,
        },
    }
}

const SCALE: &str = "scale: {observe: {}, target: {queue: 5}}";

/// Waits for a state of the queue.
async fn until(board: &Board, wanted: State) {
    let reached = async {
        while board.state(Signal::Queue, Instant::now()) != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_secs(20), reached).await;
    reached.unwrap_or_else(|_| panic!("never {wanted:?}"));
}

/// What one page of the endpoint says.
async fn read(subject: &Subject, address: SocketAddr) -> Result<Reading, Fault> {
    let endpoint = subject.state.endpoints().at(address).cloned().unwrap();
    fetch::Link::default().read(subject, &endpoint).await
}

#[tokio::test]
async fn pages_are_read_again_and_again_over_one_connection() {
    let server = Server::start(waiting(3)).await;
    let subject = cluster(SCALE, &[server.address]);
    let scraper = Scraper::new();
    scraper.follow([subject]);
    let board = scraper.board("a").unwrap();
    until(&board, State::Known(3.0)).await;
    server.answer.send_replace(waiting(8));
    until(&board, State::Known(8.0)).await;
    assert_eq!(server.connections.load(SeqCst), 1);
    let heads = server.heads.lock().unwrap().to_ascii_lowercase();
    assert!(heads.starts_with("get /metrics http/1.1\r\n"), "{heads}");
    assert!(heads.contains(&format!("host: {}\r\n", server.address)));
    assert!(heads.contains("user-agent: forebay-signals/"));
    let report = &scraper.report()["a"];
    assert_eq!(report["queue"]["value"], 8.0);
    assert_eq!(report["endpoints"][0]["queue"], 8.0);
    assert!(report["endpoints"][0]["running"].is_null());
}

#[tokio::test]
async fn a_connection_that_was_closed_is_opened_again() {
    let mut closing = waiting(3);
    closing.splice(15..15, b"\r\nconnection: close".iter().copied());
    let server = Server::start(closing).await;
    let subject = cluster(SCALE, &[server.address]);
    let scraper = Scraper::new();
    scraper.follow([subject]);
    server.asked(2).await;
    until(&scraper.board("a").unwrap(), State::Known(3.0)).await;
    assert!(server.connections.load(SeqCst) >= 2);
}

#[tokio::test]
async fn what_is_no_page_says_why() {
    let server = Server::start(page("other 1\n")).await;
    let subject = cluster(SCALE, &[server.address]);
    let missing = read(&subject, server.address).await.unwrap();
    assert_eq!(missing, [Err(Lack::Missing); 3]);
    let not_found = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec();
    server.answer.send_replace(not_found);
    assert_eq!(
        read(&subject, server.address).await,
        Err(Fault::Status(404))
    );
    server.answer.send_replace(page(&"x".repeat((8 << 20) + 1)));
    assert_eq!(read(&subject, server.address).await, Err(Fault::TooLarge));
    server.answer.send_replace(b"hello\r\n\r\n".to_vec());
    assert_eq!(
        read(&subject, server.address).await,
        Err(Fault::Unreachable)
    );
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let subject = cluster(SCALE, &[nobody]);
    assert_eq!(read(&subject, nobody).await, Err(Fault::Unreachable));
}

#[tokio::test]
async fn the_page_may_have_a_port_of_its_own() {
    let server = Server::start(waiting(4)).await;
    let elsewhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let port = server.address.port();
    let subject = cluster(
        &format!("ports: {{metrics: {port}}}, {SCALE}"),
        &[elsewhere],
    );
    let reading = read(&subject, elsewhere).await.unwrap();
    assert_eq!(reading[Signal::Queue as usize], Ok(4.0));
}

#[tokio::test]
async fn nobody_is_asked_without_a_target_or_while_not_ready() {
    let server = Server::start(waiting(3)).await;
    let scraper = Scraper::new();
    let subject = cluster("scale: {observe: {}}", &[server.address]);
    scraper.follow([subject.clone()]);
    let board = scraper.board("a").unwrap();
    assert!(scraper.report().is_empty());
    // The same cluster gets a target while its endpoint is down.
    let wanting = Subject {
        config: cluster(SCALE, &[]).config,
        ..subject
    };
    let endpoint = wanting.state.endpoints().at(server.address).cloned();
    let endpoint = endpoint.unwrap();
    wanting.state.mark_down(&endpoint);
    scraper.follow([wanting.clone()]);
    let held = Arc::clone(&board);
    let asleep = tokio::time::timeout(3 * PERIOD / 2, until(&held, State::Known(3.0))).await;
    assert!(asleep.is_err() && server.connections.load(SeqCst) == 0);
    wanting.state.mark_up(&endpoint);
    until(&board, State::Known(3.0)).await;
    // Who left is not counted any more.
    wanting.state.update(Vec::new(), &wanting.config.balance);
    until(&board, State::Nothing).await;
    scraper.follow([Subject {
        config: cluster("scale: {observe: {}}", &[]).config,
        ..wanting
    }]);
    assert!(scraper.report().is_empty());
}
