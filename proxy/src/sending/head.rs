//! The head of a request, kept as bytes in case that it has to be sent once more.
//!
//! Most never are. A clone of its fields would count up and down the owner of each, and keep the blocks that they were
//! read into for as long as an endpoint thinks; bytes are one short copy.

use bytes::BytesMut;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};

/// Bytes that most heads fit into.
const USUAL: usize = 1 << 10;
/// Set in the length of a value that must not be kept in tables of header compression.
const SENSITIVE: u32 = 1 << 31;

/// Method, target, version and fields.
pub(super) struct Head {
    method: Method,
    version: Version,
    fields: usize,
    /// Scheme, authority and path, then names and values, each behind its length.
    bytes: Vec<u8>,
}

impl Head {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let (uri, headers) = (request.uri(), request.headers());
        let mut bytes = Vec::with_capacity(USUAL);
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        put(
            &mut bytes,
            uri.scheme_str().unwrap_or_default().as_bytes(),
            0,
        );
        put(&mut bytes, authority.as_bytes(), 0);
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        put(&mut bytes, path.as_bytes(), 0);
        for (name, value) in headers {
            let flag = if value.is_sensitive() { SENSITIVE } else { 0 };
            put(&mut bytes, name.as_str().as_bytes(), 0);
            put(&mut bytes, value.as_bytes(), flag);
        }
        Self {
            method: request.method().clone(),
            version: request.version(),
            fields: headers.len(),
            bytes,
        }
    }

    /// The request as it was, with this body; `None`: never, for it was one.
    #[cold]
    pub(super) fn request<B>(self, body: B) -> Option<Request<B>> {
        let mut rest = self.bytes.as_slice();
        let mut uri = Uri::builder();
        let (scheme, authority) = (take(&mut rest)?.0, take(&mut rest)?.0);
        if !scheme.is_empty() {
            uri = uri.scheme(scheme);
        }
        if !authority.is_empty() {
            uri = uri.authority(authority);
        }
        let path = take(&mut rest)?.0;
        if !path.is_empty() {
            uri = uri.path_and_query(path);
        }
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = uri.build().ok()?;
        *request.version_mut() = self.version;
        let headers = request.headers_mut();
        headers.reserve(self.fields);
        while !rest.is_empty() {
            let name = HeaderName::from_bytes(take(&mut rest)?.0).ok()?;
            let (value, sensitive) = take(&mut rest)?;
            let mut value = HeaderValue::from_bytes(value).ok()?;
            value.set_sensitive(sensitive);
            headers.append(name, value);
        }
        Some(request)
    }
}

/// Moves what a head holds out of the blocks of 8 KiB and more that it was read into, and that it would keep for as long
/// as it waits, into one of its own size.
pub(crate) fn compact<B>(request: &mut Request<B>) {
    let path = request
        .uri()
        .path_and_query()
        .map_or("", |path| path.as_str());
    let values = request.headers().values().map(HeaderValue::len);
    let mut block = BytesMut::with_capacity(path.len() + values.sum::<usize>());
    let length = path.len();
    block.extend_from_slice(path.as_bytes());
    for value in request.headers().values() {
        block.extend_from_slice(value.as_bytes());
    }
    let mut block = block.freeze();
    let mut parts = request.uri().clone().into_parts();
    if let Ok(path) = PathAndQuery::from_maybe_shared(block.split_to(length))
        && parts.path_and_query.is_some()
    {
        parts.path_and_query = Some(path);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    for value in request.headers_mut().values_mut() {
        if let Ok(mut copy) = HeaderValue::from_maybe_shared(block.split_to(value.len())) {
            copy.set_sensitive(value.is_sensitive());
            *value = copy;
        }
    }
}

/// Adds a part; those of a head are far shorter than 2 GiB, see `limits.header_bytes`.
fn put(bytes: &mut Vec<u8>, part: &[u8], flag: u32) {
    bytes.extend_from_slice(&(part.len() as u32 | flag).to_ne_bytes());
    bytes.extend_from_slice(part);
}

/// The next part, and whether it is sensitive.
fn take<'b>(rest: &mut &'b [u8]) -> Option<(&'b [u8], bool)> {
    let (length, behind) = rest.split_first_chunk()?;
    let length = u32::from_ne_bytes(*length);
    let (part, behind) = behind.split_at_checked((length & !SENSITIVE) as usize)?;
    *rest = behind;
    Some((part, length & SENSITIVE != 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    fn same_again(request: Request<()>) {
        let again = Head::of(&request).request(()).unwrap();
        assert_eq!(again.method(), request.method());
        assert_eq!(again.uri(), request.uri());
        assert_eq!(again.uri().scheme(), request.uri().scheme());
        assert_eq!(again.version(), request.version());
        let fields = |headers: &HeaderMap| {
            let fields = headers.iter();
            let of = |(n, v): (&HeaderName, &HeaderValue)| (n.clone(), v.clone(), v.is_sensitive());
            fields.map(of).collect::<Vec<_>>()
        };
        assert_eq!(fields(again.headers()), fields(request.headers()));
    }

    #[test]
    fn a_compact_head_is_the_same_in_one_block() {
        let read = bytes::Bytes::from(b"/v1/chat?x=1 one two".repeat(1000));
        let mut request = Request::builder().uri("http://h.example:80/");
        let path = PathAndQuery::from_maybe_shared(read.slice(..12)).unwrap();
        let headers = request.headers_mut().unwrap();
        for (name, at) in [("x-a", 13..16), ("x-a", 17..20), ("x-none", 0..0)] {
            let value = HeaderValue::from_maybe_shared(read.slice(at)).unwrap();
            headers.append(name, value);
        }
        headers.get_mut("x-a").unwrap().set_sensitive(true);
        let mut request = request.body(()).unwrap();
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = Some(path);
        *request.uri_mut() = Uri::from_parts(parts).unwrap();
        assert!(!read.is_unique());
        let before = request.clone();
        compact(&mut request);
        assert_eq!(request.uri(), before.uri());
        assert_eq!(request.headers(), before.headers());
        assert!(request.headers()["x-a"].is_sensitive());
        drop(before);
        assert!(read.is_unique(), "nothing keeps what it was read into");
    }

    #[test]
    fn a_head_comes_back_as_it_was() {
        for uri in ["/", "/a%20b?x=1&y", "/?", "http://h.example:80/v1?q", "*"] {
            for (method, version) in [("GET", Version::HTTP_11), ("BREW-COFFEE", Version::HTTP_2)] {
                let builder = Request::builder().method(method).uri(uri).version(version);
                let mut request = builder.body(()).unwrap();
                same_again(request.clone());
                let headers = request.headers_mut();
                headers.insert("host", "h.example".parse().unwrap());
                for value in [&b"one"[..], b"", b"three, four", b"\xffopaque"] {
                    headers.append("x-many", HeaderValue::from_bytes(value).unwrap());
                }
                let mut secret = HeaderValue::from_static("Bearer x");
                secret.set_sensitive(true);
                headers.insert("authorization", secret);
                headers.insert("x-long", "v".repeat(100_000).parse().unwrap());
                same_again(request);
            }
        }
    }
}
