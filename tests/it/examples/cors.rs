//! `cors.yaml`.

use super::{Example, request};
use crate::support::Upstream;

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_listed_sites_call_with_cookies_and_any_page_without() {
    let (chat, iris) = (Upstream::fixed("chat").await, Upstream::fixed("iris").await);
    let served = Example::named("cors.yaml")
        .with("10.0.1.1:8000", chat.address)
        .with("10.0.2.1:8080", iris.address)
        .serve()
        .await;
    for (path, origin, allowed, credentials) in [
        (
            "/v1/chat",
            "https://app.example.com",
            Some("https://app.example.com"),
            true,
        ),
        (
            "/v1/chat",
            "http://localhost:3000",
            Some("http://localhost:3000"),
            true,
        ),
        ("/v1/chat", "https://evil.example", None, false),
        ("/v1/chat", "http://app.example.com", None, false),
        ("/v2/models/iris", "https://evil.example", Some("*"), false),
    ] {
        let lines = format!("origin: {origin}\r\naccess-control-request-method: POST\r\n");
        let preflight = request(served.at(), "OPTIONS", path, &lines, "").await;
        let answer = served
            .post(path, &format!("origin: {origin}\r\n"), "{}")
            .await;
        assert_eq!(answer.status, 200, "browsers keep the answer, not we");
        for answer in [preflight, answer] {
            let of = |name: &str| answer.header(name).map(str::to_owned);
            assert_eq!(
                of("access-control-allow-origin").as_deref(),
                allowed,
                "{origin}"
            );
            assert_eq!(
                of("access-control-allow-credentials").is_some(),
                credentials
            );
        }
    }
    for upstream in [&chat, &iris] {
        assert!(!upstream.text().contains("OPTIONS "), "preflights end here");
    }
    served.proxy.stop().await;
}
