//! Hostnames with wildcards: what two of them have in common.

use std::collections::HashMap;

/// A hostname, lower case: `a.b`, `*.a.b`, or empty for every host.
pub(super) type Host = String;

/// Returns the hosts that both stand for; `None`: none. `*.a` stands for any number of labels in front of `.a`.
pub(super) fn intersection(one: &str, other: &str) -> Option<Host> {
    if covers(one, other) {
        Some(other.to_owned())
    } else if covers(other, one) {
        Some(one.to_owned())
    } else {
        None
    }
}

/// True when all hosts that `narrow` stands for are among those of `wide`.
fn covers(wide: &str, narrow: &str) -> bool {
    if wide.is_empty() || wide == narrow {
        return true;
    }
    match wide.strip_prefix('*') {
        Some(suffix) => {
            let name = narrow.strip_prefix('*').unwrap_or(narrow);
            name.len() > suffix.len() && name.ends_with(suffix)
        }
        None => false,
    }
}

/// Hosts and who has them.
#[derive(Debug, Default)]
pub(super) struct Taken {
    hosts: HashMap<Host, String>,
    below: HashMap<Host, String>, // wildcards that cover one of `hosts`
}

impl Taken {
    /// Adds a host.
    pub(super) fn add(&mut self, host: &str, owner: &str) {
        let mut both = vec![host.to_owned()];
        both.extend(wider(host));
        for wide in both {
            self.below.entry(wide).or_insert_with(|| owner.to_owned());
        }
        let hosts = &mut self.hosts;
        hosts
            .entry(host.to_owned())
            .or_insert_with(|| owner.to_owned());
    }

    /// Returns the owner of a host that has something in common with `host`.
    pub(super) fn owner(&self, host: &str) -> Option<&str> {
        let wider = wider(host);
        let mut above = wider.iter().map(|wide| self.hosts.get(wide));
        let own = self.below.get(host);
        own.or_else(|| above.find_map(|owner| owner))
            .map(String::as_str)
    }
}

/// Returns every wildcard that covers a host and is not the host itself, the most specific first, and the one for every
/// host.
pub(super) fn wider(host: &str) -> Vec<Host> {
    let mut found = Vec::new();
    let mut rest = host.strip_prefix("*.").unwrap_or(host);
    while let Some((_, tail)) = rest.split_once('.') {
        found.push(format!("*.{tail}"));
        rest = tail;
    }
    if !host.is_empty() {
        found.push(String::new());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hosts_have_in_common() {
        for (one, other, both) in [
            ("", "", Some("")),
            ("", "a.com", Some("a.com")),
            ("", "*.com", Some("*.com")),
            ("a.com", "a.com", Some("a.com")),
            ("a.com", "b.com", None),
            ("test.a.com", "*.a.com", Some("test.a.com")),
            ("foo.test.a.com", "*.a.com", Some("foo.test.a.com")),
            ("a.com", "*.a.com", None),
            ("xa.com", "*.a.com", None),
            ("*.a.com", "*.a.com", Some("*.a.com")),
            ("*.b.a.com", "*.a.com", Some("*.b.a.com")),
            ("*.a.com", "*.b.com", None),
            ("*.a.com", "*.xa.com", None),
        ] {
            assert_eq!(
                intersection(one, other).as_deref(),
                both,
                "{one:?} {other:?}"
            );
            assert_eq!(
                intersection(other, one).as_deref(),
                both,
                "{other:?} {one:?}"
            );
            let mut taken = Taken::default();
            taken.add(one, "o");
            assert_eq!(
                taken.owner(other).is_some(),
                both.is_some(),
                "{one:?} {other:?}"
            );
        }
    }
}
