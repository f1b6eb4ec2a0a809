//! Paths as nginx sees them: exact ones, beginnings of strings, and regular expressions.

use regex::Regex;

use super::legal;
use crate::import::Leaf;
use crate::import::native::{PathRule, RegexRewrite, Rewrite};
use crate::schema::{PathText, Pattern};

/// What `pathType` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum PathKind {
    /// The whole path.
    Exact,
    /// Whole segments.
    Prefix,
    /// The path begins with it, as a string.
    Raw,
}

/// Native conditions for a location. `beyond` is for what begins with the string but not with its segments.
pub(super) struct Rules {
    pub(super) main: Option<PathRule>,
    pub(super) beyond: Option<PathRule>,
}

/// Translates the path of a location of a host without regular expressions.
///
/// # Errors
///
/// Why no request can have it, for a finding.
pub(super) fn plain(kind: PathKind, path: &Leaf) -> Result<Rules, String> {
    if !legal::is::<PathText>(path) {
        return Err(format!("no request has the path `{path}`"));
    }
    let rules = |main, beyond| Ok(Rules { main, beyond });
    match (kind, path.as_str()) {
        (PathKind::Exact, _) => rules(Some(PathRule::Exact(path.clone())), None),
        (_, "/") => rules(None, None),
        (PathKind::Raw, text) if !text.ends_with('/') => {
            let rest = path.with(format!("{}[^/].*", regex::escape(text)));
            let prefix = PathRule::Prefix(path.clone());
            rules(Some(prefix), Some(PathRule::Regex(rest)))
        }
        _ => rules(Some(PathRule::Prefix(path.clone())), None),
    }
}

/// Translates the path of a location of a host with regular expressions: the case of letters does not matter, and the
/// expression only has to fit the beginning.
///
/// # Errors
///
/// Why it cannot be used, for a finding.
pub(super) fn expression(path: &Leaf) -> Result<Option<PathRule>, String> {
    let text = path.as_str();
    if text == "/" {
        return Ok(None);
    }
    let whole = match alternates(text) {
        true => path.with(format!("(?i).*(?:^{text}).*")),
        false => path.with(format!("(?i){text}.*")),
    };
    compiled(&whole)?;
    Ok(Some(PathRule::Regex(whole)))
}

fn compiled(expression: &Leaf) -> Result<Regex, String> {
    let pattern = legal::read::<Pattern>(expression);
    let pattern = pattern.map_err(|_| "the regular expression is not understood".to_owned())?;
    Ok(pattern.free)
}

/// True when an expression has alternatives outside of all groups.
fn alternates(text: &str) -> bool {
    let (mut depth, mut class, mut escaped) = (0_i32, false, false);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ']' => class = false,
            _ if class => {}
            '[' => class = true,
            '(' => depth += 1,
            ')' => depth -= 1,
            '|' if depth <= 0 => return true,
            _ => {}
        }
    }
    false
}

/// Translates `rewrite-target`: the whole path becomes it, `$1` … `$9` standing for groups of the location's path.
///
/// # Errors
///
/// Why it cannot be said, for a finding.
pub(super) fn rewrite(path: &Leaf, target: &Leaf) -> Result<Rewrite, String> {
    let text = target.as_str();
    if text.contains(['?', '#']) {
        return Err("a query cannot be written".to_owned());
    }
    if !text.contains('$') {
        let whole = match text.starts_with('/') {
            true => target.clone(),
            false => target.with(format!("/{text}")),
        };
        return match legal::is::<PathText>(&whole) {
            true => Ok(Rewrite {
                path: Some(whole),
                ..Rewrite::default()
            }),
            false => Err(format!("`{target}` is no path")),
        };
    }
    let expression = path.as_str();
    let find = match alternates(expression) {
        true => format!("(?i)^.*?(?:{expression}).*$"),
        false => format!("(?i)^{}.*$", expression.trim_start_matches('^')),
    };
    let find = path.with(find);
    let regex = compiled(&find)?;
    let with = target.with(template(text, &regex)?);
    Ok(Rewrite {
        regex: Some(RegexRewrite {
            at: None,
            find: Some(find),
            with: Some(with),
        }),
        ..Rewrite::default()
    })
}

/// Rewrites nginx's `$1`, which has one digit, as `${1}`; groups that the expression does not have are empty.
fn template(text: &str, regex: &Regex) -> Result<String, String> {
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let (name, tail) = match after.strip_prefix('{') {
            Some(inner) => inner.split_once('}').ok_or("`{` is not closed")?,
            None if after.starts_with(|c: char| c.is_ascii_digit()) => after.split_at(1),
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                after.split_at(end.unwrap_or(after.len()))
            }
        };
        rest = tail;
        match name.parse::<usize>() {
            Ok(group @ 1..=9) if group < regex.captures_len() => {
                out.push_str(&format!("${{{group}}}"));
            }
            Ok(1..=9) => {}
            _ if regex.capture_names().flatten().any(|known| known == name) => {
                out.push_str(&format!("${{{name}}}"));
            }
            _ => return Err(format!("the variable `${name}` is not known")),
        }
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::nowhere;

    fn leaf(text: &str) -> Leaf {
        Leaf::text(&nowhere(), text)
    }

    #[test]
    fn alternatives_outside_of_groups_are_seen() {
        for (text, wanted) in [
            ("/a|/b", true),
            ("/(a|b)", false),
            ("/[|]", false),
            (r"/\|", false),
            ("/(a)|b", true),
            (r"/\(|b", true),
        ] {
            assert_eq!(alternates(text), wanted, "{text}");
        }
    }

    #[test]
    fn targets_become_whole_paths_or_templates() {
        let with = |path: &str, target: &str| {
            let rewrite = rewrite(&leaf(path), &leaf(target))?;
            let regex = rewrite.regex.and_then(|regex| regex.with);
            let text = rewrite.path.or(regex).ok_or("nothing")?;
            Ok::<_, String>(text.as_str().to_owned())
        };
        assert_eq!(with("/a", "/").as_deref(), Ok("/"));
        assert_eq!(with("/a", "b").as_deref(), Ok("/b"));
        assert_eq!(with("/a(/|$)(.*)", "/$2").as_deref(), Ok("/${2}"));
        assert_eq!(with("/a/(.*)", "/x$10/$3").as_deref(), Ok("/x${1}0/"));
        assert_eq!(with("/(?P<v>.*)", "/$v").as_deref(), Ok("/${v}"));
        for bad in ["/x?y=1", "/$host", "/${1", "/$"] {
            assert!(with("/a/(.*)", bad).is_err(), "{bad}");
        }
        assert!(with("/a/(?=b)", "/$1").is_err());
    }
}
