//! Two answers held against each other: status, headers, bodies.

use forebay_config::Compare;
use http::{HeaderMap, HeaderName};

use super::cut;
use super::document::{Decoded, Form, decode, encoding};
use super::found::{Bodies, Difference, Differences, MOST_EXAMPLE};
use super::walk::walk;
use crate::capture::{Kept, SeenAnswer};

/// Returns what `other` differs in from `primary`. Pure; bounded by `max_body` in memory and, for bags, in effort.
///
/// * `also`: names that are reported beyond the 200th, those of another comparison with the same primary
///
/// JSON, lines of JSON and server-sent events are compared by fields (lines and events as the elements of one array),
/// all else by bytes; gzip and deflate are undone before.
pub fn differences(
    primary: &SeenAnswer,
    other: &SeenAnswer,
    config: &Compare,
    also: Option<&Differences>,
) -> Differences {
    let mut found = Differences::default();
    let (left, right) = (status(primary), status(other));
    if left != right {
        found.add("status".to_owned(), also, || Difference {
            primary: Some(left),
            mirror: Some(right),
        });
    }
    for header in &config.headers {
        let (left, right) = (
            joined(&primary.headers, header),
            joined(&other.headers, header),
        );
        if left != right {
            let values = || Difference {
                primary: left.map(text),
                mirror: right.map(text),
            };
            found.add(format!("header:{header}"), also, values);
        }
    }
    let limit = config.max_body;
    let is_large = |body: &Kept| body.length > limit || (body.bytes.len() as u64) < body.length;
    if is_large(&primary.body) || is_large(&other.body) {
        found.bodies = Bodies::TooLarge;
    } else if !primary.body.whole || !other.body.whole {
        found.bodies = Bodies::Incomplete;
    } else {
        bodies(primary, other, config, also, &mut found);
    }
    found
}

/// The status, and that of gRPC, which is in the trailers, or in the headers of an answer without a body.
fn status(answer: &SeenAnswer) -> String {
    let trailers = answer
        .trailers
        .as_ref()
        .and_then(|trailers| trailers.get("grpc-status"));
    let status = answer.status.as_str();
    match trailers.or_else(|| answer.headers.get("grpc-status")) {
        Some(grpc) => cropped(format!(
            "{status} grpc-status {}",
            String::from_utf8_lossy(grpc.as_bytes())
        )),
        None => status.to_owned(),
    }
}

/// All lines of a header. `None`: it has none.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let lines: Vec<_> = headers
        .get_all(name)
        .iter()
        .map(|line| line.as_bytes())
        .collect();
    (!lines.is_empty()).then(|| lines.join(&b", "[..]))
}

fn text(bytes: Vec<u8>) -> String {
    cropped(String::from_utf8_lossy(&bytes).into_owned())
}

fn cropped(mut text: String) -> String {
    cut(&mut text, MOST_EXAMPLE);
    text
}

fn bodies(
    primary: &SeenAnswer,
    other: &SeenAnswer,
    config: &Compare,
    also: Option<&Differences>,
    found: &mut Differences,
) {
    let (left_encoding, right_encoding) = (encoding(&primary.headers), encoding(&other.headers));
    let (left, right) = (&primary.body.bytes, &other.body.bytes);
    if left_encoding == right_encoding && left == right {
        return;
    }
    let plain = |bytes, encoding: &str| decode(bytes, encoding, config.max_body);
    let (left, right) = match (plain(left, &left_encoding), plain(right, &right_encoding)) {
        (Decoded::TooLarge, _) | (_, Decoded::TooLarge) => {
            found.bodies = Bodies::TooLarge;
            return;
        }
        (Decoded::Plain(left), Decoded::Plain(right)) => (left, right),
        _ if left_encoding == right_encoding => return by_bytes(left, right, also, found),
        _ => {
            let named = |encoding: String| (!encoding.is_empty()).then(|| cropped(encoding));
            let values = || Difference {
                primary: named(left_encoding),
                mirror: named(right_encoding),
            };
            return found.add("content-encoding".to_owned(), also, values);
        }
    };
    if left == right {
        return;
    }
    if by_fields((primary, &left), (other, &right), config, also, found).is_none() {
        by_bytes(&left, &right, also, found);
    }
}

/// `None`: one of them is not a document.
fn by_fields(
    primary: (&SeenAnswer, &[u8]),
    other: (&SeenAnswer, &[u8]),
    config: &Compare,
    also: Option<&Differences>,
    found: &mut Differences,
) -> Option<()> {
    let (left_form, right_form) = (Form::of(&primary.0.headers), Form::of(&other.0.headers));
    if left_form == Form::Bytes || right_form == Form::Bytes {
        return None;
    }
    let left = left_form.pieces(std::str::from_utf8(primary.1).ok()?);
    let right = right_form.pieces(std::str::from_utf8(other.1).ok()?);
    let (left, right) = (left_form.tree(&left)?, right_form.tree(&right)?);
    walk(&left, &right, config, also, found);
    Some(())
}

fn by_bytes(left: &[u8], right: &[u8], also: Option<&Differences>, found: &mut Differences) {
    let at = left
        .iter()
        .zip(right)
        .position(|(left, right)| left != right);
    let Some(at) = at.or((left.len() != right.len()).then_some(left.len().min(right.len()))) else {
        return;
    };
    let shown = |bytes: &[u8]| {
        Some(format!(
            "{} bytes, first difference at offset {at}",
            bytes.len()
        ))
    };
    found.add("body".to_owned(), also, || Difference {
        primary: shown(left),
        mirror: shown(right),
    });
}
