//! Shapes of checks, copies and further attempts: statuses, JSON pointers, media types, URLs.

use http::uri::PathAndQuery;
use http::{Method, StatusCode, Uri};
use serde_json::{Value as Json, json};

use super::leaf::typed;
use super::section::{choice, unknown_word};
use super::{At, Book, List, Path, Reader, Shape, Share};
use crate::diagnostic::{Code, quoted};
use crate::model::{Cutover, RetryMethods};
use crate::node::{Kind, Node, Value};
use crate::pointer::Pointer;
use crate::units;

/// The longest text that is looked for in bodies, in bytes.
const FIND_MAX: usize = 4096;
/// Shares of copies come in steps of so many millionths.
const STEP: u32 = 100;
/// A share in such steps as a regular expression, for the JSON Schema.
const FINE_PATTERN: &str =
    r"^(0*(100(\.0+)?|[0-9]{1,2}(\.[0-9]{1,2}0*)?) *%|0*1(\.0+)? *|0+(\.[0-9]{1,4}0*)? *)$";

choice!(Cutover, "a cutover", { "at_once" => Self::AtOnce, "ready" => Self::Ready, });

/// What an active check asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// A GET.
    Http,
    /// Whether a connection can be made.
    Tcp,
    /// The standard health service.
    Grpc,
}

choice!(CheckKind, "a kind of check", {
    "http" => Self::Http,
    "tcp" => Self::Tcp,
    "grpc" => Self::Grpc,
});

/// What a check asks for: a path, perhaps with a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckPath(pub String);

impl Shape for CheckPath {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "a path")?;
        let text = scalar.text.as_str();
        let parsed = text.starts_with('/') && !text.contains('#');
        if parsed && text.parse::<PathAndQuery>().is_ok() {
            return Some(Self(text.to_owned()));
        }
        let message = format!("{} is not a path", quoted(scalar.shown()));
        let help = match text {
            _ if text.contains("://") => "leave scheme and host out: each endpoint is asked",
            _ if !text.is_empty() && !text.starts_with('/') => "a path begins with `/`",
            _ => "for example `/healthz` or `/healthz?deep=1`",
        };
        reader.refuse(Code::BadPath, &node.position, path, message, help);
        None
    }

    fn schema(book: &mut Book) -> Json {
        book.pattern("^/[^# ]*$")
    }
}

/// The name of a gRPC service; empty: the whole server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName(pub String);

impl Shape for ServiceName {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "the name of a service")?;
        let legal = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if scalar.text.len() > 253 || !scalar.text.chars().all(legal) {
            let help = "for example `inference.GRPCInferenceService`";
            reader.bad_value(node, path, "the name of a service", help);
            return None;
        }
        Some(Self(scalar.text.clone()))
    }

    fn schema(book: &mut Book) -> Json {
        let text = book.pattern("^[A-Za-z0-9_./-]{0,253}$");
        json!({ "anyOf": [text, { "type": ["number", "boolean"] }] })
    }
}

/// A status, or a range of them such as `200-299`, from `MIN` to `MAX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses<const MIN: u16, const MAX: u16>(pub Vec<StatusCode>);

impl<const MIN: u16, const MAX: u16> Shape for Statuses<MIN, MAX> {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "a status")?;
        let text = scalar.text.as_str();
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| {
            let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u16>().ok()).flatten()
        };
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            let class = text.strip_suffix("xx").filter(|class| class.len() == 1);
            let help = match class {
                Some(class) => format!("a range: `{class}00-{class}99`?"),
                None => format!(
                    "a status from {MIN} to {MAX}, or a range such as `{MIN}-{}`",
                    MIN + 99
                ),
            };
            reader.bad_value(node, path, "a status", &help);
            return None;
        };
        if first > last {
            let help = format!("`{last}-{first}`?");
            reader.bad_value(node, path, "a range of statuses", &help);
            return None;
        }
        if first < MIN || last > MAX {
            let message = format!("{text} is out of range: {MIN} to {MAX}");
            reader.refuse(Code::OutOfRange, &node.position, path, message, "");
            return None;
        }
        let statuses = (first..=last).filter_map(|number| StatusCode::from_u16(number).ok());
        Some(Self(statuses.collect()))
    }

    fn schema(book: &mut Book) -> Json {
        let number = json!({ "type": "integer", "minimum": MIN, "maximum": MAX });
        let class = format!("[{}-{}][0-9]{{2}}", MIN / 100, MAX / 100);
        let range = book.pattern(&format!("^{class}(-{class})?$"));
        json!({ "anyOf": [number, range] })
    }
}

/// A share in steps of 0.01 %, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FineShare(pub u32);

impl Shape for FineShare {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let share = Share::read(node, path, reader)?.0;
        if share % STEP == 0 {
            return Some(Self(share));
        }
        let near = share.div_ceil(STEP);
        let message = format!("{} is finer than the steps of 0.01%", node.describe());
        let help = format!("`{}.{:02}%`?", near / 100, near % 100);
        reader.refuse(Code::OutOfRange, &node.position, path, message, &help);
        None
    }

    fn schema(book: &mut Book) -> Json {
        book.define("FineRatio", |book| {
            let text = book.pattern(FINE_PATTERN);
            let number = json!({ "type": "number", "minimum": 0, "maximum": 1 });
            json!({ "description": units::RATIO_FORM, "anyOf": [text, number] })
        })
    }
}

/// A JSON pointer; empty: the whole document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointerText(pub Pointer);

impl Shape for PointerText {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "a JSON pointer")?;
        let text = scalar.text.as_str();
        // A forgotten comma, which would leave what is to be redacted as it is.
        let two = [" /", " \"/", " '/"]
            .iter()
            .any(|second| text.contains(second));
        let pointer = Pointer::parse(text).filter(|_| !two);
        if pointer.is_none() {
            let help = if two {
                format!("two of them: {}?", quoted(&text.replacen(' ', ", ", 1)))
            } else if text.starts_with('/') {
                "`~` is written `~0`, and a `/` within a name `~1`".to_owned()
            } else {
                let near = quoted(&as_pointer(text));
                format!("JSON pointers begin with `/`: {near}?")
            };
            reader.bad_value(node, path, "a JSON pointer", &help);
        }
        pointer.map(Self)
    }

    fn schema(book: &mut Book) -> Json {
        let text = book.pattern("^(/([^~]|~[01])*)?$");
        book.define(
            "Pointer",
            |_| json!({ "description": "a JSON pointer looks like `/user/id`", "anyOf": [text] }),
        )
    }
}

/// Writes what looks like `user.id`, or `$.users[0]` as JSONPath has it, as a pointer.
fn as_pointer(text: &str) -> String {
    let steps = text.trim_start_matches('$').split(['.', '[', ']', '/']);
    let steps = steps.filter(|step| !step.is_empty());
    steps.map(|step| format!("/{step}")).collect()
}

/// A JSON pointer to a field, which the whole document is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPointer(pub Pointer);

impl Shape for FieldPointer {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let pointer = PointerText::read(node, path, reader)?.0;
        if pointer.tokens.is_empty() {
            let help = "a JSON pointer such as `/user` or `/user/id`";
            reader.bad_value(node, path, "a field of a JSON body", help);
            return None;
        }
        Some(Self(pointer))
    }

    fn schema(book: &mut Book) -> Json {
        book.pattern("^/([^~]|~[01])*$")
    }
}

/// A number that is not negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerable(pub f64);

impl Shape for Tolerable {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        const WANTED: &str = "a number from 0 up";
        let scalar = reader.scalar(node, path, WANTED)?;
        if !typed(scalar, &[Kind::Integer, Kind::Float]) {
            reader.wrong_type(
                node,
                path,
                WANTED,
                "a plain number, as in `0.001` or `1e-6`",
            );
            return None;
        }
        let number = scalar.text.parse().ok();
        let number = number.filter(|number: &f64| number.is_finite() && *number >= 0.0);
        if number.is_none() {
            reader.bad_value(node, path, WANTED, "as in `0.001` or `1e-6`");
        }
        number.map(|number| Self(number.abs()))
    }

    fn schema(book: &mut Book) -> Json {
        book.or_environment(json!({ "type": "number", "minimum": 0 }))
    }
}

/// An `http` or `https` URL with a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlText(pub Uri);

impl Shape for UrlText {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        const WANTED: &str = "an `http` or `https` URL";
        let scalar = reader.scalar(node, path, WANTED)?;
        let help = match url(&scalar.text) {
            Ok(url) => return Some(Self(url)),
            Err(help) => help,
        };
        // Not the text itself: a password may be in it.
        let message = format!("this is not {WANTED}");
        reader.refuse(Code::BadValue, &node.position, path, message, &help);
        None
    }

    fn schema(book: &mut Book) -> Json {
        book.pattern("^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@ ]+([/?#][^ ]*)?$")
    }
}

/// Reads a URL that can be posted to. `Err` says what helps.
fn url(text: &str) -> Result<Uri, String> {
    let form = || "for example `http://127.0.0.1:8080/ingest`".to_owned();
    let url: Uri = text.parse().map_err(|_| form())?;
    let Some(authority) = url.authority() else {
        return Err(form());
    };
    match url.scheme_str() {
        Some("http" | "https") => {}
        Some(_) => return Err("only `http` and `https` are posted to".to_owned()),
        None => return Err(format!("the scheme is missing: `http://{text}`?")),
    }
    if authority.as_str().contains('@') {
        return Err("leave user name and password out: they are not sent".to_owned());
    }
    if authority.host().is_empty() || authority.as_str().ends_with(':') {
        return Err(form());
    }
    Ok(url)
}

/// One item of `retry.when`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetryCase {
    /// No connection could be made.
    Connect,
    /// The endpoint says that it did nothing with the request.
    Refused,
    /// The connection broke before the head of the answer was whole.
    Reset,
    /// The endpoint answered with one of these.
    Statuses(Statuses<400, 599>),
}

const RETRY_CASES: &[&str] = &["connect", "refused", "reset"];

impl Shape for RetryCase {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        const WANTED: &str = "a reason to try again";
        let text = reader.scalar(node, path, WANTED)?.text.as_str();
        match text {
            "connect" => Some(Self::Connect),
            "refused" => Some(Self::Refused),
            "reset" => Some(Self::Reset),
            _ if text.starts_with(|c: char| c.is_ascii_digit()) => {
                Statuses::read(node, path, reader).map(Self::Statuses)
            }
            _ => {
                let words = ["connect", "refused", "reset", "502"];
                unknown_word(text, &words, WANTED, node, path, reader);
                None
            }
        }
    }

    fn schema(book: &mut Book) -> Json {
        let words = json!({ "enum": RETRY_CASES });
        json!({ "anyOf": [words, Statuses::<400, 599>::schema(book)] })
    }
}

/// Whose requests may be done twice: a word, or a list of methods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryMethodsShape(pub RetryMethods);

const RETRY_METHODS: &[&str] = &["idempotent", "all"];

impl Shape for RetryMethodsShape {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        const WANTED: &str = "`idempotent`, `all` or a list of methods";
        if let Value::List(_) = node.value {
            let list = List::<Method>::read(node, path, reader)?;
            let methods = list.items.into_iter().map(|At { value, .. }| value);
            return Some(Self(RetryMethods::Only(methods.collect())));
        }
        let text = reader.scalar(node, path, WANTED)?.text.as_str();
        match text {
            "idempotent" => return Some(Self(RetryMethods::Idempotent)),
            "all" => return Some(Self(RetryMethods::All)),
            _ if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase()) => {
                let help = format!("a list: `[{text}]`?");
                reader.wrong_type(node, path, WANTED, &help);
            }
            word => unknown_word(word, RETRY_METHODS, WANTED, node, path, reader),
        }
        None
    }

    fn schema(book: &mut Book) -> Json {
        let words = book.or_environment(json!({ "enum": RETRY_METHODS }));
        json!({ "anyOf": [words, List::<Method>::schema(book)] })
    }
}

/// A text that is looked for in bodies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FindText(pub String);

impl Shape for FindText {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "a text to look for")?;
        let length = scalar.text.len();
        if !(1..=FIND_MAX).contains(&length) {
            let message = format!("{length} bytes is out of range: 1 to {FIND_MAX}");
            reader.refuse(Code::OutOfRange, &node.position, path, message, "");
            return None;
        }
        Some(Self(scalar.text.clone()))
    }

    fn schema(_book: &mut Book) -> Json {
        json!({ "type": ["string", "number", "boolean"], "minLength": 1, "maxLength": FIND_MAX })
    }
}

/// A media type, lower case, without parameters; `*/*` and `text/*` are possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaType(pub String);

impl Shape for MediaType {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "a media type")?;
        let text = scalar.text.to_ascii_lowercase();
        if is_media_type(&text) {
            return Some(Self(text));
        }
        let front = text.split(';').next().unwrap_or_default().trim();
        let help = match text.as_str() {
            _ if front.len() < text.len() && is_media_type(front) => {
                format!("leave the parameters out: `{front}`?")
            }
            "*" => "`*/*` is every media type".to_owned(),
            _ => "for example `text/html`, `text/*` or `*/*`".to_owned(),
        };
        reader.bad_value(node, path, "a media type", &help);
        None
    }

    fn schema(book: &mut Book) -> Json {
        book.pattern(r"^(\*/\*|[A-Za-z0-9!#$&^_.+-]+/(\*|[A-Za-z0-9!#$&^_.+-]+))$")
    }
}

fn is_media_type(text: &str) -> bool {
    let name = |text: &str| {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte);
        !text.is_empty() && text.bytes().all(legal)
    };
    match text.split_once('/') {
        Some(("*", "*")) => true,
        Some((kind, "*")) => name(kind),
        Some((kind, part)) => name(kind) && name(part),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_scheme_and_a_host_and_no_password() {
        for text in ["http://a/", "https://a:1/x?y", "HTTP://[::1]:80"] {
            assert!(url(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "a",
            "/a",
            "a/b",
            "ftp://a/",
            "http://",
            "http:///x",
            "http://u:p@a/",
            "http://a b/",
        ] {
            assert!(url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn other_notations_become_pointers() {
        for (text, pointer) in [
            ("user", "/user"),
            ("user.id", "/user/id"),
            ("$.users[0].id", "/users/0/id"),
        ] {
            assert_eq!(as_pointer(text), pointer);
        }
    }

    #[test]
    fn the_pattern_of_fine_shares_agrees_with_the_reader() {
        let pattern = regex::Regex::new(FINE_PATTERN).unwrap();
        for text in [
            "100%", "0%", "0.01%", "12.50 %", "12.500%", "0.005%", "101%", "1", "1.0", "0.1234",
            "0.12345", "0.12340", "1.1", "2", "0", "%", "x", "099%", "100.01%",
        ] {
            let fine = units::ratio(text).is_some_and(|share| share % STEP == 0);
            assert_eq!(pattern.is_match(text), fine, "{text}");
        }
    }
}
