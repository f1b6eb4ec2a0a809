//! The driver with servers that exist only here, on tokio's paused clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Mutex;

use forebay_config::{Position, Targets};
use tokio::time::Instant;

use super::*;
use crate::driver::launch::{Order, Running, Stop};

mod gpu;

/// The world around a driver, to be looked at and to be moved.
#[derive(Default)]
struct World {
    servers: Mutex<BTreeMap<u64, Server>>,
    ready: Mutex<BTreeSet<u16>>,
    serving: Mutex<Vec<SocketAddr>>,
    in_flight: Mutex<BTreeMap<SocketAddr, u64>>,
    /// How long a server takes to answer a probe.
    thinks: Mutex<Duration>,
    news: watch::Sender<()>,
}

struct Server {
    order: Order,
    started: Instant,
    exit: mpsc::Sender<String>,
    stopped: bool,
}

struct Fake(Arc<World>);

impl Launch for Fake {
    fn launch(&self, order: Order, log: Log) -> Running {
        let (exit, exited) = mpsc::channel(1);
        let (stop, mut dropped) = Stop::new();
        let id = order.replica;
        log.push(id, &format!("{:?}", order.command));
        let server = Server {
            order,
            started: Instant::now(),
            exit,
            stopped: false,
        };
        self.0.servers.lock().unwrap().insert(id, server);
        self.0.news.send_replace(());
        let world = self.0.clone();
        tokio::spawn(async move {
            dropped.recv().await;
            let mut servers = world.servers.lock().unwrap();
            let server = servers.get_mut(&id).unwrap();
            server.stopped = true;
            server.exit = mpsc::channel(1).0; // closed: nothing of it is left
            drop(servers);
            world.news.send_replace(());
        });
        Running { exited, stop }
    }
}

struct Side(Arc<World>);

impl Endpoints for Side {
    fn serve(&self, addresses: &[SocketAddr]) {
        *self.0.serving.lock().unwrap() = addresses.to_vec();
        self.0.news.send_replace(());
    }

    fn in_flight(&self, address: SocketAddr) -> u64 {
        let counts = self.0.in_flight.lock().unwrap();
        counts.get(&address).copied().unwrap_or(0)
    }
}

impl Readiness for Side {
    fn probe(&self, address: SocketAddr) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        let ready = self.0.ready.lock().unwrap().contains(&address.port());
        let thinks = *self.0.thinks.lock().unwrap();
        Box::pin(async move {
            if !thinks.is_zero() {
                tokio::time::sleep(thinks).await;
            }
            ready
        })
    }
}

impl World {
    fn driver(self: &Arc<Self>, scale: &Scale) -> ProcessDriver {
        self.driver_within(scale, None)
    }

    fn driver_within(
        self: &Arc<Self>,
        scale: &Scale,
        budget: Option<(Arc<Broker>, Arc<dyn Sight>)>,
    ) -> ProcessDriver {
        let around = Surroundings {
            cluster: "llm".into(),
            readiness: Arc::new(Side(self.clone())),
            endpoints: Arc::new(Side(self.clone())),
            supervisor: None,
            budget,
        };
        ProcessDriver::with(scale, around, Box::new(Fake(self.clone()))).unwrap()
    }

    /// Waits until a condition holds.
    async fn until(&self, driver: &ProcessDriver, mut holds: impl FnMut(&World) -> bool) {
        let (mut news, mut changed) = (self.news.subscribe(), driver.changed());
        let wait = async {
            while !holds(self) {
                tokio::select! {
                    _ = news.changed() => {}
                    _ = changed.changed() => {}
                }
            }
        };
        let limit = Duration::from_secs(1000);
        let in_time = tokio::time::timeout(limit, wait).await;
        assert!(in_time.is_ok(), "{:?}", driver.status());
    }

    fn port(&self, id: u64) -> Option<u16> {
        let servers = self.servers.lock().unwrap();
        servers.get(&id)?.order.command[1].parse().ok()
    }

    async fn make_ready(&self, driver: &ProcessDriver, id: u64) -> SocketAddr {
        self.until(driver, |world| world.port(id).is_some()).await;
        let port = self.port(id).unwrap();
        self.ready.lock().unwrap().insert(port);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        self.until(driver, |world| world.serves(address)).await;
        address
    }

    fn serves(&self, address: SocketAddr) -> bool {
        self.serving.lock().unwrap().contains(&address)
    }

    fn stopped(&self, id: u64) -> bool {
        let servers = self.servers.lock().unwrap();
        servers.get(&id).is_some_and(|server| server.stopped)
    }

    fn started(&self) -> usize {
        self.servers.lock().unwrap().len()
    }

    fn exit(&self, id: u64) {
        let servers = self.servers.lock().unwrap();
        servers[&id]
            .exit
            .try_send("exited with code 3".into())
            .unwrap();
    }
}

fn scale(max: u32, change: impl FnOnce(&mut Process)) -> Scale {
    let mut process = Process {
        command: vec!["serve".into(), "${PORT}".into()],
        env: BTreeMap::new(),
        directory: ".".into(),
        stop: None,
        stop_timeout: Duration::from_secs(10),
        address: None,
    };
    change(&mut process);
    Scale {
        min: 0,
        max,
        target: Targets::default(),
        stable_window: Duration::from_secs(60),
        panic_window: Duration::from_secs(6),
        panic_threshold: 2.0,
        max_down_rate: 2.0,
        idle: None,
        start_timeout: Duration::from_secs(100),
        preload: false,
        pin: false,
        min_residency: Duration::from_secs(60),
        gpu: None,
        driver: forebay_config::Driver::Process(process),
        position: Position {
            file: "".into(),
            line: 1,
            column: 1,
        },
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_serves_once_it_is_ready_and_leaves_the_list_before_it_is_stopped() {
    let world = Arc::<World>::default();
    let driver = world.driver(&scale(2, |_| {}));
    driver.want(1);
    world.until(&driver, |world| world.started() == 1).await;
    world
        .until(&driver, |_| driver.status().starting == 1)
        .await;
    let address = world.make_ready(&driver, 1).await;
    world.until(&driver, |_| driver.status().ready == 1).await;

    world.in_flight.lock().unwrap().insert(address, 1);
    driver.want(0);
    world.until(&driver, |world| !world.serves(address)).await;
    tokio::time::sleep(Duration::from_secs(200)).await; // of the paused clock
    assert!(!world.stopped(1), "it still has work");
    assert_eq!(driver.status().stopping, 1);
    world.in_flight.lock().unwrap().clear();
    world.until(&driver, |world| world.stopped(1)).await;
    world
        .until(&driver, |_| driver.status().stopping == 0)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_is_bounded() {
    let world = Arc::<World>::default();
    let driver = world.driver(&scale(1, |_| {}));
    driver.want(1);
    let address = world.make_ready(&driver, 1).await;
    world.in_flight.lock().unwrap().insert(address, 1);
    let begun = Instant::now();
    driver.want(0);
    world.until(&driver, |world| world.stopped(1)).await;
    assert!(begun.elapsed() >= DRAIN && begun.elapsed() < DRAIN + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_drains_is_taken_back() {
    let world = Arc::<World>::default();
    let driver = world.driver(&scale(1, |_| {}));
    driver.want(1);
    let address = world.make_ready(&driver, 1).await;
    world.in_flight.lock().unwrap().insert(address, 1);
    driver.want(0);
    world.until(&driver, |world| !world.serves(address)).await;
    driver.want(1);
    world.until(&driver, |world| world.serves(address)).await;
    world.in_flight.lock().unwrap().clear();
    tokio::time::sleep(Duration::from_secs(400)).await; // of the paused clock
    assert!(world.serves(address) && !world.stopped(1));
    assert_eq!(world.started(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_crash_leaves_the_list_at_once_and_is_started_again_after_a_pause() {
    let world = Arc::<World>::default();
    let driver = world.driver(&scale(2, |_| {}));
    driver.want(1);
    let address = world.make_ready(&driver, 1).await;
    world.exit(1);
    world.until(&driver, |world| !world.serves(address)).await;
    let crashed = Instant::now();
    world.until(&driver, |world| world.started() == 2).await;
    let pause = crashed.elapsed();
    assert!(pause >= Duration::from_secs(1) && pause < Duration::from_secs(2));
    let status = driver.status();
    assert_eq!((status.failed_in_a_row, status.starts), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn failed_starts_are_counted_with_their_last_words_and_spaced_out() {
    let world = Arc::<World>::default();
    let driver = world.driver(&scale(1, |_| {}));
    driver.want(1);
    for id in 1..=3 {
        world.until(&driver, |world| world.port(id).is_some()).await;
        world.exit(id);
    }
    world
        .until(&driver, |_| driver.status().failed_in_a_row == 3)
        .await;
    let reason = driver.status().last_failure.unwrap();
    assert!(
        reason.starts_with("exited with code 3\n[\"serve\""),
        "{reason}"
    );
    let started: Vec<Instant> = {
        let servers = world.servers.lock().unwrap();
        servers.values().map(|server| server.started).collect()
    };
    assert!(started[2] - started[1] >= Duration::from_secs(2));
    world.make_ready(&driver, 4).await;
    world.until(&driver, |_| driver.status().ready == 1).await;
    assert_eq!(driver.status().failed_in_a_row, 0);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_takes_too_long_has_failed() {
    let world = Arc::<World>::default();
    let driver = world.driver(&scale(1, |_| {}));
    driver.want(1);
    world.until(&driver, |world| world.stopped(1)).await;
    world
        .until(&driver, |_| driver.status().failed_in_a_row == 1)
        .await;
    let reason = driver.status().last_failure.unwrap();
    assert!(reason.starts_with("not ready within 100s"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_port_taken_meanwhile_is_no_failure() {
    let world = Arc::<World>::default();
    let driver = world.driver(&scale(1, |_| {}));
    driver.want(1);
    world.until(&driver, |world| world.started() == 1).await;
    driver.log().push(1, "bind: Address already in use");
    let before = Instant::now();
    world.exit(1);
    world.until(&driver, |world| world.started() == 2).await;
    assert!(before.elapsed() < Duration::from_secs(1));
    assert_eq!(driver.status().failed_in_a_row, 0);
}

#[tokio::test(start_paused = true)]
async fn the_idle_one_goes_before_the_busy_one() {
    let world = Arc::<World>::default();
    let driver = world.driver(&scale(2, |_| {}));
    driver.want(2);
    let first = world.make_ready(&driver, 1).await;
    let second = world.make_ready(&driver, 2).await;
    world.in_flight.lock().unwrap().insert(second, 3);
    driver.want(1);
    world.until(&driver, |world| world.stopped(1)).await;
    assert!(!world.serves(first) && world.serves(second));
}

#[tokio::test(start_paused = true)]
async fn another_command_replaces_the_replica_successor_first_where_there_is_room() {
    let world = Arc::<World>::default();
    let driver = world.driver(&scale(2, |_| {}));
    driver.want(1);
    let old = world.make_ready(&driver, 1).await;
    assert!(driver.reconfigure(&scale(2, |process| process.command.push("-v".into()))));
    world.until(&driver, |world| world.started() == 2).await;
    assert!(world.serves(old));
    world.make_ready(&driver, 2).await;
    world.until(&driver, |world| world.stopped(1)).await;
    assert!(!world.serves(old) && !world.stopped(2));
}

#[tokio::test(start_paused = true)]
async fn another_command_at_a_fixed_address_stops_before_it_starts() {
    let fixed = |words: &[&str]| {
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        scale(4, |process| {
            process.command = words;
            process.address = Some(address);
        })
    };
    let world = Arc::<World>::default();
    let driver = world.driver(&fixed(&["serve", "1"]));
    driver.want(3);
    world.make_ready(&driver, 1).await;
    assert_eq!(world.started(), 1);
    driver.reconfigure(&fixed(&["serve", "1", "-v"]));
    world.until(&driver, |world| world.started() == 2).await;
    assert!(world.stopped(1));
}

#[tokio::test(start_paused = true)]
async fn anything_else_changes_in_place() {
    let world = Arc::<World>::default();
    let driver = world.driver(&scale(1, |_| {}));
    driver.want(1);
    let address = world.make_ready(&driver, 1).await;
    let mut ending = world.servers.lock().unwrap()[&1].order.ending.clone();
    driver.reconfigure(&scale(1, |process| {
        process.stop = Some(vec!["end".into(), "${PORT}".into(), "${PID}".into()]);
        process.stop_timeout = Duration::from_secs(3);
    }));
    ending.changed().await.unwrap();
    let port = address.port().to_string();
    assert_eq!(
        ending.borrow().stop,
        Some(vec!["end".into(), port, "${PID}".into()])
    );
    assert_eq!(ending.borrow().timeout, Duration::from_secs(3));
    assert!(world.serves(address));
    assert_eq!(world.started(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_stops_all_and_starts_none() {
    let world = Arc::<World>::default();
    let driver = world.driver(&scale(3, |_| {}));
    driver.want(2);
    let address = world.make_ready(&driver, 1).await;
    world.in_flight.lock().unwrap().insert(address, 1);
    world.until(&driver, |world| world.started() == 2).await;
    driver.shutdown().await;
    assert!(world.stopped(1) && world.stopped(2) && !world.serves(address));
    driver.want(3);
    driver.shutdown().await;
    assert_eq!(world.started(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_is_dropped_lets_its_replicas_finish() {
    let world = Arc::<World>::default();
    let driver = world.driver(&scale(1, |_| {}));
    driver.want(1);
    let address = world.make_ready(&driver, 1).await;
    world.in_flight.lock().unwrap().insert(address, 1);
    let mut news = world.news.subscribe();
    drop(driver);
    while world.serves(address) {
        news.changed().await.unwrap();
    }
    assert!(!world.stopped(1));
    world.in_flight.lock().unwrap().clear();
    while !world.stopped(1) {
        news.changed().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_may_take_its_time_to_answer_a_probe() {
    let world = Arc::<World>::default();
    *world.thinks.lock().unwrap() = Duration::from_secs(19); // it generates a token
    let driver = world.driver(&scale(1, |_| {}));
    driver.want(1);
    world.make_ready(&driver, 1).await;
    assert_eq!(driver.status().failed_in_a_row, 0);
}
