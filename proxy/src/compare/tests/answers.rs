//! Statuses, headers and bodies that are not documents.

use std::collections::BTreeSet;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::CONTENT_TYPE;

use super::*;
use crate::compare::Bodies;

fn fields(left: &SeenAnswer, right: &SeenAnswer, config: &Compare) -> Vec<String> {
    differences(left, right, config, None)
        .fields
        .into_keys()
        .collect()
}

fn gzip(body: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn the_status_of_grpc_is_part_of_the_status() {
    let with = |status: &'static str| {
        let trailers = HeaderMap::from_iter([(
            HeaderName::from_static("grpc-status"),
            HeaderValue::from_static(status),
        )]);
        SeenAnswer {
            trailers: Some(trailers),
            ..answer(&[("content-type", "application/grpc")], "")
        }
    };
    assert!(fields(&with("0"), &with("0"), &config()).is_empty());
    let found = differences(&with("0"), &with("14"), &config(), None);
    assert_eq!(
        found.fields["status"].mirror.as_deref(),
        Some("200 grpc-status 14")
    );
    let early = answer(&[("grpc-status", "14")], "");
    assert!(fields(&with("14"), &early, &config()).is_empty());
    let failed = SeenAnswer {
        status: StatusCode::BAD_GATEWAY,
        ..json("")
    };
    assert_eq!(fields(&json(""), &failed, &config()), ["status"]);
}

#[test]
fn only_headers_that_are_named_are_compared() {
    let config = Compare {
        headers: vec![HeaderName::from_static("x-a")],
        ..config()
    };
    let with = |headers: &[(&str, &str)]| answer(headers, "");
    assert!(
        fields(
            &with(&[("x-a", "1"), ("x-b", "1")]),
            &with(&[("x-a", "1")]),
            &config
        )
        .is_empty()
    );
    assert!(
        fields(
            &with(&[("x-a", "1"), ("x-a", "2")]),
            &with(&[("x-a", "1, 2")]),
            &config
        )
        .is_empty()
    );
    let found = differences(
        &with(&[("x-a", "1"), ("x-a", "2")]),
        &with(&[]),
        &config,
        None,
    );
    let difference = &found.fields["header:x-a"];
    assert_eq!(
        (difference.primary.as_deref(), difference.mirror.as_deref()),
        (Some("1, 2"), None)
    );
    assert_eq!(
        fields(&with(&[("x-a", "")]), &with(&[]), &config),
        ["header:x-a"]
    );
}

#[test]
fn other_bodies_are_compared_by_bytes() {
    let plain = |body: &str| answer(&[("content-type", "text/plain")], body);
    let found = differences(&plain("{\"a\":1}"), &plain("{\"a\": 1}"), &config(), None);
    let difference = &found.fields["body"];
    assert_eq!(
        difference.primary.as_deref(),
        Some("7 bytes, first difference at offset 5")
    );
    assert_eq!(
        difference.mirror.as_deref(),
        Some("8 bytes, first difference at offset 5")
    );
    let found = differences(&plain("ab"), &plain("abc"), &config(), None);
    assert_eq!(
        found.fields["body"].mirror.as_deref(),
        Some("3 bytes, first difference at offset 2")
    );
    assert_eq!(fields(&json("{"), &json("{}"), &config()), ["body"]);
    assert_eq!(
        fields(&json([b'"', 0xff, b'"']), &json("\"\""), &config()),
        ["body"]
    );
    assert!(fields(&json("{"), &json("{"), &config()).is_empty());
}

#[test]
fn without_a_content_type_a_body_may_be_json() {
    let bare = |body: &str| answer(&[], body);
    assert_eq!(
        fields(&bare("{\"a\":1}"), &bare("{\"a\":2}"), &config()),
        ["/a"]
    );
    assert_eq!(
        fields(&bare("{\"a\":1}"), &json("{\"a\":2}"), &config()),
        ["/a"]
    );
    assert_eq!(fields(&bare("a"), &bare("b"), &config()), ["body"]);
}

#[test]
fn encodings_are_undone() {
    let with = |encoding: &str, body: Vec<u8>| {
        answer(
            &[
                ("content-type", "application/json"),
                ("content-encoding", encoding),
            ],
            body,
        )
    };
    assert!(fields(&with("gzip", gzip("[1,2]")), &json("[1, 2]"), &config()).is_empty());
    assert_eq!(
        fields(
            &with("gzip", gzip("{\"a\":1}")),
            &json("{\"a\":2}"),
            &config()
        ),
        ["/a"]
    );
    let br = |body: &str| with("br", body.into());
    assert!(fields(&br("x"), &br("x"), &config()).is_empty());
    assert_eq!(fields(&br("x"), &br("y"), &config()), ["body"]);
    let found = differences(&br("x"), &json("x"), &config(), None);
    assert_eq!(
        found.fields["content-encoding"].primary.as_deref(),
        Some("br")
    );
    assert_eq!(found.fields["content-encoding"].mirror, None);
    let bomb = with("gzip", gzip(&" ".repeat(100_000)));
    let small = Compare {
        max_body: 1000,
        ..config()
    };
    assert_eq!(
        differences(&bomb, &json("1"), &small, None).bodies,
        Bodies::TooLarge
    );
}

#[test]
fn bodies_that_are_not_all_there_are_not_compared() {
    let config = Compare {
        max_body: 4,
        headers: vec![CONTENT_TYPE],
        ..config()
    };
    let other = answer(&[], "1");
    let large = differences(&json("12345"), &other, &config, None);
    assert_eq!(
        (large.bodies, names(&large)),
        (Bodies::TooLarge, BTreeSet::from(["header:content-type"]))
    );
    let mut cut = json("12");
    cut.body.whole = false;
    let cut = differences(&other, &cut, &config, None);
    assert_eq!(
        (cut.bodies, names(&cut)),
        (Bodies::Incomplete, BTreeSet::from(["header:content-type"]))
    );
    let mut kept = json("12");
    kept.body.length = 3;
    assert_eq!(
        differences(&kept, &other, &config, None).bodies,
        Bodies::TooLarge
    );
}
