//! The PROXY protocol, versions 1 and 2: who really connected, told by the load balancer in front.
//!
//! Source: HAProxy's `proxy-protocol.txt`. Checksums and other TLVs are checked for shape and skipped.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest header of version 1 in bytes, CRLF included, as the specification bounds it.
pub const MAX_V1: usize = 107;
/// Longest header of version 2 in bytes that is taken. The format allows 65 551; TLVs of clouds and of TLS
/// terminators stay well below this.
pub const MAX_V2: usize = 4096;

const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED: usize = 16;
const V1_PREFIX: &[u8; 6] = b"PROXY ";
/// `PROXY UNKNOWN\r\n`, the shortest of all headers.
const SHORTEST: usize = 15;

/// What the bytes so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A possible start of a header.
    Incomplete {
        /// Bytes that are certainly still to come, ≥ 1: reading this many never reads past the header.
        missing: usize,
    },
    /// A whole header.
    Done {
        /// Its length in bytes.
        consumed: usize,
        /// Who connected; `None` when the balancer does not say (`UNKNOWN`, `LOCAL`, Unix sockets).
        source: Option<SocketAddr>,
        /// Whom it connected to; `None` together with `source`.
        destination: Option<SocketAddr>,
    },
}

/// Why there is no usable header. The connection is closed without an answer.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The bytes are no header, or one that breaks the rules.
    #[error("bad PROXY header: {0}")]
    Malformed(&'static str),
    /// The header is longer than [`MAX_V1`] or [`MAX_V2`].
    #[error("PROXY header too long")]
    TooLong,
    /// The peer closed before the end of the header.
    #[error("connection closed within the PROXY header")]
    Closed,
    /// The socket failed.
    #[error("reading the PROXY header: {0}")]
    Io(#[from] io::Error),
}

/// Parses the header at the start of `buf`, whatever follows it. IPv4-mapped IPv6 addresses become IPv4.
pub fn parse(buf: &[u8]) -> Result<Parsed, ProxyError> {
    let shared = |known: &[u8]| {
        let length = buf.len().min(known.len());
        buf[..length] == known[..length]
    };
    if buf.is_empty() {
        Ok(Parsed::Incomplete { missing: SHORTEST })
    } else if shared(V2_SIGNATURE) {
        parse_v2(buf)
    } else if shared(V1_PREFIX) {
        parse_v1(buf)
    } else {
        Err(ProxyError::Malformed("neither version 1 nor version 2"))
    }
}

/// Reads exactly one header from `io` and returns its source. Not a byte past it is read, so TLS or HTTP can be read
/// from `io` afterwards. Has no deadline of its own.
pub async fn read_header<R: AsyncRead + Unpin>(
    io: &mut R,
) -> Result<Option<SocketAddr>, ProxyError> {
    let mut buf = Vec::with_capacity(MAX_V1);
    loop {
        match parse(&buf)? {
            Parsed::Done { source, .. } => return Ok(source),
            Parsed::Incomplete { missing } => {
                if (&mut *io).take(missing as u64).read_buf(&mut buf).await? == 0 {
                    return Err(ProxyError::Closed);
                }
            }
        }
    }
}

fn parse_v1(buf: &[u8]) -> Result<Parsed, ProxyError> {
    let window = &buf[..buf.len().min(MAX_V1)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        let (body, last) = window.split_at(window.len() - 1);
        if body.iter().any(|byte| byte.is_ascii_control()) || (last[0] < b' ' && last[0] != b'\r') {
            return Err(ProxyError::Malformed("line not ended by CRLF"));
        }
        if window.len() == MAX_V1 {
            return Err(ProxyError::TooLong);
        }
        let line_end = if last == b"\r" { 1 } else { 2 };
        return Ok(Parsed::Incomplete {
            missing: line_end.max(SHORTEST.saturating_sub(buf.len())),
        });
    };
    let line = std::str::from_utf8(&buf[V1_PREFIX.len()..end])
        .map_err(|_| ProxyError::Malformed("not ASCII"))?;
    let consumed = end + 2;
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(unnamed(consumed));
    }
    let mut words = line.split(' ');
    let mut word = || words.next().ok_or(ProxyError::Malformed("too few fields"));
    let family = word()?;
    let (source, destination) = match family {
        "TCP4" => (ip::<Ipv4Addr>(word()?)?, ip::<Ipv4Addr>(word()?)?),
        "TCP6" => (ip::<Ipv6Addr>(word()?)?, ip::<Ipv6Addr>(word()?)?),
        _ => return Err(ProxyError::Malformed("unknown protocol")),
    };
    let (source_port, destination_port) = (port(word()?)?, port(word()?)?);
    if words.next().is_some() {
        return Err(ProxyError::Malformed("too many fields"));
    }
    Ok(Parsed::Done {
        consumed,
        source: Some(SocketAddr::new(source, source_port)),
        destination: Some(SocketAddr::new(destination, destination_port)),
    })
}

fn ip<A: FromStr + Into<IpAddr>>(word: &str) -> Result<IpAddr, ProxyError> {
    let address: A = word
        .parse()
        .map_err(|_| ProxyError::Malformed("bad address"))?;
    Ok(address.into().to_canonical())
}

fn port(word: &str) -> Result<u16, ProxyError> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit());
    let padded = word.len() > 1 && word.starts_with('0');
    match word.parse() {
        Ok(port) if plain && !padded => Ok(port),
        _ => Err(ProxyError::Malformed("bad port")),
    }
}

fn parse_v2(buf: &[u8]) -> Result<Parsed, ProxyError> {
    let command = match buf.get(12) {
        None => None,
        Some(0x20) => Some(Command::Local),
        Some(0x21) => Some(Command::Proxy),
        Some(_) => return Err(ProxyError::Malformed("unknown version or command")),
    };
    let family = match buf.get(13).map(|byte| (byte >> 4, byte & 0x0f)) {
        None => None,
        Some((4.., _) | (_, 3..)) => {
            return Err(ProxyError::Malformed("unknown family or transport"));
        }
        Some((0, _) | (_, 0)) => Some(Family::Unspecified),
        Some((_, 2)) => return Err(ProxyError::Malformed("datagrams over a stream")),
        Some((1, _)) => Some(Family::V4),
        Some((2, _)) => Some(Family::V6),
        Some((3, _)) => Some(Family::Unix),
    };
    let Some(&[high, low]) = buf.get(14..V2_FIXED) else {
        return Ok(Parsed::Incomplete {
            missing: V2_FIXED - buf.len(),
        });
    };
    let (Some(command), Some(family)) = (command, family) else {
        return Err(ProxyError::Malformed("no command")); // both precede the length, which is there
    };
    let consumed = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    if consumed > MAX_V2 {
        return Err(ProxyError::TooLong);
    }
    if command == Command::Proxy && consumed < V2_FIXED + family.length() {
        return Err(ProxyError::Malformed("too short for its addresses"));
    }
    let Some(payload) = buf.get(V2_FIXED..consumed) else {
        return Ok(Parsed::Incomplete {
            missing: consumed - buf.len(),
        });
    };
    if command == Command::Local || family == Family::Unspecified {
        return Ok(unnamed(consumed)); // what follows is to be skipped unread
    }
    let (addresses, tlvs) = payload.split_at(family.length());
    check_tlvs(tlvs)?;
    Ok(match family {
        Family::V4 => between::<4>(consumed, addresses),
        Family::V6 => between::<16>(consumed, addresses),
        Family::Unix | Family::Unspecified => unnamed(consumed),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Command {
    Local,
    Proxy,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Unspecified,
    V4,
    V6,
    Unix,
}

impl Family {
    /// Bytes of both addresses and their ports.
    fn length(self) -> usize {
        match self {
            Self::Unspecified => 0,
            Self::V4 => 12,
            Self::V6 => 36,
            Self::Unix => 216,
        }
    }
}

/// Takes two addresses of `N` bytes and two ports from `bytes`, which holds exactly these.
fn between<const N: usize>(consumed: usize, bytes: &[u8]) -> Parsed
where
    IpAddr: From<[u8; N]>,
{
    let address = |at: usize, port_at: usize| {
        let ip: [u8; N] = bytes.get(at..at + N)?.try_into().ok()?;
        let port: [u8; 2] = bytes.get(port_at..port_at + 2)?.try_into().ok()?;
        let ip = IpAddr::from(ip).to_canonical();
        Some(SocketAddr::new(ip, u16::from_be_bytes(port)))
    };
    Parsed::Done {
        consumed,
        source: address(0, 2 * N),
        destination: address(N, 2 * N + 2),
    }
}

fn unnamed(consumed: usize) -> Parsed {
    Parsed::Done {
        consumed,
        source: None,
        destination: None,
    }
}

fn check_tlvs(mut rest: &[u8]) -> Result<(), ProxyError> {
    while !rest.is_empty() {
        let tail = match rest {
            [_, high, low, tail @ ..] => tail.get(usize::from(u16::from_be_bytes([*high, *low]))..),
            _ => None,
        };
        rest = tail.ok_or(ProxyError::Malformed("cut TLV"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn done(header: &[u8]) -> (usize, Option<SocketAddr>, Option<SocketAddr>) {
        match parse(header) {
            Ok(Parsed::Done {
                consumed,
                source,
                destination,
            }) => (consumed, source, destination),
            other => panic!("{other:?} for {header:?}"),
        }
    }

    fn at(address: &str) -> Option<SocketAddr> {
        Some(address.parse().unwrap())
    }

    fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[command, family][..], &length, payload].concat()
    }

    fn v2_payload(source: SocketAddr, destination: SocketAddr) -> (u8, Vec<u8>) {
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let mut bytes = [octets(source.ip()), octets(destination.ip())].concat();
        bytes.extend(source.port().to_be_bytes());
        bytes.extend(destination.port().to_be_bytes());
        (if source.is_ipv4() { 0x11 } else { 0x21 }, bytes)
    }

    fn v1_line(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
        format!(
            "PROXY TCP{} {} {} {} {}\r\n",
            if source.is_ipv4() { 4 } else { 6 },
            source.ip(),
            destination.ip(),
            source.port(),
            destination.port()
        )
        .into_bytes()
    }

    #[test]
    fn version_1_names_both_ends() {
        let (consumed, source, destination) =
            done(b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\nGET /");
        assert_eq!(consumed, 45);
        assert_eq!(source, at("192.0.2.1:56324"));
        assert_eq!(destination, at("198.51.100.2:443"));
        let (_, source, _) = done(b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n");
        assert_eq!(source, at("[2001:db8::1]:1"));
        let (_, source, _) = done(b"PROXY TCP6 ::ffff:10.1.2.3 ::1 7 8\r\n");
        assert_eq!(source, at("10.1.2.3:7"));
    }

    #[test]
    fn unknown_and_local_name_nobody() {
        for header in [
            &b"PROXY UNKNOWN\r\n"[..],
            b"PROXY UNKNOWN ffff:: :: 65535 65535\r\n",
            &v2(0x20, 0x00, b""),
            &v2(0x20, 0x11, b"anything"),
            &v2(0x21, 0x00, b"skipped"),
            &v2(0x21, 0x31, &[0; 216]),
        ] {
            assert_eq!(done(header), (header.len(), None, None));
        }
    }

    #[test]
    fn version_2_names_both_ends_and_skips_tlvs() {
        let (family, mut payload) = v2_payload(
            "203.0.113.9:40000".parse().unwrap(),
            "10.0.0.1:8080".parse().unwrap(),
        );
        payload.extend([0x04, 0, 3, 0, 0, 0, 0xea, 0, 0]);
        let mut header = v2(0x21, family, &payload);
        let length = header.len();
        header.extend(b"\x16\x03\x01");
        let expected = (length, at("203.0.113.9:40000"), at("10.0.0.1:8080"));
        assert_eq!(done(&header), expected);

        let mapped: SocketAddr = "[::ffff:10.1.2.3]:7".parse().unwrap();
        let (family, payload) = v2_payload(mapped, "[::1]:2".parse().unwrap());
        let header = v2(0x21, family, &payload);
        assert_eq!(done(&header), (52, at("10.1.2.3:7"), at("[::1]:2")));
    }

    #[test]
    fn every_broken_header_is_refused() {
        let long_line = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 100]].concat();
        let cases: Vec<Vec<u8>> = vec![
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"proxy TCP4".to_vec(),
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n".to_vec(),
            b"PROXY TCP4 1.2.3.4\r1".to_vec(),
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(),
            b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(),
            b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(),
            b"PROXY UNKNOWNS\r\n".to_vec(),
            b"PROXY \xff\xff\xff\xff\xff\xff\xff\r\n".to_vec(),
            long_line,
            v2(0x11, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x41, &[0; 12]),
            v2(0x21, 0x13, &[0; 12]),
            v2(0x21, 0x12, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x31, &[0; 215]),
            v2(0x21, 0x11, &[0; 14]),
            v2(0x21, 0x11, &[[0; 12].as_slice(), &[4, 0, 2, 0]].concat()),
            v2(0x20, 0x00, &[0; MAX_V2]),
        ];
        for case in cases {
            let verdict = parse(&case);
            let text = String::from_utf8_lossy(&case);
            assert!(verdict.is_err(), "{text:?} gives {verdict:?}");
        }
    }

    #[tokio::test]
    async fn reading_stops_at_the_end_of_the_header() {
        let (family, payload) = v2_payload(
            "[2001:db8::7]:9".parse().unwrap(),
            "[::1]:2".parse().unwrap(),
        );
        for header in [
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(),
            v2(0x20, 0, b""),
            v2(0x21, family, &payload),
        ] {
            let (_, expected, _) = done(&header);
            let sent = [&header[..], b"\r\nrest"].concat();
            let mut io = sent.as_slice();
            assert_eq!(read_header(&mut io).await.unwrap(), expected);
            assert_eq!(io, b"\r\nrest");
        }
    }

    #[tokio::test]
    async fn a_header_cut_by_the_end_of_the_stream_is_refused() {
        for cut in [&b""[..], b"PROXY TCP4 1.2.3.4", b"\r\n\r\n\0\r\nQUIT\n\x21"] {
            let verdict = read_header(&mut &*cut).await;
            assert!(matches!(verdict, Err(ProxyError::Closed)), "{verdict:?}");
        }
    }

    fn addresses() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        let v4 = any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (a.into(), b.into()));
        let v6 = any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (a.into(), b.into()));
        let ips = prop_oneof![v4, v6];
        (ips, any::<(u16, u16)>()).prop_map(|((from, to), (from_port, to_port))| {
            (
                SocketAddr::new(from, from_port),
                SocketAddr::new(to, to_port),
            )
        })
    }

    proptest! {
        #[test]
        fn a_valid_header_round_trips_and_its_prefixes_are_incomplete((source, destination) in addresses()) {
            let (family, payload) = v2_payload(source, destination);
            for header in [v1_line(source, destination), v2(0x21, family, &payload)] {
                prop_assert_eq!(done(&header), (header.len(), Some(source), Some(destination)));
                for length in 0..header.len() {
                    let Ok(Parsed::Incomplete { missing }) = parse(&header[..length]) else {
                        panic!("{length} bytes of {header:?}");
                    };
                    prop_assert!((1..=header.len() - length).contains(&missing));
                }
            }
        }

        #[test]
        fn no_bytes_panic(
            start in prop::sample::select(vec![
                &b""[..], b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 ::", V2_SIGNATURE,
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0", b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x28",
            ]),
            rest in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [start, &rest].concat();
            if let Ok(Parsed::Done { consumed, .. }) = parse(&bytes) {
                prop_assert!(consumed <= bytes.len());
            }
        }
    }
}
