//! A record as one JSON object.

use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use super::record::{Captured, MAX_VALUE, Record};
use super::{escape, time};

/// Index of `user-agent` among the headers that this form wants, its only one.
pub(super) const USER_AGENT: usize = 0;

/// Appends the object, without a line end. The same keys in the same order every time; what there was none of is
/// `null`; durations are in milliseconds.
pub(super) fn push(out: &mut Vec<u8>, record: &Record<'_>, request: &Captured) {
    out.extend_from_slice(b"{\"time\":\"");
    time::push_rfc3339(out, record.time);
    out.push(b'"');
    text(out, "method", record.method);
    text(out, "scheme", record.scheme);
    text(out, "authority", record.authority);
    text(out, "path", escape::cut(record.path, MAX_VALUE));
    text(out, "protocol", record.protocol);
    number(out, "status", record.status);
    text(out, "reason", record.reason);
    number(out, "request_bytes", record.request_bytes);
    number(out, "response_bytes", record.response_bytes);
    millis(out, "duration_ms", Some(record.duration));
    millis(out, "request_ms", record.request_duration);
    millis(out, "first_byte_ms", record.first_byte);
    millis(out, "overhead_ms", record.overhead);
    millis(out, "queue_ms", record.queue);
    text(out, "route", record.route);
    text(out, "cluster", record.cluster);
    let model = record.model.unwrap_or_default();
    text(out, "model", escape::cut(model, MAX_VALUE));
    text(out, "endpoint", record.endpoint.unwrap_or_default());
    number(out, "attempts", record.attempts);
    text(out, "request_id", record.request_id.unwrap_or_default());
    text(out, "trace_id", record.trace_id.unwrap_or_default());
    quoted(out, "client", record.client_address());
    text(out, "identity", record.identity.unwrap_or_default());
    quoted(out, "peer", record.peer);
    quoted(out, "local", record.local);
    text(out, "listener", record.listener);
    bytes(
        out,
        "user_agent",
        request.find(USER_AGENT).unwrap_or_default(),
    );
    number(out, "generation", record.generation);
    out.push(b'}');
}

fn key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn text(out: &mut Vec<u8>, name: &str, value: &str) {
    bytes(out, name, value.as_bytes());
}

fn bytes(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    key(out, name);
    if value.is_empty() {
        out.extend_from_slice(b"null");
        return;
    }
    out.push(b'"');
    escape::push(out, value);
    out.push(b'"');
}

fn number(out: &mut Vec<u8>, name: &str, value: impl Display) {
    key(out, name);
    write!(out, "{value}").expect("a Vec takes all bytes");
}

fn quoted(out: &mut Vec<u8>, name: &str, value: impl Display) {
    key(out, name);
    write!(out, "\"{value}\"").expect("a Vec takes all bytes");
}

fn millis(out: &mut Vec<u8>, name: &str, value: Option<Duration>) {
    key(out, name);
    match value {
        Some(value) => {
            let micros = value.as_micros();
            write!(out, "{}.{:03}", micros / 1000, micros % 1000).expect("a Vec takes all bytes");
        }
        None => out.extend_from_slice(b"null"),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header};
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::format::Format;
    use super::super::record::sample;
    use super::*;

    fn shown(record: &Record<'_>, headers: &HeaderMap) -> String {
        let mut out = Vec::new();
        push(
            &mut out,
            record,
            &Captured::copy(&[header::USER_AGENT], headers),
        );
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_looks_like_this() {
        let headers =
            HeaderMap::from_iter([(header::USER_AGENT, HeaderValue::from_static("curl/8"))]);
        let expected = r#"{"time":"2026-01-02T03:04:05.006Z","method":"POST","scheme":"http","authority":"m.example","path":"/v1/x?y=1","protocol":"HTTP/1.1","status":200,"reason":null,"request_bytes":5,"response_bytes":7,"duration_ms":1234.567,"request_ms":2.000,"first_byte_ms":1000.000,"overhead_ms":0.045,"queue_ms":null,"route":"resnet","cluster":"resnet-v1","model":null,"endpoint":"10.0.0.9:8501","attempts":1,"request_id":"id-1","trace_id":"abc","client":"192.0.2.1:555","identity":null,"peer":"192.0.2.1:555","local":"127.0.0.1:8080","listener":"public","user_agent":"curl/8","generation":3}"#;
        assert_eq!(shown(&sample(), &headers), expected);
    }

    #[test]
    fn a_long_path_is_cut() {
        let path = format!("/{}", "é".repeat(2000));
        let line: Value = serde_json::from_str(&shown(
            &Record {
                path: &path,
                ..sample()
            },
            &HeaderMap::new(),
        ))
        .unwrap();
        assert_eq!(line["path"].as_str().unwrap().len(), 1023);
    }

    proptest! {
        #[test]
        fn any_bytes_give_one_line_of_valid_json(agent in any::<Vec<u8>>(), path in any::<String>(), id in ".{0,40}") {
            let mut headers = HeaderMap::new();
            if let Ok(agent) = HeaderValue::from_bytes(&agent) {
                headers.insert(header::USER_AGENT, agent);
            }
            let record = Record { path: &path, request_id: Some(&id), authority: &path, ..sample() };
            let line = shown(&record, &headers);
            prop_assert!(!line.chars().any(char::is_control));
            let line: Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(line["request_id"].as_str().unwrap_or_default(), id);
            if path.len() <= MAX_VALUE {
                prop_assert_eq!(line["path"].as_str().unwrap_or_default(), path);
            }
        }

        #[test]
        fn any_bytes_give_a_legal_json_string(bytes in any::<Vec<u8>>()) {
            let mut out = Vec::from(*b"{\"a\":0");
            super::bytes(&mut out, "b", &bytes);
            out.push(b'}');
            prop_assert!(out.iter().all(|&byte| byte >= b' '));
            prop_assert!(serde_json::from_slice::<Value>(&out).is_ok());
        }

        #[test]
        fn any_bytes_give_one_line_of_text(bytes in any::<Vec<u8>>(), path in any::<String>()) {
            let format = Format::parse("%REQ(A)% %REQ(:PATH)% \"%REQ(a):7%\" %RESP(b)%\n").unwrap();
            let value = HeaderValue::from_bytes(&bytes).unwrap_or(HeaderValue::from_static("x"));
            let headers = HeaderMap::from_iter([("a".parse().unwrap(), value)]);
            let request = Captured::copy(&format.wants().request, &headers);
            let mut out = Vec::new();
            format.push(&mut out, &Record { path: &path, ..sample() }, &request, &Captured::default());
            prop_assert!(!String::from_utf8(out).unwrap().chars().any(char::is_control));
        }

        #[test]
        fn no_format_string_panics(format in "[%A-Z_():?0-9 a-zé]{0,40}") {
            if let Err(error) = Format::parse(&format) {
                prop_assert!(error.offset <= format.len());
            }
        }
    }
}
