//! Slots: never more at an endpoint than it has, in the order of arrival, and held for as long as an answer lasts.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Request;

use super::{
    ALL, Server, assert_served, get, is_empty, leading_to, nobody, waiting, waits, with_route,
};
use crate::support::h2::{H2, H2Upstream, soon};
use crate::support::{Client, Proxy, Upstream, respond, until};

#[tokio::test(flavor = "multi_thread")]
async fn one_slot_serves_fifty_one_after_the_other_as_they_came() {
    let server = Server::start(0).await;
    let proxy = Proxy::start(&leading_to(&[server.address()], "concurrency: 1")).await;
    let mut answers = Vec::new();
    for number in 0..50 {
        answers.push(get(proxy.address(), format!("/{number}")));
        match number {
            0 => server.holds(1).await,
            _ => waits(&proxy, number).await,
        }
    }
    server.permits.add_permits(50);
    for (number, answer) in answers.into_iter().enumerate() {
        let answer = answer.await.unwrap();
        assert_served(&answer, &format!("/{number}"));
        assert_eq!(answer.header("x-forebay-cold-start").is_some(), number > 0);
    }
    let arrived: Vec<String> = (0..50).map(|number| format!("/{number}")).collect();
    assert_eq!(server.seen.paths(), arrived);
    assert_eq!(server.seen.most(), 1);
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_share_the_slots_of_an_endpoint() {
    let server = Server::start(0).await;
    let proxy = Proxy::start(&leading_to(&[server.address()], "concurrency: 3")).await;
    let answers: Vec<_> = (0..60)
        .map(|n| get(proxy.address(), format!("/{n}")))
        .collect();
    server.holds(3).await;
    waits(&proxy, 57).await;
    assert_eq!(server.seen.count(), 3);
    server.permits.add_permits(ALL);
    for (number, answer) in answers.into_iter().enumerate() {
        assert_served(&answer.await.unwrap(), &format!("/{number}"));
    }
    assert_eq!(server.seen.most(), 3);
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_slot_delays_nobody_at_other_endpoints() {
    let held = Server::start(0).await;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(
            Upstream::start(|mut peer| async move {
                while peer.request().await.is_some() {
                    tokio::time::sleep(Duration::from_millis(10)).await; // its work
                    peer.write(respond(200, "other")).await;
                }
            })
            .await,
        );
    }
    let mut endpoints = vec![held.address()];
    endpoints.extend(others.iter().map(|other| other.address));
    let proxy = Proxy::start(&leading_to(&endpoints, "concurrency: 1")).await;
    // One after the other, until one of them is at the endpoint that answers nobody.
    let mut first = Vec::new();
    while held.seen.count() == 0 {
        first.push(get(proxy.address(), "/held"));
        let came = async || held.seen.count() == 1 || first.iter().all(|f| f.is_finished());
        until("the request came somewhere", came).await;
    }
    let answers: Vec<_> = (0..100).map(|_| get(proxy.address(), "/x")).collect();
    for answer in answers {
        assert_eq!(answer.await.unwrap().text(), "other");
    }
    assert_eq!(held.seen.count(), 1);
    held.permits.add_permits(1);
    for answer in first {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_above_its_limit_is_never_there() {
    const LIMIT: usize = 32;
    let seen: std::sync::Arc<super::Seen> = std::sync::Arc::default();
    let upstream = {
        let seen = std::sync::Arc::clone(&seen);
        Upstream::start(move |mut peer| {
            let seen = std::sync::Arc::clone(&seen);
            async move {
                while peer.request().await.is_some() {
                    let inside = seen.begin("");
                    let status = if inside.1 > LIMIT { 500 } else { 200 };
                    tokio::time::sleep(Duration::from_millis(1)).await; // its work
                    drop(inside);
                    peer.write(respond(status, "")).await;
                }
            }
        })
        .await
    };
    let proxy = Proxy::start(&leading_to(&[upstream.address], "concurrency: 32")).await;
    let answers: Vec<_> = (0..1000).map(|_| get(proxy.address(), "/")).collect();
    for answer in answers {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    assert_eq!(seen.count(), 1000);
    assert!(seen.most() <= LIMIT, "{}", seen.most());
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_lasts_as_long_as_the_answer() {
    let server = Server::start(0).await;
    let proxy = Proxy::start(&leading_to(&[server.address()], "concurrency: 1")).await;
    let mut stream = Client::connect(proxy.address()).await;
    stream.send("GET /stream HTTP/1.1\r\nhost: t\r\n\r\n").await;
    stream.try_head().await.unwrap();
    stream.bytes(10).await;
    let next = get(proxy.address(), "/next");
    waits(&proxy, 1).await;
    tokio::time::sleep(super::MOMENT).await;
    assert_eq!(server.seen.count(), 1);
    server.permits.add_permits(2);
    assert_served(&next.await.unwrap(), "/next");
    is_empty(&proxy).await;
    proxy.stop().await;
}

/// Agrees to every upgrade and keeps the connection.
async fn switching() -> Upstream {
    Upstream::start(|mut peer| async move {
        let Some((head, _)) = peer.request().await else {
            return;
        };
        if head.starts_with("GET /ws") {
            peer.write("HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
                .await;
            peer.closed().await;
        } else {
            peer.write(respond(200, "plain")).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_socket_holds_its_slot_until_it_is_closed() {
    let upstream = switching().await;
    let proxy = Proxy::start(&leading_to(&[upstream.address], "concurrency: 1")).await;
    let mut socket = Client::connect(proxy.address()).await;
    socket
        .send(
            "GET /ws HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-key: k\r\nsec-websocket-version: 13\r\n\r\n",
        )
        .await;
    let head = socket.try_head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let next = get(proxy.address(), "/next");
    waits(&proxy, 1).await;
    tokio::time::sleep(super::MOMENT).await;
    assert!(!next.is_finished());
    drop(socket);
    assert_eq!(next.await.unwrap().text(), "plain");
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_one_connection_take_a_slot_each() {
    let server = Server::start(0).await;
    let proxy = Proxy::start(&leading_to(&[server.address()], "concurrency: 2")).await;
    let client = H2::connect(proxy.address()).await;
    let answers = (0..20).map(|number| {
        let request = Request::get(format!("http://t/{number}")).body(()).unwrap();
        client.send(request)
    });
    let all = futures_of(answers.collect());
    let watch = async {
        server.holds(2).await;
        waits(&proxy, 18).await;
        server.permits.add_permits(20);
    };
    let (answers, ()) = soon("twenty answers", async { tokio::join!(all, watch) }).await;
    for (number, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.body, format!("/{number}").into_bytes());
    }
    assert_eq!(server.seen.most(), 2);
    is_empty(&proxy).await;
    proxy.stop().await;
}

/// Polls all of them at once.
async fn futures_of<F: Future<Output = Result<crate::support::h2::Answer, h2::Error>>>(
    futures: Vec<F>,
) -> Vec<crate::support::h2::Answer> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut answers: Vec<Option<_>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, answer) in futures.iter_mut().zip(&mut answers) {
            if answer.is_none()
                && let std::task::Poll::Ready(done) = future.as_mut().poll(cx)
            {
                *answer = Some(done.unwrap());
            }
        }
        match answers.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    answers.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_are_served_once_an_ejection_is_over() {
    let upstream = Upstream::start(|mut peer| async move {
        while let Some((head, _)) = peer.request().await {
            let status = if head.starts_with("GET /fail") {
                500
            } else {
                200
            };
            peer.write(respond(status, "x")).await;
        }
    })
    .await;
    let keys = "concurrency: 4, outlier: {consecutive_5xx: 2, base: 300ms, keep_at_least: 0}";
    let proxy = Proxy::start(&leading_to(&[upstream.address], keys)).await;
    for _ in 0..2 {
        assert_eq!(Client::get(proxy.address(), "/fail").await.status, 500);
    }
    let answers: Vec<_> = (0..8).map(|_| get(proxy.address(), "/")).collect();
    for answer in answers {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clocks_of_an_attempt_do_not_run_while_the_request_waits_again() {
    let (socket, address) = nobody();
    let gone = std::sync::Arc::new(tokio::sync::Notify::new());
    let server = {
        let gone = std::sync::Arc::clone(&gone);
        Upstream::on(socket.listen(64).unwrap(), move |mut peer| {
            let gone = std::sync::Arc::clone(&gone);
            async move {
                peer.request().await;
                peer.write(respond(200, "first")).await;
                gone.notified().await;
            }
        })
    };
    let route = ", timeouts: {first_byte: 400ms, idle: 400ms}";
    let keys = "queue: {}, keepalive: {idle: 30s}";
    let proxy = Proxy::start(&with_route(&[address], route, keys)).await;
    assert_eq!(Client::get(proxy.address(), "/").await.text(), "first");
    // Its connection is kept; then the server goes, and takes longer to come back than an attempt may.
    drop(server);
    gone.notify_waiters();
    let again = tokio::net::TcpSocket::new_v4().unwrap();
    again.set_reuseaddr(true).unwrap();
    let bound = async || again.bind(address).is_ok();
    until("the address is free", bound).await;
    let late = get(proxy.address(), "/late");
    waits(&proxy, 1).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(waiting(&proxy), 1.0);
    let server = Server::on(again.listen(64).unwrap(), ALL);
    assert_served(&late.await.unwrap(), "/late");
    assert_eq!(server.seen.wrong.load(Ordering::SeqCst), 0);
    is_empty(&proxy).await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_endpoint_refuses_while_others_wait_keeps_its_place() {
    let refused = std::sync::Arc::<std::sync::Mutex<std::collections::HashSet<String>>>::default();
    let endpoint = {
        let refused = std::sync::Arc::clone(&refused);
        H2Upstream::start(move |request, mut respond| {
            let refused = std::sync::Arc::clone(&refused);
            async move {
                let path = request.uri().path().to_owned();
                if refused.lock().unwrap().insert(path.clone()) {
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                    return;
                }
                let mut body = respond
                    .send_response(http::Response::new(()), false)
                    .unwrap();
                body.send_data(path.into(), true).unwrap();
            }
        })
        .await
    };
    let keys = "concurrency: 1, protocol: http2";
    let proxy = Proxy::start(&leading_to(&[endpoint.address], keys)).await;
    let answers: Vec<_> = (0..20)
        .map(|n| get(proxy.address(), format!("/{n}")))
        .collect();
    for (number, answer) in answers.into_iter().enumerate() {
        assert_served(&answer.await.unwrap(), &format!("/{number}"));
    }
    assert_eq!(endpoint.heads.lock().unwrap().len(), 40);
    is_empty(&proxy).await;
    proxy.stop().await;
}
