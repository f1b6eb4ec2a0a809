//! What leaves for an endpoint: target, host, identity, and the key that chooses the endpoint.

use std::borrow::Cow;
use std::net::IpAddr;

use forebay_config::route::cookie;
use forebay_config::{Balance, HashKey};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, Uri};

use crate::connection::Connection;
use crate::error::Reason;
use crate::exchange::Exchange;
use crate::headers::{self, Survey, X_REQUEST_ID};
use crate::snapshot::{ListenerView, MemberView};

/// Checks what a head says of its body's length against the most that is taken.
///
/// # Errors
///
/// It is too long.
pub fn check_declared(headers: &HeaderMap, max: Option<u64>) -> Result<(), Reason> {
    match max {
        Some(max) if declared_length(headers) > max => Err(Reason::BodyTooLarge),
        _ => Ok(()),
    }
}

/// Returns the declared length of a body, bytes; 0 when none is declared.
pub fn declared_length(headers: &HeaderMap) -> u64 {
    headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .unwrap_or(0)
}

/// True for gRPC in any of its encodings.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// What a consistent hash looks at in this request.
pub fn hash_key(
    balance: &Balance,
    request: &Request<()>,
    connection: &Connection,
    view: &ListenerView,
) -> Option<Vec<u8>> {
    let Balance::Hash(key) = balance else {
        return None;
    };
    match key {
        HashKey::Header(name) => request
            .headers()
            .get(name)
            .map(|value| value.as_bytes().to_vec()),
        HashKey::Cookie(name) => cookie(request.headers(), name).map(<[u8]>::to_vec),
        HashKey::ClientIp => {
            let ip = headers::client_ip(
                request.headers(),
                connection.peer_ip(),
                &view.config.trusted_proxies,
            );
            Some(match ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            })
        }
    }
}

/// The target as the endpoint sees it, canonical path and query; `None`: as the client wrote it.
pub fn new_uri(
    request: &Request<()>,
    path: Cow<'_, str>,
    query: Option<Cow<'_, str>>,
    http2: bool,
    authority: impl FnOnce() -> Result<(Scheme, Authority), Reason>,
) -> Result<Option<Uri>, Reason> {
    let old = request.uri();
    let renamed = query.as_deref() != old.query();
    if !http2 && old.authority().is_none() && path == old.path() && !renamed {
        return Ok(None);
    }
    let path_and_query = match query {
        None if path == old.path() => old.path_and_query().cloned().ok_or(Reason::BadPath)?,
        None => PathAndQuery::try_from(path.as_ref()).map_err(|_| Reason::BadPath)?,
        Some(query) => {
            PathAndQuery::try_from(format!("{path}?{query}")).map_err(|_| Reason::BadPath)?
        }
    };
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(path_and_query);
    if http2 {
        let (scheme, authority) = authority()?;
        parts.scheme = Some(scheme);
        parts.authority = Some(authority);
    }
    let uri = Uri::from_parts(parts).map_err(|_| Reason::BadPath)?;
    Ok(Some(uri))
}

/// Returns scheme and authority of an HTTP/2 request to a member.
///
/// # Errors
///
/// The host cannot be an authority.
pub fn authority(
    config: &forebay_config::Route,
    host: &HeaderValue,
    member: &MemberView,
) -> Result<(Scheme, Authority), Reason> {
    let host = config.rewrite.host.as_ref().unwrap_or(host);
    let authority = Authority::try_from(host.as_bytes()).map_err(|_| Reason::BadHost)?;
    let scheme = if member.cluster.connector.tls.is_some() {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    };
    Ok((scheme, authority))
}

/// `Host` for HTTP/1.1; HTTP/2 carries it in the target. `moved`: the client named it in its target.
pub fn address(
    headers: &mut HeaderMap,
    config: &forebay_config::Route,
    moved: Option<HeaderValue>,
    http2: bool,
) {
    if http2 {
        headers.remove(HOST);
    } else if let Some(host) = config.rewrite.host.clone().or(moved) {
        headers.insert(HOST, host);
    }
}

/// Request id and trace: continued from whom we trust, begun otherwise.
pub fn identify(
    headers: &mut HeaderMap,
    survey: &Survey,
    connection: &Connection,
    trusted: bool,
    exchange: &mut Exchange,
) {
    let trace = connection.worker.rng(|rng| {
        if !(trusted && survey.request_id && headers.contains_key(&X_REQUEST_ID)) {
            headers.insert(&headers::X_REQUEST_ID, headers::new_request_id(rng));
        }
        let old = if survey.traceparent {
            headers.get(&headers::TRACEPARENT)
        } else {
            None
        };
        headers::traceparent(old, rng)
    });
    if let Some(log) = &mut exchange.log {
        log.request_id = headers.get(&headers::X_REQUEST_ID).cloned();
        log.trace_id = trace.to_str().ok().map(|text| text[3..35].to_owned());
    }
    headers.insert(&headers::TRACEPARENT, trace);
}
