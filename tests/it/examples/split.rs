//! `split.yaml`.

use std::collections::BTreeMap;

use super::{Example, Served};
use crate::support::Upstream;

const PATH: &str = "/v1/models/resnet";

async fn versions(served: &Served, lines: &str) -> BTreeMap<String, u32> {
    let mut seen = BTreeMap::new();
    for _ in 0..400 {
        let answer = served.get(PATH, lines).await;
        let version = answer.header("x-version").unwrap().to_owned();
        assert_eq!(version, answer.text(), "the header says who answered");
        *seen.entry(version).or_insert(0) += 1;
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_hold_a_header_asks_for_a_version_and_the_api_changes_both() {
    let (one, two) = (Upstream::fixed("v1").await, Upstream::fixed("v1").await);
    let new = Upstream::fixed("v2").await;
    let served = Example::named("split.yaml")
        .with("10.0.1.1:8501", one.address)
        .with("10.0.1.2:8501", two.address)
        .with("10.0.2.1:8501", new.address)
        .serve()
        .await;
    let seen = versions(&served, "").await;
    let share = f64::from(seen["v2"]) / 400.0;
    assert!((share - 0.2).abs() < 0.1, "{seen:?}"); // five standard deviations
    assert!(new.text().contains("x-canary: true"));
    assert!(!one.text().contains("x-canary") && one.text().contains(PATH));
    assert!(two.text().contains(PATH));
    let asked = versions(&served, "x-version: v2\r\n").await;
    assert_eq!(asked.keys().collect::<Vec<_>>(), ["v2"]);

    let wanted = r#"{"weights": {"resnet-v1": 0, "resnet-v2": 100}, "for": "30m"}"#;
    let api = "/api/routes/resnet/weights";
    served.api("POST", api, wanted).await;
    assert_eq!(versions(&served, "").await["v2"], 400);
    let status = served.api("GET", "/api/config/status", "").await;
    assert_eq!(status["overrides"][0]["weights"]["resnet-v2"], 100);
    assert!(status["overrides"][0]["expires_at"].is_string());
    served.api("DELETE", api, "").await;
    assert!(versions(&served, "").await["v1"] > 200);
    served.proxy.stop().await;
}
