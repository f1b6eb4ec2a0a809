//! A body as it goes into a line: as JSON, as text, in base64, or not at all when its fields cannot be redacted.

use forebay_config::pointer::Pointer;
use http::{HeaderMap, header};

use crate::capture::Kept;

use super::{base64, json};

/// What stands for a part of a stream whose fields cannot be redacted.
const OMITTED: &str = "[omitted]";

/// What is to be done with bodies.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    /// Bodies are cut off here, in bytes.
    pub(super) max_body: u64,
    /// Fields whose values are replaced.
    pub(super) redact: Vec<Pointer>,
}

/// What a body is taken for.
enum Kind {
    Json,
    JsonLines,
    EventStream,
    /// Named fields in a notation that pointers do not reach.
    Form,
    Other,
}

/// Appends `body`, `body_encoding`, `body_bytes` and `truncated` as members of an object, without a comma at either
/// end.
pub(super) fn push(out: &mut Vec<u8>, headers: &HeaderMap, kept: &Kept, rules: &Rules) {
    let most = usize::try_from(rules.max_body).unwrap_or(usize::MAX);
    let bytes = &kept.bytes[..kept.bytes.len().min(most)];
    let complete = kept.is_complete() && bytes.len() == kept.bytes.len();
    out.extend_from_slice(b"\"body\":");
    let encoding = push_value(out, headers, bytes, complete, &rules.redact);
    let rest = format!(
        ",\"body_encoding\":\"{encoding}\",\"body_bytes\":{},\"truncated\":{}",
        kept.length, !complete
    );
    out.extend_from_slice(rest.as_bytes());
}

/// Appends the body alone; returns how it is written.
fn push_value(
    out: &mut Vec<u8>,
    headers: &HeaderMap,
    bytes: &[u8],
    complete: bool,
    redact: &[Pointer],
) -> &'static str {
    let careful = !redact.is_empty();
    if is_compressed(headers) || careful && has_compressed_magic(bytes) {
        return if careful {
            omit(out)
        } else {
            plain(out, bytes, complete)
        };
    }
    match kind(headers, bytes) {
        _ if bytes.is_empty() => plain(out, bytes, complete),
        Kind::Json => {
            let text = std::str::from_utf8(bytes).ok().filter(|_| complete);
            match text.map(|text| json::push(out, text, redact)) {
                Some(Ok(())) => "json",
                _ if careful => omit(out),
                _ => plain(out, bytes, complete),
            }
        }
        Kind::JsonLines | Kind::EventStream | Kind::Form if !careful => plain(out, bytes, complete),
        Kind::JsonLines => parts(out, bytes, complete, redact, json_lines),
        Kind::EventStream => parts(out, bytes, complete, redact, events),
        Kind::Form => omit(out),
        Kind::Other => plain(out, bytes, complete),
    }
}

fn omit(out: &mut Vec<u8>) -> &'static str {
    out.extend_from_slice(b"null");
    "omitted"
}

fn plain(out: &mut Vec<u8>, bytes: &[u8], complete: bool) -> &'static str {
    if let Some(text) = text_of(bytes, complete) {
        json::push_string(out, text);
        return "text";
    }
    out.push(b'"');
    base64::push(out, bytes);
    out.push(b'"');
    "base64"
}

/// The bytes as text; of a body that is cut, without a cut character at its end.
fn text_of(bytes: &[u8], complete: bool) -> Option<&str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if !complete && error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    }
}

fn parts(
    out: &mut Vec<u8>,
    bytes: &[u8],
    complete: bool,
    redact: &[Pointer],
    redacted: fn(&str, &[Pointer]) -> Vec<u8>,
) -> &'static str {
    let text = text_of(bytes, complete);
    match text.and_then(|text| String::from_utf8(redacted(text, redact)).ok()) {
        Some(text) => {
            json::push_string(out, &text);
            "text"
        }
        None => omit(out),
    }
}

/// Redacts line by line up to the first that is no JSON: it may be a document over several lines.
fn json_lines(text: &str, redact: &[Pointer]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let content = line.trim();
        if !content.is_empty() && json::push(&mut out, content, redact).is_err() {
            json::push_string(&mut out, OMITTED);
            break;
        }
        if line.ends_with('\n') {
            out.push(b'\n');
        }
    }
    out
}

/// Redacts event by event. Data that is no JSON object or array, other than `[DONE]`, is left out, and so are comments
/// and unknown fields.
fn events(text: &str, redact: &[Pointer]) -> Vec<u8> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let unix = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = Vec::with_capacity(text.len());
    let mut data: Option<String> = None;
    for line in unix.split('\n') {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => match &mut data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => data = Some(value.to_owned()),
            },
            "event" | "id" | "retry" => {
                out.extend_from_slice(format!("{field}: {value}\n").as_bytes());
            }
            "" if line.is_empty() => {
                let had_data = data.is_some();
                push_data(&mut out, data.take(), redact);
                if had_data || out.last().is_some() && !out.ends_with(b"\n\n") {
                    out.push(b'\n');
                }
            }
            _ => {}
        }
    }
    push_data(&mut out, data, redact);
    out
}

fn push_data(out: &mut Vec<u8>, data: Option<String>, redact: &[Pointer]) {
    let Some(data) = data else { return };
    out.extend_from_slice(b"data: ");
    let content = data.trim();
    if content.is_empty() || content == "[DONE]" {
        out.extend_from_slice(content.as_bytes());
    } else if !content.starts_with(['{', '[']) || json::push(out, content, redact).is_err() {
        out.extend_from_slice(OMITTED.as_bytes());
    }
    out.push(b'\n');
}

fn is_compressed(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|value| {
            value.as_bytes().split(|&byte| byte == b',').any(|coding| {
                let coding = coding.trim_ascii();
                !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity")
            })
        })
}

/// Gzip and Zstandard, whatever the headers say.
fn has_compressed_magic(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b]) || bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
}

/// By `content-type`, and by what the body begins with where that says nothing of JSON: `curl -d` calls it a form.
fn kind(headers: &HeaderMap, bytes: &[u8]) -> Kind {
    let declared = headers.get(header::CONTENT_TYPE).map(|value| {
        let essence = value.as_bytes().split(|&byte| byte == b';').next();
        String::from_utf8_lossy(essence.unwrap_or_default()).to_ascii_lowercase()
    });
    let declared = declared.as_deref().map_or("", str::trim);
    if declared == "text/event-stream" {
        return Kind::EventStream;
    }
    if ["ndjson", "jsonl", "json-lines"]
        .iter()
        .any(|name| declared.contains(name))
    {
        return Kind::JsonLines;
    }
    if declared.contains("json") {
        return Kind::Json;
    }
    let start = bytes.iter().position(|&byte| !is_filler(byte));
    let start = &bytes[start.unwrap_or(bytes.len())..];
    if matches!(start.first(), Some(b'{' | b'[' | b'"')) {
        return Kind::Json;
    }
    let fields: [&[u8]; 5] = [b"data:", b"event:", b"id:", b"retry:", b":"];
    if fields.iter().any(|field| start.starts_with(field)) {
        return Kind::EventStream;
    }
    if declared == "application/x-www-form-urlencoded" || declared.starts_with("multipart/") {
        return Kind::Form;
    }
    Kind::Other
}

/// White space, byte order marks, and the zeros of wider encodings.
fn is_filler(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, 0 | 0xef | 0xbb | 0xbf | 0xfe | 0xff)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::{Value, json};

    use super::*;

    fn written(headers: &[(&'static str, &'static str)], kept: &Kept, redact: &[&str]) -> Value {
        let headers = headers
            .iter()
            .map(|&(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        let rules = Rules {
            max_body: 100_000,
            redact: redact
                .iter()
                .map(|pointer| Pointer::parse(pointer).unwrap())
                .collect(),
        };
        let mut out = b"{".to_vec();
        push(&mut out, &headers.collect(), kept, &rules);
        out.push(b'}');
        serde_json::from_slice(&out).unwrap()
    }

    fn whole(bytes: &[u8]) -> Kept {
        Kept {
            bytes: bytes.to_vec(),
            length: bytes.len() as u64,
            whole: true,
        }
    }

    /// Body and encoding of a whole body of a type.
    fn of(kind: &'static str, body: &str, redact: &[&str]) -> (Value, String) {
        let mut object = written(&[("content-type", kind)], &whole(body.as_bytes()), redact);
        let encoding = object["body_encoding"].as_str().unwrap().to_owned();
        (object["body"].take(), encoding)
    }

    fn text(body: &str) -> (Value, String) {
        (body.into(), "text".to_owned())
    }

    fn omitted() -> (Value, String) {
        (Value::Null, "omitted".to_owned())
    }

    #[test]
    fn a_body_is_json_text_or_base64() {
        let json = (json!({"a": [1]}), "json".to_owned());
        assert_eq!(
            of("application/json; charset=utf-8", " {\"a\":\n[1]}", &[]),
            json
        );
        assert_eq!(
            of("application/x-www-form-urlencoded", "{\"a\":[1]}", &[]),
            json
        );
        assert_eq!(of("application/json", "{\"a\":", &[]), text("{\"a\":"));
        assert_eq!(of("text/plain", "7", &["/a"]), text("7"));
        assert_eq!(
            of("text/plain", "\0\u{1b}\r\n\u{2028}\"", &["/a"]),
            text("\0\u{1b}\r\n\u{2028}\"")
        );
        assert_eq!(of("application/json", "", &["/a"]), text(""));
        assert_eq!(
            written(&[], &whole(b"\xffa\n"), &["/a"]),
            json!({"body": "/2EK", "body_encoding": "base64", "body_bytes": 3, "truncated": false})
        );
    }

    #[test]
    fn a_cut_body_says_so() {
        let cut = |length, whole| Kept {
            bytes: "{\"ä".as_bytes()[..3].to_vec(),
            length,
            whole,
        };
        let expected =
            json!({"body": "{\"", "body_encoding": "text", "body_bytes": 9, "truncated": true});
        assert_eq!(written(&[], &cut(9, true), &[]), expected);
        assert_eq!(written(&[], &cut(3, false), &[])["truncated"], true);
        assert_eq!(
            written(&[], &cut(9, true), &["/a"]),
            json!({"body": null, "body_encoding": "omitted", "body_bytes": 9, "truncated": true})
        );
        let long = whole(&vec![b'x'; 100_001]);
        let object = written(&[], &long, &[]);
        assert_eq!(object["body"].as_str().unwrap().len(), 100_000);
        assert_eq!(
            (&object["body_bytes"], &object["truncated"]),
            (&json!(100_001), &json!(true))
        );
    }

    #[test]
    fn what_cannot_be_redacted_is_left_out() {
        for body in [
            "{\"a\":1",
            "{\"a\":1}}",
            "{'a':1}",
            "\u{feff}{\"a\":1}",
            " [1e999]",
            "\"\\ud800\"",
            "a=1",
        ] {
            assert_eq!(
                of("application/x-www-form-urlencoded", body, &["/a"]),
                omitted(),
                "{body}"
            );
            assert_eq!(
                of("application/vnd.x+json", body, &["/a"]),
                omitted(),
                "{body}"
            );
        }
        let wide: Vec<u8> = "{\"a\":1}"
            .encode_utf16()
            .flat_map(u16::to_be_bytes)
            .collect();
        let gzip = [0x1f, 0x8b, 8, 0];
        for body in [&wide[..], &gzip] {
            assert_eq!(
                written(&[], &whole(body), &["/a"])["body_encoding"],
                "omitted"
            );
            assert_ne!(written(&[], &whole(body), &[])["body_encoding"], "omitted");
        }
        let coded = [("content-type", "text/plain"), ("content-encoding", "br")];
        assert_eq!(
            written(&coded, &whole(b"abc"), &["/a"])["body_encoding"],
            "omitted"
        );
        assert_eq!(written(&coded, &whole(b"{}"), &[])["body_encoding"], "text");
        let identity = [("content-encoding", "identity")];
        assert_eq!(
            written(&identity, &whole(b"{}"), &["/a"])["body_encoding"],
            "json"
        );
        assert_eq!(
            of("multipart/form-data; boundary=x", "--x", &["/a"]),
            omitted()
        );
    }

    #[test]
    fn json_lines_are_redacted_up_to_the_first_that_is_broken() {
        let kind = "application/x-ndjson";
        assert_eq!(of(kind, "{\"a\": 1}\r\n", &[]), text("{\"a\": 1}\r\n"));
        assert_eq!(
            of(kind, "{\"a\": 1}\r\n\n[2]\n{\"a\":3,\"b\":4}", &["/a"]),
            text("{\"a\":\"[redacted]\"}\n\n[2]\n{\"a\":\"[redacted]\",\"b\":4}")
        );
        assert_eq!(
            of(
                "application/jsonl",
                "{\"b\":1}\n{\"a\":[\n\"secret\"\n]}\n",
                &["/a"]
            ),
            text("{\"b\":1}\n\"[omitted]\"")
        );
    }

    #[test]
    fn events_are_redacted_one_by_one() {
        let stream = ": hello {\"a\":1}\n\nevent: token\r\nid:7\r\ndata: {\"a\":\"x\",\r\ndata:\"b\":2}\r\n\r\n\
            data: plain\n\ndata:\"text\"\n\ndata: [DONE]\n\n{\"a\":1}\n\nretry: 5\ndata\n\ndata: {\"a\":\"cu";
        assert_eq!(of("text/event-stream", stream, &[]), text(stream));
        let expected = "event: token\nid: 7\ndata: {\"a\":\"[redacted]\",\"b\":2}\n\ndata: [omitted]\n\n\
            data: [omitted]\n\ndata: [DONE]\n\nretry: 5\ndata: \n\ndata: [omitted]\n";
        assert_eq!(
            of("text/event-stream; charset=utf-8", stream, &["/a"]),
            text(expected)
        );
        assert_eq!(
            of("text/plain", "data: {\"a\":1}\n\n", &["/a"]),
            text("data: {\"a\":\"[redacted]\"}\n\n")
        );
    }
}
