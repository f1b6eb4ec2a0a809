//! `canary-sticky.yaml`.

use std::collections::BTreeMap;

use super::{Example, Served};
use crate::support::{Upstream, until};

async fn serve() -> (Served, [Upstream; 3]) {
    let old = [Upstream::fixed("v1").await, Upstream::fixed("v1").await];
    let new = Upstream::fixed("v2").await;
    let served = Example::named("canary-sticky.yaml")
        .with("10.0.1.1:8000", old[0].address)
        .with("10.0.1.2:8000", old[1].address)
        .with("10.0.2.1:8000", new.address)
        .with("interval: 5s", "interval: 50ms")
        .serve()
        .await;
    let [one, two] = old;
    (served, [one, two, new])
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_by_api_move_users_one_way_and_the_end_of_them_moves_them_back() {
    let (served, _upstreams) = serve().await;
    let mut before: BTreeMap<u32, String> = BTreeMap::new();
    for (step, wanted) in [(1, 0..12), (5, 2..30), (20, 30..90), (100, 200..201)] {
        if step > 1 {
            let body = format!(
                r#"{{"weights": {{"assistant-v1": {}, "assistant-v2": {step}}}, "for": "1h"}}"#,
                100 - step
            );
            served
                .api("POST", "/api/routes/assistant/weights", &body)
                .await;
            until("v2 is healthy and has its share", async || {
                let status = served.api("GET", "/api/config/status", "").await;
                status["pending"].as_array().unwrap().is_empty()
            })
            .await;
        }
        let mut moved = 0;
        for user in 0..200 {
            let lines = format!("x-user-id: user-{user}\r\n");
            let answer = served.post("/v1/chat/completions", &lines, "{}").await;
            assert_eq!(answer.header("x-version").unwrap(), answer.text());
            let was = before.insert(user, answer.text());
            if was.is_some_and(|was| was == "v2") {
                assert_eq!(answer.text(), "v2", "user {user} at {step} %");
            }
            moved += u32::from(answer.text() == "v2");
        }
        assert!(wanted.contains(&moved), "{moved} at {step} %");
    }
    served
        .api("DELETE", "/api/routes/assistant/weights", "")
        .await;
    let status = served.api("GET", "/api/config/status", "").await;
    assert!(
        status["overrides"].as_array().unwrap().is_empty(),
        "{status}"
    );
    served.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_a_field_of_the_body_and_an_address_keep_a_user() {
    let (served, _upstreams) = serve().await;
    let mut seen = BTreeMap::new();
    for user in 0..100 {
        let body = format!(r#"{{"prompt": "a", "user": "user-{user}"}}"#);
        let first = served.post("/v1/completions", "", &body).await.text();
        for _ in 0..3 {
            assert_eq!(
                served.post("/v1/completions", "", &body).await.text(),
                first
            );
        }
        *seen.entry(first).or_insert(0) += 1;
    }
    assert!(seen["v1"] > 80 && seen["v2"] > 0, "{seen:?}");

    for _ in 0..20 {
        let first = served.get("/app", "").await;
        let line = first.header("set-cookie").unwrap();
        assert!(line.starts_with("canary=") && line.contains("Max-Age=604800"));
        let pair = line.split(';').next().unwrap();
        let again = served.get("/app", &format!("cookie: {pair}\r\n")).await;
        assert_eq!(again.text(), first.text());
    }

    let first = served.get("/v2", "").await.text();
    for _ in 0..20 {
        assert_eq!(served.get("/v2", "").await.text(), first);
    }
    served.proxy.stop().await;
}
