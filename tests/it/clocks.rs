//! Every deadline of a listener and a route: who is told what, and that the connection behind it is gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::support::proxy::config;
use crate::support::{Client, Proxy, Upstream, respond, until};

/// An endpoint that reads, runs `script` on its bytes to write, and reports the end of each connection.
struct Quiet {
    upstream: Upstream,
    gone: Arc<Notify>,
}

impl Quiet {
    /// After each head writes `answer` and then nothing more.
    async fn start(answer: &'static str) -> Self {
        let gone = Arc::new(Notify::new());
        let told = Arc::clone(&gone);
        let upstream = Upstream::start(move |mut peer| {
            let told = Arc::clone(&told);
            async move {
                if peer.head().await.is_some() {
                    peer.write(answer).await;
                    peer.closed().await;
                }
                told.notify_one();
            }
        })
        .await;
        Self { upstream, gone }
    }

    async fn gone(&self) {
        tokio::time::timeout(crate::support::PATIENCE, self.gone.notified())
            .await
            .expect("the connection ends");
    }

    async fn proxy(&self, timeouts: &str) -> Proxy {
        let at = self.upstream.address;
        Proxy::start(&config(&format!(
            "routes: [{{name: r, cluster: a, timeouts: {{{timeouts}}}}}]\n\
             clusters: [{{name: a, endpoints: ['{at}']}}]\n"
        )))
        .await
    }
}

const GET: &str = "GET / HTTP/1.1\r\nhost: t\r\n\r\n";
/// A declared body of which the first bytes are there.
const HALF: &str = "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\nhalf";

async fn settled(proxy: &Proxy) {
    until("nothing is in flight", async || {
        proxy.metric("forebay_requests_in_flight", &[]) == 0.0
            && proxy.metric("forebay_endpoint_in_flight", &[]) == 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_clock_of_a_route_answers_before_the_head() {
    let cases = [
        ("first_byte: 150ms", GET, 504, "first_byte_timeout"),
        ("idle: 150ms", GET, 504, "idle_timeout"),
        ("idle: 150ms", HALF, 504, "idle_timeout"),
        ("total: 150ms", GET, 504, "total_timeout"),
        ("total: 150ms", HALF, 504, "total_timeout"),
        ("request_body: 150ms", HALF, 408, "request_timeout"),
        (
            "request_body: 150ms, first_byte: 20s, idle: 20s, total: 20s",
            HALF,
            408,
            "request_timeout",
        ),
    ];
    for (timeouts, request, status, reason) in cases {
        let quiet = Quiet::start("").await;
        let proxy = quiet.proxy(timeouts).await;
        let began = Instant::now();
        let mut client = Client::connect(proxy.address()).await;
        client.send(request).await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status, answer.reason()),
            (status, reason),
            "{timeouts} {request:?}"
        );
        assert!(
            began.elapsed() >= Duration::from_millis(150),
            "{timeouts}: early"
        );
        quiet.gone().await;
        settled(&proxy).await;
        let labels = [
            &*format!("code=\"{status}\""),
            &*format!("reason=\"{reason}\""),
        ];
        assert_eq!(
            proxy.metric("forebay_requests_total", &labels),
            1.0,
            "{timeouts}"
        );
        proxy.stop().await;
    }
}

/// `first_byte` runs from the last request byte, so a slow upload alone never trips it.
#[tokio::test(flavor = "multi_thread")]
async fn first_byte_waits_for_the_last_byte_of_the_request() {
    let upstream = Upstream::fixed("ok").await;
    let at = upstream.address;
    let proxy = Proxy::start(&config(&format!(
        "routes: [{{name: r, cluster: a, timeouts: {{first_byte: 100ms}}}}]\n\
         clusters: [{{name: a, endpoints: ['{at}']}}]\n"
    )))
    .await;
    let mut client = Client::connect(proxy.address()).await;
    client.send(HALF).await;
    upstream.saw("half").await;
    tokio::time::sleep(Duration::from_millis(250)).await; // longer than the clock under test
    client.send("second").await;
    assert_eq!(client.answer().await.status, 200);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_rings_during_the_answer_cuts_it() {
    let part = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart";
    let chunk = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n";
    let open = "HTTP/1.1 200 OK\r\n\r\npart";
    for (answer, version) in [
        (part, "1.1"),
        (chunk, "1.1"),
        (open, "1.1"),
        (open, "1.0"),
        (chunk, "1.0"),
    ] {
        for (timeouts, reason) in [
            ("idle: 150ms", "idle_timeout"),
            ("total: 150ms", "total_timeout"),
        ] {
            let quiet = Quiet::start(answer).await;
            let proxy = quiet.proxy(timeouts).await;
            let mut client = Client::connect(proxy.address()).await;
            client
                .send(format!("GET / HTTP/{version}\r\nhost: t\r\n\r\n"))
                .await;
            let (raw, by_fin) = client.all().await;
            let text = String::from_utf8(raw).unwrap();
            let named = format!("{timeouts} {version} {text:?}");
            assert!(
                text.starts_with(&format!("HTTP/{version} 200 ")) && text.contains("part"),
                "{named}"
            );
            assert!(!text.ends_with("0\r\n\r\n"), "{named}");
            let lower = text.to_ascii_lowercase();
            let framed = lower.contains("chunked") || lower.contains("content-length");
            assert!(
                framed || !by_fin,
                "a cut close-delimited answer ends by reset: {named}"
            );
            quiet.gone().await;
            settled(&proxy).await;
            let aborted = proxy.metric("forebay_aborted_total", &[&format!("reason=\"{reason}\"")]);
            assert_eq!(aborted, 1.0, "{named}");
            proxy.stop().await;
        }
    }
}

fn listener(limits: &str) -> String {
    format!(
        "admin: {{address: '127.0.0.1:0'}}\nworkers: 2\ndrain: {{delay: 0s, timeout: 5s}}\n\
         listeners: [{{name: main, address: '127.0.0.1:0', limits: {{{limits}}}}}]\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_before_a_whole_head_ends_the_connection() {
    let proxy = Proxy::start(&format!(
        "{}routes: [{{name: r, respond: {{body: ok}}}}]\n",
        listener("header_timeout: 200ms")
    ))
    .await;
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for (number, (start, expected)) in [
        ("", ""),
        (&preface[..23], ""),
        ("GET / HTTP/1.1\r\nhost", "HTTP/1.1 408 "),
        ("G", "HTTP/1.1 408 "),
    ]
    .into_iter()
    .enumerate()
    {
        let began = Instant::now();
        let mut client = Client::connect(proxy.address()).await;
        client.send(start).await;
        let (raw, _) = client.all().await;
        let text = String::from_utf8(raw).unwrap();
        assert!(
            text.starts_with(expected) && text.is_empty() == expected.is_empty(),
            "{start:?}: {text:?}"
        );
        assert!(
            began.elapsed() >= Duration::from_millis(200),
            "{start:?} ended early"
        );
        until("it is counted", async || {
            let labels = ["reason=\"header_timeout\""];
            let counted = proxy.metric("forebay_connection_errors_total", &labels);
            assert!(counted <= (number + 1) as f64, "{start:?}");
            counted == (number + 1) as f64
        })
        .await;
    }
    let mut client = Client::connect(proxy.address()).await;
    client.send(GET).await;
    assert_eq!(client.answer().await.status, 200);
    client.send("GET / HT").await;
    assert_eq!(
        client.answer().await.status,
        408,
        "the second head is under the same clock"
    );
    proxy.stop().await;
}

/// Bytes that drip do not wind the clock up again.
#[tokio::test(flavor = "multi_thread")]
async fn a_dripping_head_is_late_all_the_same() {
    let proxy = Proxy::start(&format!(
        "{}routes: [{{name: r, respond: {{body: ok}}}}]\n",
        listener("header_timeout: 300ms")
    ))
    .await;
    let mut client = Client::connect(proxy.address()).await;
    let began = Instant::now();
    let mut drips = 0;
    client.send("GET / HTTP/1.1\r\nx: ").await;
    while began.elapsed() < Duration::from_millis(900) && client.try_send("y").await {
        drips += 1;
        tokio::time::sleep(Duration::from_millis(20)).await; // the drip itself
    }
    let (raw, _) = client.all().await;
    assert!(
        raw.is_empty() || raw.starts_with(b"HTTP/1.1 408 "),
        "{raw:?}"
    );
    assert!(drips < 44, "the connection lived on");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let upstream = Upstream::start(|mut peer| async move {
        while peer.request().await.is_some() {
            tokio::time::sleep(Duration::from_millis(450)).await; // longer than the idle limit
            peer.write(respond(200, "slow")).await;
        }
    })
    .await;
    let at = upstream.address;
    let proxy = Proxy::start(&format!(
        "{}routes: [{{name: r, cluster: a}}]\nclusters: [{{name: a, endpoints: ['{at}']}}]\n",
        listener("idle: 200ms")
    ))
    .await;
    let mut client = Client::connect(proxy.address()).await;
    client.send(GET).await;
    assert_eq!(client.answer().await.text(), "slow");
    let began = Instant::now();
    let (raw, by_fin) = client.all().await;
    assert!(raw.is_empty() && by_fin, "{raw:?}");
    assert!(began.elapsed() >= Duration::from_millis(150));
    until("counted", async || {
        proxy.metric("forebay_connection_errors_total", &["reason=\"idle\""]) == 1.0
    })
    .await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_is_cut_and_its_endpoint_freed() {
    let gone = Arc::new(Notify::new());
    let told = Arc::clone(&gone);
    let upstream = Upstream::start(move |mut peer| {
        let told = Arc::clone(&told);
        async move {
            peer.request().await;
            peer.write(format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                256 << 20
            ))
            .await;
            let block = vec![b'x'; 64 << 10];
            while peer.write(&block).await {}
            told.notify_one();
        }
    })
    .await;
    let at = upstream.address;
    let proxy = Proxy::start(&format!(
        "{}routes: [{{name: r, cluster: a}}]\nclusters: [{{name: a, endpoints: ['{at}']}}]\n",
        listener("write_stall: 300ms")
    ))
    .await;
    let mut client = Client::connect(proxy.address()).await;
    client.send(GET).await;
    assert!(
        client
            .try_head()
            .await
            .unwrap()
            .starts_with("HTTP/1.1 200 ")
    );
    tokio::time::timeout(crate::support::PATIENCE, gone.notified())
        .await
        .expect("the endpoint is freed");
    settled(&proxy).await;
    assert_eq!(
        proxy.metric(
            "forebay_connection_errors_total",
            &["reason=\"write_stall\""]
        ),
        1.0
    );
    assert_eq!(
        proxy.metric("forebay_aborted_total", &["reason=\"client_closed\""]),
        1.0
    );
    let (raw, _) = client.all().await;
    assert!(raw.len() < 256 << 20, "a cut answer is short");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_tunnel_ends_on_both_sides_and_a_busy_one_does_not() {
    let quiet = Quiet::start(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
    )
    .await;
    let proxy = quiet
        .proxy("tunnel: 300ms, idle: 100ms, first_byte: 100ms")
        .await;
    let mut client = Client::connect(proxy.address()).await;
    client
        .send("GET / HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
        .await;
    assert!(
        client
            .try_head()
            .await
            .unwrap()
            .starts_with("HTTP/1.1 101 ")
    );
    for _ in 0..6 {
        client.send("tick").await;
        tokio::time::sleep(Duration::from_millis(100)).await; // six of them outlast the clock
    }
    quiet.upstream.saw(&"tick".repeat(6)).await;
    let began = Instant::now();
    client.closed().await;
    assert!(began.elapsed() >= Duration::from_millis(100));
    quiet.gone().await;
    settled(&proxy).await;
    proxy.stop().await;
}
