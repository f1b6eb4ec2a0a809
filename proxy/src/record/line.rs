//! One entry as one JSON line.

use http::HeaderMap;

use crate::access_log::rfc3339;
use crate::capture::{Seen, SeenRequest};

use super::body::{self, Rules};
use super::recorder::Entry;
use super::{json, secret};

/// Appends the line of `entry`, with its end.
pub(super) fn push(out: &mut Vec<u8>, entry: &Entry, rules: &Rules) {
    let request = &*entry.request;
    member(out, b"{\"time\":", &rfc3339(entry.time));
    member(out, b",\"request_id\":", &request.id);
    member(out, b",\"route\":", &request.route);
    member(out, b",\"role\":", entry.role.label());
    out.extend_from_slice(b",\"mirror\":");
    match &entry.mirror {
        Some(mirror) => json::push_string(out, mirror),
        None => out.extend_from_slice(b"null"),
    }
    member(out, b",\"cluster\":", &entry.cluster);
    push_request(out, request, rules);
    push_seen(out, &entry.seen, rules);
    out.extend_from_slice(b"}\n");
}

fn push_request(out: &mut Vec<u8>, request: &SeenRequest, rules: &Rules) {
    member(out, b",\"request\":{\"method\":", request.method.as_str());
    member(out, b",\"authority\":", &request.authority);
    member(out, b",\"path\":", &crate::secret::target(&request.target));
    push_headers(out, b",\"headers\":", &request.headers);
    out.push(b',');
    body::push(out, &request.headers, &request.body, rules);
    out.push(b'}');
}

fn push_seen(out: &mut Vec<u8>, seen: &Seen, rules: &Rules) {
    let answer = match seen {
        Seen::Answer(answer) => answer,
        Seen::Nothing(reason) => {
            member(out, b",\"status\":null,\"error\":", reason);
            out.extend_from_slice(
                b",\"headers\":{},\"body\":null,\"body_encoding\":null,\"body_bytes\":0,\"truncated\":false,\
                  \"trailers\":null,\"seconds\":null",
            );
            return;
        }
    };
    let status = format!(",\"status\":{},\"error\":null", answer.status.as_u16());
    out.extend_from_slice(status.as_bytes());
    push_headers(out, b",\"headers\":", &answer.headers);
    out.push(b',');
    body::push(out, &answer.headers, &answer.body, rules);
    match &answer.trailers {
        Some(trailers) => push_headers(out, b",\"trailers\":", trailers),
        None => out.extend_from_slice(b",\"trailers\":null"),
    }
    out.extend_from_slice(b",\"seconds\":");
    push_json(out, &answer.seconds); // null unless finite
}

fn push_headers(out: &mut Vec<u8>, name: &[u8], headers: &HeaderMap) {
    out.extend_from_slice(name);
    push_json(out, &secret::headers(headers));
}

fn push_json(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    serde_json::to_writer(out, value).expect("a Vec takes all bytes and these values are JSON");
}

fn member(out: &mut Vec<u8>, name: &[u8], value: &str) {
    out.extend_from_slice(name);
    json::push_string(out, value);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use forebay_config::pointer::Pointer;
    use http::{HeaderValue, Method, StatusCode};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::recorder::Role;
    use super::*;
    use crate::capture::{Kept, SeenAnswer};

    fn whole(bytes: &[u8]) -> Kept {
        Kept {
            bytes: bytes.to_vec(),
            length: bytes.len() as u64,
            whole: true,
        }
    }

    fn headers(list: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in list {
            map.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        map
    }

    fn entry(request: Kept, answer: Kept) -> Entry {
        Entry {
            time: UNIX_EPOCH + Duration::from_millis(1_767_323_045_678),
            role: Role::Mirror,
            mirror: Some("canary".into()),
            cluster: "llama-v2".into(),
            request: Arc::new(SeenRequest {
                id: "r-1".to_owned(),
                route: "chat".into(),
                method: Method::POST,
                authority: "Example:80".to_owned(),
                target: "/v1/chat?api_key=SENSITIVE&x=1".to_owned(),
                headers: headers(&[
                    ("content-type", b"application/json"),
                    ("authorization", b"Bearer SENSITIVE"),
                ]),
                body: request,
            }),
            seen: Seen::Answer(Box::new(SeenAnswer {
                status: StatusCode::OK,
                headers: headers(&[("set-cookie", b"SENSITIVE"), ("x-a", b"1"), ("x-a", b"2")]),
                body: answer,
                trailers: Some(headers(&[("grpc-status", b"0"), ("x-token", b"SENSITIVE")])),
                seconds: 0.25,
            })),
        }
    }

    fn line(entry: &Entry, redact: Vec<Pointer>) -> String {
        let mut out = Vec::new();
        let max_body = 1 << 20;
        push(&mut out, entry, &Rules { max_body, redact });
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.find('\n'), Some(text.len() - 1), "one line, ended");
        text
    }

    fn parsed(entry: &Entry) -> Value {
        serde_json::from_str(&line(entry, Vec::new())).unwrap()
    }

    #[test]
    fn an_answer_has_all_its_members() {
        let entry = entry(whole(b"{\"n\":\n1}"), whole(b"hi"));
        let text = line(&entry, Vec::new());
        assert!(!text.contains("SENSITIVE"), "{text}");
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            json!({
                "time": "2026-01-02T03:04:05.678Z",
                "request_id": "r-1",
                "route": "chat",
                "role": "mirror",
                "mirror": "canary",
                "cluster": "llama-v2",
                "request": {
                    "method": "POST",
                    "authority": "Example:80",
                    "path": "/v1/chat?api_key=[redacted]&x=1",
                    "headers": {"content-type": "application/json", "authorization": "[redacted]"},
                    "body": {"n": 1},
                    "body_encoding": "json",
                    "body_bytes": 8,
                    "truncated": false,
                },
                "status": 200,
                "error": null,
                "headers": {"set-cookie": "[redacted]", "x-a": ["1", "2"]},
                "body": "hi",
                "body_encoding": "text",
                "body_bytes": 2,
                "truncated": false,
                "trailers": {"grpc-status": "0", "x-token": "[redacted]"},
                "seconds": 0.25,
            })
        );
    }

    #[test]
    fn no_answer_has_the_same_members() {
        let answered = entry(Kept::default(), Kept::default());
        let nothing = Entry {
            role: Role::Primary,
            mirror: None,
            seen: Seen::Nothing("timeout"),
            ..answered.clone()
        };
        let (answered, nothing) = (parsed(&answered), parsed(&nothing));
        let names = |value: &Value| {
            value
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&answered), names(&nothing));
        assert_eq!(
            (
                &nothing["status"],
                &nothing["error"],
                &nothing["seconds"],
                &nothing["mirror"]
            ),
            (&Value::Null, &json!("timeout"), &Value::Null, &Value::Null)
        );
        assert_eq!(nothing["role"], "primary");
    }

    #[test]
    fn hostile_strings_stay_in_their_place() {
        let evil = "\"},\n{\"role\":\"primary\"\r\0\u{7f}\u{2028}\\";
        let mut entry = entry(whole(evil.as_bytes()), whole(b"\xff\n\"}"));
        let request = Arc::make_mut(&mut entry.request);
        request.id = evil.to_owned();
        request.authority = evil.to_owned();
        request.target = evil.to_owned();
        request.headers = headers(&[("x", b"\"},\t{\"role\":1,\xfe")]);
        entry.cluster = evil.into();
        entry.mirror = Some(evil.into());
        let value = parsed(&entry);
        for place in [
            "/request_id",
            "/cluster",
            "/mirror",
            "/request/authority",
            "/request/path",
            "/request/body",
        ] {
            assert_eq!(value.pointer(place).unwrap(), evil, "{place}");
        }
        assert_eq!(
            value["request"]["headers"]["x"],
            "\"},\t{\"role\":1,\u{fffd}"
        );
        assert_eq!(
            (&value["role"], &value["body"]),
            (&json!("mirror"), &json!("/woifQ=="))
        );
    }

    /// Documents whose scalars can be told from anything else in a line.
    fn documents() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            (0u32..1_000_000).prop_map(|number| json!(format!("VALUE\u{e4}\"{number}.END"))),
            (0u64..1_000_000).prop_map(|number| json!(7_770_000_000_000 + number)),
        ];
        let name = prop_oneof![
            "[a-d]",
            Just("~/".to_owned()),
            Just("\"\n".to_owned()),
            Just("\u{e4}".to_owned())
        ];
        scalar.prop_recursive(4, 40, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::btree_map(name.clone(), inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn pointers() -> impl Strategy<Value = Vec<Pointer>> {
        let token = prop_oneof![
            "[a-d]",
            "[0-3]",
            Just("*".to_owned()),
            Just("~/".to_owned()),
            Just("\u{e4}".to_owned())
        ];
        let pointer = prop::collection::vec(token, 0..4).prop_map(|tokens| Pointer { tokens });
        prop::collection::vec(pointer, 1..4)
    }

    /// Scalars at covered places, and all others, as they look inside JSON.
    fn scalars(
        value: &Value,
        path: &mut Vec<String>,
        redact: &[Pointer],
        found: &mut [Vec<String>; 2],
    ) {
        let mut below = |token: String, value: &Value| {
            path.push(token);
            scalars(value, path, redact, found);
            path.pop();
        };
        match value {
            Value::Array(items) => {
                let items = items.iter().enumerate();
                items.for_each(|(index, item)| below(index.to_string(), item));
            }
            Value::Object(members) => {
                members
                    .iter()
                    .for_each(|(name, item)| below(name.clone(), item));
            }
            scalar => {
                let place: Vec<&str> = path.iter().map(String::as_str).collect();
                let covered = redact.iter().any(|pointer| pointer.covers(&place));
                found[usize::from(covered)].push(scalar.to_string().trim_matches('"').to_owned());
            }
        }
    }

    proptest! {
        #[test]
        fn no_redacted_value_is_in_the_line(
            document in documents(),
            redact in pointers(),
            pretty: bool,
            cut in prop::option::of(0usize..200),
            kind in prop::sample::select(vec![
                "application/json", "application/x-ndjson", "text/event-stream", "text/plain",
                "application/x-www-form-urlencoded", "multipart/form-data", "application/octet-stream",
            ]),
        ) {
            let mut body = if pretty { format!("{document:#}") } else { document.to_string() };
            if kind == "text/event-stream" {
                let fields: String = body.lines().map(|line| format!("data: {line}\n")).collect();
                body = format!("event: x\n{fields}\n{fields}\n");
            }
            let mut kept = whole(body.as_bytes());
            if let Some(cut) = cut.filter(|cut| *cut < body.len()) {
                kept.bytes.truncate(cut);
            }
            let mut entry = entry(kept.clone(), kept);
            Arc::make_mut(&mut entry.request).headers.insert("content-type", HeaderValue::from_static(kind));
            if let Seen::Answer(answer) = &mut entry.seen {
                answer.headers.insert("content-type", HeaderValue::from_static(kind));
            }
            let is_scalar = !document.is_object() && !document.is_array();
            prop_assume!(!is_scalar || kind.contains("json")); // elsewhere it is no JSON body
            let text = line(&entry, redact.clone());
            let mut found = Default::default();
            scalars(&document, &mut Vec::new(), &redact, &mut found);
            let [open, covered] = found;
            for secret in covered.iter().filter(|secret| !open.contains(secret)) {
                let nested = secret.replace('\\', "\\\\").replace('"', "\\\"");
                let inner: String = secret.chars().filter(char::is_ascii_digit).collect();
                prop_assert!(!text.contains(secret.as_str()) && !text.contains(&nested), "{secret} in {text}");
                if secret.starts_with('7') {
                    prop_assert!(!text.contains(&inner), "{inner} in {text}");
                }
            }
            if kind == "application/json" && cut.is_none() {
                for value in &open {
                    prop_assert!(text.contains(value.as_str()), "{value} not in {text}");
                }
            }
        }
    }
}
