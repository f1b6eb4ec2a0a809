//! What becomes of answers that began early and got no events: the reason as an event, and a cut.

use std::time::Duration;

use super::*;

/// The error that the rest of a cut answer tells.
async fn error(client: &mut Client) -> serde_json::Value {
    let (text, complete) = rest(client).await;
    assert!(!complete, "a cut answer looks complete: {text:?}");
    told(&text)
}

fn told(text: &str) -> serde_json::Value {
    let data = text
        .strip_prefix("data: ")
        .and_then(|t| t.strip_suffix("\n\n"));
    let data = data.unwrap_or_else(|| panic!("one event: {text:?}"));
    let document: serde_json::Value = serde_json::from_str(data).unwrap();
    let error = document["error"].clone();
    let mut keys: Vec<_> = error.as_object().unwrap().keys().cloned().collect();
    keys.sort();
    assert_eq!(keys, ["code", "message", "param", "type"]);
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_an_event_and_a_cut() {
    let (_socket, address) = nobody();
    let proxy = Proxy::start(&beating(address, "", ", empty: 2s")).await;
    let mut client = asking(&proxy).await;
    begins(&mut client).await;
    let told = error(&mut client).await;
    assert_eq!(told["code"], "no_endpoint");
    assert_eq!(told["type"], "unavailable_error");
    until("it is counted", async || {
        aborted(&proxy, "no_endpoint") == 1.0
    })
    .await;
    assert_eq!(
        (counted(&proxy, "code=\"200\""), counted(&proxy, "")),
        (1.0, 1.0)
    );
    assert_eq!(proxy.metric("forebay_refused_total", &["route=\"r\""]), 0.0);
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_resets_an_http2_stream_after_its_event() {
    let (_socket, address) = nobody();
    let proxy = Proxy::start(&beating(address, "", ", empty: 2s")).await;
    let client = H2::connect(proxy.address()).await;
    let (answer, mut body) = client.begin(ask2(), false).await;
    body.send_data(ASKS.into(), true).unwrap();
    let mut events = soon("a head", answer).await.unwrap().into_body();
    let mut text = String::new();
    let cut = loop {
        match soon("data", events.data()).await.expect("a reset") {
            Ok(block) => text.push_str(std::str::from_utf8(&block).unwrap()),
            Err(error) => break error,
        }
    };
    assert!(cut.is_reset(), "{cut}");
    assert_eq!(told(&text.replace(COMMENT, ""))["code"], "no_endpoint");
    until("it is counted", async || {
        aborted(&proxy, "no_endpoint") == 1.0
    })
    .await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_runs_out_meanwhile_is_told_and_cut() {
    let (_socket, address) = nobody();
    let proxy = Proxy::start(&beating(address, ", timeouts: {total: 2s}", "")).await;
    let mut client = asking(&proxy).await;
    begins(&mut client).await;
    assert_eq!(error(&mut client).await["code"], "total_timeout");
    until("it is counted", async || {
        aborted(&proxy, "total_timeout") == 1.0
    })
    .await;
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_endpoint_answers_but_events_is_an_error() {
    let plain = "HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\ncontent-length: 0\r\n\r\n";
    for (answer, code, message) in [
        (
            json(
                400,
                r#"{"error":{"message":"too long","type":"t","param":null,"code":"c"}}"#,
            ),
            "400",
            "too long",
        ),
        (
            json(500, r#"{"detail":"out of memory"}"#),
            "500",
            "out of memory",
        ),
        (
            json(500, "{"),
            "500",
            "the upstream answered 500 Internal Server Error",
        ),
        (
            String::from_utf8(respond(404, "text")).unwrap(),
            "404",
            "the upstream answered 404 Not Found",
        ),
        (
            "HTTP/1.1 204 X\r\n\r\n".to_owned(),
            "204",
            "the upstream answered 204 No Content",
        ),
        (
            json(200, r#"{"choices":[]}"#),
            "upstream_protocol",
            "the upstream answered with `application/json` where events were to follow",
        ),
        (
            plain.to_owned(),
            "upstream_protocol",
            "the upstream answered with events in a content coding where events were to follow",
        ),
    ] {
        let (socket, address) = nobody();
        let proxy = Proxy::start(&beating(address, "", "")).await;
        let mut client = asking(&proxy).await;
        begins(&mut client).await;
        let _server = answering(socket, answer.clone());
        let told = error(&mut client).await;
        assert_eq!(
            (&told["code"], &told["message"]),
            (&code.into(), &message.into()),
            "{answer}"
        );
        until("it is counted", async || {
            aborted(&proxy, "upstream_protocol") == 1.0
        })
        .await;
        assert_eq!(
            (counted(&proxy, "code=\"200\""), counted(&proxy, "")),
            (1.0, 1.0)
        );
        is_empty(&proxy).await;
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_break_off_are_cut() {
    let (socket, address) = nobody();
    let proxy = Proxy::start(&beating(address, "", "")).await;
    let mut client = asking(&proxy).await;
    begins(&mut client).await;
    let whole = events();
    let broken = whole.strip_suffix("0\r\n\r\n").unwrap().to_owned();
    let _server = Upstream::on(socket.listen(16).unwrap(), move |mut peer| {
        let broken = broken.clone();
        async move {
            peer.request().await;
            peer.write(broken).await;
        }
    });
    assert_eq!(rest(&mut client).await, (EVENTS.to_owned(), false));
    until("it is counted", async || {
        aborted(&proxy, "upstream_reset") == 1.0
    })
    .await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_keeps_no_place_for_ever() {
    let (_socket, address) = nobody();
    let text = beating(address, "", "").replace(
        "address: '127.0.0.1:0'}]",
        "address: '127.0.0.1:0', limits: {write_stall: 300ms}}]",
    );
    let proxy = Proxy::start(&text).await;
    let mut builder = ::h2::client::Builder::new();
    builder.initial_window_size(0);
    let client = H2::connect_with(proxy.address(), &builder).await;
    let (answer, mut body) = client.begin(ask2(), false).await;
    body.send_data(ASKS.into(), true).unwrap();
    let events = soon("a head", answer).await.unwrap().into_body();
    is_empty(&proxy).await;
    assert_eq!(aborted(&proxy, "client_closed"), 1.0);
    drop(events);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_them_wait_and_tells_them_at_its_end() {
    for served in [true, false] {
        let (socket, address) = nobody();
        let proxy = Proxy::start(&beating(address, "", "")).await;
        let mut client = asking(&proxy).await;
        begins(&mut client).await;
        let limit = Duration::from_millis(if served { 15_000 } else { 2_000 });
        proxy.control().drain(Some(Duration::ZERO), Some(limit));
        client.bytes(CHUNK.len()).await;
        if served {
            let _server = answering(socket, events());
            assert_eq!(rest(&mut client).await, (EVENTS.to_owned(), true));
        } else {
            assert_eq!(error(&mut client).await["code"], "draining");
        }
        proxy.stop().await;
    }
}
