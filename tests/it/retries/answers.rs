//! What is tried again: listed statuses, broken connections, refused ones; and whose requests.

use super::{always, counting, nobody, retries, retrying, seen};
use crate::support::upstream::{Peer, Upstream};
use crate::support::{Client, Proxy, respond, until};

const STATUSES: &str = "retry: {attempts: 2, when: [502, 503, 504]}";

/// Asks until the endpoint that fails has had its turn.
async fn ask_until(proxy: &Proxy, had_its_turn: impl Fn() -> bool) {
    let mut asked = 0;
    until("the failing endpoint is asked", async || {
        let answer = Client::get(proxy.address(), "/").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "good"));
        asked += 1;
        asked >= 4 && had_its_turn()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_status_is_tried_elsewhere() {
    for status in [502, 503, 504] {
        let (bad, count) = always(status, "bad").await;
        let good = Upstream::fixed("good").await;
        let addresses = [bad.address, good.address];
        let proxy = Proxy::start(&retrying(&addresses, STATUSES, "")).await;
        assert_eq!(
            retries(&proxy, &status.to_string()),
            0.0,
            "nothing was retried yet"
        );
        ask_until(&proxy, || seen(&count) > 0).await;
        assert_eq!(retries(&proxy, &status.to_string()), seen(&count) as f64);
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_status_is_passed_on() {
    let (bad, count) = always(500, "bad").await;
    let proxy = Proxy::start(&retrying(&[bad.address], STATUSES, "")).await;
    let answer = Client::get(proxy.address(), "/").await;
    assert_eq!((answer.status, answer.text().as_str()), (500, "bad"));
    assert_eq!(seen(&count), 1);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_is_tried_elsewhere_when_that_is_asked() {
    type Script = fn(Peer) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
    let before: Script = |mut peer| Box::pin(async move { drop(peer.request().await) });
    let within: Script = |mut peer| {
        Box::pin(async move {
            peer.request().await;
            peer.write("HTTP/1.1 200 OK\r\ncontent-le").await;
        })
    };
    let nonsense: Script = |mut peer| {
        Box::pin(async move {
            peer.request().await;
            peer.write("SSH-2.0-OpenSSH_9.9\r\n\r\n").await;
            peer.closed().await;
        })
    };
    for (script, reason) in [
        (before, "upstream_reset"),
        (within, "upstream_reset"),
        (nonsense, "upstream_protocol"),
    ] {
        let bad = Upstream::start(script).await;
        let good = Upstream::fixed("good").await;
        let addresses = [bad.address, good.address];
        let proxy = Proxy::start(&retrying(&addresses, "retry: {when: [reset]}", "")).await;
        ask_until(&proxy, || !bad.text().is_empty()).await;
        assert!(retries(&proxy, reason) > 0.0, "{}", proxy.metrics());
        proxy.stop().await;

        let proxy = Proxy::start(&retrying(&[bad.address], "retry: {when: [503]}", "")).await;
        let answer = Client::get(proxy.address(), "/").await;
        assert_eq!((answer.status, answer.reason()), (502, reason));
        assert_eq!(retries(&proxy, ""), 0.0);
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_at_an_address_is_tried_elsewhere_with_and_without_a_word() {
    for route in ["", "retry: {when: [connect]}"] {
        let good = Upstream::fixed("good").await;
        let addresses = [nobody(), nobody(), good.address];
        let proxy = Proxy::start(&retrying(&addresses, route, "balance: round_robin,")).await;
        for _ in 0..8 {
            let post = "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\nhi";
            assert_eq!(Client::once(proxy.address(), post).await.text(), "good");
        }
        assert!(retries(&proxy, "connect_failed") > 0.0);
        assert_eq!(good.text().matches("\r\n\r\nhi").count(), 8);
        proxy.stop().await;
    }
    let addresses = [nobody()];
    let route = "retry: {when: [503]}";
    let proxy = Proxy::start(&retrying(&addresses, route, "")).await;
    let answer = Client::get(proxy.address(), "/").await;
    assert_eq!((answer.status, answer.reason()), (502, "connect_failed"));
    assert_eq!(retries(&proxy, "connect_failed"), 0.0);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_was_really_sent() {
    for route in ["", "retry: {when: [connect], attempts: 2}"] {
        let proxy = Proxy::start(&retrying(&[nobody()], route, "")).await;
        let answer = Client::get(proxy.address(), "/").await;
        assert_eq!((answer.status, answer.reason()), (502, "connect_failed"));
        let made = if route.is_empty() { 0.0 } else { 2.0 };
        assert_eq!(retries(&proxy, "connect_failed"), made, "{route:?}");
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_answer_is_passed_on_unchanged() {
    for attempts in [0, 1, 2, 5] {
        let (bad, count) = counting(|nth| {
            let body = format!("busy for the {nth}. time");
            let length = body.len();
            format!("HTTP/1.1 503 Busy\r\nx-nth: {nth}\r\nretry-after: 7\r\ncontent-length: {length}\r\n\r\n{body}")
                .into_bytes()
        })
        .await;
        let route = format!("retry: {{attempts: {attempts}, when: [503]}}");
        let proxy = Proxy::start(&retrying(&[bad.address], &route, "")).await;
        let answer = Client::get(proxy.address(), "/").await;
        let made = attempts + 1;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.text(), format!("busy for the {made}. time"));
        assert_eq!(answer.header("x-nth"), Some(made.to_string().as_str()));
        assert_eq!(answer.header("retry-after"), Some("7"));
        assert_eq!(answer.reason(), "");
        assert_eq!(seen(&count), made);
        assert_eq!(retries(&proxy, "503"), attempts as f64);
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_those_methods_are_repeated_that_may_be() {
    let idempotent = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"];
    let other = ["POST", "PATCH"];
    let all: Vec<&str> = idempotent.iter().chain(&other).copied().collect();
    let (bad, count) = always(503, "bad").await;
    for (methods, repeated) in [
        ("idempotent", &idempotent[..]),
        ("all", &all[..]),
        ("[POST]", &["POST"][..]),
    ] {
        let route = format!("retry: {{attempts: 1, when: [503, reset], methods: {methods}}}");
        let proxy = Proxy::start(&retrying(&[bad.address], &route, "")).await;
        for method in &all {
            for key in ["", "Idempotency-Key: \"8e03978e\"\r\n"] {
                let before = seen(&count);
                let mut client = Client::connect(proxy.address()).await;
                client
                    .send(format!(
                        "{method} / HTTP/1.1\r\nhost: t\r\n{key}content-length: 2\r\n\r\nhi"
                    ))
                    .await;
                let head = client.try_head().await.unwrap();
                assert!(head.starts_with("HTTP/1.1 503"), "{head}");
                let twice = repeated.contains(method) || !key.is_empty();
                let made = seen(&count) - before;
                assert_eq!(
                    made,
                    1 + usize::from(twice),
                    "{method} {key:?} of {methods}"
                );
            }
        }
        proxy.stop().await;
    }
    assert!(bad.text().matches("\r\n\r\nhi").count() > 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_repeated_once_the_client_has_a_byte() {
    let cut = |mut peer: Peer| async move {
        peer.request().await;
        peer.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegin")
            .await;
    };
    let bad = Upstream::start(cut).await;
    let good = Upstream::fixed("good").await;
    let route = "retry: {when: [reset, 502, 503, 504], methods: all}";
    let proxy = Proxy::start(&retrying(&[bad.address], route, "")).await;
    let mut client = Client::connect(proxy.address()).await;
    client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    let got = client.try_answer().await.unwrap_err();
    assert_eq!(String::from_utf8(got).unwrap(), "begin");
    assert_eq!(bad.transcripts().len(), 1);
    assert_eq!(good.transcripts().len(), 0);
    assert_eq!(proxy.metric("forebay_retries_total", &[]), 0.0);
    assert_eq!(
        proxy.metric("forebay_aborted_total", &["reason=\"upstream_reset\""]),
        1.0
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_of_a_short_answer_that_nobody_gets_is_used_again() {
    let chunked = "HTTP/1.1 503 X\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbusy\r\n0\r\n\r\n";
    for first in [
        respond(503, "busy"),
        respond(503, ""),
        chunked.as_bytes().to_vec(),
    ] {
        let first = std::sync::Arc::new(first);
        let (upstream, count) = counting(move |nth| match nth {
            1 => first.to_vec(),
            _ => respond(200, "good"),
        })
        .await;
        // The pause before the same endpoint is asked again is long enough for the answer to be read.
        let route = "retry: {attempts: 1, when: [503]}";
        let proxy = Proxy::start(&retrying(&[upstream.address], route, "")).await;
        let mut client = Client::connect(proxy.address()).await;
        for _ in 0..2 {
            client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
            assert_eq!(client.answer().await.text(), "good");
        }
        assert_eq!(seen(&count), 3);
        let connections = upstream.transcripts().len();
        assert!(connections <= 2, "{connections} connections");
        let kept = upstream
            .transcripts()
            .iter()
            .any(|t| t.windows(6).filter(|w| w == b"GET / ").count() > 1);
        assert!(kept, "a connection served twice");
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_passed_on_when_no_endpoint_is_left() {
    let (bad, count) = always(503, "bad").await;
    let route = "retry: {attempts: 3, when: [503]}";
    let cluster = "outlier: {consecutive_5xx: 1, keep_at_least: 0, base: 60s},";
    let proxy = Proxy::start(&retrying(&[bad.address], route, cluster)).await;
    let answer = Client::get(proxy.address(), "/").await;
    assert_eq!((answer.status, answer.text().as_str()), (503, "bad"));
    assert_eq!(answer.reason(), "", "it is the endpoint's answer");
    assert_eq!(seen(&count), 1);
    assert_eq!(retries(&proxy, "503"), 0.0);
    let answer = Client::get(proxy.address(), "/").await;
    assert_eq!((answer.status, answer.reason()), (503, "no_endpoint"));
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_passed_on_when_the_breaker_is_open() {
    let (bad, count) = always(503, "bad").await;
    let route = "retry: {attempts: 1, when: [503]}";
    let proxy = Proxy::start(&retrying(&[bad.address], route, "breaker: {requests: 1},")).await;
    for asked in 1..4 {
        let answer = Client::get(proxy.address(), "/").await;
        assert_eq!((answer.status, answer.text().as_str()), (503, "bad"));
        assert_eq!(seen(&count), 2 * asked, "its own request is not in its way");
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_how_many_attempts_there_were_and_which_was_the_last() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let (upstream, _) = counting(|nth| respond(if nth < 3 { 503 } else { 200 }, "x")).await;
    let text = retrying(&[upstream.address], STATUSES, "");
    let log = format!("access_log: {{path: '{}', format: json}}\n", path.display());
    let proxy = Proxy::start(&(text + &log)).await;
    assert_eq!(Client::get(proxy.address(), "/").await.status, 200);
    until("the line is written", async || {
        std::fs::read_to_string(&path).is_ok_and(|text| text.ends_with('\n'))
    })
    .await;
    let line = std::fs::read_to_string(&path).unwrap();
    let line: serde_json::Value = serde_json::from_str(line.trim()).unwrap();
    assert_eq!(line["attempts"], 3, "{line}");
    assert_eq!(line["endpoint"], upstream.address.to_string(), "{line}");
    assert_eq!(line["status"], 200, "{line}");
    proxy.stop().await;
}
