//! Comparing as a whole: answers in, differences, verdicts and counters out.

mod answers;
mod fields;
mod queue;
mod rule;

use std::collections::BTreeSet;

use forebay_config::pointer::Pointer;
use forebay_config::{Compare, Tolerance};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{Differences, differences};
use crate::capture::{Kept, SeenAnswer};

fn config() -> Compare {
    Compare {
        sample: 1_000_000,
        noise: None,
        headers: Vec::new(),
        ignore: Vec::new(),
        tolerance: Tolerance::default(),
        array_order: true,
        max_body: 1 << 20,
    }
}

fn ignoring(pointers: &[&str]) -> Compare {
    let ignore = pointers
        .iter()
        .map(|pointer| Pointer::parse(pointer).unwrap());
    Compare {
        ignore: ignore.collect(),
        ..config()
    }
}

fn bags(abs: f64) -> Compare {
    Compare {
        array_order: false,
        tolerance: Tolerance { abs, rel: 0.0 },
        ..config()
    }
}

fn answer(headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> SeenAnswer {
    let bytes = body.into();
    let headers = headers.iter().map(|(name, value)| {
        (
            HeaderName::try_from(*name).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        )
    });
    let mut map = HeaderMap::new();
    headers.for_each(|(name, value)| {
        map.append(name, value);
    });
    let body = Kept {
        length: bytes.len() as u64,
        bytes,
        whole: true,
    };
    SeenAnswer {
        status: StatusCode::OK,
        headers: map,
        body,
        trailers: None,
        seconds: 0.1,
    }
}

fn json(body: impl Into<Vec<u8>>) -> SeenAnswer {
    answer(&[("content-type", "application/json")], body)
}

/// What two documents differ in.
fn compared(left: &str, right: &str, config: &Compare) -> Differences {
    differences(&json(left), &json(right), config, None)
}

/// Its names.
fn names(found: &Differences) -> BTreeSet<&str> {
    found.fields.keys().map(String::as_str).collect()
}

/// Asserts that two documents differ in exactly these.
#[track_caller]
fn assert_fields(left: &str, right: &str, config: &Compare, want: &[&str]) {
    let found = compared(left, right, config);
    assert_eq!(
        names(&found),
        want.iter().copied().collect(),
        "{left} {right}"
    );
}
