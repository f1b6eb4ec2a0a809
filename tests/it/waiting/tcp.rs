//! Bare connections wait like requests, for as long, and have their slot for their whole life.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::{is_empty, nobody, waits};
use crate::support::{Client, PATIENCE, Proxy, Upstream, until};

fn pumping(endpoint: SocketAddr, route: &str, keys: &str) -> String {
    format!(
        "admin: {{address: '127.0.0.1:0'}}\nworkers: 2\ndrain: {{delay: 0s, timeout: 5s}}\n\
         listeners: [{{name: main, address: '127.0.0.1:0', protocol: tcp}}]\n\
         routes: [{{name: r, listeners: [main], cluster: a{route}}}]\n\
         clusters: [{{name: a, endpoints: ['{endpoint}'], {keys}}}]\n"
    )
}

/// Says what it hears until it hears the end.
fn echo(listener: TcpListener) -> Upstream {
    Upstream::on(listener, |mut peer| async move {
        while peer.read().await {
            let heard = std::mem::take(&mut peer.buffer);
            peer.write(heard).await;
        }
    })
}

async fn any() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Connects, and is reset, perhaps before that is known.
async fn is_reset(at: SocketAddr) {
    let read = async {
        let mut socket = TcpStream::connect(at).await?;
        socket.read_u8().await
    };
    let read = tokio::time::timeout(PATIENCE, read).await;
    let error = read.expect("the proxy says something").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

async fn says(client: &mut Client, word: &str) {
    client.send(word).await;
    assert_eq!(client.bytes(word.len()).await, word.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_waits_for_the_slot_of_another_one() {
    let upstream = echo(any().await);
    let proxy = Proxy::start(&pumping(upstream.address, "", "concurrency: 1")).await;
    let mut first = Client::connect(proxy.address()).await;
    says(&mut first, "one").await;
    let mut second = Client::connect(proxy.address()).await;
    second.send("two").await;
    waits(&proxy, 1).await;
    assert_eq!(upstream.transcripts().len(), 1);
    drop(first);
    assert_eq!(second.bytes(3).await, b"two");
    let arrivals = proxy.metric("forebay_arrivals_total", &["cluster=\"a\""]);
    assert_eq!(arrivals, 2.0);
    drop(second);
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_waits_for_a_server_that_is_not_there_yet() {
    let (socket, address) = nobody();
    let proxy = Proxy::start(&pumping(address, "", "queue: {}")).await;
    let mut client = Client::connect(proxy.address()).await;
    client.send("early").await;
    waits(&proxy, 1).await;
    let _upstream = echo(socket.listen(64).unwrap());
    assert_eq!(client.bytes(5).await, b"early");
    says(&mut client, "late").await;
    drop(client);
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_waits_too_long_or_in_vain_is_reset() {
    let upstream = echo(any().await);
    let keys = "concurrency: 1, queue: {max_requests: 1, saturated: 300ms}";
    let proxy = Proxy::start(&pumping(upstream.address, "", keys)).await;
    let mut first = Client::connect(proxy.address()).await;
    says(&mut first, "one").await;
    let mut late = Client::connect(proxy.address()).await;
    waits(&proxy, 1).await;
    is_reset(proxy.address()).await;
    assert!(!late.closed().await, "a reset");
    for reason in ["queue_full", "queue_timeout"] {
        let reason = format!("reason=\"{reason}\"");
        until("it is counted", async || {
            proxy.metric("forebay_refused_total", &[&reason]) == 1.0
        })
        .await;
    }
    says(&mut first, "still").await;
    drop(first);
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_leaves_gives_up_its_place_and_one_that_only_ends_its_side_does_not() {
    let upstream = echo(any().await);
    let proxy = Proxy::start(&pumping(upstream.address, "", "concurrency: 1")).await;
    let mut first = Client::connect(proxy.address()).await;
    says(&mut first, "one").await;
    let silent = Client::connect(proxy.address()).await;
    waits(&proxy, 1).await;
    drop(silent);
    waits(&proxy, 0).await;
    let mut rude = Client::connect(proxy.address()).await;
    rude.send("x").await;
    waits(&proxy, 1).await;
    rude.stream.set_zero_linger().unwrap();
    drop(rude);
    waits(&proxy, 0).await;
    let mut half = Client::connect(proxy.address()).await;
    half.send("half").await;
    tokio::io::AsyncWriteExt::shutdown(&mut half.stream)
        .await
        .unwrap();
    waits(&proxy, 1).await;
    tokio::time::sleep(super::MOMENT).await;
    waits(&proxy, 1).await;
    drop(first);
    let (heard, by_fin) = half.all().await;
    assert_eq!((heard.as_slice(), by_fin), (&b"half"[..], true));
    let aborted = proxy.metric("forebay_aborted_total", &["reason=\"client_closed\""]);
    assert_eq!(aborted, 2.0);
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_wakes_nobody_is_refused_at_zero() {
    let (_socket, address) = nobody();
    let operator = Upstream::fixed("{}").await;
    let keys = format!(
        "scale: {{webhook: {{url: 'http://{}/'}}}}",
        operator.address
    );
    let proxy = Proxy::start(&pumping(address, ", wake: false", &keys)).await;
    // The first one may try the endpoint, which nobody knows yet.
    is_reset(proxy.address()).await;
    until("it is counted", async || {
        proxy.metric("forebay_refused_total", &["reason=\"asleep\""]) == 1.0
    })
    .await;
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_still_wait_when_a_drain_ends_are_reset() {
    let (_socket, address) = nobody();
    let proxy = Proxy::start(&pumping(address, "", "queue: {}")).await;
    let mut client = Client::connect(proxy.address()).await;
    waits(&proxy, 1).await;
    let (stopped, by_fin) = tokio::join!(proxy.stop(), client.closed());
    assert_eq!((stopped, by_fin), ((), false));
}
