//! What is known of a kind of model server before any of them was asked.

use super::{Ports, ServerKind};

impl ServerKind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::Generic,
        Self::TensorflowServing,
        Self::Torchserve,
        Self::Onnxruntime,
        Self::Triton,
        Self::KserveV1,
        Self::KserveV2,
        Self::Vllm,
        Self::Sglang,
        Self::Tgi,
        Self::LlamaCpp,
        Self::Ollama,
        Self::Bentoml,
    ];

    /// The word of the configuration file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::TensorflowServing => "tensorflow-serving",
            Self::Torchserve => "torchserve",
            Self::Onnxruntime => "onnxruntime",
            Self::Triton => "triton",
            Self::KserveV1 => "kserve-v1",
            Self::KserveV2 => "kserve-v2",
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::Tgi => "tgi",
            Self::LlamaCpp => "llama.cpp",
            Self::Ollama => "ollama",
            Self::Bentoml => "bentoml",
        }
    }

    /// The ports it listens on unless it is told otherwise, in its image or, where there is none, as a program; `None`:
    /// it has no such port of its own.
    pub const fn ports(self) -> Ports {
        let (http, grpc, metrics) = match self {
            Self::Generic => (None, None, None),
            Self::TensorflowServing => (Some(8501), Some(8500), None),
            Self::Torchserve => (Some(8080), Some(7070), Some(8082)),
            Self::Onnxruntime => (Some(8001), Some(50051), None),
            Self::Triton => (Some(8000), Some(8001), Some(8002)),
            Self::KserveV1 => (Some(8080), None, None),
            Self::KserveV2 => (Some(8080), Some(8081), None),
            Self::Vllm => (Some(8000), None, None),
            Self::Sglang => (Some(30000), None, None),
            Self::Tgi => (Some(3000), None, None),
            Self::LlamaCpp => (Some(8080), None, None),
            Self::Ollama => (Some(11434), None, None),
            Self::Bentoml => (Some(3000), None, None),
        };
        Ports {
            http,
            grpc,
            metrics,
        }
    }

    /// True when its metrics tell how many requests wait inside it, as a number that rises and falls.
    pub const fn tells_queue(self) -> bool {
        match self {
            Self::Vllm | Self::Sglang | Self::Triton | Self::Tgi | Self::LlamaCpp => true,
            Self::Generic
            | Self::TensorflowServing
            | Self::Torchserve
            | Self::Onnxruntime
            | Self::KserveV1
            | Self::KserveV2
            | Self::Ollama
            | Self::Bentoml => false,
        }
    }

    /// True when its metrics tell what part of its KV cache is in use.
    pub const fn tells_kv_cache(self) -> bool {
        match self {
            Self::Vllm | Self::Sglang | Self::Triton => true,
            Self::Generic
            | Self::TensorflowServing
            | Self::Torchserve
            | Self::Onnxruntime
            | Self::KserveV1
            | Self::KserveV2
            | Self::Tgi
            | Self::LlamaCpp
            | Self::Ollama
            | Self::Bentoml => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_is_in_the_list_once_and_has_a_name_of_its_own() {
        let names: HashSet<&str> = ServerKind::ALL.map(ServerKind::as_str).into();
        assert_eq!(names.len(), ServerKind::ALL.len());
    }

    #[test]
    fn every_server_but_the_generic_one_has_a_port_and_none_has_one_twice() {
        for kind in ServerKind::ALL {
            let Ports {
                http,
                grpc,
                metrics,
            } = kind.ports();
            assert_eq!(http.is_some(), kind != ServerKind::Generic, "{kind:?}");
            let written: Vec<u16> = [http, grpc, metrics].into_iter().flatten().collect();
            let different: HashSet<u16> = written.iter().copied().collect();
            assert_eq!(different.len(), written.len(), "{kind:?}");
        }
    }
}
