//! What is known about a request when it is over.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, header};

/// Bytes of a path or header value that are logged.
pub(super) const MAX_VALUE: usize = 1024;

/// What a secret looks like in the log.
const REDACTED: &[u8] = b"[redacted]";

/// One request, as it ended. Empty strings and `None` mean that there was none.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// When its head had arrived.
    pub time: SystemTime,
    /// As the client sent it.
    pub method: &'a str,
    /// Canonical host.
    pub authority: &'a str,
    /// `http` or `https`, as the client used it.
    pub scheme: &'a str,
    /// Canonical path and query, before any rewrite; the first 1024 bytes are logged.
    pub path: &'a str,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'a str,
    /// What was sent, or 499 when the client left before; 0 when nothing was sent.
    pub status: u16,
    /// Why we answered or ended it ourselves; empty when an upstream's or route's answer was delivered whole.
    pub reason: &'a str,
    /// Body bytes from the client.
    pub request_bytes: u64,
    /// Body bytes to the client.
    pub response_bytes: u64,
    /// From the head to the last byte sent.
    pub duration: Duration,
    /// From the head to the last body byte received.
    pub request_duration: Option<Duration>,
    /// From the head to the upstream's response head.
    pub first_byte: Option<Duration>,
    /// What the proxy itself added before the first response byte.
    pub overhead: Option<Duration>,
    /// What the request waited for a free slot.
    pub queue: Option<Duration>,
    /// The route that matched.
    pub route: &'a str,
    /// The cluster that was chosen.
    pub cluster: &'a str,
    /// What the request calls its model, where a route or cluster goes by it.
    pub model: Option<&'a str>,
    /// Address and port of the endpoint that was last tried.
    pub endpoint: Option<&'a str>,
    /// Ours, or the client's when it is trusted.
    pub request_id: Option<&'a str>,
    /// 32 hexadecimal digits.
    pub trace_id: Option<&'a str>,
    /// The client, as trusted proxies report it.
    pub client: IpAddr,
    /// The name of the API key that it brought.
    pub identity: Option<&'a str>,
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// Our end of the connection.
    pub local: SocketAddr,
    /// The listener it came in by.
    pub listener: &'a str,
    /// Attempts made upstream.
    pub attempts: u32,
    /// Number of the configuration it was served with.
    pub generation: u64,
}

/// The headers that a log needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Names of request headers, each once.
    pub request: Vec<HeaderName>,
    /// Names of response headers, each once.
    pub response: Vec<HeaderName>,
}

/// Copies of the wanted headers of one message, made while they exist; secrets are not among them. Each as its
/// index among the wanted names, length and bytes, in one block: a value that shared the bytes of the connection's
/// read buffer would keep all of it.
#[derive(Clone, Debug, Default)]
pub struct Captured(Vec<u8>);

impl Captured {
    /// Copies what is there of `names`; allocates only when something is.
    pub fn copy(names: &[HeaderName], headers: &HeaderMap) -> Self {
        let mut out = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let (Some(value), Ok(index)) = (headers.get(name), u16::try_from(index)) else {
                continue;
            };
            let value = if is_secret(name) {
                REDACTED
            } else {
                value.as_bytes()
            };
            let value = &value[..value.len().min(MAX_VALUE)];
            out.extend_from_slice(&index.to_le_bytes());
            out.extend_from_slice(&(value.len() as u16).to_le_bytes()); // at most MAX_VALUE
            out.extend_from_slice(value);
        }
        Self(out)
    }

    pub(super) fn find(&self, wanted: usize) -> Option<&[u8]> {
        let mut rest = &*self.0;
        while let Some((&[a, b, c, d], after)) = rest.split_first_chunk::<4>() {
            let (value, after) = after.split_at_checked(usize::from(u16::from_le_bytes([c, d])))?;
            if usize::from(u16::from_le_bytes([a, b])) == wanted {
                return Some(value);
            }
            rest = after;
        }
        None
    }
}

fn is_secret(name: &HeaderName) -> bool {
    let secret = [
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::COOKIE,
        header::SET_COOKIE,
    ];
    secret.contains(name) || name == "x-api-key"
}

impl Record<'_> {
    /// The client's address and port; 0 when another than the peer of the connection is the client.
    pub(super) fn client_address(&self) -> SocketAddr {
        let is_peer = self.peer.ip().to_canonical() == self.client.to_canonical();
        SocketAddr::new(self.client, if is_peer { self.peer.port() } else { 0 })
    }
}

/// A request that went well, for tests.
#[cfg(test)]
pub(super) fn sample() -> Record<'static> {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    Record {
        time: std::time::UNIX_EPOCH + Duration::from_millis(1_767_323_045_006),
        method: "POST",
        authority: "m.example",
        scheme: "http",
        path: "/v1/x?y=1",
        protocol: "HTTP/1.1",
        status: 200,
        reason: "",
        request_bytes: 5,
        response_bytes: 7,
        duration: Duration::from_micros(1_234_567),
        request_duration: Some(Duration::from_millis(2)),
        first_byte: Some(Duration::from_secs(1)),
        overhead: Some(Duration::from_micros(45)),
        queue: None,
        route: "resnet",
        cluster: "resnet-v1",
        model: None,
        endpoint: Some("10.0.0.9:8501"),
        request_id: Some("id-1"),
        trace_id: Some("abc"),
        client: address("192.0.2.1:555").ip(),
        identity: None,
        peer: address("192.0.2.1:555"),
        local: address("127.0.0.1:8080"),
        listener: "public",
        attempts: 1,
        generation: 3,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn wanted_headers_are_copied_and_secrets_are_not() {
        let names =
            ["user-agent", "absent", "cookie", "x-api-key", "x-long"].map(HeaderName::from_static);
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", HeaderValue::from_bytes(b"a\xff").unwrap());
        headers.insert("cookie", HeaderValue::from_static("session=secret"));
        headers.insert("x-api-key", HeaderValue::from_static("secret"));
        headers.insert("x-long", HeaderValue::from_str(&"z".repeat(5000)).unwrap());
        let captured = Captured::copy(&names, &headers);
        assert_eq!(captured.find(0), Some(&b"a\xff"[..]));
        assert_eq!(captured.find(1), None);
        assert_eq!(captured.find(2), Some(REDACTED));
        assert_eq!(captured.find(3), Some(REDACTED));
        assert_eq!(captured.find(4).map(<[u8]>::len), Some(MAX_VALUE));
        assert_eq!(captured.find(5), None);
    }

    #[test]
    fn nothing_wanted_allocates_nothing() {
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", HeaderValue::from_static("x"));
        assert_eq!(Captured::copy(&[], &headers).0.capacity(), 0);
    }
}
