//! An answer cut at any byte never looks complete.

use crate::support::proxy::forward_to;
use crate::support::{Client, Proxy, Upstream};

/// How an answer is framed, and whether only a reset can say that it was cut.
const SHAPES: &[(&str, bool)] = &[
    (
        "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nhello, world",
        false,
    ),
    (
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\n\r\n",
        false,
    ),
    (
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-t\r\n\r\n5\r\nhello\r\n7\r\n, world\r\n0\r\nx-t: y\r\n\r\n",
        false,
    ),
    (
        "HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nhello, world",
        false,
    ),
    ("HTTP/1.1 200 OK\r\n\r\nhello, world", true),
    ("HTTP/1.0 200 OK\r\n\r\nhello, world", true),
    (
        "HTTP/1.0 200 OK\r\ncontent-length: 12\r\n\r\nhello, world",
        false,
    ),
];

/// What a client could make of all it was sent.
#[derive(Debug, PartialEq)]
enum Understood {
    Whole(String),
    Told,
}

fn understand(raw: &[u8], by_fin: bool) -> Understood {
    let text = String::from_utf8(raw.to_vec()).unwrap();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Understood::Told;
    };
    if !head.split(' ').nth(1).is_some_and(|status| status == "200") {
        return Understood::Told;
    }
    let head = head.to_ascii_lowercase();
    let whole = if head.contains("transfer-encoding: chunked") {
        body.ends_with("0\r\n\r\n") || body.ends_with("\r\nx-t: y\r\n\r\n")
    } else if let Some(length) = head.split("content-length: ").nth(1) {
        body.len()
            == length
                .split("\r\n")
                .next()
                .unwrap()
                .parse::<usize>()
                .unwrap()
    } else {
        by_fin
    };
    if whole {
        Understood::Whole(body.to_owned())
    } else {
        Understood::Told
    }
}

async fn cut_everywhere(version: &'static str, reset: bool) {
    let upstream = Upstream::start(move |mut peer| async move {
        while let Some((head, _)) = peer.request().await {
            let numbers: Vec<usize> = head
                .split(['/', ' '])
                .filter_map(|part| part.parse().ok())
                .collect();
            let raw = SHAPES[numbers[0]].0.as_bytes();
            let whole = numbers[1] == raw.len();
            peer.write(&raw[..numbers[1]]).await;
            if !whole || SHAPES[numbers[0]].1 {
                if reset && !whole {
                    peer.stream.set_zero_linger().unwrap();
                }
                return;
            }
        }
    })
    .await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let mut wrong = Vec::new();
    for (shape, (raw, needs_reset)) in SHAPES.iter().enumerate() {
        let head = raw.rfind("200 OK").unwrap();
        let head = head + raw[head..].find("\r\n\r\n").unwrap() + 4;
        for length in 0..=raw.len() {
            if *needs_reset && !reset && (head..raw.len()).contains(&length) {
                continue; // a FIN is the legal end of such an answer
            }
            let mut client = Client::connect(proxy.address()).await;
            client
                .send(format!(
                    "GET /{shape}/{length} HTTP/{version}\r\nhost: t\r\nconnection: close\r\n\r\n"
                ))
                .await;
            let (raw_answer, by_fin) = client.all().await;
            let got = understand(&raw_answer, by_fin);
            if (length == raw.len()) != matches!(got, Understood::Whole(_)) {
                let text = String::from_utf8_lossy(&raw_answer).into_owned();
                wrong.push(format!(
                    "shape {shape} cut at {length} of {}: fin: {by_fin}: {text:?}",
                    raw.len()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_by_fin_is_told_to_an_http11_client() {
    cut_everywhere("1.1", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_by_reset_is_told_to_an_http11_client() {
    cut_everywhere("1.1", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_by_fin_is_told_to_an_http10_client() {
    cut_everywhere("1.0", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_by_reset_is_told_to_an_http10_client() {
    cut_everywhere("1.0", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_counts_as_the_endpoints_fault() {
    let upstream = Upstream::start(|mut peer| async move {
        peer.request().await;
        peer.write("HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nhello")
            .await;
    })
    .await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let mut client = Client::connect(proxy.address()).await;
    client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    assert!(client.try_answer().await.is_err());
    crate::support::until("counted", async || {
        proxy.metric("forebay_aborted_total", &["reason=\"upstream_reset\""]) == 1.0
    })
    .await;
    assert_eq!(proxy.metric("forebay_requests_in_flight", &[]), 0.0);
    proxy.stop().await;
}
