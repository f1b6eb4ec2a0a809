//! What HTTP/2 endpoints say they did nothing with is sent again, whatever it is; nothing else of them is.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::{retries, retrying};
use crate::support::h2::{Frame, H2, RawH2, collect, frame, kind, post, soon};
use crate::support::{Client, Proxy, until};

/// What is done with a request.
#[derive(Clone, Copy, PartialEq)]
enum Act {
    /// 200, with what came as its body.
    Serve,
    /// RST_STREAM(REFUSED_STREAM).
    Refuse,
    /// GOAWAY which says that it was not looked at.
    GoAway,
    /// GOAWAY which says that it may have been, and the end of the connection.
    GoAwayAfter,
    /// RST_STREAM(CANCEL).
    Cancel,
}

/// An HTTP/2 endpoint by hand: acts on the nth request, from 1 on.
struct ByHand {
    address: std::net::SocketAddr,
    count: Arc<AtomicUsize>,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
    task: tokio::task::JoinHandle<()>,
}

impl ByHand {
    /// * `whole`: acts once the request is whole; else it refuses on the head already
    async fn start(whole: bool, act: impl Fn(usize) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let count: Arc<AtomicUsize> = Arc::default();
        let bodies: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let act = Arc::new(act);
        let (seen, kept) = (Arc::clone(&count), Arc::clone(&bodies));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (act, seen, kept) = (Arc::clone(&act), Arc::clone(&seen), Arc::clone(&kept));
                tokio::spawn(async move { serve(stream, whole, &*act, &seen, &kept).await });
            }
        });
        Self {
            address,
            count,
            bodies,
            task,
        }
    }

    fn seen(&self) -> usize {
        self.count.load(SeqCst)
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    whole: bool,
    act: &(dyn Fn(usize) -> Act + Send + Sync),
    seen: &AtomicUsize,
    kept: &Mutex<Vec<Vec<u8>>>,
) -> Option<()> {
    let mut preface = [0u8; 24];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut preface)
        .await
        .ok()?;
    stream
        .write_all(&frame(kind::SETTINGS, 0, 0, &[]))
        .await
        .ok()?;
    let mut raw = RawH2 { stream };
    let (mut body, mut now) = (Vec::new(), Act::Serve);
    loop {
        let Frame {
            kind,
            flags,
            stream,
            payload,
        } = raw.next().await?;
        let ended = flags & 1 != 0;
        match kind {
            kind::SETTINGS | kind::PING if !ended => {
                let ack = frame(kind, 1, 0, if kind == kind::PING { &payload } else { &[] });
                raw.stream.write_all(&ack).await.ok()?;
                continue;
            }
            kind::HEADERS => {
                now = act(seen.fetch_add(1, SeqCst) + 1);
                body.clear();
            }
            kind::DATA => body.extend_from_slice(&payload),
            _ => continue,
        }
        let early = !whole && now != Act::Serve && kind == kind::HEADERS;
        if !ended && !early {
            continue;
        }
        kept.lock().unwrap().push(body.clone());
        let goaway = |last: u32| [last.to_be_bytes(), [0; 4]].concat();
        let answer = match now {
            Act::Serve => {
                let mut answer = frame(kind::HEADERS, 4, stream, &[0x88]); // :status 200
                answer.extend(frame(kind::DATA, 1, stream, &body));
                answer
            }
            Act::Refuse => frame(kind::RST_STREAM, 0, stream, &7u32.to_be_bytes()),
            Act::Cancel => frame(kind::RST_STREAM, 0, stream, &8u32.to_be_bytes()),
            Act::GoAway => frame(kind::GOAWAY, 0, 0, &goaway(stream - 1)),
            Act::GoAwayAfter => frame(kind::GOAWAY, 0, 0, &goaway(stream)),
        };
        raw.stream.write_all(&answer).await.ok()?;
        if now == Act::GoAwayAfter {
            return None;
        }
    }
}

const POST: &str = "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\n\r\nhello";

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_is_sent_again_with_its_body() {
    for refusal in [Act::Refuse, Act::GoAway] {
        for whole in [true, false] {
            let act = move |nth| if nth == 1 { refusal } else { Act::Serve };
            let upstream = ByHand::start(whole, act).await;
            let route = "retry: {attempts: 2}";
            let proxy =
                Proxy::start(&retrying(&[upstream.address], route, "protocol: http2,")).await;
            let answer = Client::once(proxy.address(), POST).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.text(), "hello");
            assert_eq!(upstream.bodies.lock().unwrap().last().unwrap(), b"hello");
            assert_eq!(upstream.seen(), 2);
            assert_eq!(retries(&proxy, "refused"), 1.0);
            proxy.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_is_sent_again_while_it_is_still_coming() {
    let act = |nth| if nth == 1 { Act::Refuse } else { Act::Serve };
    let upstream = ByHand::start(false, act).await;
    let proxy = Proxy::start(&retrying(
        &[upstream.address],
        "retry: {attempts: 2}",
        "protocol: http2,",
    ))
    .await;
    let client = H2::connect(proxy.address()).await;
    let (answer, mut send) = client.begin(post("/").body(()).unwrap(), false).await;
    send.send_data("hel".into(), false).unwrap();
    until("it is sent again", async || {
        retries(&proxy, "refused") == 1.0
    })
    .await;
    send.send_data("lo".into(), true).unwrap();
    let answer = soon("an answer", collect(answer)).await.unwrap();
    assert_eq!((answer.status(), &*answer.body), (200, &b"hello"[..]));
    assert_eq!(upstream.seen(), 2);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_passed_on_when_it_is_not_to_be_retried_or_goes_on() {
    for (route, made) in [
        ("retry: {attempts: 2, when: [connect]}", 1),
        ("retry: {attempts: 0}", 1),
        ("retry: {attempts: 2}", 3),
        ("retry: {attempts: 2, max_body: 4B}", 1),
        ("", 1),
    ] {
        let upstream = ByHand::start(true, |_| Act::Refuse).await;
        let proxy = Proxy::start(&retrying(&[upstream.address], route, "protocol: http2,")).await;
        let answer = Client::once(proxy.address(), POST).await;
        assert_eq!((answer.status, answer.reason()), (502, "upstream_reset"));
        assert_eq!(upstream.seen(), made, "{route:?}");
        proxy.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_endpoint_may_have_done_is_not_done_again() {
    for act in [Act::GoAwayAfter, Act::Cancel] {
        let upstream = ByHand::start(true, move |_| act).await;
        let route = "retry: {attempts: 2, when: [connect, refused, reset, 502]}";
        let proxy = Proxy::start(&retrying(&[upstream.address], route, "protocol: http2,")).await;
        let answer = Client::once(proxy.address(), POST).await;
        assert_eq!((answer.status, answer.reason()), (502, "upstream_reset"));
        assert_eq!(upstream.seen(), 1);
        let answer = Client::get(proxy.address(), "/").await;
        assert_eq!(answer.status, 502);
        assert_eq!(upstream.seen(), 4, "a GET may be done again");
        proxy.stop().await;
    }
}
