//! Properties of canonical hosts and paths, and a second, naive spelling of the same rules.
#![allow(clippy::unwrap_used, reason = "a test")]

use forebay_config::canonical::{PathError, canonical_host, canonical_path};
use forebay_config::{EncodedSlash, PathOptions};
use proptest::prelude::*;

/// Pieces that attacks are made of, so that random paths are often interesting.
const PIECES: &[&str] = &[
    "/", "/", "/", ".", "..", "a", "b", "Z", "~", "-", ";", "=", ":", "@", "+", "%", "%2", "%2f",
    "%2F", "%5c", "%5C", "%2e", "%2E", "%61", "%7e", "%00", "%25", "%252f", "%252e", "%c3%bc",
    "%C0%AE", "%0d", "%20", "%3f", "%23", "ü", "\u{7f}", " ", "\\", "#", "?", "{", "|", "[", "\"",
    "^", "`",
];

fn paths() -> impl Strategy<Value = String> {
    let harmless = prop::collection::vec(prop::sample::select(&PIECES[..14]), 0..12);
    let any = prop::collection::vec(prop::sample::select(PIECES), 0..8);
    prop_oneof![any, harmless].prop_map(|pieces| format!("/{}", pieces.concat()))
}

fn options() -> impl Strategy<Value = PathOptions> {
    (any::<bool>(), any::<bool>()).prop_map(|(keep, merge_slashes)| PathOptions {
        encoded_slash: if keep {
            EncodedSlash::Keep
        } else {
            EncodedSlash::Reject
        },
        merge_slashes,
    })
}

/// The same rules, a pass for each.
fn naive(raw: &str, options: PathOptions) -> Result<String, ()> {
    if raw
        .bytes()
        .any(|byte| matches!(byte, 0..=b' ' | 0x7f | b'\\' | b'#' | b'?'))
    {
        return Err(());
    }
    let mut spelled = String::new();
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let value = match byte {
            b'%' => {
                let digits = [bytes.next().ok_or(())?, bytes.next().ok_or(())?];
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(());
                }
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            byte => byte,
        };
        match (byte, value) {
            (b'%', 0) => return Err(()),
            (b'%', b'/' | b'\\') if options.encoded_slash == EncodedSlash::Reject => return Err(()),
            (b'%', value) if unreserved(value) => spelled.push(char::from(value)),
            (b'%', value) => spelled += &format!("%{value:02X}"),
            (_, value) if unreserved(value) || b"!$&'()*+,;=:@/".contains(&value) => {
                spelled.push(char::from(value))
            }
            (_, value) => spelled += &format!("%{value:02X}"),
        }
    }
    let mut stack: Vec<&str> = Vec::new();
    let segments: Vec<&str> = spelled[1..].split('/').collect();
    for (at, &segment) in segments.iter().enumerate() {
        if segment == ".." {
            stack.pop().ok_or(())?;
        } else if segment != "." {
            stack.push(segment);
        }
        if at + 1 == segments.len() && matches!(segment, "." | "..") {
            stack.push("");
        }
    }
    let mut path = format!("/{}", stack.join("/"));
    while options.merge_slashes && path.contains("//") {
        path = path.replace("//", "/");
    }
    Ok(path)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn a_path_is_what_the_naive_spelling_says(raw in paths(), options in options()) {
        let found = canonical_path(&raw, options).map(|path| path.into_owned());
        prop_assert_eq!(found.map_err(|_| ()), naive(&raw, options));
    }

    #[test]
    fn a_canonical_path_stays_as_it_is(raw in paths(), options in options()) {
        if let Ok(once) = canonical_path(&raw, options) {
            let twice = canonical_path(&once, options);
            prop_assert_eq!(twice.as_ref(), Ok(&once));
        }
    }

    #[test]
    fn a_canonical_path_is_one_rfc_3986_path(raw in paths(), options in options()) {
        if let Ok(path) = canonical_path(&raw, options) {
            prop_assert!(path.starts_with('/') && path.is_ascii());
            prop_assert!(path.split('/').all(|segment| segment != "." && segment != ".."));
            prop_assert!(!options.merge_slashes || !path.contains("//"));
            let stray = path.find(['\\', '?', '#', ' ', '"', '<', '>', '[', ']', '^', '`', '{', '|', '}']);
            prop_assert_eq!(stray, None);
            let reject = options.encoded_slash == EncodedSlash::Reject;
            prop_assert!(!reject || !(path.contains("%2F") || path.contains("%5C")));
        }
    }

    #[test]
    fn no_string_panics(raw in any::<String>(), options in options()) {
        let _: Result<_, PathError> = canonical_path(&raw, options);
        let _ = canonical_path(&format!("/{raw}"), options);
        let _ = canonical_host(&raw);
    }

    #[test]
    fn a_canonical_host_stays_as_it_is(raw in r"(\[[0-9a-fA-F:.]{2,12}\]|[a-zA-Z0-9._~-]{0,12})(:[0-9]{0,6})?") {
        if let Ok(once) = canonical_host(&raw) {
            let twice = canonical_host(&once);
            prop_assert_eq!(twice.as_ref(), Ok(&once));
            prop_assert!(!once.is_empty() && !once.ends_with('.') && !once.bytes().any(|byte| byte.is_ascii_uppercase()));
        }
    }
}
