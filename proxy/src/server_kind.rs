//! What each model server speaks, as one table of data.
//!
//! Sources are the servers' own documents: ports, liveness and readiness as they ship; where a server has no readiness
//! of its own, a connection counts.

use std::num::NonZeroU32;
use std::time::Duration;

use forebay_config::{Cluster, Health, HealthKind, ServerKind};
use http::StatusCode;

/// One model server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// Whose row it is.
    pub kind: ServerKind,
    /// As in the configuration.
    pub name: &'static str,
    /// Path that says the process lives; `None`: it has none.
    pub live: Option<&'static str>,
    /// Path that answers 200 once requests can be served; `None`: it accepts connections no earlier than that.
    pub ready: Option<&'static str>,
    /// How long an answer to `ready` may take.
    pub patience: Duration,
}

macro_rules! servers {
    ($($kind:ident $name:literal live $live:expr, ready $ready:expr, within $seconds:literal;)*) => {
        /// Every server kind.
        pub static SERVERS: &[Server] = &[$(Server {
            kind: ServerKind::$kind,
            name: $name,
            live: $live,
            ready: $ready,
            patience: Duration::from_secs($seconds),
        }),*];

        /// The row of a kind.
        pub fn of(kind: ServerKind) -> &'static Server {
            match kind {
                $(ServerKind::$kind => const {
                    &Server {
                        kind: ServerKind::$kind,
                        name: $name,
                        live: $live,
                        ready: $ready,
                        patience: Duration::from_secs($seconds),
                    }
                }),*
            }
        }
    };
}

servers! {
    Generic "generic" live None, ready None, within 2;
    TensorflowServing "tensorflow-serving" live None, ready None, within 2;
    Torchserve "torchserve" live Some("/ping"), ready Some("/ping"), within 2;
    Onnxruntime "onnxruntime" live Some("/"), ready None, within 2;
    Triton "triton" live Some("/v2/health/live"), ready Some("/v2/health/ready"), within 2;
    KserveV1 "kserve-v1" live Some("/"), ready Some("/"), within 2;
    KserveV2 "kserve-v2" live Some("/v2/health/live"), ready Some("/v2/health/ready"), within 2;
    Vllm "vllm" live Some("/health"), ready Some("/health"), within 5;
    // Its health check generates a token, which takes from one to twenty seconds.
    Sglang "sglang" live Some("/health"), ready Some("/health"), within 20;
    Tgi "tgi" live Some("/health"), ready Some("/health"), within 5;
    LlamaCpp "llama.cpp" live Some("/health"), ready Some("/health"), within 5;
    Ollama "ollama" live Some("/api/version"), ready Some("/api/version"), within 2;
    Bentoml "bentoml" live Some("/livez"), ready Some("/readyz"), within 2;
}

/// How a cluster's endpoints say that they are ready: by its `health`, else as its servers do.
pub fn readiness(cluster: &Cluster) -> Health {
    if let Some(health) = &cluster.health {
        return health.clone();
    }
    let server = of(cluster.server);
    let one = const { NonZeroU32::new(1).unwrap() };
    Health {
        kind: match server.ready {
            None => HealthKind::Tcp,
            Some(path) => HealthKind::Http {
                path: path.to_owned(),
                status: vec![StatusCode::OK],
            },
        },
        port: None,
        interval: Duration::from_secs(1),
        timeout: server.patience,
        unhealthy: one,
        healthy: one,
    }
}

/// True when a request asks only whether the server is there: it is no demand.
///
/// * `path`: canonical
/// * `agent`: `user-agent`, if the request has one
pub fn is_probe(kind: ServerKind, path: &str, agent: Option<&str>) -> bool {
    /// Who asks for its health from outside.
    const AGENTS: [&str; 4] = [
        "kube-probe/",
        "Prometheus/",
        "ELB-HealthChecker/",
        "GoogleHC/",
    ];
    let server = of(kind);
    let asked = |at: Option<&str>| at == Some(path) && path != "/";
    asked(server.live)
        || asked(server.ready)
        || agent.is_some_and(|agent| AGENTS.iter().any(|known| agent.starts_with(known)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_one_row_under_its_own_name() {
        for server in SERVERS {
            assert_eq!(of(server.kind), server);
            let others = SERVERS.iter().filter(|other| other.name == server.name);
            assert_eq!(others.count(), 1, "{}", server.name);
            let paths = server.live.into_iter().chain(server.ready);
            assert!(
                paths.into_iter().all(|path| path.starts_with('/')),
                "{}",
                server.name
            );
        }
        assert_eq!(SERVERS.len(), 13);
    }

    #[test]
    fn probes_are_told_from_requests() {
        assert!(is_probe(ServerKind::Triton, "/v2/health/ready", None));
        assert!(is_probe(ServerKind::LlamaCpp, "/health", Some("curl/8")));
        assert!(is_probe(ServerKind::Generic, "/x", Some("kube-probe/1.30")));
        assert!(
            !is_probe(ServerKind::KserveV1, "/", None),
            "a page of its own"
        );
        assert!(!is_probe(ServerKind::Vllm, "/v1/models", None));
    }
}
