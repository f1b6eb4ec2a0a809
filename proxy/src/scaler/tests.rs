use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use forebay_config::load::{SourceFile, load};
use forebay_config::{self as config, Position, Scale, Targets};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::*;

#[derive(Default)]
struct Wish {
    in_flight: AtomicU32,
    waiting: AtomicU32,
    arrivals: AtomicU64,
    wake: Notify,
}

impl Wish {
    fn arrive(&self) {
        self.arrivals.fetch_add(1, SeqCst);
        if self.waiting.fetch_add(1, SeqCst) == 0 {
            self.wake.notify_one();
        }
    }
}

impl Demand for Wish {
    fn in_flight(&self) -> u32 {
        self.in_flight.load(SeqCst)
    }

    fn waiting(&self) -> u32 {
        self.waiting.load(SeqCst)
    }

    fn arrivals(&self) -> u64 {
        self.arrivals.load(SeqCst)
    }

    fn wake(&self) -> &Notify {
        &self.wake
    }
}

struct Hand {
    wanted: watch::Sender<Vec<u32>>,
    status: Mutex<Replicas>,
    changed: watch::Sender<()>,
}

impl Hand {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            wanted: watch::Sender::new(Vec::new()),
            status: Mutex::default(),
            changed: watch::Sender::new(()),
        })
    }

    fn set(&self, change: impl FnOnce(&mut Replicas)) {
        change(&mut self.status.lock().unwrap());
        self.changed.send_replace(());
    }

    /// Waits until this is the last number that was wanted.
    async fn wanted(&self, replicas: u32) {
        let mut wanted = self.wanted.subscribe();
        let settled = wanted.wait_for(|all| all.last() == Some(&replicas));
        let settled = tokio::time::timeout(Duration::from_secs(3600), settled).await;
        settled.unwrap().unwrap();
    }
}

impl Driver for Hand {
    fn want(&self, replicas: u32) {
        self.wanted.send_modify(|all| all.push(replicas));
        self.changed.send_replace(()); // as one that always rings
    }

    fn status(&self) -> Replicas {
        self.status.lock().unwrap().clone()
    }

    fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

fn cluster(idle: Duration) -> Arc<config::Cluster> {
    let source = SourceFile {
        name: "a.yaml".into(),
        directory: "/".into(),
        text: "listeners: [{name: main, address: '127.0.0.1:8080'}]\n\
               clusters: [{name: resnet, endpoints: ['127.0.0.1:1']}]\n\
               routes: [{name: all, cluster: resnet}]"
            .to_owned(),
    };
    let mut config = load(&[source], &|_| None).unwrap().config;
    let mut cluster = Arc::unwrap_or_clone(config.clusters.pop().unwrap());
    cluster.scale = Some(Scale {
        min: 0,
        max: 3,
        target: Targets::default(),
        stable_window: Duration::from_secs(60),
        panic_window: Duration::from_secs(6),
        panic_threshold: 2.0,
        max_down_rate: 2.0,
        idle: Some(idle),
        start_timeout: Duration::from_secs(600),
        preload: false,
        pin: false,
        min_residency: Duration::from_secs(60),
        gpu: None,
        driver: config::Driver::Webhook {
            url: http::Uri::from_static("http://unused/"),
        },
        position: Position {
            file: "a.yaml".into(),
            line: 1,
            column: 1,
        },
    });
    Arc::new(cluster)
}

fn scaled(idle: u64) -> (Scaler, Subject, Arc<Wish>, Arc<Hand>) {
    let (wish, hand) = (Arc::<Wish>::default(), Hand::new());
    let subject = Subject {
        config: cluster(Duration::from_secs(idle)),
        demand: Arc::clone(&wish) as Arc<dyn Demand>,
        driver: Arc::clone(&hand) as Arc<dyn Driver>,
    };
    let scaler = Scaler::new();
    scaler.follow([subject.clone()]);
    (scaler, subject, wish, hand)
}

#[tokio::test(start_paused = true)]
async fn a_waiter_is_seen_at_once_and_silence_in_time() {
    let (scaler, _, wish, hand) = scaled(90);
    hand.wanted(0).await;
    tokio::time::sleep(Duration::from_millis(3600 * 1000 + 300)).await;
    let before = Instant::now();
    wish.arrive();
    hand.wanted(1).await;
    assert_eq!(before.elapsed(), Duration::ZERO);
    hand.set(|status| status.starting = 1);
    tokio::time::sleep(Duration::from_secs(5)).await;
    wish.waiting.store(0, SeqCst);
    wish.in_flight.store(1, SeqCst);
    hand.set(|status| {
        *status = Replicas {
            ready: 1,
            starts: 1,
            last_start: Some(Duration::from_secs(5)),
            ..Replicas::default()
        };
    });
    tokio::time::sleep(Duration::from_secs(300)).await; // a long stream
    assert_eq!(hand.wanted.borrow().last(), Some(&1));
    let numbers = scaler.numbers().remove("resnet").unwrap();
    assert_eq!(numbers.start_p95, Some(Duration::from_secs(5)));
    assert_eq!(numbers.demand()[0], ("in_flight", 1.0));
    assert_eq!(numbers.states()[0], ("ready", 1));

    wish.in_flight.store(0, SeqCst);
    let before = Instant::now();
    hand.wanted(0).await;
    let idle = before.elapsed();
    let bounds = Duration::from_secs(90)..=Duration::from_secs(92);
    assert!(bounds.contains(&idle), "{idle:?}");
    let report = &scaler.report()["resnet"];
    assert_eq!(
        (&report["desired"], &report["ready"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(report["start_p95"], 5.0);
    assert_eq!(report["override"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_outlives_a_reload_and_ends_with_the_cluster() {
    let (scaler, mut subject, wish, hand) = scaled(90);
    hand.wanted(0).await;
    wish.arrive();
    hand.wanted(1).await;
    wish.waiting.store(0, SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;

    subject.config = cluster(Duration::from_secs(600));
    let other = Hand::new();
    subject.driver = Arc::clone(&other) as Arc<dyn Driver>;
    let mut outlook = scaler.outlook("resnet").unwrap();
    scaler.follow([subject.clone()]);
    let before = Instant::now();
    other.wanted(1).await;
    assert_eq!(before.elapsed(), Duration::ZERO);
    other.wanted(0).await;
    assert!(
        before.elapsed() > Duration::from_secs(535),
        "{:?}",
        before.elapsed()
    );

    assert!(scaler.pin("resnet", Some(9)) && !scaler.pin("nobody", None));
    other.wanted(3).await;
    assert!(outlook.borrow_and_update().asked);
    assert!(scaler.pin("resnet", None));
    other.wanted(0).await;

    scaler.follow([]);
    assert!(scaler.outlook("resnet").is_none() && scaler.numbers().is_empty());
    while outlook.changed().await.is_ok() {}
}

#[tokio::test(start_paused = true)]
async fn three_failed_starts_are_told_to_those_who_wait() {
    let (scaler, _, wish, hand) = scaled(90);
    hand.wanted(0).await;
    let mut outlook = scaler.outlook("resnet").unwrap();
    wish.arrive();
    for failed in 1..=3 {
        hand.wanted(1).await;
        assert!(!outlook.borrow_and_update().start_failed);
        hand.set(|status| {
            status.failed_in_a_row = failed;
            status.last_failure = Some("exit status 1".into());
        });
        hand.wanted(0).await;
    }
    let failed = *outlook
        .wait_for(|outlook| outlook.start_failed)
        .await
        .unwrap();
    assert_eq!(failed.retry_after(Instant::now()), 4);
    assert_eq!(scaler.report()["resnet"]["last_failure"], "exit status 1");
    wish.waiting.store(0, SeqCst);
    let before = Instant::now();
    let _ = outlook.wait_for(|outlook| !outlook.start_failed).await;
    assert_eq!(before.elapsed().as_secs(), 4);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(hand.wanted.borrow().last(), Some(&0));
    wish.arrive();
    hand.wanted(1).await;
}
