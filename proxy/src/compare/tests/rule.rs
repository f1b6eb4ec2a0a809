//! Counters, and Diffy's rule over them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Differences, config, json as answer};
use crate::capture::Seen;
use crate::compare::judge::judge;
use crate::compare::{Bodies, Difference, Job, MOST_NAMES, OTHER, Tally, Verdict};

fn differing(names: &[&str]) -> Differences {
    let difference = Difference {
        primary: Some("1".to_owned()),
        mirror: None,
    };
    let fields = names
        .iter()
        .map(|name| ((*name).to_owned(), difference.clone()));
    Differences {
        fields: fields.collect(),
        bodies: Bodies::Compared,
        ..Differences::default()
    }
}

/// A tally of `total` comparisons; in `raw` of them the copy differs in `/a`, in `noise` the noise cluster does.
fn tally(total: u64, raw: u64, noise: u64) -> Tally {
    let tally = Tally::default();
    for index in 0..total {
        let of = |count: u64| differing(if index < count { &["/a"] } else { &[] });
        tally.record(&of(raw), Some(&of(noise)));
    }
    tally
}

#[test]
fn secrets_in_headers_are_counted_and_not_shown() {
    let tally = Tally::default();
    let mut found = differing(&["header:set-cookie", "header:location", "header:x-team"]);
    for (name, difference) in &mut found.fields {
        if name == "header:location" {
            difference.mirror = Some("/a?token=SENSITIVE".to_owned());
        }
    }
    tally.record(&found, None);
    let shown = tally.describe();
    let example = |name: &str| {
        let fields = shown["fields"].as_array().unwrap();
        let field = fields.iter().find(|field| field["field"] == name);
        field.unwrap()["example"].clone()
    };
    assert_eq!(
        example("header:set-cookie"),
        json!({"primary": "[redacted]", "mirror": null})
    );
    assert_eq!(
        example("header:location"),
        json!({"primary": "1", "mirror": "/a?token=[redacted]"})
    );
    assert_eq!(
        example("header:x-team"),
        json!({"primary": "1", "mirror": null})
    );
}

#[test]
fn a_field_is_a_regression_by_diffys_rule() {
    let table = [
        // (total, raw, noise, regression)
        (100, 1, 0, true),
        (100, 0, 0, false),
        (100, 0, 5, false),
        (100, 5, 5, false),
        (100, 5, 6, false),
        (100, 6, 4, false),  // relative: exactly 20 %
        (100, 61, 40, true), // 20.8 %
        (100, 60, 40, false),
        (10_000, 3, 0, false), // absolute: exactly 0.03 %
        (10_000, 4, 0, true),
        (4000, 1, 0, false),
        (3000, 1, 0, true),
        (1, 1, 0, true),
    ];
    for (total, raw, noise, regression) in table {
        let described = tally(total, raw, noise).describe();
        let is = described["fields"]
            .get(0)
            .is_some_and(|field| field["regression"] == true);
        assert_eq!(is, regression, "{total} {raw} {noise}");
    }
}

#[test]
fn a_tally_is_described() {
    let tally = Tally::default();
    assert_eq!(tally.verdicts().map(|(_, count)| count), [0; 8]);
    tally.record(
        &differing(&["/a", "/b", "/c"]),
        Some(&differing(&["/a", "/d"])),
    );
    tally.record(&differing(&["/a", "/b"]), Some(&differing(&["/a"])));
    tally.time(0.5, 1.0);
    tally.count(Verdict::Different);
    tally.count(Verdict::Busy);
    let field = |name: &str,
                 raw: u32,
                 noise: u32,
                 relative: f64,
                 absolute: f64,
                 regression: bool| {
        let example = if raw > 0 {
            json!({"primary": "1", "mirror": null})
        } else {
            Value::Null
        };
        json!({"field": name, "raw": raw, "noise": noise, "relative": relative, "absolute": absolute,
               "regression": regression, "example": example})
    };
    let expected = json!({
        "verdicts": {"equal": 0, "different": 1, "noise": 0, "too_large": 0, "incomplete": 0, "primary_failed": 0,
                     "mirror_failed": 0, "busy": 1},
        "total": 2,
        "fields": [
            field("/b", 2, 0, 100.0, 100.0, true),
            field("/c", 1, 0, 100.0, 50.0, true),
            field("/a", 2, 2, 0.0, 0.0, false),
            field("/d", 0, 1, 100.0, 50.0, false),
        ],
        "latency": {"primary": {"mean": 0.5, "p50": 0.5, "p99": 0.5}, "mirror": {"mean": 1.0, "p50": 1.0, "p99": 1.0},
                    "ratio": 2.0},
        "notes": {},
    });
    assert_eq!(tally.describe(), expected);
    let empty = Tally::default().describe();
    assert_eq!(
        (&empty["total"], &empty["latency"]["ratio"]),
        (&json!(0), &Value::Null)
    );
}

#[test]
fn names_are_bounded() {
    let tally = Tally::default();
    for index in 0..MOST_NAMES + 50 {
        tally.record(&differing(&[&format!("/{index}")]), None);
    }
    tally.record(&differing(&["/0", "/new", "/newer"]), None);
    let described = tally.describe();
    let fields = described["fields"].as_array().unwrap();
    assert_eq!(fields.len(), MOST_NAMES + 1);
    let raw =
        |name: &str| fields.iter().find(|field| field["field"] == name).unwrap()["raw"].clone();
    assert_eq!((raw("/0"), raw(OTHER)), (json!(2), json!(51)));
}

/// The verdict over one job, and its tally.
fn judged(primary: &str, mirror: &str, noise: Option<&str>) -> (&'static str, Value) {
    // "-": no answer; a "…" at the end: it was cut.
    let seen = |body: &str| {
        if body == "-" {
            return Seen::Nothing("timeout");
        }
        let mut seen = answer(body.trim_end_matches('…'));
        seen.body.whole = !body.ends_with('…');
        Seen::Answer(Box::new(seen))
    };
    let tally = Arc::new(Tally::default());
    let config = Arc::new(forebay_config::Compare {
        max_body: 20,
        ..config()
    });
    let (primary, mirror, noise) = (seen(primary), seen(mirror), noise.map(seen));
    judge(&Job {
        tally: Arc::clone(&tally),
        config,
        primary,
        mirror,
        noise,
    });
    let verdicts = tally.verdicts();
    let mut given = verdicts.iter().filter(|(_, count)| *count == 1);
    let verdict = given.next().unwrap().0;
    assert!(given.next().is_none());
    (verdict, tally.describe())
}

#[test]
fn verdicts() {
    let long = "[1,2,3,4,5,6,7,8,9,10]";
    let table = [
        ("[1]", "[1.0]", None, "equal"),
        ("[1]", "[2]", None, "different"),
        ("[1]", "[2]", Some("[1]"), "different"),
        ("[1]", "[2]", Some("[3]"), "noise"),
        ("[1]", "[1]", Some("[3]"), "equal"),
        (
            "{\"a\":1,\"b\":1}",
            "{\"a\":2,\"b\":2}",
            Some("{\"a\":3,\"b\":1}"),
            "different",
        ),
        ("[1]", "[2]", Some("-"), "different"),
        ("[1]", long, None, "too_large"),
        ("[1]…", "[1]", None, "incomplete"),
        ("-", "[1]", None, "primary_failed"),
        ("[1]", "-", None, "mirror_failed"),
        ("-", "-", None, "primary_failed"),
    ];
    for (primary, mirror, noise, verdict) in table {
        assert_eq!(
            judged(primary, mirror, noise).0,
            verdict,
            "{primary} {mirror} {noise:?}"
        );
    }
}

#[test]
fn what_was_missing_is_noted_and_cut_answers_have_no_latency() {
    let (_, described) = judged("[1]", "[2]", Some("-"));
    assert_eq!(described["notes"], json!({"noise_failed": 1}));
    let (_, described) = judged("[1]", "[2]", Some("[2]…"));
    assert_eq!(described["notes"], json!({"noise_not_compared": 1}));
    let (_, described) = judged("[1]", "[2]…", None);
    assert_eq!(described["latency"]["ratio"], Value::Null);
    let (_, described) = judged("[1]", "[2]", None);
    assert_eq!(described["latency"]["ratio"], json!(1.0));
}
