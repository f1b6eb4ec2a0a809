//! What a seed decides before anything happens.

use std::ops::Range;

use fastrand::Rng;
use forebay_config as config;

/// Who turns demand into replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scaling {
    /// The pure step, called by the simulation: nothing is left to chance.
    Step,
    /// The scaler's own task.
    Task,
}

/// What is done wrongly on purpose, to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoilt {
    Nothing,
    NeverStarts,
    NeverStops,
    StartsTooMany,
    LosesSlots,
    LosesBytes,
    Overtakes,
    ForgetsClocks,
}

/// One course of events, as far as it is planned. Times in milliseconds.
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) rng: Rng,
    pub(crate) scaling: Scaling,
    pub(crate) spoilt: Spoilt,
    pub(crate) cluster: Cluster,
    /// When the last request has come and nothing fails any more.
    pub(crate) quiet: u64,
    /// Between two arrivals of one burst.
    pub(crate) gap: u64,
    /// Requests of a burst.
    pub(crate) burst: usize,
    /// From one burst to the next.
    pub(crate) pause: Range<u64>,
    /// How long a request takes.
    pub(crate) work: Range<u64>,
    /// How long a start takes.
    pub(crate) start: Range<u64>,
    /// Of 100 starts.
    pub(crate) failing_starts: u32,
    /// How long a replica lives that crashes; of 100 replicas `crashing` do.
    pub(crate) life: Range<u64>,
    pub(crate) crashing: u32,
    /// Of 100 replicas: refuses connections for a while now and then.
    pub(crate) refusing: u32,
    /// Of 100 requests: the client leaves before it is served, maybe.
    pub(crate) leaving: u32,
    /// Operators and reloads: one such event in this time.
    pub(crate) meddling: u64,
}

/// The keys of the cluster that matter here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cluster {
    pub(crate) concurrency: Option<u32>,
    pub(crate) max_requests: u32,
    pub(crate) max_bytes: u64,
    saturated: u64,
    empty: u64,
    min: u32,
    max: u32,
    idle: u64,
    stable: u64,
    rate: bool,
    preload: bool,
}

impl Cluster {
    fn new(rng: &mut Rng) -> Self {
        let min = rng.u32(0..6).saturating_sub(3);
        Self {
            concurrency: (rng.u8(0..5) > 0).then(|| rng.u32(1..7)),
            max_requests: rng.u32(3..80),
            max_bytes: rng.u64(1..40) << 16,
            saturated: rng.u64(500..20_000),
            empty: rng.u64(1_000..60_000),
            min,
            max: min.max(1) + rng.u32(0..4),
            idle: rng.u64(1_000..30_000),
            stable: rng.u64(2_000..40_000),
            rate: rng.u8(0..6) == 0,
            preload: rng.u8(0..6) == 0,
        }
    }

    /// As a file would have it.
    pub(crate) fn load(&self) -> config::Cluster {
        let concurrency = self
            .concurrency
            .map_or(String::new(), |most| format!("concurrency: {most}, "));
        let target = match self.rate {
            true => "target: {rate: 5/s}, ",
            false => "",
        };
        let Self {
            max_requests,
            max_bytes,
            saturated,
            empty,
            min,
            max,
            idle,
            stable,
            preload,
            ..
        } = self;
        let text = format!(
            "clusters: [{{name: m, {concurrency}queue: {{max_requests: {max_requests}, max_bytes: {max_bytes}B, \
             saturated: {saturated}ms, empty: {empty}ms}}, scale: {{min: {min}, max: {max}, idle: {idle}ms, \
             stable_window: {stable}ms, panic_window: 1s, preload: {preload}, {target}\
             process: {{command: 'server ${{PORT}}'}}}}}}]"
        );
        let file = config::load::SourceFile {
            name: "simulation.yaml".into(),
            directory: ".".into(),
            text,
        };
        let loaded = config::load::load(&[file], &|_| None);
        let loaded = loaded.unwrap_or_else(|wrong| panic!("{wrong:?}"));
        (*loaded.config.clusters[0]).clone()
    }
}

impl Scenario {
    pub(crate) fn new(seed: u64, scaling: Scaling, spoilt: Spoilt) -> Self {
        let mut rng = Rng::with_seed(seed);
        let cluster = Cluster::new(&mut rng);
        let work = rng.u64(1..400);
        let start = rng.u64(50..6_000);
        let often = |rng: &mut Rng, most: u32| match rng.bool() {
            true => rng.u32(0..most),
            false => 0,
        };
        Self {
            seed,
            scaling,
            spoilt,
            cluster,
            quiet: rng.u64(20_000..120_000),
            gap: rng.u64(0..60),
            burst: rng.usize(1..90),
            pause: 200..rng.u64(1_000..40_000),
            work: 1..work * if rng.u8(0..8) == 0 { 40 } else { 1 } + 2,
            start: 20..start * if rng.u8(0..8) == 0 { 10 } else { 1 },
            failing_starts: often(&mut rng, 100),
            life: 100..rng.u64(1_000..40_000),
            crashing: often(&mut rng, 70),
            refusing: often(&mut rng, 70),
            leaving: often(&mut rng, 60),
            meddling: rng.u64(1_000..60_000),
            rng,
        }
    }
}
