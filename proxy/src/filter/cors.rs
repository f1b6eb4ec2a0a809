//! What browsers are told about sites of other origins.

use std::fmt::Display;

use forebay_config::{AnyOf, Origin};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Request};

/// `cors` of a route, compiled.
#[derive(Debug)]
pub struct Cors {
    origins: AnyOf<Origin>,
    /// `None`: any.
    methods: Option<HeaderValue>,
    /// `None`: any.
    headers: Option<HeaderValue>,
    /// `None`: nothing is exposed.
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
}

/// The method that a CORS preflight asks for; `None`: the request is no preflight.
pub fn requested_method<B>(request: &Request<B>) -> Option<Method> {
    if request.method() != Method::OPTIONS {
        return None;
    }
    let headers = request.headers();
    let wanted = headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    headers.get(ORIGIN)?;
    Method::from_bytes(wanted.as_bytes()).ok()
}

impl Cors {
    /// Compiles what does not depend on the request.
    pub fn new(config: &forebay_config::Cors) -> Self {
        Self {
            origins: config.origins.clone(),
            methods: list(&config.methods),
            headers: list(&config.headers),
            expose: match &config.expose {
                AnyOf::Any => Some(HeaderValue::from_static("*")),
                AnyOf::Only(names) if names.is_empty() => None,
                only => list(only),
            },
            credentials: config.credentials,
            max_age: HeaderValue::from(config.max_age.as_secs()),
        }
    }

    /// What an answer says of the origin that asks; `None`: nothing.
    pub fn allowed(&self, request: &HeaderMap) -> Option<HeaderValue> {
        match &self.origins {
            AnyOf::Any if self.credentials => request.get(ORIGIN).cloned(), // `*` would not hold with cookies
            // The same for everybody, so that a cache need not know who asked.
            AnyOf::Any => Some(HeaderValue::from_static("*")),
            AnyOf::Only(sites) => {
                let origin = request.get(ORIGIN)?;
                sites
                    .iter()
                    .any(|site| is(site, origin))
                    .then(|| origin.clone())
            }
        }
    }

    /// Writes the fields of the answer to a preflight.
    ///
    /// * `allowed`: what [`allowed`](Self::allowed) said
    pub fn answer_preflight(
        &self,
        allowed: Option<&HeaderValue>,
        request: &HeaderMap,
        answer: &mut HeaderMap,
    ) {
        let asked = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        answer.append(VARY, HeaderValue::from_static(asked));
        let Some(origin) = allowed else { return };
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            answer.insert(
                ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
        // Any is said by repeating the question: `*` covers neither `Authorization` nor requests with cookies.
        let methods = self.methods.as_ref();
        if let Some(methods) = methods.or_else(|| request.get(ACCESS_CONTROL_REQUEST_METHOD)) {
            answer.insert(ACCESS_CONTROL_ALLOW_METHODS, methods.clone());
        }
        let headers = self.headers.as_ref();
        if let Some(headers) = headers.or_else(|| request.get(ACCESS_CONTROL_REQUEST_HEADERS)) {
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, headers.clone());
        }
        answer.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
    }

    /// Writes the fields of any other answer, in place of what an endpoint may have said.
    ///
    /// * `allowed`: what [`allowed`](Self::allowed) said
    pub fn answer(&self, allowed: Option<HeaderValue>, answer: &mut HeaderMap) {
        // Few endpoints say any of it: one look at the names is cheaper than three at the map.
        if answer
            .keys()
            .any(|name| name.as_str().starts_with("access-control-"))
        {
            answer.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
            answer.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
            answer.remove(ACCESS_CONTROL_EXPOSE_HEADERS);
        }
        if self.credentials || self.origins != AnyOf::Any {
            answer.append(VARY, HeaderValue::from_static("Origin"));
        }
        let Some(origin) = allowed else { return };
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            answer.insert(
                ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
        if let Some(expose) = &self.expose {
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }
}

fn is(site: &Origin, origin: &HeaderValue) -> bool {
    match site {
        Origin::Exact(site) => site.as_bytes() == origin.as_bytes(),
        Origin::Suffix { .. } => origin.to_str().is_ok_and(|text| site.is(text)),
    }
}

fn list<T: Display>(names: &AnyOf<T>) -> Option<HeaderValue> {
    let AnyOf::Only(names) = names else {
        return None;
    };
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let line = HeaderValue::try_from(names.join(", "));
    Some(line.unwrap_or(HeaderValue::from_static("")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderName;

    use super::*;

    fn config(origins: AnyOf<Origin>, credentials: bool) -> forebay_config::Cors {
        forebay_config::Cors {
            origins,
            methods: AnyOf::Only(vec![Method::GET, Method::PUT]),
            headers: AnyOf::Any,
            expose: AnyOf::Only(vec![HeaderName::from_static("x-a")]),
            credentials,
            max_age: Duration::from_secs(300),
        }
    }

    fn from(origin: &'static str) -> HeaderMap {
        HeaderMap::from_iter([
            (ORIGIN, HeaderValue::from_static(origin)),
            (
                ACCESS_CONTROL_REQUEST_HEADERS,
                HeaderValue::from_static("authorization"),
            ),
        ])
    }

    #[test]
    fn anybody_without_cookies_is_a_star() {
        let cors = Cors::new(&config(AnyOf::Any, false));
        let mut answer = HeaderMap::new();
        cors.answer(cors.allowed(&from("https://a")), &mut answer);
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert_eq!(answer[ACCESS_CONTROL_EXPOSE_HEADERS], "x-a");
        assert!(!answer.contains_key(VARY));
    }

    #[test]
    fn anybody_with_cookies_is_named() {
        let cors = Cors::new(&config(AnyOf::Any, true));
        let mut answer = HeaderMap::new();
        cors.answer(cors.allowed(&from("https://a")), &mut answer);
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "https://a");
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert_eq!(answer[VARY], "Origin");
    }

    #[test]
    fn a_stranger_is_told_nothing_whatever_the_endpoint_says() {
        let site = Origin::Exact("https://a".into());
        let cors = Cors::new(&config(AnyOf::Only(vec![site]), false));
        let mut answer = from("x");
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        cors.answer(cors.allowed(&from("https://b")), &mut answer);
        assert!(!answer.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
        assert_eq!(answer[VARY], "Origin");
        assert!(cors.allowed(&HeaderMap::new()).is_none());
    }

    #[test]
    fn a_preflight_is_told_what_it_asked() {
        let cors = Cors::new(&config(AnyOf::Any, false));
        let (request, mut answer) = (from("https://a"), HeaderMap::new());
        let allowed = cors.allowed(&request);
        cors.answer_preflight(allowed.as_ref(), &request, &mut answer);
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_METHODS], "GET, PUT");
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_HEADERS], "authorization");
        assert_eq!(answer[ACCESS_CONTROL_MAX_AGE], "300");
    }
}
