//! Mirrors that misbehave: the primary's answers do not change, and each copy is counted once.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Notify, Semaphore, mpsc};

use super::{all_over, burst, copies, dropped, mirrored, post, shape};
use crate::support::h2::soon;
use crate::support::upstream::Peer;
use crate::support::{Client, Proxy, Upstream, respond};

/// What a mirror does to its requests.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Hangs,
    Resets,
    Closes,
    ClosesMidAnswer,
    TalksGarbage,
    NeverEnds,
    DripsBytes,
    SwitchesProtocols,
    SendsInterimForEver,
    LiesAboutLength,
}

const LAUNCH: &str = "HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\n0123456789";

async fn misbehave(manner: Manner, mut peer: Peer) {
    while let Some((head, _)) = peer.request().await {
        assert!(head.contains("x-forebay-mirror: b\r\n"));
        match manner {
            Manner::Hangs => {}
            Manner::Resets => {
                peer.stream.set_zero_linger().unwrap();
                return;
            }
            Manner::Closes => return,
            Manner::ClosesMidAnswer => {
                peer.write(LAUNCH).await;
                return;
            }
            Manner::TalksGarbage => {
                peer.write(b"\x16\x03\x01\x02\x00\x01\x00 no HTTP at all\r\n\r\n")
                    .await;
            }
            Manner::NeverEnds => {
                peer.write("HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n")
                    .await;
                while peer.write("5\r\nagain\r\n").await {}
            }
            Manner::DripsBytes => {
                for byte in LAUNCH.bytes() {
                    if !peer.write([byte]).await {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            Manner::SwitchesProtocols => {
                peer.write("HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n")
                    .await;
            }
            Manner::SendsInterimForEver => while peer.write("HTTP/1.1 103 X\r\n\r\n").await {},
            Manner::LiesAboutLength => {
                peer.write("HTTP/1.1 200 X\r\ncontent-length: 3\r\n\r\nokay, and much more")
                    .await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_mirror_does_the_primary_answers_and_each_copy_is_counted_once() {
    let primary = Upstream::fixed("primary").await;
    for (manner, result) in [
        (Manner::Hangs, "timeout"),
        (Manner::Resets, "error"),
        (Manner::Closes, "error"),
        (Manner::ClosesMidAnswer, "error"),
        (Manner::TalksGarbage, "error"),
        (Manner::NeverEnds, "timeout"),
        (Manner::DripsBytes, "timeout"),
        (Manner::SwitchesProtocols, "error"),
        (Manner::SendsInterimForEver, "error"),
        (Manner::LiesAboutLength, "ok"),
    ] {
        let mirror = Upstream::start(move |peer| misbehave(manner, peer)).await;
        let options = ", timeout: 300ms, max_in_flight: 32";
        let proxy = Proxy::start(&mirrored(primary.address, mirror.address, options)).await;
        burst(&proxy, 20, &post("/", "{\"a\": 1}")).await;
        all_over(&proxy, 200.0).await;
        assert!(
            copies(&proxy, result) >= 1.0,
            "{manner:?}: {}",
            proxy.metrics()
        );
        let left_out = dropped(&proxy, "in_flight") + dropped(&proxy, "unreachable");
        let others = copies(&proxy, result) + left_out;
        assert_eq!(others, 200.0, "{manner:?}: {}", proxy.metrics());
        assert_eq!(
            proxy.metric("forebay_aborted_total", &[]),
            0.0,
            "{manner:?}"
        );
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_refuses_connections_costs_nothing_but_its_copies() {
    let primary = Upstream::fixed("primary").await;
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let proxy = Proxy::start(&mirrored(primary.address, nobody, "")).await;
    burst(&proxy, 20, &post("/", "{\"a\": 1}")).await;
    all_over(&proxy, 200.0).await;
    let labels = ["result=\"error\"", "reason=\"connect_failed\""];
    let failed = proxy.metric("forebay_mirror_failures_total", &labels);
    let left_out = dropped(&proxy, "in_flight") + dropped(&proxy, "unreachable");
    assert_eq!(failed + left_out, 200.0);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_copies_than_allowed_are_under_way() {
    let primary = Upstream::fixed("primary").await;
    let open = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&open);
    let mirror = Upstream::start(move |mut peer| {
        let gate = Arc::clone(&gate);
        async move {
            while peer.request().await.is_some() {
                gate.acquire().await.unwrap().forget();
                peer.write(respond(200, "late")).await;
            }
        }
    })
    .await;
    let options = ", max_in_flight: 4";
    let proxy = Proxy::start(&mirrored(primary.address, mirror.address, options)).await;
    burst(&proxy, 2, &post("/", "{}")).await;
    assert_eq!(dropped(&proxy, "in_flight"), 16.0);
    assert_eq!(proxy.metric("forebay_mirror_in_flight", &[]), 4.0);
    open.add_permits(4);
    all_over(&proxy, 20.0).await;
    assert_eq!(copies(&proxy, "ok"), 4.0);
    proxy.stop().await;
}

/// Reports the end of each of its connections.
async fn reporting(path: &'static str) -> (Upstream, mpsc::UnboundedReceiver<()>) {
    let (tell, told) = mpsc::unbounded_channel();
    let upstream = Upstream::start(move |mut peer: Peer| {
        let tell = tell.clone();
        async move {
            let head = peer.head().await.unwrap();
            assert!(head.contains(path), "{head}");
            if head.contains("/answer") {
                peer.write(LAUNCH).await;
            }
            peer.closed().await;
            let _ = tell.send(());
        }
    })
    .await;
    (upstream, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_the_copy_in_every_phase() {
    for (path, part) in [
        (
            "/upload",
            "POST /upload HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\npart",
        ),
        ("/waiting", "GET /waiting HTTP/1.1\r\nhost: t\r\n\r\n"),
        ("/answer", "GET /answer HTTP/1.1\r\nhost: t\r\n\r\n"),
    ] {
        let (primary, mut first) = reporting(path).await;
        let (mirror, mut second) = reporting(path).await;
        let proxy = Proxy::start(&mirrored(primary.address, mirror.address, "")).await;
        let mut client = Client::connect(proxy.address()).await;
        client.send(part).await;
        primary.saw(path).await;
        mirror.saw(path).await;
        if path == "/upload" {
            primary.saw("part").await;
            mirror.saw("part").await;
        }
        client.stream.set_zero_linger().unwrap();
        drop(client);
        soon("the primary's end", first.recv()).await.unwrap();
        soon("the copy's end", second.recv()).await.unwrap();
        all_over(&proxy, 1.0).await;
        let lost = dropped(&proxy, "cancelled") + dropped(&proxy, "source");
        assert_eq!(lost, 1.0, "{path}");
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_too_slow_or_fails_leaves_whole_copies_alone() {
    let hangs = Upstream::start(|mut peer| async move {
        peer.request().await;
        peer.closed().await;
    })
    .await;
    let resets = Upstream::start(|mut peer| async move {
        peer.request().await;
    })
    .await;
    for (primary, status) in [(hangs.address, 504), (resets.address, 502)] {
        let gate = Arc::new(Notify::new());
        let pass = Arc::clone(&gate);
        let mirror = Upstream::start(move |mut peer| {
            let pass = Arc::clone(&pass);
            async move {
                let (_, body) = peer.request().await.unwrap();
                assert_eq!(body, b"{\"whole\": true}");
                pass.notified().await;
                peer.write(respond(200, "mirror")).await;
                peer.closed().await;
            }
        })
        .await;
        let route = ", timeouts: {first_byte: 100ms}";
        let proxy = Proxy::start(&shape(primary, mirror.address, "", route, "")).await;
        let request = post("/", "{\"whole\": true}");
        assert_eq!(Client::once(proxy.address(), request).await.status, status);
        mirror.saw("whole").await;
        gate.notify_one();
        all_over(&proxy, 1.0).await;
        assert_eq!(copies(&proxy, "ok"), 1.0, "{status}: {}", proxy.metrics());
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_refuses_connections_fails_with_its_copies_unharmed() {
    let mirror = Upstream::fixed("mirror").await;
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let proxy = Proxy::start(&mirrored(nobody, mirror.address, "")).await;
    let answer = Client::get(proxy.address(), "/").await;
    assert_eq!((answer.status, answer.reason()), (502, "connect_failed"));
    all_over(&proxy, 1.0).await;
    assert_eq!(copies(&proxy, "ok"), 1.0);
    // Nobody reads the body of this one.
    let answer = Client::once(proxy.address(), post("/", "{}")).await;
    assert_eq!((answer.status, answer.reason()), (502, "connect_failed"));
    all_over(&proxy, 2.0).await;
    assert_eq!(dropped(&proxy, "source"), 1.0);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_ends_the_copy_of_an_upload_that_nobody_reads_on() {
    let primary = Upstream::start(|mut peer| async move {
        peer.head().await;
        peer.write("HTTP/1.1 413 X\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig")
            .await;
        let _ = peer.stream.shutdown().await;
        peer.closed().await;
    })
    .await;
    let mirror = Upstream::start(|mut peer| async move {
        peer.head().await;
        peer.closed().await;
    })
    .await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let record = format!(", record: {{path: '{}'}}", file.path().display());
    let retry = ", retry: {attempts: 2, when: [connect, reset], methods: [POST], max_body: 1MiB}";
    for route in ["", &record, retry, &format!("{record}{retry}")] {
        let options = ", timeout: none";
        let text = shape(primary.address, mirror.address, options, route, "");
        let proxy = Proxy::start(&text).await;
        let mut client = Client::connect(proxy.address()).await;
        client
            .send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 1000\r\n\r\npart")
            .await;
        assert_eq!(client.answer().await.status, 413);
        all_over(&proxy, 1.0).await;
        assert_eq!(dropped(&proxy, "source"), 1.0, "{route}");
        proxy.stop().await;
    }
}
