//! Names of headers, cookies and parameters whose values are shown to nobody and never written down.

use std::borrow::Cow;

/// What stands for a value that is not shown.
pub const REDACTED: &str = "[redacted]";

/// A name with one of these in it carries a secret.
const PARTS: [&str; 9] = [
    "auth",
    "cookie",
    "credential",
    "key",
    "passw",
    "secret",
    "session",
    "signature",
    "token",
];

/// Further whole names of query parameters.
const PARAMETERS: [&str; 2] = ["sig", "code"];

/// True when what has this name is a secret, in whatever case the name is.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    PARTS.iter().any(|part| name.contains(part))
}

/// True for headers whose value is a URL, which may have secret parameters.
pub fn is_url(header: &str) -> bool {
    matches!(header, "referer" | "location" | "content-location")
}

/// Returns a URL, or its path and query, with the values of secret parameters replaced, those of its fragment as well.
pub fn target(target: &str) -> Cow<'_, str> {
    let Some(at) = target.find(['?', '#']) else {
        return Cow::Borrowed(target);
    };
    let mut out = target[..at].to_owned();
    let mut rest = &target[at..];
    while let Some(separator) = rest.chars().next() {
        out.push(separator);
        rest = &rest[1..]; // '?', '&' or '#'
        let end = rest.find(['&', '#']).unwrap_or(rest.len());
        let part = &rest[..end];
        match part.split_once('=') {
            Some((name, _)) if is_secret_parameter(name) => {
                out.push_str(name);
                out.push('=');
                out.push_str(REDACTED);
            }
            _ => out.push_str(part),
        }
        rest = &rest[end..];
    }
    Cow::Owned(out)
}

fn is_secret_parameter(name: &str) -> bool {
    let name = percent_decoded(name).to_ascii_lowercase();
    is_secret(&name) || PARAMETERS.contains(&name.as_str())
}

/// Bad escapes stay as they are.
fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digit = |at: usize| tail.get(at).and_then(|&byte| char::from(byte).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = &tail[2..];
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_secrets_in_any_case() {
        for secret in [
            "Authorization",
            "x-auth",
            "SESSION",
            "x-signature",
            "passwd",
            "x-api-key",
        ] {
            assert!(is_secret(secret), "{secret}");
        }
        assert!(!is_secret("accept") && !is_secret("x-team"));
    }

    #[test]
    fn secret_parameters_keep_their_names_only() {
        for plain in ["/plain", "/p?a=1&b", "?", "#", "https://h/?a=1#b"] {
            assert_eq!(target(plain), plain);
        }
        assert_eq!(
            target("/p?a=1&Key=x&api%5Fkey=y&key&t%6fken=z=z?&%zz=%"),
            "/p?a=1&Key=[redacted]&api%5Fkey=[redacted]&key&t%6fken=[redacted]&%zz=%"
        );
        assert_eq!(
            target("https://h/?code=1&x=2#access_token=3&é=4"),
            "https://h/?code=[redacted]&x=2#access_token=[redacted]&é=4"
        );
    }
}
