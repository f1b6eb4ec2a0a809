//! Which kind of server a predictor is.

use crate::import::Fields;

/// Frameworks that are fields of a predictor.
pub(super) const FRAMEWORKS: &[&str] = &[
    "sklearn",
    "xgboost",
    "lightgbm",
    "pmml",
    "paddle",
    "tensorflow",
    "pytorch",
    "triton",
    "onnx",
    "huggingface",
];

/// A kind of server, and whether gRPC is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// Its native name.
    pub(super) kind: &'static str,
    /// HTTP/2 only.
    pub(super) grpc: bool,
}

/// What is spoken, as `protocolVersion` says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Protocol {
    version: Option<u8>,
    grpc: bool,
}

impl Protocol {
    fn read(fields: &Fields<'_>) -> Self {
        let written = fields.text("protocolVersion");
        let (version, grpc) = match written.as_ref().map(|word| word.as_str()) {
            None => (None, false),
            Some("v1") => (Some(1), false),
            Some("v2") => (Some(2), false),
            Some("grpc-v1") => (Some(1), true),
            Some("grpc-v2") => (Some(2), true),
            Some(_) => {
                fields.lost(
                    "protocolVersion",
                    "`v1`, `v2`, `grpc-v1` and `grpc-v2` are known",
                );
                (None, false)
            }
        };
        Self { version, grpc }
    }

    /// The kind of a server that speaks the protocols of KServe, with `usual` where nothing is written.
    fn kserve(self, usual: u8) -> &'static str {
        match self.version.unwrap_or(usual) {
            1 => "kserve-v1",
            _ => "kserve-v2",
        }
    }
}

/// Finds out what a predictor is.
pub(super) fn server(predictor: &Fields<'_>) -> Server {
    let framework = FRAMEWORKS.iter().find(|name| predictor.has(name));
    if let Some((name, fields)) = framework.and_then(|name| Some((name, predictor.map(name)?))) {
        let protocol = Protocol::read(&fields);
        stored(&fields);
        return Server {
            kind: by_format(name, protocol).unwrap_or("generic"),
            grpc: protocol.grpc,
        };
    }
    if let Some(model) = predictor.map("model") {
        return modelled(&model);
    }
    let image = predictor
        .maps("containers")
        .into_iter()
        .find_map(|container| container.text("image"));
    let kind = image.and_then(|image| by_runtime(image.as_str(), Protocol::default()));
    Server {
        kind: kind.unwrap_or("generic"),
        grpc: false,
    }
}

/// Reads what only the pods need.
fn stored(fields: &Fields<'_>) {
    fields.accept("storageUri");
    fields.accept("storage");
}

fn modelled(model: &Fields<'_>) -> Server {
    let protocol = Protocol::read(model);
    stored(model);
    let format = model.map("modelFormat");
    let format = format.and_then(|format| Some((format, format.text("name")?)));
    let runtime = model.text("runtime");
    let known = runtime
        .as_ref()
        .and_then(|runtime| by_runtime(runtime.as_str(), protocol));
    if let (Some(_), None) = (&runtime, known) {
        model.approximated(
            "runtime",
            "the kind of server comes from the model's format",
        );
    }
    let kind = known.or_else(|| {
        let (fields, name) = format.as_ref()?;
        let kind = by_format(&name.as_str().to_ascii_lowercase(), protocol);
        if kind.is_none() {
            let note = "no kind of server is known for it: set `server` of the cluster";
            fields.approximated("name", note);
        }
        kind
    });
    let usual = protocol.version.map(|_| protocol.kserve(2));
    Server {
        kind: kind.or(usual).unwrap_or("generic"),
        grpc: protocol.grpc,
    }
}

/// The kind by the name of a runtime or an image.
fn by_runtime(name: &str, protocol: Protocol) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let has = |part: &str| name.contains(part);
    Some(match () {
        () if has("tensorflow-serving") || has("tensorflow/serving") || has("tfserving") => {
            "tensorflow-serving"
        }
        () if has("triton") => "triton",
        () if has("mlserver") || has("ovms") || has("openvino") => "kserve-v2",
        () if has("vllm") => "vllm",
        () if has("sglang") => "sglang",
        () if has("tgi") || has("text-generation-inference") => "tgi",
        () if has("llama.cpp") || has("llamacpp") => "llama.cpp",
        () if has("ollama") => "ollama",
        () if has("huggingfaceserver") => protocol.kserve(2),
        () if has("torchserve") => protocol.kserve(1),
        () if ["sklearn", "xgb", "lgb", "pmml", "paddle", "predictive"]
            .iter()
            .any(|short| has(&format!("{short}server"))) =>
        {
            protocol.kserve(1)
        }
        () => return None,
    })
}

/// The kind by a model's format, as the runtimes that KServe brings serve it. Its image of TorchServe speaks the
/// protocols of KServe, not those of TorchServe.
fn by_format(name: &str, protocol: Protocol) -> Option<&'static str> {
    Some(match name {
        "tensorflow" if protocol.version == Some(2) => "triton",
        "tensorflow" => "tensorflow-serving",
        "triton" | "tensorrt" | "onnx" => "triton",
        "sklearn" | "xgboost" | "lightgbm" | "pmml" | "paddle" | "pytorch" => protocol.kserve(1),
        "huggingface" | "mlflow" | "openvino" | "openvino_ir" => protocol.kserve(2),
        "vllm" => "vllm",
        _ => return None,
    })
}
