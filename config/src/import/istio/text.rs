//! StringMatch: exact, prefix or regex, on values and on paths.

use crate::import::native::{PathRule, ValueRule};
use crate::import::{Fields, Leaf};
use crate::schema::{Path, PathText, Pattern, Reader, Shape};

/// How a text is compared.
#[derive(Clone, Debug)]
pub(super) enum Text {
    /// Equal.
    Exact(Leaf),
    /// It begins so.
    Prefix(Leaf),
    /// A regular expression matches the whole of it.
    Regex(Leaf),
    /// It is there.
    Present,
}

/// What of the path a rewrite replaces.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Replaced {
    /// These first characters, by a regular expression that begins with `^`.
    Front(String),
    /// All of it.
    Whole,
}

/// Reads a text as a native shape. `Err` says why it is none.
pub(super) fn shaped<T: Shape>(leaf: &Leaf) -> Result<T, String> {
    let mut reader = Reader::new(&[]);
    T::read(&leaf.node(), Path::ROOT, &mut reader).ok_or_else(|| {
        let findings = reader.finish();
        let first = findings.into_iter().next();
        first.map_or_else(|| "the value is not legal".to_owned(), |one| one.message)
    })
}

impl Text {
    /// Reads a condition. `Err` says why there is none.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, String> {
        type Make = fn(Leaf) -> Text;
        let forms: [(&str, Make); 3] = [
            ("exact", Self::Exact),
            ("prefix", Self::Prefix),
            ("regex", Self::Regex),
        ];
        for (key, make) in forms {
            if fields.has(key) {
                let leaf = fields.text(key);
                return leaf
                    .map(make)
                    .ok_or_else(|| format!("`{key}` is not a string"));
            }
        }
        match fields.keys().next() {
            None => Ok(Self::Present),
            Some(key) => Err(format!("`{key}` is no way to compare")),
        }
    }

    /// Makes the condition on a value. `Err` says why it cannot be expressed.
    pub(super) fn value(&self, fields: &Fields<'_>) -> Result<ValueRule, String> {
        let pattern = |leaf: Leaf| shaped::<Pattern>(&leaf).map(|_| ValueRule::Regex(leaf));
        match self {
            Self::Exact(leaf) => Ok(ValueRule::Equals(leaf.clone())),
            Self::Prefix(leaf) => {
                let front = regex::escape(leaf.as_str());
                pattern(leaf.with(format!("(?s:{front}.*)")))
            }
            Self::Regex(leaf) => pattern(whole(leaf)),
            Self::Present => Ok(ValueRule::Present(Leaf::flag(fields.at(), true))),
        }
    }

    /// Makes the opposite of the condition: an absent value matches. `Err` says why it cannot be expressed.
    pub(super) fn without(&self, fields: &Fields<'_>) -> Result<ValueRule, String> {
        let absent = || ValueRule::Present(Leaf::flag(fields.at(), false));
        match self {
            Self::Exact(leaf) => Ok(ValueRule::Not(leaf.clone())),
            Self::Present => Ok(absent()),
            Self::Prefix(leaf) if leaf.as_str().is_empty() => Ok(absent()),
            Self::Regex(leaf) if matches!(leaf.as_str(), ".*" | "^.*$" | "*") => Ok(absent()),
            Self::Prefix(_) | Self::Regex(_) => Err(
                "a value that must not match can only be compared with `exact`, or be absent"
                    .to_owned(),
            ),
        }
    }

    /// Returns which of `words` it holds for. `Err` says why that cannot be said.
    pub(super) fn among<'w>(&self, words: &[&'w str]) -> Result<Vec<&'w str>, String> {
        let regex = match self {
            Self::Regex(leaf) => Some(shaped::<Pattern>(leaf)?.anchored),
            _ => None,
        };
        let holds = |word: &&&str| match self {
            Self::Exact(leaf) => leaf.as_str() == **word,
            Self::Prefix(leaf) => word.starts_with(leaf.as_str()),
            Self::Regex(_) => regex.as_ref().is_some_and(|regex| regex.is_match(word)),
            Self::Present => true,
        };
        Ok(words.iter().filter(holds).copied().collect())
    }

    /// Makes the condition on the path, `None` for any path, and says what a rewrite would replace. A prefix here is
    /// one of characters, not of segments, so that it becomes an expression.
    pub(super) fn path(&self, ignore_case: bool) -> Result<(Option<PathRule>, Replaced), String> {
        let flags = if ignore_case { "(?i)" } else { "" };
        match self {
            Self::Exact(leaf) => {
                let path = shaped::<PathText>(leaf)?.0;
                let rule = match ignore_case {
                    true => PathRule::Regex(leaf.with(format!("(?i){}", regex::escape(&path)))),
                    false => PathRule::Exact(leaf.clone()),
                };
                Ok((Some(rule), Replaced::Whole))
            }
            Self::Prefix(leaf) => {
                let prefix = prefix(leaf)?;
                let escaped = regex::escape(&prefix);
                let front = Replaced::Front(format!("{flags}^{escaped}"));
                let rule = match prefix.as_str() {
                    "/" => None,
                    _ => Some(PathRule::Regex(leaf.with(format!("{flags}{escaped}.*")))),
                };
                Ok((rule, front))
            }
            Self::Regex(leaf) if matches!(leaf.as_str(), ".*" | "/.*" | "^/.*$" | "^/.*") => {
                Ok((None, Replaced::Whole))
            }
            Self::Regex(leaf) => {
                shaped::<Pattern>(leaf)?;
                Ok((Some(PathRule::Regex(leaf.clone())), Replaced::Whole))
            }
            Self::Present => Err("`uri` has neither `exact`, `prefix` nor `regex`".to_owned()),
        }
    }
}

/// Makes an expression that matches the whole of a value: natively one with `^` or `$` may match a part.
fn whole(leaf: &Leaf) -> Leaf {
    let text = leaf.as_str();
    match text.starts_with('^') || text.ends_with('$') {
        true => leaf.with(format!("(?:{text})")),
        false => leaf.clone(),
    }
}

/// Writes a prefix as requests are compared with it; its last segment may go on in the request.
fn prefix(leaf: &Leaf) -> Result<String, String> {
    let text = match leaf.as_str() {
        "" => "/",
        text => text,
    };
    let Some((front, last)) = text.rsplit_once('/') else {
        return Err(format!("no path begins with `{text}`"));
    };
    let canonical = |text: String| shaped::<PathText>(&leaf.with(text)).map(|path| path.0);
    let front = canonical(format!("{front}/"))?;
    match last {
        "." | ".." => Ok(format!("{front}{last}")),
        last => Ok(format!("{front}{}", &canonical(format!("/{last}"))?[1..])),
    }
}
