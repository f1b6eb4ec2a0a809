//! Limits over reloads: what was used stays used.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{guarded, put};
use crate::support::{Client, Proxy, Upstream};

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_reloads_admit_nobody_more() {
    let upstream = Upstream::fixed("ok").await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("forebay.yaml");
    let text = |more: &str| {
        guarded(
            upstream.address,
            &format!("rate_limits: [{{rate: 200/s, burst: 50}}{more}]"),
            "",
        )
    };
    put(&file, &text(""));
    let proxy = Arc::new(Proxy::start_on(&file).await);
    let (address, begin) = (proxy.address(), Instant::now());
    let asking = tokio::spawn(async move {
        let mut client = Client::connect(address).await;
        let mut admitted = 0u32;
        while begin.elapsed() < Duration::from_secs(3) {
            client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
            admitted += u32::from(client.answer().await.status == 200);
        }
        (admitted, begin.elapsed())
    });
    for round in 0..100 {
        // Half of them change another limit of the same route.
        let other = format!(", {{name: other, concurrent: {}}}", round + 10);
        put(&file, &text(if round % 2 == 0 { &other } else { "" }));
        proxy.control().reload().await.unwrap();
    }
    let (admitted, took) = asking.await.unwrap();
    assert!(proxy.control().snapshot().generation > 100);
    let most = 50.0 + 200.0 * took.as_secs_f64();
    assert!(f64::from(admitted) <= most * 1.01, "{admitted} of {most}");
    assert!(f64::from(admitted) >= 100.0, "{admitted}");
    Arc::into_inner(proxy).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_limit_carries_over_in_proportion() {
    let upstream = Upstream::fixed("ok").await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("forebay.yaml");
    let text = |limit: &str| guarded(upstream.address, &format!("rate_limits: [{{{limit}}}]"), "");
    put(&file, &text("rate: 10/h, burst: 10"));
    let proxy = Proxy::start_on(&file).await;
    let admitted = async |times: u32| {
        let mut admitted = 0;
        for _ in 0..times {
            admitted += u32::from(Client::get(proxy.address(), "/").await.status == 200);
        }
        admitted
    };
    assert_eq!(admitted(5).await, 5, "half of it");
    put(&file, &text("rate: 20/h, burst: 40"));
    proxy.control().reload().await.unwrap();
    assert_eq!(admitted(30).await, 20, "the other half");
    assert_eq!(
        proxy.metric("forebay_rate_limited_total", &["limit=\"rate-1\""]),
        10.0
    );
    proxy.stop().await;
}
