//! Swaps under load: nothing is lost, nothing is mixed, and what runs outlives its route.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::Request;
use tempfile::TempDir;
use tokio::sync::Semaphore;

use super::{TOP, leading_to, put, saying};
use crate::support::h2::{H2, soon};
use crate::support::{Client, Proxy, Upstream, respond};

/// Swaps of the storm.
const SWAPS: u64 = 1000;
/// Upstreams that take turns.
const TURNS: usize = 4;

/// Generation `number`: its own route, header, cluster and upstream.
fn generation(number: u64, upstreams: &[SocketAddr]) -> String {
    let turn = number as usize % TURNS;
    let at = upstreams[turn];
    format!(
        "{TOP}listeners: [{{name: main, address: '127.0.0.1:0'}}]\n\
         routes:\n- name: r{turn}\n  response_headers: {{set: {{x-generation: '{number}'}}}}\n  \
         request_headers: {{set: {{x-generation: '{number}'}}}}\n  \
         split:\n  - {{cluster: c{turn}, weight: 1, response_headers: {{set: {{x-turn: '{turn}'}}}}}}\n  \
         - {{cluster: never, weight: 0}}\n\
         clusters:\n- {{name: c{turn}, endpoints: ['{at}']}}\n- {{name: never, endpoints: ['127.0.0.1:1']}}\n"
    )
}

/// Answers with its own number and the generation that the request says it is of.
async fn numbered(number: usize) -> Upstream {
    Upstream::start(move |mut peer| async move {
        while let Some((head, _)) = peer.request().await {
            let of = head
                .split("x-generation: ")
                .nth(1)
                .unwrap()
                .split("\r\n")
                .next()
                .unwrap();
            if !peer.write(respond(200, &format!("{number} {of}"))).await {
                break;
            }
        }
    })
    .await
}

/// An answer belongs to one generation, and to none that was replaced before its request was sent.
fn check(floor: u64, generation: &str, turn: &str, body: &str) {
    let number: u64 = generation.parse().unwrap();
    assert!(
        number >= floor,
        "generation {number} answers after {floor} was applied"
    );
    assert_eq!(turn.parse::<usize>().unwrap(), number as usize % TURNS);
    assert_eq!(body, format!("{turn} {number}"));
}

async fn over_http1(at: SocketAddr, applied: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> u64 {
    let mut client = Client::connect(at).await;
    let mut served = 0;
    while !stop.load(Ordering::Relaxed) {
        let floor = applied.load(Ordering::SeqCst);
        client
            .send("POST /x HTTP/1.1\r\nhost: t\r\ncontent-length: 4\r\n\r\nbody")
            .await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let field = |name| answer.header(name).unwrap();
        check(
            floor,
            field("x-generation"),
            field("x-turn"),
            &answer.text(),
        );
        served += 1;
    }
    served
}

async fn over_http2(at: SocketAddr, applied: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> u64 {
    let client = H2::connect(at).await;
    let mut served = 0;
    while !stop.load(Ordering::Relaxed) {
        let floor = applied.load(Ordering::SeqCst);
        let answer = client
            .send(Request::get("http://t/x").body(()).unwrap())
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "{answer:?}");
        let body = String::from_utf8(answer.body.clone()).unwrap();
        check(
            floor,
            answer.field("x-generation"),
            answer.field("x-turn"),
            &body,
        );
        served += 1;
    }
    served
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_swaps_under_load_lose_and_mix_nothing() {
    let mut upstreams = Vec::new();
    for number in 0..TURNS {
        upstreams.push(numbered(number).await);
    }
    let addresses: Vec<SocketAddr> = upstreams.iter().map(|u| u.address).collect();
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("forebay.yaml");
    put(&file, &generation(0, &addresses));
    let proxy = Proxy::start_on(&file).await;
    let (applied, stop) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..3 {
        clients.spawn(over_http1(
            proxy.address(),
            Arc::clone(&applied),
            Arc::clone(&stop),
        ));
    }
    clients.spawn(over_http2(
        proxy.address(),
        Arc::clone(&applied),
        Arc::clone(&stop),
    ));
    for number in 1..=SWAPS {
        put(&file, &generation(number, &addresses));
        let status = proxy.control().reload().await.unwrap();
        assert!(status.generation > number, "{status:?}");
        applied.store(number, Ordering::SeqCst);
        assert!(clients.try_join_next().is_none(), "a client gave up");
    }
    stop.store(true, Ordering::Relaxed);
    let served: Vec<u64> = soon("the last answers", clients.join_all()).await;
    assert!(served.iter().all(|&n| n > 10), "{served:?}");
    assert_eq!(
        proxy.metric("forebay_config_reloads_total", &["failure"]),
        0.0
    );
    assert_eq!(proxy.metric("forebay_requests_in_flight", &[]), 0.0);
    let page = proxy.metrics();
    let bad = |l: &&str| {
        l.starts_with("forebay_requests_total") && !l.contains("code=\"200\"") && !l.ends_with(" 0")
    };
    assert_eq!(page.lines().find(bad), None);
    proxy.stop().await;
}

/// A WebSocket-like upstream for `/tunnel`, events one per permit for everything else.
async fn lasting(events: Arc<Semaphore>) -> Upstream {
    Upstream::start(move |mut peer| {
        let events = Arc::clone(&events);
        async move {
            let Some(head) = peer.head().await else { return };
            if head.starts_with("GET /tunnel") {
                peer.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
                loop {
                    let said = std::mem::take(&mut peer.buffer);
                    if !(peer.write(&said).await && peer.read().await) {
                        return;
                    }
                }
            }
            peer.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await;
            for number in 0..4 {
                events.acquire().await.unwrap().forget();
                peer.write(format!("9\r\ndata: {number}\n\n\r\n")).await;
            }
            peer.write("0\r\n\r\n").await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_and_a_tunnel_outlive_the_reload_that_deletes_their_route() {
    let events = Arc::new(Semaphore::new(0));
    let upstream = lasting(Arc::clone(&events)).await;
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("forebay.yaml");
    put(&file, &leading_to(upstream.address, ""));
    let proxy = Proxy::start_on(&file).await;
    let mut stream = Client::connect(proxy.address()).await;
    stream.send("GET /events HTTP/1.1\r\nhost: t\r\n\r\n").await;
    assert!(
        stream
            .try_head()
            .await
            .unwrap()
            .contains("text/event-stream")
    );
    let client2 = H2::connect(proxy.address()).await;
    let (answer, _) = client2
        .begin(crate::support::h2::get("/events"), true)
        .await;
    let mut stream2 = soon("a head", answer).await.unwrap().into_body();
    let mut tunnel = Client::connect(proxy.address()).await;
    tunnel
        .send(
            "GET /tunnel HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        )
        .await;
    assert!(tunnel.try_head().await.unwrap().starts_with("HTTP/1.1 101"));

    for round in 0..3 {
        put(&file, &saying(&format!("round {round}")));
        let _ = proxy.control().reload().await.unwrap();
        assert_eq!(
            Client::get(proxy.address(), "/events").await.text(),
            format!("round {round}")
        );
        events.add_permits(2);
        let chunk = format!("9\r\ndata: {round}\n\n\r\n");
        assert_eq!(stream.bytes(chunk.len()).await, chunk.as_bytes());
        assert_eq!(
            crate::support::h2::take(&mut stream2, 9).await,
            &chunk.as_bytes()[3..12]
        );
        tunnel.send(format!("frame {round}")).await;
        assert_eq!(tunnel.bytes(7).await, format!("frame {round}").as_bytes());
    }
    events.add_permits(2);
    let end = "9\r\ndata: 3\n\n\r\n0\r\n\r\n";
    assert_eq!(
        stream.bytes(end.len()).await,
        end.as_bytes(),
        "it ends as whole as it began"
    );
    assert_eq!(
        soon("an end", crate::support::h2::whole(stream2))
            .await
            .unwrap()
            .0,
        b"data: 3\n\n"
    );
    stream.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    assert_eq!(
        stream.answer().await.text(),
        "round 2",
        "its next request is of the present"
    );
    drop(tunnel);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_body_that_spans_a_reload_goes_where_it_began() {
    let upstream = Upstream::fixed("old").await;
    let other = Upstream::fixed("new").await;
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("forebay.yaml");
    put(&file, &leading_to(upstream.address, ""));
    let proxy = Proxy::start_on(&file).await;
    let mut client = Client::connect(proxy.address()).await;
    client
        .send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\nfirst")
        .await;
    upstream.saw("first").await;
    put(&file, &leading_to(other.address, ""));
    let _ = proxy.control().reload().await.unwrap();
    client.send("later").await;
    assert_eq!(client.answer().await.text(), "old");
    upstream.saw("firstlater").await;
    client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "new");
    proxy.stop().await;
}
