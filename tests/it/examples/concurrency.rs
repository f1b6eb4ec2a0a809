//! `concurrency.yaml`.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::{Example, Served, request};
use crate::support::client::Answer;
use crate::support::{Upstream, respond, until};

/// A model server that is healthy and answers each request for one permit.
async fn gated(gate: &Arc<Semaphore>) -> Upstream {
    let gate = Arc::clone(gate);
    Upstream::start(move |mut peer| {
        let gate = Arc::clone(&gate);
        async move {
            while let Some((head, _)) = peer.request().await {
                if !head.starts_with("GET /health ") {
                    gate.acquire().await.unwrap().forget();
                }
                peer.write(respond(200, "done")).await;
            }
        }
    })
    .await
}

fn requests(served: &Served, count: usize) -> Vec<JoinHandle<Answer>> {
    let at = served.at();
    let body = r#"{"prompt": "a"}"#;
    let ask = || tokio::spawn(request(at, "POST", "/v1/completions", "", body));
    std::iter::repeat_with(ask).take(count).collect()
}

/// In flight, and waiting.
fn crowd(served: &Served) -> (f64, f64) {
    let of = |family: &str| served.proxy.metric(family, &["cluster=\"llm\""]);
    (of("forebay_endpoint_in_flight"), of("forebay_waiting"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_takes_what_it_can_and_the_rest_waits_within_bounds() {
    let gate = Arc::new(Semaphore::new(0));
    let (one, two) = (gated(&gate).await, gated(&gate).await);
    let served = Example::named("concurrency.yaml")
        .with("10.0.1.1:8000", one.address)
        .with("10.0.1.2:8000", two.address)
        .serve()
        .await;
    let all = requests(&served, 48);
    until("8 are in flight at each, 32 wait", async || {
        crowd(&served) == (16.0, 32.0)
    })
    .await;
    let refused = served.post("/v1/completions", "", "{}").await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("x-forebay-reason"), Some("queue_full"));
    assert!(refused.header("retry-after").is_some());
    gate.add_permits(48);
    for one in all {
        assert_eq!(one.await.unwrap().status, 200);
    }
    assert_eq!(crowd(&served), (0.0, 0.0));
    served.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_too_long_is_told_to_try_again() {
    let gate = Arc::new(Semaphore::new(0));
    let (one, two) = (gated(&gate).await, gated(&gate).await);
    let served = Example::named("concurrency.yaml")
        .with("10.0.1.1:8000", one.address)
        .with("10.0.1.2:8000", two.address)
        .with("saturated: 20s", "saturated: 100ms")
        .serve()
        .await;
    let all = requests(&served, 16);
    until("every slot is taken", async || crowd(&served).0 == 16.0).await;
    let refused = served.post("/v1/completions", "", "{}").await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("x-forebay-reason"), Some("queue_timeout"));
    assert!(refused.header("retry-after").is_some());
    gate.add_permits(16);
    for one in all {
        assert_eq!(one.await.unwrap().status, 200);
    }
    served.proxy.stop().await;
}
