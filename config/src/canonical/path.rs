//! The one spelling of a path.

use std::borrow::Cow;

use crate::model::{EncodedSlash, PathOptions};

/// Why a path was refused. The caller answers 400 `bad_path`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Empty, or no leading slash.
    #[error("the path does not start with a slash")]
    NotAbsolute,
    /// `%2F` or `%5C` where [`EncodedSlash::Reject`] holds.
    #[error("the path contains an escaped slash or backslash")]
    EscapedSlash,
    /// A literal backslash; some servers read it as a slash.
    #[error("the path contains a backslash")]
    Backslash,
    /// `%00`.
    #[error("the path contains an escaped zero byte")]
    Zero,
    /// `%` without two hexadecimal digits.
    #[error("the path contains an incomplete escape")]
    Escape,
    /// A raw control byte or space.
    #[error("the path contains a control byte or a space")]
    Control,
    /// `#`: a request target has no fragment.
    #[error("the path contains a fragment")]
    Fragment,
    /// `?`: the caller takes the query off first.
    #[error("the path contains a query")]
    Query,
    /// More `..` than segments before them.
    #[error("the path leads above the root")]
    AboveRoot,
}

/// Returns the canonical form of a path without its query.
///
/// * Dot segments are resolved (RFC 3986 §5.2.4, escaped dots included), then `//` is merged if asked for.
/// * Escapes of unreserved bytes are decoded, all others get upper-case digits; `%25` is never decoded, so nothing
///   is decoded twice: `%252f` stays.
/// * Bytes that no RFC 3986 path contains (`"<>[]^{|}`, the backtick, everything from 0x80 on) are escaped.
/// * `%2F` and `%5C` are refused, or stay an opaque part of their segment. A literal backslash is always refused.
/// * Semicolons and what follows them belong to their segment, which is a dot segment only if it is just dots.
///
/// The target of `OPTIONS *` is the caller's.
///
/// # Errors
///
/// Says what made the path ambiguous: see [`PathError`].
pub fn canonical_path(raw: &str, options: PathOptions) -> Result<Cow<'_, str>, PathError> {
    let bytes = raw.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(PathError::NotAbsolute);
    }
    let mut at = 0;
    while let Some(plain) = bytes[at..]
        .iter()
        .position(|&byte| !PLAIN[usize::from(byte)])
    {
        at += plain;
        match CLASS[usize::from(bytes[at])] {
            Class::Plain => at += 1,
            Class::Slash if !is_special_segment(&bytes[at + 1..], options) => at += 1,
            Class::Percent => match escape(&bytes[at..], options)? {
                Escape::Keep(high, low) if bytes[at + 1] == high && bytes[at + 2] == low => at += 3,
                _ => return spell(raw, segment_start(bytes, at), options),
            },
            Class::Slash => return spell(raw, at, options),
            Class::Escape => return spell(raw, segment_start(bytes, at), options),
            Class::Refuse(error) => return Err(error),
        }
    }
    Ok(Cow::Borrowed(raw))
}

/// What a raw byte means in a path.
#[derive(Clone, Copy)]
enum Class {
    Plain,
    Slash,
    Percent,
    Escape,
    Refuse(PathError),
}

static CLASS: [Class; 256] = {
    let mut table = [Class::Escape; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'/' => Class::Slash,
            b'%' => Class::Percent,
            b'\\' => Class::Refuse(PathError::Backslash),
            b'#' => Class::Refuse(PathError::Fragment),
            b'?' => Class::Refuse(PathError::Query),
            0..=b' ' | 0x7f => Class::Refuse(PathError::Control),
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':'
            | b'@' => Class::Plain,
            byte if is_unreserved(byte) => Class::Plain,
            _ => Class::Escape,
        };
        byte += 1;
    }
    table
};

/// [`Class::Plain`] alone, for the loop that most bytes of most paths go through.
static PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(CLASS[byte], Class::Plain);
        byte += 1;
    }
    table
};

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// True when the segment that `rest` begins with is `.`, `..`, or empty where slashes are merged. A segment that only
/// begins with such dots may be reported too: then the slow way finds it canonical.
fn is_special_segment(rest: &[u8], options: PathOptions) -> bool {
    match rest {
        [b'/', ..] => options.merge_slashes,
        [b'.'] | [b'.', b'/' | b'.' | b'%', ..] => true,
        _ => false,
    }
}

fn segment_start(bytes: &[u8], at: usize) -> usize {
    bytes[..at]
        .iter()
        .rposition(|&byte| byte == b'/')
        .expect("a path starts with a slash")
}

/// One `%XY`.
enum Escape {
    /// Stays, with these digits.
    Keep(u8, u8),
    /// An unreserved byte.
    Decode(u8),
}

fn escape(rest: &[u8], options: PathOptions) -> Result<Escape, PathError> {
    let [_, high, low, ..] = *rest else {
        return Err(PathError::Escape);
    };
    let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(PathError::Escape);
    let byte = (digit(high)? << 4 | digit(low)?) as u8;
    match byte {
        0 => Err(PathError::Zero),
        b'/' | b'\\' if options.encoded_slash == EncodedSlash::Reject => {
            Err(PathError::EscapedSlash)
        }
        byte if is_unreserved(byte) => Ok(Escape::Decode(byte)),
        _ => Ok(Escape::Keep(
            high.to_ascii_uppercase(),
            low.to_ascii_uppercase(),
        )),
    }
}

/// The slow way: `raw[..clean]` is canonical and `raw[clean]` a slash.
fn spell(raw: &str, clean: usize, options: PathOptions) -> Result<Cow<'_, str>, PathError> {
    let mut out = String::with_capacity(raw.len() + 16);
    out.push_str(&raw[..clean]);
    let mut segments = raw[clean + 1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let start = out.len();
        out.push('/');
        spell_segment(segment, options, &mut out)?;
        let last = segments.peek().is_none();
        match &out[start + 1..] {
            "." => out.truncate(start + usize::from(last)),
            ".." => {
                out.truncate(start);
                out.truncate(out.rfind('/').ok_or(PathError::AboveRoot)?);
                if last {
                    out.push('/');
                }
            }
            _ => {}
        }
    }
    if options.merge_slashes {
        merge_slashes(&mut out);
    }
    Ok(Cow::Owned(out))
}

fn spell_segment(segment: &str, options: PathOptions, out: &mut String) -> Result<(), PathError> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let bytes = segment.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match CLASS[usize::from(byte)] {
            Class::Plain | Class::Slash => out.push(char::from(byte)),
            Class::Percent => {
                match escape(&bytes[at - 1..], options)? {
                    Escape::Keep(high, low) => out.extend(['%', char::from(high), char::from(low)]),
                    Escape::Decode(byte) => out.push(char::from(byte)),
                }
                at += 2;
            }
            Class::Escape => {
                let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
                out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
            }
            Class::Refuse(error) => return Err(error),
        }
    }
    Ok(())
}

fn merge_slashes(path: &mut String) {
    let mut before = ' ';
    path.retain(|c| {
        let keep = c != '/' || before != '/';
        before = c;
        keep
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: PathOptions = PathOptions {
        encoded_slash: EncodedSlash::Keep,
        merge_slashes: true,
    };
    const UNMERGED: PathOptions = PathOptions {
        encoded_slash: EncodedSlash::Reject,
        merge_slashes: false,
    };

    fn path(raw: &str) -> Result<String, PathError> {
        canonical_path(raw, PathOptions::default()).map(Cow::into_owned)
    }

    #[test]
    fn a_path_has_one_spelling() {
        for (raw, want) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/a/..", "/"),
            ("/.", "/"),
            ("/./", "/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/%2e", "/a/"),
            ("/a/.%2e/.b", "/.b"),
            ("//", "/"),
            ("/a//b///c//", "/a/b/c/"),
            ("/a//../b", "/a/b"),
            ("/%61%7e%2D", "/a~-"),
            ("/%c3%bc", "/%C3%BC"),
            ("/ü", "/%C3%BC"),
            ("/%c0%ae%c0%ae/x", "/%C0%AE%C0%AE/x"),
            ("/%252f%252e", "/%252f%252e"),
            ("/a;x=1/..;/b", "/a;x=1/..;/b"),
            ("/...", "/..."),
            ("/.a/..b/c..", "/.a/..b/c.."),
            ("/a%3fb%23c%20", "/a%3Fb%23c%20"),
            ("/a{b}|c", "/a%7Bb%7D%7Cc"),
            ("/v1/models/m:predict", "/v1/models/m:predict"),
        ] {
            assert_eq!(path(raw).as_deref(), Ok(want), "{raw}");
        }
    }

    #[test]
    fn an_ambiguous_path_is_refused() {
        for (raw, want) in [
            ("", PathError::NotAbsolute),
            ("*", PathError::NotAbsolute),
            ("a/b", PathError::NotAbsolute),
            ("/..", PathError::AboveRoot),
            ("/../a", PathError::AboveRoot),
            ("/a/../../b", PathError::AboveRoot),
            ("/%2e%2e/a", PathError::AboveRoot),
            ("/a%2fb", PathError::EscapedSlash),
            ("/a%5Cb", PathError::EscapedSlash),
            ("/%2e%2e%2fa", PathError::EscapedSlash),
            ("/a\\b", PathError::Backslash),
            ("/ü\\", PathError::Backslash),
            ("/a%00", PathError::Zero),
            ("/a%", PathError::Escape),
            ("/a%4", PathError::Escape),
            ("/a%4/b", PathError::Escape),
            ("/a%zz", PathError::Escape),
            ("/a%+1", PathError::Escape),
            ("/a b", PathError::Control),
            ("/a\u{1}", PathError::Control),
            ("/a\u{7f}", PathError::Control),
            ("/a#b", PathError::Fragment),
            ("/a?b", PathError::Query),
        ] {
            assert_eq!(path(raw), Err(want), "{raw}");
        }
    }

    #[test]
    fn a_kept_slash_is_an_opaque_byte_of_its_segment() {
        for (raw, want) in [
            ("/a%2fb", "/a%2Fb"),
            ("/a%5cb", "/a%5Cb"),
            ("/a%2f..", "/a%2F.."),
            ("/a%2F/../b", "/b"),
            ("/..%2Fa", "/..%2Fa"),
        ] {
            assert_eq!(canonical_path(raw, KEEP).as_deref(), Ok(want), "{raw}");
        }
        assert_eq!(canonical_path("/a\\b", KEEP), Err(PathError::Backslash));
    }

    #[test]
    fn slashes_stay_when_not_merged() {
        for (raw, want) in [
            ("//a//b", "//a//b"),
            ("/a//../b", "/a/b"),
            ("//..", "/"),
            ("/a//./", "/a//"),
        ] {
            assert_eq!(canonical_path(raw, UNMERGED).as_deref(), Ok(want), "{raw}");
        }
    }

    #[test]
    fn a_canonical_path_is_borrowed() {
        for raw in [
            "/",
            "/v2/models/m/infer",
            "/a/.b/c.d/",
            "/a%20b/%C3%BC",
            "/a;b=c,d",
            "/a/.%20",
        ] {
            let canonical = canonical_path(raw, PathOptions::default()).unwrap();
            assert_eq!(canonical, raw);
        }
        for raw in [
            "/",
            "/v2/models/m/infer",
            "/a/.b/c.d/",
            "/a%20b/%C3%BC",
            "/a;b=c,d",
        ] {
            assert!(
                matches!(
                    canonical_path(raw, PathOptions::default()),
                    Ok(Cow::Borrowed(_))
                ),
                "{raw}"
            );
        }
        assert!(matches!(
            canonical_path("/a%2Fb", KEEP),
            Ok(Cow::Borrowed(_))
        ));
    }
}
