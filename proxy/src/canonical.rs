//! One request, one meaning: the checks that hyper and h2 leave to us, and the canonical host and path
//! that routing, logs and forwarding share.

use std::borrow::Cow;
use std::rc::Rc;

use forebay_config::canonical::{canonical_host, canonical_path};
use forebay_config::{Limits, PathOptions};
use http::header::{EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Version};

use crate::answer::Refusal;
use crate::connection::Connection;
use crate::error::Reason;
use crate::headers::Survey;

/// Bytes of a method that is passed on; the longest registered one has 17.
const LONGEST_METHOD: usize = 64;

/// Where a request wants to go.
pub struct Target<'r> {
    /// Lower case, no port, no trailing dot.
    pub host: Rc<str>,
    /// Canonical, without query.
    pub path: Cow<'r, str>,
    /// As it was sent, without the question mark.
    pub query: Option<&'r str>,
    /// Host and port as the client wrote them.
    pub authority: HeaderValue,
}

/// Refuses what is framed or asked in a way that two servers could read differently.
///
/// # Errors
///
/// The reason to answer with.
pub fn check_framing(
    request: &Request<()>,
    survey: &Survey,
    limits: &Limits,
) -> Result<(), Refusal> {
    let headers = request.headers();
    if is_refused_method(request.method()) {
        return Err(Refusal::method_not_allowed(&[]));
    }
    if request.method().as_str().len() > LONGEST_METHOD {
        return Err(Reason::NotImplemented.into());
    }
    if headers.len() > limits.headers as usize {
        return Err(Reason::HeadersTooLarge.into());
    }
    // RFC 9113 §8.2.1. An HTTP/1.1 endpoint would read another value than the one that is judged here.
    if request.version() == Version::HTTP_2 && headers.values().any(is_padded) {
        return Err(Reason::BadRequest.into());
    }
    if survey.transfer_encoding
        && let Some(coding) = headers.get(TRANSFER_ENCODING)
    {
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        let single = codings.next().is_some() && codings.next().is_none();
        let text = coding.to_str().map_err(|_| Reason::BadRequest)?.trim();
        if !single || text.matches("chunked").count() > 1 {
            return Err(Reason::BadRequest.into());
        }
        if !text.eq_ignore_ascii_case("chunked") {
            return Err(Reason::NotImplemented.into());
        }
    }
    if survey.expect
        && let Some(expect) = headers.get(EXPECT)
        && !expect
            .as_bytes()
            .trim_ascii()
            .eq_ignore_ascii_case(b"100-continue")
    {
        return Err(Reason::ExpectationFailed.into());
    }
    Ok(())
}

/// Finds the one host and path of a request.
///
/// # Errors
///
/// `bad_host`, `bad_path` or `misdirected`.
pub fn target<'r>(
    request: &'r Request<()>,
    connection: &Connection,
    options: PathOptions,
) -> Result<Target<'r>, Refusal> {
    let (authority, written) = authority(request, connection)?;
    let host = connection.canonical_host(written, || {
        canonical_host(written)
            .map(|host| Rc::from(host.as_ref()))
            .map_err(|_| Reason::BadHost)
    })?;
    if let Some((certificates, name)) = &connection.tls
        && name.as_deref() != Some(host.as_ref())
        && !certificates.covers(name.as_deref(), &host)
    {
        return Err(Reason::Misdirected.into());
    }
    let raw = request.uri().path();
    let path = match raw {
        "*" if request.method() == Method::OPTIONS => Cow::Borrowed("*"),
        _ => canonical_path(raw, options).map_err(|_| Reason::BadPath)?,
    };
    Ok(Target {
        host,
        path,
        query: request.uri().query(),
        authority,
    })
}

/// The authority, as a field value to forward and as text: the target's, or the only `Host`.
fn authority<'r>(
    request: &'r Request<()>,
    connection: &Connection,
) -> Result<(HeaderValue, &'r str), Refusal> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Reason::BadHost.into());
    }
    let Some(authority) = request.uri().authority() else {
        return match host {
            Some(host) => Ok((host.clone(), host.to_str().map_err(|_| Reason::BadHost)?)),
            // HTTP/1.0 did not have the field.
            None if request.version() == Version::HTTP_10 => {
                let local = HeaderValue::from_str(&connection.local.to_string())
                    .map_err(|_| Reason::BadHost)?;
                Ok((local, "localhost"))
            }
            None => Err(Reason::BadHost.into()),
        };
    };
    let differs = |host: &HeaderValue| {
        !host
            .as_bytes()
            .eq_ignore_ascii_case(authority.as_str().as_bytes())
    };
    if request.version() == Version::HTTP_2 {
        if host.is_some_and(differs) {
            return Err(Reason::BadHost.into());
        }
    } else if host.is_none() && request.version() == Version::HTTP_11 {
        return Err(Reason::BadHost.into());
    }
    // HTTP/1.1 in absolute form: the target wins over Host (RFC 9112 §3.2.2).
    let value = HeaderValue::from_str(authority.as_str()).map_err(|_| Reason::BadHost)?;
    Ok((value, authority.as_str()))
}

/// True for methods that no route is asked for.
fn is_refused_method(method: &Method) -> bool {
    method == Method::CONNECT || method == Method::TRACE
}

/// True for a value with white space around it, which HTTP/2 does not allow.
fn is_padded(value: &HeaderValue) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    blank(value.as_bytes().first()) || blank(value.as_bytes().last())
}
