//! What listeners show and whom they let in.

use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{calling, serving};
use crate::support::h2::{H2, soon};
use crate::support::tls::{Authority, ask, connect, shown};
use crate::support::{Client, Proxy, Upstream, until};

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
async fn a_web_socket_crosses_tls_on_both_sides() {
    let authority = Authority::new();
    authority.issue("a", &["a.test"]);
    let acceptor = authority.acceptor("a", &["http/1.1"], false);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(socket).await.unwrap();
        let mut got = Vec::new();
        while !got.ends_with(b"\r\n\r\n") {
            assert!(stream.read_buf(&mut got).await.unwrap() > 0);
        }
        let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nearly";
        stream.write_all(head.as_bytes()).await.unwrap();
        got.clear();
        while stream.read_buf(&mut got).await.is_ok_and(|n| n > 0) {
            stream.write_all(&std::mem::take(&mut got)).await.unwrap();
        }
        let _ = stream.shutdown().await;
    });
    let ca = authority.path("ca.crt").display().to_string();
    let text = serving(&authority.pair("a"), upstream).replace(
        &format!("['{upstream}']"),
        &format!("['{upstream}'], tls: {{ca: '{ca}', server_name: a.test}}"),
    );
    let proxy = Proxy::start(&text).await;
    let mut client = connect(proxy.address(), "a.test", &authority.client(&[], None))
        .await
        .unwrap();
    let request =
        "GET / HTTP/1.1\r\nhost: a.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"\r\n\r\nearly") {
        assert!(
            soon("the 101", client.read_buf(&mut got)).await.unwrap() > 0,
            "{got:?}"
        );
    }
    assert!(got.starts_with(b"HTTP/1.1 101 "));
    let said = vec![b'x'; 300_000];
    let (mut reader, mut writer) = tokio::io::split(client);
    let sent = said.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let mut echoed = Vec::new();
    let _ = soon("the echo and its end", reader.read_to_end(&mut echoed)).await;
    assert!(echoed == said, "{} bytes", echoed.len());
    writing.await.unwrap();
    until("the tunnel is counted off", async || {
        proxy.metric("forebay_endpoint_in_flight", &[]) == 0.0
    })
    .await;
    proxy.stop().await;
}
