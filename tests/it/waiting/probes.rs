//! Probes of servers that hang or are slow to say that they are ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{assert_served, get, is_empty, leading_to, nobody, waits};
use crate::support::{Proxy, Upstream, respond, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_was_never_answered_delays_nobody_by_all_its_patience() {
    let (socket, address) = nobody();
    let (ready, hung) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let all = (Arc::clone(&ready), Arc::clone(&hung));
    let _server = Upstream::on(socket.listen(64).unwrap(), move |mut peer| {
        let (ready, hung) = all.clone();
        async move {
            while let Some((head, _)) = peer.request().await {
                if !ready.load(Ordering::SeqCst) {
                    hung.fetch_add(1, Ordering::SeqCst);
                    peer.closed().await; // it took the connection, and that is all
                    return;
                }
                let path = head.split(' ').nth(1).unwrap();
                peer.write(respond(200, path)).await;
            }
        }
    });
    // Its kind has 20 s of patience.
    let proxy = Proxy::start(&leading_to(&[address], "server: sglang, queue: {}")).await;
    let answer = get(proxy.address(), "/x");
    waits(&proxy, 1).await;
    until("a second probe hangs", async || {
        hung.load(Ordering::SeqCst) > 1
    })
    .await;
    let since = Instant::now();
    ready.store(true, Ordering::SeqCst);
    assert_served(&answer.await.unwrap(), "/x");
    let took = since.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}"); // some 200 ms on a machine of its own
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_check_is_slow_is_ready_nevertheless() {
    let (socket, address) = nobody();
    let server = Upstream::on(socket.listen(64).unwrap(), |mut peer| async move {
        while let Some((head, _)) = peer.request().await {
            let path = head.split(' ').nth(1).unwrap();
            if path == "/health" {
                tokio::time::sleep(Duration::from_millis(1500)).await; // longer than any short probe waits
            }
            if !peer.write(respond(200, path)).await {
                return;
            }
        }
    });
    let proxy = Proxy::start(&leading_to(&[address], "server: vllm, queue: {}")).await;
    let answer = get(proxy.address(), "/x");
    assert_served(&answer.await.unwrap(), "/x");
    assert!(server.transcripts().len() < 30, "it is not flooded");
    is_empty(&proxy).await;
    proxy.stop().await;
}
