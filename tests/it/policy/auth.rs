//! API keys: who is known, what the endpoint sees of it, and how the file is followed.

use super::{get, guarded, put};
use crate::support::{Client, Proxy, Upstream, until};

/// SHA-256 of `alice-key` and of `bob-key`.
const ALICE: &str = "72ee9d4355ccb9d3a4c9dbf37382e38e75c1b1a225b5bd1f729ee91bbda30c20";
const BOB: &str = "9b94dc1a51a38769f135edf04033ad7f2f487b6c25929be7a861cfc1ab10cf98";

struct Scene {
    upstream: Upstream,
    proxy: Proxy,
    dir: tempfile::TempDir,
}

async fn scene(route: &str) -> Scene {
    let upstream = Upstream::fixed("ok").await;
    let dir = tempfile::tempdir().unwrap();
    put(
        &dir.path().join("keys.txt"),
        &format!("# people\nalice sha256:{ALICE}\n"),
    );
    let file = dir.path().join("forebay.yaml");
    put(
        &file,
        &guarded(
            upstream.address,
            route,
            "auth: {api_keys: {file: keys.txt}}",
        ),
    );
    let proxy = Proxy::start_on(&file).await;
    Scene {
        upstream,
        proxy,
        dir,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_known_keys_pass_and_the_endpoint_sees_none() {
    let scene = scene("auth: {required: true}").await;
    let address = scene.proxy.address();
    for (lines, status) in [
        ("authorization: Bearer alice-key\r\n", 200),
        ("x-api-key: alice-key\r\n", 200),
        (
            "authorization: Bearer other\r\nx-api-key: alice-key\r\n",
            200,
        ),
        ("authorization: Bearer bob-key\r\n", 401),
        ("authorization: Basic alice-key\r\n", 401),
        ("x-api-key: \r\n", 401),
        ("x_api_key: alice-key\r\n", 401),
        ("", 401),
    ] {
        let answer = get(address, "/", lines).await;
        assert_eq!(answer.status, status, "{lines}");
        if status == 401 {
            assert_eq!(answer.reason(), "unauthorized");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
    }
    let seen = scene.upstream.text();
    assert!(!seen.contains("alice-key"), "{seen}");
    assert!(
        seen.contains("Bearer other"),
        "what is not ours is passed on: {seen}"
    );
    scene.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_kept_when_told() {
    let scene = scene("auth: {required: true, keep_key: true}").await;
    let answer = get(
        scene.proxy.address(),
        "/",
        "authorization: Bearer alice-key\r\n",
    )
    .await;
    assert_eq!(answer.status, 200);
    assert!(scene.upstream.text().contains("Bearer alice-key"));
    scene.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_file_is_followed_and_a_bad_one_changes_nothing() {
    let scene = scene("auth: {required: true}").await;
    let address = scene.proxy.address();
    let status = async |key: &str| {
        get(address, "/", &format!("x-api-key: {key}\r\n"))
            .await
            .status
    };
    assert_eq!(status("bob-key").await, 401);
    let keys = scene.dir.path().join("keys.txt");
    put(&keys, &format!("bob sha256:{BOB}\n"));
    until("bob is known", async || status("bob-key").await == 200).await;
    assert_eq!(status("alice-key").await, 401);
    put(&keys, "bob bob-key\n");
    let failures = &["result=\"failure\""];
    until("the bad file is refused", async || {
        scene.proxy.metric("forebay_config_reloads_total", failures) >= 1.0
    })
    .await;
    let error = scene.proxy.control().status().last_error.unwrap();
    assert!(error.message.contains("keys.txt:1"), "{error:?}");
    assert!(
        !error.message.contains("bob-key"),
        "a key is never shown: {error:?}"
    );
    assert_eq!(status("bob-key").await, 200);
    scene.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_goes_by_who_it_is() {
    let scene = scene("rate_limits: [{rate: 1/h, burst: 2, per: identity, missing: refuse}]").await;
    let address = scene.proxy.address();
    let mut statuses = Vec::new();
    for lines in [
        "x-api-key: alice-key\r\n",
        "authorization: Bearer alice-key\r\n",
        "x-api-key: alice-key\r\n",
        "x-api-key: nobody\r\n",
    ] {
        statuses.push(get(address, "/", lines).await.status);
    }
    assert_eq!(statuses, [200, 200, 429, 429]);
    assert_eq!(Client::get(address, "/").await.reason(), "rate_limited");
    scene.proxy.stop().await;
}
