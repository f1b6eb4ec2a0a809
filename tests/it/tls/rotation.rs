//! Certificates that change while they are shown.

use std::fs;
use std::path::Path;

use super::serving;
use crate::support::tls::{Authority, ask, connect, shown};
use crate::support::{Proxy, Upstream, until};

/// Writes `name` beside itself and moves it there.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, path).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn new_certificates_on_disk_are_shown_without_a_restart() {
    let upstream = Upstream::fixed("ok").await;
    let authority = Authority::new();
    authority.issue("a", &["a.test"]);
    let file = authority.path("forebay.yaml");
    fs::write(
        &file,
        serving("certificate: a.crt, key: a.key", upstream.address),
    )
    .unwrap();
    let proxy = Proxy::start_on(&file).await;
    let config = authority.client(&[], None);
    let at = proxy.address();
    let mut old = connect(at, "a.test", &config).await.unwrap();
    let first = shown(&old);
    for in_place in [true, false] {
        let (certificate, key) = authority.pems(&["a.test"]);
        if in_place {
            fs::write(authority.path("a.crt"), certificate).unwrap();
            fs::write(authority.path("a.key"), key).unwrap();
        } else {
            replace(&authority.path("a.crt"), &certificate);
            replace(&authority.path("a.key"), &key);
        }
        until("the new one is shown", async || {
            shown(&connect(at, "a.test", &config).await.unwrap()) == authority.leaf("a")
        })
        .await;
        until("all is well", async || {
            proxy.control().status().last_error.is_none()
        })
        .await;
    }
    assert_eq!(shown(&old), first);
    assert_eq!(
        ask(&mut old, "a.test").await.unwrap().0,
        200,
        "older connections keep what they have"
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_written_key_keeps_the_old_certificate_and_says_so() {
    let upstream = Upstream::fixed("ok").await;
    let authority = Authority::new();
    authority.issue("a", &["a.test"]);
    let file = authority.path("forebay.yaml");
    fs::write(
        &file,
        serving("certificate: a.crt, key: a.key", upstream.address),
    )
    .unwrap();
    let proxy = Proxy::start_on(&file).await;
    let config = authority.client(&[], None);
    let first = authority.leaf("a");
    let (certificate, key) = authority.pems(&["a.test"]);
    let shows_first = async |what: &str| {
        let mut stream = connect(proxy.address(), "a.test", &config).await.unwrap();
        assert_eq!(shown(&stream), first, "{what}");
        assert_eq!(ask(&mut stream, "a.test").await.unwrap().0, 200, "{what}");
    };
    for (what, written) in [
        ("half", &key[..key.len() / 2]),
        ("empty", ""),
        ("another's", &key),
    ] {
        let failures = || proxy.metric("forebay_config_reloads_total", &["result=\"failure\""]);
        let before = failures();
        fs::write(authority.path("a.key"), written).unwrap();
        until(what, async || failures() > before).await;
        let error = proxy
            .control()
            .status()
            .last_error
            .expect("a truthful status");
        assert!(
            error.message.contains("a.key") || error.message.contains("a.crt"),
            "{what}: {error:?}"
        );
        assert_eq!(proxy.metric("forebay_config_last_reload_success", &[]), 0.0);
        shows_first(what).await;
    }
    assert_eq!(proxy.control().snapshot().generation, 1);
    fs::write(authority.path("a.crt"), certificate).unwrap();
    until("whole again", async || {
        proxy.control().status().last_error.is_none()
    })
    .await;
    let stream = connect(proxy.address(), "a.test", &config).await.unwrap();
    assert_eq!(shown(&stream), authority.leaf("a"));
    assert_eq!(proxy.metric("forebay_config_last_reload_success", &[]), 1.0);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_rotations_lose_no_request() {
    let upstream = Upstream::fixed("ok").await;
    let authority = Authority::new();
    authority.issue("a", &["a.test"]);
    let file = authority.path("forebay.yaml");
    fs::write(
        &file,
        serving("certificate: a.crt, key: a.key", upstream.address),
    )
    .unwrap();
    let proxy = Proxy::start_on(&file).await;
    let config = authority.client(&[], None);
    let at = proxy.address();
    let mut kept = connect(at, "a.test", &config).await.unwrap();
    for _ in 0..100 {
        authority.issue("a", &["a.test"]);
        let _ = proxy.control().reload().await.unwrap();
        let mut fresh = connect(at, "a.test", &config).await.unwrap();
        assert_eq!(shown(&fresh), authority.leaf("a"));
        assert_eq!(ask(&mut fresh, "a.test").await.unwrap().0, 200);
        assert_eq!(ask(&mut kept, "a.test").await.unwrap().0, 200);
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_certificate_keeps_all_others_as_they_were() {
    let authority = Authority::new();
    authority.issue("a", &["a.test"]);
    authority.issue("b", &["b.test"]);
    let text = format!(
        "admin: {{address: '127.0.0.1:0'}}\nworkers: 2\ndrain: {{delay: 0s, timeout: 5s}}\n\
         listeners:\n- {{name: a, address: '127.0.0.1:0', tls: {{{}}}}}\n- {{name: b, address: '127.0.0.1:0', tls: {{{}}}}}\n\
         routes: [{{name: r, respond: {{body: ok}}}}]\nclusters: []\n",
        authority.pair("a"),
        authority.pair("b")
    );
    let proxy = Proxy::start(&text).await;
    let config = authority.client(&[], None);
    let first = authority.leaf("a");
    authority.issue("a", &["a.test"]);
    fs::write(authority.path("b.key"), "nonsense").unwrap();
    assert!(proxy.control().reload().await.is_err());
    let stream = connect(proxy.listener("a"), "a.test", &config)
        .await
        .unwrap();
    assert_eq!(
        shown(&stream),
        first,
        "a reload applies whole or not at all"
    );
    authority.issue("b", &["b.test"]);
    let _ = proxy.control().reload().await.unwrap();
    for stem in ["a", "b"] {
        let stream = connect(proxy.listener(stem), &format!("{stem}.test"), &config)
            .await
            .unwrap();
        assert_eq!(shown(&stream), authority.leaf(stem));
    }
    proxy.stop().await;
}
