//! Replicas that follow what the servers tell of themselves.

use super::*;

/// A server that answers requests at once, and `/metrics` with a queue of this length; `None`: it has no metrics.
async fn telling(queue: &Arc<Mutex<Option<u32>>>) -> Upstream {
    let queue = Arc::clone(queue);
    Upstream::start(move |mut peer| {
        let queue = Arc::clone(&queue);
        async move {
            while let Some((head, _)) = peer.request().await {
                let length = *queue.lock().unwrap();
                let answer = match (head.starts_with("GET /metrics "), length) {
                    (true, Some(length)) => respond(200, &page(length)),
                    (true, None) => respond(404, ""),
                    (false, _) => respond(200, "done"),
                };
                if !peer.write(answer).await {
                    return;
                }
            }
        }
    })
    .await
}

fn page(queue: u32) -> String {
    format!(
        "# HELP vllm:num_requests_waiting Number of requests waiting to be processed.\n\
         # TYPE vllm:num_requests_waiting gauge\n\
         vllm:num_requests_waiting{{engine=\"0\",model_name=\"m\"}} {queue}.0\n"
    )
}

fn desired(proxy: &Proxy) -> f64 {
    proxy.metric("forebay_desired_replicas", &["cluster=\"a\""])
}

const QUEUE: &[&str] = &["cluster=\"a\"", "signal=\"queue\""];

/// The reason that the metrics give for a stale queue.
fn stale(proxy: &Proxy) -> Option<String> {
    let page = proxy.metrics();
    let line = page.lines().find(|line| {
        line.starts_with("forebay_signal_stale{")
            && QUEUE.iter().all(|label| line.contains(label))
            && line.ends_with(" 1")
    })?;
    let reason = line.split("reason=\"").nth(1)?;
    Some(reason.split('"').next()?.to_owned())
}

fn scaled_by_queue(address: SocketAddr) -> String {
    let scale = "server: vllm, scale: {observe: {}, max: 5, stable_window: 6s, panic_window: 1s, \
                 target: {queue: 2}}";
    leading_to(&[address], scale)
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_follow_a_queue_inside_the_server() {
    let queue = Arc::new(Mutex::new(Some(0)));
    let server = telling(&queue).await;
    let proxy = Proxy::start(&scaled_by_queue(server.address)).await;
    assert_eq!(proxy.metric("forebay_signal_stale", QUEUE), 0.0);
    assert_eq!(Client::get(proxy.address(), "/").await.text(), "done");
    server.saw("GET /metrics ").await;
    until("one is enough", async || desired(&proxy) == 1.0).await;
    *queue.lock().unwrap() = Some(7);
    until("the queue is published", async || {
        proxy.metric("forebay_demand", QUEUE) == 7.0
    })
    .await;
    until("replicas follow", async || desired(&proxy) == 4.0).await;
    *queue.lock().unwrap() = Some(0);
    until("and back", async || desired(&proxy) == 1.0).await;
    // Pages are no requests.
    let label = &["cluster=\"a\""];
    assert_eq!(proxy.metric("forebay_arrivals_total", label), 1.0);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_went_away_says_so() {
    let queue = Arc::new(Mutex::new(Some(3)));
    let server = telling(&queue).await;
    let proxy = Proxy::start(&scaled_by_queue(server.address)).await;
    until("the queue is published", async || {
        proxy.metric("forebay_demand", QUEUE) == 3.0
    })
    .await;
    *queue.lock().unwrap() = None;
    until("it is stale", async || {
        stale(&proxy).as_deref() == Some("status")
    })
    .await;
    let demand = proxy.metrics();
    let demand = demand.lines().filter(|l| l.starts_with("forebay_demand{"));
    let left = demand.filter(|line| line.contains(QUEUE[1])).count();
    assert_eq!(left, 0, "an old number is no number");
    let shown = "GET /api/clusters HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let shown = Client::once(proxy.control().admin, shown).await;
    let shown: serde_json::Value = serde_json::from_str(&shown.text()).unwrap();
    let signals = &shown["clusters"][0]["scale"]["signals"];
    assert_eq!(signals["queue"]["stale"], "status", "{shown}");
    *queue.lock().unwrap() = Some(1);
    until("it is known again", async || {
        stale(&proxy).is_none() && proxy.metric("forebay_demand", QUEUE) == 1.0
    })
    .await;
    proxy.stop().await;
}
