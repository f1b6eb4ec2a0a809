//! Headers as they are written down: without their secrets.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::secret::{REDACTED, is_secret, is_url, target};

/// Returns the headers as a JSON object; several values of one become an array.
pub(super) fn headers(headers: &HeaderMap) -> Value {
    let mut object = BTreeMap::new();
    for name in headers.keys() {
        let values = headers.get_all(name).iter();
        let mut values: Vec<Value> = values.map(|value| shown(name, value).into()).collect();
        let value = match values.len() {
            1 => values.remove(0),
            _ => Value::Array(values),
        };
        object.insert(name.as_str().to_owned(), value);
    }
    Value::Object(object.into_iter().collect())
}

fn shown(name: &HeaderName, value: &HeaderValue) -> String {
    if is_secret(name.as_str()) {
        return REDACTED.to_owned();
    }
    let text = String::from_utf8_lossy(value.as_bytes());
    if is_url(name.as_str()) {
        return target(&text).into_owned();
    }
    text.into_owned()
}

#[cfg(test)]
mod tests {
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
            "x-auth",
            "x-session",
            "x-signature",
            "x-passwd",
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
    fn urls_in_headers_keep_the_names_of_secret_parameters_only() {
        let mut map = HeaderMap::new();
        let url = HeaderValue::from_static("https://h/p?a=1&api_key=SENSITIVE");
        map.insert("referer", url.clone());
        map.insert("location", url);
        let object = headers(&map);
        assert_eq!(object["referer"], "https://h/p?a=1&api_key=[redacted]");
        assert_eq!(object["location"], object["referer"]);
    }
}
