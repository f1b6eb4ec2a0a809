//! Clients that read events hear of it while they wait: comments, then the events, or an error and a cut.

mod ends;

use std::net::SocketAddr;

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket};

use super::{is_empty, nobody, waiting, waits};
use crate::support::h2::{self, H2, soon, take};
use crate::support::{Client, Proxy, Upstream, proxy, respond, until};

const COMMENT: &str = ": waiting for a\n\n";
const CHUNK: &str = "11\r\n: waiting for a\n\n\r\n";
const EVENTS: &str =
    "data: {\"n\":1}\n\n: its own\n\ndata: two\r\ndata: lines\r\n\r\ndata: [DONE]\n\n";
const ASKS: &str = r#"{"model":"m","messages":[{"stream":false}],"stream": true}"#;

/// One route to one cluster with these endpoints, which waits as `queue` says.
fn beating(endpoint: SocketAddr, route: &str, queue: &str) -> String {
    proxy::config(&format!(
        "routes: [{{name: r, cluster: a{route}}}]\n\
         clusters: [{{name: a, endpoints: ['{endpoint}'], queue: {{heartbeat: 100ms{queue}}}}}]\n"
    ))
}

/// Answers everything with these bytes, and leaves the connection open.
fn answering(socket: TcpSocket, answer: impl Into<Vec<u8>>) -> Upstream {
    let answer: std::sync::Arc<[u8]> = answer.into().into();
    Upstream::on(socket.listen(1024).unwrap(), move |mut peer| {
        let answer = std::sync::Arc::clone(&answer);
        async move { while peer.request().await.is_some() && peer.write(&answer).await {} }
    })
}

fn events() -> String {
    let (first, rest) = EVENTS.split_at(20);
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n\
         {:x}\r\n{first}\r\n{:x}\r\n{rest}\r\n0\r\n\r\n",
        first.len(),
        rest.len()
    )
}

fn json(status: u16, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A POST that asks for a stream as the OpenAI clients do.
fn ask(body: &str) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\norigin: http://page.test\r\naccept: application/json\r\n\
         accept-encoding: gzip\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn ask2() -> http::Request<()> {
    let post = h2::post("/v1/chat/completions");
    post.header("content-type", "application/json")
        .body(())
        .unwrap()
}

async fn asking(proxy: &Proxy) -> Client {
    let mut client = Client::connect(proxy.address()).await;
    client.send(ask(ASKS)).await;
    client
}

/// Reads the early head and two comments.
async fn begins(client: &mut Client) -> String {
    let head = client.try_head().await.expect("a head");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(
        head.contains("content-type: text/event-stream\r\n"),
        "{head}"
    );
    for _ in 0..2 {
        let chunk = client.bytes(CHUNK.len()).await;
        assert_eq!(String::from_utf8(chunk).unwrap(), CHUNK);
    }
    head
}

/// The data of chunks, and whether the last one came.
fn unchunked(mut bytes: &[u8]) -> (String, bool) {
    let mut data = Vec::new();
    while let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (String::from_utf8(data).unwrap(), true);
        }
        data.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 4 + size..];
    }
    (String::from_utf8(data).unwrap(), false)
}

/// What follows the comments, and whether the answer was complete.
async fn rest(client: &mut Client) -> (String, bool) {
    let (bytes, _) = client.all().await;
    let (text, complete) = unchunked(&bytes);
    (text.replace(COMMENT, ""), complete)
}

fn counted(proxy: &Proxy, code: &str) -> f64 {
    proxy.metric("forebay_requests_total", &["route=\"r\"", code])
}

fn aborted(proxy: &Proxy, reason: &str) -> f64 {
    let reason = format!("reason=\"{reason}\"");
    proxy.metric("forebay_aborted_total", &["route=\"r\"", &reason])
}

#[tokio::test(flavor = "multi_thread")]
async fn events_follow_comments_byte_for_byte() {
    let (socket, address) = nobody();
    let route = ", cors: {origins: ['http://page.test']}, response_headers: {set: {x-team: ml}}";
    let proxy = Proxy::start(&beating(address, route, "")).await;
    let mut client = asking(&proxy).await;
    let head = begins(&mut client).await;
    assert!(head.contains("cache-control: no-cache\r\n"), "{head}");
    assert!(head.contains("x-request-id: "), "{head}");
    assert!(head.contains("x-team: ml\r\n"), "{head}");
    assert!(
        head.contains("access-control-allow-origin: http://page.test\r\n"),
        "{head}"
    );
    assert_eq!(waiting(&proxy), 1.0);
    let server = answering(socket, events());
    assert_eq!(rest(&mut client).await, (EVENTS.to_owned(), true));
    let text = server.text();
    assert!(text.contains("accept-encoding: identity\r\n"), "{text}");
    assert!(text.ends_with(ASKS), "{text}");
    until("it is counted", async || {
        counted(&proxy, "code=\"200\"") == 1.0
    })
    .await;
    assert_eq!(counted(&proxy, ""), 1.0);
    assert_eq!(proxy.metric("forebay_aborted_total", &["route=\"r\""]), 0.0);
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_follow_comments_over_http2() {
    let (socket, address) = nobody();
    let proxy = Proxy::start(&beating(address, "", "")).await;
    let client = H2::connect(proxy.address()).await;
    let (answer, mut body) = client.begin(ask2(), false).await;
    body.send_data(ASKS.into(), true).unwrap();
    let (head, mut events_body) = soon("a head", answer).await.unwrap().into_parts();
    assert_eq!(head.status.as_u16(), 200);
    assert_eq!(head.headers["content-type"], "text/event-stream");
    let comments = take(&mut events_body, 2 * COMMENT.len()).await;
    assert_eq!(String::from_utf8(comments).unwrap(), COMMENT.repeat(2));
    let _server = answering(socket, events());
    let (rest, trailers) = soon("the rest", h2::whole(events_body)).await.unwrap();
    assert_eq!(
        String::from_utf8(rest).unwrap().replace(COMMENT, ""),
        EVENTS
    );
    assert!(trailers.is_none());
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_accepts_events_gets_comments_whatever_it_asks() {
    let (socket, address) = nobody();
    let proxy = Proxy::start(&beating(address, "", "")).await;
    let mut client = Client::connect(proxy.address()).await;
    client
        .send("GET / HTTP/1.1\r\nhost: t\r\naccept: text/event-stream\r\nconnection: close\r\n\r\n")
        .await;
    begins(&mut client).await;
    let _server = answering(socket, events());
    assert_eq!(rest(&mut client).await, (EVENTS.to_owned(), true));
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_no_events_is_answered_as_ever() {
    let (_socket, address) = nobody();
    let proxy = Proxy::start(&beating(address, "", ", empty: 350ms")).await;
    let post = |body: &str| ask(body).replace("connection: close", "x: y");
    for request in [
        "GET / HTTP/1.1\r\nhost: t\r\naccept: */*\r\n\r\n".to_owned(),
        "GET / HTTP/1.0\r\nhost: t\r\naccept: text/event-stream\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nhost: t\r\naccept: text/event-stream\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n".to_owned(),
        post(r#"{"stream": false}"#),
        post(r#"{"options": {"stream": true}}"#),
        post("no JSON"),
        post(""),
    ] {
        let answer = Client::once(proxy.address(), &request).await;
        assert_eq!((answer.status, answer.reason()), (503, "no_endpoint"), "{request}");
        assert!(answer.header("x-forebay-cold-start").is_some());
    }
    let mut client = Client::connect(proxy.address()).await;
    client
        .send("HEAD / HTTP/1.1\r\nhost: t\r\naccept: text/event-stream\r\n\r\n")
        .await;
    assert!(client.try_head().await.unwrap().starts_with("HTTP/1.1 503"));
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_meanwhile_gives_up_its_place() {
    let (_socket, address) = nobody();
    let proxy = Proxy::start(&beating(address, "", "")).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = asking(&proxy).await;
        begins(&mut client).await;
        clients.push(client);
    }
    waits(&proxy, 10).await;
    clients.truncate(5);
    waits(&proxy, 5).await;
    let version2 = H2::connect(proxy.address()).await;
    let (answer, mut body) = version2.begin(ask2(), false).await;
    body.send_data(ASKS.into(), true).unwrap();
    let mut events = soon("a head", answer).await.unwrap().into_body();
    take(&mut events, COMMENT.len()).await;
    waits(&proxy, 6).await;
    drop(events);
    body.send_reset(::h2::Reason::CANCEL);
    waits(&proxy, 5).await;
    drop(clients);
    is_empty(&proxy).await;
    assert_eq!(aborted(&proxy, "client_closed"), 11.0);
    assert_eq!(
        (counted(&proxy, "code=\"200\""), counted(&proxy, "")),
        (11.0, 11.0)
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_still_coming_says_what_its_client_reads() {
    let (socket, address) = nobody();
    let proxy = Proxy::start(&beating(address, "", "")).await;
    let request = ask(ASKS);
    let mut client = Client::connect(proxy.address()).await;
    client.send(&request[..request.len() - ASKS.len()]).await;
    waits(&proxy, 1).await;
    tokio::time::sleep(2 * super::MOMENT).await; // more than one heartbeat without a word
    client.send(ASKS).await;
    begins(&mut client).await;
    let _server = answering(socket, events());
    assert_eq!(rest(&mut client).await, (EVENTS.to_owned(), true));
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_meanwhile_changes_nothing_for_who_hears_already() {
    let (socket, address) = nobody();
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("forebay.yaml");
    std::fs::write(&file, beating(address, "", "")).unwrap();
    let proxy = Proxy::start_on(&file).await;
    let mut client = asking(&proxy).await;
    begins(&mut client).await;
    let without = beating(address, "", "").replace("heartbeat: 100ms", "max_requests: 7");
    std::fs::write(&file, without).unwrap();
    proxy.control().reload().await.unwrap();
    client.bytes(CHUNK.len()).await;
    let mut silent = asking(&proxy).await;
    waits(&proxy, 2).await;
    client.bytes(3 * CHUNK.len()).await;
    let _server = answering(socket, events());
    assert_eq!(rest(&mut client).await, (EVENTS.to_owned(), true));
    let answer = silent.answer().await;
    assert_eq!((answer.status, answer.text()), (200, EVENTS.to_owned()));
    assert!(answer.header("x-forebay-cold-start").is_some());
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_hear_and_are_served() {
    let (socket, address) = nobody();
    let text = beating(address, "", "").replace("queue:", "concurrency: 3, queue:");
    let proxy = Proxy::start(&text).await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(asking(&proxy).await);
    }
    let mut listening = tokio::task::JoinSet::new();
    for mut client in clients {
        listening.spawn(async move {
            begins(&mut client).await;
            client
        });
    }
    let mut clients = listening.join_all().await;
    let _server = answering(socket, events());
    for client in &mut clients {
        assert_eq!(rest(client).await, (EVENTS.to_owned(), true));
    }
    assert_eq!(counted(&proxy, "code=\"200\""), 100.0);
    is_empty(&proxy).await;
    assert_eq!(proxy.metric("forebay_aborted_total", &["route=\"r\""]), 0.0);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_served_in_time_gets_the_endpoints_own_head() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Upstream::on(listener, |mut peer| async move {
        while peer.request().await.is_some() {
            peer.write(json(200, "{}")).await;
        }
    });
    let proxy = Proxy::start(&beating(address, "", "")).await;
    let mut client = asking(&proxy).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (200, "{}".to_owned()));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(server.text().contains("accept-encoding: gzip\r\n"));
    proxy.stop().await;
}
