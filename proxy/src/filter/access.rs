//! Who may send requests: denied first, then only who is allowed where anybody is named.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_config::{AccessEntry, ValueMatch};
use http::{HeaderMap, HeaderName};

use super::blocks::Blocks;
use super::files::{FileError, Files};

/// `access` of a route, compiled.
#[derive(Debug)]
pub struct Access {
    deny: List,
    allow: Option<List>,
    dry_run: bool,
    denied: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct List {
    blocks: Blocks,
    files: Vec<Arc<Blocks>>,
    headers: Vec<Vec<(HeaderName, ValueMatch)>>,
}

impl Access {
    /// Compiles, reading list files.
    ///
    /// * `denied`: counts the requests it refuses, or would refuse but for `dry_run`
    ///
    /// # Errors
    ///
    /// A list file cannot be read or has a line that is no address.
    pub fn new(
        config: &forebay_config::Access,
        files: &mut Files,
        denied: Arc<AtomicU64>,
    ) -> Result<Self, FileError> {
        Ok(Self {
            deny: List::new(&config.deny, files)?,
            allow: config
                .allow
                .as_ref()
                .map(|entries| List::new(entries, files))
                .transpose()?,
            dry_run: config.dry_run,
            denied,
        })
    }

    /// Whether a request may proceed. A refusal is counted.
    ///
    /// * `client`: the client's address, behind trusted proxies
    pub fn admits(&self, client: IpAddr, headers: &HeaderMap) -> bool {
        let refused = self.deny.catches(client, headers)
            || self
                .allow
                .as_ref()
                .is_some_and(|allow| !allow.lets_in(client, headers));
        if refused {
            self.denied.fetch_add(1, Ordering::Relaxed); // a statistic: orders no other memory
        }
        !refused || self.dry_run
    }
}

impl List {
    fn new(entries: &[AccessEntry], files: &mut Files) -> Result<Self, FileError> {
        let mut nets = Vec::new();
        let mut list = Self::default();
        for entry in entries {
            match entry {
                AccessEntry::Net(net) => nets.push(*net),
                AccessEntry::Headers(all) => list.headers.push(all.clone()),
                AccessEntry::File(path) => list.files.push(files.blocks(path)?),
            }
        }
        list.blocks = Blocks::new(nets);
        Ok(list)
    }

    fn has(&self, client: IpAddr) -> bool {
        self.blocks.contains(client) || self.files.iter().any(|file| file.contains(client))
    }

    /// For denying: a value that any line of a field holds counts, so that nobody hides it behind another.
    fn catches(&self, client: IpAddr, headers: &HeaderMap) -> bool {
        let held = |(name, condition): &(HeaderName, ValueMatch)| {
            let lines = headers.get_all(name).iter();
            let mut each = lines.map(|line| line.as_bytes());
            holds(condition, joined(headers, name).as_deref())
                || (is_positive(condition) && each.any(|line| holds(condition, Some(line))))
        };
        self.has(client) || self.headers.iter().any(|all| all.iter().all(held))
    }

    /// For allowing: all lines of a field together are its value.
    fn lets_in(&self, client: IpAddr, headers: &HeaderMap) -> bool {
        let held = |(name, condition): &(HeaderName, ValueMatch)| {
            holds(condition, joined(headers, name).as_deref())
        };
        self.has(client) || self.headers.iter().any(|all| all.iter().all(held))
    }
}

fn is_positive(condition: &ValueMatch) -> bool {
    match condition {
        ValueMatch::Exact(_) | ValueMatch::Regex(_) | ValueMatch::In(_) => true,
        ValueMatch::Present(_) | ValueMatch::Not(_) => false,
    }
}

fn joined<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<Cow<'h, [u8]>> {
    let mut lines = headers.get_all(name).iter();
    let mut value = Cow::Borrowed(lines.next()?.as_bytes());
    for line in lines {
        value.to_mut().push(b',');
        value.to_mut().extend_from_slice(line.as_bytes());
    }
    Some(value)
}

/// Bytes that are not UTF-8 do not save a value from an expression.
fn holds(condition: &ValueMatch, value: Option<&[u8]>) -> bool {
    match (condition, value) {
        (ValueMatch::Present(wanted), value) => value.is_some() == *wanted,
        (ValueMatch::Not(unwanted), value) => value != Some(unwanted.as_bytes()),
        (_, None) => false,
        (ValueMatch::Exact(wanted), Some(value)) => value == wanted.as_bytes(),
        (ValueMatch::In(wanted), Some(value)) => wanted.iter().any(|w| value == w.as_bytes()),
        (ValueMatch::Regex(regex), Some(value)) => regex.is_match(&String::from_utf8_lossy(value)),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn net(text: &str) -> AccessEntry {
        AccessEntry::Net(text.parse().unwrap())
    }

    fn header(name: &'static str, condition: ValueMatch) -> AccessEntry {
        AccessEntry::Headers(vec![(HeaderName::from_static(name), condition)])
    }

    fn access(deny: Vec<AccessEntry>, allow: Option<Vec<AccessEntry>>, dry_run: bool) -> Access {
        let position = forebay_config::Position {
            file: "t".into(),
            line: 1,
            column: 1,
        };
        let config = forebay_config::Access {
            list: None,
            deny,
            allow,
            dry_run,
            position,
        };
        Access::new(&config, &mut Files::default(), Arc::default()).unwrap()
    }

    fn asks(access: &Access, client: &str, fields: &[(&'static str, &[u8])]) -> bool {
        let fields = fields.iter().map(|&(name, value)| {
            let value = HeaderValue::from_bytes(value).unwrap();
            (HeaderName::from_static(name), value)
        });
        let mut headers = HeaderMap::new();
        fields.for_each(|(name, value)| {
            headers.append(name, value);
        });
        access.admits(client.parse().unwrap(), &headers)
    }

    #[test]
    fn deny_wins_and_an_allow_list_shuts_out_the_rest() {
        let both = access(
            vec![net("10.9.0.0/16")],
            Some(vec![net("10.0.0.0/8")]),
            false,
        );
        assert!(asks(&both, "10.1.0.1", &[]));
        assert!(!asks(&both, "10.9.0.1", &[]));
        assert!(!asks(&both, "192.0.2.1", &[]));
        assert_eq!(both.denied.load(Ordering::Relaxed), 2);
        let deny = access(vec![net("10.9.0.0/16")], None, false);
        assert!(asks(&deny, "192.0.2.1", &[]));
        assert!(!asks(&access(vec![], Some(vec![]), false), "10.0.0.1", &[]));
    }

    #[test]
    fn a_dry_run_counts_and_lets_pass() {
        let dry = access(vec![net("10.9.0.0/16")], None, true);
        assert!(asks(&dry, "10.9.0.1", &[]));
        assert_eq!(dry.denied.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_denied_value_cannot_hide() {
        let regex = ValueMatch::Regex(regex::Regex::new("^(?:curl.*)$").unwrap());
        let denied = access(vec![header("user-agent", regex)], None, false);
        assert!(!asks(&denied, "10.0.0.1", &[("user-agent", b"curl/8")]));
        assert!(!asks(&denied, "10.0.0.1", &[("user-agent", b"curl/\xff")]));
        let two: &[(&'static str, &[u8])] = &[("user-agent", b"x"), ("user-agent", b"curl/8")];
        assert!(!asks(&denied, "10.0.0.1", two));
        assert!(asks(&denied, "10.0.0.1", &[("user-agent", b"wget")]));
        assert!(asks(&denied, "10.0.0.1", &[]));
    }

    #[test]
    fn an_allowed_value_cannot_be_smuggled_beside_another() {
        let entry = header("x-tenant", ValueMatch::Exact("acme".into()));
        let allowed = access(vec![], Some(vec![entry]), false);
        assert!(asks(&allowed, "10.0.0.1", &[("x-tenant", b"acme")]));
        let two: &[(&'static str, &[u8])] = &[("x-tenant", b"acme"), ("x-tenant", b"evil")];
        assert!(!asks(&allowed, "10.0.0.1", two));
    }
}
