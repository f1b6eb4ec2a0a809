//! `access.yaml`.

use super::Example;
use crate::support::{Upstream, until};

#[tokio::test(flavor = "multi_thread")]
async fn lists_files_headers_and_a_dry_run_decide_who_comes_in() {
    let upstream = Upstream::fixed("in").await;
    let other = Upstream::fixed("in").await;
    let third = Upstream::fixed("in").await;
    let served = Example::named("access.yaml")
        .with("10.0.1.1:8501", upstream.address)
        .with("10.0.2.1:8080", other.address)
        .with("10.0.3.1:8080", third.address)
        .serve()
        .await;
    let fraud = "/v1/models/fraud";
    for (path, client, lines, status) in [
        (fraud, "192.0.2.7", "", 200),
        (fraud, "2001:db8:1::7", "", 200),
        (fraud, "192.0.2.129", "", 403),   // the guests
        (fraud, "198.51.100.70", "", 200), // vpn.txt
        (fraud, "8.8.8.8", "", 403),
        ("/v1/models/fraud:predict", "8.8.8.8", "", 403),
        ("/v1/models/iris", "8.8.8.8", "", 200),
        ("/v1/models/iris", "203.0.113.7", "", 403),
        (
            "/v1/models/iris",
            "8.8.8.8",
            "user-agent: Python-urllib/3.12\r\n",
            403,
        ),
        ("/v1/models/prices", "8.8.8.8", "x-partner: acme\r\n", 200),
        ("/v1/models/prices", "8.8.8.8", "", 200), // counted only
    ] {
        let lines = format!("x-forwarded-for: {client}\r\n{lines}");
        let answer = served.get(path, &lines).await;
        assert_eq!(answer.status, status, "{path} for {client}");
        assert_eq!(answer.reason() == "denied", status == 403);
    }
    let page = served.api("GET", "/api/limits", "").await;
    let denied = |route: &str| {
        let access = page["access"].as_array().unwrap().iter();
        access
            .filter(|a| a["route"] == route)
            .map(|a| a["denied"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(denied("fraud"), [3]);
    assert_eq!(denied("iris"), [2]);
    assert_eq!(denied("prices"), [1]);

    let file = served.directory.path().join("vpn.txt");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}8.8.8.8 # a new exit\n")).unwrap();
    until("the list is read again", async || {
        served
            .get(fraud, "x-forwarded-for: 8.8.8.8\r\n")
            .await
            .status
            == 200
    })
    .await;
    served.proxy.stop().await;
}
