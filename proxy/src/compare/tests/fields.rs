//! Documents field by field.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Map, Value};

use super::*;
use crate::compare::{FIELDS_CUT, MOST_EXAMPLE, MOST_FIELDS, ORDERED};

#[test]
fn a_field_is_named_by_its_place() {
    let plain = config();
    assert_fields(
        r#"{"a":{"b/c":[1,[2]]}}"#,
        r#"{"a":{"b/c":[1,[3]]}}"#,
        &plain,
        &["/a/b~1c/*/*"],
    );
    assert_fields(
        r#"{"a":1,"b":2}"#,
        r#"{"b":2,"c":3}"#,
        &plain,
        &["/a", "/c"],
    );
    assert_fields("[1,2]", "[1]", &plain, &["/*"]);
    assert_fields("1", "\"1\"", &plain, &["body"]);
    assert_fields(r#"{"a":null}"#, "{}", &plain, &["/a"]);
    assert_fields(r#"{"a":[{}]}"#, r#"{"a":[[]]}"#, &plain, &["/a/*"]);
    assert_fields(
        "[true,1.0,\"x\",null]",
        "[ true , 1 , \"\\u0078\" , null ]",
        &plain,
        &[],
    );
}

#[test]
fn an_example_shows_both_values() {
    let found = compared(r#"{"a":[1,2],"b":"x"}"#, r#"{"a":[1,3,4]}"#, &config());
    let example = |name: &str| {
        let difference = &found.fields[name];
        (difference.primary.as_deref(), difference.mirror.as_deref())
    };
    assert_eq!(example("/a/*"), (Some("2"), Some("3")));
    assert_eq!(example("/b"), (Some("\"x\""), None));
    let long = compared(&format!("\"{}\"", "é".repeat(500)), "1", &config());
    assert_eq!(
        long.fields["body"]
            .primary
            .as_ref()
            .unwrap()
            .chars()
            .count(),
        MOST_EXAMPLE
    );
}

#[test]
fn what_is_ignored_is_not_compared() {
    let (left, right) = (
        r#"{"id":1,"x":[{"t":1,"v":1},{"t":2}]}"#,
        r#"{"x":[{"t":3,"v":2},{}]}"#,
    );
    assert_fields(left, right, &ignoring(&["/id", "/x/*/t"]), &["/x/*/v"]);
    assert_fields(left, right, &ignoring(&["/id", "/x/0"]), &["/x/*/t"]);
    assert_fields(left, right, &ignoring(&["/id/deeper", "/x"]), &["/id"]);
    assert_fields(left, right, &ignoring(&["/*"]), &[]);
    assert_fields(left, right, &ignoring(&[""]), &[]);
}

#[test]
fn lines_and_events_are_elements() {
    let lines = |body: &str| answer(&[("content-type", "application/x-ndjson")], body);
    let found = differences(
        &lines("{\"a\":1}\n{\"a\":2}\n"),
        &lines("{\"a\":1}\n\n{\"a\":3}"),
        &config(),
        None,
    );
    assert_eq!(names(&found), BTreeSet::from(["/*/a"]));
    let events = |body: &str| answer(&[("content-type", "text/event-stream")], body);
    let left = events("data: {\"id\":1,\"a\":1}\n\ndata: [DONE]\n\n");
    let right = events(": ping\n\ndata: {\"id\":2,\"a\": 1.0}\r\n\r\ndata: [DONE]\r\n\r\n");
    assert_eq!(
        names(&differences(&left, &right, &config(), None)),
        BTreeSet::from(["/*/id"])
    );
    assert_eq!(
        differences(&left, &right, &ignoring(&["/*/id"]), None),
        Differences::default()
    );
    let undone = events("data: {\"id\":1,\"a\":1}\n\n");
    assert_eq!(
        names(&differences(&left, &undone, &config(), None)),
        BTreeSet::from(["/*"])
    );
}

#[test]
fn at_most_200_fields_are_named_but_those_of_another_comparison() {
    let many = |from: usize, value: u32| {
        let members = (from..from + 300).map(|index| format!("\"f{index:04}\":{value}"));
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    };
    let raw = compared(&many(100, 1), &many(100, 2), &config());
    assert_eq!(raw.fields.len(), MOST_FIELDS);
    assert!(raw.notes.contains(FIELDS_CUT));
    let noise = differences(&json(many(0, 1)), &json(many(0, 2)), &config(), Some(&raw));
    assert_eq!(noise.fields.len(), 300);
    let one = differences(&json("[1]"), &json("[2]"), &config(), Some(&raw));
    assert_eq!(names(&one), BTreeSet::from(["/*"]));
}

#[test]
fn a_name_is_bounded() {
    let key = "k".repeat(100_000);
    let found = compared(
        &format!("{{\"{key}\":{{\"{key}\":1}}}}"),
        &format!("{{\"{key}\":{{}}}}"),
        &config(),
    );
    assert!(found.fields.keys().all(|name| name.len() <= 600));
    assert_eq!(found.fields.len(), 1);
}

#[test]
fn bags_have_no_order() {
    assert_fields(
        "[1,\"a\",null,true]",
        "[true,null,\"a\",1.0]",
        &bags(0.0),
        &[],
    );
    assert_fields("[1,1,2]", "[1,2,2]", &bags(0.0), &["/*"]);
    assert_fields(
        r#"[{"a":[1,2]},{"b":3}]"#,
        r#"[{"b":3},{"a":[2,1]}]"#,
        &bags(0.0),
        &[],
    );
    assert_fields(
        r#"[{"a":1,"x":[1]},{"a":2}]"#,
        r#"[{"a":2},{"a":1,"x":[2]}]"#,
        &bags(0.0),
        &["/*/x/*"],
    );
    assert_fields("[1,2,3]", "[3,1]", &bags(0.0), &["/*"]);
    assert_fields("[[1]]", "[1]", &bags(0.0), &["/*"]);
    assert_fields("[2,1]", "[1,2]", &config(), &["/*"]);
}

#[test]
fn elements_of_bags_are_paired_off_as_far_as_possible() {
    // The nearest partner, or the first, would leave others alone.
    assert_fields("[1.0,1.1,1.2]", "[1.2,1.3,1.1]", &bags(0.11), &[]);
    let of = |numbers: &str| {
        numbers
            .split(' ')
            .map(|n| format!("{{\"x\":{n}}}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    let (left, right) = (
        format!("[{}]", of("1.1 1.0 1.2")),
        format!("[{}]", of("1.1 1.2 1.3")),
    );
    assert_fields(&left, &right, &bags(0.11), &[]);
}

#[test]
fn what_is_ignored_in_bags_does_not_keep_elements_apart() {
    let config = Compare {
        ignore: ignoring(&["/*/id", "/*/y/0"]).ignore,
        ..bags(0.0)
    };
    assert_fields(
        r#"[{"id":1,"a":1},{"id":2,"a":2}]"#,
        r#"[{"id":3,"a":2},{"a":1}]"#,
        &config,
        &[],
    );
    let all = Compare {
        ignore: ignoring(&["/x/*"]).ignore,
        ..bags(0.0)
    };
    assert_fields(r#"{"x":[1,2]}"#, r#"{"x":[3]}"#, &all, &[]);
}

#[test]
fn long_arrays_are_compared_in_order() {
    let list = |numbers: &mut dyn Iterator<Item = u32>| {
        format!(
            "[{}]",
            numbers.map(|n| n.to_string()).collect::<Vec<_>>().join(",")
        )
    };
    let found = compared(
        &list(&mut (0..1000)),
        &list(&mut (0..1000).rev()),
        &bags(0.0),
    );
    assert_eq!(found, Differences::default());
    let found = compared(
        &list(&mut (0..1001)),
        &list(&mut (0..1001).rev()),
        &bags(0.0),
    );
    assert_eq!(names(&found), BTreeSet::from(["/*"]));
    assert!(found.notes.contains(ORDERED));
}

#[test]
fn bags_of_bags_cost_no_more_than_they_may() {
    // Without a bound: 300 × 300 pairs of 100 elements each.
    let nested = |first: usize| {
        let inner = |outer: usize| format!("[{}[{outer}]]", "[0],".repeat(99));
        format!(
            "[{}]",
            (first..first + 300)
                .map(inner)
                .collect::<Vec<_>>()
                .join(",")
        )
    };
    let found = compared(&nested(1), &nested(1001), &bags(0.0));
    assert!(found.notes.contains(ORDERED));
    assert_eq!(names(&found), BTreeSet::from(["/*/*/*"]));
}

#[test]
fn the_deepest_documents_fit_on_the_stack() {
    let deep = |leaf: u32| format!("{}{leaf}{}", "[{\"a\":".repeat(63), "}]".repeat(63));
    let name = "/*/a".repeat(63);
    assert_fields(&deep(1), &deep(2), &bags(0.0), &[&name]);
    assert_fields(&deep(1), &deep(2), &config(), &[&name]);
    let ignoring = ignoring(&["/*/a/*/a/*"]);
    assert_fields(&deep(1), &deep(2), &ignoring, &[]);
}

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e6..1e6f64).prop_map(Value::from),
        "[a-c/~\"é]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let members = prop::collection::btree_map("[a-d/~*]{0,2}", inner.clone(), 0..6);
        let record = members.prop_map(|members| Value::Object(members.into_iter().collect()));
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(Value::from),
            record
        ]
    })
}

/// The places of all leaves, empty arrays and objects among them.
fn leaves(value: &Value, path: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Array(elements) => elements
            .iter()
            .enumerate()
            .map(|(i, v)| (i.to_string(), v))
            .collect(),
        Value::Object(members) => members.iter().map(|(key, v)| (key.clone(), v)).collect(),
        _ => Vec::new(),
    };
    if children.is_empty() {
        out.push(path.clone());
    }
    for (token, child) in children {
        path.push(token);
        leaves(child, path, out);
        path.pop();
    }
}

fn pointer(tokens: &[String]) -> Pointer {
    Pointer {
        tokens: tokens.to_vec(),
    }
}

/// The document with another value at one of its leaves, and that place.
fn changed(document: &Value, at: Index) -> (Value, Vec<String>) {
    let mut places = Vec::new();
    leaves(document, &mut Vec::new(), &mut places);
    let place = at.get(&places).clone();
    let mut other = document.clone();
    *other.pointer_mut(&pointer(&place).to_string()).unwrap() = Value::from("changed");
    (other, place)
}

/// The name under which the place is reported.
fn reported(document: &Value, place: &[String]) -> String {
    let mut value = document;
    let mut tokens = Vec::new();
    for token in place {
        tokens.push(if value.is_array() {
            "*".to_owned()
        } else {
            token.clone()
        });
        value = value
            .pointer(&pointer(std::slice::from_ref(token)).to_string())
            .unwrap();
    }
    if tokens.is_empty() {
        "body".to_owned()
    } else {
        Pointer { tokens }.to_string()
    }
}

/// The text with members of objects in reverse.
fn reversed(value: &Value) -> String {
    match value {
        Value::Array(elements) => {
            format!(
                "[{}]",
                elements.iter().map(reversed).collect::<Vec<_>>().join(", ")
            )
        }
        Value::Object(members) => {
            let member = |(key, value): (&String, &Value)| {
                format!("{}: {}", Value::from(key.as_str()), reversed(value))
            };
            format!(
                "{{{}}}",
                members
                    .iter()
                    .rev()
                    .map(member)
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        }
        other => other.to_string(),
    }
}

/// The document with every array shuffled.
fn shuffled(value: &Value, seed: &mut u64) -> Value {
    match value {
        Value::Array(elements) => {
            let mut elements: Vec<_> = elements
                .iter()
                .map(|element| shuffled(element, seed))
                .collect();
            for end in (1..elements.len()).rev() {
                *seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                elements.swap(end, (*seed >> 33) as usize % (end + 1));
            }
            Value::Array(elements)
        }
        Value::Object(members) => {
            let members = members
                .iter()
                .map(|(key, value)| (key.clone(), shuffled(value, seed)));
            Value::Object(members.collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn the_order_of_members_and_spaces_mean_nothing(document in document()) {
        let found = compared(&document.to_string(), &reversed(&document), &config());
        prop_assert_eq!(found, Differences::default());
    }

    #[test]
    fn a_changed_leaf_is_found_at_its_place(document in document(), at: Index) {
        let (other, place) = changed(&document, at);
        let found = compared(&document.to_string(), &other.to_string(), &config());
        let want = reported(&document, &place);
        prop_assert_eq!(names(&found), BTreeSet::from([want.as_str()]));
    }

    #[test]
    fn a_pointer_hides_exactly_what_it_covers(
        document in document(), at: Index, ignored: Index, depth in 0usize..4, star in any::<bool>(),
    ) {
        let (other, place) = changed(&document, at);
        let (_, mut tokens) = changed(&document, ignored);
        tokens.truncate(depth);
        if let Some(last) = tokens.last_mut().filter(|_| star) {
            *last = "*".to_owned();
        }
        let config = Compare { ignore: vec![pointer(&tokens)], ..config() };
        let covered = config.ignore[0].covers(&place.iter().map(String::as_str).collect::<Vec<_>>());
        let found = compared(&document.to_string(), &other.to_string(), &config);
        prop_assert_eq!(found.fields.is_empty(), covered);
    }

    #[test]
    fn a_bag_is_equal_to_its_permutations(document in document(), mut seed: u64, at: Index) {
        let other = shuffled(&document, &mut seed);
        let text = document.to_string();
        prop_assert_eq!(compared(&text, &other.to_string(), &bags(0.0)), Differences::default());
        let (other, _) = changed(&other, at);
        prop_assert!(!compared(&text, &other.to_string(), &bags(0.0)).fields.is_empty());
    }

    #[test]
    fn with_tolerance_as_well(
        numbers in prop::collection::vec(0u32..40, 1..12), mut seed: u64, wrapped in any::<bool>(),
    ) {
        // Each moved by at most the tolerance, some onto others' places.
        let write = |numbers: &[f64]| {
            let element = |number: &f64| if wrapped { format!("[{number}]") } else { number.to_string() };
            format!("[{}]", numbers.iter().map(element).collect::<Vec<_>>().join(","))
        };
        let left: Vec<f64> = numbers.iter().copied().map(f64::from).collect();
        let moved = left.iter().enumerate().map(|(index, number)| number + (index % 4) as f64);
        let right = shuffled(&Value::from(moved.collect::<Vec<_>>()), &mut seed);
        let right: Vec<f64> = right.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect();
        let found = compared(&write(&left), &write(&right), &bags(3.0));
        prop_assert_eq!(found, Differences::default());
    }

    #[test]
    fn both_sides_agree_on_being_equal(
        left in document(), right in document(), abs in 0.0..1e6f64, rel in 0.0..1f64, order in any::<bool>(),
    ) {
        let config = Compare { tolerance: Tolerance { abs, rel }, array_order: order, ..config() };
        let (left, right) = (left.to_string(), right.to_string());
        let (one, other) = (compared(&left, &right, &config), compared(&right, &left, &config));
        prop_assert_eq!(one.fields.is_empty(), other.fields.is_empty());
    }
}
