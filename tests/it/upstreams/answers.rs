//! Answers whose framing lies, repeats itself or has more than was asked for.

use super::once;
use crate::support::proxy::forward_to;
use crate::support::{Client, Proxy, Upstream, respond};

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_no_http_is_502() {
    let ok = "HTTP/1.1 200 OK\r\n";
    let large = format!("{ok}x: {}\r\n\r\n", "y".repeat(1 << 20));
    let many = format!(
        "{ok}{}\r\n",
        (0..200).map(|n| format!("x{n}: y\r\n")).collect::<String>()
    );
    let cases = [
        format!("{ok}content-length: 2, 3\r\n\r\nok"),
        format!("{ok}content-length: 2\r\ncontent-length: 3\r\n\r\nok!"),
        format!("{ok}content-length: +2\r\n\r\nok"),
        format!("{ok}content-length: -2\r\n\r\nok"),
        format!("{ok}content-length: two\r\n\r\nok"),
        format!("{ok}content-length: 18446744073709551616\r\n\r\nok"),
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".to_owned(),
        format!("{ok}x: a\r\n b\r\ncontent-length: 2\r\n\r\nok"),
        format!("{ok}x: a\0b\r\ncontent-length: 2\r\n\r\nok"),
        format!("{ok}x: a\rb\r\ncontent-length: 2\r\n\r\nok"),
        format!("{ok}x y: a\r\ncontent-length: 2\r\n\r\nok"),
        "HTTP/1.1 abc OK\r\n\r\n".to_owned(),
        "HTTP/1.1 99 OK\r\n\r\n".to_owned(),
        "HTTP/2.0 200 OK\r\n\r\n".to_owned(),
        "ICY 200 OK\r\n\r\n".to_owned(),
        "\x15\x03\x01\x00\x02\x02\x46".to_owned(),
        large,
        many,
    ];
    let mut failures = Vec::new();
    for raw in cases {
        let upstream = once(raw.clone().into_bytes(), false).await;
        let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
        let answer = Client::get(proxy.address(), "/").await;
        if (answer.status, answer.reason()) != (502, "upstream_protocol") {
            failures.push(format!("{raw:.80?}: {} {}", answer.status, answer.reason()));
        }
        proxy.stop().await;
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_beside_chunks_does_not_reach_the_client() {
    for fields in [
        "content-length: 3\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 3",
    ] {
        let raw = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        let upstream = once(raw.into_bytes(), false).await;
        let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
        let answer = Client::get(proxy.address(), "/").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
        assert_eq!(answer.header("content-length"), None, "{}", answer.head);
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_interim_answers_are_swallowed_and_no_more() {
    for (count, status) in [(1, 200), (16, 200), (17, 502), (5000, 502)] {
        for at_once in [true, false] {
            let upstream = Upstream::start(move |mut peer| async move {
                let interim = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
                if peer.request().await.is_some() {
                    if at_once {
                        peer.write(interim.repeat(count).as_bytes()).await;
                    } else {
                        for _ in 0..count {
                            if !peer.write(interim).await {
                                return;
                            }
                            tokio::task::yield_now().await;
                        }
                    }
                    peer.write(respond(200, "final")).await;
                    peer.closed().await;
                }
            })
            .await;
            let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
            let answer = Client::get(proxy.address(), "/").await;
            assert_eq!(
                answer.status,
                status,
                "{count} at once: {at_once}: {}",
                answer.reason()
            );
            match status {
                200 => assert_eq!(answer.text(), "final"),
                _ => assert_eq!(answer.reason(), "upstream_protocol"),
            }
            proxy.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_101_that_nobody_asked_for_is_502() {
    let switching =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let upstream = once(format!("{switching}evil").into_bytes(), false).await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    for fields in [
        "",
        "upgrade: websocket\r\n",
        "connection: upgrade\r\nupgrade: h2c\r\n",
    ] {
        let answer = Client::once(
            proxy.address(),
            format!("GET / HTTP/1.1\r\nhost: t\r\n{fields}\r\n"),
        )
        .await;
        assert_eq!(
            (answer.status, answer.reason()),
            (502, "upstream_protocol"),
            "{fields:?}"
        );
    }
    assert!(
        !upstream.text().to_lowercase().contains("upgrade"),
        "{}",
        upstream.text()
    );
    proxy.stop().await;
}

/// What an endpoint sends past the end of an answer is dropped with its connection.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_after_the_end_never_become_the_next_answer() {
    let evil = String::from_utf8(respond(200, "evil")).unwrap();
    let with_length = format!("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood{evil}");
    let with_chunks = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n{evil}"
    );
    let no_content = format!("HTTP/1.1 204 No Content\r\n\r\n{evil}");
    let not_modified = format!("HTTP/1.1 304 Not Modified\r\ncontent-length: 4\r\n\r\n{evil}");
    for (first, status, text) in [
        (with_length, 200, "good"),
        (with_chunks, 200, "good"),
        (no_content, 204, ""),
        (not_modified, 304, ""),
    ] {
        let upstream = Upstream::start(move |mut peer| {
            let first = first.clone();
            async move { while peer.request().await.is_some() && peer.write(&first).await {} }
        })
        .await;
        let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
        let mut client = Client::connect(proxy.address()).await;
        for n in 0..10 {
            client
                .send(format!(
                    "POST /{n} HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\nhi"
                ))
                .await;
            let answer = bodiless(&mut client, status).await;
            assert_eq!((answer.0, answer.1.as_str()), (status, text), "request {n}");
        }
        assert_eq!(
            upstream.transcripts().len(),
            10,
            "a connection was used again"
        );
        proxy.stop().await;
    }
}

async fn bodiless(client: &mut Client, expected: u16) -> (u16, String) {
    if expected == 304 || expected == 204 {
        let head = client.try_head().await.unwrap();
        return (
            head.split(' ').nth(1).unwrap().parse().unwrap(),
            String::new(),
        );
    }
    let answer = client.answer().await;
    (answer.status, answer.text())
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_keep_their_length_and_their_connection() {
    let upstream = Upstream::start(|mut peer| async move {
        while let Some((head, _)) = peer.request().await {
            let answer: &[u8] = match head.split(' ').nth(1).unwrap() {
                "/204" => b"HTTP/1.1 204 No Content\r\n\r\n",
                "/304" => b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\netag: \"e\"\r\n\r\n",
                "/chunked" => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                _ => b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
            };
            peer.write(answer).await;
        }
    })
    .await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let mut client = Client::connect(proxy.address()).await;
    for _ in 0..3 {
        for (request, status, length) in [
            ("HEAD /head", "200", Some("content-length: 5")),
            ("HEAD /chunked", "200", None),
            ("GET /204", "204", None),
            ("GET /304", "304", Some("etag: \"e\"")),
            ("HEAD /204", "204", None),
        ] {
            client
                .send(format!("{request} HTTP/1.1\r\nhost: t\r\n\r\n"))
                .await;
            let head = client.try_head().await.unwrap();
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status} ")),
                "{request}: {head}"
            );
            match length {
                Some(field) => assert!(head.contains(field), "{request}: {head}"),
                None => assert!(!head.contains("content-length"), "{request}: {head}"),
            }
        }
    }
    assert_eq!(
        upstream.transcripts().len(),
        1,
        "one connection serves them all"
    );
    proxy.stop().await;
}

/// An idle connection on which the endpoint speaks unasked is not used again.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_its_request_is_dropped() {
    let upstream = Upstream::start(|mut peer| async move {
        while peer.request().await.is_some() {
            peer.write(respond(200, "good")).await;
            tokio::task::yield_now().await;
            peer.write(respond(200, "evil")).await;
        }
    })
    .await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    let mut client = Client::connect(proxy.address()).await;
    for n in 0..30 {
        let request = if n % 2 == 0 { "GET" } else { "POST" };
        client
            .send(format!(
                "{request} / HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n"
            ))
            .await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "good"),
            "request {n}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(2)).await; // the unasked bytes travel
    }
    proxy.stop().await;
}
