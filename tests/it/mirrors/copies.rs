//! What a copy brings, and what does not reach it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use super::{copies, dropped, mirrored};
use crate::support::client::Client;
use crate::support::proxy::Proxy;
use crate::support::until;
use crate::support::upstream::{Upstream, respond};

fn ok(proxy: &Proxy) -> f64 {
    copies(proxy, "ok")
}

#[tokio::test]
async fn a_copy_carries_the_body_the_id_and_the_name_of_its_mirror() {
    let primary = Upstream::fixed("primary").await;
    let mirror = Upstream::fixed("mirror").await;
    let proxy = Proxy::start(&mirrored(primary.address, mirror.address, "")).await;
    let answer = Client::once(
        proxy.address(),
        "POST /v1/models/m:predict?x=1 HTTP/1.1\r\nhost: models.test\r\ncontent-length: 11\r\n\r\nhello world",
    )
    .await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "primary"));
    until("the copy is answered", async || ok(&proxy) == 1.0).await;
    let (sent, copied) = (primary.text(), mirror.text());
    assert!(
        copied.starts_with("POST /v1/models/m:predict?x=1 HTTP/1.1\r\n"),
        "{copied}"
    );
    assert!(copied.contains("host: models.test\r\n"), "{copied}");
    assert!(copied.contains("x-forebay-mirror: b\r\n"), "{copied}");
    assert!(copied.ends_with("\r\n\r\nhello world"), "{copied}");
    assert!(!sent.contains("x-forebay-mirror"), "{sent}");
    let id = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("x-request-id: "));
        line.map(str::to_owned).unwrap()
    };
    assert_eq!(id(&sent), id(&copied));
    assert_eq!(
        proxy.metric("forebay_arrivals_total", &["cluster=\"b\""]),
        0.0
    );
    proxy.stop().await;
}

#[tokio::test]
async fn a_mirror_that_hangs_changes_nothing_and_is_counted_as_a_timeout() {
    let primary = Upstream::fixed("primary").await;
    let mirror = Upstream::start(|mut peer| async move { while peer.read().await {} }).await;
    let options = ", timeout: 200ms";
    let proxy = Proxy::start(&mirrored(primary.address, mirror.address, options)).await;
    for _ in 0..20 {
        assert_eq!(Client::get(proxy.address(), "/").await.text(), "primary");
    }
    until("every copy timed out", async || {
        proxy.metric("forebay_mirror_requests_total", &["result=\"timeout\""]) == 20.0
    })
    .await;
    until("nothing is under way", async || {
        proxy.metric("forebay_mirror_in_flight", &[]) == 0.0
    })
    .await;
    proxy.stop().await;
}

#[tokio::test]
async fn each_outcome_is_counted_with_its_reason() {
    let primary = Upstream::fixed("primary").await;
    let failing = Upstream::start(|mut peer| async move {
        while peer.request().await.is_some() {
            peer.write(respond(500, "no")).await;
        }
    })
    .await;
    let closing = Upstream::start(|mut peer| async move {
        peer.request().await;
    })
    .await;
    let refusing = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    for (address, result, reason) in [
        (failing.address, "error", "status"),
        (closing.address, "error", "upstream_reset"),
        (refusing, "error", "connect_failed"),
    ] {
        let proxy = Proxy::start(&mirrored(primary.address, address, "")).await;
        assert_eq!(Client::get(proxy.address(), "/").await.text(), "primary");
        let labels = [
            format!("result=\"{result}\""),
            format!("reason=\"{reason}\""),
        ];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        until(&format!("{result} {reason}"), async || {
            proxy.metric("forebay_mirror_failures_total", &labels) == 1.0
        })
        .await;
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_mirror_that_nobody_reaches_gets_few_connections_until_it_is_back() {
    let primary = Upstream::fixed("primary").await;
    let (dead, opened) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
    let (is_dead, count) = (Arc::clone(&dead), Arc::clone(&opened));
    let mirror = Upstream::start(move |mut peer| {
        let is_dead = Arc::clone(&is_dead);
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            if is_dead.load(Ordering::SeqCst) {
                return;
            }
            while peer.request().await.is_some() {
                peer.write(respond(200, "mirror")).await;
            }
        }
    })
    .await;
    let proxy = Proxy::start(&mirrored(primary.address, mirror.address, "")).await;
    let ask = async || assert_eq!(Client::get(proxy.address(), "/").await.text(), "primary");
    for failed in 1..=3 {
        ask().await;
        until("a copy fails", async || {
            copies(&proxy, "error") == f64::from(failed)
        })
        .await;
    }
    let since = Instant::now();
    for _ in 0..50 {
        ask().await;
    }
    until("every copy is over", async || {
        copies(&proxy, "error") + dropped(&proxy, "unreachable") == 53.0
    })
    .await;
    let tries = since.elapsed().as_millis() / 100 + 1;
    let made = u128::from(opened.load(Ordering::SeqCst));
    assert!(made <= 3 + tries, "{made} connections, {tries} tries");
    assert!(dropped(&proxy, "unreachable") >= 50.0 - tries as f64);
    dead.store(false, Ordering::SeqCst);
    until("a copy is answered", async || {
        ask().await;
        ok(&proxy) > 0.0
    })
    .await;
    let before = dropped(&proxy, "unreachable");
    let answered = ok(&proxy);
    for _ in 0..10 {
        ask().await;
    }
    until("all are answered", async || ok(&proxy) >= answered + 10.0).await;
    assert_eq!(dropped(&proxy, "unreachable"), before);
    proxy.stop().await;
}

#[tokio::test]
async fn a_large_upload_is_copied_byte_for_byte() {
    let count = |mut peer: crate::support::upstream::Peer| async move {
        while let Some((_, body)) = peer.request().await {
            let sum: u64 = body.iter().map(|&byte| u64::from(byte)).sum();
            peer.write(respond(200, &format!("{} {sum}", body.len())))
                .await;
        }
    };
    let primary = Upstream::start(count).await;
    let mirror = Upstream::start(count).await;
    let options = ", max_lag: 32MiB, max_bytes: 64MiB";
    let proxy = Proxy::start(&mirrored(primary.address, mirror.address, options)).await;
    let body: Vec<u8> = (0..8u32 << 20)
        .map(|at| (at * 7 + at / 251) as u8)
        .collect();
    let sum: u64 = body.iter().map(|&byte| u64::from(byte)).sum();
    let mut client = Client::connect(proxy.address()).await;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.send(head).await;
    client.send(&body).await;
    assert_eq!(
        client.answer().await.text(),
        format!("{} {sum}", body.len())
    );
    until("the copy is answered", async || ok(&proxy) == 1.0).await;
    let copied = mirror.transcripts().remove(0);
    assert!(copied.ends_with(&body));
    assert_eq!(proxy.metric("forebay_mirror_held_bytes", &[]), 0.0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_copies() {
    let hang = |mut peer: crate::support::upstream::Peer| async move {
        peer.request().await;
        peer.closed().await;
    };
    let primary = Upstream::start(hang).await;
    let mirror = Upstream::start(hang).await;
    let proxy = Proxy::start(&mirrored(primary.address, mirror.address, "")).await;
    let mut client = Client::connect(proxy.address()).await;
    client.send("GET /slow HTTP/1.1\r\nhost: t\r\n\r\n").await;
    mirror.saw("GET /slow").await;
    drop(client);
    until("the copy is cancelled", async || {
        let labels = ["result=\"dropped\"", "reason=\"cancelled\""];
        proxy.metric("forebay_mirror_failures_total", &labels) == 1.0
    })
    .await;
    proxy.stop().await;
}
