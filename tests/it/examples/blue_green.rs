//! `blue-green.yaml`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::{Example, Served};
use crate::support::{Upstream, respond, until};

const PATH: &str = "/v2/models/resnet";

async fn colours(served: &Served) -> Vec<String> {
    let mut seen = Vec::new();
    for _ in 0..20 {
        seen.push(served.get(PATH, "").await.text());
    }
    seen.sort();
    seen.dedup();
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn green_takes_over_once_it_is_ready_and_blue_takes_back() {
    let (one, two) = (Upstream::fixed("one").await, Upstream::fixed("two").await);
    let loaded = Arc::new(AtomicBool::new(false));
    let is_loaded = Arc::clone(&loaded);
    let green = Upstream::start(move |mut peer| {
        let loaded = Arc::clone(&is_loaded);
        async move {
            while peer.request().await.is_some() {
                let status = if loaded.load(Ordering::Relaxed) {
                    200
                } else {
                    503
                };
                peer.write(respond(status, "green")).await;
            }
        }
    })
    .await;
    let served = Example::named("blue-green.yaml")
        .with("10.0.1.1:8000", one.address)
        .with("10.0.1.2:8000", two.address)
        .with("10.0.2.1:8000", green.address)
        .with("interval: 5s", "interval: 50ms")
        .serve()
        .await;
    until("the check says that green cannot serve", async || {
        served.endpoint("green", green.address).await["healthy"] == false
    })
    .await;
    green.saw("GET /v2/health/ready HTTP/1.1").await;
    assert_eq!(colours(&served).await, ["one", "two"]);

    let api = "/api/routes/triton/weights";
    let over = r#"{"weights": {"blue": 0, "green": 100}}"#;
    served.api("POST", api, over).await;
    let pending = json!([{"route": "triton", "waiting_for": ["green"]}]);
    let status = served.api("GET", "/api/config/status", "").await;
    assert_eq!(status["pending"], pending, "{status}");
    assert_eq!(colours(&served).await, ["one", "two"], "blue serves on");
    let tester = served.get(PATH, "x-colour: green\r\n").await;
    assert_eq!((tester.status, tester.reason()), (503, "no_endpoint"));

    loaded.store(true, Ordering::Relaxed);
    until("green has taken over", async || {
        let status = served.api("GET", "/api/config/status", "").await;
        status["pending"] == json!([])
    })
    .await;
    assert_eq!(colours(&served).await, ["green"]);
    served.api("DELETE", api, "").await;
    assert_eq!(colours(&served).await, ["one", "two"]);

    let endpoint = format!("/api/clusters/blue/endpoints/{}", one.address);
    let drained = served.api("POST", &format!("{endpoint}/drain"), "").await;
    assert_eq!(drained["draining"], true);
    assert_eq!(colours(&served).await, ["two"]);
    served.api("POST", &format!("{endpoint}/undrain"), "").await;
    until("it serves again", async || {
        colours(&served).await.len() == 2
    })
    .await;
    served.proxy.stop().await;
}
