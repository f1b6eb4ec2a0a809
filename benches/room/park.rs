//! What the room itself costs: parking 10 000 requests, releasing them one by one, and a slot that is taken at once.
//!
//! `cargo bench --bench park` prints the best of some rounds: CPU time of this thread, and bytes of a waiting request.
//! With `--json` one line of JSON instead.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use forebay::cluster::{Candidate, Choice, ClusterState, Endpoint};
use forebay::room::{Slot, Waiting};
use forebay_config::Cluster;
use forebay_config::load::{SourceFile, load};

const WAITERS: usize = 10_000;
const ROUNDS: usize = 15;

/// The best of all rounds.
struct Best {
    park: Duration,
    release: Duration,
    leave: Duration,
    take: Duration,
}

fn main() {
    let mut best = Best {
        park: Duration::MAX,
        release: Duration::MAX,
        leave: Duration::MAX,
        take: Duration::MAX,
    };
    for _ in 0..ROUNDS {
        round(&mut best);
    }
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    let each = |time: Duration| time.as_nanos() as f64 / WAITERS as f64;
    let future = size_of::<Waiting<Arc<Endpoint>>>();
    if std::env::args().any(|argument| argument == "--json") {
        println!(
            "{{\"park_ms\": {:.3}, \"release_ms\": {:.3}, \"leave_ms\": {:.3}, \"take_ns\": {:.1}, \"future\": {future}}}",
            millis(best.park),
            millis(best.release),
            millis(best.leave),
            each(best.take),
        );
        return;
    }
    for (what, time) in [
        ("park", best.park),
        ("release, one by one", best.release),
        ("leave, from the middle", best.leave),
        ("take and free, nobody waits", best.take),
    ] {
        println!(
            "{what:<28} {:>8.3} ms for {WAITERS}, {:>7.1} ns each",
            millis(time),
            each(time)
        );
    }
    println!("a place in the line is held by {future} bytes in the request");
}

/// CPU time of this thread, as far as the kernel tells; else the time that passed.
fn now() -> Duration {
    std::thread::yield_now(); // the kernel counts what was used when it looks who is next
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = told.and_then(|line| line.split(' ').next()?.parse().ok());
    match nanos {
        Some(nanos) => Duration::from_nanos(nanos),
        None => std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default(),
    }
}

fn round(best: &mut Best) {
    let (state, cluster) = cluster();
    let choice = choice(&cluster);
    let mut context = Context::from_waker(Waker::noop());
    let mut poll = |waiting: &mut Waiting<Arc<Endpoint>>| match std::pin::Pin::new(waiting)
        .poll(&mut context)
    {
        Poll::Ready(slot) => slot.ok(),
        Poll::Pending => None,
    };
    let begun = now();
    for _ in 0..WAITERS {
        drop(take(&state, &choice));
    }
    best.take = best.take.min(now() - begun);

    let slot = take(&state, &choice);
    let begun = now();
    let mut line: Vec<_> = (0..WAITERS)
        .filter_map(|_| state.wait(&choice).ok())
        .collect();
    for waiting in &mut line {
        assert!(poll(waiting).is_none(), "the slot is in use");
    }
    best.park = best.park.min(now() - begun);
    assert_eq!(line.len(), WAITERS);

    let begun = now();
    drop(slot);
    for waiting in &mut line {
        let slot = poll(waiting);
        assert!(slot.is_some(), "it is its turn");
    }
    best.release = best.release.min(now() - begun);
    assert_eq!(state.room().demand().waiting, 0);

    let slot = take(&state, &choice);
    let mut line: Vec<_> = (0..WAITERS)
        .filter_map(|_| state.wait(&choice).ok())
        .map(Some)
        .collect();
    let begun = now();
    for index in 0..WAITERS {
        line[index * 7919 % WAITERS] = None; // in no order: the factor is prime
    }
    best.leave = best.leave.min(now() - begun);
    assert_eq!(state.room().demand().waiting, 0);
    drop(slot);
}

fn take(state: &ClusterState, choice: &Choice<'_>) -> Option<Slot<Arc<Endpoint>>> {
    let taken = state.take_slot(choice);
    assert!(taken.is_some(), "a slot is free");
    taken.map(|(slot, _)| slot)
}

fn choice(cluster: &Cluster) -> Choice<'_> {
    Choice {
        cluster,
        key: None,
        roll: 0,
        tried: &[],
        free: None,
    }
}

/// One endpoint with one slot.
fn cluster() -> (ClusterState, Cluster) {
    let text = "clusters: [{name: bench, endpoints: ['127.0.0.1:1'], concurrency: 1, queue: {max_requests: 20000}}]";
    let file = SourceFile {
        name: "bench.yaml".into(),
        directory: ".".into(),
        text: text.to_owned(),
    };
    let loaded = load(&[file], &|_| None).expect("a valid configuration");
    let cluster = (*loaded.config.clusters[0]).clone();
    let state = ClusterState::new("bench");
    let candidate = Candidate {
        address: SocketAddr::from(([127, 0, 0, 1], 1)),
        host: "127.0.0.1".into(),
        weight: 1,
    };
    state.update(vec![candidate], &cluster.balance);
    state.settle(&cluster);
    (state, cluster)
}
