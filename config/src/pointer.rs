//! Places in a JSON document (RFC 6901), and finding their values in a document that is still coming.

use std::fmt;

/// A place in a JSON document, such as `/user/id`. In lists of places to ignore or redact the token `*` stands for
/// every member of an object and every element of an array.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pointer {
    /// Unescaped; empty: the whole document.
    pub tokens: Vec<String>,
}

impl Pointer {
    /// Reads a pointer as it is written: empty, or tokens that each begin with `/`. `None`: it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self { tokens: Vec::new() });
        }
        let tokens = text.strip_prefix('/')?.split('/').map(unescaped);
        let tokens = tokens.collect::<Option<Vec<_>>>()?;
        Some(Self { tokens })
    }

    /// True when the place at `path`, or one that contains it, is meant; `*` matches any token.
    pub fn covers(&self, path: &[&str]) -> bool {
        let tokens = self.tokens.iter();
        path.len() >= self.tokens.len()
            && tokens.zip(path).all(|(want, is)| want == "*" || want == is)
    }
}

/// `~1` is `/`, `~0` is `~`; any other `~` is a mistake.
fn unescaped(token: &str) -> Option<String> {
    let mut out = String::with_capacity(token.len());
    let mut characters = token.chars();
    while let Some(character) = characters.next() {
        out.push(match character {
            '~' => match characters.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            other => other,
        });
    }
    Some(out)
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for token in &self.tokens {
            write!(f, "/{}", token.replace('~', "~0").replace('/', "~1"))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}
