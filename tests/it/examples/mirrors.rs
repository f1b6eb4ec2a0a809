//! `mirror-compare.yaml`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::{Example, Served, typed};
use crate::support::{Upstream, until};

/// A classifier that adds the number of its answer, as models add times and ids.
async fn classifier(label: &'static str, score: &'static str) -> Upstream {
    let count = Arc::new(AtomicU64::new(label.len() as u64));
    Upstream::start(move |mut peer| {
        let count = Arc::clone(&count);
        async move {
            while peer.request().await.is_some() {
                let number = count.fetch_add(17, Ordering::Relaxed);
                let body = format!(
                    r#"{{"predictions":[{{"label":"{label}","score":{score}}}],"sampled":{number},"timing":{number}}}"#
                );
                peer.write(typed("application/json", &body)).await;
            }
        }
    })
    .await
}

/// An LLM that answers as it is asked, streaming or not, under an id of its own.
async fn llm(id: &'static str) -> Upstream {
    Upstream::start(move |mut peer| async move {
        while let Some((_, body)) = peer.request().await {
            let answer = if String::from_utf8_lossy(&body).contains("stream") {
                let event = format!("data: {{\"id\":\"{id}\",\"choices\":[1]}}\n\n");
                typed(
                    "text/event-stream",
                    &format!("{event}{event}data: [DONE]\n\n"),
                )
            } else {
                typed(
                    "application/json",
                    &format!(r#"{{"id":"{id}","choices":[1]}}"#),
                )
            };
            peer.write(answer).await;
        }
    })
    .await
}

async fn mirror(served: &Served, name: &str) -> Value {
    let page = served.api("GET", "/api/mirrors", "").await;
    let mirrors = page["mirrors"].as_array().unwrap();
    mirrors.iter().find(|m| m["name"] == name).unwrap().clone()
}

fn compared(mirror: &Value) -> u64 {
    let verdicts = mirror["compare"]["verdicts"].as_object().unwrap();
    verdicts.values().map(|count| count.as_u64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_is_compared_its_noise_told_apart_and_all_is_written_down() {
    let one = classifier("cat", "0.5").await;
    let two = classifier("cat", "0.5").await;
    let twin = classifier("cat", "0.50001").await;
    let candidate = classifier("dog", "0.50002").await;
    let (fp16, fp8) = (llm("chat-1").await, llm("chat-2").await);
    let served = Example::named("mirror-compare.yaml")
        .with("10.0.1.1:8501", one.address)
        .with("10.0.1.2:8501", two.address)
        .with("10.0.1.3:8501", twin.address)
        .with("10.0.2.1:8501", candidate.address)
        .with("10.0.3.1:8000", fp16.address)
        .with("10.0.3.2:8000", fp8.address)
        .with("sample: 1%", "sample: 100%")
        .serve()
        .await;

    let body = r#"{"instances": [[1.0, 2.0]], "customer": "Ada"}"#;
    for _ in 0..40 {
        let answer = served.post("/v1/models/resnet:predict", "", body).await;
        assert_eq!(answer.status, 200);
        assert!(answer.text().contains("cat"), "the answer of v1");
    }
    until("all copies are answered", async || {
        mirror(&served, "candidate").await["outcomes"]["ok"] == 40
    })
    .await;
    let labels = ["mirror=\"candidate\"", "verdict=\"different\""];
    until("some are compared", async || {
        served.proxy.metric("forebay_compare_total", &labels) >= 5.0
    })
    .await;
    let shown = mirror(&served, "candidate").await;
    let fields = shown["compare"]["fields"].as_array().unwrap();
    let names: Vec<_> = fields
        .iter()
        .map(|f| f["field"].as_str().unwrap())
        .collect();
    // The scores are within the tolerance and the timing is ignored.
    assert_eq!(names, ["/predictions/*/label", "/sampled"], "{shown}");
    assert_eq!(fields[0]["regression"], true);
    assert_eq!(
        fields[0]["example"],
        json!({"primary": "\"cat\"", "mirror": "\"dog\""})
    );
    assert_eq!(
        fields[1]["regression"], false,
        "the twin differs in it, too"
    );
    candidate.saw("x-forebay-mirror: candidate").await;
    assert!(!one.text().contains("x-forebay-mirror"));

    let file = served.directory.path().join("pairs.jsonl");
    let mut lines: Vec<Value> = Vec::new();
    until("every answer of both is written", async || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        lines = whole
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        let of = |role: &str| lines.iter().filter(|l| l["role"] == role).count();
        of("primary") == 40 && of("mirror") == 40
    })
    .await;
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("customer") && !text.contains("Ada"));
    let pair = |line: &Value| (line["request_id"].clone(), line["role"].clone());
    let first = lines.iter().find(|l| l["role"] == "mirror").unwrap();
    assert_eq!(first["cluster"], "resnet-v2");
    assert!(
        lines
            .iter()
            .any(|l| pair(l) == (first["request_id"].clone(), json!("primary")))
    );

    for body in [r#"{"messages": []}"#, r#"{"messages": [], "stream": true}"#] {
        served.post("/v1/chat/completions", "", body).await;
    }
    until(
        "plain and streamed answers are equal but for ids",
        async || {
            let shown = mirror(&served, "chat-fp8").await;
            assert_eq!(shown["compare"]["verdicts"]["different"], 0, "{shown}");
            compared(&shown) == 2 && shown["compare"]["verdicts"]["equal"] == 2
        },
    )
    .await;
    served.proxy.stop().await;
}
