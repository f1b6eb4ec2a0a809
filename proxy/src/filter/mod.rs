//! What a request must pass before it is given to a cluster: small steps, each synchronous, compiled when the
//! configuration loads. A route that uses none of them has none.
//!
//! The order is that of the contract: CORS preflight, access, API key, declared body size, rates, requests at once.

pub mod access;
pub mod auth;
pub mod blocks;
pub mod bucket;
pub mod cors;
pub mod files;
mod ledger;
pub mod limit;
pub mod slots;
pub mod sticky;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use forebay_config::peek::{Found, Places};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::answer::Refusal;
use crate::error::Reason;
use crate::outgoing;

use access::Access;
use auth::{Caller, Keys};
use bucket::Ticks;
use cors::Cors;
pub use ledger::{Compiler, FilterError, Ledger};
use limit::Limits;
use slots::Permit;
use sticky::Sticky;

/// The steps of one route.
#[derive(Debug)]
pub struct Filters {
    /// What other sites may do.
    pub cors: Option<Cors>,
    access: Option<Access>,
    keys: Option<Arc<Keys>>,
    key_required: bool,
    keep_key: bool,
    limits: Limits,
    body_max: Option<u64>,
    fields: Option<Arc<Places>>,
    /// Who stays with which member of the split.
    pub sticky: Option<Sticky>,
}

/// What the steps look at.
pub struct Asked<'a> {
    /// The request's fields.
    pub headers: &'a HeaderMap,
    /// The client behind trusted proxies.
    pub client: IpAddr,
    /// The name of its API key, once known.
    pub identity: Option<&'a str>,
    /// What was found in the body.
    pub fields: &'a Found,
    /// When the request came.
    pub now: Ticks,
}

/// What a request carries on when it has passed.
#[derive(Debug, Default)]
pub struct Passed {
    /// Who sent it.
    pub caller: Option<Caller>,
    /// To be held until the client has its last byte.
    pub permits: Vec<Permit>,
}

impl Filters {
    /// Lets a request in, or says why not. Returns who sent it.
    ///
    /// # Errors
    ///
    /// `denied`, `unauthorized` or `body_too_large`.
    pub fn enter(&self, client: IpAddr, headers: &HeaderMap) -> Result<Option<Caller>, Refusal> {
        if let Some(access) = &self.access
            && !access.admits(client, headers)
        {
            return Err(Reason::Denied.into());
        }
        let caller = match &self.keys {
            Some(keys) => keys.caller(headers),
            None => None,
        };
        if self.key_required && caller.is_none() {
            let mut refusal = Refusal::from(Reason::Unauthorized);
            let scheme = HeaderValue::from_static("Bearer");
            refusal.fields.push((WWW_AUTHENTICATE, scheme));
            return Err(refusal);
        }
        if self
            .body_max
            .is_some_and(|max| outgoing::declared_length(headers) > max)
        {
            return Err(Reason::BodyTooLarge.into());
        }
        Ok(caller)
    }

    /// Takes what the limits ask of a request that is in. What a refused request took, it has given back.
    ///
    /// # Errors
    ///
    /// `rate_limited` or `concurrency_limited`.
    pub fn admit(&self, asked: &Asked<'_>) -> Result<Vec<Permit>, Refusal> {
        let mut permits = Vec::new();
        if !self.limits.is_empty() {
            self.limits.admit(asked, &mut permits)?;
        }
        Ok(permits)
    }

    /// The fields of a JSON body that limits or the split ask for; `None`: nobody looks at the body.
    pub fn fields(&self) -> Option<&Arc<Places>> {
        self.fields.as_ref()
    }

    /// Removes the caller's key from what goes to an endpoint.
    pub fn remove_key(&self, caller: Option<&Caller>, headers: &mut HeaderMap) {
        if let Some(caller) = caller
            && !self.keep_key
        {
            caller.remove_key(headers);
        }
    }

    /// The answer to a CORS preflight; `None`: the route does not speak of other sites.
    pub fn preflight(&self, request: &HeaderMap) -> Option<Response<Bytes>> {
        let cors = self.cors.as_ref()?;
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let allowed = cors.allowed(request);
        cors.answer_preflight(allowed.as_ref(), request, response.headers_mut());
        Some(response)
    }
}

/// How long the request waited for its endpoint, ms.
static X_FOREBAY_COLD_START: HeaderName = HeaderName::from_static("x-forebay-cold-start");

/// What is added to an answer, whoever gives it.
#[derive(Debug, Default)]
pub struct Dressing<'s> {
    /// The route's word on other sites, and what it is for this one.
    pub cors: Option<(&'s Cors, Option<HeaderValue>)>,
    /// The cookie that keeps a client with its member.
    pub cookie: Option<HeaderValue>,
    /// How long the request waited for its endpoint.
    pub waited: Option<std::time::Duration>,
}

impl Dressing<'_> {
    /// Writes what is known before there is an answer.
    pub fn put_on_early(&self, headers: &mut HeaderMap) {
        if let Some((cors, allowed)) = &self.cors {
            cors.answer(allowed.clone(), headers);
        }
        if let Some(cookie) = &self.cookie {
            headers.append(http::header::SET_COOKIE, cookie.clone());
        }
    }

    /// Writes it.
    pub fn put_on(self, headers: &mut HeaderMap) {
        if let Some((cors, allowed)) = self.cors {
            cors.answer(allowed, headers);
        }
        if let Some(cookie) = self.cookie {
            headers.append(http::header::SET_COOKIE, cookie);
        }
        if let Some(waited) = self.waited {
            let milliseconds = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
            headers.insert(&X_FOREBAY_COLD_START, milliseconds.into());
        }
    }
}

/// What stands for a client: its address, or the /64 that an IPv6 client has to itself; the bytes and how many count.
fn client_bytes(client: IpAddr) -> ([u8; 8], usize) {
    let mut bytes = [0; 8];
    match client.to_canonical() {
        IpAddr::V4(ip) => {
            bytes[..4].copy_from_slice(&ip.octets());
            (bytes, 4)
        }
        IpAddr::V6(ip) => {
            bytes.copy_from_slice(&ip.octets()[..8]);
            (bytes, 8)
        }
    }
}
