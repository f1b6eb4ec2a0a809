//! What a route makes of a path, and where a redirect points.

use std::borrow::Cow;

use regex::{Captures, Regex};

use crate::canonical::{PathError, canonical_path};
use crate::model::{PathOptions, PathRewrite, Redirect};
use crate::route::CompiledMatch;

/// Returns the path to forward, canonical again: a rewrite can not lead above the root or smuggle a slash.
///
/// * `rewrite`: `Prefix` replaces what [`CompiledMatch::matched_len`] covers, by whole segments as Gateway API's
///   `ReplacePrefixMatch`, with or without a slash at its end, a custom verb such as `:predict` staying behind
///   the last of them; `Regex` replaces every match, `$1` and `${name}` standing
///   for groups and `$$` for a dollar sign, and gets a slash in front when none is left
/// * `matched`: what [`RouteTable::find`](crate::route::RouteTable::find) found
/// * `path`: canonical, without query
///
/// # Errors
///
/// When the result has no canonical form; the caller answers 400 `bad_path`.
pub fn rewritten_path<'a>(
    rewrite: &'a PathRewrite,
    matched: &CompiledMatch,
    path: &'a str,
    options: PathOptions,
) -> Result<Cow<'a, str>, PathError> {
    match rewrite {
        PathRewrite::Path(whole) => canonical_path(whole, options),
        PathRewrite::Prefix(prefix) => {
            replaced_prefix(prefix, matched.matched_len(path), path, options)
        }
        PathRewrite::Regex { find, with } => match replaced_matches(find, with, path) {
            Cow::Borrowed(unchanged) => Ok(Cow::Borrowed(unchanged)),
            Cow::Owned(rewritten) => canonical_owned(rewritten, options),
        },
    }
}

fn replaced_prefix<'a>(
    prefix: &str,
    matched_len: usize,
    path: &'a str,
    options: PathOptions,
) -> Result<Cow<'a, str>, PathError> {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let rest = path.get(matched_len..).unwrap_or_default();
    match (prefix, rest) {
        ("", "") => Ok(Cow::Borrowed("/")),
        ("", rest) if rest.starts_with('/') => canonical_path(rest, options),
        ("", verb) => canonical_owned(["/", verb].concat(), options),
        (prefix, rest) => canonical_owned([prefix, rest].concat(), options),
    }
}

fn replaced_matches<'a>(find: &Regex, with: &str, path: &'a str) -> Cow<'a, str> {
    let rewritten = find.replace_all(path, |groups: &Captures<'_>| {
        let mut out = String::new();
        expand(with, groups, &mut out);
        out
    });
    match rewritten {
        Cow::Owned(rewritten) if !rewritten.starts_with('/') => Cow::Owned(format!("/{rewritten}")),
        rewritten => rewritten,
    }
}

/// Writes `with`, its groups filled in. Unlike the regex crate's own syntax, `$1x` is group 1 and an `x`, as everywhere
/// else. A group that is not there is empty.
fn expand(with: &str, groups: &Captures<'_>, out: &mut String) {
    let mut rest = with;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (name, after) = match rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            Some((name, after)) => (name, after),
            None => rest.split_at(digits),
        };
        if name.is_empty() {
            out.push('$');
            rest = rest.strip_prefix('$').unwrap_or(rest);
            continue;
        }
        let group = match name.parse() {
            Ok(index) => groups.get(index),
            Err(_) => groups.name(name),
        };
        out.push_str(group.map_or("", |group| group.as_str()));
        rest = after;
    }
    out.push_str(rest);
}

fn canonical_owned<'a>(path: String, options: PathOptions) -> Result<Cow<'a, str>, PathError> {
    let rewritten = match canonical_path(&path, options)? {
        Cow::Borrowed(_) => None,
        Cow::Owned(rewritten) => Some(rewritten),
    };
    Ok(Cow::Owned(rewritten.unwrap_or(path)))
}

/// Where a request came to, for what a redirect keeps of it.
#[derive(Clone, Copy, Debug)]
pub struct RequestOrigin<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Canonical; an IPv6 literal in brackets.
    pub host: &'a str,
    /// The listener's.
    pub port: u16,
}

/// Returns the `Location` of a redirect, always absolute. As in Gateway API the port is the redirect's, else the
/// default of the redirect's scheme, else that of the listener; the default port of the resulting scheme is left out.
///
/// * `path`: canonical; kept unless the redirect has its own
/// * `query`: without question mark, kept
pub fn location(
    redirect: &Redirect,
    origin: RequestOrigin<'_>,
    path: &str,
    query: Option<&str>,
) -> String {
    let scheme = redirect.scheme.as_deref().unwrap_or(origin.scheme);
    let host = redirect.host.as_deref().unwrap_or(origin.host);
    let default_port = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    let kept_port = if redirect.scheme.is_some() {
        default_port
    } else {
        Some(origin.port)
    };
    let port = redirect
        .port
        .or(kept_port)
        .filter(|&port| Some(port) != default_port);
    let path = redirect.path.as_deref().unwrap_or(path);
    let mut out = String::with_capacity(
        scheme.len() + host.len() + path.len() + query.map_or(0, str::len) + 10,
    );
    out.extend([scheme, "://", host]);
    if let Some(port) = port {
        out.extend([":", &port.to_string()]);
    }
    out.push_str(path);
    if let Some(query) = query {
        out.push(if path.contains('?') { '&' } else { '?' });
        out.push_str(query);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Match, PathMatch};
    use http::StatusCode;

    fn rewritten(
        rewrite: &PathRewrite,
        path_match: Option<PathMatch>,
        path: &str,
    ) -> Result<String, PathError> {
        let matched = CompiledMatch::new(
            0,
            0,
            0,
            &Match {
                path: path_match,
                ..Match::default()
            },
        );
        rewritten_path(rewrite, &matched, path, PathOptions::default()).map(Cow::into_owned)
    }

    /// The table of Gateway API's ReplacePrefixMatch; the configuration holds `/foo/` as `/foo`.
    #[test]
    fn a_prefix_is_replaced_by_whole_segments() {
        for (path, matched, replacement, want) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo", "/foo", "/xyz/", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/bar", "/foo", "/", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo", "", "/xyz", "/xyz/foo"),
            ("/", "", "/xyz", "/xyz/"),
            ("/foo:go", "/foo", "/xyz", "/xyz:go"),
            ("/foo:go", "/foo", "/xyz/", "/xyz:go"),
            ("/foo:go", "/foo", "/", "/:go"),
            ("/foo:go", "/foo", "", "/:go"),
            ("/foo:..", "/foo", "/", "/:.."),
            ("/foo:go", "", "/xyz", "/xyz/foo:go"),
            ("/foo/bar:go", "/foo", "/", "/bar:go"),
            (
                "/v1/models/resnet:predict",
                "/v1/models/resnet",
                "/v1/models/m2",
                "/v1/models/m2:predict",
            ),
        ] {
            let prefix = Some(PathMatch::Prefix(matched.into()));
            let found = rewritten(&PathRewrite::Prefix(replacement.into()), prefix, path);
            assert_eq!(found.as_deref(), Ok(want), "{path} {matched} {replacement}");
        }
        let to = PathRewrite::Prefix("/xyz".into());
        assert_eq!(
            rewritten(&to, Some(PathMatch::Exact("/a/b".into())), "/a/b").as_deref(),
            Ok("/xyz")
        );
        assert_eq!(rewritten(&to, None, "/a/b").as_deref(), Ok("/xyz/a/b"));
    }

    #[test]
    fn stripping_a_prefix_borrows() {
        let written = Match {
            path: Some(PathMatch::Prefix("/foo".into())),
            ..Match::default()
        };
        let matched = CompiledMatch::new(0, 0, 0, &written);
        let to = PathRewrite::Prefix("/".into());
        let found = rewritten_path(&to, &matched, "/foo/bar", PathOptions::default());
        assert!(matches!(found, Ok(Cow::Borrowed("/bar"))));
    }

    #[test]
    fn a_whole_path_is_replaced() {
        assert_eq!(
            rewritten(&PathRewrite::Path("/x/y".into()), None, "/a").as_deref(),
            Ok("/x/y")
        );
    }

    #[test]
    fn matches_of_a_regex_are_replaced_with_groups() {
        for (find, with, path, want) in [
            ("^/v1/(.*)$", "/v2/$1", "/v1/a/b", Ok("/v2/a/b")),
            ("/(a)/(b)", "/$2x/${1}y", "/a/b/a/b", Ok("/bx/ay/bx/ay")),
            (
                "(?P<name>a+)",
                "<$name>${name}",
                "/aa",
                Ok("/%3C$name%3Eaa"),
            ),
            ("a", "$$$", "/a", Ok("/$$")),
            ("a", "${9}${none}", "/xa", Ok("/x")),
            ("^/foo", "", "/foo", Ok("/")),
            ("^/foo/", "", "/foo/bar", Ok("/bar")),
            ("nothing", "x", "/foo", Ok("/foo")),
            ("x", "..", "/a/x/b", Ok("/b")),
            ("x", "..", "/x/x", Err(PathError::AboveRoot)),
            ("0", "F", "/%20", Err(PathError::EscapedSlash)),
            ("x", "?", "/x", Err(PathError::Query)),
        ] {
            let rewrite = PathRewrite::Regex {
                find: Regex::new(find).unwrap(),
                with: with.into(),
            };
            assert_eq!(
                rewritten(&rewrite, None, path).as_deref(),
                want.as_ref().copied(),
                "{find} {with} {path}"
            );
        }
    }

    fn redirect(
        scheme: Option<&str>,
        host: Option<&str>,
        port: Option<u16>,
        path: Option<&str>,
    ) -> Redirect {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Redirect {
            scheme: owned(scheme),
            host: owned(host),
            port,
            path: owned(path),
            status: StatusCode::FOUND,
        }
    }

    #[test]
    fn a_location_keeps_what_the_redirect_leaves_open() {
        let http = |port| RequestOrigin {
            scheme: "http",
            host: "a",
            port,
        };
        let https = |port| RequestOrigin {
            scheme: "https",
            host: "[::1]",
            port,
        };
        for (redirect, origin, query, want) in [
            (
                redirect(None, None, None, None),
                http(80),
                None,
                "http://a/p",
            ),
            (
                redirect(None, None, None, None),
                http(8080),
                Some("q=1"),
                "http://a:8080/p?q=1",
            ),
            (
                redirect(None, None, None, None),
                https(443),
                None,
                "https://[::1]/p",
            ),
            (
                redirect(None, None, None, None),
                https(80),
                None,
                "https://[::1]:80/p",
            ),
            (
                redirect(Some("https"), None, None, None),
                http(8080),
                None,
                "https://a/p",
            ),
            (
                redirect(Some("https"), None, Some(8443), None),
                http(80),
                None,
                "https://a:8443/p",
            ),
            (
                redirect(Some("http"), None, Some(80), None),
                https(8443),
                None,
                "http://[::1]/p",
            ),
            (
                redirect(None, Some("b"), None, None),
                http(8080),
                None,
                "http://b:8080/p",
            ),
            (
                redirect(None, Some("b"), Some(443), Some("/new")),
                http(80),
                Some(""),
                "http://b:443/new?",
            ),
            (
                redirect(None, None, None, Some("/n?x=1")),
                http(80),
                Some("q=1"),
                "http://a/n?x=1&q=1",
            ),
        ] {
            assert_eq!(location(&redirect, origin, "/p", query), want);
        }
    }
}
