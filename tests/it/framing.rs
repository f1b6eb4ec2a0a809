//! HTTP/1.1 framing: whatever a client sends, the endpoint gets whole, single-meaning requests or nothing.

mod bodies;
mod heads;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::proxy::forward_to;
use crate::support::upstream::Peer;
use crate::support::{Client, Proxy, Upstream, respond};

/// What must come of a [`Case`].
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// One of these statuses, then the close; not a byte of it reaches the endpoint.
    Refused(&'static [u16]),
    /// One of these statuses without the close; not a byte of it reaches the endpoint.
    Answered(&'static [u16]),
    /// Closed without an answer.
    Dropped,
    /// 400 and the close, and the endpoint never sees the end of the request.
    Cut,
    /// 200; the endpoint got this body, and the connection takes another request.
    Kept(&'static str),
    /// 200; the endpoint got this body; then the connection closes.
    Closed(&'static str),
    /// Either refused with 400 or as `Kept`.
    Tolerated(&'static str),
}

/// Raw bytes, `{p}` standing for a path of their own.
struct Case {
    raw: String,
    expect: Expect,
}

fn case(raw: impl Into<String>, expect: Expect) -> Case {
    Case {
        raw: raw.into(),
        expect,
    }
}

/// What a careless endpoint would take for one more request.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: t\r\n\r\n";

/// Long enough for a close that comes with an answer, the second a proxy may listen on included.
const SOON: Duration = Duration::from_secs(5);

/// Target and body of each request as the endpoint understood it.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

async fn serve(mut peer: Peer, seen: Seen) {
    while let Some(head) = peer.head().await {
        let Some(body) = body(&mut peer, &head).await else {
            return;
        };
        let target = head.split(' ').nth(1).unwrap().to_owned();
        seen.lock().unwrap().push((target.clone(), body));
        if !peer.write(respond(200, &target)).await {
            return;
        }
    }
}

/// Reads a body by its one framing field, trailers included, and returns its data.
async fn body(peer: &mut Peer, head: &str) -> Option<String> {
    let framing: Vec<String> = head
        .to_ascii_lowercase()
        .lines()
        .filter(|l| l.starts_with("content-length") || l.starts_with("transfer-encoding"))
        .map(str::to_owned)
        .collect();
    assert!(framing.len() <= 1, "two framings: {framing:?}");
    let mut data = Vec::new();
    match framing.first().map(|l| l.split_once(": ").unwrap()) {
        None => {}
        Some(("content-length", length)) => data = take(peer, length.parse().unwrap()).await?,
        Some((_, coding)) => {
            assert_eq!(coding, "chunked");
            loop {
                let size = usize::from_str_radix(&line(peer).await?, 16).unwrap();
                if size == 0 {
                    while !line(peer).await?.is_empty() {}
                    break;
                }
                data.extend(take(peer, size).await?);
                assert_eq!(take(peer, 2).await?, b"\r\n");
            }
        }
    }
    Some(String::from_utf8(data).unwrap())
}

async fn take(peer: &mut Peer, bytes: usize) -> Option<Vec<u8>> {
    while peer.buffer.len() < bytes {
        if !peer.read().await {
            return None;
        }
    }
    Some(peer.buffer.drain(..bytes).collect())
}

async fn line(peer: &mut Peer) -> Option<String> {
    loop {
        if let Some(end) = peer.buffer.windows(2).position(|w| w == b"\r\n") {
            let line: Vec<u8> = peer.buffer.drain(..end + 2).collect();
            return Some(String::from_utf8_lossy(&line[..end]).into_owned());
        }
        if !peer.read().await {
            return None;
        }
    }
}

/// A proxy in front of an endpoint that understands requests strictly.
struct Bench {
    proxy: Proxy,
    upstream: Upstream,
    seen: Seen,
}

impl Bench {
    async fn start() -> Self {
        let seen = Seen::default();
        let all = Arc::clone(&seen);
        let upstream = Upstream::start(move |peer| serve(peer, Arc::clone(&all))).await;
        let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
        Self {
            proxy,
            upstream,
            seen,
        }
    }

    fn bodies(&self, path: &str) -> Vec<String> {
        let is_it = |target: &str| {
            target == path
                || target
                    .strip_prefix(path)
                    .is_some_and(|r| r.starts_with('?'))
        };
        self.seen
            .lock()
            .unwrap()
            .iter()
            .filter(|(t, _)| is_it(t))
            .map(|(_, body)| body.clone())
            .collect()
    }

    /// Runs one case and then an innocent request on another connection. `Err`: what went wrong.
    async fn run(&self, number: usize, case: &Case) -> Result<(), String> {
        let path = format!("/case-{number}-");
        let before = self.upstream.text().matches("/smuggled").count();
        let mut client = Client::connect(self.proxy.address()).await;
        client.try_send(case.raw.replace("{p}", &path)).await;
        let verdict = tokio::time::timeout(SOON, self.judge(&mut client, &path, case.expect)).await;
        let verdict = verdict.unwrap_or_else(|_| Err("an answer or a close is missing".into()));
        drop(client);
        let innocent = format!("/innocent-{number}");
        let answer = Client::get(self.proxy.address(), &innocent).await;
        if answer.status != 200 || answer.text() != innocent {
            return Err(format!("the innocent got {answer:?}"));
        }
        if self.upstream.text().matches("/smuggled").count() > before {
            return Err("smuggled".into());
        }
        verdict
    }

    async fn judge(&self, client: &mut Client, path: &str, expect: Expect) -> Result<(), String> {
        let first = client.final_answer().await;
        let status = first.as_ref().map_or(0, |a| a.status);
        let answered = match expect {
            Expect::Refused(any) | Expect::Answered(any) => any.contains(&status),
            Expect::Dropped => matches!(&first, Err(rest) if rest.is_empty()),
            Expect::Cut => status == 400,
            Expect::Kept(_) | Expect::Closed(_) => status == 200,
            Expect::Tolerated(_) => status == 200 || status == 400,
        };
        if !answered {
            return Err(format!("{first:?}"));
        }
        let expect = match expect {
            Expect::Tolerated(_) if status == 400 => Expect::Refused(&[400]),
            Expect::Tolerated(body) => Expect::Kept(body),
            other => other,
        };
        match expect {
            Expect::Answered(_) | Expect::Kept(_) => {
                client
                    .try_send("GET /again HTTP/1.1\r\nhost: t\r\n\r\n")
                    .await;
                match client.final_answer().await {
                    Ok(again) if again.status == 200 && again.text() == "/again" => {}
                    other => return Err(format!("the next on it got {other:?}")),
                }
            }
            _ if tokio::time::timeout(SOON, client.closed()).await.is_err() => {
                return Err("stays open".into());
            }
            _ => {}
        }
        let bodies = self.bodies(path);
        match expect {
            Expect::Kept(body) | Expect::Closed(body) if bodies == [body] => Ok(()),
            Expect::Kept(_) | Expect::Closed(_) => {
                Err(format!("the endpoint understood {bodies:?}"))
            }
            Expect::Cut if bodies.is_empty() => Ok(()),
            Expect::Cut => Err(format!("the endpoint took it for whole: {bodies:?}")),
            _ if self.upstream.text().contains(path) => Err("forwarded".into()),
            _ => Ok(()),
        }
    }

    /// Runs all cases and reports every failure at once.
    async fn run_all(cases: Vec<Case>) {
        let bench = Self::start().await;
        let mut failures = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            if let Err(what) = bench.run(number, case).await {
                let raw: String = case.raw.chars().take(160).collect();
                failures.push(format!("{raw:?}: expected {:?}: {what:.300}", case.expect));
            }
        }
        assert!(
            failures.is_empty(),
            "{} of {}:\n{}",
            failures.len(),
            cases.len(),
            failures.join("\n")
        );
        bench.proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_pipelined_requests_are_answered_in_order() {
    let bench = Bench::start().await;
    let mut client = Client::connect(bench.proxy.address()).await;
    let all: String = (0..1000)
        .map(|n| format!("GET /n{n} HTTP/1.1\r\nhost: t\r\n\r\n"))
        .collect();
    client.send(all).await;
    for n in 0..1000 {
        assert_eq!(client.answer().await.text(), format!("/n{n}"));
    }
    bench.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_expects_a_100_gets_it_before_it_sends_its_body() {
    let bench = Bench::start().await;
    let mut client = Client::connect(bench.proxy.address()).await;
    client
        .send("POST /late HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
        .await;
    assert!(
        client
            .try_head()
            .await
            .unwrap()
            .starts_with("HTTP/1.1 100 ")
    );
    client.send("hello").await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(bench.bodies("/late"), ["hello"]);
    assert!(!bench.upstream.text().to_lowercase().contains("expect"));
    bench.proxy.stop().await;
}

/// "0.CL": the endpoint answers at once, the client still owes the body it declared.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_comes_after_its_answer_is_no_request() {
    let upstream = Upstream::start(|mut peer| async move {
        while peer.head().await.is_some() {
            peer.write(respond(200, "early")).await;
        }
    })
    .await;
    let proxy = Proxy::start(&forward_to(&[upstream.address])).await;
    for expect in ["", "expect: 100-continue\r\n"] {
        let mut client = Client::connect(proxy.address()).await;
        let length = SMUGGLED.len();
        client
            .send(format!(
                "POST /a HTTP/1.1\r\nhost: t\r\n{expect}content-length: {length}\r\n\r\n"
            ))
            .await;
        assert_eq!(client.final_answer().await.unwrap().text(), "early");
        client.try_send(SMUGGLED).await;
        client.closed().await;
        assert_eq!(
            Client::get(proxy.address(), "/innocent").await.text(),
            "early"
        );
    }
    assert!(
        !upstream
            .text()
            .contains("GET /smuggled HTTP/1.1\r\nhost: t\r\nx-"),
        "{}",
        upstream.text()
    );
    assert_eq!(upstream.text().matches("x-forwarded-for").count(), 4);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_in_absolute_form_wins_over_host() {
    let bench = Bench::start().await;
    let raw = "GET http://Other.example:81/abs?q HTTP/1.1\r\nhost: t\r\n\r\n";
    assert_eq!(Client::once(bench.proxy.address(), raw).await.status, 200);
    let text = bench.upstream.text();
    assert!(text.starts_with("GET /abs?q HTTP/1.1\r\n"), "{text}");
    assert!(
        text.to_lowercase()
            .contains("\r\nhost: other.example:81\r\n"),
        "{text}"
    );
    assert_eq!(text.to_lowercase().matches("\r\nhost: ").count(), 1);
    bench.proxy.stop().await;
}
