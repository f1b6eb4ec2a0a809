//! The rules of one host pattern, by path.

use std::collections::HashMap;
use std::ops::ControlFlow;

use foldhash::fast::RandomState;

use super::condition::CompiledMatch;
use crate::model::PathMatch;

/// Rule ids by path condition. Every list is in order of precedence, best first.
#[derive(Clone, Debug, Default)]
pub(super) struct Bucket {
    exact: HashMap<Box<str>, Box<[u32]>, RandomState>,
    prefixes: HashMap<Box<str>, Box<[u32]>, RandomState>,
    depths: Depths,
    regex: Box<[u32]>,
    any: Box<[u32]>,
}

impl Bucket {
    /// Visits the rules whose exact or prefix path holds, then all with a regex, then those without a path.
    #[inline]
    pub(super) fn lists(
        &self,
        path: &str,
        visit: &mut impl FnMut(&[u32]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if let Some(rules) = self.exact.get(path) {
            visit(rules)?;
        }
        if !self.prefixes.is_empty() {
            self.depths
                .prefixes_of(path, |prefix| match self.prefixes.get(prefix) {
                    Some(rules) => visit(rules),
                    None => ControlFlow::Continue(()),
                })?;
        }
        visit(&self.regex)?;
        visit(&self.any)
    }
}

/// Where the prefixes of a bucket may end: only those prefixes of a path are hashed.
#[derive(Clone, Copy, Debug, Default)]
struct Depths {
    present: u64,   // bit n: a prefix of n segments; the last bit: of that many or more
    colons: u64, // bit n: a prefix with n colons in its last segment; the last bit: that many or more
    longest: usize, // bytes
}

const LAST_DEPTH: usize = u64::BITS as usize - 1;

impl Depths {
    fn add(&mut self, prefix: &str) {
        let segment = prefix.rsplit('/').next().unwrap_or_default();
        self.present |= 1 << prefix.matches('/').count().min(LAST_DEPTH);
        self.colons |= 1 << segment.matches(':').count().min(LAST_DEPTH);
        self.longest = self.longest.max(prefix.len());
    }

    /// Visits the prefixes of `path` that end before a slash, before a colon of its last segment or at its end, longest
    /// first.
    fn prefixes_of(
        self,
        path: &str,
        mut visit: impl FnMut(&str) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        // Whatever lies behind the longest prefix and the slash that ends it cannot matter.
        let bytes = &path.as_bytes()[..path.len().min(self.longest + 1)];
        let deepest = match LAST_DEPTH - self.present.leading_zeros() as usize {
            LAST_DEPTH => usize::MAX,
            depth => depth,
        };
        let (mut depth, mut start) = (0, 0); // segments of path[..end], and where the last of them starts
        let mut end = bytes.len();
        for (at, &byte) in bytes.iter().enumerate() {
            if byte == b'/' {
                if depth == deepest {
                    end = at;
                    break;
                }
                (depth, start) = (depth + 1, at + 1);
            }
        }
        if self.has_depth(depth) && !path.as_bytes()[end..].contains(&b'/') {
            self.ends_in_last_segment(&path[..end], start, &mut visit)?;
        } else if self.has_depth(depth) && end <= self.longest {
            visit(&path[..end])?;
        }
        while depth > 0 {
            end = bytes[..end]
                .iter()
                .rposition(|&byte| byte == b'/')
                .expect("one slash for each segment counted");
            depth -= 1;
            if self.has_depth(depth) {
                visit(&path[..end])?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Visits `path` and its beginnings up to a colon of its last segment, where a custom verb may start, longest first.
    ///
    /// * `path`: cut behind the longest prefix
    /// * `start`: where the last segment starts
    fn ends_in_last_segment(
        self,
        path: &str,
        start: usize,
        visit: &mut impl FnMut(&str) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let segment = &path.as_bytes()[start..];
        let mut colons = segment.iter().filter(|&&byte| byte == b':').count();
        let mut end = path.len();
        loop {
            if self.colons >> colons.min(LAST_DEPTH) & 1 == 1 && end <= self.longest {
                visit(&path[..end])?;
            }
            let colon = segment[..end - start]
                .iter()
                .rposition(|&byte| byte == b':');
            let Some(colon) = colon else {
                return ControlFlow::Continue(());
            };
            end = start + colon;
            colons -= 1;
        }
    }

    fn has_depth(self, depth: usize) -> bool {
        self.present >> depth.min(LAST_DEPTH) & 1 == 1
    }
}

/// A [`Bucket`] that still grows.
#[derive(Default)]
pub(super) struct BucketBuilder<'a> {
    exact: HashMap<&'a str, Vec<u32>, RandomState>,
    prefixes: HashMap<&'a str, Vec<u32>, RandomState>,
    regex: Vec<u32>,
    any: Vec<u32>,
}

impl<'a> BucketBuilder<'a> {
    pub(super) fn add(&mut self, rule: u32, path: Option<&'a PathMatch>) {
        match path {
            Some(PathMatch::Exact(path)) => self.exact.entry(path).or_default().push(rule),
            Some(PathMatch::Prefix(prefix)) => self.prefixes.entry(prefix).or_default().push(rule),
            Some(PathMatch::Regex(_)) => self.regex.push(rule),
            None => self.any.push(rule),
        }
    }

    pub(super) fn build(self, matches: &[CompiledMatch]) -> Bucket {
        let sorted = |mut rules: Vec<u32>| -> Box<[u32]> {
            rules.sort_by_key(|&rule| matches[rule as usize].rank());
            rules.dedup(); // a host written twice
            rules.into()
        };
        let map = |paths: HashMap<&str, Vec<u32>, RandomState>| {
            paths
                .into_iter()
                .map(|(path, rules)| (Box::from(path), sorted(rules)))
                .collect()
        };
        let mut depths = Depths::default();
        self.prefixes.keys().for_each(|prefix| depths.add(prefix));
        Bucket {
            exact: map(self.exact),
            prefixes: map(self.prefixes),
            depths,
            regex: sorted(self.regex),
            any: sorted(self.any),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visited(prefixes: &[&str], path: &str) -> Vec<String> {
        let mut depths = Depths::default();
        prefixes.iter().for_each(|prefix| depths.add(prefix));
        let mut seen = Vec::new();
        let _ = depths.prefixes_of(path, |prefix| {
            seen.push(prefix.to_owned());
            ControlFlow::Continue(())
        });
        seen
    }

    #[test]
    fn only_prefixes_of_known_depths_are_tried_longest_first() {
        assert_eq!(visited(&["/aaaa/b/c", ""], "/a/b/c/d"), ["/a/b/c", ""]);
        assert_eq!(visited(&["/a/b", "/a"], "/a/b"), ["/a/b", "/a"]);
        assert_eq!(visited(&["/a/b", "/a"], "/a/b/"), ["/a/b", "/a"]);
        assert_eq!(visited(&["/a/b"], "/a/"), ["/a/"]);
        assert_eq!(visited(&["/abc"], "/abcd/e"), [""; 0]);
        assert_eq!(visited(&["/abc"], "/abc/e"), ["/abc"]);
        assert_eq!(visited(&[""], "/x"), [""]);
    }

    #[test]
    fn a_verb_is_taken_off_where_a_prefix_may_end() {
        assert_eq!(visited(&["/aa"], "/aa:b"), ["/aa"]);
        assert_eq!(visited(&["/a:b", "/a"], "/a:b"), ["/a:b", "/a"]);
        assert_eq!(visited(&["/a:b"], "/a:b:c"), ["/a:b"]);
        assert_eq!(visited(&["/aaaa:b:c", "/a"], "/a:b:c:d"), ["/a:b:c", "/a"]);
        assert_eq!(visited(&["/aa"], "/aa:b/c"), [""; 0]);
        assert_eq!(visited(&["/aa"], "/aa:bcdef/g"), [""; 0]);
        assert_eq!(visited(&["/a:b"], "/a:b/c:d"), ["/a:b"]);
        assert_eq!(visited(&["/aaaaaaaaaa"], &"/:".repeat(9)), ["/:"]);
        assert_eq!(
            visited(&["/aaaaaaaaaa"], &format!("/a{}", ":".repeat(99))),
            ["/a"]
        );
    }

    #[test]
    fn more_colons_than_the_mask_holds_are_found() {
        let many = format!("/a{}", ":".repeat(80));
        assert_eq!(visited(&[&many], &many)[0], many);
        assert_eq!(visited(&[&many], &format!("{many}:"))[0], many);
    }

    #[test]
    fn prefixes_deeper_than_the_mask_are_found() {
        let deep = "/x".repeat(80);
        assert_eq!(visited(&[&deep], &format!("{deep}/y"))[0], deep);
        assert_eq!(visited(&[&deep], "/x"), [""; 0]);
    }
}
