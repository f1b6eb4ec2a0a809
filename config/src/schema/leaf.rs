//! Shapes of single values: names, numbers, durations, sizes, files.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::section::choice;
use super::{Book, Path, Reader, Shape};
use crate::diagnostic::Code;
use crate::model::{EncodedSlash, ListenerProtocol, Secret, ServerKind, UpstreamProtocol};
use crate::node::{Kind, Node, Scalar};
use crate::units;

/// The longest name.
const NAME_MAX: usize = 253;

/// A name of a listener, a route or a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(pub String);

impl Shape for Name {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "a name")?;
        let legal = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
        let text = &scalar.text;
        if text.is_empty()
            || text.len() > NAME_MAX
            || !text.chars().all(legal)
            || scalar.kind == Kind::Bool
        {
            reader.bad_value(
                node,
                path,
                "a name",
                "a name has 1 to 253 letters, digits and `-` `_` `.` `/` `:`",
            );
            return None;
        }
        Some(Self(text.clone()))
    }

    fn schema(book: &mut Book) -> Value {
        book.define("Name", |book| {
            let text = book.pattern("^[A-Za-z0-9_./:-]{1,253}$");
            json!({ "anyOf": [text, { "type": "number" }] })
        })
    }
}

impl Shape for bool {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "`true` or `false`")?;
        match (
            scalar.text.to_ascii_lowercase().as_str(),
            typed(scalar, &[Kind::Bool]),
        ) {
            ("true", true) => Some(true),
            ("false", true) => Some(false),
            _ => {
                reader.wrong_type(
                    node,
                    path,
                    "`true` or `false`",
                    "without quotes; `yes` and `on` are strings",
                );
                None
            }
        }
    }

    fn schema(book: &mut Book) -> Value {
        book.or_environment(json!({ "type": "boolean" }))
    }
}

/// True when the scalar is of one of `kinds`, or came out of an environment variable, which has no type.
pub(super) fn typed(scalar: &Scalar, kinds: &[Kind]) -> bool {
    kinds.contains(&scalar.kind) || scalar.unexpanded.is_some()
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Whole<MIN, MAX> {
    /// Returns the number as `u32`, which `MAX` must fit into.
    pub fn narrow(self) -> u32 {
        const { assert!(MAX <= u32::MAX as u64) };
        self.0 as u32
    }
}

impl<const MIN: u64, const MAX: u64> Shape for Whole<MIN, MAX> {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let number = whole(node, path, reader)?;
        match u64::try_from(number) {
            Ok(number) if (MIN..=MAX).contains(&number) => Some(Self(number)),
            _ => {
                let message = format!("{number} is out of range: {MIN} to {MAX}");
                reader.refuse(Code::OutOfRange, &node.position, path, message, "");
                None
            }
        }
    }

    fn schema(book: &mut Book) -> Value {
        book.or_environment(json!({ "type": "integer", "minimum": MIN, "maximum": MAX }))
    }
}

fn whole(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<i128> {
    let scalar = reader.scalar(node, path, "a whole number")?;
    let digits = scalar.text.strip_prefix('-').unwrap_or(&scalar.text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = plain.then(|| scalar.text.parse().ok()).flatten();
    if number.is_none() || !typed(scalar, &[Kind::Integer, Kind::Float]) {
        reader.wrong_type(
            node,
            path,
            "a whole number",
            "write the digits alone, without quotes and unit",
        );
        return None;
    }
    number
}

/// The priority of a route, which may be negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priority(pub i32);

impl Shape for Priority {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let number = whole(node, path, reader)?;
        let priority = i32::try_from(number).ok();
        if priority.is_none() {
            let message = format!("{number} is out of range: {} to {}", i32::MIN, i32::MAX);
            reader.refuse(Code::OutOfRange, &node.position, path, message, "");
        }
        priority.map(Self)
    }

    fn schema(book: &mut Book) -> Value {
        book.or_environment(json!({ "type": "integer", "minimum": i32::MIN, "maximum": i32::MAX }))
    }
}

/// A duration from `MIN` to `MAX` milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period<const MIN: u64, const MAX: u64>(pub Duration);

impl<const MIN: u64, const MAX: u64> Shape for Period<MIN, MAX> {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "a duration")?;
        let Some(duration) = units::duration(&scalar.text) else {
            let help = match (scalar.kind, scalar.text.as_str()) {
                (Kind::Integer, number) => format!("a duration has a unit: `{number}s`?"),
                (_, "none") => format!("this one cannot be switched off; {}", units::DURATION_FORM),
                _ => units::DURATION_FORM.to_owned(),
            };
            reader.bad_value(node, path, "a duration", &help);
            return None;
        };
        let (least, most) = (Duration::from_millis(MIN), Duration::from_millis(MAX));
        if !(least..=most).contains(&duration) {
            let [shown, least, most] = [duration, least, most].map(units::show_duration);
            let message = format!("{shown} is out of range: {least} to {most}");
            reader.refuse(Code::OutOfRange, &node.position, path, message, "");
            return None;
        }
        Some(Self(duration))
    }

    fn schema(book: &mut Book) -> Value {
        book.define("Duration", |book| {
            let text = book.pattern(units::DURATION_PATTERN);
            json!({ "description": units::DURATION_FORM, "anyOf": [text, { "const": 0 }, { "const": "0" }] })
        })
    }
}

/// A size in bytes from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Bytes<MIN, MAX> {
    /// Returns the size as `u32`, which `MAX` must fit into.
    pub fn narrow(self) -> u32 {
        const { assert!(MAX <= u32::MAX as u64) };
        self.0 as u32
    }
}

impl<const MIN: u64, const MAX: u64> Shape for Bytes<MIN, MAX> {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "a size")?;
        let Some(bytes) = units::size(&scalar.text) else {
            reader.bad_value(node, path, "a size", units::SIZE_FORM);
            return None;
        };
        if !(MIN..=MAX).contains(&bytes) {
            let [shown, least, most] = [bytes, MIN, MAX].map(units::show_size);
            let message = format!("{shown} is out of range: {least} to {most}");
            reader.refuse(Code::OutOfRange, &node.position, path, message, "");
            return None;
        }
        Some(Self(bytes))
    }

    fn schema(book: &mut Book) -> Value {
        book.define("Size", |book| {
            let text = book.pattern(units::SIZE_PATTERN);
            json!({ "description": units::SIZE_FORM, "anyOf": [text, { "type": "integer", "minimum": 0 }] })
        })
    }
}

/// A share, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(pub u32);

impl Shape for Share {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "a ratio")?;
        let share = units::ratio(&scalar.text).map(Self);
        if share.is_none() {
            reader.bad_value(node, path, "a ratio from 0 to 100%", units::RATIO_FORM);
        }
        share
    }

    fn schema(book: &mut Book) -> Value {
        book.define("Ratio", |book| {
            let text = book.pattern(units::RATIO_PATTERN);
            json!({ "description": units::RATIO_FORM, "anyOf": [text, { "type": "number", "minimum": 0, "maximum": 1 }] })
        })
    }
}

/// A file; a relative path is joined to the directory of the configuration file that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath(pub PathBuf);

impl Shape for FilePath {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "the path of a file")?;
        if scalar.text.is_empty() || scalar.text.contains('\0') || !typed(scalar, &[Kind::Text]) {
            reader.bad_value(
                node,
                path,
                "the path of a file",
                "for example `tls/server.crt`, relative to this file",
            );
            return None;
        }
        Some(Self(reader.directory(&node.position).join(&scalar.text)))
    }

    fn schema(_book: &mut Book) -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// A bearer token, which no message shows.
#[derive(Clone, Debug)]
pub struct Token(pub Secret);

impl Shape for Token {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = node.scalar().filter(|scalar| !scalar.text.is_empty());
        let legal = |scalar: &&Scalar| scalar.text.bytes().all(|byte| byte.is_ascii_graphic());
        let Some(scalar) = scalar.filter(legal) else {
            let message = "expected a token of visible ASCII characters";
            reader.refuse(
                Code::BadValue,
                &node.position,
                path,
                message,
                "for example `${env:FOREBAY_TOKEN}`",
            );
            return None;
        };
        Some(Self(Secret(scalar.text.clone())))
    }

    fn schema(_book: &mut Book) -> Value {
        json!({ "type": ["string", "number", "boolean"], "minLength": 1 })
    }
}

impl Shape for IpNet {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "an address block")?;
        let net = scalar
            .text
            .parse()
            .ok()
            .or_else(|| scalar.text.parse::<IpAddr>().ok().map(Self::from));
        if net.is_none() {
            let front = scalar.text.split_once('/').map(|(front, _)| front.parse());
            let help = match front {
                Some(Ok(IpAddr::V4(_))) => "the length of an IPv4 block is 0 to 32",
                Some(Ok(IpAddr::V6(_))) => "the length of an IPv6 block is 0 to 128",
                Some(Err(_)) | None => "for example `10.0.0.0/8`, `fd00::/8` or `192.0.2.7`",
            };
            reader.bad_value(node, path, "an address block", help);
        }
        net.map(|net: Self| net.trunc())
    }

    fn schema(book: &mut Book) -> Value {
        book.pattern("^[0-9a-fA-F.:]+(/[0-9]{1,3})?$")
    }
}

choice!(ListenerProtocol, "a protocol of a listener", { "http" => Self::Http, "tcp" => Self::Tcp, });
choice!(EncodedSlash, "a treatment of `%2F`", { "reject" => Self::Reject, "keep" => Self::Keep, });
choice!(UpstreamProtocol, "a protocol of a cluster", {
    "auto" => Self::Auto,
    "http1" => Self::Http1,
    "http2" => Self::Http2,
});
choice!(ServerKind, "a kind of model server", {
    "generic" => Self::Generic,
    "tensorflow-serving" => Self::TensorflowServing,
    "torchserve" => Self::Torchserve,
    "onnxruntime" => Self::Onnxruntime,
    "triton" => Self::Triton,
    "kserve-v1" => Self::KserveV1,
    "kserve-v2" => Self::KserveV2,
    "vllm" => Self::Vllm,
    "sglang" => Self::Sglang,
    "tgi" => Self::Tgi,
    "llama.cpp" => Self::LlamaCpp,
    "ollama" => Self::Ollama,
    "bentoml" => Self::Bentoml,
});
