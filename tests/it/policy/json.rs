//! Keys from the JSON body: whose request it is is known before it is admitted, and the body arrives as it came.

use std::time::Duration;

use bytes::Bytes;

use super::guarded;
use crate::support::h2::{H2, collect, post, soon};
use crate::support::proxy::config;
use crate::support::{Client, Proxy, Upstream, client::Answer, until};

const ONE_EACH: &str = "rate_limits: [{rate: 1/h, burst: 1, per: {json: /user}}]";

fn framed(body: &str) -> String {
    let length = body.len();
    format!("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: {length}\r\n\r\n{body}")
}

async fn ask(proxy: &Proxy, body: &str) -> u16 {
    Client::once(proxy.address(), framed(body)).await.status
}

/// Sends a request in many packets.
async fn ask_slowly(proxy: &Proxy, request: &[u8], step: usize) -> Answer {
    let mut client = Client::connect(proxy.address()).await;
    for part in request.chunks(step) {
        client.send(part).await;
        tokio::time::sleep(Duration::from_millis(1)).await; // a packet of its own
    }
    client.answer().await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_user_has_a_limit_of_their_own() {
    let upstream = Upstream::fixed("ok").await;
    let proxy = Proxy::start(&guarded(upstream.address, ONE_EACH, "")).await;
    assert_eq!(ask(&proxy, r#"{"user": "ann", "prompt": "x"}"#).await, 200);
    assert_eq!(ask(&proxy, r#"{"prompt": "y", "user": "ann"}"#).await, 429);
    assert_eq!(ask(&proxy, r#"{"user": "bob"}"#).await, 200);
    assert_eq!(
        ask(&proxy, r#"{"user": "x", "user": "bob"}"#).await,
        429,
        "the last one counts"
    );
    let request = framed(r#"{"prompt": "z", "us\u0065r": "bob"}"#);
    let answer = ask_slowly(&proxy, request.as_bytes(), 3).await;
    assert_eq!((answer.status, answer.reason()), (429, "rate_limited"));
    let chunked = "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n\
        8\r\n{\"user\":\r\n6\r\n \"bob\"\r\n1\r\n}\r\n0\r\n\r\n";
    assert_eq!(Client::once(proxy.address(), chunked).await.status, 429);
    let h2 = H2::connect(proxy.address()).await;
    for (user, status) in [("bob", 429), ("cid", 200), ("cid", 429)] {
        let (answer, mut send) = h2.begin(post("/").body(()).unwrap(), false).await;
        send.send_data("{\"user\": \"".into(), false).unwrap();
        send.send_data(format!("{user}\"}}").into(), true).unwrap();
        let answer = soon("an answer", collect(answer)).await.unwrap();
        assert_eq!(answer.status(), status, "{user}");
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_key_shares_one() {
    let upstream = Upstream::fixed("ok").await;
    let late = format!(
        "{{\"prompt\": \"{}\", \"user\": \"ann\"}}",
        "x".repeat(70_000)
    );
    let broken = "ann".to_owned();
    let absent = r#"{"prompt": "x"}"#.to_owned();
    let other = r#"{"user": ["ann"]}"#.to_owned();
    let requests = [
        framed(&late),
        framed(&broken),
        framed(&absent),
        framed(&other),
        framed(""),
    ];
    let get = "GET / HTTP/1.1\r\nhost: t\r\n\r\n".to_owned();
    for request in requests.into_iter().chain([get]) {
        let proxy = Proxy::start(&guarded(upstream.address, ONE_EACH, "")).await;
        assert_eq!(Client::once(proxy.address(), &request).await.status, 200);
        assert_eq!(ask(&proxy, r#"{"user": "ann"}"#).await, 200);
        assert_eq!(
            ask(&proxy, "{}").await,
            429,
            "{}",
            &request[..60.min(request.len())]
        );
        proxy.stop().await;
    }
    let early = format!(
        "{{\"user\": \"ann\", \"prompt\": \"{}\"}}",
        "x".repeat(70_000)
    );
    let proxy = Proxy::start(&guarded(upstream.address, ONE_EACH, "")).await;
    assert_eq!(ask(&proxy, &early).await, 200);
    assert_eq!(
        ask(&proxy, r#"{"user": "ann"}"#).await,
        429,
        "it is among the first 64 KiB"
    );
    assert_eq!(ask(&proxy, "{}").await, 200);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_arrives_as_it_came() {
    let upstream = Upstream::start(|mut peer| async move {
        while let Some((_, body)) = peer.request().await {
            let start = String::from_utf8_lossy(&body[..9.min(body.len())]).into_owned();
            peer.write(crate::support::respond(
                200,
                &format!("{} {start}", body.len()),
            ))
            .await;
        }
    })
    .await;
    let limit = "rate_limits: [{rate: 1000/s, burst: 1000, per: {json: /user}}]";
    for retry in [
        "",
        ", retry: {when: [reset], methods: all, max_body: 100KiB}",
    ] {
        let proxy = Proxy::start(&guarded(upstream.address, &format!("{limit}{retry}"), "")).await;
        for length in [20, 4_000, 65_000, 65_530, 65_536, 65_600, 400_000] {
            let filler: String = (0..length)
                .map(|at| char::from(b'a' + (at % 23) as u8))
                .collect();
            let body = format!("{{\"p\":\"{filler}\",\"user\":\"ann\"}}");
            let marked = body.replacen("aa", "XX", 1);
            let step = (length / 40).max(7);
            let answer = ask_slowly(&proxy, framed(&marked).as_bytes(), step).await;
            assert_eq!(
                answer.text(),
                format!("{} {}", marked.len(), &marked[..9]),
                "{length}"
            );
            let got = upstream.transcripts().concat();
            let (mark, size) = (marked.as_bytes(), marked.len());
            let whole = got.windows(9).enumerate().filter(|(_, w)| *w == &mark[..9]);
            let whole =
                whole.filter(|(at, _)| got[*at..].len() >= size && &got[*at..at + size] == mark);
            assert!(whole.count() > 0, "{length}");
        }
        let chunked = "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n\
            8\r\n{\"user\":\r\n6\r\n \"bob\"\r\n1\r\n}\r\n0\r\n\r\n";
        assert_eq!(ask_slowly(&proxy, chunked.as_bytes(), 5).await.status, 200);
        let empty = "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
        assert_eq!(ask_slowly(&proxy, empty.as_bytes(), 5).await.status, 200);
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_in_the_middle_is_told_so() {
    let upstream = Upstream::fixed("ok").await;
    let route = format!("timeouts: {{request_body: 200ms}}, {ONE_EACH}");
    let proxy = Proxy::start(&guarded(upstream.address, &route, "")).await;
    let mut client = Client::connect(proxy.address()).await;
    client
        .send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 20\r\n\r\n{\"user\":")
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.reason()), (408, "request_timeout"));
    let h2 = H2::connect(proxy.address()).await;
    let (answer, mut send) = h2.begin(post("/").body(()).unwrap(), false).await;
    send.send_data("{\"user\":".into(), false).unwrap();
    let answer = soon("an answer", collect(answer)).await.unwrap();
    assert_eq!((answer.status(), answer.reason()), (408, "request_timeout"));
    let mut client = Client::connect(proxy.address()).await;
    client
        .send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 20\r\n\r\n{\"user\":")
        .await;
    until("it is under way", async || {
        proxy.metric("forebay_connections", &[]) >= 2.0
    })
    .await;
    drop(client);
    until("it is over", async || {
        proxy.metric("forebay_connections", &[]) == 1.0
    })
    .await;
    assert!(upstream.text().is_empty(), "{}", upstream.text());
    assert_eq!(
        ask(&proxy, "{}").await,
        200,
        "nothing was taken from the limit"
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_refused_while_it_is_looked_at() {
    let upstream = Upstream::fixed("ok").await;
    let route = format!("body: {{max: 1KiB}}, {ONE_EACH}");
    let proxy = Proxy::start(&guarded(upstream.address, &route, "")).await;
    let body = format!("{{\"p\": \"{}\", \"user\": \"ann\"}}", "x".repeat(2_000));
    let chunked = format!(
        "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    for request in [&chunked, &framed(&body)] {
        let answer = Client::once(proxy.address(), request).await;
        assert_eq!((answer.status, answer.reason()), (413, "body_too_large"));
    }
    let expecting =
        "POST / HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 2000\r\n\r\n";
    let answer = Client::once(proxy.address(), expecting).await;
    assert_eq!(answer.status, 413, "it is not asked for the body first");
    let h2 = H2::connect(proxy.address()).await;
    let (answer, mut send) = h2.begin(post("/").body(()).unwrap(), false).await;
    send.send_data(Bytes::from(body.into_bytes()), true)
        .unwrap();
    let answer = soon("an answer", collect(answer)).await.unwrap();
    assert_eq!((answer.status(), answer.reason()), (413, "body_too_large"));
    assert!(upstream.text().is_empty());
    assert_eq!(
        ask(&proxy, r#"{"user": "ann"}"#).await,
        200,
        "nothing was taken from the limit"
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_first_is_told_to_go_on() {
    let upstream = Upstream::fixed("ok").await;
    let proxy = Proxy::start(&guarded(upstream.address, ONE_EACH, "")).await;
    for status in [200, 429] {
        let body = r#"{"user": "ann"}"#;
        let mut client = Client::connect(proxy.address()).await;
        let length = body.len();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        );
        client.send(head).await;
        assert_eq!(client.answer().await.status, 100);
        client.send(body).await;
        assert_eq!(client.final_answer().await.unwrap().status, status);
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_connection_upstream_is_not_the_clients_fault() {
    // The body ends without another byte while it is looked at; then connecting takes longer than the client may.
    let silent = Upstream::start(|mut peer| async move { while peer.read().await {} }).await;
    let proxy = Proxy::start(&config(&format!(
        "routes: [{{name: r, cluster: a, timeouts: {{request_body: 200ms}}, {ONE_EACH}}}]\n\
         clusters: [{{name: a, tls: {{}}, connect_timeout: 600ms, endpoints: ['{}']}}]\n",
        silent.address
    )))
    .await;
    let mut client = Client::connect(proxy.address()).await;
    let head = "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n";
    client.send(format!("{head}5\r\n{{\"a\":\r\n")).await;
    tokio::time::sleep(Duration::from_millis(50)).await; // a packet of its own
    client.send("0\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.reason()), (504, "connect_timeout"));
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_stays_with_a_member_of_the_split() {
    let (old, new) = (Upstream::fixed("old").await, Upstream::fixed("new").await);
    let proxy = Proxy::start(&config(&format!(
        "routes: [{{name: r, sticky: {{json: /user}}, split: [{{cluster: old, weight: 50}}, {{cluster: new, weight: 50}}]}}]\n\
         clusters: [{{name: old, endpoints: ['{}']}}, {{name: new, endpoints: ['{}']}}]\n",
        old.address, new.address
    )))
    .await;
    let h2 = H2::connect(proxy.address()).await;
    let mut at_new = 0;
    for user in 0..40 {
        let body = format!("{{\"p\": [1, 2], \"user\": {user}}}");
        let first = Client::once(proxy.address(), framed(&body)).await.text();
        let again = ask_slowly(&proxy, framed(&body).as_bytes(), 9).await.text();
        let (answer, mut send) = h2.begin(post("/").body(()).unwrap(), false).await;
        send.send_data(body.into(), true).unwrap();
        let by_h2 = soon("an answer", collect(answer)).await.unwrap().body;
        assert_eq!(first, again);
        assert_eq!(first.as_bytes(), by_h2);
        at_new += u32::from(first == "new");
    }
    assert!((5..=35).contains(&at_new), "{at_new} of 40");
    let mut answers = std::collections::BTreeSet::new();
    for _ in 0..40 {
        answers.insert(
            Client::once(proxy.address(), framed("no JSON"))
                .await
                .text(),
        );
    }
    assert_eq!(answers.len(), 2, "without a key it is by chance");
    proxy.stop().await;
}
