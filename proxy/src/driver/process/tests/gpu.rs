//! Drivers that share a device, on tokio's paused clock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use forebay_config::{Gpu, GpuMemory, GpuShare};

use super::*;
use crate::gpu::{STUCK, TURN};

const SECOND: Duration = Duration::from_secs(1);
const RESIDENCY: Duration = Duration::from_secs(60);

/// The requests of one cluster.
#[derive(Default)]
struct Requests {
    world: Arc<World>,
    waiting: AtomicU32,
    since: Mutex<Option<Instant>>,
    arrivals: AtomicU64,
}

impl Sight for Requests {
    fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::SeqCst)
    }

    fn oldest_wait(&self) -> Option<Duration> {
        self.since.lock().unwrap().map(|since| since.elapsed())
    }

    fn arrivals(&self) -> u64 {
        self.arrivals.load(Ordering::SeqCst)
    }

    fn in_flight(&self, address: SocketAddr) -> u64 {
        Side(self.world.clone()).in_flight(address)
    }
}

/// A cluster: its driver, its servers and its requests. Dropped, it lets its servers go.
struct Cluster {
    driver: ProcessDriver,
    world: Arc<World>,
    requests: Arc<Requests>,
}

/// Room for so many bytes.
fn budget(bytes: u64) -> Arc<Broker> {
    let broker = Broker::new(Box::new(|| Err("none here".into())));
    broker.follow(&[Gpu {
        index: 3,
        memory: bytes,
        cores: 100,
    }]);
    broker
}

fn taking(bytes: u64, change: impl FnOnce(&mut Scale)) -> Scale {
    let mut scale = scale(2, |_| {});
    scale.gpu = Some(GpuShare {
        memory: GpuMemory::Bytes(bytes),
        cores: 0,
    });
    change(&mut scale);
    scale
}

fn process_in(scale: &mut Scale) -> &mut Process {
    match &mut scale.driver {
        forebay_config::Driver::Process(process) => process,
        other => unreachable!("{other:?}"),
    }
}

impl Cluster {
    fn new(broker: &Arc<Broker>, scale: &Scale) -> Self {
        let world = Arc::<World>::default();
        let requests = Arc::new(Requests {
            world: world.clone(),
            ..Requests::default()
        });
        let sight = requests.clone() as Arc<dyn Sight>;
        let driver = world.driver_within(scale, Some((broker.clone(), sight)));
        Self {
            driver,
            world,
            requests,
        }
    }

    /// Requests come and wait, and the scaler wants a replica.
    fn wait(&self, count: u32) {
        self.requests.waiting.store(count, Ordering::SeqCst);
        *self.requests.since.lock().unwrap() = Some(Instant::now());
        let count = u64::from(count);
        self.requests.arrivals.fetch_add(count, Ordering::SeqCst);
        self.driver.want(1);
    }

    /// Nobody waits any more: they are served, or have left.
    fn none_wait(&self) {
        self.requests.waiting.store(0, Ordering::SeqCst);
        *self.requests.since.lock().unwrap() = None;
        self.driver.want(1); // as with every tick
    }

    async fn serve(&self, id: u64) -> SocketAddr {
        let address = self.world.make_ready(&self.driver, id).await;
        self.none_wait();
        address
    }

    async fn started(&self, count: usize) {
        let started = |world: &World| world.started() == count;
        self.world.until(&self.driver, started).await;
    }

    async fn stopped(&self, id: u64) {
        let stopped = |world: &World| world.stopped(id);
        self.world.until(&self.driver, stopped).await;
    }

    async fn leaves(&self, address: SocketAddr) {
        let left = |world: &World| !world.serves(address);
        self.world.until(&self.driver, left).await;
    }

    async fn comes_back(&self, address: SocketAddr) {
        let back = |world: &World| world.serves(address);
        self.world.until(&self.driver, back).await;
    }

    /// So many requests are at an address.
    fn at_work(&self, address: SocketAddr, count: u64) {
        self.world.in_flight.lock().unwrap().insert(address, count);
    }

    fn env(&self, id: u64) -> BTreeMap<String, String> {
        self.world.servers.lock().unwrap()[&id].order.env.clone()
    }

    /// Nothing more is started, though the scaler asks with every tick.
    async fn remains(&self, started: usize) {
        for _ in 0..60 {
            tokio::time::sleep(2 * SECOND).await; // of the paused clock
            self.driver.want(1);
        }
        assert_eq!(self.world.started(), started);
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_is_told_its_device_unless_it_was_told_already() {
    let broker = budget(10);
    let one = Cluster::new(&broker, &taking(4, |_| {}));
    one.wait(1);
    one.started(1).await;
    assert_eq!(one.env(1)["CUDA_VISIBLE_DEVICES"], "3");
    assert_eq!(one.env(1)["CUDA_DEVICE_ORDER"], "PCI_BUS_ID");
    let written = |value: &str| {
        taking(4, |scale| {
            let name = "CUDA_VISIBLE_DEVICES".to_owned();
            process_in(scale).env.insert(name, value.to_owned());
        })
    };
    let other = Cluster::new(&broker, &written("GPU-5fa1"));
    other.wait(1);
    other.started(1).await;
    assert_eq!(other.env(1)["CUDA_VISIBLE_DEVICES"], "GPU-5fa1");
    assert!(!other.env(1).contains_key("CUDA_DEVICE_ORDER"));
    // One that can only use a device that is not shared is placed nowhere.
    let elsewhere = Cluster::new(&broker, &written("1"));
    let mut hopeless = elsewhere.driver.hopeless().unwrap();
    assert!(hopeless.wait_for(|told| *told).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_idle_model_makes_room_and_is_not_loaded_again_for_nobody() {
    let broker = budget(10);
    let a = Cluster::new(&broker, &taking(6, |_| {}));
    let b = Cluster::new(&broker, &taking(6, |_| {}));
    a.wait(1);
    let address = a.serve(1).await;
    let ready = Instant::now();
    a.at_work(address, 1);
    b.wait(1);
    tokio::time::sleep(2 * TURN / 3).await;
    assert_eq!((b.world.started(), b.driver.status().placing), (0, 1));
    a.at_work(address, 0);
    b.started(1).await;
    assert!(a.world.stopped(1) && ready.elapsed() >= RESIDENCY);
    assert_eq!(a.driver.status().evictions, 1);
    b.serve(1).await;
    a.remains(1).await;
    assert_eq!(a.driver.status().starting, 0);
    // Until somebody asks.
    a.wait(1);
    a.started(2).await;
    assert!(b.world.stopped(1));
    a.serve(2).await;
    assert!(a.driver.status().last_place > Some(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_turn_ends_without_cutting_anything_and_comes_back() {
    let broker = budget(10);
    let a = Cluster::new(&broker, &taking(6, |_| {}));
    let b = Cluster::new(&broker, &taking(6, |_| {}));
    a.wait(1);
    let address = a.serve(1).await;
    a.at_work(address, 4);
    a.wait(3);
    b.wait(1);
    a.leaves(address).await;
    tokio::time::sleep(TURN).await;
    assert!(!a.world.stopped(1) && b.world.started() == 0);
    a.at_work(address, 0);
    b.started(1).await;
    assert!(a.world.stopped(1));
    // Those who wait for the first one keep their place, and get it back when the other is idle.
    b.serve(1).await;
    a.started(2).await;
    assert!(b.world.stopped(1));
}

#[tokio::test(start_paused = true)]
async fn who_need_not_make_room_any_more_is_taken_back() {
    let broker = budget(10);
    let a = Cluster::new(&broker, &taking(6, |_| {}));
    let b = Cluster::new(&broker, &taking(6, |_| {}));
    a.wait(1);
    let address = a.serve(1).await;
    a.at_work(address, 1);
    a.wait(1);
    b.wait(1);
    a.leaves(address).await;
    b.none_wait();
    a.comes_back(address).await;
    a.at_work(address, 0);
    a.none_wait();
    a.remains(1).await;
    assert_eq!((b.world.started(), b.driver.status().starting), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_streams_for_hours_is_let_be() {
    let broker = budget(10);
    let a = Cluster::new(&broker, &taking(6, |_| {}));
    let b = Cluster::new(&broker, &taking(6, |_| {}));
    a.wait(1);
    let address = a.serve(1).await;
    a.at_work(address, 1);
    b.wait(1);
    a.leaves(address).await;
    let asked = Instant::now();
    a.comes_back(address).await;
    assert!(asked.elapsed() >= STUCK && asked.elapsed() < STUCK + SECOND);
    tokio::time::sleep(STUCK / 2).await;
    assert!(a.world.serves(address) && b.world.started() == 0);
    a.leaves(address).await; // asked again
    tokio::time::sleep(STUCK / 2).await;
    a.at_work(address, 0);
    b.started(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_command_takes_the_place_of_the_old_one_where_there_is_no_other() {
    let verbose = |bytes| taking(bytes, |scale| process_in(scale).command.push("-v".into()));
    for (bytes, beside) in [(6, false), (5, true)] {
        let broker = budget(10);
        let a = Cluster::new(&broker, &taking(bytes, |_| {}));
        a.wait(1);
        let address = a.serve(1).await;
        assert!(a.driver.reconfigure(&verbose(bytes)));
        a.started(2).await;
        assert_eq!(a.world.serves(address), beside);
        assert_eq!(a.world.stopped(1), !beside);
        a.serve(2).await;
        a.stopped(1).await;
        a.remains(2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_gives_the_place_to_who_waits_for_one() {
    let broker = budget(10);
    let a = Cluster::new(&broker, &taking(6, |_| {}));
    let b = Cluster::new(&broker, &taking(6, |_| {}));
    a.wait(1);
    let address = a.serve(1).await;
    a.at_work(address, 1);
    b.wait(1);
    a.world.exit(1);
    let crashed = Instant::now();
    b.started(1).await;
    assert!(crashed.elapsed() < SECOND);
    a.at_work(address, 0);
    b.serve(1).await;
    a.remains(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_gives_its_place_back() {
    let broker = budget(10);
    let a = Cluster::new(&broker, &taking(10, |_| {}));
    a.wait(1);
    for id in 1..=3 {
        let placed = |world: &World| world.port(id).is_some();
        a.world.until(&a.driver, placed).await;
        a.world.exit(id);
    }
    a.world
        .until(&a.driver, |_| a.driver.status().failed_in_a_row == 3)
        .await;
    a.none_wait();
    let b = Cluster::new(&broker, &taking(10, |_| {}));
    b.wait(1);
    b.started(1).await;
}

#[tokio::test(start_paused = true)]
async fn time_to_start_counts_from_the_place() {
    let broker = budget(10);
    let a = Cluster::new(&broker, &taking(10, |_| {}));
    let short = taking(10, |scale| scale.start_timeout = 20 * SECOND);
    let b = Cluster::new(&broker, &short);
    a.wait(1);
    a.serve(1).await;
    b.wait(1);
    b.started(1).await; // after the residency of the other
    b.serve(1).await;
    assert_eq!(b.driver.status().failed_in_a_row, 0);
    let place = b.driver.status().last_place.unwrap();
    assert!(place >= RESIDENCY - SECOND && b.driver.status().last_start < Some(SECOND));
}

#[tokio::test(start_paused = true)]
async fn what_should_be_there_takes_what_is_free_and_nothing_else() {
    let broker = budget(10);
    let a = Cluster::new(&broker, &taking(6, |_| {}));
    a.wait(1);
    a.serve(1).await;
    let preloaded = Cluster::new(&broker, &taking(4, |scale| scale.preload = true));
    preloaded.driver.want(1);
    preloaded.serve(1).await;
    let steady = Cluster::new(&broker, &taking(4, |scale| scale.min = 1));
    steady.driver.want(1);
    steady.remains(0).await;
    assert!(!a.world.stopped(1));
    drop(preloaded);
    steady.started(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_browser_that_does_not_wait_is_a_reason_to_load_for_a_while() {
    let broker = budget(10);
    let a = Cluster::new(&broker, &taking(6, |_| {}));
    a.driver.want(1);
    a.remains(0).await;
    a.requests.arrivals.fetch_add(1, Ordering::SeqCst);
    a.driver.want(1);
    a.started(1).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_driver_of_devices_nobody_waits_for_one() {
    let broker = Broker::new(Box::new(|| Err("no library".into())));
    broker.follow(&[]);
    let clusters = [0, 1].map(|_| Cluster::new(&broker, &taking(1 << 50, |_| {})));
    for cluster in &clusters {
        cluster.wait(1);
        cluster.started(1).await;
        assert!(!cluster.env(1).contains_key("CUDA_VISIBLE_DEVICES"));
        cluster.serve(1).await;
    }
    assert_eq!(broker.devices().as_array().map(Vec::len), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_takes_a_share_from_now_on_is_started_anew_with_a_device() {
    let broker = budget(10);
    let a = Cluster::new(&broker, &taking(6, |scale| scale.gpu = None));
    a.driver.want(1);
    a.serve(1).await;
    assert!(!a.env(1).contains_key("CUDA_VISIBLE_DEVICES"));
    a.driver.reconfigure(&taking(6, |_| {}));
    a.started(2).await;
    assert_eq!(a.env(2)["CUDA_VISIBLE_DEVICES"], "3");
    a.serve(2).await;
    a.stopped(1).await;
}

#[tokio::test(start_paused = true)]
async fn the_devices_are_free_when_everything_is_gone() {
    let broker = budget(10);
    let a = Cluster::new(&broker, &taking(6, |_| {}));
    a.wait(1);
    a.serve(1).await;
    let used = || broker.devices()[0]["memory_used"].as_u64();
    assert_eq!(used(), Some(6));
    assert_eq!(broker.devices()[0]["clusters"][0], "llm");
    let mut ender = a.driver.ender();
    drop(a);
    ender.ended().await;
    while used() != Some(0) {
        tokio::time::sleep(SECOND).await;
    }
    assert!(broker.report("llm").is_none());
}
