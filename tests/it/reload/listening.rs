//! Listeners that come, go and cannot be had; clusters that change below requests.

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{leading_to, put};
use crate::support::tls::{self, Authority};
use crate::support::upstream::Peer;
use crate::support::{Client, Proxy, Upstream, respond, until};

/// Answers `/slow` once told, everything else at once.
async fn slow(release: std::sync::Arc<tokio::sync::Semaphore>, mut peer: Peer) {
    while let Some((head, _)) = peer.request().await {
        if head.starts_with("GET /slow") {
            release.acquire().await.unwrap().forget();
        }
        peer.write(respond(200, "ok")).await;
    }
}

async fn slow_upstream() -> (Upstream, std::sync::Arc<tokio::sync::Semaphore>) {
    let release = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let gate = std::sync::Arc::clone(&release);
    (
        Upstream::start(move |peer| slow(std::sync::Arc::clone(&gate), peer)).await,
        release,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_more_is_served_and_one_less_finishes_what_it_has() {
    let (upstream, release) = slow_upstream().await;
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("forebay.yaml");
    put(&file, &leading_to(upstream.address, ""));
    let proxy = Proxy::start_on(&file).await;
    let main = proxy.address();

    put(
        &file,
        &leading_to(
            upstream.address,
            "- {name: extra, address: '127.0.0.1:0'}\n",
        ),
    );
    let _ = proxy.control().reload().await.unwrap();
    let addresses = proxy.control().addresses().await;
    assert_eq!(
        addresses[0],
        ("main".to_owned(), main),
        "what stays keeps its socket"
    );
    let extra = addresses[1].1;
    assert_eq!(Client::get(extra, "/").await.status, 200);

    let mut busy = Client::connect(extra).await;
    busy.send("GET /slow HTTP/1.1\r\nhost: t\r\n\r\n").await;
    upstream.saw("GET /slow").await;
    let mut idle = Client::connect(extra).await;
    idle.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    assert_eq!(idle.answer().await.status, 200);

    put(&file, &leading_to(upstream.address, ""));
    let _ = proxy.control().reload().await.unwrap();
    assert_eq!(proxy.control().addresses().await.len(), 1);
    until("nobody listens any more", async || {
        TcpStream::connect(extra).await.is_err()
    })
    .await;
    assert!(idle.closed().await, "an idle connection ends with FIN");
    release.add_permits(1);
    let last = busy.answer().await;
    assert_eq!(
        (last.status, last.header("connection")),
        (200, Some("close"))
    );
    assert!(busy.closed().await);
    assert_eq!(Client::get(main, "/").await.status, 200);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_moves_is_bound_before_the_old_one_closes() {
    let upstream = Upstream::fixed("ok").await;
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("forebay.yaml");
    put(&file, &leading_to(upstream.address, ""));
    let proxy = Proxy::start_on(&file).await;
    let old = proxy.address();
    let moved =
        leading_to(upstream.address, "").replace("'127.0.0.1:0'}\nroutes", "'[::1]:0'}\nroutes");
    put(&file, &moved);
    let _ = proxy.control().reload().await.unwrap();
    let new = proxy.control().addresses().await[0].1;
    assert!(new.is_ipv6(), "{new}");
    assert_eq!(Client::get(new, "/").await.status, 200);
    until("the old address is free", async || {
        TcpStream::connect(old).await.is_err()
    })
    .await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_cannot_be_bound_refuses_the_whole_reload() {
    let upstream = Upstream::fixed("ok").await;
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("forebay.yaml");
    put(&file, &leading_to(upstream.address, ""));
    let proxy = Proxy::start_on(&file).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_at = taken.local_addr().unwrap();
    let more = format!(
        "- {{name: fine, address: '127.0.0.1:0'}}\n- {{name: taken, address: '{taken_at}'}}\n"
    );
    put(
        &file,
        &leading_to(upstream.address, &more).replace("name: r,", "name: other,"),
    );
    let Err(error) = proxy.control().reload().await else {
        panic!("the port is taken")
    };
    assert!(error.to_string().contains(&taken_at.to_string()), "{error}");
    let status = proxy.control().status();
    let last = status.last_error.clone().expect("a truthful status");
    assert!(last.message.contains("taken"), "{last:?}");
    assert_eq!((last.line, status.generation), (Some(7), 1), "{last:?}");
    assert_eq!(
        proxy.control().addresses().await.len(),
        1,
        "not even the one that could be bound"
    );
    assert_eq!(proxy.control().snapshot().config.routes[0].name, "r");
    assert_eq!(Client::get(proxy.address(), "/").await.status, 200);
    drop(taken);
    let _ = proxy.control().reload().await.unwrap();
    assert_eq!(proxy.control().addresses().await.len(), 3);
    assert_eq!(Client::get(taken_at, "/").await.status, 200);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_refuses_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let text = leading_to(at, &format!("- {{name: taken, address: '{at}'}}\n"));
    let started = Proxy::try_start(forebay::control::Source::Text(text.as_str().into())).await;
    let Err(error) = started else {
        panic!("the port is taken")
    };
    assert!(error.to_string().contains("`taken`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_keep_their_counters_and_connections_by_address() {
    let (upstream, release) = slow_upstream().await;
    let second = Upstream::fixed("second").await;
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("forebay.yaml");
    put(&file, &leading_to(upstream.address, ""));
    let proxy = Proxy::start_on(&file).await;
    let mut busy = Client::connect(proxy.address()).await;
    busy.send("GET /slow HTTP/1.1\r\nhost: t\r\n\r\n").await;
    upstream.saw("GET /slow").await;
    let in_flight = || {
        let snapshot = proxy.control().snapshot();
        let set = snapshot.clusters["a"].state.endpoints();
        let find = set.endpoints.iter().find(|e| e.address == upstream.address);
        find.map(|e| e.in_flight())
    };
    assert_eq!(in_flight(), Some(1));
    let base = leading_to(upstream.address, "");
    let one = format!("endpoints: ['{}']", upstream.address);
    for (what, list) in [
        (
            "one more",
            format!("endpoints: ['{}', '{}']", upstream.address, second.address),
        ),
        (
            "another weight",
            format!(
                "endpoints: [{{address: '{}', weight: 7}}]",
                upstream.address
            ),
        ),
        ("another policy", format!("{one}, balance: round_robin")),
        ("gone", format!("endpoints: ['{}']", second.address)),
    ] {
        put(&file, &base.replace(&one, &list));
        let _ = proxy.control().reload().await.unwrap();
        assert_eq!(in_flight(), (what != "gone").then_some(1), "{what}");
    }
    assert_eq!(Client::get(proxy.address(), "/").await.text(), "second");
    release.add_permits(1);
    assert_eq!(
        busy.answer().await.text(),
        "ok",
        "its endpoint is gone, its request is not"
    );
    until("nothing is in flight", async || {
        proxy.control().snapshot().clusters["a"].state.requests() == 0
    })
    .await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_upstream_connections_survive_a_reload_that_does_not_concern_them() {
    let upstream = Upstream::fixed("ok").await;
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("forebay.yaml");
    let base = leading_to(upstream.address, "");
    put(&file, &base);
    let proxy = Proxy::start_on(&file).await;
    let mut client = Client::connect(proxy.address()).await;
    for number in 0..5 {
        put(
            &file,
            &base.replace("name: r,", &format!("name: r{number},")),
        );
        let _ = proxy.control().reload().await.unwrap();
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 200);
    }
    assert_eq!(upstream.transcripts().len(), 1);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_stays_takes_its_new_settings_for_new_connections() {
    let upstream = Upstream::fixed("ok").await;
    let authority = Authority::new();
    authority.issue("t", &["t.test"]);
    let file = authority.path("forebay.yaml");
    let base = leading_to(upstream.address, "");
    put(&file, &base);
    let proxy = Proxy::start_on(&file).await;
    let at = proxy.address();
    let mut old = Client::connect(at).await;
    old.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    assert_eq!(old.answer().await.status, 200);

    let secure = base.replace(
        "'127.0.0.1:0'}\nroutes",
        "'127.0.0.1:0', tls: {certificate: t.crt, key: t.key}}\nroutes",
    );
    put(&file, &secure);
    let _ = proxy.control().reload().await.unwrap();
    let config = authority.client(&["http/1.1"], None);
    let mut fresh = tls::connect(at, "t.test", &config).await.unwrap();
    assert_eq!(tls::ask(&mut fresh, "t.test").await.unwrap().0, 200);
    old.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    assert_eq!(
        old.answer().await.status,
        200,
        "what is open speaks as it began"
    );

    put(
        &file,
        &base.replace(
            "'127.0.0.1:0'}\nroutes",
            "'127.0.0.1:0', limits: {headers: 2}}\nroutes",
        ),
    );
    let _ = proxy.control().reload().await.unwrap();
    let three = "GET / HTTP/1.1\r\nhost: t\r\na: 1\r\nb: 2\r\n\r\n";
    assert_eq!(Client::once(at, three).await.status, 431);
    assert_eq!(tls::ask(&mut fresh, "t.test").await.unwrap().0, 200);
    proxy.stop().await;
}
