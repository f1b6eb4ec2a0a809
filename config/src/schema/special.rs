//! Shapes that are written in more than one way: addresses, value conditions, balance, the access log.

use std::net::SocketAddr;
use std::path::Path as FsPath;

use serde_json::{Value as Json, json};

use super::keys::{BalanceKeys, ValueKeys};
use super::section::unknown_word;
use super::{Book, Path, Reader, Shape};
use crate::diagnostic::Code;
use crate::model::{Balance, LogFormat, LogTarget, ValueMatch};
use crate::node::{Kind, Node, Value};

/// An IP address and a port to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddress(pub SocketAddr);

impl Shape for ListenAddress {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "an address")?;
        let text = scalar.text.as_str();
        let help = match text.parse() {
            Ok(address) => return Some(Self(address)),
            Err(_) if text.parse::<u16>().is_ok() => {
                format!("an address and a port: `0.0.0.0:{text}`?")
            }
            Err(_) if text.starts_with(':') => format!("an address and a port: `0.0.0.0{text}`?"),
            Err(_) if text.starts_with("localhost:") => {
                "an IP address: `127.0.0.1` instead of `localhost`?".to_owned()
            }
            Err(_) => "an IP address and a port, as in `0.0.0.0:8080` or `[::]:8080`".to_owned(),
        };
        reader.bad_value(node, path, "an address to listen on", &help);
        None
    }

    fn schema(book: &mut Book) -> Json {
        book.pattern(r"^([0-9.]+|\[[0-9a-fA-F:.%a-z]+\]):[0-9]{1,5}$")
    }
}

/// A condition on one value: a scalar is compared, a map says how.
#[derive(Clone, Debug)]
pub struct ValueShape(pub ValueMatch);

impl Shape for ValueShape {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if let Value::Scalar(scalar) = &node.value {
            if !matches!(scalar.kind, Kind::Bool | Kind::Null) {
                return Some(Self(ValueMatch::Exact(scalar.text.clone())));
            }
            let help = format!(
                "`\"{0}\"` compares the text; `{{present: {0}}}` asks whether it is there",
                scalar.text
            );
            reader.wrong_type(node, path, "a string, a number or a map", &help);
            return None;
        }
        let keys = ValueKeys::read(node, path, reader)?;
        let mut found: Vec<ValueMatch> = Vec::new();
        found.extend(
            keys.regex
                .map(|regex| ValueMatch::Regex(regex.value.for_value())),
        );
        found.extend(
            keys.present
                .map(|present| ValueMatch::Present(present.value)),
        );
        found.extend(keys.not.map(|not| ValueMatch::Not(not.value.0)));
        found.extend(keys.any.map(|any| {
            ValueMatch::In(
                any.value
                    .items
                    .into_iter()
                    .map(|item| item.value.0)
                    .collect(),
            )
        }));
        match (found.len(), keys.broken) {
            (1, false) => {}
            (_, true) => return None,
            _ => {
                let message = "expected exactly one of `regex`, `present`, `not` and `in`";
                reader.refuse(Code::Conflict, &node.position, path, message, "");
                return None;
            }
        }
        let found = found.pop()?;
        if matches!(&found, ValueMatch::In(values) if values.is_empty()) {
            reader.refuse(
                Code::BadValue,
                &node.position,
                path,
                "`in` is empty, so nothing matches",
                "",
            );
            return None;
        }
        Some(Self(found))
    }

    fn schema(book: &mut Book) -> Json {
        json!({ "anyOf": [{ "type": ["string", "number"] }, ValueKeys::schema(book)] })
    }
}

/// `balance:`: a word, or a map.
#[derive(Clone, Debug)]
pub enum BalanceShape {
    /// A word.
    Plain(Balance),
    /// A map.
    Keyed(Box<BalanceKeys>),
}

const BALANCES: &[&str] = &["least_requests", "round_robin", "random"];

impl Shape for BalanceShape {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if let Value::Map(_) = node.value {
            return BalanceKeys::read(node, path, reader).map(|keys| Self::Keyed(Box::new(keys)));
        }
        match reader.scalar(node, path, "a way to balance")?.text.as_str() {
            "least_requests" => return Some(Self::Plain(Balance::LeastRequests)),
            "round_robin" => return Some(Self::Plain(Balance::RoundRobin)),
            "random" => return Some(Self::Plain(Balance::Random)),
            "hash" => {
                let help = "say what is hashed: `{hash: {header: x-user-id}}`";
                reader.wrong_type(node, path, "a map for `hash`", help);
            }
            word => unknown_word(word, BALANCES, "a way to balance", node, path, reader),
        }
        None
    }

    fn schema(book: &mut Book) -> Json {
        let words = book.or_environment(json!({ "enum": BALANCES }));
        json!({ "anyOf": [words, BalanceKeys::schema(book)] })
    }
}

/// Where the lines of the access log go.
#[derive(Clone, Debug)]
pub struct TargetShape(pub LogTarget);

impl Shape for TargetShape {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "`stdout`, `stderr` or the path of a file")?;
        Some(Self(match scalar.text.as_str() {
            "stdout" => LogTarget::Stdout,
            "stderr" => LogTarget::Stderr,
            "" => {
                reader.bad_value(
                    node,
                    path,
                    "the path of a file",
                    "`stdout`, `stderr` or for example `access.log`",
                );
                return None;
            }
            file => LogTarget::File(reader.directory(&node.position).join(FsPath::new(file))),
        }))
    }

    fn schema(_book: &mut Book) -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// How a line of the access log looks.
#[derive(Clone, Debug)]
pub struct FormatShape(pub LogFormat);

impl Shape for FormatShape {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "a format")?;
        if scalar.text == "json" {
            return Some(Self(LogFormat::Json));
        }
        match envoy_format(&scalar.text) {
            Ok(()) => Some(Self(LogFormat::Envoy(scalar.text.clone()))),
            Err(why) => {
                let help =
                    format!("{why}; `json`, or a string such as `%REQ(:METHOD)% %RESPONSE_CODE%`");
                reader.bad_value(node, path, "a format", &help);
                None
            }
        }
    }

    fn schema(_book: &mut Book) -> Json {
        json!({ "anyOf": [{ "const": "json" }, { "type": "string", "pattern": "%" }] })
    }
}

/// Checks that every `%` of an Envoy format string opens or closes a command, such as `%REQ(X-A?:PATH):10%`; `%%` is a
/// percent sign. Which commands there are is not looked at.
fn envoy_format(text: &str) -> Result<(), &'static str> {
    let mut rest = text;
    let mut commands = 0;
    while let Some((_, after)) = rest.split_once('%') {
        if let Some(after) = after.strip_prefix('%') {
            rest = after;
            continue;
        }
        let name = after
            .bytes()
            .take_while(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_')
            .count();
        if name == 0 {
            return Err("a command behind a `%` starts with upper-case letters");
        }
        let mut tail = &after[name..];
        if let Some(arguments) = tail.strip_prefix('(') {
            tail = arguments
                .split_once(')')
                .ok_or("a bracket is not closed")?
                .1;
        }
        if let Some(length) = tail.strip_prefix(':') {
            tail = length.trim_start_matches(|c: char| c.is_ascii_digit());
        }
        rest = tail
            .strip_prefix('%')
            .ok_or("a command is not closed by `%`")?;
        commands += 1;
    }
    if commands == 0 {
        Err("it has no command")
    } else {
        Ok(())
    }
}
