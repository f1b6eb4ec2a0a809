//! `api-keys.yaml`.

use super::{Example, or_hang};
use crate::support::{Client, Upstream, until};

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_key_comes_in_is_limited_by_name_and_the_key_stays_here() {
    let (llm, gateway) = (or_hang("llm").await, Upstream::fixed("gateway").await);
    let served = Example::named("api-keys.yaml")
        .with("10.0.1.1:8000", llm.address)
        .with("10.0.2.1:8080", gateway.address)
        .serve()
        .await;
    assert_eq!(served.get("/healthz", "").await.text(), "ok");
    let bearer = "authorization: Bearer example-key-of-";
    for lines in [
        "",
        "x-api-key: a guess\r\n",
        "authorization: Basic YTpi\r\n",
    ] {
        for path in ["/v1/models", "/v2"] {
            let refused = served.get(path, lines).await;
            assert_eq!((refused.status, refused.reason()), (401, "unauthorized"));
        }
    }
    for lines in [
        format!("{bearer}acme\r\n"),
        format!("{bearer}acme-2\r\n"),
        "x-api-key: example-key-of-globex\r\n".to_owned(),
    ] {
        assert_eq!(served.get("/v1/models", &lines).await.text(), "llm");
        assert_eq!(served.get("/v2", &lines).await.text(), "gateway");
    }
    assert!(!llm.text().contains("example-key-of-"));
    assert!(gateway.text().contains("example-key-of-globex"), "keep_key");

    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut client = Client::connect(served.at()).await;
        let head = format!("POST /v1 HTTP/1.1\r\nhost: t\r\n{bearer}globex\r\n");
        client
            .send(format!("{head}content-length: 4\r\n\r\nhang"))
            .await;
        streams.push(client);
    }
    until("eight are under way", async || {
        llm.text().matches("\r\n\r\nhang").count() == 8
    })
    .await;
    let refused = served.get("/v1", &format!("{bearer}globex\r\n")).await;
    assert_eq!(
        (refused.status, refused.reason()),
        (429, "concurrency_limited")
    );
    assert_eq!(
        served.get("/v1", &format!("{bearer}acme\r\n")).await.status,
        200
    );
    drop(streams);

    let file = served.directory.path().join("access.log");
    until("the log knows names and no keys", async || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(!text.contains("example-key"));
        text.contains("globex") && text.contains("acme")
    })
    .await;
    served.proxy.stop().await;
}
