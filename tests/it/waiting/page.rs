//! Browsers that would wait for the first replica get a page that asks again by itself.

use std::net::SocketAddr;

use super::{ALL, Server, is_empty, nobody, waiting};
use crate::support::client::Answer;
use crate::support::h2::{self, H2};
use crate::support::{Client, Proxy, proxy, until};

const HTML: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

fn paged(endpoint: SocketAddr, route: &str, keys: &str) -> String {
    proxy::config(&format!(
        "routes: [{{name: r, cluster: a{route}}}]\n\
         clusters: [{{name: a, endpoints: ['{endpoint}'], queue: {{waiting_page: true, empty: 300ms}}{keys}}}]\n"
    ))
}

const OBSERVED: &str = ", scale: {observe: {}}";

async fn opens(proxy: &Proxy, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nhost: t\r\naccept: {HTML}\r\n\r\n");
    Client::once(proxy.address(), request).await
}

fn arrivals(proxy: &Proxy) -> u64 {
    proxy.control().snapshot().clusters["a"].state.arrivals()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_gets_a_page_and_then_the_model() {
    let (socket, address) = nobody();
    let proxy = Proxy::start(&paged(address, "", OBSERVED)).await;
    for path in ["/", "/v2/models"] {
        let page = opens(&proxy, path).await;
        assert_eq!((page.status, page.reason()), (503, "asleep"), "{page:?}");
        assert_eq!(
            page.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        assert_eq!(page.header("cache-control"), Some("no-store"));
        let after: u64 = page.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&after), "{after}");
        let text = page.text();
        assert!(text.contains("<h1>a is starting</h1>"), "{text}");
        assert!(text.contains("<meta http-equiv=refresh"), "{text}");
        assert!(
            !text.contains("<script") && !text.contains("src="),
            "{text}"
        );
    }
    assert_eq!(waiting(&proxy), 0.0);
    let version2 = H2::connect(proxy.address()).await;
    let mut request = h2::get("/");
    request
        .headers_mut()
        .insert("accept", HTML.parse().unwrap());
    let page = version2.send(request).await.unwrap();
    assert_eq!((page.status(), page.reason()), (503, "asleep"));
    let refused = ["route=\"r\"", "reason=\"asleep\""];
    assert!(proxy.metric("forebay_refused_total", &refused) >= 3.0);

    let server = Server::on(socket.listen(64).unwrap(), ALL);
    let mut served = None;
    until("a reload is served", async || {
        let answer = opens(&proxy, "/").await;
        served = (answer.status == 200).then(|| answer.text());
        served.is_some()
    })
    .await;
    assert_eq!(served.as_deref(), Some("/"));
    assert_eq!(server.seen.count(), 1);
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_demand_and_no_place() {
    let (_socket, address) = nobody();
    let proxy = Proxy::start(&paged(address, "", OBSERVED)).await;
    let desired = || proxy.metric("forebay_desired_replicas", &["cluster=\"a\""]);
    opens(&proxy, "/").await; // finds the endpoint dead
    let before = arrivals(&proxy);
    opens(&proxy, "/").await;
    assert_eq!(arrivals(&proxy), before + 1);
    until("a replica is wanted", async || desired() == 1.0).await;
    assert_eq!(waiting(&proxy), 0.0);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_wait_and_routes_that_start_nothing_say_so() {
    let (_socket, address) = nobody();
    let proxy = Proxy::start(&paged(address, "", OBSERVED)).await;
    for fields in [
        "accept: */*\r\n",
        "accept: application/json\r\n",
        "accept: text/html\r\nsec-fetch-mode: cors\r\n",
        "accept: text/html\r\nauthorization: Bearer k\r\n",
    ] {
        let request = format!("GET / HTTP/1.1\r\nhost: t\r\n{fields}\r\n");
        let answer = Client::once(proxy.address(), request).await;
        assert_eq!(
            (answer.status, answer.reason()),
            (503, "no_endpoint"),
            "{fields}"
        );
        assert!(!answer.text().contains("http-equiv"), "{fields}");
    }
    proxy.stop().await;
    let proxy = Proxy::start(&paged(address, ", wake: false", OBSERVED)).await;
    opens(&proxy, "/").await; // finds the endpoint dead
    let before = arrivals(&proxy);
    let answer = opens(&proxy, "/").await;
    assert_eq!((answer.status, answer.reason()), (503, "asleep"));
    assert!(!answer.text().contains("http-equiv"), "{answer:?}");
    assert_eq!(arrivals(&proxy), before);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_waits_its_turn_where_replicas_are_busy() {
    let server = Server::start(0).await;
    let text =
        paged(server.address(), "", ", concurrency: 1").replace("empty: 300ms", "saturated: 20s");
    let proxy = Proxy::start(&text).await;
    let first = super::get(proxy.address(), "/first");
    server.holds(1).await;
    let at = proxy.address();
    let second = tokio::spawn(async move {
        let request = format!("GET /second HTTP/1.1\r\nhost: t\r\naccept: {HTML}\r\n\r\n");
        Client::once(at, request).await
    });
    super::waits(&proxy, 1).await;
    server.permits.add_permits(2);
    super::assert_served(&second.await.unwrap(), "/second");
    first.await.unwrap();
    proxy.stop().await;
}
