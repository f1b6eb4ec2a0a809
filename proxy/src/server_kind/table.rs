//! The rows.

use std::time::Duration;

use forebay_config::ServerKind;

use super::{Errors, Gauges, ModelReady, Reads, Series, Server, Streaming};

/// Of a kind whose servers tell nothing over HTTP.
const SILENT: Server = Server {
    kind: ServerKind::Generic,
    name: ServerKind::Generic.as_str(),
    live: None,
    ready: None,
    model: None,
    patience: Duration::from_secs(2),
    metrics: None,
    flag: None,
    gauges: Gauges::NONE,
    errors: Errors::Object,
    streaming: Streaming::None,
};

/// Open Inference Protocol v2.
const OIP: Server = Server {
    live: Some("/v2/health/live"),
    ready: Some("/v2/health/ready"),
    model: Some(ModelReady {
        path: "/v2/models/{}/ready",
        port: None,
        reads: Reads::Status,
    }),
    errors: Errors::Text,
    ..SILENT
};

/// Servers of language models with one health check and OpenAI's protocol.
const LLM: Server = Server {
    live: Some("/health"),
    ready: Some("/health"),
    patience: Duration::from_secs(5),
    metrics: Some("/metrics"),
    streaming: Streaming::Events,
    ..SILENT
};

const fn gauge(name: &'static str) -> Series {
    Series { name, label: None }
}

const fn labelled(name: &'static str, label: &'static str, value: &'static str) -> Series {
    Series {
        name,
        label: Some((label, value)),
    }
}

macro_rules! servers {
    ($($kind:ident: $base:ident {$($column:ident: $value:expr,)*})*) => {
        /// Every server kind.
        pub static SERVERS: &[Server] = &[$(Server {
            kind: ServerKind::$kind,
            name: ServerKind::$kind.as_str(),
            $($column: $value,)*
            ..$base
        }),*];

        /// The row of a kind.
        pub fn of(kind: ServerKind) -> &'static Server {
            match kind {
                $(ServerKind::$kind => const {
                    &Server {
                        kind: ServerKind::$kind,
                        name: ServerKind::$kind.as_str(),
                        $($column: $value,)*
                        ..$base
                    }
                }),*
            }
        }
    };
}

servers! {
    Generic: SILENT {
        streaming: Streaming::Chunks,
    }
    TensorflowServing: SILENT {
        model: Some(ModelReady { path: "/v1/models/{}", port: None, reads: Reads::Available }),
        metrics: Some("/monitoring/prometheus/metrics"),
        flag: Some("--monitoring_config_file"),
        errors: Errors::Text,
    }
    Torchserve: SILENT {
        live: Some("/ping"),
        ready: Some("/ping"),
        model: Some(ModelReady { path: "/models/{}", port: Some(8081), reads: Reads::Workers }),
        metrics: Some("/metrics"),
        flag: Some("metrics_mode=prometheus"),
        streaming: Streaming::Chunks,
    }
    Onnxruntime: SILENT {
        live: Some("/"),
        errors: Errors::Text,
    }
    Triton: OIP {
        metrics: Some("/metrics"),
        gauges: Gauges {
            running: &[labelled("nv_trt_llm_request_metrics", "request_type", "scheduled")],
            // Not `nv_inference_exec_count`: that only grows.
            queue: &[
                labelled("nv_trt_llm_request_metrics", "request_type", "waiting"),
                gauge("nv_inference_pending_request_count"),
            ],
            kv_cache: &[labelled("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type", "fraction")],
        },
        streaming: Streaming::Events,
    }
    KserveV1: SILENT {
        live: Some("/"),
        ready: Some("/"),
        model: Some(ModelReady { path: "/v1/models/{}", port: None, reads: Reads::Status }),
        errors: Errors::Text,
    }
    KserveV2: OIP {}
    Vllm: LLM {
        gauges: Gauges {
            running: &[gauge("vllm:num_requests_running")],
            queue: &[gauge("vllm:num_requests_waiting")],
            // The second is what it was called before 0.9.
            kv_cache: &[gauge("vllm:kv_cache_usage_perc"), gauge("vllm:gpu_cache_usage_perc")],
        },
    }
    // Its health check generates a token, which takes from one to twenty seconds.
    Sglang: LLM {
        patience: Duration::from_secs(20),
        flag: Some("--enable-metrics"),
        gauges: Gauges {
            running: &[gauge("sglang:num_running_reqs")],
            queue: &[gauge("sglang:num_queue_reqs")],
            kv_cache: &[gauge("sglang:token_usage")],
        },
    }
    Tgi: LLM {
        gauges: Gauges {
            running: &[gauge("tgi_batch_current_size")],
            queue: &[gauge("tgi_queue_size")],
            kv_cache: &[],
        },
    }
    LlamaCpp: LLM {
        flag: Some("--metrics"),
        gauges: Gauges {
            running: &[gauge("llamacpp:requests_processing")],
            queue: &[gauge("llamacpp:requests_deferred")],
            kv_cache: &[],
        },
    }
    Ollama: SILENT {
        live: Some("/api/version"),
        ready: Some("/api/version"),
        streaming: Streaming::Lines,
    }
    Bentoml: SILENT {
        live: Some("/livez"),
        ready: Some("/readyz"),
        metrics: Some("/metrics"),
        gauges: Gauges {
            running: &[gauge("bentoml_service_request_in_progress")],
            queue: &[],
            kv_cache: &[],
        },
        streaming: Streaming::Chunks,
    }
}
