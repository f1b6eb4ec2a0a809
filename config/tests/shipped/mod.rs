//! The configurations that are shipped: all of `examples/`, and those in `deploy/` that are Forebay's own.

#![allow(dead_code, reason = "each test uses its part")]

use std::path::{Path, PathBuf};

use forebay_config::load::SourceFile;

/// Reads them, sorted by path.
pub(crate) fn all() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut paths = yaml_files(&root.join("examples"));
    assert!(paths.len() >= 12, "{paths:?}");
    paths.extend(yaml_files(&root.join("deploy")));
    let files = paths.into_iter().map(|path| {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path
            .strip_prefix(&root)
            .unwrap()
            .to_string_lossy()
            .into_owned();
        SourceFile {
            name: name.into(),
            directory: PathBuf::new(),
            text,
        }
    });
    files.flat_map(native).collect()
}

/// Returns them, and one that has the keys of copies, retries, checks and edits of bodies, and one with those of replicas.
pub(crate) fn all_and_traffic() -> Vec<SourceFile> {
    let mut files = all();
    files.push(source("traffic.yaml", TRAFFIC));
    files.push(source("scale.yaml", SCALE));
    files
}

const SCALE: &str = r#"routes:
- name: r
  split:
  - {cluster: one, weight: 9}
  - {cluster: two, weight: 1}
  wake: false
- name: s
  match: {path: {exact: /s}}
  cluster: three
- name: t
  match: {path: {prefix: /v1}, model: m}
  by_model: true
gpus:
- {memory: 16GiB}
- {index: 2, memory: 8GiB, cores: 90}
clusters:
- name: one
  server: vllm
  models: [m, k]
  concurrency: 8
  queue: {max_requests: 10, max_bytes: 1MiB, saturated: 5s, empty: 70s, heartbeat: 4s, waiting_page: true}
  scale:
    min: 1
    max: 4
    target: {in_flight: 4.5, rate: 10/s, queue: 5, kv_cache: 80%}
    gpu: {memory: 50%, cores: 40}
    min_residency: 90s
    stable_window: 30s
    panic_window: 3s
    panic_threshold: 2.5
    max_down_rate: 3
    idle: 5m
    start_timeout: 60s
    preload: false
    process:
      command: serve --port ${PORT}
      env: {MODE: fast}
      directory: run
      stop: end
      stop_timeout: 5s
- name: two
  models: [o]
  ports: {grpc: 9001, metrics: 9002}
  scale:
    idle: none
    pin: true
    gpu: {memory: 4GiB}
    process:
      command: serve
      address: 127.0.0.1:9999
- name: three
  ports: {http: 90}
  endpoints: [{address: 10.0.0.4, weight: 2}, "[fd00::1]", host]
  scale: {webhook: {url: http://scaler/wanted}}
"#;

const TRAFFIC: &str = r#"routes:
- name: r
  match: {methods: [POST]}
  split:
  - {cluster: one, weight: 9}
  - {cluster: two, weight: 1}
  cutover: ready
  sticky: {json: /user}
  mirrors:
  - cluster: three
    name: shadow
    sample: 12.5%
    max_in_flight: 7
    max_lag: 2MiB
    max_bytes: 3MiB
    timeout: 3s
    demand: false
    request_headers: {set: {x-copy: a}}
    compare:
      sample: 50%
      noise: one
      headers: [content-type]
      ignore: [/id, /usage]
      tolerance: {abs: 0.5, rel: 0.25}
      array_order: false
      max_body: 4MiB
  record: {path: pairs.jsonl, url: "http://compare/ingest", sample: 1%, max_body: 5MiB, redact: [/prompt], max_file: 6MiB, keep: 8}
  retry: {attempts: 3, when: [reset, 502, 503-504], methods: [GET, PUT], budget: 10%, max_body: 7MiB, per_try: 1s}
  rate_limits: [{rate: 5/s, per: {json: /user}}]
  body:
    max: 1MiB
    replace:
    - {find: "<head>", with: "<head><script>", types: [text/html], once: true, ignore_case: true}
clusters:
- name: one
  endpoints: ["10.0.0.1:80", "10.0.0.2:80"]
  health: {kind: http, path: "/ready", port: 8000, status: [200, 400-402], interval: 6s, timeout: 3s, unhealthy: 4, healthy: 5}
  outlier: {consecutive_5xx: 6, base: 7s, max: 8s, keep_at_least: 1, slow_start: 9s}
- name: two
  endpoints: ["10.0.0.3:80"]
  health: {kind: tcp}
- name: three
  endpoints: ["10.0.0.4:80"]
  health: {kind: grpc, service: a.B}
"#;

/// Makes a file of a text.
pub(crate) fn source(name: &str, text: &str) -> SourceFile {
    SourceFile {
        name: name.into(),
        directory: PathBuf::new(),
        text: text.to_owned(),
    }
}

fn yaml_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(yaml_files(&path));
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Returns the file itself, the one inside a ConfigMap, or nothing for other Kubernetes manifests.
fn native(file: SourceFile) -> Option<SourceFile> {
    if !file.text.contains("\nkind: ") {
        return Some(file);
    }
    let (_, inner) = file.text.split_once("  forebay.yaml: |\n")?;
    let lines = inner
        .lines()
        .take_while(|line| line.is_empty() || line.starts_with("    "));
    let text: String = lines
        .map(|line| format!("{}\n", line.get(4..).unwrap_or_default()))
        .collect();
    Some(SourceFile { text, ..file })
}
