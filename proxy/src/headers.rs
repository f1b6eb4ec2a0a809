//! What a proxy owes a header map: hop-by-hop fields go, forwarding fields are ours unless the sender is trusted.

use std::net::IpAddr;

use forebay_config::HeaderEdits;
use http::header::{
    CONNECTION, CONTENT_LENGTH, Entry, FORWARDED, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, Version};
use ipnet::IpNet;

/// `x-forwarded-for`.
pub static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `x-forwarded-proto`.
pub static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `x-forwarded-host`.
pub static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// `x-request-id`.
pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// `x-forebay-reason`.
pub static X_FOREBAY_REASON: HeaderName = HeaderName::from_static("x-forebay-reason");
/// `traceparent`.
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Which fields a message has that need a look, found in one pass: the usual request has none of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Survey {
    /// Any field that concerns one connection only.
    pub hop_by_hop: bool,
    /// `transfer-encoding`.
    pub transfer_encoding: bool,
    /// `upgrade`.
    pub upgrade: bool,
    /// `expect`.
    pub expect: bool,
    /// `content-type`.
    pub content_type: bool,
    /// `content-length`.
    pub content_length: bool,
    /// `x-request-id`.
    pub request_id: bool,
    /// `traceparent`.
    pub traceparent: bool,
    internal: bool,
    forwarding: bool,
    twin: bool,
}

impl Survey {
    /// Looks at every field name once.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for name in headers.keys() {
            found.note(name.as_str());
        }
        found
    }

    fn note(&mut self, name: &str) {
        match name.as_bytes() {
            [b'x', b'-', rest @ ..] => {
                self.internal |= rest.starts_with(b"forebay-");
                self.forwarding |= rest.starts_with(b"forwarded-") || rest == b"real-ip";
                self.request_id |= rest == b"request-id";
                self.twin |= rest.contains(&b'_');
            }
            b"connection"
            | b"te"
            | b"keep-alive"
            | b"proxy-connection"
            | b"proxy-authorization"
            | b"proxy-authenticate" => self.hop_by_hop = true,
            b"transfer-encoding" => (self.hop_by_hop, self.transfer_encoding) = (true, true),
            b"upgrade" => (self.hop_by_hop, self.upgrade) = (true, true),
            b"content-type" => self.content_type = true,
            b"content-length" => self.content_length = true,
            b"traceparent" => self.traceparent = true,
            b"expect" => self.expect = true,
            b"forwarded" => self.forwarding = true,
            other => self.twin |= other.contains(&b'_'),
        }
    }
}

fn remove_where(headers: &mut HeaderMap, bad: impl Fn(&str) -> bool) {
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| bad(name.as_str()))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}

/// Removes hop-by-hop fields, including those that `Connection` names.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        &CONNECTION,
        &TE,
        &TRANSFER_ENCODING,
        &UPGRADE,
        &KEEP_ALIVE,
        &PROXY_CONNECTION,
    ] {
        headers.remove(name);
    }
    headers.remove(http::header::PROXY_AUTHORIZATION);
    headers.remove(http::header::PROXY_AUTHENTICATE);
}

/// True for a field whose underscores make it look like one that frames a request or says who sent it:
/// servers behind CGI-like interfaces cannot tell the two apart.
fn is_twin(name: &str) -> bool {
    if !name.contains('_') {
        return false;
    }
    let dashed = name.replace('_', "-");
    dashed.starts_with("x-forwarded-")
        || dashed.starts_with("x-forebay-")
        || matches!(
            dashed.as_str(),
            "content-length"
                | "transfer-encoding"
                | "x-real-ip"
                | "x-request-id"
                | "proxy-connection"
        )
}

/// The protocol a client asks to switch to, when the request is a well-formed upgrade that may be passed on.
pub fn requested_upgrade(headers: &HeaderMap, version: Version) -> Option<HeaderValue> {
    if version != Version::HTTP_11 {
        return None;
    }
    let upgrade = headers.get(UPGRADE)?;
    if !tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade")) {
        return None;
    }
    // h2c would let later requests pass unseen; a list is nobody's WebSocket.
    let name = upgrade.to_str().ok()?.trim();
    let refused = name.is_empty() || name.contains(',') || name.eq_ignore_ascii_case("h2c");
    (!refused).then(|| upgrade.clone())
}

/// The comma-separated tokens of all values of a field.
pub fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Who sent a request, as the forwarding fields tell it to the endpoint.
pub struct Origin<'a> {
    /// The connection's peer as text.
    pub peer: &'a HeaderValue,
    /// The peer is one of the listener's trusted proxies.
    pub trusted: bool,
    /// The connection is encrypted.
    pub tls: bool,
    /// The host as the client wrote it.
    pub host: &'a HeaderValue,
}

static HTTP: HeaderValue = HeaderValue::from_static("http");
static HTTPS: HeaderValue = HeaderValue::from_static("https");

/// Turns a client's header map into what an endpoint may see. `te: trailers` survives, since it is what the
/// next hop needs to send them.
pub fn prepare_request(headers: &mut HeaderMap, found: &Survey, origin: &Origin<'_>) {
    if found.hop_by_hop {
        let trailers = tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers"));
        strip_hop_by_hop(headers);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
    if found.internal {
        remove_where(headers, |name| name.starts_with("x-forebay-"));
    }
    if found.twin {
        remove_where(headers, is_twin);
    }
    if found.expect {
        headers.remove(http::header::EXPECT);
    }
    if found.forwarding && !origin.trusted {
        remove_where(headers, |name| {
            name.starts_with("x-forwarded-") || name == "x-real-ip"
        });
        headers.remove(FORWARDED);
    }
    if found.forwarding && origin.trusted {
        append_hop(headers, origin.peer);
        let proto = if origin.tls { &HTTPS } else { &HTTP };
        insert_if_absent(headers, &X_FORWARDED_PROTO, proto);
        insert_if_absent(headers, &X_FORWARDED_HOST, origin.host);
    } else {
        headers.insert(&X_FORWARDED_FOR, origin.peer.clone());
        headers.insert(
            &X_FORWARDED_PROTO,
            if origin.tls {
                HTTPS.clone()
            } else {
                HTTP.clone()
            },
        );
        headers.insert(&X_FORWARDED_HOST, origin.host.clone());
    }
}

fn insert_if_absent(headers: &mut HeaderMap, name: &HeaderName, value: &HeaderValue) {
    if let Entry::Vacant(entry) = headers.entry(name) {
        entry.insert(value.clone());
    }
}

/// Appends the peer to the list of hops, as one line.
fn append_hop(headers: &mut HeaderMap, peer: &HeaderValue) {
    let mut hops: Vec<u8> = Vec::with_capacity(64);
    for value in headers.get_all(&X_FORWARDED_FOR) {
        hops.extend_from_slice(value.as_bytes());
        hops.extend_from_slice(b", ");
    }
    hops.extend_from_slice(peer.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&hops) {
        headers.insert(&X_FORWARDED_FOR, value);
    }
}

/// The client's address: the rightmost hop that is not a trusted proxy, or the peer itself.
pub fn client_ip(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip));
    if !is_trusted(peer) {
        return peer;
    }
    let mut client = peer;
    // Bytes, not text: what a client wrote in front must not hide what a proxy appended.
    for line in headers.get_all(&X_FORWARDED_FOR).iter().rev() {
        for hop in line.as_bytes().rsplit(|&byte| byte == b',') {
            let hop = std::str::from_utf8(hop.trim_ascii()).ok();
            let Some(ip) = hop.and_then(parse_hop) else {
                return client;
            };
            client = ip;
            if !is_trusted(ip) {
                return client;
            }
        }
    }
    client
}

fn parse_hop(hop: &str) -> Option<IpAddr> {
    let bare = hop
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .map_or(hop, |(ip, _)| ip);
    bare.parse::<IpAddr>()
        .or_else(|_| bare.parse::<std::net::SocketAddr>().map(|a| a.ip()))
        .ok()
        .map(|ip| ip.to_canonical())
}

/// Turns an endpoint's header map into what a client may see.
pub fn prepare_response(headers: &mut HeaderMap) {
    let found = Survey::of(headers);
    if found.hop_by_hop {
        if headers.contains_key(TRANSFER_ENCODING) {
            headers.remove(CONTENT_LENGTH); // a length beside chunks is a desync waiting to happen
        }
        strip_hop_by_hop(headers);
    }
    if found.internal {
        remove_where(headers, |name| name.starts_with("x-forebay-"));
    }
}

/// Applies an operator's edits.
pub fn edit(headers: &mut HeaderMap, edits: &HeaderEdits) {
    for name in &edits.remove {
        headers.remove(name);
    }
    for (name, value) in &edits.set {
        headers.insert(name, value.clone());
    }
    for (name, value) in &edits.add {
        headers.append(name, value.clone());
    }
}

/// A fresh request id: 128 random bits, 32 hex digits.
pub fn new_request_id(rng: &mut fastrand::Rng) -> HeaderValue {
    let mut text = [0u8; 32];
    write_hex(&mut text[..16], rng.u64(..));
    write_hex(&mut text[16..], rng.u64(..));
    HeaderValue::from_bytes(&text).expect("hex digits are a legal header value")
}

/// Continues a well-formed `traceparent` with a new parent id, or begins a trace.
pub fn traceparent(old: Option<&HeaderValue>, rng: &mut fastrand::Rng) -> HeaderValue {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
    match old.and_then(|value| well_formed(value.as_bytes())) {
        Some((trace, flags)) => {
            text[3..35].copy_from_slice(trace);
            text[53..55].copy_from_slice(flags);
        }
        None => {
            write_hex(&mut text[3..19], rng.u64(..));
            write_hex(&mut text[19..35], rng.u64(1..));
        }
    }
    write_hex(&mut text[36..52], rng.u64(1..));
    HeaderValue::from_bytes(&text).expect("hex digits and dashes are a legal header value")
}

/// Trace id and flags of a `traceparent` by W3C's rules; a malformed one counts as absent.
fn well_formed(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let hex = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let zero = |part: &[u8]| part.iter().all(|&b| b == b'0');
    if text.len() < 55 || text[2] != b'-' || text[35] != b'-' || text[52] != b'-' {
        return None;
    }
    let (version, trace, parent, flags) = (&text[..2], &text[3..35], &text[36..52], &text[53..55]);
    let shaped = hex(version) && version != b"ff" && hex(trace) && hex(parent) && hex(flags);
    let whole = if version == b"00" {
        text.len() == 55
    } else {
        text.len() == 55 || text[55] == b'-'
    };
    (shaped && whole && !zero(trace) && !zero(parent)).then_some((trace, flags))
}

/// The two digits of each byte.
const HEX: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    pairs
};

/// Writes the 16 digits of `value`.
fn write_hex(out: &mut [u8], value: u64) {
    for (pair, byte) in out.chunks_exact_mut(2).zip(value.to_be_bytes()) {
        pair.copy_from_slice(&HEX[usize::from(byte)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        headers
    }

    fn origin<'a>(peer: &'a HeaderValue, host: &'a HeaderValue, trusted: bool) -> Origin<'a> {
        Origin {
            peer,
            trusted,
            tls: false,
            host,
        }
    }

    #[test]
    fn no_spelling_of_a_forwarding_field_survives_an_untrusted_peer() {
        let (peer, host) = (
            HeaderValue::from_static("9.9.9.9"),
            HeaderValue::from_static("h"),
        );
        let mut headers = map(&[
            ("connection", "x-forwarded-for, close"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x_forwarded_for", "1.1.1.1"),
            ("x-forwarded-prefix", "/a"),
            ("forwarded", "for=1.1.1.1"),
            ("x-real-ip", "1.1.1.1"),
            ("content_length", "5"),
            ("x-forebay-mirror", "m"),
            ("keep-alive", "1"),
            ("te", "trailers, deflate"),
            ("x-own", "kept"),
        ]);
        let survey = Survey::of(&headers);
        prepare_request(&mut headers, &survey, &origin(&peer, &host, false));
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(
            left,
            [
                "te",
                "x-forwarded-for",
                "x-forwarded-host",
                "x-forwarded-proto",
                "x-own"
            ]
        );
        assert_eq!(headers["x-forwarded-for"], "9.9.9.9");
        assert_eq!(headers["te"], "trailers");
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_appended() {
        let (peer, host) = (
            HeaderValue::from_static("10.0.0.2"),
            HeaderValue::from_static("h"),
        );
        let mut headers = map(&[
            ("x-forwarded-for", "1.1.1.1, 10.0.0.1"),
            ("x-forwarded-proto", "https"),
        ]);
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        assert_eq!(
            client_ip(&headers, "10.0.0.2".parse().unwrap(), &trusted).to_string(),
            "1.1.1.1"
        );
        let survey = Survey::of(&headers);
        prepare_request(&mut headers, &survey, &origin(&peer, &host, true));
        assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 10.0.0.1, 10.0.0.2");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "h");
    }

    #[test]
    fn the_client_is_the_rightmost_untrusted_hop() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let spoofed = map(&[("x-forwarded-for", "7.7.7.7, 8.8.8.8, 10.1.1.1")]);
        assert_eq!(
            client_ip(&spoofed, "10.0.0.2".parse().unwrap(), &trusted).to_string(),
            "8.8.8.8"
        );
        assert_eq!(
            client_ip(&spoofed, "9.9.9.9".parse().unwrap(), &trusted).to_string(),
            "9.9.9.9"
        );
        let mut hidden = HeaderMap::new();
        let line = HeaderValue::from_bytes(b"\xe9, 203.0.113.9").unwrap();
        hidden.append(&X_FORWARDED_FOR, line);
        let found = client_ip(&hidden, "10.0.0.2".parse().unwrap(), &trusted);
        assert_eq!(found.to_string(), "203.0.113.9");
        let garbage = map(&[("x-forwarded-for", "7.7.7.7, nonsense")]);
        assert_eq!(
            client_ip(&garbage, "10.0.0.2".parse().unwrap(), &trusted).to_string(),
            "10.0.0.2"
        );
    }

    #[test]
    fn a_trace_is_continued_when_well_formed_and_begun_otherwise() {
        let mut rng = fastrand::Rng::with_seed(1);
        let good =
            HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00");
        let next = traceparent(Some(&good), &mut rng);
        let text = next.to_str().unwrap();
        assert!(text.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && text.ends_with("-00"));
        assert!(!text.contains("00f067aa0ba902b7"));
        for bad in [
            "",
            "00-short",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        ] {
            let next = traceparent(Some(&HeaderValue::from_str(bad).unwrap()), &mut rng);
            assert!(well_formed(next.as_bytes()).is_some());
            assert!(
                !next
                    .to_str()
                    .unwrap()
                    .to_lowercase()
                    .contains("4bf92f3577b34da6")
            );
        }
    }

    #[test]
    fn only_a_real_upgrade_is_passed_on() {
        let ask = |fields: &[(&str, &str)]| requested_upgrade(&map(fields), Version::HTTP_11);
        assert!(
            ask(&[
                ("connection", "keep-alive, Upgrade"),
                ("upgrade", "websocket")
            ])
            .is_some()
        );
        assert!(ask(&[("upgrade", "websocket")]).is_none());
        assert!(ask(&[("connection", "upgrade"), ("upgrade", "h2c")]).is_none());
        assert!(ask(&[("connection", "upgrade"), ("upgrade", "websocket, h2c")]).is_none());
    }

    #[test]
    fn a_length_beside_chunks_is_dropped() {
        let mut headers = map(&[
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("server", "s"),
        ]);
        prepare_response(&mut headers);
        assert_eq!(
            headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["server"]
        );
    }
}
