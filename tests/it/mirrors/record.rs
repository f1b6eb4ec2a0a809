//! Requests and answers written down, for a comparison system of one's own.

use std::net::SocketAddr;
use std::path::Path;

use forebay::control::Source;
use serde_json::Value;
use tempfile::TempDir;

use super::{all_over, burst, copies, post, shape};
use crate::support::proxy::config;
use crate::support::{Client, Proxy, Upstream, respond, until};

/// The lines of a file; one that is being written is no line.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    let lines = whole.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn written(proxy: &Proxy) -> f64 {
    proxy.metric("forebay_record_total", &["result=\"written\""])
}

/// A route without mirrors that is recorded.
fn recorded(primary: SocketAddr, record: &str) -> String {
    config(&format!(
        "routes: [{{name: r, cluster: a, record: {{{record}}}}}]\n\
         clusters: [{{name: a, endpoints: ['{primary}']}}]\n"
    ))
}

/// An answer with a JSON body.
fn json(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 X\r\ncontent-type: application/json\r\nset-cookie: s=1\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

async fn saying(answer: Vec<u8>) -> Upstream {
    Upstream::start(move |mut peer| {
        let answer = answer.clone();
        async move { while peer.request().await.is_some() && peer.write(&answer).await {} }
    })
    .await
}

fn sorted(lines: &[Value]) -> Vec<&Value> {
    let mut lines: Vec<&Value> = lines.iter().collect();
    lines.sort_by_key(|line| line["role"].as_str().unwrap().to_owned());
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_its_answer_and_those_of_its_copies_share_an_id() {
    let primary = saying(json(r#"{"answer": 1, "secret": "p"}"#)).await;
    let mirror = saying(json(r#"{"answer": 2, "secret": "m"}"#)).await;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("pairs.jsonl");
    let record = format!(
        ", record: {{path: '{}', redact: [/secret, /prompt]}}",
        path.display()
    );
    let text = shape(primary.address, mirror.address, "", &record, "");
    let proxy = Proxy::start(&text).await;
    let body = r#"{"prompt": "psst", "n": 3}"#;
    let request = post("/v1/m:predict?api_key=k&x=1", body).replace(
        "host: test\r\n",
        "host: test\r\nauthorization: Bearer t\r\nx-mine: 1\r\n",
    );
    let answer = Client::once(proxy.address(), request).await;
    assert_eq!(answer.text(), r#"{"answer": 1, "secret": "p"}"#);
    until("both lines are written", async || written(&proxy) == 2.0).await;
    let lines = lines(&path);
    let [copy, first] = sorted(&lines)[..] else {
        panic!("{lines:?}")
    };
    assert_eq!(
        (&first["role"], &copy["role"]),
        (&"primary".into(), &"mirror".into())
    );
    assert_eq!(first["request_id"], copy["request_id"]);
    assert_eq!(first["request_id"].as_str().unwrap().len(), 32);
    assert_eq!(
        (&first["cluster"], &copy["cluster"]),
        (&"a".into(), &"b".into())
    );
    assert_eq!(
        (&first["mirror"], &copy["mirror"]),
        (&Value::Null, &"b".into())
    );
    for (line, answer) in [(first, 1), (copy, 2)] {
        let request = &line["request"];
        assert_eq!(request["method"], "POST");
        assert_eq!(
            request["body"],
            serde_json::json!({"prompt": "[redacted]", "n": 3}),
            "{line}"
        );
        assert_eq!(request["headers"]["x-mine"], "1", "{line}");
        assert_eq!(line["status"], 200);
        assert_eq!(
            line["body"],
            serde_json::json!({"answer": answer, "secret": "[redacted]"}),
            "{line}"
        );
        assert!(line["seconds"].as_f64().unwrap() > 0.0);
        assert_eq!(
            (&line["truncated"], &line["route"]),
            (&false.into(), &"r".into())
        );
        let text = line.to_string();
        for secret in ["psst", "Bearer t", "api_key=k", "s=1"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gets_no_answer_is_written_down_with_its_reason() {
    let primary = Upstream::start(|mut peer| async move {
        peer.request().await;
        peer.closed().await;
    })
    .await;
    let mirror = Upstream::start(|mut peer| async move {
        peer.request().await;
        peer.closed().await;
    })
    .await;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("pairs.jsonl");
    let record = format!(
        ", timeouts: {{first_byte: 100ms}}, record: {{path: '{}'}}",
        path.display()
    );
    let options = ", timeout: 200ms";
    let text = shape(primary.address, mirror.address, options, &record, "");
    let proxy = Proxy::start(&text).await;
    assert_eq!(
        Client::once(proxy.address(), post("/", "{}")).await.status,
        504
    );
    until("both lines are written", async || written(&proxy) == 2.0).await;
    let all = lines(&path);
    let errors: Vec<_> = sorted(&all)
        .iter()
        .map(|line| line["error"].clone())
        .collect();
    assert_eq!(errors, ["timeout", "first_byte_timeout"], "{all:?}");
    // A client that leaves.
    let mut client = Client::connect(proxy.address()).await;
    client.send(post("/leaving", "{}")).await;
    primary.saw("/leaving").await;
    mirror.saw("/leaving").await;
    drop(client);
    until("both lines are written", async || written(&proxy) == 4.0).await;
    let all = lines(&path);
    let errors: Vec<_> = sorted(&all[2..])
        .iter()
        .map(|line| line["error"].clone())
        .collect();
    assert_eq!(errors, ["cancelled", "client_closed"], "{all:?}");
    all_over(&proxy, 2.0).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_mirrors_every_answer_is_written_and_a_drain_writes_the_last() {
    let primary = saying(json("{}")).await;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("pairs.jsonl");
    let proxy = Proxy::start(&recorded(
        primary.address,
        &format!("path: '{}'", path.display()),
    ))
    .await;
    let address = proxy.address();
    for _ in 0..3 {
        let mut client = Client::connect(address).await;
        for _ in 0..100 {
            client.send(post("/", "{\"a\": [1, 2, 3]}")).await;
            assert_eq!(client.answer().await.text(), "{}");
        }
    }
    proxy.stop().await; // at once: nothing was waited for
    let lines = lines(&path);
    assert_eq!(lines.len(), 300);
    assert!(
        lines
            .iter()
            .all(|line| line["request"]["body"]["a"][2] == 3)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_cut_and_files_rotated() {
    let long = format!(r#"{{"text": "{}"}}"#, "y".repeat(5000));
    let primary = saying(json(&long)).await;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("pairs.jsonl");
    let record = format!(
        "path: '{}', max_body: 100B, max_file: 4KiB, keep: 2",
        path.display()
    );
    let proxy = Proxy::start(&recorded(primary.address, &record)).await;
    let mut client = Client::connect(proxy.address()).await;
    for _ in 0..50 {
        client.send(post("/", &long)).await;
        assert_eq!(client.answer().await.text(), long);
    }
    until("all are written", async || written(&proxy) == 50.0).await;
    let file = |name: &str| directory.path().join(name);
    for name in ["pairs.jsonl", "pairs.jsonl.1", "pairs.jsonl.2"] {
        let kept = lines(&file(name));
        assert!(!kept.is_empty(), "{name}");
        assert!(
            std::fs::metadata(file(name)).unwrap().len() <= 4096,
            "{name}"
        );
        for line in kept {
            assert_eq!(
                (&line["truncated"], &line["body_bytes"]),
                (&true.into(), &long.len().into())
            );
            assert_eq!(line["body"].as_str().unwrap().len(), 100);
            assert_eq!(line["request"]["body"].as_str().unwrap().len(), 100);
        }
    }
    assert!(!file("pairs.jsonl.3").exists());
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_posted_in_batches() {
    let primary = saying(json("{}")).await;
    let collector = Upstream::start(|mut peer| async move {
        while peer.request().await.is_some() {
            peer.write(respond(200, "")).await;
        }
    })
    .await;
    let url = format!("url: 'http://{}/ingest'", collector.address);
    let proxy = Proxy::start(&recorded(primary.address, &url)).await;
    let mut client = Client::connect(proxy.address()).await;
    for number in 0..20 {
        client.send(post(&format!("/number-{number}."), "{}")).await;
        assert_eq!(client.answer().await.text(), "{}");
    }
    until("all are posted", async || {
        proxy.metric("forebay_record_total", &["result=\"posted\""]) == 20.0
    })
    .await;
    let text = collector.text();
    assert!(text.starts_with("POST /ingest HTTP/1.1\r\n"), "{text}");
    for number in 0..20 {
        assert_eq!(text.matches(&format!("/number-{number}.")).count(), 1);
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_is_written_down_with_the_copies_of_its_requests() {
    let primary = Upstream::fixed("primary").await;
    let mirror = Upstream::fixed("mirror").await;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("pairs.jsonl");
    let record = format!(", record: {{path: '{}', sample: 10%}}", path.display());
    let options = ", sample: 50%";
    let text = shape(primary.address, mirror.address, options, &record, "");
    let proxy = Proxy::start(&text).await;
    burst(&proxy, 100, "GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    until("the copies are over", async || {
        proxy.metric("forebay_mirror_in_flight", &[]) == 0.0
    })
    .await;
    let copied = copies(&proxy, "ok");
    assert!((400.0..600.0).contains(&copied), "{copied}");
    proxy.stop().await;
    let lines = lines(&path);
    let ids = |role: &str| {
        let lines = lines.iter().filter(|line| line["role"] == role);
        let mut ids: Vec<_> = lines.map(|line| line["request_id"].to_string()).collect();
        ids.sort();
        ids
    };
    let ids = (ids("primary"), ids("mirror"));
    assert!((50..150).contains(&ids.0.len()), "{}", ids.0.len());
    assert_eq!(
        ids.0, ids.1,
        "what is recorded of a smaller sample has its copies"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_larger_than_what_is_compared_keeps_the_mirror_s_answer_whole() {
    let long = format!(r#"{{"text": "{}"}}"#, "y".repeat(5000));
    let (primary, mirror) = (saying(json(&long)).await, saying(json(&long)).await);
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("pairs.jsonl");
    let record = format!(", record: {{path: '{}'}}", path.display());
    let options = ", compare: {max_body: 1KiB}";
    let text = shape(primary.address, mirror.address, options, &record, "");
    let proxy = Proxy::start(&text).await;
    assert_eq!(
        Client::once(proxy.address(), post("/", "{}")).await.text(),
        long
    );
    until("both lines are written", async || written(&proxy) == 2.0).await;
    for line in lines(&path) {
        assert_eq!(line["truncated"], false, "{line}");
    }
    until("the pair is judged", async || {
        proxy.metric("forebay_compare_total", &["verdict=\"too_large\""]) == 1.0
    })
    .await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_written_refuses_the_configuration_at_its_place() {
    let primary = Upstream::fixed("primary").await;
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("forebay.yaml");
    let good = recorded(primary.address, "path: pairs.jsonl");
    let bad = recorded(primary.address, "path: nowhere/pairs.jsonl");
    std::fs::write(&file, &bad).unwrap();
    let refused = Proxy::try_start(Source::Paths(vec![file.clone()])).await;
    let message = refused.err().unwrap().to_string();
    assert!(message.contains("nowhere/pairs.jsonl"), "{message}");
    assert!(message.contains("forebay.yaml:5:"), "{message}");
    std::fs::write(&file, &good).unwrap();
    let proxy = Proxy::start_on(&file).await;
    std::fs::write(&file, &bad).unwrap();
    assert!(proxy.control().reload().await.is_err());
    assert_eq!(Client::get(proxy.address(), "/").await.text(), "primary");
    until("it still records", async || written(&proxy) == 1.0).await;
    assert_eq!(lines(&directory.path().join("pairs.jsonl")).len(), 1);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_a_stop_cuts_short_are_written_down() {
    let primary = saying(json("{}")).await;
    let mirror = Upstream::start(|mut peer| async move { while peer.read().await {} }).await;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("pairs.jsonl");
    let record = format!(", record: {{path: '{}'}}", path.display());
    let options = ", timeout: none";
    let text = shape(primary.address, mirror.address, options, &record, "");
    let proxy = Proxy::start(&text).await;
    let answer = Client::once(proxy.address(), post("/", "{}")).await;
    assert_eq!(answer.text(), "{}");
    mirror.saw("POST /").await;
    proxy.stop().await;
    let all = lines(&path);
    let errors: Vec<_> = sorted(&all)
        .iter()
        .map(|line| line["error"].clone())
        .collect();
    assert_eq!(errors, [Value::from("cancelled"), Value::Null], "{all:?}");
}
