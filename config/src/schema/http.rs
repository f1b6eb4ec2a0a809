//! Shapes of HTTP: hosts, paths, methods, headers, expressions.

use http::{HeaderName, HeaderValue, Method, StatusCode};
use regex::{Regex, RegexBuilder};
use serde_json::{Value, json};

use super::{Book, Key, Path, Reader, Shape};
use crate::canonical::{canonical_host, canonical_path};
use crate::diagnostic::{Code, quoted};
use crate::model::{EncodedSlash, HostPattern, PathOptions};
use crate::node::{Kind, Node};

/// Bytes that one compiled regular expression may take.
const REGEX_SIZE: usize = 1 << 20;

/// Headers that belong to one connection, or that the proxy writes itself.
const RESERVED: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A host to be matched: exact, or `*.` and a suffix.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostRule(pub HostPattern);

impl Shape for HostRule {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "a host")?;
        if scalar.text == "*" {
            reader.bad_value(
                node,
                path,
                "a host",
                "leave `hosts` out to match every host",
            );
            return None;
        }
        if let Some(suffix) = scalar.text.strip_prefix("*.") {
            return host(suffix, node, path, reader)
                .map(|host| Self(HostPattern::Suffix(format!(".{host}"))));
        }
        host(&scalar.text, node, path, reader).map(|host| Self(HostPattern::Exact(host)))
    }

    fn schema(book: &mut Book) -> Value {
        book.pattern(r"^(\*\.)?[^*/ ]+$")
    }
}

/// One host without a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostName(pub String);

impl Shape for HostName {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "a host")?;
        host(&scalar.text, node, path, reader).map(Self)
    }

    fn schema(book: &mut Book) -> Value {
        book.pattern("^[^*/ ]+$")
    }
}

/// Reads a host as it is matched; a port is refused because it is never compared.
fn host(text: &str, node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<String> {
    let help = if text.contains("://") {
        "leave the scheme out"
    } else if text.contains('*') {
        "`*` is only allowed in front, as in `*.example.com`"
    } else if text.parse::<std::net::Ipv6Addr>().is_ok() {
        "an IPv6 address is written in brackets, as in `[::1]`"
    } else if text
        .rsplit_once(':')
        .is_some_and(|(host, _)| !text.starts_with('[') || host.ends_with(']'))
    {
        "leave the port out"
    } else {
        match canonical_host(text) {
            Ok(host) => return Some(host.into_owned()),
            Err(error) => {
                reader.bad_value(node, path, "a host", &error.to_string());
                return None;
            }
        }
    };
    reader.bad_value(node, path, "a host", help);
    None
}

/// A path in its canonical spelling, as requests are compared with it; a trailing slash is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathText(pub String);

impl Shape for PathText {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "a path")?;
        match canonical(&scalar.text) {
            Ok(text) => Some(Self(text)),
            Err(why) => {
                let message = format!("{} is not a path: {why}", quoted(scalar.shown()));
                reader.refuse(
                    Code::BadPath,
                    &node.position,
                    path,
                    message,
                    "for example `/v1/models`",
                );
                None
            }
        }
    }

    fn schema(book: &mut Book) -> Value {
        book.pattern("^/[^?# ]*$")
    }
}

/// Returns the spelling that requests have; refuses what no request can have.
fn canonical(text: &str) -> Result<String, String> {
    if text.contains("//") {
        return Err("`//` is merged in requests".to_owned());
    }
    let dots = |segment: &str| {
        matches!(
            segment.to_ascii_lowercase().replace("%2e", ".").as_str(),
            "." | ".."
        )
    };
    if text.split('/').any(dots) {
        return Err("`.` and `..` are resolved in requests".to_owned());
    }
    let options = PathOptions {
        encoded_slash: EncodedSlash::Keep,
        merge_slashes: false,
    };
    canonical_path(text, options)
        .map(std::borrow::Cow::into_owned)
        .map_err(|error| error.to_string())
}

/// What a path becomes: absolute, without a query.
pub type RewritePath = PathText;

/// What `Host` becomes: a host, with or without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewriteHost(pub HeaderValue);

impl Shape for RewriteHost {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "a host")?;
        let value = canonical_host(&scalar.text)
            .ok()
            .and_then(|_| HeaderValue::from_str(&scalar.text).ok());
        if value.is_none() {
            reader.bad_value(
                node,
                path,
                "a host",
                "for example `models.internal` or `models.internal:8080`",
            );
        }
        value.map(Self)
    }

    fn schema(book: &mut Book) -> Value {
        book.pattern("^[^*/ ]+$")
    }
}

impl Shape for Method {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "a method")?;
        let method = Self::from_bytes(scalar.text.as_bytes()).ok();
        let help = match method {
            Some(Self::CONNECT | Self::TRACE) => {
                "CONNECT and TRACE are always answered 405".to_owned()
            }
            Some(method) if !scalar.text.bytes().any(|byte| byte.is_ascii_lowercase()) => {
                return Some(method);
            }
            Some(_) => format!(
                "methods are upper case: `{}`",
                scalar.text.to_ascii_uppercase()
            ),
            None => "for example `GET`".to_owned(),
        };
        reader.bad_value(node, path, "a method that can be routed", &help);
        None
    }

    fn schema(book: &mut Book) -> Value {
        book.pattern("^[A-Z0-9!#$%&'*+.^_`|~-]+$")
    }
}

/// A header that a request can be matched by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MatchHeader(pub HeaderName);

impl Key for MatchHeader {
    fn parse(text: &str) -> Result<Self, (Code, String, String)> {
        let name = header_name(text)?;
        if name == http::header::HOST {
            let help = "HTTP/2 sends no such header; use `hosts`";
            return Err((
                Code::ReservedHeader,
                "`host` cannot be matched as a header".to_owned(),
                help.to_owned(),
            ));
        }
        Ok(Self(name))
    }
}

impl Shape for MatchHeader {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        read_key(node, path, "the name of a header", reader)
    }

    fn schema(book: &mut Book) -> Value {
        EditableHeader::schema(book)
    }
}

/// Reads a scalar as the key that it could be.
fn read_key<K: Key>(
    node: &Node,
    path: Path<'_>,
    wanted: &str,
    reader: &mut Reader<'_>,
) -> Option<K> {
    let scalar = reader.scalar(node, path, wanted)?;
    match K::parse(&scalar.text) {
        Ok(key) => Some(key),
        Err((code, message, help)) => {
            reader.refuse(code, &node.position, path, message, &help);
            None
        }
    }
}

/// A header that may be edited.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EditableHeader(pub HeaderName);

impl Key for EditableHeader {
    fn parse(text: &str) -> Result<Self, (Code, String, String)> {
        let name = header_name(text)?;
        let help = match name.as_str() {
            "host" => "use `rewrite: {host: …}`",
            name if RESERVED.contains(&name) => "the proxy writes it itself, for each connection",
            name if name.starts_with("x-forebay-") => {
                "headers that start with `x-forebay-` belong to the proxy"
            }
            _ => return Ok(Self(name)),
        };
        Err((
            Code::ReservedHeader,
            format!("the header `{name}` cannot be edited"),
            help.to_owned(),
        ))
    }
}

impl Shape for EditableHeader {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        read_key(node, path, "the name of a header", reader)
    }

    fn schema(book: &mut Book) -> Value {
        book.pattern("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
    }
}

fn header_name(text: &str) -> Result<HeaderName, (Code, String, String)> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        let message = format!("{} is not the name of a header", quoted(text));
        (Code::BadValue, message, "for example `x-tenant`".to_owned())
    })
}

/// The value of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderText(pub HeaderValue);

impl Shape for HeaderText {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "the value of a header")?;
        let value = HeaderValue::from_str(&scalar.text).ok();
        if value.is_none() {
            reader.bad_value(
                node,
                path,
                "the value of a header",
                "visible ASCII characters and spaces in one line",
            );
        }
        value.map(Self)
    }

    fn schema(_book: &mut Book) -> Value {
        json!({ "type": ["string", "number", "boolean"] })
    }
}

/// The name of a cookie.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CookieName(pub String);

impl Key for CookieName {
    fn parse(text: &str) -> Result<Self, (Code, String, String)> {
        // A cookie's name is a token, just as a method is (RFC 6265 §4.1.1).
        Method::from_bytes(text.as_bytes())
            .map(|_| Self(text.to_owned()))
            .map_err(|_| {
                let message = format!("{} is not the name of a cookie", quoted(text));
                (
                    Code::BadValue,
                    message,
                    "letters, digits, `-` and `_`".to_owned(),
                )
            })
    }
}

impl Shape for CookieName {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        read_key(node, path, "the name of a cookie", reader)
    }

    fn schema(book: &mut Book) -> Value {
        book.pattern("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
    }
}

/// A regular expression that must match the whole of a value.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// `^(?:…)$`, for matching.
    pub anchored: Regex,
    /// As written, for finding.
    pub free: Regex,
}

impl Pattern {
    /// For one value: the whole of it, unless the expression says itself with `^` or `$` where it is to match.
    pub fn for_value(self) -> Regex {
        let text = self.free.as_str();
        if text.starts_with('^') || text.ends_with('$') {
            self.free
        } else {
            self.anchored
        }
    }
}

impl Shape for Pattern {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "a regular expression")?;
        let build = |text: &str| RegexBuilder::new(text).size_limit(REGEX_SIZE).build();
        // Alone first: `a)|(b` would only compile, and mean something else, inside the anchors.
        let built = build(&scalar.text)
            .and_then(|free| Ok((free, build(&format!("^(?:{})$", scalar.text))?)));
        match built {
            Ok((free, anchored)) => Some(Self { anchored, free }),
            Err(regex::Error::CompiledTooBig(limit)) => {
                let message = format!("the regular expression takes more than {limit} bytes");
                reader.refuse(
                    Code::BadRegex,
                    &node.position,
                    path,
                    message,
                    "use smaller counts in `{m,n}`",
                );
                None
            }
            Err(error) => {
                let text = error.to_string();
                let why = text
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .trim()
                    .trim_start_matches("error: ");
                let shown = quoted(scalar.shown());
                let message = format!("{shown} is not a regular expression: {why}");
                reader.refuse(Code::BadRegex, &node.position, path, message, "");
                None
            }
        }
    }

    fn schema(_book: &mut Book) -> Value {
        json!({ "type": ["string", "number"] })
    }
}

/// Any text; numbers and booleans are taken as they are written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PlainText(pub String);

impl Shape for PlainText {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader
            .scalar(node, path, "a string")
            .map(|scalar| Self(scalar.text.clone()))
    }

    fn schema(_book: &mut Book) -> Value {
        json!({ "type": ["string", "number", "boolean"] })
    }
}

/// The body of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyText(pub String);

impl Shape for BodyText {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "a string")?;
        if scalar.kind == Kind::Null {
            return None;
        }
        Some(Self(scalar.text.clone()))
    }

    fn schema(book: &mut Book) -> Value {
        PlainText::schema(book)
    }
}

/// The status of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedirectStatus(pub StatusCode);

impl RedirectStatus {
    const ALL: [u16; 5] = [301, 302, 303, 307, 308];
}

impl Shape for RedirectStatus {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "the status of a redirect")?;
        let number = scalar
            .text
            .parse()
            .ok()
            .filter(|number| Self::ALL.contains(number));
        let status = number.and_then(|number| StatusCode::from_u16(number).ok());
        if status.is_none() {
            reader.bad_value(
                node,
                path,
                "the status of a redirect",
                "one of 301, 302, 303, 307 and 308",
            );
        }
        status.map(Self)
    }

    fn schema(book: &mut Book) -> Value {
        book.or_environment(json!({ "enum": Self::ALL }))
    }
}

/// `http` or `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// Returns the scheme as it stands in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

super::section::choice!(Scheme, "a scheme", { "http" => Self::Http, "https" => Self::Https, });
