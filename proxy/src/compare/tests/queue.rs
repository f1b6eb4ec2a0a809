//! The thread and the queue before it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use super::{config, json as answer};
use crate::capture::Seen;
use crate::compare::comparer::{Comparer, Job};
use crate::compare::judge::judge;
use crate::compare::{MOST_BYTES, MOST_JOBS, Tally};

fn job(tally: &Arc<Tally>, body: Vec<u8>) -> Job {
    let mirror = Seen::Answer(Box::new(answer(body)));
    let primary = Seen::Nothing("timeout");
    Job {
        tally: Arc::clone(tally),
        config: Arc::new(config()),
        primary,
        mirror,
        noise: None,
    }
}

fn busy(tally: &Tally) -> u64 {
    tally
        .verdicts()
        .iter()
        .find(|(label, _)| *label == "busy")
        .unwrap()
        .1
}

/// A comparer whose thread says when it takes a job and then waits until it may go on.
struct Held {
    comparer: Comparer,
    taken: Receiver<()>,
    go: Sender<()>,
}

fn held() -> Held {
    let (tell, taken) = channel();
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let comparer = Comparer::with(Box::new(move |_| {
        let _ = tell.send(());
        // An end of the channel means to go on as well.
        let _ = wait.lock().unwrap().recv();
    }));
    Held {
        comparer,
        taken,
        go,
    }
}

#[test]
fn jobs_are_judged_in_turn_on_a_named_thread() {
    let (tell, told) = channel();
    let comparer = Comparer::with(Box::new(move |job| {
        judge(job);
        tell.send(std::thread::current().name().map(str::to_owned))
            .unwrap();
    }));
    let tally = Arc::new(Tally::default());
    for _ in 0..3 {
        assert!(comparer.submit(job(&tally, Vec::new())));
        assert_eq!(told.recv().unwrap().as_deref(), Some("forebay-compare"));
    }
    assert_eq!(tally.describe()["verdicts"]["primary_failed"], json!(3));
    drop(comparer);
    // The thread has ended: what it ran is gone.
    assert!(told.recv().is_err());
}

#[test]
fn a_panic_ends_one_comparison_only() {
    let first = AtomicBool::new(true);
    let (tell, told) = channel();
    let comparer = Comparer::with(Box::new(move |_| {
        assert!(!first.swap(false, Ordering::Relaxed), "on purpose");
        tell.send(()).unwrap();
    }));
    let tally = Arc::new(Tally::default());
    assert!(comparer.submit(job(&tally, Vec::new())));
    assert!(comparer.submit(job(&tally, Vec::new())));
    told.recv().unwrap();
    assert_eq!(tally.describe()["notes"], json!({"panicked": 1}));
}

#[test]
fn at_most_256_jobs_wait() {
    let Held {
        comparer,
        taken,
        go,
    } = held();
    let tally = Arc::new(Tally::default());
    assert!(comparer.submit(job(&tally, Vec::new())));
    taken.recv().unwrap();
    for _ in 0..MOST_JOBS {
        assert!(comparer.submit(job(&tally, Vec::new())));
    }
    assert!(!comparer.submit(job(&tally, Vec::new())));
    assert_eq!(busy(&tally), 1);
    go.send(()).unwrap();
    taken.recv().unwrap();
    assert!(comparer.submit(job(&tally, Vec::new())));
    assert_eq!(busy(&tally), 1);
}

#[test]
fn bodies_are_charged_by_their_capacity_until_they_are_compared() {
    let Held {
        comparer,
        taken,
        go,
    } = held();
    let tally = Arc::new(Tally::default());
    let half = || Vec::with_capacity(MOST_BYTES / 2);
    assert!(!comparer.submit(job(&tally, Vec::with_capacity(MOST_BYTES))));
    assert!(comparer.submit(job(&tally, half())));
    taken.recv().unwrap();
    assert!(!comparer.submit(job(&tally, half())));
    assert!(comparer.submit(job(&tally, Vec::new())));
    go.send(()).unwrap();
    // The next job is taken only after the first one's bytes are given back.
    taken.recv().unwrap();
    assert!(comparer.submit(job(&tally, half())));
    assert_eq!(busy(&tally), 2);
}

#[test]
fn what_waits_is_compared_when_the_comparer_is_dropped() {
    let Held {
        comparer,
        taken,
        go,
    } = held();
    let tally = Arc::new(Tally::default());
    for _ in 0..5 {
        assert!(comparer.submit(job(&tally, Vec::new())));
    }
    drop(comparer);
    drop(go);
    let taken: Vec<()> = taken.iter().collect();
    assert_eq!(taken.len(), 5);
    assert_eq!(Arc::strong_count(&tally), 1);
}

#[test]
fn no_longer_than_a_second() {
    let Held {
        comparer,
        taken,
        go,
    } = held();
    let tally = Arc::new(Tally::default());
    for _ in 0..5 {
        assert!(comparer.submit(job(&tally, Vec::new())));
    }
    taken.recv().unwrap();
    comparer.drop_at(Duration::from_secs(2));
    go.send(()).unwrap();
    assert!(taken.recv().is_err());
    assert_eq!(Arc::strong_count(&tally), 1);
}

#[test]
fn without_jobs_there_is_no_thread() {
    let comparer = Comparer::start();
    assert!(!comparer.is_running());
    let tally = Arc::new(Tally::default());
    assert!(comparer.submit(job(&tally, Vec::new())));
    assert!(comparer.is_running());
}
