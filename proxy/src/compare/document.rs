//! What a body says: one JSON document, several in lines or events, or bytes.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use super::tree::Tree;

/// Decoded bodies may be this many times as large as bodies that are kept.
const MOST_GROWTH: u64 = 4;

/// What the content type says of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One document, or no content type: perhaps one.
    Json,
    /// A document per line.
    Lines,
    /// Server-sent events.
    Events,
    /// Anything else.
    Bytes,
}

impl Form {
    /// Reads the content type.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(CONTENT_TYPE) else {
            return Self::Json;
        };
        let Ok(text) = value.to_str() else {
            return Self::Bytes;
        };
        let essence = text
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        match essence.as_str() {
            "application/json" => Self::Json,
            "text/event-stream" => Self::Events,
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/jsonlines"
            | "application/x-jsonl"
            | "application/x-jsonlines"
            | "application/json-lines" => Self::Lines,
            other if other.ends_with("+json") => Self::Json,
            _ => Self::Bytes,
        }
    }

    /// Cuts a text into what are documents each.
    pub(super) fn pieces(self, text: &str) -> Vec<Cow<'_, str>> {
        match self {
            Self::Json | Self::Bytes => vec![Cow::Borrowed(text)],
            Self::Lines => text
                .lines()
                .filter(|line| !line.trim().is_empty())
                .map(Cow::Borrowed)
                .collect(),
            Self::Events => events(text),
        }
    }

    /// Reads pieces: one document as it is, several as a list of them. `None`: they are not what the form promises.
    pub(super) fn tree<'a>(self, pieces: &'a [Cow<'a, str>]) -> Option<Tree<'a>> {
        let piece = |piece: &'a Cow<'a, str>| Tree::parse(piece);
        match self {
            Self::Bytes => None,
            Self::Json => piece(pieces.first()?),
            Self::Lines => pieces
                .iter()
                .map(piece)
                .collect::<Option<_>>()
                .map(Tree::List),
            Self::Events => {
                let event = |text| piece(text).unwrap_or(Tree::Text(Cow::Borrowed(text)));
                Some(Tree::List(pieces.iter().map(event).collect()))
            }
        }
    }
}

/// The data of each event, its lines joined; comments, names, identifiers and delays are left out.
fn events(text: &str) -> Vec<Cow<'_, str>> {
    let mut events = Vec::new();
    let mut data: Option<Cow<'_, str>> = None;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for line in text
        .split('\n')
        .flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
    {
        if line.is_empty() {
            events.extend(data.take());
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        if field == "data" {
            let value = value.strip_prefix(' ').unwrap_or(value);
            data = Some(match data {
                None => Cow::Borrowed(value),
                Some(earlier) => Cow::Owned(earlier.into_owned() + "\n" + value),
            });
        }
    }
    events.extend(data);
    events
}

/// A body without its content encoding.
#[derive(Debug, PartialEq)]
pub(super) enum Decoded<'a> {
    /// As it was before it was encoded.
    Plain(Cow<'a, [u8]>),
    /// It grows beyond what is looked at.
    TooLarge,
    /// In an encoding that is not read here, or damaged.
    Opaque,
}

/// All values of `content-encoding`, joined; empty: none.
pub(super) fn encoding(headers: &HeaderMap) -> String {
    let values = headers.get_all(CONTENT_ENCODING).iter();
    let values: Vec<_> = values
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    values.join(", ").trim().to_ascii_lowercase()
}

/// Undoes `encoding`; the result has at most 4 × `most_body` bytes.
pub(super) fn decode<'a>(bytes: &'a [u8], encoding: &str, most_body: u64) -> Decoded<'a> {
    let most = most_body.saturating_mul(MOST_GROWTH);
    match encoding {
        "" | "identity" => Decoded::Plain(Cow::Borrowed(bytes)),
        // Answers to HEAD, and with 204 or 304, name an encoding but have no body.
        "gzip" | "x-gzip" | "deflate" if bytes.is_empty() => Decoded::Plain(Cow::Borrowed(bytes)),
        "gzip" | "x-gzip" => inflate(MultiGzDecoder::new(bytes), most),
        // The name means zlib; some servers send what it wraps instead.
        "deflate" => match inflate(ZlibDecoder::new(bytes), most) {
            Decoded::Opaque => inflate(DeflateDecoder::new(bytes), most),
            decoded => decoded,
        },
        _ => Decoded::Opaque,
    }
}

fn inflate<'a>(decoder: impl Read, most: u64) -> Decoded<'a> {
    let mut out = Vec::new();
    match decoder.take(most.saturating_add(1)).read_to_end(&mut out) {
        _ if out.len() as u64 > most => Decoded::TooLarge,
        Ok(_) => Decoded::Plain(Cow::Owned(out)),
        Err(_) => Decoded::Opaque,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use http::HeaderValue;

    use super::*;

    fn form(content_type: &'static str) -> Form {
        Form::of(&HeaderMap::from_iter([(
            CONTENT_TYPE,
            HeaderValue::from_static(content_type),
        )]))
    }

    #[test]
    fn the_content_type_says_what_a_body_is() {
        assert_eq!(form("Application/JSON; charset=utf-8"), Form::Json);
        assert_eq!(form("application/problem+json"), Form::Json);
        assert_eq!(form("application/x-ndjson"), Form::Lines);
        assert_eq!(form("text/event-stream;charset=utf-8"), Form::Events);
        assert_eq!(form("text/plain"), Form::Bytes);
        assert_eq!(Form::of(&HeaderMap::new()), Form::Json);
    }

    #[test]
    fn events_are_their_data() {
        let text = "\u{feff}: hello\r\nevent: a\r\ndata: {\"x\":\r\ndata:1}\r\n\r\n\r\ndata: [DONE]\n\nid: 7\n\ndata\rdata\r\rdata: 2";
        assert_eq!(events(text), ["{\"x\":\n1}", "[DONE]", "\n", "2"]);
        let pieces = Form::Events.pieces(text);
        let tree = Form::Events.tree(&pieces).unwrap();
        assert_eq!(tree.excerpt(200), r#"[{"x":1},"[DONE]","\n",2]"#);
    }

    #[test]
    fn lines_are_a_list() {
        let pieces = Form::Lines.pieces("{\"a\":1}\r\n\n[2]\n");
        assert_eq!(
            Form::Lines.tree(&pieces).unwrap().excerpt(200),
            r#"[{"a":1},[2]]"#
        );
        assert_eq!(Form::Lines.tree(&Form::Lines.pieces("1\nx")), None);
    }

    #[test]
    fn gzip_and_both_kinds_of_deflate_are_decoded() {
        let plain = b"hello, hello, hello";
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(plain).unwrap();
        zlib.write_all(plain).unwrap();
        raw.write_all(plain).unwrap();
        let (gzip, zlib, raw) = (
            gzip.finish().unwrap(),
            zlib.finish().unwrap(),
            raw.finish().unwrap(),
        );
        let decoded = Decoded::Plain(Cow::Borrowed(&plain[..]));
        for (bytes, encoding) in [(&gzip, "gzip"), (&zlib, "deflate"), (&raw, "deflate")] {
            assert_eq!(decode(bytes, encoding, 100), decoded);
            assert_eq!(decode(bytes, encoding, 4), Decoded::TooLarge);
        }
        assert_eq!(
            decode(&gzip[..gzip.len() - 9], "gzip", 100),
            Decoded::Opaque
        );
        assert_eq!(decode(plain, "br", 100), Decoded::Opaque);
        assert_eq!(decode(b"", "gzip", 100), Decoded::Plain(Cow::Borrowed(&[])));
    }

    #[test]
    fn a_bomb_stops_at_its_bound() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&vec![0; 1 << 22]).unwrap();
        assert_eq!(
            decode(&gzip.finish().unwrap(), "gzip", 1 << 16),
            Decoded::TooLarge
        );
    }
}
