//! The contract of each row, and of the table with the rest.

use forebay_config::load::{SourceFile, load};

use super::*;
use crate::signals::{Lack, Scanner};

fn cluster(kind: ServerKind, keys: &str) -> Cluster {
    let source = SourceFile {
        name: "a.yaml".into(),
        directory: "/".into(),
        text: format!(
            "clusters: [{{name: a, server: {}, endpoints: ['127.0.0.1:1'], {keys}}}]",
            kind.as_str()
        ),
    };
    let mut config = load(&[source], &|_| None).unwrap().config;
    Cluster::clone(&config.clusters.pop().unwrap())
}

/// What each kind promises: live, ready, the path of a model and the answer that says that it is ready, patience.
type Contract = (
    ServerKind,
    Option<&'static str>,
    Option<&'static str>,
    Option<(&'static str, Option<u16>, &'static str)>,
    u64,
);

const CONTRACTS: [Contract; 13] = {
    use ServerKind::*;
    const HEALTH: Option<&str> = Some("/health");
    const OIP: Option<&str> = Some("/v2/health/ready");
    const OIP_LIVE: Option<&str> = Some("/v2/health/live");
    const OIP_MODEL: Option<(&str, Option<u16>, &str)> = Some(("/v2/models/m%2F1/ready", None, ""));
    const AVAILABLE: &str =
        r#"{"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": {}}]}"#;
    const WORKERS: &str =
        r#"[{"modelName": "m/1", "workers": [{"id": "9000", "status": "READY"}]}]"#;
    const V1: &str = r#"{"name": "m/1", "ready": true}"#;
    [
        (Generic, None, None, None, 2),
        (
            TensorflowServing,
            None,
            None,
            Some(("/v1/models/m%2F1", None, AVAILABLE)),
            2,
        ),
        (
            Torchserve,
            Some("/ping"),
            Some("/ping"),
            Some(("/models/m%2F1", Some(8081), WORKERS)),
            2,
        ),
        (Onnxruntime, Some("/"), None, None, 2),
        (Triton, OIP_LIVE, OIP, OIP_MODEL, 2),
        (
            KserveV1,
            Some("/"),
            Some("/"),
            Some(("/v1/models/m%2F1", None, V1)),
            2,
        ),
        (KserveV2, OIP_LIVE, OIP, OIP_MODEL, 2),
        (Vllm, HEALTH, HEALTH, None, 5),
        (Sglang, HEALTH, HEALTH, None, 20),
        (Tgi, HEALTH, HEALTH, None, 5),
        (LlamaCpp, HEALTH, HEALTH, None, 5),
        (Ollama, Some("/api/version"), Some("/api/version"), None, 2),
        (Bentoml, Some("/livez"), Some("/readyz"), None, 2),
    ]
};

#[test]
fn each_kind_is_checked_as_its_documents_say() {
    for (kind, live, ready, model, patience) in CONTRACTS {
        let (server, name) = (of(kind), kind.as_str());
        assert_eq!((server.live, server.ready), (live, ready), "{name}");
        assert_eq!(server.patience, Duration::from_secs(patience), "{name}");
        let plain = cluster(kind, "");
        let http = kind.ports().http.unwrap_or(1);
        assert_eq!(question(&plain, http), None, "{name}: no model is named");
        let health = readiness(&plain);
        assert_eq!(health.timeout, server.patience, "{name}");
        let path = match &health.kind {
            HealthKind::Http { path, .. } => Some(path.as_str()),
            _ => None,
        };
        assert_eq!(path, ready, "{name}");
        assert_eq!(says_ready(&plain), ready.is_some(), "{name}");

        let named = cluster(kind, "models: [m/1, other]");
        assert_eq!(
            says_ready(&named),
            ready.is_some() || model.is_some(),
            "{name}"
        );
        let asked = question(&named, http);
        assert_eq!(asked.is_some(), model.is_some(), "{name}");
        if let (Some(asked), Some((path, port, answer))) = (asked, model) {
            assert_eq!((asked.path.as_str(), asked.port), (path, port), "{name}");
            assert_eq!(asked.reads.fault(answer.as_bytes()), None, "{name}");
        }
    }
    assert_eq!(CONTRACTS.map(|contract| contract.0), ServerKind::ALL);
}

#[test]
fn a_server_is_asked_for_a_model_only_where_it_answers() {
    let named = |kind, keys: &str| cluster(kind, &format!("models: [m], {keys}"));
    let tensorflow = named(ServerKind::TensorflowServing, "");
    assert!(question(&tensorflow, 8501).is_some() && question(&tensorflow, 9000).is_some());
    assert_eq!(question(&tensorflow, 8500), None, "that is gRPC");
    let http2 = named(ServerKind::TensorflowServing, "protocol: http2");
    assert_eq!(question(&http2, 8501), None, "and so is this");
    let torchserve = named(ServerKind::Torchserve, "");
    assert_eq!(
        question(&torchserve, 9000),
        None,
        "nobody knows where it is managed"
    );
    let checked = named(ServerKind::Triton, "health: {path: /x}");
    assert_eq!(question(&checked, 8000), None, "as written");
    let often = named(ServerKind::Triton, "health: {interval: 1s}");
    assert!(question(&often, 8000).is_some());
}

/// Recorded pages, and what they say: running, waiting, the part of the KV cache that is used.
#[test]
fn each_kind_tells_what_its_page_says() {
    const NO: Result<f64, Lack> = Err(Lack::Missing);
    let all = [Ok(12.0), Ok(7.0), Ok(0.625)];
    let no_cache = [Ok(12.0), Ok(7.0), NO];
    for (kind, page, told) in [
        (ServerKind::Vllm, include_str!("pages/vllm.txt"), all),
        (ServerKind::Sglang, include_str!("pages/sglang.txt"), all),
        (ServerKind::Tgi, include_str!("pages/tgi.txt"), no_cache),
        (
            ServerKind::LlamaCpp,
            include_str!("pages/llama.cpp.txt"),
            no_cache,
        ),
        (
            ServerKind::Triton,
            include_str!("pages/triton.txt"),
            [NO, Ok(7.0), NO],
        ),
        (
            ServerKind::Triton,
            include_str!("pages/triton-tensorrt-llm.txt"),
            all,
        ),
        (
            ServerKind::Torchserve,
            include_str!("pages/torchserve.txt"),
            [NO; 3],
        ),
        (
            ServerKind::TensorflowServing,
            include_str!("pages/tensorflow-serving.txt"),
            [NO; 3],
        ),
        (
            ServerKind::Bentoml,
            include_str!("pages/bentoml.txt"),
            [Ok(12.0), NO, NO],
        ),
    ] {
        let mut scanner = Scanner::new(&of(kind).gauges);
        scanner.feed(page.as_bytes());
        assert_eq!(scanner.finish(), told, "{}", kind.as_str());
        assert!(of(kind).metrics.is_some(), "{}", kind.as_str());
        // The same names as counters are something else.
        let mut scanner = Scanner::new(&of(kind).gauges);
        scanner.feed(page.replace(" gauge\n", " counter\n").as_bytes());
        let refused = told.map(|one| one.and(Err(Lack::NotGauge)));
        assert_eq!(scanner.finish(), refused, "{}", kind.as_str());
    }
}

#[test]
fn a_target_is_legal_where_a_server_tells_it() {
    for kind in ServerKind::ALL {
        let gauges = &of(kind).gauges;
        assert_eq!(
            !gauges.queue.is_empty(),
            kind.tells_queue(),
            "{}",
            kind.as_str()
        );
        assert_eq!(
            !gauges.kv_cache.is_empty(),
            kind.tells_kv_cache(),
            "{}",
            kind.as_str()
        );
        for signal in Signal::ALL {
            let names = gauges.of(signal);
            assert!(names.len() <= MOST_ALIASES, "{}", kind.as_str());
            assert!(
                names.is_empty() || of(kind).metrics.is_some(),
                "{}",
                kind.as_str()
            );
        }
    }
}

#[test]
fn each_kind_has_one_row_under_its_own_name() {
    assert_eq!(
        SERVERS.iter().map(|s| s.kind).collect::<Vec<_>>(),
        ServerKind::ALL
    );
    for server in SERVERS {
        assert_eq!(of(server.kind), server);
        assert_eq!(server.name, server.kind.as_str());
        let model = server.model.map(|model| model.path);
        let paths = [server.live, server.ready, model, server.metrics];
        for path in paths.into_iter().flatten() {
            assert!(path.starts_with('/'), "{}", server.name);
        }
    }
}

#[test]
fn a_metrics_page_is_where_it_is_written_or_usual() {
    let triton = cluster(ServerKind::Triton, "");
    assert_eq!(metrics_port(&triton, 8000), 8002);
    assert_eq!(metrics_port(&triton, 30800), 30800, "a port of its own");
    let written = cluster(ServerKind::Triton, "ports: {metrics: 9100}");
    assert_eq!(
        (metrics_port(&written, 8000), metrics_port(&written, 1)),
        (9100, 9100)
    );
    assert_eq!(metrics_port(&cluster(ServerKind::Vllm, ""), 8000), 8000);
}

#[test]
fn probes_are_told_from_requests() {
    assert!(is_probe(ServerKind::Triton, "/v2/health/ready", None));
    assert!(is_probe(ServerKind::KserveV2, "/v2/models/m/ready", None));
    assert!(is_probe(ServerKind::LlamaCpp, "/health", Some("curl/8")));
    assert!(is_probe(ServerKind::Generic, "/x", Some("kube-probe/1.30")));
    assert!(
        !is_probe(ServerKind::KserveV1, "/", None),
        "a page of its own"
    );
    assert!(!is_probe(
        ServerKind::TensorflowServing,
        "/v1/models/m",
        None
    ));
    assert!(!is_probe(ServerKind::Triton, "/v2/models/m/infer", None));
    assert!(!is_probe(ServerKind::Vllm, "/v1/models", None));
}

#[test]
fn the_table_for_people_is_this_one() {
    let written = include_str!("README.md");
    assert!(
        written == reference(),
        "server_kind/README.md should be:\n{}",
        reference()
    );
}

#[test]
fn checks_that_do_not_say_what_is_asked_ask_as_the_server_wants() {
    let slow = readiness(&cluster(
        ServerKind::Sglang,
        "health: {interval: 3s, timeout: 1s}",
    ));
    let path = match &slow.kind {
        HealthKind::Http { path, .. } => path.as_str(),
        _ => "",
    };
    assert_eq!(path, "/health");
    assert_eq!(
        (slow.interval, slow.timeout),
        (Duration::from_secs(3), Duration::from_secs(20)),
        "it needs that long"
    );
    let tensorflow = readiness(&cluster(ServerKind::TensorflowServing, "health: {}"));
    assert_eq!(tensorflow.kind, HealthKind::Tcp);
    for written in [
        "health: {path: /x}",
        "health: {kind: http}",
        "health: {port: 9}",
    ] {
        let health = readiness(&cluster(ServerKind::Vllm, written));
        assert_eq!(health.timeout, Duration::from_secs(2), "{written}");
    }
    let generic = readiness(&cluster(ServerKind::Generic, "health: {}"));
    assert!(matches!(generic.kind, HealthKind::Http { .. }));
}

#[test]
fn endpoints_without_ports_have_the_usual_ones() {
    let ports = |endpoints: &str, keys: &str| {
        let text =
            format!("clusters: [{{name: a, server: triton, endpoints: [{endpoints}], {keys}}}]");
        let source = SourceFile {
            name: "a.yaml".into(),
            directory: "/".into(),
            text,
        };
        let config = load(&[source], &|_| None).unwrap().config;
        config.clusters[0].ports.grpc
    };
    assert_eq!(ports("h, '10.0.0.1'", ""), Some(8001));
    assert_eq!(ports("h", "ports: {grpc: 9}"), Some(9));
    assert_eq!(ports("h", "ports: {http: 80}"), None);
    assert_eq!(ports("h, 'g:8000'", ""), None, "that one says itself where");
}
