//! `tenant-limits.yaml`.

use super::{Example, Served, or_hang};
use crate::support::{Client, Upstream, until};

const ACME: &str = "authorization: Bearer example-key-of-acme\r\n";
const GLOBEX: &str = "x-api-key: example-key-of-globex\r\n";

async fn serve() -> (Served, Upstream, Upstream) {
    let chat = or_hang("chat").await;
    let embeddings = Upstream::fixed("embeddings").await;
    let served = Example::named("tenant-limits.yaml")
        .with("10.0.1.1:8000", chat.address)
        .with(", \"10.0.1.2:8000\"", "")
        .with("10.0.2.1:8000", embeddings.address)
        .serve()
        .await;
    (served, chat, embeddings)
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_have_one_bucket_for_all_routes_and_exceptions() {
    let (served, _chat, embeddings) = serve().await;
    let refused = served.post("/v1/embeddings", "", "{}").await;
    assert_eq!((refused.status, refused.reason()), (401, "unauthorized"));
    for _ in 0..60 {
        let answer = served.post("/v1/embeddings", ACME, "{}").await;
        assert_eq!(answer.status, 200, "acme has a burst of 200");
    }
    for _ in 0..5 {
        assert_eq!(
            served.post("/v1/embeddings", GLOBEX, "{}").await.status,
            200
        );
    }
    for path in ["/v1/embeddings", "/v1/chat/completions"] {
        let refused = served.post(path, GLOBEX, "{}").await;
        assert_eq!((refused.status, refused.reason()), (429, "rate_limited"));
        let wait: u32 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
    }
    assert!(!embeddings.text().contains("example-key"), "keys are ours");

    // A dry run refuses nobody.
    let session = format!("{ACME}cookie: session=a\r\n");
    for _ in 0..5 {
        assert_eq!(
            served.post("/v1/embeddings", &session, "{}").await.status,
            200
        );
    }
    let page = served.api("GET", "/api/limits", "").await;
    let limits = page["limits"].as_array().unwrap();
    let dry = limits.iter().find(|l| l["name"] == "per-session").unwrap();
    assert!(dry["refused"].as_u64().unwrap() >= 1, "{dry}");
    served.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn end_users_streams_and_strangers_have_limits_of_their_own() {
    let (served, chat, _embeddings) = serve().await;
    let path = "/v1/chat/completions";
    let ada = r#"{"model": "m", "user": "ada"}"#;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(served.post(path, ACME, ada).await.status);
    }
    assert_eq!(statuses, [200, 200, 200, 429]);
    let two = r#"{"user": "bob", "user": "ada"}"#;
    assert_eq!(
        served.post(path, ACME, two).await.status,
        429,
        "the last counts"
    );
    for body in [r#"{"user": "bob"}"#, r#"{"model": "m"}"#, "no JSON"] {
        assert_eq!(served.post(path, ACME, body).await.status, 200, "{body}");
    }

    let mut streams = Vec::new();
    for _ in 0..16 {
        let mut client = Client::connect(served.at()).await;
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: t\r\n{ACME}content-length: 4\r\n\r\nhang");
        client.send(head).await;
        streams.push(client);
    }
    until("16 streams are open", async || {
        chat.text().matches("\r\n\r\nhang").count() == 16
    })
    .await;
    let refused = served.post(path, ACME, "{}").await;
    assert_eq!(
        (refused.status, refused.reason()),
        (429, "concurrency_limited")
    );
    drop(streams);
    until("their places are free", async || {
        served.post(path, ACME, "{}").await.status == 200
    })
    .await;

    let from = |address: &str| format!("x-forwarded-for: {address}\r\n");
    let playground = "/playground/completions";
    let mut statuses = Vec::new();
    for client in ["2001:db8::1", "2001:db8::2", "2001:db8::3"].repeat(2) {
        statuses.push(served.post(playground, &from(client), "{}").await.status);
    }
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429], "one /64");
    assert_eq!(
        served
            .post(playground, &from("192.0.2.1"), "{}")
            .await
            .status,
        200
    );
    assert!(chat.text().contains("POST /v1/completions"));
    served.proxy.stop().await;
}
