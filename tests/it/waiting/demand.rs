//! Who counts, and who need not wait.

use super::{Server, assert_served, get, is_empty, leading_to, waiting, waits, with_route};
use crate::support::{Client, Proxy, Upstream, until};

#[tokio::test(flavor = "multi_thread")]
async fn who_wakes_nobody_is_no_demand_and_is_told_when_the_last_replica_goes() {
    let (server, operator) = (Server::start(0).await, Upstream::fixed("{}").await);
    let keys = format!(
        "concurrency: 1, scale: {{webhook: {{url: 'http://{}/'}}}}",
        operator.address
    );
    let proxy = Proxy::start(&with_route(&[server.address()], ", wake: false", &keys)).await;
    let first = get(proxy.address(), "/first");
    server.holds(1).await;
    let patient = get(proxy.address(), "/patient");
    waits(&proxy, 1).await;
    let demand = |signal: &str| {
        let signal = format!("signal=\"{signal}\"");
        proxy.metric("forebay_demand", &["cluster=\"a\"", &signal])
    };
    until("the first one counts", async || demand("in_flight") == 1.0).await;
    assert_eq!((waiting(&proxy), demand("waiting")), (1.0, 0.0));
    let snapshot = proxy.control().snapshot();
    snapshot.clusters["a"].state.drain(server.address());
    let asleep = patient.await.unwrap();
    assert_eq!((asleep.status, asleep.reason()), (503, "asleep"));
    assert_eq!(demand("waiting"), 0.0);
    server.permits.add_permits(1);
    assert_served(&first.await.unwrap(), "/first");
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_breaker_refuses_before_anybody_waits() {
    let server = Server::start(0).await;
    let keys = "concurrency: 1, breaker: {requests: 1}";
    let proxy = Proxy::start(&leading_to(&[server.address()], keys)).await;
    let first = get(proxy.address(), "/first");
    server.holds(1).await;
    let refused = Client::get(proxy.address(), "/x").await;
    assert_eq!((refused.status, refused.reason()), (503, "breaker_open"));
    server.permits.add_permits(1);
    assert_served(&first.await.unwrap(), "/first");
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_in_the_waits_once_even_if_it_leaves() {
    let server = Server::start(0).await;
    let proxy = Proxy::start(&leading_to(&[server.address()], "concurrency: 1")).await;
    let waited = || proxy.metric("forebay_queue_wait_seconds_count", &["cluster=\"a\""]);
    let first = get(proxy.address(), "/first");
    server.holds(1).await;
    let mut leaver = Client::connect(proxy.address()).await;
    leaver.send("GET /leaver HTTP/1.1\r\nhost: t\r\n\r\n").await;
    waits(&proxy, 1).await;
    drop(leaver);
    until("it is counted", async || waited() == 1.0).await;
    server.permits.add_permits(1);
    first.await.unwrap();
    assert_eq!(waited(), 1.0);
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_and_what_starts_are_exported_from_the_beginning() {
    let (server, operator) = (Server::start(1).await, Upstream::fixed("{}").await);
    let keys = format!(
        "scale: {{webhook: {{url: 'http://{}/'}}}}",
        operator.address
    );
    let proxy = Proxy::start(&leading_to(&[server.address()], &keys)).await;
    let page = proxy.metrics();
    for phase in ["place", "process", "total"] {
        let line = format!("forebay_start_seconds_count{{cluster=\"a\",phase=\"{phase}\"}} 0");
        assert!(page.contains(&line), "{line}");
    }
    let info = "forebay_cluster_info{cluster=\"a\",namespace=\"\",kind=\"webhook\",name=\"\"} 1";
    assert!(page.contains(info));
    proxy.stop().await;
}
