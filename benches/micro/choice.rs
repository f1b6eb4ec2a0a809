//! What the choice of an endpoint costs, with nothing wrong and with one endpoint ejected, and what a look at a list of
//! networks costs.
//!
//! `cargo bench --bench choice` prints the best of many batches, in nanoseconds.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use forebay::cluster::{Candidate, Choice, ClusterState, Verdict};
use forebay::filter::blocks::Blocks;
use forebay_config::load::{SourceFile, load};
use forebay_config::{Cluster, Outlier};

const BATCHES: u32 = 50;
const GOLDEN: u32 = 0x9e37_79b9;

fn main() {
    for (balance, text) in [
        ("least_requests", ""),
        ("round_robin", ", balance: round_robin"),
    ] {
        for count in [2, 8, 64] {
            let cluster = cluster(text);
            let state = ClusterState::new("bench");
            state.update(candidates(count), &cluster.balance);
            state.settle(&cluster);
            let well = time_choice(&state, &cluster);
            eject_first(&state, &cluster);
            let ejected = time_choice(&state, &cluster);
            println!("{balance:<14} of {count:>2}: {well:>6.1} ns, one ejected: {ejected:>6.1} ns");
        }
    }
    for entries in [1_000, 100_000] {
        println!(
            "access list of {entries:>6} networks: {:>6.1} ns an address",
            time_blocks(entries)
        );
    }
}

/// A cluster whose endpoints are ejected by what they answer.
fn cluster(balance: &str) -> Cluster {
    let file = SourceFile {
        name: "bench.yaml".into(),
        directory: ".".into(),
        text: format!("clusters: [{{name: bench, endpoints: ['127.0.0.1:1']{balance}}}]"),
    };
    let loaded = load(&[file], &|_| None).expect("the configuration is legal");
    let mut cluster = (*loaded.config.clusters[0]).clone();
    cluster.outlier = Some(Outlier {
        base: Duration::from_secs(3600),
        max: Duration::from_secs(3600),
        ..Outlier::default()
    });
    cluster
}

fn candidates(count: u16) -> Vec<Candidate> {
    let candidates = (0..count).map(|index| Candidate {
        address: ([127, 0, 0, 1], 8000 + index).into(),
        host: "127.0.0.1".into(),
        weight: 1,
    });
    candidates.collect()
}

fn eject_first(state: &ClusterState, cluster: &Cluster) {
    let first = state.endpoints().endpoints[0].clone();
    let outlier = cluster.outlier.as_ref();
    for _ in 0..outlier.map_or(0, |o| o.consecutive_5xx.get()) {
        state.observe(&first, None, Verdict::Failed, outlier);
    }
    assert!(!first.is_healthy(), "so many failures eject it");
}

fn time_choice(state: &ClusterState, cluster: &Cluster) -> f64 {
    best(10_000, |n| {
        let choice = Choice {
            cluster,
            key: None,
            roll: n.wrapping_mul(GOLDEN),
            tried: &[],
            free: None,
        };
        let chosen = state.choose(&state.endpoints(), black_box(&choice));
        assert!(chosen.is_some(), "somebody can serve");
    })
}

/// Half of the addresses are in the list.
fn time_blocks(entries: u32) -> f64 {
    let step = u32::MAX / entries / 256 * 256;
    let address = |n: u32| IpAddr::V4(Ipv4Addr::from_bits(n));
    let blocks = Blocks::new((0..entries).map(|n| {
        let block = format!("{}/24", address(n * step));
        block.parse().expect("the network is legal")
    }));
    best(10_000, |n| {
        let anywhere = n.wrapping_mul(GOLDEN) % entries * step + 256 * (n & 1);
        assert_eq!(blocks.contains(black_box(address(anywhere))), n & 1 == 0);
    })
}

/// The fewest nanoseconds that one call took on average in any batch of `calls`.
fn best(calls: u32, mut work: impl FnMut(u32)) -> f64 {
    let batches = (0..BATCHES).map(|_| {
        let started = Instant::now();
        (0..calls).for_each(&mut work);
        started.elapsed()
    });
    let fastest = batches.min().unwrap_or_default();
    fastest.as_nanos() as f64 / f64::from(calls)
}
