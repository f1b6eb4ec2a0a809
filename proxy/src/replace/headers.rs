//! What a body that is edited means for the heads of its request and answer.

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_RANGE,
    LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderValue};

/// What goes to the endpoint of a route that edits bodies.
///
/// `accept-encoding` becomes `identity`, so that the body needs no decoding (nginx users send it empty for that).
/// `range` and `if-range` go: a part may begin or end within what is looked for, and its offsets would count bytes of a
/// body that the client never sees.
pub fn edit_request_headers(headers: &mut HeaderMap) {
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.remove(RANGE);
    headers.remove(IF_RANGE);
}

/// What stays true of an answer whose body is edited: no length, no encoding, no ranges, no digests, and as in nginx a
/// weak `etag` and no `last-modified`.
pub fn edit_response_headers(headers: &mut HeaderMap) {
    for name in [
        CONTENT_LENGTH,
        CONTENT_ENCODING,
        ACCEPT_RANGES,
        LAST_MODIFIED,
    ] {
        headers.remove(name);
    }
    for name in ["content-md5", "digest", "content-digest", "repr-digest"] {
        headers.remove(name);
    }
    if let Some(etag) = headers.get_mut(ETAG)
        && !etag.as_bytes().starts_with(b"W/")
    {
        let weak = [b"W/", etag.as_bytes()].concat();
        match HeaderValue::from_bytes(&weak) {
            Ok(weak) => *etag = weak,
            Err(_) => drop(headers.remove(ETAG)),
        }
    }
}

/// The media type of a body, lower case, without parameters. `None`: none is said.
pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let written = String::from_utf8_lossy(headers.get(CONTENT_TYPE)?.as_bytes());
    let essence = written.split(';').next()?.trim();
    (!essence.is_empty()).then(|| essence.to_ascii_lowercase())
}

/// True when one of `types`, which may be `*/*` or `text/*`, is meant.
pub(super) fn is_of_type(media_type: Option<&str>, types: &[String]) -> bool {
    types.iter().any(|wanted| match media_type {
        Some(media_type) if wanted == "*/*" => !media_type.starts_with("application/grpc"),
        Some(media_type) => match wanted.strip_suffix("/*") {
            Some(family) => media_type
                .split_once('/')
                .is_some_and(|(is, _)| is == family),
            None => media_type == wanted,
        },
        None => wanted == "*/*",
    })
}

/// How a body is encoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Deflate,
    Other(Box<str>),
}

/// Reads `content-encoding`; several at once are one that is not known.
pub(super) fn coding(headers: &HeaderMap) -> Coding {
    let lines = headers.get_all(CONTENT_ENCODING).iter();
    let lines = lines.map(|line| String::from_utf8_lossy(line.as_bytes()).to_ascii_lowercase());
    let written = lines.collect::<Vec<_>>().join(",");
    let codings = written.split(',').map(str::trim);
    let codings: Vec<_> = codings
        .filter(|coding| !matches!(*coding, "" | "identity"))
        .collect();
    match codings[..] {
        [] => Coding::Identity,
        ["gzip" | "x-gzip"] => Coding::Gzip,
        ["deflate"] => Coding::Deflate,
        _ => {
            let name = codings.join(",");
            let printable = name.chars().filter(char::is_ascii_graphic);
            Coding::Other(printable.take(32).collect::<String>().into())
        }
    }
}
