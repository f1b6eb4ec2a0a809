//! TLS on either side, with certificates made for the test.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use http::Request;

use crate::support::h2::{H2, H2Upstream, soon};
use crate::support::tls::{Authority, TlsUpstream, ask, connect, shown};
use crate::support::{Client, Proxy, Upstream, until};

/// A configuration whose one listener has this `tls:` and whose cluster leads here.
fn serving(tls: &str, endpoint: SocketAddr) -> String {
    format!(
        "admin: {{address: '127.0.0.1:0'}}\nworkers: 2\ndrain: {{delay: 0s, timeout: 5s}}\n\
         listeners: [{{name: main, address: '127.0.0.1:0', tls: {{{tls}}}}}]\n\
         routes: [{{name: r, cluster: a}}]\nclusters: [{{name: a, endpoints: ['{endpoint}']}}]\n"
    )
}

/// A configuration with a cleartext listener and a cluster with these settings.
fn calling(cluster: &str, endpoint: SocketAddr) -> String {
    crate::support::proxy::config(&format!(
        "routes: [{{name: r, cluster: a}}]\nclusters: [{{name: a, endpoints: ['{endpoint}'], {cluster}}}]\n"
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn alpn_chooses_the_version_and_nothing_offered_means_http1() {
    let upstream = Upstream::fixed("ok").await;
    let authority = Authority::new();
    authority.issue("a", &["a.test"]);
    let proxy = Proxy::start(&serving(&authority.pair("a"), upstream.address)).await;
    for (offered, chosen) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let config = authority.client(offered, None);
        let mut stream = connect(proxy.address(), "a.test", &config).await.unwrap();
        let alpn = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(alpn.as_deref(), chosen.map(str::as_bytes));
        if chosen == Some("h2") {
            let client = H2::over(stream, &::h2::client::Builder::new()).await;
            let request = Request::get("https://a.test/").body(()).unwrap();
            assert_eq!(client.send(request).await.unwrap().status(), 200);
        } else {
            assert_eq!(ask(&mut stream, "a.test").await.unwrap().0, 200);
        }
    }
    assert!(
        connect(proxy.address(), "a.test", &authority.client(&["h3"], None))
            .await
            .is_err()
    );
    assert!(
        upstream.text().contains("x-forwarded-proto: https"),
        "{}",
        upstream.text()
    );
    until("the refused handshake is counted", async || {
        proxy.metric(
            "forebay_connection_errors_total",
            &["reason=\"tls_handshake\""],
        ) >= 1.0
    })
    .await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cleartext_on_a_tls_port_and_tls_on_a_cleartext_port_are_closed_and_counted() {
    let upstream = Upstream::fixed("ok").await;
    let authority = Authority::new();
    authority.issue("a", &["a.test"]);
    let tls = Proxy::start(&serving(&authority.pair("a"), upstream.address)).await;
    let mut client = Client::connect(tls.address()).await;
    client.send("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
    client.closed().await;
    let plain = Proxy::start(&calling("", upstream.address)).await;
    let config = authority.client(&[], None);
    assert!(connect(plain.address(), "a.test", &config).await.is_err());
    let errors =
        |proxy: &Proxy, reason: &str| proxy.metric("forebay_connection_errors_total", &[reason]);
    until("both are counted", async || {
        errors(&tls, "tls_handshake") == 1.0 && errors(&plain, "tls_on_plain") == 1.0
    })
    .await;
    assert_eq!(upstream.transcripts().len(), 0);
    tls.stop().await;
    plain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sni_chooses_the_certificate_and_the_first_is_the_default() {
    let upstream = Upstream::fixed("ok").await;
    let authority = Authority::new();
    authority.issue("a", &["a.test", "127.0.0.1"]);
    authority.issue("b", &["b.test"]);
    authority.issue("wild", &["*.c.test"]);
    let all = ["a", "b", "wild"]
        .map(|stem| format!("{{{}}}", authority.pair(stem)))
        .join(", ");
    let proxy = Proxy::start(&serving(
        &format!("certificates: [{all}]"),
        upstream.address,
    ))
    .await;
    let config = authority.client(&[], None);
    for (name, stem) in [
        ("a.test", "a"),
        ("b.test", "b"),
        ("x.c.test", "wild"),
        ("127.0.0.1", "a"),
    ] {
        let mut stream = connect(proxy.address(), name, &config).await.unwrap();
        assert_eq!(shown(&stream), authority.leaf(stem), "{name}");
        assert_eq!(ask(&mut stream, name).await.unwrap().0, 200, "{name}");
    }
    // A name nobody has gets the first one, which the client then refuses.
    assert!(connect(proxy.address(), "d.test", &config).await.is_err());
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_a_name_that_the_certificate_lacks_is_misdirected() {
    let upstream = Upstream::fixed("ok").await;
    let authority = Authority::new();
    authority.issue("a", &["a.test"]);
    authority.issue("wild", &["*.c.test"]);
    let both = ["a", "wild"]
        .map(|stem| format!("{{{}}}", authority.pair(stem)))
        .join(", ");
    let proxy = Proxy::start(&serving(
        &format!("certificates: [{both}]"),
        upstream.address,
    ))
    .await;
    let cases = [
        ("a.test", "a.test", 200),
        ("a.test", "x.c.test", 421),
        ("x.c.test", "y.c.test", 200),
        ("x.c.test", "a.test", 421),
    ];
    for (sni, host, status) in cases {
        let mut stream = connect(proxy.address(), sni, &authority.client(&[], None))
            .await
            .unwrap();
        let (got, text) = ask(&mut stream, host).await.unwrap();
        assert_eq!(got, status, "{sni} {host}");
        assert_eq!(
            text.contains("x-forebay-reason: misdirected"),
            status == 421
        );
        assert_eq!(
            ask(&mut stream, sni).await.unwrap().0,
            200,
            "the connection lives"
        );

        let stream = connect(proxy.address(), sni, &authority.client(&["h2"], None))
            .await
            .unwrap();
        let client = H2::over(stream, &::h2::client::Builder::new()).await;
        let request = |host: &str| Request::get(format!("https://{host}/")).body(()).unwrap();
        assert_eq!(
            client.send(request(host)).await.unwrap().status(),
            status,
            "{sni} {host}"
        );
        assert_eq!(client.send(request(sni)).await.unwrap().status(), 200);
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_show_a_certificate_of_the_right_authority_or_stay_out() {
    let upstream = Upstream::fixed("ok").await;
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.issue("a", &["a.test"]);
    authority.issue("me", &["me.test"]);
    stranger.issue("me", &["me.test"]);
    let ca = authority.path("ca.crt").display().to_string();
    let tls = format!("{}, client_ca: '{ca}'", authority.pair("a"));
    let proxy = Proxy::start(&serving(&tls, upstream.address)).await;
    let at = proxy.address();
    let mut good = connect(at, "a.test", &authority.client(&[], Some("me")))
        .await
        .unwrap();
    assert_eq!(ask(&mut good, "a.test").await.unwrap().0, 200);
    for config in [
        authority.client(&[], None),
        authority.client_showing(&[], Some((&stranger, "me"))),
    ] {
        // TLS 1.3: the refusal comes after the client's side of the handshake.
        let refused = match connect(at, "a.test", &config).await {
            Err(_) => true,
            Ok(mut stream) => ask(&mut stream, "a.test").await.is_err(),
        };
        assert!(refused);
    }
    let heads = upstream.text().matches("GET / ").count();
    assert_eq!(heads, 1, "{}", upstream.text());
    until("both are counted", async || {
        proxy.metric(
            "forebay_connection_errors_total",
            &["reason=\"tls_handshake\""],
        ) == 2.0
    })
    .await;
    proxy.stop().await;
}

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
async fn a_missing_certificate_refuses_the_start() {
    let text = serving(
        "certificate: /nowhere/a.crt, key: /nowhere/a.key",
        ([127, 0, 0, 1], 1).into(),
    );
    let source = forebay::control::Source::Text(text.as_str().into());
    let Err(error) = Proxy::try_start(source).await else {
        panic!("started without a certificate")
    };
    assert!(error.to_string().contains("/nowhere/a.crt"), "{error}");
}

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
