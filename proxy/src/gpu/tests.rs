//! The broker by itself, on tokio's paused clock, and the driver's library with one that is compiled here.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use forebay_config::{Gpu, GpuMemory};
use tokio::time::Instant;

use super::*;

mod library;

const GIB: u64 = 1 << 30;

/// So many wait.
#[derive(Default)]
struct Waiting(AtomicU32);

impl Sight for Waiting {
    fn waiting(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    fn oldest_wait(&self) -> Option<Duration> {
        (self.waiting() > 0).then_some(Duration::from_secs(1))
    }

    fn arrivals(&self) -> u64 {
        0
    }

    fn in_flight(&self, _: SocketAddr) -> u64 {
        0
    }
}

fn gpu(index: u32, size: u64) -> Gpu {
    Gpu {
        index,
        memory: size * GIB,
        cores: 100,
    }
}

fn terms(size: u64, pin: bool) -> Terms {
    Terms {
        share: Some(GpuShare {
            memory: GpuMemory::Bytes(size * GIB),
            cores: 0,
        }),
        only: None,
        pin,
        min_residency: Duration::ZERO,
        min: 0,
        preload: false,
    }
}

/// A cluster for which somebody waits.
struct Cluster {
    tenancy: Tenancy,
    notices: tokio::sync::mpsc::UnboundedReceiver<Notice>,
    waiting: Arc<Waiting>,
}

impl Cluster {
    fn join(broker: &Arc<Broker>, name: &str, terms: Terms) -> Self {
        let waiting = Arc::new(Waiting(AtomicU32::new(1)));
        let sight = Arc::downgrade(&waiting) as std::sync::Weak<dyn Sight>;
        let (tenancy, notices) = broker.join(name.into(), terms, sight);
        Self {
            tenancy,
            notices,
            waiting,
        }
    }

    async fn load(&self) -> (Claim, Option<u32>) {
        let mut claim = self.tenancy.ask(false);
        let (device, _) = claim.placed().await;
        claim.ready(([127, 0, 0, 1], 9).into(), Duration::from_secs(1));
        self.waiting.0.store(0, Ordering::SeqCst);
        (claim, device)
    }
}

fn without_driver(gpus: &[Gpu]) -> Arc<Broker> {
    let broker = Broker::new(Box::new(|| Err("none".into())));
    broker.follow(gpus);
    broker
}

#[tokio::test(start_paused = true)]
async fn a_place_is_taken_until_its_claim_is_dropped() {
    let broker = without_driver(&[gpu(0, 10)]);
    let one = Cluster::join(&broker, "a", terms(6, true));
    let other = Cluster::join(&broker, "b", terms(6, false));
    let (claim, device) = one.load().await;
    assert_eq!(device, Some(0));
    let mut wanted = other.tenancy.ask(false);
    let wait = tokio::time::timeout(Duration::from_secs(90), wanted.placed());
    assert!(wait.await.is_err());
    drop((claim, wanted));
    let mut wanted = other.tenancy.ask(false);
    assert_eq!(wanted.placed().await.0, Some(0));
}

#[tokio::test(start_paused = true)]
async fn one_that_gave_up_waiting_takes_nothing() {
    let broker = without_driver(&[gpu(0, 10)]);
    let cluster = Cluster::join(&broker, "a", terms(10, false));
    drop(cluster.tenancy.ask(false));
    let (claim, _) = cluster.load().await;
    assert_eq!(broker.devices()[0]["memory_used"], 10 * GIB);
    drop(claim);
    assert_eq!(broker.devices()[0]["memory_used"], 0);
}

#[tokio::test(start_paused = true)]
async fn it_is_said_when_a_model_can_never_be_placed_and_when_it_can() {
    let broker = without_driver(&[gpu(0, 10)]);
    let pinned = Cluster::join(&broker, "a", terms(6, true));
    let (claim, _) = pinned.load().await;
    let other = Cluster::join(&broker, "b", terms(6, false));
    let mut hopeless = other.tenancy.hopeless();
    hopeless.wait_for(|told| *told).await.unwrap();
    let report = broker.report("b").unwrap();
    assert_eq!(
        (&report["waiting_for"], &report["devices"]),
        (&"gpu".into(), &serde_json::json!([]))
    );
    assert_eq!(report["why"], Why::Never.text());
    // A larger device, no pin, or the end of the pinned one.
    broker.follow(&[gpu(0, 12)]);
    hopeless.wait_for(|told| !told).await.unwrap();
    broker.follow(&[gpu(0, 10)]);
    hopeless.wait_for(|told| *told).await.unwrap();
    pinned.tenancy.set_terms(terms(6, false));
    hopeless.wait_for(|told| !told).await.unwrap();
    broker.set_override("a", Some(1)); // an operator's word is as good as a pin
    hopeless.wait_for(|told| *told).await.unwrap();
    broker.set_override("a", None);
    hopeless.wait_for(|told| !told).await.unwrap();
    pinned.tenancy.set_terms(terms(6, true));
    hopeless.wait_for(|told| *told).await.unwrap();
    drop(claim);
    hopeless.wait_for(|told| !told).await.unwrap();
    let large = Cluster::join(&broker, "c", terms(11, false));
    large
        .tenancy
        .hopeless()
        .wait_for(|told| *told)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_smaller_budget_stops_nobody_and_lets_nobody_in() {
    let broker = without_driver(&[gpu(0, 10)]);
    let mut one = Cluster::join(&broker, "a", terms(6, false));
    let (claim, _) = one.load().await;
    one.waiting.0.store(1, Ordering::SeqCst); // it is busy
    broker.follow(&[gpu(0, 8)]);
    let other = Cluster::join(&broker, "b", terms(2, false));
    let third = Cluster::join(&broker, "c", terms(2, false));
    let (_held, _) = other.load().await;
    let mut wanted = third.tenancy.ask(false);
    let wait = tokio::time::timeout(Duration::from_secs(20), wanted.placed());
    assert!(wait.await.is_err());
    assert!(one.notices.try_recv().is_err());
    drop((claim, wanted));
    let mut wanted = third.tenancy.ask(false);
    assert_eq!(wanted.placed().await.0, Some(0));
}

#[tokio::test(start_paused = true)]
async fn an_operators_word_makes_idle_ones_go_and_lasts() {
    let broker = without_driver(&[gpu(0, 10)]);
    let mut one = Cluster::join(&broker, "a", terms(6, false));
    let (claim, _) = one.load().await;
    let other = Cluster::join(&broker, "b", terms(6, false));
    other.waiting.0.store(0, Ordering::SeqCst);
    assert_eq!(other.tenancy.target(1, 0), 0);
    broker.set_override("b", Some(1));
    assert_eq!(other.tenancy.target(1, 0), 1);
    let mut wanted = other.tenancy.ask(false);
    let evicted = one.notices.recv().await;
    assert_eq!(evicted, Some(Notice::Evict(claim.id())));
    drop(claim);
    assert_eq!(wanted.placed().await.0, Some(0));
    let mut hopeless = one.tenancy.hopeless();
    hopeless.wait_for(|told| *told).await.unwrap();
    broker.retain_overrides(|_| false);
    hopeless.wait_for(|told| !told).await.unwrap();
}

/// A device whose free memory is told one after the other, the last one for ever.
struct Slow(Mutex<VecDeque<u64>>);

impl Cards for Slow {
    fn devices(&self) -> Result<Vec<Gpu>, String> {
        Ok(vec![gpu(0, 16)])
    }

    fn memory(&self, _: u32) -> Option<Memory> {
        let mut told = self.0.lock().unwrap();
        let free = match told.len() {
            1 => told[0],
            _ => told.pop_front().unwrap(),
        };
        Some(Memory {
            usable: 16 * GIB,
            free: free * GIB,
        })
    }
}

/// How long a place of 10 of 16 GiB beside one of 4 GiB takes to be given back.
async fn given_back(free: &[u64]) -> Duration {
    let told: VecDeque<u64> = free.iter().copied().collect();
    let broker = Broker::new(Box::new(move || {
        let cards = Slow(Mutex::new(told.clone()));
        Ok(Arc::new(cards))
    }));
    broker.follow(&[]); // it is the driver that says what there is
    let beside = Cluster::join(&broker, "a", terms(4, false));
    let (_held, _) = beside.load().await;
    let one = Cluster::join(&broker, "b", terms(10, false));
    let (claim, device) = one.load().await;
    assert_eq!(device, Some(0));
    claim.leaves();
    let begun = Instant::now();
    claim.give_back().await;
    assert_eq!(broker.devices()[0]["memory_used"], 4 * GIB);
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_place_is_given_back_when_its_memory_is_free() {
    let millis = async |free: &[u64]| given_back(free).await.as_millis();
    assert_eq!(millis(&[12]).await, 0);
    // It takes a while until the driver has it.
    assert_eq!(millis(&[2, 2, 12]).await / 250, 2);
    // Somebody else has it: that is said, and not waited for.
    assert_eq!(millis(&[2]).await / 1000, 5);
}
