//! Many requests at once, with the real binary and model servers as processes: from zero, through reloads, and when the
//! server is killed. This test binary also plays the model server: it starts itself again with a role.
//!
//! ```text
//! FOREBAY_FULL=1 cargo test -p forebay --test crowds        # 1000 streams and 500 waiting through 100 reloads in 10 s
//! ```

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod client;
mod running;
mod server;

use std::time::{Duration, Instant};

use client::{Caller, is_whole};
use running::{Forebay, until};
use tokio::task::JoinHandle;

/// Not a test of its own: what this binary does when it is started with a role.
#[test]
fn plays_its_role() {
    server::play();
}

const BODY: usize = 10 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_come_before_their_server_does() {
    const COME: usize = 1000;
    const BATCH: usize = 50;
    const SLOTS: usize = 8;
    let forebay = Forebay::start(&format!("concurrency: {SLOTS}"), "idle: none", "GATED: '1'");
    let mut answers: Vec<JoinHandle<String>> = Vec::new();
    // Those of one batch come in any order, all of them before the next one.
    for batch in 0..COME / BATCH {
        for number in batch * BATCH..(batch + 1) * BATCH {
            let at = forebay.port;
            let whole = async move {
                Caller::post(at, &format!("/{number}"), BODY)
                    .await
                    .whole()
                    .await
            };
            answers.push(tokio::spawn(whole));
        }
        until("the batch waits", || forebay.waiting() == answers.len()).await;
    }
    until("its process is there", || forebay.pids().len() == 1).await;
    assert!(forebay.lines("served").is_empty());
    forebay.note("listen"); // until now it refused every connection; then it says twice that it is loading
    for (number, answer) in answers.into_iter().enumerate() {
        let answer = answer.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("x-forebay-cold-start: "), "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n/{number}")), "{answer}");
    }
    let served = forebay.lines("served");
    let mut once = served.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!((served.len(), once.len()), (COME, COME));
    assert_eq!(
        forebay.lines("early"),
        [""; 0],
        "the loading phase was seen"
    );
    assert_eq!(forebay.lines("wrong"), [""; 0], "a body was another one");
    assert_eq!(forebay.lines("loading").len(), 2);
    let most = forebay
        .lines("inside")
        .iter()
        .map(|line| line.parse().unwrap())
        .max();
    assert!(most <= Some(SLOTS), "{most:?} at once");
    assert_eq!(forebay.pids().len(), 1);
    in_order(&served, BATCH, SLOTS);
    forebay.is_empty().await;
}

/// Whoever is served, no more than fill the slots are still on their way of all that came before its batch.
fn in_order(served: &[String], batch: usize, slots: usize) {
    let batch_of = |path: &String| path[1..].parse::<usize>().unwrap() / batch;
    for (index, path) in served.iter().enumerate() {
        let earlier = batch_of(path) * batch;
        let were_served = served[..index]
            .iter()
            .filter(|other| batch_of(other) < batch_of(path));
        let missing = earlier - were_served.count();
        assert!(
            missing < slots,
            "{path} was served before {missing} that came before it"
        );
    }
}

/// Has the server started, so that what follows does not wait for that.
async fn warm(forebay: &Forebay) {
    let first = Caller::post(forebay.port, "/warm", 10).await.whole().await;
    assert!(first.starts_with("HTTP/1.1 200"), "{first}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_lose_nobody_and_restart_nothing() {
    let (streams, waiting, reloads, pace) = match std::env::var_os("FOREBAY_FULL") {
        Some(_) => (1000, 500, 100, Duration::from_millis(100)),
        None => (150, 75, 25, Duration::from_millis(40)),
    };
    let keys = |number: usize| {
        let (most, connect) = (waiting + number, 5 + number % 3);
        format!(
            "concurrency: {streams}, connect_timeout: {connect}s, queue: {{max_requests: {most}}}"
        )
    };
    let scale = |number: usize| {
        format!(
            "idle: {}s, stable_window: {}s",
            60 + number,
            10 + number % 7
        )
    };
    let forebay = Forebay::start(&keys(0), &scale(0), "");
    warm(&forebay).await;
    let mut open = Vec::new();
    for _ in 0..streams {
        open.push(Caller::get(forebay.port, "/stream").await);
    }
    for caller in &mut open {
        caller.hears("first").await;
    }
    let answers: Vec<JoinHandle<String>> = (0..waiting)
        .map(|number| {
            let at = forebay.port;
            tokio::spawn(async move {
                Caller::post(at, &format!("/{number}"), 100)
                    .await
                    .whole()
                    .await
            })
        })
        .collect();
    until("they wait", || forebay.waiting() == waiting).await;
    let begun = Instant::now();
    for number in 1..=reloads {
        forebay.reload(&keys(number), &scale(number), "");
        let rest = (pace * number as u32).saturating_sub(begun.elapsed());
        tokio::time::sleep(rest).await; // spread, as reloads are
    }
    assert_eq!(forebay.waiting(), waiting);
    forebay.note("end");
    for caller in open {
        let rest = caller.whole().await;
        assert!(is_whole(&rest) && rest.contains("last"), "{rest}");
    }
    for answer in answers {
        let answer = answer.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(forebay.pids().len(), 1, "a process was started again");
    assert_eq!(forebay.lines("served").len(), 1 + streams + waiting);
    assert_eq!(forebay.lines("wrong"), [""; 0]);
    forebay.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_cuts_its_streams_and_comes_back() {
    let forebay = Forebay::start("concurrency: 2", "idle: none", "");
    let mut one = Caller::get(forebay.port, "/stream").await;
    one.hears("first").await;
    let mut two = client::stream_over_http2(forebay.port, "/stream").await;
    assert!(two.data().await.unwrap().is_ok());
    // Both slots are taken.
    let at = forebay.port;
    let waits = tokio::spawn(async move { Caller::post(at, "/waits", BODY).await.whole().await });
    until("one waits", || forebay.waiting() == 1).await;
    let first = forebay.pids()[0];
    running::kill(first);
    let rest = one.whole().await;
    assert!(!is_whole(&rest), "a cut answer looks complete: {rest}");
    let end = loop {
        match two.data().await.expect("a cut answer looks complete") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(
        end.is_reset() && end.reason() != Some(h2::Reason::NO_ERROR),
        "{end}"
    );
    // It has a slot of those two. The kernel still accepts a connection or two for a server that is being killed: what
    // was sent there may have been served, and is not sent again.
    let waited = waits.await.unwrap();
    let is_told = waited.contains("x-forebay-reason: upstream_reset");
    assert!(waited.ends_with("/waits") || is_told, "{waited}");
    until("the first one is gone", || running::is_gone(first)).await;
    let next = Caller::post(forebay.port, "/next", BODY)
        .await
        .whole()
        .await;
    assert!(next.starts_with("HTTP/1.1 200"), "{next}");
    assert!(next.ends_with("/next"), "{next}");
    let pids = forebay.pids();
    assert_eq!(pids.len(), 2, "{pids:?}");
    assert_eq!(forebay.lines("wrong"), [""; 0]);
    forebay.is_empty().await;
}
