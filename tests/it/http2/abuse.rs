//! Clients that break the protocol's peace: they lose their stream or connection, their neighbours lose nothing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ::h2::client::Builder;
use tokio::io::AsyncWriteExt;

use super::shape;
use crate::support::h2::{self, H2, RawH2, block, frame, get, kind, soon};
use crate::support::proxy::forward_to;
use crate::support::{Client, Proxy, Upstream, until};

/// Error code ENHANCE_YOUR_CALM.
const CALM: u32 = 11;

/// Resident bytes of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Requests that go on until stopped; the count of those that were answered, all with 200, and the slowest.
struct Neighbour {
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<(u32, Duration)>,
}

impl Neighbour {
    async fn start(address: SocketAddr) -> Self {
        let mut client = Client::connect(address).await;
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let (mut served, mut slowest) = (0, Duration::ZERO);
            while stopped.try_recv().is_err() {
                let asked = Instant::now();
                client
                    .send("GET /neighbour HTTP/1.1\r\nhost: t\r\n\r\n")
                    .await;
                assert_eq!(client.answer().await.status, 200);
                slowest = slowest.max(asked.elapsed());
                served += 1;
            }
            (served, slowest)
        });
        Self { stop, task }
    }

    async fn served(self) -> (u32, Duration) {
        let _ = self.stop.send(());
        soon("the neighbour's last answer", self.task)
            .await
            .unwrap()
    }
}

/// Writes all, or as much as the proxy takes before it closes or stops to read for a second.
async fn flood(raw: &mut RawH2, bytes: &[u8]) {
    for piece in bytes.chunks(64 << 10) {
        let written =
            tokio::time::timeout(Duration::from_secs(1), raw.stream.write_all(piece)).await;
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

/// An upstream whose answers are of this many bytes.
async fn large(bytes: usize) -> Upstream {
    Upstream::start(move |mut peer| async move {
        while peer.request().await.is_some() {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
            if !(peer.write(head).await && peer.write(vec![b'x'; bytes]).await) {
                break;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_window_stays_closed_is_cut_and_no_other() {
    let upstream = large(4 << 20).await;
    let proxy = Proxy::start(&shape("write_stall: 300ms", "", upstream.address)).await;
    let closed = Builder::new().initial_window_size(0).clone();
    let client = H2::connect_with(proxy.address(), &closed).await;
    let began = Instant::now();
    let (answer, _request) = client.begin(get("/"), true).await;
    let body = soon("a head", answer).await.unwrap().into_body();
    assert_eq!(
        client.get("/empty").await.status(),
        204,
        "another stream is served meanwhile"
    );
    let end = soon("the cut", h2::whole(body)).await;
    assert!(end.as_ref().is_err_and(::h2::Error::is_reset), "{end:?}");
    assert!(
        began.elapsed() >= Duration::from_millis(300),
        "{:?}",
        began.elapsed()
    );
    until("the upstream is free", async || {
        proxy.metric("forebay_endpoint_in_flight", &[]) == 0.0
    })
    .await;
    assert_eq!(
        client.get("/empty").await.status(),
        204,
        "the connection lives"
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_drips_is_cut_too() {
    let upstream = large(4 << 20).await;
    let proxy = Proxy::start(&shape("write_stall: 300ms", "", upstream.address)).await;
    let mut raw = RawH2::connect(proxy.address()).await;
    let no_window = [0, 4, 0, 0, 0, 0];
    let mut bytes = frame(kind::SETTINGS, 0, 0, &no_window);
    bytes.extend(frame(kind::HEADERS, 5, 1, &block(&[])));
    raw.stream.write_all(&bytes).await.unwrap();
    raw.until(kind::HEADERS).await.unwrap();
    let began = Instant::now();
    loop {
        raw.stream
            .write_all(&frame(8, 0, 1, &[0, 0, 0, 1]))
            .await
            .unwrap();
        let next = tokio::time::timeout(Duration::from_millis(5), raw.next()).await;
        if let Ok(Some(frame)) = &next
            && frame.kind == kind::RST_STREAM
        {
            break;
        }
        assert!(!matches!(next, Ok(None)), "only the stream should end");
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "a drip keeps the stream"
        );
    }
    until("the upstream is free", async || {
        proxy.metric("forebay_endpoint_in_flight", &[]) == 0.0
    })
    .await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_its_socket_is_closed() {
    let upstream = large(8 << 20).await;
    let proxy = Proxy::start(&shape("write_stall: 300ms", "", upstream.address)).await;
    let mut raw = RawH2::connect(proxy.address()).await;
    let wide = [0, 4, 0x7f, 0xff, 0xff, 0xff];
    let mut bytes = frame(kind::SETTINGS, 0, 0, &wide);
    bytes.extend(frame(8, 0, 0, &[0x7f, 0, 0, 0])); // the connection's window
    bytes.extend(frame(kind::HEADERS, 5, 1, &block(&[])));
    raw.stream.write_all(&bytes).await.unwrap();
    upstream.saw("GET / ").await;
    until("the connection is closed", async || {
        proxy.metric("forebay_connections", &[]) == 0.0
    })
    .await;
    until("the upstream is free", async || {
        proxy.metric("forebay_endpoint_in_flight", &[]) == 0.0
    })
    .await;
    assert_eq!(
        proxy.metric(
            "forebay_connection_errors_total",
            &["reason=\"write_stall\""]
        ),
        1.0
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_end_the_connection_and_hurt_no_neighbour() {
    let upstream = Upstream::fixed("ok").await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let neighbour = Neighbour::start(proxy.address()).await;
    let mut raw = RawH2::connect(proxy.address()).await;
    let mut bytes = Vec::new();
    for stream in (1..20_000).step_by(2) {
        bytes.extend(frame(kind::HEADERS, 5, stream, &block(&[])));
        bytes.extend(frame(kind::RST_STREAM, 0, stream, &8u32.to_be_bytes()));
    }
    flood(&mut raw, &bytes).await;
    if let Some(goaway) = raw.until(kind::GOAWAY).await {
        assert_eq!(goaway.code(), CALM);
    }
    until("the connection is closed", async || {
        proxy.metric("forebay_connections", &[]) == 1.0
    })
    .await;
    let (served, slowest) = neighbour.served().await;
    assert!(
        served > 0 && slowest < Duration::from_secs(1),
        "{served} answers, the slowest in {slowest:?}"
    );
    until("nothing is in flight", async || {
        proxy.metric("forebay_endpoint_in_flight", &[]) == 0.0
    })
    .await;
    let reached = upstream.text().matches("GET / HTTP").count();
    assert!(
        reached < 2_000,
        "{reached} of 10 000 reset requests reached the upstream"
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_block_without_end_is_bounded() {
    let upstream = Upstream::fixed("ok").await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let before = resident();
    for size in [0, 100, 16 << 10] {
        let mut raw = RawH2::connect(proxy.address()).await;
        let mut bytes = frame(kind::HEADERS, 1, 1, &block(&[]));
        let field = block(&[("x-filler", "0123456789")]).split_off(block(&[]).len());
        let piece: Vec<u8> = field
            .iter()
            .copied()
            .cycle()
            .take(size / field.len() * field.len())
            .collect();
        for _ in 0..if size > 1000 { 1_000 } else { 50_000 } {
            bytes.extend(frame(kind::CONTINUATION, 0, 1, &piece));
        }
        flood(&mut raw, &bytes).await;
        if let Some(goaway) = raw.until(kind::GOAWAY).await {
            assert_ne!(goaway.code(), 0);
        }
        until("the connection is closed", async || {
            proxy.metric("forebay_connections", &[]) == 0.0
        })
        .await;
    }
    assert!(resident().saturating_sub(before) < 128 << 20);
    assert_eq!(upstream.transcripts().len(), 0);
    assert_eq!(Client::get(proxy.address(), "/").await.status, 200);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_control_frames_that_nobody_reads_the_answers_of_are_bounded() {
    let upstream = Upstream::fixed("ok").await;
    let proxy = Proxy::start(&shape("write_stall: 500ms", "", upstream.address)).await;
    let neighbour = Neighbour::start(proxy.address()).await;
    let before = resident();
    for (what, bytes) in [
        ("PING", frame(kind::PING, 0, 0, &[7; 8])),
        ("SETTINGS", frame(kind::SETTINGS, 0, 0, &[])),
        ("empty DATA", frame(kind::DATA, 0, 1, &[])),
    ] {
        let mut raw = RawH2::connect(proxy.address()).await;
        if what == "empty DATA" {
            raw.stream
                .write_all(&frame(kind::HEADERS, 4, 1, &block(&[])))
                .await
                .unwrap();
        }
        flood(&mut raw, &bytes.repeat(200_000)).await;
        drop(raw);
    }
    until("they are gone", async || {
        proxy.metric("forebay_connections", &[]) == 1.0
    })
    .await;
    let (served, slowest) = neighbour.served().await;
    assert!(
        served > 0 && slowest < Duration::from_secs(1),
        "{served} answers, the slowest in {slowest:?}"
    );
    let grown = resident().saturating_sub(before);
    assert!(grown < 128 << 20, "grown by {grown} bytes");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_grammar_is_refused_before_the_gateway() {
    let upstream = Upstream::fixed("ok").await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let cases: [&[(&str, &str)]; 6] = [
        &[("connection", "close")],
        &[("transfer-encoding", "chunked")],
        &[("X-Upper", "v")],
        &[("x-a", "b\r\nx-injected: 1")],
        &[("te", "gzip")],
        &[(":late", "pseudo")],
    ];
    for fields in cases {
        let mut raw = RawH2::connect(proxy.address()).await;
        raw.stream
            .write_all(&frame(kind::HEADERS, 5, 1, &block(fields)))
            .await
            .unwrap();
        let refused = loop {
            match raw.next().await {
                None => break true,
                Some(frame) if frame.kind == kind::GOAWAY || frame.kind == kind::RST_STREAM => {
                    break true;
                }
                Some(frame) if frame.kind == kind::HEADERS => break frame.payload[0] == 0x8c, // 400, indexed
                Some(_) => {}
            }
        };
        assert!(refused, "{fields:?}");
    }
    assert!(!upstream.text().contains("x-injected"));
    assert_eq!(upstream.transcripts().len(), 0, "{}", upstream.text());
    proxy.stop().await;
}
