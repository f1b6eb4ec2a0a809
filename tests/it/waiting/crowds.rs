//! Many at once: at an endpoint that bears no more than its slots, and where nobody serves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::{ALL, Seen, Server, held, is_empty, leading_to, nobody, post, waiting, waits};
use crate::support::client::Answer;
use crate::support::h2::{H2, get as get_h2};
use crate::support::{Client, Proxy, Upstream, respond, until};

/// An endpoint that answers 500 to whatever is there beyond `limit`, and nobody before the gate opens.
async fn fragile(limit: usize, seen: &Arc<Seen>, gate: &Arc<Semaphore>) -> Upstream {
    let (seen, gate) = (Arc::clone(seen), Arc::clone(gate));
    Upstream::start(move |mut peer| {
        let (seen, gate) = (Arc::clone(&seen), Arc::clone(&gate));
        async move {
            while peer.request().await.is_some() {
                let inside = seen.begin("");
                let status = if inside.1 > limit { 500 } else { 200 };
                gate.acquire().await.unwrap().forget();
                tokio::task::yield_now().await; // others come meanwhile
                drop(inside);
                if !peer.write(respond(status, "")).await {
                    return;
                }
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_who_all_wait_never_overload_an_endpoint() {
    const LIMIT: usize = 32;
    let (seen, gate) = (Arc::<Seen>::default(), Arc::new(Semaphore::new(0)));
    let upstream = fragile(LIMIT, &seen, &gate).await;
    let proxy = Proxy::start(&leading_to(&[upstream.address], "concurrency: 32")).await;
    // Half of them on connections of their own, half as streams of five connections.
    let at = proxy.address();
    let mut answers: Vec<JoinHandle<u16>> = (0..500)
        .map(|_| tokio::spawn(async move { Client::get(at, "/").await.status }))
        .collect();
    for _ in 0..5 {
        let client = Arc::new(H2::connect(at).await);
        answers.extend((0..100).map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move {
                let (answer, _) = client.begin(get_h2("/"), true).await;
                crate::support::h2::collect(answer).await.unwrap().status()
            })
        }));
    }
    waits(&proxy, 1000 - LIMIT).await;
    until("every slot is used", async || seen.count() == LIMIT).await;
    gate.add_permits(ALL);
    for answer in answers {
        assert_eq!(answer.await.unwrap(), 200);
    }
    assert_eq!((seen.count(), seen.most()), (1000, LIMIT));
    is_empty(&proxy).await;
    proxy.stop().await;
}

/// A POST on a connection of its own; `None`: it ended without an answer.
fn upload(at: SocketAddr, path: String, length: usize) -> JoinHandle<Option<Answer>> {
    tokio::spawn(async move {
        let mut client = Client::connect(at).await;
        client.try_send(post(&path, length)).await;
        client.try_answer().await.ok()
    })
}

const BODY: usize = 100 << 10;
const MOST_BYTES: f64 = (4 << 20) as f64;
/// What one read of a connection may bring beyond it, for each of two workers.
const OVER: f64 = 2.0 * 420.0 * 1024.0;

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_at_a_dead_endpoint_is_bounded_refused_and_forgotten() {
    const COME: usize = 300;
    const MAY_WAIT: usize = 200;
    let (socket, address) = nobody();
    let keys = "queue: {max_requests: 200, max_bytes: 4MiB}";
    let proxy = Proxy::start(&leading_to(&[address], keys)).await;
    let most = Arc::<AtomicUsize>::default();
    let mut uploads: Vec<_> = (0..COME)
        .map(|number| upload(proxy.address(), format!("/{number}"), BODY))
        .collect();
    until("as many wait as may", async || {
        most.fetch_max(held(&proxy) as usize, Ordering::SeqCst);
        let refused = uploads.iter().filter(|upload| upload.is_finished()).count();
        waiting(&proxy) == MAY_WAIT as f64 && refused == COME - MAY_WAIT
    })
    .await;
    // Far more came than may be held, so that nothing is left of the bound.
    until("the bound is reached", async || {
        held(&proxy) > MOST_BYTES - 17.0 * 1024.0
    })
    .await;
    let most = held(&proxy).max(most.load(Ordering::SeqCst) as f64);
    assert!(most <= MOST_BYTES + OVER, "{most}");
    let (refused, mut waiters): (Vec<_>, Vec<_>) =
        uploads.drain(..).partition(|upload| upload.is_finished());
    for upload in refused {
        let answer = upload.await.unwrap().expect("it is told");
        assert_eq!((answer.status, answer.reason()), (503, "no_endpoint"));
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
    // Half of them leave; what they had is free for those who stay.
    let stay = waiters.split_off(MAY_WAIT / 2);
    waiters.iter().for_each(JoinHandle::abort);
    waits(&proxy, MAY_WAIT / 2).await;
    let server = Server::on(socket.listen(1024).unwrap(), ALL);
    for upload in stay {
        let answer = upload.await.unwrap().expect("it is served");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(server.seen.count(), MAY_WAIT / 2);
    assert_eq!(server.seen.wrong.load(Ordering::SeqCst), 0);
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_in_vain_leave_nothing_behind() {
    let (_socket, address) = nobody();
    let keys = "queue: {max_bytes: 1MiB, empty: 700ms}";
    let proxy = Proxy::start(&leading_to(&[address], keys)).await;
    for _ in 0..2 {
        let uploads: Vec<_> = (0..60)
            .map(|number| upload(proxy.address(), format!("/{number}"), BODY))
            .collect();
        for upload in uploads {
            let answer = upload.await.unwrap().expect("it is told");
            assert_eq!((answer.status, answer.reason()), (503, "no_endpoint"));
        }
        is_empty(&proxy).await;
    }
    proxy.stop().await;
}
