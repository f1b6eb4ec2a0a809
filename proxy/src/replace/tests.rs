use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use http::HeaderValue;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, ETAG};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn entry(find: &str, with: &str) -> Replace {
    Replace {
        find: find.to_owned(),
        with: with.to_owned(),
        types: vec!["*/*".to_owned()],
        once: false,
        ignore_case: false,
    }
}

fn of_coding(coding: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    headers.insert(CONTENT_ENCODING, HeaderValue::from_str(coding).unwrap());
    headers
}

fn stream(entries: &[Replace], coding: &str) -> Stream {
    let replacer = Replacer::new(entries);
    match replacer.applies(StatusCode::OK, &of_coding(coding), false) {
        Applies::Stream(stream) => stream,
        other => panic!("{other:?}"),
    }
}

/// Feeds pieces of the given sizes, over and over.
fn edited(mut stream: Stream, body: &[u8], sizes: &[usize]) -> Result<Vec<u8>, Broken> {
    let mut out = Vec::new();
    let mut rest = body;
    for &size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        out.extend(stream.feed(Bytes::copy_from_slice(piece))?);
        while stream.pending() {
            out.extend(stream.feed(Bytes::new())?);
        }
    }
    loop {
        out.extend(stream.finish()?);
        if !stream.pending() {
            return Ok(out);
        }
    }
}

fn begins(text: &[u8], entry: &Replace) -> bool {
    let find = entry.find.as_bytes();
    text.get(..find.len())
        .is_some_and(|head| head == find || entry.ignore_case && head.eq_ignore_ascii_case(find))
}

fn reference(entries: &[Replace], text: &[u8]) -> Vec<u8> {
    let mut live: Vec<_> = entries.iter().collect();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < text.len() {
        match live.iter().position(|entry| begins(&text[at..], entry)) {
            Some(found) => {
                let entry = live[found];
                out.extend(entry.with.as_bytes());
                at += entry.find.len();
                if entry.once {
                    live.remove(found);
                }
            }
            None => {
                out.push(text[at]);
                at += 1;
            }
        }
    }
    out
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn entries() -> impl Strategy<Value = Vec<Replace>> {
    let find = prop_oneof!["[abAé]{1,2}", "[abAé]{1,6}", "a{1,8}b?"];
    let parts = (find, "[abAxy]{0,4}", any::<bool>(), any::<bool>());
    let entries = parts.prop_map(|(find, with, once, ignore_case)| Replace {
        once,
        ignore_case,
        ..entry(&find, &with)
    });
    vec(entries, 1..5)
}

proptest! {
    #[test]
    fn pieces_change_nothing(
        entries in entries(), text in "[abAé]{0,60}", sizes in vec(1usize..12, 1..6),
    ) {
        let want = reference(&entries, text.as_bytes());
        let plain = edited(stream(&entries, ""), text.as_bytes(), &sizes);
        prop_assert_eq!(&plain.unwrap(), &want);
        let packed = edited(stream(&entries, "gzip"), &gzip(text.as_bytes()), &sizes);
        prop_assert_eq!(&packed.unwrap(), &want);
    }

    #[test]
    fn sparse_matches_are_leapt_to(
        entries in entries(), text in "([abA]{1,9}|[x-z]{9,60}){0,12}", sizes in vec(1usize..200, 1..6),
    ) {
        let got = edited(stream(&entries, ""), text.as_bytes(), &sizes).unwrap();
        prop_assert_eq!(got, reference(&entries, text.as_bytes()));
    }

    #[test]
    fn only_beginnings_of_needles_are_kept_back(
        entries in entries(), text in "[abAx]{0,60}", sizes in vec(1usize..12, 1..6),
    ) {
        let mut stream = stream(&entries, "");
        let mut rest = text.as_bytes();
        for &size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at(size.min(rest.len()));
            rest = after;
            stream.feed(Bytes::copy_from_slice(piece)).unwrap();
            let held = stream.search.held();
            let begins = |entry: &Replace| {
                let find = entry.find.as_bytes();
                held.len() < find.len() && match entry.ignore_case {
                    true => find[..held.len()].eq_ignore_ascii_case(held),
                    false => find.starts_with(held),
                }
            };
            prop_assert!(entries.iter().any(begins), "{:?}", held);
        }
    }

    #[test]
    fn any_bytes_are_survived(
        bytes in vec(any::<u8>(), 0..300), coding in prop::sample::select(vec!["gzip", "deflate"]),
        head in 0usize..12, sizes in vec(1usize..40, 1..4),
    ) {
        let mut body = gzip(b"abc")[..head].to_vec();
        body.extend(bytes);
        let whole = edited(stream(&[entry("a", "b")], coding), &body, &[usize::MAX]);
        prop_assert_eq!(edited(stream(&[entry("a", "b")], coding), &body, &sizes), whole);
    }
}

#[test]
fn events_are_not_delayed() {
    let mut stream = stream(&[entry("data: [DONE]", "bye")], "");
    let mut feed = |text: &'static str| stream.feed(Bytes::from_static(text.as_bytes())).unwrap();
    assert_eq!(feed("data: {}\n\n"), "data: {}\n\n");
    assert_eq!(feed("data: {}\n\nda"), "data: {}\n\n");
    assert_eq!(feed("ta: ["), "");
    assert_eq!(feed("x]\n"), "data: [x]\n");
    assert_eq!(feed("data: [DONE]"), "bye");
}

#[test]
fn a_beginning_before_a_whole_needle_is_not_leapt_over() {
    let entries = [entry("aAbb", "1"), entry("b", "2")];
    let out = edited(stream(&entries, ""), b"xxaAbb", &[5]);
    assert_eq!(out.unwrap(), b"xx1");
}

#[test]
fn what_needs_no_edit_is_not_copied() {
    let body = Bytes::from("nothing to see here ".repeat(100));
    let mut stream = stream(&[entry("<head>", "")], "");
    let out = stream.feed(body.clone()).unwrap();
    assert_eq!(out.as_ptr(), body.as_ptr());
    assert_eq!(out, body);
}

#[test]
fn a_gzipped_event_comes_out_when_it_comes_in() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let mut stream = stream(&[entry("b", "x")], "gzip");
    for _ in 0..3 {
        encoder.write_all(b"abc").unwrap();
        encoder.flush().unwrap();
        let sent = std::mem::take(encoder.get_mut());
        assert_eq!(stream.feed(sent.into()).unwrap(), "axc");
    }
}

#[test]
fn a_bomb_comes_out_in_steps() {
    let bomb = gzip(&vec![0; 32 << 20]);
    let mut stream = stream(&[entry("\0\0\0x", "")], "gzip");
    let mut out = stream.feed(bomb.into()).unwrap();
    let mut total = out.len();
    while stream.pending() {
        assert!(out.len() <= STEP + 3);
        out = stream.feed(Bytes::new()).unwrap();
        total += out.len();
    }
    total += stream.finish().unwrap().len();
    assert_eq!(total, 32 << 20);
}

#[test]
fn replacements_that_grow_come_out_in_steps() {
    let long = "y".repeat(4096);
    let mut stream = stream(&[entry("x", &long)], "");
    let mut out = stream.feed("x".repeat(1000).into()).unwrap();
    let mut total = out.len();
    while stream.pending() {
        assert!(out.len() <= STEP + long.len());
        out = stream.feed(Bytes::new()).unwrap();
        total += out.len();
    }
    assert_eq!(total, 4096 * 1000);
}

#[test]
fn every_kind_of_gzip_and_deflate_is_read() {
    let text = "abc ".repeat(50_000);
    let want = text.replace("bc", "x").into_bytes();
    let mut full = flate2::GzBuilder::new()
        .extra(vec![7; 300])
        .filename("name")
        .comment("comment")
        .write(Vec::new(), Compression::default());
    full.write_all(text.as_bytes()).unwrap();
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(text.as_bytes()).unwrap();
    let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
    raw.write_all(text.as_bytes()).unwrap();
    let (first, second) = text.as_bytes().split_at(1000);
    let padded = [gzip(text.as_bytes()), vec![0; 100]].concat();
    for (coding, body) in [
        ("GZip", full.finish().unwrap()),
        ("x-gzip", [gzip(first), gzip(second)].concat()),
        ("gzip, identity", padded),
        ("deflate", zlib.finish().unwrap()),
        ("deflate", raw.finish().unwrap()),
    ] {
        for sizes in [[1], [1000], [usize::MAX]] {
            let out = edited(stream(&[entry("bc", "x")], coding), &body, &sizes);
            assert!(out.unwrap() == want, "{coding} {sizes:?}");
        }
    }
    assert_eq!(
        edited(stream(&[entry("a", "b")], "gzip"), b"", &[1]),
        Ok(vec![])
    );
    assert_eq!(
        edited(stream(&[entry("a", "b")], "deflate"), b"", &[1]),
        Ok(vec![])
    );
}

#[test]
fn a_broken_encoding_is_an_error() {
    let whole = gzip(b"hello hello hello");
    let out = |body: &[u8], coding| edited(stream(&[entry("x", "y")], coding), body, &[3]);
    for cut in 1..whole.len() {
        assert_eq!(out(&whole[..cut], "gzip"), Err(Broken::Truncated), "{cut}");
    }
    for wrong in [0, 1, 2, 3, whole.len() - 1, whole.len() - 8] {
        let mut body = whole.clone();
        body[wrong] ^= 0xe0;
        assert_eq!(out(&body, "gzip"), Err(Broken::Corrupt), "{wrong}");
    }
    assert_eq!(out(b"<html>plain", "gzip"), Err(Broken::Corrupt));
    assert_eq!(out(b"x", "deflate"), Err(Broken::Truncated));
    assert_eq!(out(b"\xff\xff\xff\xff", "deflate"), Err(Broken::Corrupt));
}

#[test]
fn only_whole_bodies_of_its_types_are_edited() {
    let mut only = entry("a", "b");
    only.types = vec!["text/*".to_owned(), "application/json".to_owned()];
    let replacer = Replacer::new(&[only]);
    let applies = |status: u16, written: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(written).unwrap());
        let status = StatusCode::from_u16(status).unwrap();
        matches!(
            replacer.applies(status, &headers, false),
            Applies::Stream(_)
        )
    };
    for written in [
        "text/html",
        "Text/Plain ; charset=utf-8",
        "APPLICATION/JSON",
    ] {
        assert!(applies(200, written), "{written}");
        assert!(applies(503, written), "{written}");
    }
    for written in ["application/json5", "textual/x", "text", "image/png", ""] {
        assert!(!applies(200, written), "{written}");
    }
    for status in [101, 204, 206, 304] {
        assert!(!applies(status, "text/html"), "{status}");
    }
    let every = Replacer::new(&[entry("a", "b")]);
    let decide = |headers: &HeaderMap| every.applies(StatusCode::OK, headers, false);
    assert!(matches!(decide(&HeaderMap::new()), Applies::Stream(_)));
    let grpc = [(
        CONTENT_TYPE,
        HeaderValue::from_static("application/grpc+proto"),
    )];
    assert!(matches!(decide(&grpc.into_iter().collect()), Applies::No));
    let none = Replacer::new(&[]).applies(StatusCode::OK, &of_coding(""), false);
    assert!(matches!(none, Applies::No));
}

#[test]
fn entries_of_other_types_stay_out() {
    let mut plain = entry("a", "1");
    plain.types = vec!["text/plain".to_owned()];
    let html = stream(&[plain, entry("b", "2")], "");
    assert_eq!(edited(html, b"abab", &[9]).unwrap(), b"a2a2");
}

#[test]
fn unknown_encodings_are_told() {
    let replacer = Replacer::new(&[entry("a", "b")]);
    for (written, name) in [
        ("BR", "br"),
        ("gzip, zstd", "gzip,zstd"),
        ("gzip,gzip", "gzip,gzip"),
    ] {
        match replacer.applies(StatusCode::OK, &of_coding(written), false) {
            Applies::Skipped(told) => assert_eq!(&*told, name),
            other => panic!("{written}: {other:?}"),
        }
    }
    let head = replacer.applies(StatusCode::OK, &of_coding("gzip"), true);
    assert!(matches!(head, Applies::Head));
}

#[test]
fn heads_stay_true() {
    let mut headers = HeaderMap::new();
    for name in [
        "content-length",
        "content-encoding",
        "accept-ranges",
        "last-modified",
        "content-md5",
        "digest",
        "content-digest",
        "repr-digest",
        "range",
        "if-range",
        "accept-encoding",
    ] {
        headers.insert(name, HeaderValue::from_static("x"));
    }
    headers.insert(ETAG, HeaderValue::from_static("\"v\""));
    edit_response_headers(&mut headers);
    edit_response_headers(&mut headers);
    edit_request_headers(&mut headers);
    let mut left: Vec<_> = headers
        .iter()
        .map(|(n, v)| (n.as_str(), v.to_str().unwrap()))
        .collect();
    left.sort_unstable();
    assert_eq!(left, [("accept-encoding", "identity"), ("etag", "W/\"v\"")]);
}

#[test]
fn a_type_is_read_as_bytes_of_any_kind() {
    let latin = HeaderValue::from_bytes(b"text/html; x=\xe9").unwrap();
    let headers: HeaderMap = [(CONTENT_TYPE, latin)].into_iter().collect();
    let mut html = entry("a", "b");
    html.types = vec!["text/html".to_owned()];
    let applies = Replacer::new(&[html]).applies(StatusCode::OK, &headers, false);
    assert!(matches!(applies, Applies::Stream(_)));
}
