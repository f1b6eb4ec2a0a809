//! Further attempts where every slot is taken: they wait for one like everybody.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};

use super::{always, counting, retries, retrying, seen};
use crate::support::upstream::Upstream;
use crate::support::{Client, Proxy, respond, until};

const FIRST_FAILS: fn(usize) -> Vec<u8> = |nth| match nth {
    1 => respond(503, "busy"),
    _ => respond(200, "ok"),
};

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_has_the_slot_that_its_own_attempt_gives_back() {
    let (upstream, count) = counting(FIRST_FAILS).await;
    let route = "retry: {attempts: 2, when: [503]}";
    let proxy = Proxy::start(&retrying(&[upstream.address], route, "concurrency: 1,")).await;
    let answer = Client::get(proxy.address(), "/").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    assert_eq!((seen(&count), retries(&proxy, "503")), (2, 1.0));
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_a_reset_waits_behind_who_has_the_slot_now() {
    let paths: Arc<Mutex<Vec<String>>> = Arc::default();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let (kept, permits) = (Arc::clone(&paths), Arc::clone(&gate));
    let upstream = Upstream::start(move |mut peer| {
        let (paths, gate) = (Arc::clone(&kept), Arc::clone(&permits));
        async move {
            while let Some((head, _)) = peer.request().await {
                let path = head.split(' ').nth(1).unwrap().to_owned();
                let first = {
                    let mut paths = paths.lock().unwrap();
                    paths.push(path.clone());
                    paths.len() == 1
                };
                gate.acquire().await.unwrap().forget();
                if first {
                    return; // without a word
                }
                peer.write(respond(200, &path)).await;
            }
        }
    })
    .await;
    let route = "retry: {attempts: 2, when: [reset]}";
    let proxy = Proxy::start(&retrying(&[upstream.address], route, "concurrency: 1,")).await;
    let at = proxy.address();
    let get = |path: &'static str| tokio::spawn(Client::get(at, path));
    let first = get("/0");
    until("it is there", async || paths.lock().unwrap().len() == 1).await;
    let mut others = Vec::new();
    for (waiting, path) in ["/1", "/2", "/3"].into_iter().enumerate() {
        others.push((path, get(path)));
        let all = (waiting + 1) as f64;
        until("it waits", async || {
            proxy.metric("forebay_waiting", &["cluster=\"a\""]) == all
        })
        .await;
    }
    gate.add_permits(1);
    until(
        "the next one has the slot and the first one waits again",
        async || {
            paths.lock().unwrap().len() == 2
                && proxy.metric("forebay_waiting", &["cluster=\"a\""]) == 3.0
        },
    )
    .await;
    gate.add_permits(10);
    assert_eq!(first.await.unwrap().text(), "/0");
    for (path, answer) in others {
        assert_eq!(answer.await.unwrap().text(), path);
    }
    // The slot went on to the next one; then it was the turn of who had come first.
    assert_eq!(*paths.lock().unwrap(), ["/0", "/1", "/0", "/2", "/3"]);
    assert_eq!(retries(&proxy, "upstream_reset"), 1.0);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_as_many_as_the_route_allows() {
    let (upstream, count) = always(503, "busy").await;
    let route = "retry: {attempts: 2, when: [503]}";
    let proxy = Proxy::start(&retrying(&[upstream.address], route, "concurrency: 1,")).await;
    let answer = Client::get(proxy.address(), "/").await;
    assert_eq!((answer.status, answer.text().as_str()), (503, "busy"));
    assert_eq!(seen(&count), 3);
    let post = "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\nhi";
    let answer = Client::once(proxy.address(), post).await;
    assert_eq!(
        (answer.status, seen(&count)),
        (503, 4),
        "it may not be done twice"
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_waits_too_long_is_told_so() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let count = Arc::<std::sync::atomic::AtomicUsize>::default();
    let (permits, all) = (Arc::clone(&gate), Arc::clone(&count));
    let upstream = Upstream::start(move |mut peer| {
        let (gate, count) = (Arc::clone(&permits), Arc::clone(&all));
        async move {
            while peer.request().await.is_some() {
                let first = count.fetch_add(1, SeqCst) == 0;
                gate.acquire().await.unwrap().forget();
                let answer = if first {
                    respond(503, "busy")
                } else {
                    respond(200, "ok")
                };
                peer.write(answer).await;
            }
        }
    })
    .await;
    let route = "retry: {attempts: 2, when: [503]}";
    let cluster = "concurrency: 1, queue: {saturated: 400ms},";
    let proxy = Proxy::start(&retrying(&[upstream.address], route, cluster)).await;
    let at = proxy.address();
    let first = tokio::spawn(Client::get(at, "/first"));
    until("it is there", async || seen(&count) == 1).await;
    let second = tokio::spawn(Client::get(at, "/second"));
    until("the other one waits", async || {
        proxy.metric("forebay_waiting", &["cluster=\"a\""]) == 1.0
    })
    .await;
    gate.add_permits(1);
    let late = first.await.unwrap();
    assert_eq!((late.status, late.reason()), (429, "queue_timeout"));
    gate.add_permits(1);
    assert_eq!(second.await.unwrap().status, 200);
    proxy.stop().await;
}
