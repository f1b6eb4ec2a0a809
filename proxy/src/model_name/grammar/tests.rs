//! The table row by row, with paths of real clients.

use http::HeaderValue;

use super::*;

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())
    };
    fields.iter().map(pair).collect()
}

/// The name in `METHOD path[?query]`; `json`, `form`, `grpc …`, `encoded` or `-` where it is not in the URL.
fn named(
    grammar: Grammar,
    request: &str,
    fields: &[(&'static str, &str)],
    bodiless: bool,
) -> String {
    let (method, target) = request.split_once(' ').unwrap();
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let headers = headers(fields);
    let method = method.parse().unwrap();
    let head = Head {
        method: &method,
        path,
        query,
        headers: &headers,
        bodiless,
    };
    match grammar.place(&head) {
        Place::Nowhere => "-".into(),
        Place::Encoded => "encoded".into(),
        Place::Path(range) => decoded(&path[range]).unwrap().into_owned(),
        Place::Query(range) => form_decoded(&query.unwrap()[range]).unwrap().into_owned(),
        Place::Body(Format::Json(names)) => format!("json {}", names.join("|")),
        Place::Body(Format::Form(boundary)) => {
            format!("form {}", String::from_utf8_lossy(&boundary))
        }
        Place::Body(Format::Grpc { nested, stream }) => format!("grpc {nested} {stream}"),
    }
}

fn check(kinds: &[ServerKind], cases: &[(&str, &str)]) {
    for kind in kinds {
        for (request, want) in cases {
            let bodiless = request.starts_with("GET") || request.starts_with("HEAD");
            assert_eq!(
                named(Grammar::of(*kind), request, &[], bodiless),
                *want,
                "{kind:?} {request}"
            );
        }
    }
}

#[test]
fn tensorflow_serving_and_onnx_runtime() {
    check(
        &[ServerKind::TensorflowServing, ServerKind::Onnxruntime],
        &[
            ("POST /v1/models/resnet:predict", "resnet"),
            ("POST /v1/models/resnet/versions/3:classify", "resnet"),
            ("POST /v1/models/resnet/labels/stable:regress", "resnet"),
            ("GET /v1/models/resnet", "resnet"),
            ("GET /v1/models/resnet/versions/3", "resnet"),
            ("GET /v1/models/resnet/metadata", "resnet"),
            ("GET /v1/models/res%20net%C3%BC/metadata", "res netü"),
            ("GET /v1/models", "-"),
            ("GET /v1/models/", "-"),
            ("POST /v1/models/:predict", "-"),
            ("GET /v1/models/a/b", "-"),
            ("POST /v2/models/m/infer", "-"),
            ("POST /v1/chat/completions", "-"),
        ],
    );
}

#[test]
fn torchserve() {
    check(
        &[ServerKind::Torchserve],
        &[
            ("POST /predictions/densenet161", "densenet161"),
            ("POST /predictions/densenet161/2.0", "densenet161"),
            ("POST /explanations/mnist", "mnist"),
            ("GET /models/mnist", "mnist"),
            ("GET /models", "-"),
            ("GET /ping", "-"),
            ("POST /v1/models/m:predict", "-"),
        ],
    );
}

#[test]
fn triton_and_kserve() {
    let common = [
        ("POST /v2/models/m/infer", "m"),
        ("POST /v2/models/m/versions/1/infer", "m"),
        ("POST /v2/models/m/generate_stream", "m"),
        ("GET /v2/models/m/ready", "m"),
        ("GET /v2/models/m", "m"),
        ("GET /v2/models/stats", "-"),
        ("GET /v2/models/m/stats", "m"),
        ("POST /v2/repository/models/m/load", "m"),
        ("GET /v2/health/ready", "-"),
        ("GET /v2", "-"),
    ];
    check(
        &[
            ServerKind::Triton,
            ServerKind::KserveV1,
            ServerKind::KserveV2,
        ],
        &common,
    );
    check(
        &[ServerKind::Triton],
        &[
            ("POST /api/infer/m", "m"),
            ("GET /api/status/m", "m"),
            ("POST /v1/models/m:predict", "-"),
        ],
    );
    check(
        &[ServerKind::KserveV1, ServerKind::KserveV2],
        &[
            ("POST /v1/models/m:predict", "m"),
            ("POST /v1/models/m:explain", "m"),
            ("GET /v1/models/m", "m"),
            ("POST /openai/v1/chat/completions", "json model"),
        ],
    );
}

#[test]
fn servers_of_language_models() {
    let kinds = [
        ServerKind::Vllm,
        ServerKind::Sglang,
        ServerKind::Tgi,
        ServerKind::LlamaCpp,
        ServerKind::Bentoml,
        ServerKind::Ollama,
    ];
    check(
        &kinds,
        &[
            ("POST /v1/chat/completions", "json model"),
            ("POST /v1/embeddings?model=x", "json model"),
            ("GET /v1/realtime?x=1&model=gpt%2Fr+t", "gpt/r t"),
            ("GET /v1/realtime?model=a&model=b", "-"),
            ("GET /v1/models/org/m:7b", "org/m:7b"),
            ("DELETE /v1/models/ft%3Am", "ft:m"),
            ("POST /v2/models/m/infer", "json model"),
            ("GET /v1/models", "-"),
            ("GET /health", "-"),
        ],
    );
    check(
        &[ServerKind::Ollama],
        &[
            ("POST /api/chat", "json model|name"),
            ("POST /v1/completions", "json model"),
        ],
    );
    check(&[ServerKind::Bentoml], &[("POST /classify", "json model")]);
}

#[test]
fn anything_else_is_looked_for_everywhere() {
    check(
        &[ServerKind::Generic],
        &[
            ("POST /v1/models/m:predict", "m"),
            ("GET /v1/models/m", "m"),
            ("GET /v1/models/llama3:8b", "llama3:8b"),
            ("GET /v1/models/org/m", "org/m"),
            ("POST /v2/models/m/infer", "m"),
            ("POST /predictions/m", "m"),
            ("POST /api/infer/m", "m"),
            ("POST /v1/completions", "json model"),
            ("POST /api/show", "json model|name"),
        ],
    );
}

#[test]
fn bodies_by_their_type() {
    let vllm = Grammar::of(ServerKind::Vllm);
    let place = |fields: &[(&'static str, &str)]| {
        named(vllm, "POST /v1/audio/transcriptions", fields, false)
    };
    let multipart = "multipart/form-data";
    for (content_type, want) in [
        ("multipart/form-data; boundary=abc", "form abc"),
        (
            "Multipart/Form-Data; charset=utf-8; Boundary=\"a b;c\"",
            "form a b;c",
        ),
        (multipart, "-"),
        ("multipart/form-data; boundary=", "-"),
        ("multipart/form-data; boundary=a; boundary=b", "-"),
        ("multipart/form-data; boundary=\"a\\b\"", "-"),
        ("multipart/form-data; boundary*=utf-8''a", "-"),
        ("multipart/form-data; boundary*0=a; boundary*1=b", "-"),
        ("multipart/form-data; boundary=a; charset=utf-7", "encoded"),
        ("multipart/form-data-x; boundary=a", "json model"),
        ("application/json; charset=UTF-8", "json model"),
        ("application/json; charset=\"iso-8859-1\"", "json model"),
        ("application/json; charset=utf-16", "encoded"),
        ("application/json", "json model"),
        ("application/x-www-form-urlencoded", "json model"),
    ] {
        assert_eq!(
            place(&[("content-type", content_type)]),
            want,
            "{content_type}"
        );
    }
    let two = [
        ("content-type", "application/json"),
        ("content-type", "multipart/form-data; boundary=a"),
    ];
    assert_eq!(place(&two), "-");
    assert_eq!(place(&[("content-encoding", "gzip")]), "encoded");
    assert_eq!(place(&[("content-encoding", "Identity")]), "json model");
    let tensorflow = Grammar::of(ServerKind::TensorflowServing);
    let gzip = [("content-encoding", "gzip")];
    assert_eq!(
        named(tensorflow, "POST /v1/models/m:predict", &gzip, false),
        "m"
    );
}

#[test]
fn grpc_by_service_and_method() {
    let grpc = [("content-type", "application/grpc")];
    let place = |kind, path: &str| named(Grammar::of(kind), &format!("POST {path}"), &grpc, false);
    use ServerKind::{Generic, KserveV2, TensorflowServing, Torchserve, Triton, Vllm};
    for (kind, path, want) in [
        (
            Triton,
            "/inference.GRPCInferenceService/ModelInfer",
            "grpc false false",
        ),
        (
            KserveV2,
            "/inference.GRPCInferenceService/ModelStreamInfer",
            "grpc false true",
        ),
        (Triton, "/inference.GRPCInferenceService/ServerLive", "-"),
        (
            TensorflowServing,
            "/tensorflow.serving.PredictionService/Predict",
            "grpc true false",
        ),
        (
            TensorflowServing,
            "/tensorflow.serving.ModelService/GetModelStatus",
            "grpc true false",
        ),
        (
            TensorflowServing,
            "/inference.GRPCInferenceService/ModelInfer",
            "-",
        ),
        (
            Torchserve,
            "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions",
            "grpc false false",
        ),
        (
            Generic,
            "/tensorflow.serving.PredictionService/Predict",
            "grpc true false",
        ),
        (Generic, "/own.Service/Call", "-"),
        (Vllm, "/v1/chat/completions", "-"),
    ] {
        assert_eq!(place(kind, path), want, "{kind:?} {path}");
    }
}

#[test]
fn a_name_is_written_so_that_it_is_read_again() {
    for name in ["m", "org/model:7b", "ü 100%", "a?b#c&d=e+f", ""] {
        assert_eq!(decoded(&encoded(name)).unwrap(), name);
        assert_eq!(form_decoded(&encoded(name)).unwrap(), name);
        assert!(
            encoded(name)
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b))
        );
    }
    assert_eq!(decoded("%ff"), None);
    assert_eq!(decoded("%4"), Some("%4".into()));
}
