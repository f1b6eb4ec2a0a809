//! Who sends a request: API keys, known by their hash.

use std::collections::HashMap;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use ring::digest::{SHA256, digest};

/// SHA-256 of a key.
pub type Digest = [u8; 32];

static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Known keys.
///
/// A key is looked up by its hash: how long that takes tells something of the hash, which is of no use to anybody
/// who does not have the key.
pub struct Keys(HashMap<Digest, Arc<str>>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

/// Somebody with a known key.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The name of the key.
    pub name: Arc<str>,
    in_authorization: bool,
    in_api_key: bool,
}

impl Keys {
    /// Keys by hash.
    pub fn new(keys: HashMap<Digest, Arc<str>>) -> Self {
        Self(keys)
    }

    /// Finds out who sends a request: by `Authorization: Bearer`, else by `x-api-key`.
    pub fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        let mut bearers = headers.get_all(AUTHORIZATION).iter();
        let by_bearer = bearers.find_map(|value| self.known(bearer(value.as_bytes())?));
        let mut plain = headers.get_all(&X_API_KEY).iter();
        let by_key = plain.find_map(|value| {
            let key = value.as_bytes();
            if key.is_empty() {
                None
            } else {
                self.known(key)
            }
        });
        Some(Caller {
            name: Arc::clone(by_bearer.or(by_key)?),
            in_authorization: by_bearer.is_some(),
            in_api_key: by_key.is_some(),
        })
    }

    fn known(&self, key: &[u8]) -> Option<&Arc<str>> {
        let hash = Digest::try_from(digest(&SHA256, key).as_ref()).ok()?;
        self.0.get(&hash)
    }
}

impl Caller {
    /// Removes the key, so that the endpoint does not learn it.
    pub fn remove_key(&self, headers: &mut HeaderMap) {
        if self.in_authorization {
            headers.remove(AUTHORIZATION);
        }
        if self.in_api_key {
            headers.remove(&X_API_KEY);
        }
    }
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(7)?;
    let key = key.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !key.is_empty()).then_some(key)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn keys() -> Keys {
        let hash = |key: &str| Digest::try_from(digest(&SHA256, key.as_bytes()).as_ref()).unwrap();
        Keys::new(HashMap::from([
            (hash("k1"), Arc::from("alice")),
            (hash("k2"), Arc::from("bob")),
        ]))
    }

    fn with(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |&(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        fields.iter().map(pair).collect()
    }

    #[test]
    fn a_key_is_known_in_both_places() {
        for (fields, name) in [
            (with(&[("authorization", "Bearer k1")]), Some("alice")),
            (with(&[("authorization", "bearer  k1 ")]), Some("alice")),
            (with(&[("x-api-key", "k2")]), Some("bob")),
            (
                with(&[("authorization", "Bearer x"), ("x-api-key", "k2")]),
                Some("bob"),
            ),
            (with(&[("authorization", "Basic k1")]), None),
            (with(&[("authorization", "Bearer ")]), None),
            (with(&[("authorization", "Bearerk1")]), None),
            (with(&[("x-api-key", "k3")]), None),
            (with(&[]), None),
        ] {
            let caller = keys().caller(&fields);
            assert_eq!(caller.as_ref().map(|c| &*c.name), name, "{fields:?}");
        }
    }

    #[test]
    fn only_what_held_a_known_key_is_removed() {
        let mut headers = with(&[
            ("authorization", "Bearer upstreams-own"),
            ("x-api-key", "k2"),
        ]);
        keys().caller(&headers).unwrap().remove_key(&mut headers);
        assert!(headers.contains_key(AUTHORIZATION) && !headers.contains_key("x-api-key"));
        let mut headers = with(&[("authorization", "Bearer k1"), ("x-api-key", "k2")]);
        keys().caller(&headers).unwrap().remove_key(&mut headers);
        assert!(headers.is_empty());
    }
}
