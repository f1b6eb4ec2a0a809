//! What a reload leaves of drivers and of who serves. No process is started: nobody asks for one.

use std::net::SocketAddr;

use forebay_config::load::SourceFile;

use super::outlook::SELDOM;
use super::*;
use crate::discovery::Discovery;
use crate::dns::Resolver;
use crate::health::Checker;
use crate::metrics::Metrics;
use crate::snapshot::{Build, Registry};

const PROCESS: &str = "scale: {process: {command: 'none ${PORT}'}}";
const FIXED: &str = "endpoints: ['127.0.0.1:7']";

/// What follows configurations, without workers.
struct World {
    registry: Registry,
    discovery: Discovery,
    checker: Checker,
    scaling: Scaling,
    metrics: Arc<Metrics>,
    old: Option<Snapshot>,
}

impl World {
    fn new() -> Self {
        Self {
            registry: Registry::default(),
            discovery: Discovery::new(Resolver::system().unwrap(), HashMap::new()),
            checker: Checker::new(),
            scaling: Scaling::new(),
            metrics: Metrics::new(1),
            old: None,
        }
    }

    /// Builds the next generation.
    fn build(&self, cluster: &str) -> Snapshot {
        let file = SourceFile {
            name: "test.yaml".into(),
            directory: ".".into(),
            text: format!("clusters: [{cluster}]"),
        };
        let loaded = config::load::load(&[file], &|_| None).unwrap();
        let build = Build {
            config: Arc::new(loaded.config),
            held: HashMap::new(),
            hash: String::new(),
            generation: self.old.as_ref().map_or(1, |old| old.generation + 1),
            old: self.old.as_ref(),
            metrics: &self.metrics,
            log: None,
        };
        build.run(&self.registry).unwrap()
    }

    /// Lets it go live.
    async fn follow(&mut self, snapshot: Snapshot) {
        self.discovery.follow(&snapshot).await;
        self.checker.follow(snapshot.clusters.values());
        self.scaling.follow(&snapshot);
        self.registry.follow(&snapshot);
        self.old = Some(snapshot);
    }

    async fn load(&mut self, cluster: &str) {
        let snapshot = self.build(&format!("{{name: c, {cluster}}}"));
        self.follow(snapshot).await;
    }

    fn live(&self) -> Arc<Live> {
        Arc::clone(&self.scaling.held()["c"].live)
    }

    /// The ports that serve in the newest generation.
    fn ports(&self) -> Vec<u16> {
        let snapshot = self.old.as_ref().unwrap();
        let set = snapshot.clusters["c"].state.endpoints();
        set.endpoints.iter().map(|e| e.address.port()).collect()
    }
}

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

#[tokio::test]
async fn processes_take_the_place_of_what_was_written() {
    let mut world = World::new();
    world.load(FIXED).await;
    assert_eq!(world.ports(), [7]);
    world.load(PROCESS).await;
    assert_eq!(world.ports(), [0; 0]);
    assert!(!world.live().state().room().replicas().exist());
}

#[tokio::test]
async fn what_becomes_ready_while_the_next_generation_is_built_serves_in_it() {
    let mut world = World::new();
    world.load(PROCESS).await;
    let next = world.build(&format!("{{name: c, {PROCESS}}}"));
    world.live().serve(&[at(9)]);
    world.follow(next).await;
    assert_eq!(world.ports(), [9]);
    world.live().serve(&[]);
    assert_eq!(world.ports(), [0; 0]);
}

#[tokio::test]
async fn a_driver_that_goes_touches_nothing_of_the_next_generation() {
    for next in [FIXED, &format!("{FIXED}, scale: {{observe: {{}}}}")] {
        let mut world = World::new();
        world.load(PROCESS).await;
        let old = world.live();
        old.serve(&[at(9)]);
        world.load(next).await;
        assert_eq!(world.ports(), [7], "{next}");
        old.serve(&[]); // it drains
        assert_eq!(world.ports(), [7], "{next}");
        assert_eq!(world.scaling.leaving().len(), 1);
        world.scaling.shutdown().await;
        assert!(world.scaling.leaving().is_empty());
    }
}

#[tokio::test]
async fn who_waits_in_a_cluster_that_goes_is_served_before_its_driver_goes() {
    let mut world = World::new();
    world.load(PROCESS).await;
    let live = world.live();
    let view = live.view.load_full();
    let choice = crate::cluster::Choice {
        cluster: &view.config,
        key: None,
        roll: 0,
        tried: &[],
        free: None,
    };
    let waiting = view.state.wait(&choice).unwrap();
    let other = world.build(&format!("{{name: d, {FIXED}}}"));
    world.follow(other).await;
    live.serve(&[at(9)]); // the process it waits for becomes ready
    let slot = waiting.await.unwrap();
    assert_eq!(slot.seat().address, at(9));
    let mut done = world.scaling.leaving()[0].clone();
    done.ended().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_expected_is_known_though_nobody_rings() {
    let mut world = World::new();
    world.load(FIXED).await;
    let view = Arc::clone(&world.old.as_ref().unwrap().clusters["c"]);
    let (outlook, told) = tokio::sync::watch::channel(Outlook::default());
    let nobody = std::sync::Weak::<Observe>::new();
    let live = Live::new(&view, Arc::default());
    let _watch = tokio::spawn(watch_outlook(told, live, nobody, None));
    tokio::task::yield_now().await;
    let expected = Some(tokio::time::Instant::now());
    outlook.send_if_modified(|outlook| {
        outlook.expected = expected;
        false
    });
    tokio::time::sleep(2 * SELDOM).await; // on a clock that nobody waits for
    assert_eq!(view.state.outlook().expected, expected);
}

#[tokio::test]
async fn a_reload_that_ends_after_the_proxy_starts_nothing() {
    let mut world = World::new();
    world.scaling.shutdown().await;
    world.load(PROCESS).await;
    assert!(world.scaling.held().is_empty());
}
