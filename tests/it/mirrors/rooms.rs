//! Copies to clusters whose requests take slots: they go where one is free, and wait only if they are demand.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{all_over, copies, dropped, shape};
use crate::support::proxy::config;
use crate::support::{Client, Proxy, Upstream, respond, until};

async fn get(proxy: &Proxy) {
    assert_eq!(Client::get(proxy.address(), "/").await.text(), "primary");
}

/// Answers each request for one permit.
async fn gated(gate: &Arc<Semaphore>) -> Upstream {
    let gate = Arc::clone(gate);
    Upstream::start(move |mut peer| {
        let gate = Arc::clone(&gate);
        async move {
            while peer.request().await.is_some() {
                gate.acquire().await.unwrap().forget();
                peer.write(respond(200, "mirror")).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_copy_that_is_no_demand_wakes_nobody() {
    let primary = Upstream::fixed("primary").await;
    let proxy = Proxy::start(&config(&format!(
        "routes: [{{name: r, cluster: a, mirrors: [{{cluster: b}}]}}]\n\
         clusters:\n- {{name: a, endpoints: ['{}']}}\n\
         - {{name: b, scale: {{process: {{command: 'true ${{PORT}}'}}}}}}\n",
        primary.address
    )))
    .await;
    for _ in 0..3 {
        get(&proxy).await;
    }
    all_over(&proxy, 3.0).await;
    assert_eq!(dropped(&proxy, "asleep"), 3.0);
    let b = ["cluster=\"b\""];
    assert_eq!(proxy.metric("forebay_desired_replicas", &b), 0.0);
    assert_eq!(proxy.metric("forebay_waiting", &b), 0.0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_copy_that_is_no_demand_takes_a_free_slot_or_none() {
    let gate = Arc::new(Semaphore::new(0));
    let (primary, mirror) = (Upstream::fixed("primary").await, gated(&gate).await);
    let cluster = ", concurrency: 1";
    let config = shape(primary.address, mirror.address, "", "", cluster);
    let proxy = Proxy::start(&config).await;
    get(&proxy).await;
    mirror.saw("GET /").await;
    get(&proxy).await;
    until("the second copy is dropped", async || {
        dropped(&proxy, "busy") == 1.0
    })
    .await;
    gate.add_permits(1);
    until("the first is answered", async || {
        copies(&proxy, "ok") == 1.0
    })
    .await;
    gate.add_permits(1);
    get(&proxy).await; // its slot is free again
    all_over(&proxy, 3.0).await;
    assert_eq!(copies(&proxy, "ok"), 2.0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_copy_that_is_demand_waits_for_a_slot() {
    let gate = Arc::new(Semaphore::new(0));
    let (primary, mirror) = (Upstream::fixed("primary").await, gated(&gate).await);
    let cluster = ", concurrency: 1";
    let config = shape(
        primary.address,
        mirror.address,
        ", demand: true",
        "",
        cluster,
    );
    let proxy = Proxy::start(&config).await;
    for _ in 0..3 {
        get(&proxy).await; // answered, whatever its copy waits for
    }
    let waiting = || proxy.metric("forebay_waiting", &["cluster=\"b\""]);
    until("two copies wait", async || waiting() == 2.0).await;
    gate.add_permits(3);
    all_over(&proxy, 3.0).await;
    assert_eq!((copies(&proxy, "ok"), waiting()), (3.0, 0.0));
    let arrivals = proxy.metric("forebay_arrivals_total", &["cluster=\"b\""]);
    assert_eq!(arrivals, 0.0, "mirrors are not counted as arrivals");
    proxy.stop().await;
}

#[tokio::test]
async fn a_copy_waits_no_longer_than_its_own_clock_nor_than_the_room_allows() {
    let primary = Upstream::fixed("primary").await;
    for (options, queue, reason) in [
        (", demand: true, timeout: 200ms", "", "timeout"),
        (
            ", demand: true, timeout: 10s",
            ", queue: {saturated: 50ms}",
            "queue_timeout",
        ),
        (
            ", demand: true, timeout: 10s",
            ", queue: {max_requests: 1}",
            "queue_full",
        ),
    ] {
        let gate = Arc::new(Semaphore::new(0));
        let mirror = gated(&gate).await;
        let cluster = format!(", concurrency: 1{queue}");
        let config = shape(primary.address, mirror.address, options, "", &cluster);
        let proxy = Proxy::start(&config).await;
        get(&proxy).await;
        mirror.saw("GET /").await;
        get(&proxy).await;
        get(&proxy).await;
        let labels = format!("reason=\"{reason}\"");
        until(reason, async || {
            proxy.metric("forebay_mirror_failures_total", &[&labels]) >= 1.0
        })
        .await;
        gate.add_permits(3);
        all_over(&proxy, 3.0).await;
        assert_eq!(proxy.metric("forebay_waiting", &["cluster=\"b\""]), 0.0);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_copy_that_is_demand_asks_for_a_replica() {
    let primary = Upstream::fixed("primary").await;
    let asked = Upstream::fixed("ok").await;
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let cluster = format!(
        ", scale: {{webhook: {{url: 'http://{}/wanted'}}}}",
        asked.address
    );
    let config = shape(primary.address, nobody, ", demand: true", "", &cluster);
    let proxy = Proxy::start(&config).await;
    get(&proxy).await;
    asked.saw("\"desired\":1").await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_copy_finds_an_endpoint_that_comes_back() {
    let primary = Upstream::fixed("primary").await;
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let config = shape(
        primary.address,
        address,
        ", demand: true",
        "",
        ", concurrency: 2",
    );
    let proxy = Proxy::start(&config).await;
    get(&proxy).await;
    let waiting = || proxy.metric("forebay_waiting", &["cluster=\"b\""]);
    until("the copy waits", async || waiting() == 1.0).await;
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let served = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let mut block = [0; 4 << 10];
                while let Ok(1..) = stream.read(&mut block).await {
                    let _ = stream.write_all(&respond(200, "mirror")).await;
                }
            });
        }
    });
    all_over(&proxy, 1.0).await;
    assert_eq!(copies(&proxy, "ok"), 1.0);
    proxy.stop().await;
    served.abort();
}
