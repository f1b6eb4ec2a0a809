//! Stops with everything open: what can finish finishes, what cannot is cut at the timeout.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::support::h2::{self, H2, RawH2, block, frame, get, kind, soon};
use crate::support::proxy::forward_to;
use crate::support::{Client, PATIENCE, Proxy, Upstream, respond, until};

const NO_DELAY: Duration = Duration::ZERO;

/// `/slow` answers after a permit; `/events` sends one per permit, four in all; `/tunnel` echoes; the rest at once.
async fn upstream(permits: &Arc<Semaphore>) -> Upstream {
    let permits = Arc::clone(permits);
    Upstream::start(move |mut peer| {
        let permits = Arc::clone(&permits);
        async move {
            while let Some((head, _)) = peer.request().await {
                match head.split(' ').nth(1).unwrap() {
                    "/slow" => {
                        permits.acquire().await.unwrap().forget();
                        peer.write(respond(200, "slow")).await;
                    }
                    "/events" => {
                        peer.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
                        for number in 0..4 {
                            permits.acquire().await.unwrap().forget();
                            peer.write(format!("2\r\n{number}\n\r\n")).await;
                        }
                        peer.write("0\r\n\r\n").await;
                    }
                    "/tunnel" => {
                        peer.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
                        loop {
                            let said = std::mem::take(&mut peer.buffer);
                            if !(peer.write(&said).await && peer.read().await) {
                                return;
                            }
                        }
                    }
                    _ => {
                        peer.write(respond(200, "ok")).await;
                    }
                }
            }
        }
    })
    .await
}

async fn open(proxy: &Proxy, path: &str) -> Client {
    let mut client = Client::connect(proxy.address()).await;
    let upgrade = if path == "/tunnel" {
        "connection: upgrade\r\nupgrade: websocket\r\n"
    } else {
        ""
    };
    client
        .send(format!("GET {path} HTTP/1.1\r\nhost: t\r\n{upgrade}\r\n"))
        .await;
    client
}

/// Waits until the proxy's threads have ended.
async fn ended(proxy: Proxy) {
    proxy.control().drained().await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn during_the_delay_answers_announce_the_end_and_newcomers_are_served() {
    let permits = Arc::new(Semaphore::new(0));
    let upstream = upstream(&permits).await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    assert!(proxy.control().is_ready());
    let mut kept = open(&proxy, "/").await;
    assert_eq!(kept.answer().await.header("connection"), None);
    let mut busy = open(&proxy, "/slow").await;
    upstream.saw("GET /slow").await;

    proxy
        .control()
        .drain(Some(Duration::from_secs(2)), Some(Duration::from_secs(10)));
    assert!(!proxy.control().is_ready());
    assert!(proxy.control().is_draining());
    until("answers announce it", async || {
        let fresh = Client::get(proxy.address(), "/").await;
        assert_eq!(fresh.status, 200);
        fresh.header("connection") == Some("close")
    })
    .await;
    kept.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    let last = kept.answer().await;
    assert_eq!(
        (last.status, last.header("connection")),
        (200, Some("close"))
    );
    assert!(kept.closed().await, "and mean it");
    let version2 = H2::connect(proxy.address()).await;
    assert_eq!(version2.get("/").await.status(), 200);
    assert!(
        proxy.control().reload().await.is_err(),
        "a stopping proxy takes no new configuration"
    );

    until("nobody listens", async || {
        TcpStream::connect(proxy.address()).await.is_err()
    })
    .await;
    permits.add_permits(1);
    assert_eq!(busy.answer().await.text(), "slow");
    soon("HTTP/2 ends", version2.connection)
        .await
        .unwrap()
        .unwrap();
    soon("the end", ended(proxy)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_proxy_ends_at_once() {
    let permits = Arc::new(Semaphore::new(0));
    let upstream = upstream(&permits).await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    assert_eq!(Client::get(proxy.address(), "/").await.status, 200);
    until("the client is gone", async || {
        proxy.control().shared().connections() == 0
    })
    .await;
    let began = Instant::now();
    proxy.control().drain(Some(NO_DELAY), Some(PATIENCE));
    soon("the end", ended(proxy)).await;
    assert!(
        began.elapsed() < Duration::from_millis(1500),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_keep_alive_connections_close_after_a_second() {
    let permits = Arc::new(Semaphore::new(0));
    let upstream = upstream(&permits).await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let mut idle = open(&proxy, "/").await;
    idle.answer().await;
    let mut unused = Client::connect(proxy.address()).await;
    until("both are open", async || {
        proxy.control().shared().connections() == 2
    })
    .await;
    let began = Instant::now();
    proxy.control().drain(Some(NO_DELAY), Some(PATIENCE));
    // A request that was on its way when the stop began is not lost.
    idle.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    let answer = idle.answer().await;
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    assert!(idle.closed().await);
    let rest = async {
        unused.closed().await;
        ended(proxy).await;
    };
    soon("the end", rest).await;
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(900) && took < Duration::from_secs(5),
        "{took:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_shorter_than_the_timeout_finishes() {
    let permits = Arc::new(Semaphore::new(0));
    let upstream = upstream(&permits).await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let mut slow = open(&proxy, "/slow").await;
    upstream.saw("GET /slow").await;
    let mut events = open(&proxy, "/events").await;
    events.try_head().await.unwrap();
    let mut tunnel = open(&proxy, "/tunnel").await;
    tunnel.try_head().await.unwrap();
    let version2 = H2::connect(proxy.address()).await;
    let (answer, _) = version2.begin(get("/events"), true).await;
    let stream = soon("a head", answer).await.unwrap().into_body();
    let mut raw = RawH2::connect(proxy.address()).await;
    raw.stream
        .write_all(&frame(kind::HEADERS, 5, 1, &block(&[])))
        .await
        .unwrap();
    raw.until(kind::HEADERS).await.unwrap();

    proxy.control().drain(Some(NO_DELAY), Some(PATIENCE));
    let goaway = raw
        .until(kind::GOAWAY)
        .await
        .expect("GOAWAY before the end");
    assert_eq!(goaway.code(), 0);
    until("nobody listens", async || {
        TcpStream::connect(proxy.address()).await.is_err()
    })
    .await;
    until("no new streams", async || {
        version2.sender.clone().ready().await.is_err()
    })
    .await;
    // Longer than idle connections get: what runs is not idle.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    tunnel.send("still here").await;
    assert_eq!(tunnel.bytes(10).await, b"still here");
    permits.add_permits(9);
    let answer = slow.answer().await;
    assert_eq!(
        (answer.text().as_str(), answer.header("connection")),
        ("slow", Some("close"))
    );
    let whole = "2\r\n0\n\r\n2\r\n1\n\r\n2\r\n2\n\r\n2\r\n3\n\r\n0\r\n\r\n";
    assert_eq!(events.bytes(whole.len()).await, whole.as_bytes());
    assert_eq!(
        soon("an end", h2::whole(stream)).await.unwrap().0,
        b"0\n1\n2\n3\n"
    );
    soon("HTTP/2 ends", version2.connection)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(proxy.metric("forebay_aborted_total", &[]), 0.0);
    assert!(!proxy.control().is_ready());
    drop((tunnel, raw));
    let began = Instant::now();
    soon("the end, as soon as idle", ended(proxy)).await;
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_at_the_timeout_is_cut_and_never_looks_whole() {
    let permits = Arc::new(Semaphore::new(0));
    let upstream = upstream(&permits).await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let mut slow = open(&proxy, "/slow").await;
    upstream.saw("GET /slow").await;
    let mut events = open(&proxy, "/events").await;
    events.try_head().await.unwrap();
    let mut tunnel = open(&proxy, "/tunnel").await;
    tunnel.try_head().await.unwrap();
    let version2 = H2::connect(proxy.address()).await;
    let (answer, _) = version2.begin(get("/events"), true).await;
    let stream = soon("a head", answer).await.unwrap().into_body();
    permits.add_permits(2);
    let began = Instant::now();
    proxy
        .control()
        .drain(Some(NO_DELAY), Some(Duration::from_millis(1500)));
    let end = async {
        ended(proxy).await;
        began.elapsed()
    };
    let took = soon("the end", end).await;
    assert!(
        took >= Duration::from_millis(1400) && took < Duration::from_secs(5),
        "{took:?}"
    );
    tunnel.closed().await;
    assert!(soon("an end", h2::whole(stream)).await.is_err());
    events.closed().await;
    let rest = String::from_utf8(events.try_answer().await.expect_err("no head any more")).unwrap();
    assert!(!rest.contains("0\r\n\r\n"), "{rest:?}");
    // Two of three waited for the two permits.
    if let Ok(answer) = slow.try_answer().await {
        assert!(
            answer.text() == "slow" || answer.reason() == "draining",
            "{answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_order_changes_nothing_and_an_end_is_an_end() {
    let permits = Arc::new(Semaphore::new(0));
    let upstream = upstream(&permits).await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let mut slow = open(&proxy, "/slow").await;
    upstream.saw("GET /slow").await;
    proxy.control().drain(Some(NO_DELAY), Some(PATIENCE));
    proxy.control().drain(Some(NO_DELAY), Some(NO_DELAY));
    until("nobody listens", async || {
        TcpStream::connect(proxy.address()).await.is_err()
    })
    .await;
    assert_eq!(
        proxy.control().shared().connections(),
        1,
        "the first order counts"
    );
    proxy.control().end();
    soon("the end", ended(proxy)).await;
    assert!(slow.try_head().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_and_pipelined_requests_under_way_are_answered() {
    let permits = Arc::new(Semaphore::new(0));
    let upstream = upstream(&permits).await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let mut upload = Client::connect(proxy.address()).await;
    upload
        .send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\nfirst")
        .await;
    upstream.saw("first").await;
    let mut tcp = Client::connect(proxy.address()).await;
    tcp.send("GET /half HTTP/1.1\r\nhost: ").await;
    until("both are open", async || {
        proxy.control().shared().connections() == 2
    })
    .await;
    proxy.control().drain(Some(NO_DELAY), Some(PATIENCE));
    until("nobody listens", async || {
        TcpStream::connect(proxy.address()).await.is_err()
    })
    .await;
    tcp.send("t\r\n\r\n").await;
    assert_eq!(tcp.answer().await.status, 200);
    upload.send("later").await;
    assert_eq!(upload.answer().await.status, 200);
    soon("the end", ended(proxy)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_answers_no_ping_does_not_hold_the_stop_up() {
    let permits = Arc::new(Semaphore::new(0));
    let upstream = upstream(&permits).await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let mut raw = RawH2::connect(proxy.address()).await;
    raw.stream
        .write_all(&frame(kind::HEADERS, 5, 1, &block(&[])))
        .await
        .unwrap();
    raw.until(kind::HEADERS).await.unwrap();
    let began = Instant::now();
    proxy.control().drain(Some(NO_DELAY), Some(PATIENCE));
    raw.until(kind::GOAWAY).await.expect("GOAWAY");
    soon("the end", ended(proxy)).await;
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
}
