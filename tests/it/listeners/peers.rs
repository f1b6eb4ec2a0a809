//! Who a client is, when another proxy says so.

use tokio::io::AsyncReadExt;

use super::{forward, head_with, with};
use crate::support::h2::{H2, soon};
use crate::support::{Client, Proxy, Upstream, until};

const GET: &str = "GET / HTTP/1.1\r\nhost: t\r\n\r\n";

/// A version 2 header of a TCP connection over IPv4 or IPv6 from this address.
fn version2(source: &str) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    let mut addresses = match source.parse::<std::net::IpAddr>().unwrap() {
        std::net::IpAddr::V4(ip) => {
            header.push(0x11);
            [ip.octets(), [10, 0, 0, 1]].concat()
        }
        std::net::IpAddr::V6(ip) => {
            header.push(0x21);
            [ip.octets(), [0; 16]].concat()
        }
    };
    addresses.extend([0x15, 0xb3, 0, 80]);
    header.extend((addresses.len() as u16).to_be_bytes());
    header.extend(addresses);
    header
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_header_names_the_client() {
    let upstream = Upstream::fixed("ok").await;
    let listener = "proxy_protocol: true, trusted_proxies: [127.0.0.0/8]";
    let proxy = Proxy::start(&with(listener, &forward(upstream.address))).await;
    let headers: [(Vec<u8>, &str); 5] = [
        (
            b"PROXY TCP4 203.0.113.7 10.0.0.1 5555 80\r\n".to_vec(),
            "203.0.113.7",
        ),
        (
            b"PROXY TCP6 2001:db8::7 2001:db8::1 5555 80\r\n".to_vec(),
            "2001:db8::7",
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (version2("203.0.113.9"), "203.0.113.9"),
        (version2("2001:db8::9"), "2001:db8::9"),
    ];
    for (number, (header, client)) in headers.into_iter().enumerate() {
        let mut connection = Client::connect(proxy.address()).await;
        connection.send(&header).await;
        connection
            .send(format!("GET /number/{number} HTTP/1.1\r\nhost: t\r\n\r\n"))
            .await;
        assert_eq!(connection.answer().await.status, 200);
        let head = head_with(&upstream, &format!("/number/{number} "));
        assert!(
            head.contains(&format!("x-forwarded-for: {client}\r\n")),
            "{client} in {head}"
        );
    }
    // In pieces, and with HTTP/2 behind it.
    let mut socket = tokio::net::TcpStream::connect(proxy.address())
        .await
        .unwrap();
    socket.set_nodelay(true).unwrap();
    for byte in b"PROXY TCP4 203.0.113.8 10.0.0.1 5555 80\r\n" {
        tokio::io::AsyncWriteExt::write_all(&mut socket, &[*byte])
            .await
            .unwrap();
    }
    let client = H2::over(socket, &::h2::client::Builder::new()).await;
    assert_eq!(client.get("/").await.status(), 200);
    upstream.saw("x-forwarded-for: 203.0.113.8").await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_that_a_proxy_header_names_is_itself_not_trusted() {
    let upstream = Upstream::fixed("ok").await;
    let listener = "proxy_protocol: true, trusted_proxies: [127.0.0.0/8]";
    let proxy = Proxy::start(&with(listener, &forward(upstream.address))).await;
    let mut connection = Client::connect(proxy.address()).await;
    connection
        .send("PROXY TCP4 203.0.113.7 10.0.0.1 5555 80\r\n")
        .await;
    connection
        .send("GET / HTTP/1.1\r\nhost: t\r\nx-forwarded-for: 1.2.3.4\r\n\r\n")
        .await;
    assert_eq!(connection.answer().await.status, 200);
    let text = upstream.text();
    assert!(
        text.contains("x-forwarded-for: 203.0.113.7\r\n") && !text.contains("1.2.3.4"),
        "{text}"
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_header_or_from_a_stranger_nothing_is_served() {
    let upstream = Upstream::fixed("ok").await;
    let required = "proxy_protocol: true, trusted_proxies: [127.0.0.0/8]";
    let stranger = "proxy_protocol: true, trusted_proxies: [10.0.0.0/8]";
    let header = "PROXY TCP4 203.0.113.7 10.0.0.1 5555 80\r\n";
    for (listener, bytes) in [
        (required, GET.to_owned()),
        (
            required,
            format!("PROXY TCP4 nonsense 10.0.0.1 5555 80\r\n{GET}"),
        ),
        (required, format!("PROXY TCP4 {}\r\n{GET}", "1".repeat(200))),
        (stranger, format!("{header}{GET}")),
    ] {
        let proxy = Proxy::start(&with(listener, &forward(upstream.address))).await;
        let mut client = Client::connect(proxy.address()).await;
        client.send(&bytes).await;
        client.closed().await;
        assert!(client.try_head().await.is_none(), "{bytes:?}");
        until("it is counted", async || {
            proxy.metric(
                "forebay_connection_errors_total",
                &["reason=\"proxy_protocol\""],
            ) == 1.0
        })
        .await;
        proxy.stop().await;
    }
    assert_eq!(upstream.transcripts().len(), 0);
    // Where it is not required it is not understood either.
    let proxy = Proxy::start(&with(
        "trusted_proxies: [127.0.0.0/8]",
        &forward(upstream.address),
    ))
    .await;
    let answer = Client::once(proxy.address(), format!("{header}{GET}")).await;
    assert_eq!(answer.status, 400);
    assert_eq!(upstream.transcripts().len(), 0);
    proxy.stop().await;
}

const FORWARDED: &str = "GET / HTTP/1.1\r\nhost: t\r\nx-forwarded-for: 198.51.100.1, 10.1.1.1\r\n\
    x-forwarded-proto: https\r\nx-forwarded-host: outer\r\nforwarded: for=198.51.100.1\r\n\
    x-real-ip: 198.51.100.1\r\nx-request-id: from-outside\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn forwarding_fields_are_believed_from_trusted_proxies_only() {
    let upstream = Upstream::fixed("ok").await;
    let proxy = Proxy::start(&with(
        "trusted_proxies: [127.0.0.1]",
        &forward(upstream.address),
    ))
    .await;
    assert_eq!(Client::once(proxy.address(), FORWARDED).await.status, 200);
    let text = upstream.text();
    for field in [
        "x-forwarded-for: 198.51.100.1, 10.1.1.1, 127.0.0.1\r\n",
        "x-forwarded-proto: https\r\n",
        "x-forwarded-host: outer\r\n",
        "x-request-id: from-outside\r\n",
    ] {
        assert!(text.contains(field), "{field:?} in {text}");
    }
    proxy.stop().await;

    let upstream = Upstream::fixed("ok").await;
    let proxy = Proxy::start(&with(
        "trusted_proxies: [10.0.0.0/8]",
        &forward(upstream.address),
    ))
    .await;
    assert_eq!(Client::once(proxy.address(), FORWARDED).await.status, 200);
    let text = upstream.text();
    for field in [
        "x-forwarded-for: 127.0.0.1\r\n",
        "x-forwarded-proto: http\r\n",
        "x-forwarded-host: t\r\n",
        "x-request-id: ",
    ] {
        assert!(text.contains(field), "{field:?} in {text}");
    }
    for lie in [
        "198.51.100.1",
        "outer",
        "from-outside",
        "forwarded: for",
        "x-real-ip",
    ] {
        assert!(!text.contains(lie), "{lie:?} in {text}");
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_nothing_is_closed_and_counted() {
    let upstream = Upstream::fixed("ok").await;
    let limits = "limits: {header_timeout: 300ms}";
    let proxy = Proxy::start(&with(limits, &forward(upstream.address))).await;
    for said in [
        "",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n",
        "GET / HTTP/1.1\r\nhost: ",
    ] {
        let mut client = Client::connect(proxy.address()).await;
        client.send(said).await;
        client.closed().await;
        if said.starts_with("GET") {
            assert!(
                client
                    .try_head()
                    .await
                    .unwrap()
                    .starts_with("HTTP/1.1 408 ")
            );
        }
    }
    let mut socket = tokio::net::TcpStream::connect(proxy.address())
        .await
        .unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut socket, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let mut rest = Vec::new();
    let _ = soon(
        "a silent HTTP/2 connection is closed",
        socket.read_to_end(&mut rest),
    )
    .await;
    let count = || {
        proxy.metric(
            "forebay_connection_errors_total",
            &["reason=\"header_timeout\""],
        )
    };
    until("all four are counted", async || count() == 4.0).await;
    proxy.stop().await;
}
