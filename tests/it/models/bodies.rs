//! Names in bodies: JSON and forms, however they come.

use super::*;

const VLLM: &str = "server: vllm, models: ";

async fn two() -> (Upstream, Upstream, Proxy) {
    let (a, b) = (Upstream::fixed("a").await, Upstream::fixed("b").await);
    let text = by_model(&[
        ("a", a.address, &format!("{VLLM}[llama]")),
        ("b", b.address, &format!("{VLLM}['qwen3:8b', 'org/ü']")),
    ]);
    let proxy = Proxy::start(&text).await;
    (a, b, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_json_body_finds_its_cluster_and_arrives_as_it_was_sent() {
    let (a, b, proxy) = two().await;
    let late = format!(
        r#"{{"messages":[{{"model":"x","content":"{}"}}],"model":"llama"}}"#,
        "y".repeat(50_000)
    );
    let cases = [
        (r#"{"model":"llama"}"#, "a"),
        (
            r#" { "stream" : true, "model" : "qwen3:8b" , "x": {"model": "llama"} } "#,
            "b",
        ),
        (
            r#"{"mod\u0065l":"ll\u0061ma","n":[1.5e3,{"model":null}]}"#,
            "a",
        ),
        (r#"{"model":"org\/\u00fc"}"#, "b"),
        (&late, "a"),
    ];
    for (body, want) in &cases {
        let answer = ask(&proxy, &chat(body)).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, *want),
            "{body:.80}"
        );
        let mut chunked =
            "POST /v1/embeddings HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n"
                .to_owned();
        for byte in body.as_bytes().iter().take(3_000) {
            chunked.push_str(&format!("1\r\n{}\r\n", char::from(*byte)));
        }
        let rest = body.get(3_000..).unwrap_or_default();
        if !rest.is_empty() {
            chunked.push_str(&format!("{:x}\r\n{rest}\r\n", rest.len()));
        }
        chunked.push_str("0\r\n\r\n");
        assert_eq!(ask(&proxy, &chunked).await.text(), *want, "{body:.80}");
        let answer = ask_h2(
            &proxy,
            "/v1/chat/completions",
            "application/json",
            body.as_bytes(),
            1 + body.len() / 400,
        )
        .await;
        assert_eq!(String::from_utf8_lossy(&answer.body), *want, "{body:.80}");
    }
    let seen = [bodies(&a), bodies(&b)].concat();
    for (body, _) in &cases {
        let told = body.replace(r"org\/\u00fc", "qwen3:8b");
        let same = seen.iter().filter(|seen| **seen == told);
        assert_eq!(same.count(), 3, "{body:.80}");
    }
    let routed = |cluster| {
        proxy.metric(
            "forebay_requests_total",
            &["route=\"models\"", cluster, "code=\"200\""],
        )
    };
    assert_eq!(
        (routed("cluster=\"a\""), routed("cluster=\"b\"")),
        (9.0, 6.0)
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_finds_its_cluster() {
    let (a, _b, proxy) = two().await;
    let part = |head: &str, body: &str| {
        format!("--xyz\r\ncontent-disposition: form-data; {head}\r\n\r\n{body}\r\n")
    };
    let file = part(
        "name=\"file\"; filename=\"a.wav\"",
        "RIFF\r\n--xy\r\nname=\"model\"",
    );
    let form = format!("{file}{}--xyz--\r\n", part("name=\"model\"", "llama"));
    let content_type = "multipart/form-data; boundary=xyz";
    let path = "/v1/audio/transcriptions";
    assert_eq!(
        ask(&proxy, &typed(path, content_type, &form)).await.text(),
        "a"
    );
    let answer = ask_h2(&proxy, path, content_type, form.as_bytes(), 1).await;
    assert_eq!(answer.body, b"a");
    assert_eq!(bodies(&a), [form.clone(), form]);
    let other = format!("{file}{}--xyz--\r\n", part("name=\"model\"", "nobody's"));
    assert_eq!(
        ask(&proxy, &typed(path, content_type, &other))
            .await
            .reason(),
        "unknown_model"
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_found_is_refused_with_the_reason() {
    let (a, b, proxy) = two().await;
    let late = format!(r#"{{"prompt":"{}","model":"llama"}}"#, "x".repeat(70_000));
    let gzip = chat("\u{1f}\u{8b}").replace("host: t", "host: t\r\ncontent-encoding: gzip");
    let get = "GET /v1/realtime HTTP/1.1\r\nhost: t\r\n\r\n".to_owned();
    for (request, says) in [
        (
            chat(r#"{"model":"gpt-4"}"#),
            "no cluster serves the model `gpt-4`; there are: llama, qwen3:8b, org/ü",
        ),
        (
            chat(r#"{"model":"Llama"}"#),
            "no cluster serves the model `Llama`",
        ),
        (chat(r#"{"model":5}"#), "does not name a model"),
        (chat(r#"{"messages":[]}"#), "does not name a model"),
        (chat("[]"), "does not name a model"),
        (chat("model=llama"), "does not name a model"),
        (chat(""), "does not name a model"),
        (chat(&late), "first 64 KiB"),
        (gzip, "compressed (content-encoding)"),
        (get, "does not name a model"),
        (
            chat(&format!(r#"{{"model":"{}"}}"#, "é".repeat(500))),
            "é…`",
        ),
    ] {
        let answer = ask(&proxy, &request).await;
        assert_eq!(
            (answer.status, answer.reason()),
            (404, "unknown_model"),
            "{request:.90}"
        );
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains(says), "{message}");
        assert_eq!(body["error"]["code"], "unknown_model");
        assert_eq!(body["error"]["type"], "not_found_error");
    }
    assert!(a.text().is_empty() && b.text().is_empty());
    let refused = proxy.metric(
        "forebay_requests_total",
        &["route=\"models\"", "reason=\"unknown_model\""],
    );
    assert_eq!(refused, 11.0);
    let arrived = proxy.metric("forebay_arrivals_total", &[]);
    assert_eq!(arrived, 0.0, "no demand");
    let named = Client::once(
        proxy.address(),
        "GET /v1/realtime?model=qwen3%3A8b HTTP/1.1\r\nhost: t\r\n\r\n",
    )
    .await;
    assert_eq!(named.text(), "b");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_named_twice_is_refused_however_late() {
    let (a, b, proxy) = two().await;
    for body in [
        r#"{"model":"llama","model":"qwen3:8b"}"#,
        r#"{"model":"llama","Model":"llama"}"#,
        r#"{"model":1,"model":"llama"}"#,
        r#"{"model":"llama", /* */ "model":"qwen3:8b"}"#,
    ] {
        let answer = ask(&proxy, &chat(body)).await;
        assert_eq!(
            (answer.status, answer.reason()),
            (400, "bad_request"),
            "{body}"
        );
        assert!(answer.text().contains("twice"), "{}", answer.text());
    }
    assert!(a.text().is_empty() && b.text().is_empty());
    let late = format!(
        r#"{{"model":"llama","prompt":"{}","model":"qwen3:8b"}}"#,
        "x".repeat(300_000)
    );
    let answer = ask(&proxy, &chat(&late)).await;
    assert_eq!((answer.status, answer.reason()), (400, "bad_request"));
    assert!(
        !a.text().contains("qwen3"),
        "the second name does not get there"
    );
    let answer = ask_h2(
        &proxy,
        "/v1/completions",
        "application/json",
        late.as_bytes(),
        16_000,
    )
    .await;
    assert_eq!((answer.status(), answer.reason()), (400, "bad_request"));
    proxy.stop().await;
}
