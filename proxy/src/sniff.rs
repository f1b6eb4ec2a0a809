//! Which protocol a plain connection speaks, from its first bytes.

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Everything else; what is no HTTP at all gets its 400 from the HTTP/1 parser.
    Http1,
    /// A TLS handshake on a port without TLS.
    Tls,
    /// More bytes are needed.
    Undecided,
}

/// What every HTTP/2 client sends first (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A TLS record that carries a handshake (22), of version 3.x.
const CLIENT_HELLO: &[u8; 2] = &[0x16, 0x03];

/// Decides as soon as the bytes allow it; more bytes never change a decision.
///
/// * `first`: everything received so far, or at least its first [`PREFACE`] length; an empty slice is undecided
pub fn sniff(first: &[u8]) -> Protocol {
    let starts = |known: &[u8]| {
        let length = first.len().min(known.len());
        first[..length] == known[..length]
    };
    let decided = |at: usize, protocol| {
        if first.len() < at {
            Protocol::Undecided
        } else {
            protocol
        }
    };
    if starts(PREFACE) {
        return decided(PREFACE.len(), Protocol::Http2);
    }
    if starts(CLIENT_HELLO) {
        return decided(CLIENT_HELLO.len(), Protocol::Tls);
    }
    Protocol::Http1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_preface_is_http2_only_when_complete() {
        for length in 0..PREFACE.len() {
            assert_eq!(sniff(&PREFACE[..length]), Protocol::Undecided, "{length}");
        }
        assert_eq!(sniff(PREFACE), Protocol::Http2);
        let mut with_frames = PREFACE.to_vec();
        with_frames.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        assert_eq!(sniff(&with_frames), Protocol::Http2);
    }

    #[test]
    fn the_first_byte_that_differs_decides_for_http1() {
        assert_eq!(sniff(b"G"), Protocol::Http1);
        assert_eq!(sniff(b"POST"), Protocol::Http1);
        assert_eq!(sniff(b"P"), Protocol::Undecided);
        assert_eq!(sniff(b"PR"), Protocol::Undecided);
        assert_eq!(sniff(b"PROPFIND"), Protocol::Http1);
        assert_eq!(sniff(b"PRI * HTTP/2.0\r\n\r\nXX"), Protocol::Http1);
    }

    #[test]
    fn a_client_hello_is_recognised() {
        assert_eq!(sniff(&[0x16]), Protocol::Undecided);
        assert_eq!(sniff(&[0x16, 0x03]), Protocol::Tls);
        assert_eq!(sniff(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]), Protocol::Tls);
        assert_eq!(sniff(&[0x16, b'G']), Protocol::Http1);
    }

    proptest! {
        #[test]
        fn a_decision_is_never_taken_back(
            start in prop::sample::select(vec![&b""[..], &PREFACE[..], &PREFACE[..9], &[0x16, 3], &[0x16]]),
            rest in prop::collection::vec(any::<u8>(), 0..32),
        ) {
            let bytes = [start, &rest].concat();
            let mut decided = Protocol::Undecided;
            for length in 0..=bytes.len() {
                let verdict = sniff(&bytes[..length]);
                prop_assert!(decided == Protocol::Undecided || verdict == decided);
                decided = verdict;
            }
        }
    }
}
