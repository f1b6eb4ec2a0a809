//! Shapes of what may be sent and how much of it: access entries, rates, keys, origins.

use http::HeaderName;
use ipnet::{IpNet, Ipv4Net};
use serde_json::{Value as Json, json};

use super::keys::{AccessEntryKeys, OverrideKeys, PerKeys, Places, StickyCookieKeys};
use super::section::{choice, unknown_word};
use super::{At, Book, CookieName, List, Path, Reader, Shape};
use crate::canonical::canonical_host;
use crate::diagnostic::Code;
use crate::model::{AccessEntry, LimitKey, MissingKey, Origin, Position};
use crate::node::{Node, Value};
use crate::units;

/// The highest rate, per second: GCRA counts in nanoseconds.
const RATE_MAX: u64 = 10_000_000;

/// One entry of `allow` and `deny`: an address block, or a map.
#[derive(Clone, Debug)]
pub struct AccessShape(pub AccessEntry);

impl Shape for AccessShape {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let Value::Map(_) = node.value else {
            return IpNet::read(node, path, reader)
                .map(|net| Self(AccessEntry::Net(unmapped(net))));
        };
        let keys = AccessEntryKeys::read(node, path, reader)?;
        if let Some(empty) = without_condition(node) {
            let help = "`{present: true}` asks whether the header is there";
            reader.wrong_type(empty, path.key("header"), "a condition", help);
            return None;
        }
        let mut refuse = |code, message, help| {
            if !keys.broken {
                reader.refuse(code, &node.position, path, message, help);
            }
            None
        };
        match (keys.header, keys.file) {
            (Some(at), None) if !at.value.0.is_empty() => {
                let named = at.value.0.into_iter();
                let named = named.map(|(name, value)| (name.0, value.0)).collect();
                Some(Self(AccessEntry::Headers(named)))
            }
            (None, Some(file)) => Some(Self(AccessEntry::File(file.value.0))),
            (Some(_), None) => {
                let help = "for example `{header: {user-agent: {regex: \"^curl\"}}}`";
                refuse(Code::BadValue, "`header` names no header", help)
            }
            (Some(_), Some(_)) | (None, None) => {
                let message = "expected exactly one of `header` and `file`";
                refuse(
                    Code::Conflict,
                    message,
                    "make two entries of two conditions",
                )
            }
        }
    }

    fn schema(book: &mut Book) -> Json {
        json!({ "anyOf": [IpNet::schema(book), AccessEntryKeys::schema(book)] })
    }
}

/// Returns a header of an entry that has no condition: left out, the entry would hold for more requests than it seems.
fn without_condition(entry: &Node) -> Option<&Node> {
    let Value::Map(headers) = &entry.get("header")?.value else {
        return None;
    };
    let mut conditions = headers.iter().map(|header| &header.value);
    conditions.find(|condition| condition.is_null())
}

/// Returns an IPv4 block that is written as IPv6 as what it is, because that is how clients are known.
pub(crate) fn unmapped(net: IpNet) -> IpNet {
    if let IpNet::V6(six) = net
        && let (Some(four), Some(length)) = (
            six.addr().to_ipv4_mapped(),
            six.prefix_len().checked_sub(96),
        )
        && let Ok(four) = Ipv4Net::new(four, length)
    {
        return IpNet::V4(four);
    }
    net
}

/// A rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateText(pub units::Rate);

impl Shape for RateText {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "a rate")?;
        let text = scalar.text.as_str();
        let Some(rate) = units::rate(text) else {
            let number = text.split('/').next().unwrap_or_default();
            let help = match number.parse::<f64>() {
                Ok(number) if number <= 0.0 => {
                    "a rate is above 0; `access: {allow: []}` refuses everything".to_owned()
                }
                Ok(_) if number == text => format!("a rate has a unit: `{number}/s`?"),
                _ => units::RATE_FORM.to_owned(),
            };
            reader.bad_value(node, path, "a rate", &help);
            return None;
        };
        if rate.thousandths > RATE_MAX * 1000 * rate.period.as_secs() {
            let message = format!("{} is out of range: at most {RATE_MAX}/s", scalar.shown());
            reader.refuse(Code::OutOfRange, &node.position, path, message, "");
            return None;
        }
        Some(Self(rate))
    }

    fn schema(book: &mut Book) -> Json {
        book.define("Rate", |book| {
            let text = book.pattern(units::RATE_PATTERN);
            json!({ "description": units::RATE_FORM, "anyOf": [text] })
        })
    }
}

/// The limit of one key: a rate, a number for `concurrent`, or a map.
#[derive(Clone, Debug)]
pub struct OverrideShape {
    /// What it says.
    pub value: OverrideValue,
    /// Where it was written.
    pub position: Position,
}

/// What the limit of one key says.
#[derive(Clone, Debug)]
pub enum OverrideValue {
    /// A rate.
    Rate(units::Rate),
    /// So many at the same time.
    Places(Places),
    /// A rate, perhaps with its burst.
    Quota(Box<OverrideKeys>),
}

impl Shape for OverrideShape {
    /// A key without a limit of its own would have the general one unnoticed.
    const READS_NULL: bool = true;

    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let value = match &node.value {
            Value::Map(_) => {
                let keys = OverrideKeys::read(node, path, reader)?;
                keys.rate.as_ref()?;
                OverrideValue::Quota(Box::new(keys))
            }
            Value::Scalar(scalar) if scalar.text.trim_start_matches('-').parse::<u64>().is_ok() => {
                OverrideValue::Places(Places::read(node, path, reader)?)
            }
            Value::Scalar(_) | Value::List(_) => {
                OverrideValue::Rate(RateText::read(node, path, reader)?.0)
            }
        };
        Some(Self {
            value,
            position: node.position.clone(),
        })
    }

    fn schema(book: &mut Book) -> Json {
        let shapes = [
            RateText::schema(book),
            Places::schema(book),
            OverrideKeys::schema(book),
        ];
        json!({ "anyOf": shapes })
    }
}

/// What has a bucket of its own: a word, or a map.
#[derive(Clone, Debug)]
pub struct PerShape(pub LimitKey);

const PER: &[&str] = &["route", "client_ip", "identity"];

impl Shape for PerShape {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        const WANTED: &str = "the key of a limit";
        if let Value::Map(_) = node.value {
            let keys = PerKeys::read(node, path, reader)?;
            let header = keys.header.map(|at| LimitKey::Header(at.value.0));
            let cookie = keys.cookie.map(|at| LimitKey::Cookie(at.value.0));
            let json = keys.json.map(|at| LimitKey::Json(at.value.0));
            let mut found = header.into_iter().chain(cookie).chain(json);
            return match (found.next(), found.next()) {
                (Some(key), None) => Some(Self(key)),
                (Some(_), Some(_)) | (None, _) => {
                    if !keys.broken {
                        let message = "expected exactly one of `header`, `cookie` and `json`";
                        reader.refuse(Code::Conflict, &node.position, path, message, "");
                    }
                    None
                }
            };
        }
        match reader.scalar(node, path, WANTED)?.text.as_str() {
            "route" => return Some(Self(LimitKey::Route)),
            "client_ip" => return Some(Self(LimitKey::ClientIp)),
            "identity" => return Some(Self(LimitKey::Identity)),
            word @ ("header" | "cookie") => {
                let help = format!("say which one: `{{{word}: NAME}}`");
                reader.wrong_type(node, path, &format!("a map for `{word}`"), &help);
            }
            "json" => {
                let help = "say which field: `{json: /user}`";
                reader.wrong_type(node, path, "a map for `json`", help);
            }
            word => unknown_word(word, PER, WANTED, node, path, reader),
        }
        None
    }

    fn schema(book: &mut Book) -> Json {
        let words = book.or_environment(json!({ "enum": PER }));
        json!({ "anyOf": [words, PerKeys::schema(book)] })
    }
}

choice!(MissingKey, "a treatment of missing keys", {
    "shared" => Self::Shared,
    "refuse" => Self::Refuse,
    "skip" => Self::Skip,
});

/// Where the requests of a limit are counted; there is one place so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In this proxy.
    Local,
}

choice!(Scope, "a scope", later ["fleet"], { "local" => Self::Local, });

/// A list, or everything: `["*"]`.
#[derive(Clone, Debug)]
pub enum AnyList<T> {
    /// `["*"]`, or `"*"`.
    Any,
    /// These.
    Only(List<T>),
}

impl<T: Shape> Shape for AnyList<T> {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let star = |node: &Node| node.scalar().is_some_and(|scalar| scalar.text == "*");
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            Value::Scalar(_) if star(node) => return Some(Self::Any),
            Value::Scalar(_) | Value::Map(_) => &[],
        };
        match items.iter().find(|item| star(item)) {
            Some(_) if items.len() == 1 => Some(Self::Any),
            Some(item) => {
                let message = "`*` is everything, so that it stands alone";
                let help = "keep `\"*\"`, or remove it";
                reader.refuse(Code::Conflict, &item.position, path, message, help);
                None
            }
            None => List::read(node, path, reader).map(Self::Only),
        }
    }

    fn schema(book: &mut Book) -> Json {
        let item = json!({ "anyOf": [{ "const": "*" }, T::schema(book)] });
        json!({ "anyOf": [{ "const": "*" }, { "type": "array", "items": item }] })
    }
}

/// What a site may read: everything, these, or `*` beside names, for browsers that take `*` by the letter.
#[derive(Clone, Debug)]
pub struct ExposeList(pub AnyList<HeaderName>);

impl Shape for ExposeList {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let several = matches!(&node.value, Value::List(items) if items.len() > 1);
        let list = if several {
            AnyList::Only(List::read(node, path, reader)?)
        } else {
            AnyList::read(node, path, reader)?
        };
        Some(Self(list))
    }

    fn schema(book: &mut Book) -> Json {
        AnyList::<HeaderName>::schema(book)
    }
}

impl Shape for HeaderName {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "the name of a header")?;
        let name = Self::from_bytes(scalar.text.as_bytes()).ok();
        if name.is_none() {
            let help = "for example `x-tenant`";
            reader.bad_value(node, path, "the name of a header", help);
        }
        name
    }

    fn schema(book: &mut Book) -> Json {
        book.pattern("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
    }
}

/// The origin of a site, or of all sites below a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginText(pub Origin);

impl Shape for OriginText {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = reader.scalar(node, path, "an origin")?;
        match origin(&scalar.text) {
            Ok(origin) => Some(Self(origin)),
            Err(help) => {
                reader.bad_value(node, path, "an origin", &help);
                None
            }
        }
    }

    fn schema(book: &mut Book) -> Json {
        book.pattern(r"^(null|[A-Za-z][A-Za-z0-9+.-]*://(\*\.)?[^*/@?# ]+)$")
    }
}

/// Reads an origin as browsers send it. `Err` says what helps.
fn origin(text: &str) -> Result<Origin, String> {
    const FORM: &str = "an origin looks like `https://app.example.com` or `https://*.example.com`";
    if text == "null" {
        return Ok(Origin::Exact(text.to_owned()));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(match canonical_host(text) {
            Ok(_) => format!("the scheme is missing: `https://{text}`?"),
            Err(_) => FORM.to_owned(),
        });
    };
    let scheme = scheme.to_ascii_lowercase();
    let legal = |c: char| c.is_ascii_alphanumeric() || "+.-".contains(c);
    if !scheme.starts_with(|c: char| c.is_ascii_lowercase()) || !scheme.chars().all(legal) {
        return Err(FORM.to_owned());
    }
    if let Some((site, _)) = rest.split_once(['/', '?', '#']) {
        return Err(format!("leave the path out: `{scheme}://{site}`?"));
    }
    let (wild, rest) = match rest.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    if rest == "*" {
        return Err("`[\"*\"]` allows every site".to_owned());
    }
    if rest.contains('*') {
        return Err("`*` stands for the labels in front, as in `https://*.example.com`".to_owned());
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let host = canonical_host(host).map_err(|error| error.to_string())?;
    let port = match port.map(str::parse::<u16>) {
        None => String::new(),
        Some(Ok(443)) if scheme == "https" => String::new(),
        Some(Ok(80)) if scheme == "http" => String::new(),
        Some(Ok(port)) if port > 0 => format!(":{port}"),
        Some(_) => return Err("the port is not a number from 1 to 65535".to_owned()),
    };
    Ok(if wild {
        Origin::Suffix {
            scheme: format!("{scheme}://"),
            suffix: format!(".{host}{port}"),
        }
    } else {
        Origin::Exact(format!("{scheme}://{host}{port}"))
    })
}

/// The cookie of a sticky split: its name, or a map.
#[derive(Clone, Debug)]
pub struct StickyCookieShape(pub StickyCookieKeys);

impl Shape for StickyCookieShape {
    fn read(node: &Node, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if let Value::Map(_) = node.value {
            return StickyCookieKeys::read(node, path, reader).map(Self);
        }
        let name = At::<CookieName>::read(node, path, reader)?;
        Some(Self(StickyCookieKeys {
            position: node.position.clone(),
            broken: false,
            top_broken: false,
            name: Some(name),
            ttl: None,
        }))
    }

    fn schema(book: &mut Book) -> Json {
        json!({ "anyOf": [CookieName::schema(book), StickyCookieKeys::schema(book)] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_held_as_browsers_send_them() {
        for (written, sent) in [
            ("https://App.Example.com", "https://app.example.com"),
            ("https://app.example.com:443", "https://app.example.com"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:80", "http://[::1]"),
            ("null", "null"),
            ("https://*.example.com", "https://a.b.example.com"),
            ("https://*.example.com:8443", "https://a.example.com:8443"),
        ] {
            assert!(origin(written).unwrap().is(sent), "{written}");
        }
    }

    #[test]
    fn other_sites_are_not_taken_for_one() {
        let every =
            ["https://example.com", "https://*.example.com"].map(|text| origin(text).unwrap());
        for other in [
            "http://example.com",
            "https://example.com.evil.test",
            "https://evilexample.com",
            "https://.example.com",
            "https://example.com:8443",
            "https://a.example.com:8443",
            "https://evil.test/.example.com",
            "https://evil.test:1@a.example.com",
            "null",
            "",
        ] {
            assert!(every.iter().all(|origin| !origin.is(other)), "{other}");
        }
    }

    #[test]
    fn what_no_browser_sends_is_refused() {
        for text in [
            "",
            "example.com",
            "https://",
            "https://*",
            "https://a.*.com",
            "https://a.com/",
            "https://a.com/x",
            "https://a b",
            "https://a.com:0",
            "https://a.com:x",
            "https://u@a.com",
            "://a.com",
        ] {
            assert!(origin(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mapped_blocks_are_ipv4() {
        let block = |text: &str| unmapped(text.parse().unwrap()).to_string();
        assert_eq!(block("::ffff:10.0.0.0/104"), "10.0.0.0/8");
        assert_eq!(block("::ffff:10.0.0.1/128"), "10.0.0.1/32");
        assert_eq!(block("::ffff:0.0.0.0/95"), "::ffff:0.0.0.0/95");
        assert_eq!(block("fd00::/8"), "fd00::/8");
    }
}
