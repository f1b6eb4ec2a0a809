//! Endpoints that are called over TLS.

use super::calling;
use crate::support::h2::{H2Upstream, soon};
use crate::support::tls::{Authority, TlsUpstream};
use crate::support::{Client, Proxy, Upstream};

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_is_called_by_the_name_it_is_known_by() {
    let authority = Authority::new();
    authority.issue("m", &["m.test"]);
    authority.issue("me", &["me.test"]);
    let upstream = TlsUpstream::start(authority.acceptor("m", &["http/1.1"], false)).await;
    let ca = authority.path("ca.crt").display().to_string();
    let proxy = Proxy::start(&calling(
        &format!("tls: {{ca: '{ca}', server_name: m.test}}"),
        upstream.address,
    ))
    .await;
    let mut client = Client::connect(proxy.address()).await;
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        assert_eq!(client.answer().await.text(), "secure");
    }
    proxy.stop().await;

    let mutual = TlsUpstream::start(authority.acceptor("m", &[], true)).await;
    let with = format!(
        "tls: {{ca: '{ca}', server_name: m.test, {}}}",
        authority.pair("me")
    );
    let proxy = Proxy::start(&calling(&with, mutual.address)).await;
    assert_eq!(Client::get(proxy.address(), "/").await.text(), "secure");
    proxy.stop().await;
    let without = format!("tls: {{ca: '{ca}', server_name: m.test}}");
    let proxy = Proxy::start(&calling(&without, mutual.address)).await;
    let refused = Client::get(proxy.address(), "/").await;
    // TLS 1.3: the refusal may come after the handshake, with the first answer.
    assert_eq!(refused.status, 502);
    assert!(
        ["connect_failed", "upstream_reset"].contains(&refused.reason()),
        "{refused:?}"
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_cannot_prove_its_name_gets_nothing() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.issue("m", &["m.test"]);
    let upstream = TlsUpstream::start(authority.acceptor("m", &[], false)).await;
    let ca = |authority: &Authority| authority.path("ca.crt").display().to_string();
    for (what, tls) in [
        (
            "wrong authority",
            format!("ca: '{}', server_name: m.test", ca(&stranger)),
        ),
        (
            "wrong name",
            format!("ca: '{}', server_name: other.test", ca(&authority)),
        ),
        (
            "address instead of the name",
            format!("ca: '{}'", ca(&authority)),
        ),
        ("the system's roots", "server_name: m.test".to_owned()),
    ] {
        let proxy = Proxy::start(&calling(&format!("tls: {{{tls}}}"), upstream.address)).await;
        let answer = Client::get(proxy.address(), "/").await;
        assert_eq!(
            (answer.status, answer.reason()),
            (502, "connect_failed"),
            "{what}"
        );
        proxy.stop().await;
    }
    let plain = Upstream::fixed("ok").await;
    let tls = format!(
        "tls: {{ca: '{}', server_name: m.test}}, connect_timeout: 500ms",
        ca(&authority)
    );
    let proxy = Proxy::start(&calling(&tls, plain.address)).await;
    let answer = Client::get(proxy.address(), "/").await;
    assert!([502, 504].contains(&answer.status), "{answer:?}");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_upstream_over_tls_is_agreed_on_by_alpn() {
    let authority = Authority::new();
    authority.issue("m", &["m.test"]);
    let upstream = H2Upstream::start_with(
        Some(authority.acceptor("m", &["h2"], false)),
        |_, mut respond| async move {
            let mut stream = respond
                .send_response(http::Response::new(()), false)
                .unwrap();
            stream.send_data("over h2".into(), true).unwrap();
        },
    )
    .await;
    let ca = authority.path("ca.crt").display().to_string();
    let tls = format!("protocol: http2, tls: {{ca: '{ca}', server_name: m.test}}");
    let proxy = Proxy::start(&calling(&tls, upstream.address)).await;
    assert_eq!(Client::get(proxy.address(), "/").await.text(), "over h2");
    assert_eq!(
        upstream.heads.lock().unwrap()[0].uri.scheme_str(),
        Some("https")
    );
    proxy.stop().await;
    let only1 = TlsUpstream::start(authority.acceptor("m", &["http/1.1"], false)).await;
    let proxy = Proxy::start(&calling(&tls, only1.address)).await;
    let answer = soon("an answer", Client::get(proxy.address(), "/")).await;
    assert_eq!((answer.status, answer.reason()), (502, "connect_failed"));
    proxy.stop().await;
}
