//! Where the name of a model is, by kind of server: one table, and what its words mean.

use std::borrow::Cow;
use std::ops::{BitOr, Range};

use forebay_config::ServerKind;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Method};

use super::part::{is_utf8, parameters};
use crate::outgoing::is_grpc;

/// A set of ways to name a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grammar(u8);

/// `/v1/models/NAME[/versions/V|/labels/L][:verb|/metadata]`: TensorFlow Serving and KServe's first protocol.
const V1: Grammar = Grammar(1);
/// `/v2/models/NAME/…`: the Open Inference Protocol.
const V2: Grammar = Grammar(2);
/// `/predictions/NAME`, `/explanations/NAME`, `/models/NAME`, and gRPC: TorchServe.
const TORCH: Grammar = Grammar(4);
/// `/api/infer/NAME`: Triton before it had that name.
const TRTIS: Grammar = Grammar(8);
/// `model` in a JSON body, in a form or in the query; `GET /v1/models/NAME`: OpenAI's API.
const OPENAI: Grammar = Grammar(16);
/// `name` in place of `model` in JSON bodies of `/api/…`: older clients of Ollama.
const OLLAMA: Grammar = Grammar(32);
/// gRPC of the Open Inference Protocol.
const GRPC_V2: Grammar = Grammar(64);
/// gRPC of TensorFlow Serving.
const GRPC_TF: Grammar = Grammar(128);

impl BitOr for Grammar {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The head of a request, as far as it says where the name is.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// As it was sent.
    pub method: &'a Method,
    /// Canonical, as the servers see it.
    pub path: &'a str,
    /// Without the question mark.
    pub query: Option<&'a str>,
    /// All fields.
    pub headers: &'a HeaderMap,
    /// There is no body.
    pub bodiless: bool,
}

/// Where a request names its model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere that these servers look.
    Nowhere,
    /// Perhaps in the body, which is compressed or not in UTF-8, and therefore not looked into.
    Encoded,
    /// In these bytes of the path, percent-encoded.
    Path(Range<usize>),
    /// In these bytes of the query, encoded as a form.
    Query(Range<usize>),
    /// In the body, if it is there at all.
    Body(Format),
}

/// How a body is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// A member of the object that a JSON document is; any of these names.
    Json(&'static [&'static str]),
    /// A field of a form, behind this boundary.
    Form(Box<[u8]>),
    /// The first field of the first message.
    Grpc {
        /// The name is the first field of a message that is the first field: TensorFlow Serving's `model_spec`.
        nested: bool,
        /// More messages may follow, each with a name.
        stream: bool,
    },
}

impl Grammar {
    /// How servers of a kind find the name.
    pub const fn of(kind: ServerKind) -> Self {
        const fn all(list: &[Grammar]) -> Grammar {
            let (mut set, mut at) = (0, 0);
            while at < list.len() {
                set |= list[at].0;
                at += 1;
            }
            Grammar(set)
        }
        match kind {
            ServerKind::Generic => Self(u8::MAX),
            ServerKind::TensorflowServing => const { all(&[V1, GRPC_TF]) },
            ServerKind::Torchserve => TORCH,
            ServerKind::Onnxruntime => V1,
            ServerKind::Triton => const { all(&[V2, TRTIS, GRPC_V2]) },
            // Its runtimes for language models speak OpenAI's API below `/openai/`.
            ServerKind::KserveV1 | ServerKind::KserveV2 => {
                const { all(&[V1, V2, GRPC_V2, OPENAI]) }
            }
            ServerKind::Vllm | ServerKind::Sglang | ServerKind::Tgi | ServerKind::LlamaCpp => {
                OPENAI
            }
            ServerKind::Ollama => const { all(&[OPENAI, OLLAMA]) },
            // The first segment of its path is the name of an API, not of a model.
            ServerKind::Bentoml => OPENAI,
        }
    }

    /// True for the empty set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// True when `GET /v1/models/NAME` asks a server for the state of its model.
    pub(super) const fn has_status(self) -> bool {
        self.has(V1)
    }

    /// Where a request names its model: in the URL, else in the body, else, without a body, in the query.
    pub fn place(self, head: &Head<'_>) -> Place {
        let mut types = head.headers.get_all(CONTENT_TYPE).iter();
        let media_type = types.next().map_or(&b""[..], |value| value.as_bytes());
        let one_type = types.next().is_none();
        if one_type && !media_type.is_empty() && is_grpc(head.headers) {
            return match self.grpc(head.path) {
                Some((nested, stream)) => Place::Body(Format::Grpc { nested, stream }),
                None => Place::Nowhere,
            };
        }
        if let Some(range) = self.in_path(head.method, head.path) {
            return Place::Path(range);
        }
        if !self.has(OPENAI) {
            return Place::Nowhere;
        }
        if head.bodiless {
            let value = head.query.and_then(|query| form_value(query, "model"));
            return value.map_or(Place::Nowhere, Place::Query);
        }
        let encodings = head.headers.get_all(CONTENT_ENCODING).iter();
        let mut encodings = encodings.map(|value| value.as_bytes().trim_ascii());
        if encodings.any(|value| !value.is_empty() && !value.eq_ignore_ascii_case(b"identity")) {
            return Place::Encoded;
        }
        if !one_type {
            return Place::Nowhere; // who knows which one counts
        }
        if !parameters(media_type, "charset").iter().all(is_utf8) {
            return Place::Encoded;
        }
        if is_form(media_type) {
            return match boundary(media_type) {
                Some(boundary) => Place::Body(Format::Form(boundary)),
                None => Place::Nowhere,
            };
        }
        // Whatever it is called: curl calls everything a form, and Ollama reads it as JSON all the same.
        let names: &[&str] = match self.has(OLLAMA) && head.path.starts_with("/api/") {
            true => &["model", "name"],
            false => &["model"],
        };
        Place::Body(Format::Json(names))
    }

    /// The bytes of a path that name a model.
    fn in_path(self, method: &Method, path: &str) -> Option<Range<usize>> {
        let segment = |prefix: &str| {
            let rest = path.strip_prefix(prefix)?;
            let end = rest.find('/').unwrap_or(rest.len());
            (end > 0).then(|| (prefix.len()..prefix.len() + end, &rest[end..]))
        };
        if let Some((range, rest)) = segment("/v1/models/") {
            let asks = matches!(*method, Method::GET | Method::HEAD | Method::DELETE);
            if self.has(V1) && (rest.is_empty() || is_of_v1(rest)) {
                // TensorFlow Serving's names have no colon; OpenAI's do, and have slashes too.
                let segment = &path[range.clone()];
                let named = match segment.find(':') {
                    Some(_) if asks && self.has(OPENAI) => segment.len(),
                    Some(colon) => colon,
                    None => segment.len(),
                };
                return (named > 0).then_some(range.start..range.start + named);
            }
            if self.has(OPENAI) && asks {
                let end = path.strip_suffix('/').unwrap_or(path).len();
                return Some(range.start..end);
            }
        }
        let found = |prefixes: &[&str]| prefixes.iter().find_map(|prefix| segment(prefix));
        let v2 = || found(&["/v2/models/", "/v2/repository/models/"]);
        if self.has(V2)
            && path != "/v2/models/stats"
            && let Some((range, _)) = v2()
        {
            return Some(range);
        }
        let torch = || found(&["/predictions/", "/explanations/", "/models/"]);
        if self.has(TORCH)
            && let Some((range, _)) = torch()
        {
            return Some(range);
        }
        if self.has(TRTIS)
            && let Some((range, _)) = found(&["/api/infer/", "/api/status/"])
        {
            return Some(range);
        }
        None
    }

    /// Whether the name is in a message of its own, and whether many messages come.
    fn grpc(self, path: &str) -> Option<(bool, bool)> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        match service {
            "inference.GRPCInferenceService" if self.has(GRPC_V2) => match method {
                "ModelInfer" | "ModelReady" | "ModelMetadata" | "ModelConfig"
                | "ModelStatistics" => Some((false, false)),
                "ModelStreamInfer" => Some((false, true)),
                _ => None,
            },
            "tensorflow.serving.PredictionService" if self.has(GRPC_TF) => match method {
                "Predict" | "Classify" | "Regress" | "GetModelMetadata" => Some((true, false)),
                "PredictStreamed" => Some((true, true)),
                _ => None,
            },
            "tensorflow.serving.ModelService"
                if self.has(GRPC_TF) && method == "GetModelStatus" =>
            {
                Some((true, false))
            }
            "tensorflow.serving.SessionService" if self.has(GRPC_TF) && method == "SessionRun" => {
                Some((true, false))
            }
            "org.pytorch.serve.grpc.inference.InferenceAPIsService" if self.has(TORCH) => {
                match method {
                    "Predictions" | "StreamPredictions" => Some((false, false)),
                    "StreamPredictions2" => Some((false, true)),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// What may follow a name in `/v1/models/NAME`, besides nothing and a verb right behind it.
fn is_of_v1(rest: &str) -> bool {
    rest.starts_with("/versions/")
        || rest.starts_with("/labels/")
        || matches!(rest, "/" | "/metadata")
}

fn is_form(media_type: &[u8]) -> bool {
    let name = media_type.split(|&byte| byte == b';').next();
    name.is_some_and(|name| {
        name.trim_ascii()
            .eq_ignore_ascii_case(b"multipart/form-data")
    })
}

/// The boundary of a form; `None`: there is none of a legal length, or another one to some readers.
fn boundary(media_type: &[u8]) -> Option<Box<[u8]>> {
    let mut all = parameters(media_type, "boundary").into_iter();
    let found = all.next()??;
    (all.next().is_none() && (1..=200).contains(&found.len())).then_some(found)
}

/// The bytes of a query that are the value of a key; `None`: it is not there, or there twice, and servers do not agree
/// which one counts.
fn form_value(query: &str, key: &str) -> Option<Range<usize>> {
    let mut start = 0;
    let mut found = None;
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let end = start + pair.len();
        if form_decoded(name).as_deref() == Some(key)
            && found.replace(end - value.len()..end).is_some()
        {
            return None;
        }
        start = end + 1;
    }
    found
}

/// A part of a path as it is meant; `None`: it is not UTF-8.
pub fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push((high << 4 | low) as u8);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

/// A part of a query as it is meant; `None`: it is not UTF-8.
pub fn form_decoded(text: &str) -> Option<Cow<'_, str>> {
    match text.contains('+') {
        false => decoded(text),
        true => Some(Cow::Owned(decoded(&text.replace('+', " "))?.into_owned())),
    }
}

/// A name as it is written in one segment of a path or in a query.
pub fn encoded(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 8);
    for byte in name.bytes() {
        match byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests;
