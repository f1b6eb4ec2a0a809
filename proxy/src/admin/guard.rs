//! Who may ask: the `Host` rule against DNS rebinding, the token, and the rules for commands against other sites.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS,
};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};

use super::Desk;
use super::answer::Refusal;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// Paths that ask for no token.
const OPEN: &[&str] = &["/livez", "/readyz"];

/// Looks at every request of the API before anything else does.
pub(super) async fn guard(State(desk): State<Arc<Desk>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let admitted =
        host_rule(&desk.hosts, request.headers(), request.uri()).and_then(|()| match &desk.token {
            Some(token) if !OPEN.contains(&path) => token_rule(&token.0, path, request.headers()),
            _ => Ok(()),
        });
    match admitted {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// Headers of every answer.
pub(super) async fn finish(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        CROSS_ORIGIN_RESOURCE_POLICY,
        HeaderValue::from_static("same-origin"),
    );
    response
}

/// Looks at every command: a page of another site must not be able to send one from the operator's browser.
pub(super) async fn command_rules(request: Request, next: Next) -> Response {
    let headers = request.headers();
    // Browsers ask before they send a DELETE elsewhere, and nobody here says yes.
    let plain = request.method() == Method::DELETE;
    let typed = || {
        if plain {
            Ok(())
        } else {
            content_type_rule(headers)
        }
    };
    match origin_rule(headers).and_then(|()| typed()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// A name that is not ours in `Host` is how a page reaches the API through a name of its own that resolves to us.
fn host_rule(hosts: &[String], headers: &HeaderMap, uri: &Uri) -> Result<(), Refusal> {
    let mut given = headers.get_all(HOST).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        let message = "the request needs exactly one Host header";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "bad_host", message));
    };
    let written = value
        .to_str()
        .ok()
        .and_then(|text| text.parse::<Authority>().ok());
    let Some(written) = written else {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "bad_host",
            "the Host header is no host",
        ));
    };
    for authority in [Some(&written), uri.authority()].into_iter().flatten() {
        if !is_ours(hosts, authority.host()) {
            let message = "the Host header names neither an IP address nor `localhost`; \
                           list the name in `admin.hosts` to use it";
            return Err(Refusal::new(
                StatusCode::MISDIRECTED_REQUEST,
                "misdirected",
                message,
            ));
        }
    }
    Ok(())
}

fn is_ours(hosts: &[String], host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    bare.parse::<IpAddr>().is_ok() || name == "localhost" || hosts.contains(&name)
}

fn token_rule(token: &str, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    let value = headers
        .get(AUTHORIZATION)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    let space = value
        .iter()
        .position(|byte| *byte == b' ')
        .unwrap_or(value.len());
    let (scheme, given) = value.split_at(space);
    if scheme.eq_ignore_ascii_case(b"bearer") && same(given.trim_ascii(), token.as_bytes()) {
        return Ok(());
    }
    // A browser can only be asked for a name and a password; only the dashboard, which changes nothing, takes these.
    let page = path == "/" || path == "/ui" || path.starts_with("/ui/");
    if page && scheme.eq_ignore_ascii_case(b"basic") {
        let decoded = base64(given.trim_ascii()).unwrap_or_default();
        let colon = decoded.iter().position(|byte| *byte == b':');
        if colon.is_some_and(|colon| same(&decoded[colon + 1..], token.as_bytes())) {
            return Ok(());
        }
    }
    let challenge = if page {
        "Basic realm=\"forebay: the token as password\""
    } else {
        "Bearer"
    };
    let message = "the token of `admin.token` is wanted as `Authorization: Bearer …`";
    Err(Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", message).challenge(challenge))
}

/// Compares in a time that tells only the length of the token.
fn same(given: &[u8], token: &[u8]) -> bool {
    let differences = given
        .iter()
        .zip(token)
        .fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
    given.len() == token.len() && differences == 0
}

/// Decodes standard base64, padded or not.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut out, mut held, mut bits) = (Vec::new(), 0u32, 0);
    for byte in text.iter().take_while(|byte| **byte != b'=') {
        let digit = ALPHABET.iter().position(|letter| letter == byte)?;
        held = (held << 6 | digit as u32) & 0xffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits) as u8);
        }
    }
    Some(out)
}

fn origin_rule(headers: &HeaderMap) -> Result<(), Refusal> {
    let refused = || {
        let message = "commands are not taken from pages of other sites";
        Err(Refusal::new(StatusCode::FORBIDDEN, "cross_site", message))
    };
    let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
    if site.is_some_and(|site| site == b"cross-site" || site == b"same-site") {
        return refused();
    }
    let host = headers
        .get(HOST)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    for origin in headers.get_all(ORIGIN) {
        match origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"))
        {
            Some((scheme, at)) if without_port(scheme, at) == without_port(scheme, host) => {}
            _ => return refused(),
        }
    }
    Ok(())
}

/// Lower case, without the scheme's own port.
fn without_port(scheme: &str, host: &str) -> String {
    let port = if scheme.eq_ignore_ascii_case("https") {
        ":443"
    } else {
        ":80"
    };
    host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase()
}

fn content_type_rule(headers: &HeaderMap) -> Result<(), Refusal> {
    let given = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = "commands need `content-type: application/json`";
    Err(Refusal::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        message,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_what_browsers_send() {
        assert_eq!(base64(b"Zm9vOmJhcg==").unwrap(), b"foo:bar");
        assert_eq!(base64(b"OsOk").unwrap(), ":ä".as_bytes());
        assert_eq!(base64(b"!"), None);
    }

    #[test]
    fn only_the_very_token_is_the_token() {
        assert!(same(b"abc", b"abc"));
        assert!(!same(b"ab", b"abc") && !same(b"abcd", b"abc") && !same(b"abd", b"abc"));
    }

    #[test]
    fn the_hosts_that_are_ours() {
        let hosts = ["admin.example.com".to_owned()];
        for ours in [
            "127.0.0.1",
            "[::1]",
            "LOCALHOST",
            "admin.example.com.",
            "10.1.2.3",
        ] {
            assert!(is_ours(&hosts, ours), "{ours}");
        }
        for other in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
        ] {
            assert!(!is_ours(&hosts, other), "{other}");
        }
    }
}
