//! `retries-health.yaml`.

use super::{Example, or_hang, request};
use crate::support::{Client, Upstream, respond, until};

/// A server whose model is loaded, so its check is fine, and which answers all else with these bytes.
async fn answering(answer: &'static str) -> Upstream {
    Upstream::start(move |mut peer| async move {
        while let Some((head, _)) = peer.request().await {
            let answer = match head.contains("/metadata") {
                true => respond(200, "{}"),
                false => answer.as_bytes().to_vec(),
            };
            peer.write(answer).await;
        }
    })
    .await
}

const FAILED: &str = "HTTP/1.1 503 X\r\ncontent-length: 4\r\n\r\nfail";
const BUSY: &str = "HTTP/1.1 503 X\r\nretry-after: 1\r\ncontent-length: 4\r\n\r\nbusy";

#[tokio::test(flavor = "multi_thread")]
async fn callers_do_not_notice_a_server_that_fails_one_that_is_busy_and_one_that_dies() {
    let good = Upstream::fixed("good").await;
    let (failing, busy) = (answering(FAILED).await, answering(BUSY).await);
    let chat = [or_hang("chat").await, or_hang("chat").await];
    let served = Example::named("retries-health.yaml")
        .with("10.0.1.1:8501", good.address)
        .with("10.0.1.2:8501", failing.address)
        .with("10.0.1.3:8501", busy.address)
        .with("10.0.2.1:8000", chat[0].address)
        .with("10.0.2.2:8000", chat[1].address)
        .with("interval: 5s", "interval: 50ms")
        .with("slow_start: 30s", "slow_start: 0s")
        .with("requests: 128", "requests: 2")
        .serve()
        .await;
    let path = "/v1/models/resnet:predict";
    let mut asked = 0;
    until("the one that fails is ejected", async || {
        asked += 1;
        let answer = match asked % 2 {
            0 => served.get("/v1/models/resnet", "").await,
            _ => {
                served
                    .post(path, &format!("idempotency-key: {asked}\r\n"), "{}")
                    .await
            }
        };
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "good"),
            "request {asked}"
        );
        served.endpoint("resnet", failing.address).await["ejections"] == 1
    })
    .await;
    assert!(
        served
            .proxy
            .metric("forebay_retries_total", &["reason=\"503\""])
            >= 5.0
    );
    until("the busy one was asked", async || {
        let answer = served.get("/v1/models/resnet", "").await;
        assert_eq!(answer.text(), "good");
        busy.text().contains("GET /v1/models/resnet HTTP")
    })
    .await;
    let busy = served.endpoint("resnet", busy.address).await;
    assert_eq!(busy["ejections"], 0, "busy, not dead: {busy}");

    // The breaker of the chat route, which is not full of the requests of the other.
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(served.at()).await;
        client
            .send("POST /v1/chat HTTP/1.1\r\nhost: t\r\ncontent-length: 4\r\n\r\nhang")
            .await;
        streams.push(client);
    }
    until("two are under way", async || {
        chat.iter()
            .map(|c| c.text().matches("\r\n\r\nhang").count())
            .sum::<usize>()
            == 2
    })
    .await;
    let refused = served.post("/v1/chat", "", "{}").await;
    assert_eq!((refused.status, refused.reason()), (503, "breaker_open"));
    drop(streams);
    served.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_finds_who_has_not_loaded_its_model_before_a_caller_does() {
    let good = Upstream::fixed("good").await;
    let loading = Upstream::start(|mut peer| async move {
        while peer.request().await.is_some() {
            peer.write(respond(404, "no such model")).await;
        }
    })
    .await;
    let chat = or_hang("chat").await;
    let served = Example::named("retries-health.yaml")
        .with("10.0.1.1:8501", good.address)
        .with("10.0.1.2:8501", loading.address)
        .with(", \"10.0.1.3:8501\"", "")
        .with("10.0.2.1:8000", chat.address)
        .with(", \"10.0.2.2:8000\"", "")
        .with("interval: 5s", "interval: 50ms")
        .serve()
        .await;
    until("it counts as unhealthy", async || {
        served.endpoint("resnet", loading.address).await["healthy"] == false
    })
    .await;
    for _ in 0..50 {
        let answer = request(served.at(), "POST", "/v1/models/resnet:predict", "", "{}").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "good"));
    }
    assert!(
        loading
            .text()
            .contains("GET /v1/models/resnet/metadata HTTP/1.1")
    );
    assert!(!loading.text().contains("POST "));
    served.proxy.stop().await;
}
