//! Answers of copies held against those of the primary.

use std::net::SocketAddr;

use serde_json::Value;

use super::{all_over, copies, mirrored, post, shape};
use crate::support::proxy::config;
use crate::support::{Client, Proxy, Upstream, until};

/// An answer with this head and body.
fn answer(status: u16, fields: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\n{fields}content-length: {length}\r\n\r\n{body}").into_bytes()
}

const JSON: &str = "content-type: application/json\r\n";

fn json(body: &str) -> Vec<u8> {
    answer(200, JSON, body)
}

/// Answers every request like this.
async fn saying(answer: Vec<u8>) -> Upstream {
    Upstream::start(move |mut peer| {
        let answer = answer.clone();
        async move { while peer.request().await.is_some() && peer.write(&answer).await {} }
    })
    .await
}

fn verdicts(proxy: &Proxy, verdict: &str) -> f64 {
    let verdict = format!("verdict=\"{verdict}\"");
    proxy.metric("forebay_compare_total", &[&verdict])
}

/// Waits for one verdict, the only one.
async fn judged(proxy: &Proxy, verdict: &str, what: &str) {
    let total = || proxy.metric("forebay_compare_total", &[]);
    until(&format!("a verdict of {what}"), async || total() > 0.0).await;
    assert_eq!(verdicts(proxy, verdict), 1.0, "{what}: {}", proxy.metrics());
    assert_eq!(total(), 1.0, "{what}");
}

/// What `/api/mirrors` says of the only mirror.
async fn reported(proxy: &Proxy) -> Value {
    let admin = proxy.control().admin;
    let request = "GET /api/mirrors HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let answer = Client::once(admin, request).await;
    let mut report: Value = serde_json::from_slice(&answer.body).unwrap();
    report["mirrors"][0].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_follows_from_status_headers_and_bodies() {
    let base = r#"{"score": 1.0, "tags": ["a", "b"], "id": "x"}"#;
    let near = r#"{"score": 1.0009, "tags": ["a", "b"], "id": "x"}"#;
    let mixed = r#"{"id": "y", "tags": ["b", "a"], "score": 1.0}"#;
    let large = format!(r#"{{"text": "{}"}}"#, "x".repeat(3000));
    let plain = |body| answer(200, "content-type: text/plain\r\n", body);
    let labelled = answer(200, &format!("{JSON}x-model: v2\r\n"), base);
    for (what, primary, mirror, options, verdict) in [
        ("the same", json(base), json(base), "", "equal"),
        (
            "another status",
            json(base),
            answer(201, JSON, base),
            "",
            "different",
        ),
        (
            "a failure of both",
            answer(500, JSON, base),
            answer(500, JSON, base),
            "",
            "equal",
        ),
        (
            "a header nobody asks for",
            json(base),
            labelled.clone(),
            "",
            "equal",
        ),
        (
            "a header",
            json(base),
            labelled,
            "headers: [x-model]",
            "different",
        ),
        ("a number", json(base), json(near), "", "different"),
        (
            "a number within",
            json(base),
            json(near),
            "tolerance: {rel: 0.001}",
            "equal",
        ),
        (
            "a number beyond",
            json(base),
            json(near),
            "tolerance: {abs: 1e-6, rel: 1e-4}",
            "different",
        ),
        (
            "order",
            json(base),
            json(mixed),
            "ignore: [/id]",
            "different",
        ),
        (
            "no order",
            json(base),
            json(mixed),
            "ignore: [/id], array_order: false",
            "equal",
        ),
        (
            "one ignored",
            json(base),
            json(mixed),
            "array_order: false",
            "different",
        ),
        (
            "all ignored",
            json(base),
            json(mixed),
            "ignore: [/id, '/tags/*']",
            "equal",
        ),
        ("the same bytes", plain("abc"), plain("abc"), "", "equal"),
        ("other bytes", plain("abc"), plain("abd"), "", "different"),
        (
            "too large",
            json(&large),
            json(&large),
            "max_body: 2KiB",
            "too_large",
        ),
        (
            "large enough",
            json(&large),
            json(&large),
            "max_body: 4KiB",
            "equal",
        ),
        ("not sampled", json(base), json(near), "sample: 0%", ""),
    ] {
        let (primary, mirror) = (saying(primary).await, saying(mirror).await);
        let options = format!(", compare: {{{options}}}");
        let proxy = Proxy::start(&mirrored(primary.address, mirror.address, &options)).await;
        let got = Client::once(proxy.address(), post("/", "{}")).await;
        assert!(got.status > 0);
        all_over(&proxy, 1.0).await;
        if verdict.is_empty() {
            assert_eq!(proxy.metric("forebay_compare_total", &[]), 0.0);
        } else {
            judged(&proxy, verdict, what).await;
        }
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_on_either_side_is_no_difference() {
    let works = saying(json("{}")).await;
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let cut = saying(b"HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\n{}".to_vec()).await;
    let closes = Upstream::start(|mut peer| async move {
        peer.request().await;
        peer.write("HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\n{}")
            .await;
    })
    .await;
    for (primary, mirror, verdict) in [
        (nobody, works.address, "primary_failed"),
        (works.address, nobody, "mirror_failed"),
        (works.address, cut.address, "mirror_failed"),
        (closes.address, works.address, "incomplete"),
    ] {
        let options = ", timeout: 300ms, compare: {}";
        let proxy = Proxy::start(&mirrored(primary, mirror, options)).await;
        let mut client = Client::connect(proxy.address()).await;
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        let _ = client.try_answer().await;
        all_over(&proxy, 1.0).await;
        judged(&proxy, verdict, verdict).await;
        proxy.stop().await;
    }
}

/// A mirror with a noise twin.
fn with_noise(primary: SocketAddr, mirror: SocketAddr, twin: SocketAddr) -> String {
    let edits = "request_headers: {set: {x-shadow: '1'}}";
    config(&format!(
        "routes: [{{name: r, cluster: a, mirrors: [{{cluster: b, {edits}, compare: {{noise: n}}}}]}}]\n\
         clusters:\n- {{name: a, endpoints: ['{primary}']}}\n- {{name: b, endpoints: ['{mirror}']}}\n\
         - {{name: n, endpoints: ['{twin}']}}\n"
    ))
}

/// Answers with numbers, one of them its own each time, and a fixed name.
async fn counting(name: &'static str) -> Upstream {
    let next = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(origin(name)));
    Upstream::start(move |mut peer| {
        let next = std::sync::Arc::clone(&next);
        async move {
            while let Some((_, body)) = peer.request().await {
                let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let body = String::from_utf8(body).unwrap();
                let text = format!(r#"{{"at": {number}, "name": "{name}", "echo": {body}}}"#);
                peer.write(json(&text)).await;
            }
        }
    })
    .await
}

/// Where an endpoint of this name begins to count: nobody counts like another.
fn origin(name: &str) -> u32 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed) * 1_000_000 + name.len() as u32
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_between_two_primaries_is_noise_and_the_rest_a_regression() {
    for (name, verdict) in [("v1", "noise"), ("v2", "different")] {
        let (primary, twin) = (counting("v1").await, counting("v1").await);
        let mirror = counting(name).await;
        let text = with_noise(primary.address, mirror.address, twin.address);
        let proxy = Proxy::start(&text).await;
        let mut client = Client::connect(proxy.address()).await;
        for _ in 0..20 {
            client.send(post("/", "{\"question\": 1}")).await;
            assert_eq!(client.answer().await.status, 200);
        }
        all_over(&proxy, 20.0).await;
        until("all are judged", async || {
            proxy.metric("forebay_compare_total", &[]) == 20.0
        })
        .await;
        assert_eq!(verdicts(&proxy, verdict), 20.0, "{}", proxy.metrics());
        assert_eq!(copies(&proxy, "ok"), 20.0);
        assert!(mirror.text().contains("x-shadow: 1"));
        assert!(
            !twin.text().contains("x-shadow"),
            "the twin is asked what the primary is"
        );
        assert!(twin.text().contains("x-forebay-mirror: b"));
        let report = reported(&proxy).await;
        let fields = report["compare"]["fields"].as_array().unwrap().clone();
        let regression = |name: &str| {
            let field = fields.iter().find(|field| field["field"] == name);
            field.map(|field| field["regression"].as_bool().unwrap())
        };
        assert_eq!(regression("/at"), Some(false), "{report}");
        let wanted = (name == "v2").then_some(true);
        assert_eq!(regression("/name"), wanted, "{report}");
        assert_eq!(regression("/echo/question"), None);
        assert_eq!(report["outcomes"]["ok"], 20);
        assert_eq!(
            (&report["in_flight"], &report["held_bytes"]),
            (&0.into(), &0.into())
        );
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn comparing_waits_for_slow_mirrors_and_holds_what_it_may() {
    let body = format!(r#"{{"text": "{}"}}"#, "x".repeat(100_000));
    let primary = saying(json(&body)).await;
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let pass = std::sync::Arc::clone(&gate);
    let late = json(&body);
    let mirror = Upstream::start(move |mut peer| {
        let (pass, late) = (std::sync::Arc::clone(&pass), late.clone());
        async move {
            while peer.request().await.is_some() {
                pass.acquire().await.unwrap().forget();
                peer.write(&late).await;
            }
        }
    })
    .await;
    let options = ", max_bytes: 150KB, compare: {}";
    let text = shape(primary.address, mirror.address, options, "", "");
    let proxy = Proxy::start(&text).await;
    let mut client = Client::connect(proxy.address()).await;
    for _ in 0..10 {
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        assert_eq!(client.answer().await.text(), body);
    }
    assert_eq!(proxy.metric("forebay_mirror_in_flight", &[]), 10.0);
    gate.add_permits(1);
    until("one is judged", async || verdicts(&proxy, "equal") == 1.0).await;
    gate.add_permits(9);
    until("all are judged", async || {
        let held = proxy.metric("forebay_mirror_held_bytes", &[]);
        assert!(held <= 150_000.0, "{held}");
        proxy.metric("forebay_compare_total", &[]) == 10.0
    })
    .await;
    all_over(&proxy, 10.0).await;
    assert_eq!(copies(&proxy, "ok"), 10.0);
    assert_eq!(
        verdicts(&proxy, "equal") + verdicts(&proxy, "too_large"),
        10.0
    );
    proxy.stop().await;
}
