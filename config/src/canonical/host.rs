//! The one spelling of a host.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// Longest host accepted, in bytes, without its port: DNS allows 253, and a bound keeps wildcard lookups short.
pub const HOST_MAX: usize = 255;

/// Why a host was refused. The caller answers 400 `bad_host`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing, or nothing but a port or a dot.
    #[error("the host is empty")]
    Empty,
    /// More than [`HOST_MAX`] bytes.
    #[error("the host is longer than {HOST_MAX} bytes")]
    TooLong,
    /// `user@host`.
    #[error("the host contains userinfo")]
    Userinfo,
    /// Two dots in a row, or one in front.
    #[error("the host has an empty label")]
    EmptyLabel,
    /// Any byte but letters, digits, `-`, `_`, `.` and `~`.
    #[error("the host contains a byte that no name contains")]
    Byte,
    /// Not 0 … 65535, or not digits.
    #[error("the port is not a number up to 65535")]
    Port,
    /// In brackets, but not an IPv6 address; zones are refused too.
    #[error("the host is not an IPv6 address in brackets")]
    Ipv6,
}

/// Returns the canonical host of a `Host` field or an `:authority`: lower case, without port and trailing dot.
/// An IPv6 literal keeps its brackets and becomes its shortest form (RFC 5952).
///
/// * `raw`: the field's value, e.g. `Example.com:8080`; the port may be empty and is 0 … 65535
///
/// # Errors
///
/// Refuses everything that is not one host: see [`HostError`]. Escapes and non-ASCII names are refused too; an
/// international name arrives in its `xn--` form.
pub fn canonical_host(raw: &str) -> Result<Cow<'_, str>, HostError> {
    if raw.starts_with('[') {
        return canonical_ipv6(raw);
    }
    let bytes = raw.as_bytes();
    let (mut upper, mut label_start) = (false, 0);
    let (mut at, mut end) = (0, bytes.len());
    while let Some(plain) = bytes[at..]
        .iter()
        .position(|&byte| !PLAIN[usize::from(byte)])
    {
        at += plain;
        match bytes[at] {
            b'A'..=b'Z' => upper = true,
            b'.' if at == label_start => return Err(HostError::EmptyLabel),
            b'.' => label_start = at + 1,
            b':' if raw[at..].contains('@') => return Err(HostError::Userinfo),
            b':' => {
                check_port(&raw[at + 1..])?;
                end = at;
                break;
            }
            b'@' => return Err(HostError::Userinfo),
            _ => return Err(HostError::Byte),
        }
        at += 1;
    }
    let host = raw[..end].strip_suffix('.').unwrap_or(&raw[..end]);
    match host.len() {
        0 => Err(HostError::Empty),
        1..=HOST_MAX if upper => Ok(Cow::Owned(host.to_ascii_lowercase())),
        1..=HOST_MAX => Ok(Cow::Borrowed(host)),
        _ => Err(HostError::TooLong),
    }
}

/// Bytes of a canonical label.
static PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~');
        byte += 1;
    }
    table
};

fn canonical_ipv6(raw: &str) -> Result<Cow<'_, str>, HostError> {
    let close = raw.find(']').ok_or(HostError::Ipv6)?;
    let address: Ipv6Addr = raw[1..close].parse().map_err(|_| HostError::Ipv6)?;
    match raw[close + 1..].strip_prefix(':') {
        Some(port) => check_port(port)?,
        None if raw.len() == close + 1 => {}
        None => return Err(HostError::Ipv6),
    }
    let host = format!("[{address}]"); // the one place that formats: hosts that are IPv6 literals are rare
    if raw[..=close] == host {
        Ok(Cow::Borrowed(&raw[..=close]))
    } else {
        Ok(Cow::Owned(host))
    }
}

fn check_port(port: &str) -> Result<(), HostError> {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    match digits && (port.is_empty() || port.parse::<u16>().is_ok()) {
        true => Ok(()),
        false => Err(HostError::Port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(raw: &str) -> Result<String, HostError> {
        canonical_host(raw).map(Cow::into_owned)
    }

    #[test]
    fn a_host_has_one_spelling() {
        for (raw, want) in [
            ("example.com", "example.com"),
            ("Example.COM:8080", "example.com"),
            ("example.com.", "example.com"),
            ("example.com.:80", "example.com"),
            ("example.com:", "example.com"),
            ("a_b-c~d:0", "a_b-c~d"),
            ("10.0.0.1:65535", "10.0.0.1"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("[::1]", "[::1]"),
            ("[::1]:8080", "[::1]"),
            ("[0:0:0:0:0:0:0:1]:", "[::1]"),
            ("[FE80::A]", "[fe80::a]"),
        ] {
            assert_eq!(host(raw).as_deref(), Ok(want), "{raw}");
        }
    }

    #[test]
    fn what_is_not_one_host_is_refused() {
        for (raw, want) in [
            ("", HostError::Empty),
            (":80", HostError::Empty),
            (".", HostError::EmptyLabel),
            ("a..", HostError::EmptyLabel),
            (".a", HostError::EmptyLabel),
            ("a..b", HostError::EmptyLabel),
            ("user@a", HostError::Userinfo),
            ("user:pass@a", HostError::Userinfo),
            ("a,b", HostError::Byte),
            ("a b", HostError::Byte),
            ("a/b", HostError::Byte),
            ("a\\b", HostError::Byte),
            ("a%41", HostError::Byte),
            ("*.a", HostError::Byte),
            ("bücher.example", HostError::Byte),
            ("a\0", HostError::Byte),
            ("a:65536", HostError::Port),
            ("a:+1", HostError::Port),
            ("a:80:80", HostError::Port),
            ("::1", HostError::Port),
            ("a:8o", HostError::Port),
            ("[::1", HostError::Ipv6),
            ("[::1]80", HostError::Ipv6),
            ("[::1%25eth0]", HostError::Ipv6),
            ("[v1.a]", HostError::Ipv6),
            ("[a.b]", HostError::Ipv6),
            ("[::1]:x", HostError::Port),
        ] {
            assert_eq!(host(raw), Err(want), "{raw}");
        }
        assert_eq!(host(&"a".repeat(255)), Ok("a".repeat(255)));
        assert_eq!(host(&"a".repeat(256)), Err(HostError::TooLong));
    }

    #[test]
    fn a_canonical_host_is_borrowed() {
        for raw in ["example.com", "example.com:80", "example.com.", "[::1]:80"] {
            assert!(matches!(canonical_host(raw), Ok(Cow::Borrowed(_))), "{raw}");
        }
    }
}
