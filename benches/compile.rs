//! What a reload of 10 000 routes costs before it is live: text to [`Config`](forebay_config::Config), and its table.
//!
//! `cargo bench --bench compile` prints medians. `compile 1000` takes that many routes, and `compile 1000 1` loads them
//! once, for a profiler:
//!
//! ```text
//! valgrind --tool=callgrind compile 1000 1
//! ```

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use forebay_config::load::{Loaded, SourceFile, load};
use forebay_config::route::RouteTable;

const ROUTES: usize = 10_000;
const CLUSTERS: usize = 100;
const RUNS: usize = 7;

fn main() {
    let numbers: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse().ok())
        .collect();
    let routes = numbers.first().copied().unwrap_or(ROUTES);
    let runs = numbers.get(1).copied().unwrap_or(RUNS).max(1);
    let files = [SourceFile {
        name: "bench.yaml".into(),
        directory: ".".into(),
        text: config(routes),
    }];
    let bytes = files[0].text.len();
    println!("{routes} routes, {CLUSTERS} clusters, {bytes} bytes of YAML, median of {runs}");

    let mut loads = Vec::with_capacity(runs);
    let mut tables = Vec::with_capacity(runs);
    for _ in 0..runs {
        let (loaded, load_time) = timed(|| load(black_box(&files), &|_| None));
        let Loaded { config, warnings } = loaded.expect("the configuration is legal");
        assert!(warnings.is_empty() && config.routes.len() == routes);
        let (_, table_time) = timed(|| RouteTable::new(black_box(&config.routes)));
        loads.push(load_time);
        tables.push(table_time);
    }
    let both: Vec<Duration> = loads.iter().zip(&tables).map(|(l, t)| *l + *t).collect();
    for (name, mut times) in [
        ("load, parse and validate", loads),
        ("RouteTable::new", tables),
        ("together", both),
    ] {
        times.sort_unstable();
        let (median, best) = (times[times.len() / 2], times[0]);
        println!("{name:<25} {median:>9.2?} (best {best:.2?})");
    }
}

/// Half exact, half prefix, a third of them with a host, a tenth with a method or a header, a few split or edited.
fn config(routes: usize) -> String {
    let mut text =
        String::from("listeners:\n- {name: public, address: \"127.0.0.1:0\"}\nroutes:\n");
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        writeln!(text, "{arguments}").expect("a string takes everything");
    };
    for n in 0..routes {
        let kind = if n % 2 == 0 { "exact" } else { "prefix" };
        line(format_args!("- name: route-{n:05}"));
        line(format_args!("  match:"));
        if n % 3 == 0 {
            line(format_args!(
                "    hosts: [\"{:03}.models.example.com\"]",
                n % 500
            ));
        }
        line(format_args!(
            "    path: {{{kind}: /v1/models/model-{n:05}}}"
        ));
        match n % 10 {
            3 => line(format_args!("    methods: [POST]")),
            7 => line(format_args!("    headers: {{x-tenant: tenant-{n}}}")),
            _ => {}
        }
        let (cluster, other) = (n % CLUSTERS, (n + 1) % CLUSTERS);
        if n % 5 == 0 {
            line(format_args!("  split:"));
            line(format_args!(
                "  - {{cluster: cluster-{cluster:02}, weight: 20}}"
            ));
            line(format_args!(
                "  - {{cluster: cluster-{other:02}, weight: 80}}"
            ));
        } else {
            line(format_args!("  cluster: cluster-{cluster:02}"));
        }
        if n % 20 == 1 {
            line(format_args!("  rewrite: {{prefix: /}}"));
            line(format_args!("  timeouts: {{first_byte: 60s}}"));
        }
    }
    line(format_args!("clusters:"));
    for n in 0..CLUSTERS {
        line(format_args!("- name: cluster-{n:02}"));
        line(format_args!(
            "  endpoints: [\"10.0.{n}.1:8080\", \"10.0.{n}.2:8080\"]"
        ));
    }
    text
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let done = work();
    (done, started.elapsed())
}
