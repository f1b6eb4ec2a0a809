//! Headers and query parameters whose values are never written down.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::HeaderMap;
use serde_json::Value;

/// What stands for a value that is not written down.
pub(super) const REDACTED: &str = "[redacted]";

/// A name with one of these in it carries a secret.
const WORDS: [&str; 9] = [
    "authorization",
    "cookie",
    "api-key",
    "api_key",
    "apikey",
    "token",
    "secret",
    "password",
    "credential",
];

/// Further whole names of query parameters.
const PARAMETERS: [&str; 4] = ["key", "sig", "signature", "code"];

fn is_secret(lower: &str) -> bool {
    WORDS.iter().any(|word| lower.contains(word))
}

/// Returns the headers as a JSON object; several values of one become an array.
pub(super) fn headers(headers: &HeaderMap) -> Value {
    let mut object = BTreeMap::new();
    for name in headers.keys() {
        let mut values: Vec<Value> = headers
            .get_all(name)
            .iter()
            .map(|value| {
                if is_secret(name.as_str()) {
                    return REDACTED.into();
                }
                String::from_utf8_lossy(value.as_bytes())
                    .into_owned()
                    .into()
            })
            .collect();
        let value = match values.len() {
            1 => values.remove(0),
            _ => Value::Array(values),
        };
        object.insert(name.as_str().to_owned(), value);
    }
    Value::Object(object.into_iter().collect())
}

/// Returns path and query with the values of secret parameters replaced.
pub(super) fn target(target: &str) -> Cow<'_, str> {
    let Some((path, query)) = target.split_once('?') else {
        return Cow::Borrowed(target);
    };
    let parts: Vec<Cow<'_, str>> = query
        .split('&')
        .map(|part| match part.split_once('=') {
            Some((name, _)) if is_secret_parameter(name) => {
                Cow::Owned(format!("{name}={REDACTED}"))
            }
            _ => Cow::Borrowed(part),
        })
        .collect();
    Cow::Owned(format!("{path}?{}", parts.join("&")))
}

fn is_secret_parameter(name: &str) -> bool {
    let name = percent_decoded(name).to_ascii_lowercase();
    is_secret(&name) || PARAMETERS.contains(&name.as_str())
}

/// Bad escapes stay as they are.
pub(super) fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digit = |at: usize| tail.get(at).and_then(|&byte| char::from(byte).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = &tail[2..];
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn secret_headers_keep_their_names_only() {
        let mut map = HeaderMap::new();
        for name in [
            "authorization",
            "proxy-authorization",
            "cookie",
            "set-cookie",
            "x-api-key",
            "api-key",
            "x-csrf-token",
            "client-secret",
            "x-password-hash",
        ] {
            map.append(
                HeaderName::from_static(name),
                HeaderValue::from_static("SENSITIVE"),
            );
        }
        map.append("set-cookie", HeaderValue::from_static("SENSITIVE=2"));
        map.append("accept", HeaderValue::from_static("a"));
        map.append("accept", HeaderValue::from_bytes(b"b\xff\t").unwrap());
        let object = headers(&map);
        assert!(!object.to_string().contains("SENSITIVE"));
        assert_eq!(object["accept"], serde_json::json!(["a", "b\u{fffd}\t"]));
        assert_eq!(object["x-api-key"], REDACTED);
        assert_eq!(
            object["set-cookie"],
            serde_json::json!([REDACTED, REDACTED])
        );
    }

    #[test]
    fn secret_parameters_keep_their_names_only() {
        assert_eq!(target("/plain"), "/plain");
        assert_eq!(
            target("/p?a=1&Key=x&api%5Fkey=y&key&t%6fken=z=z?&%zz=%"),
            "/p?a=1&Key=[redacted]&api%5Fkey=[redacted]&key&t%6fken=[redacted]&%zz=%"
        );
    }
}
