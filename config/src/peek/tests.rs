use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn places(written: &[&str]) -> Vec<Pointer> {
    let read = |text: &&str| Pointer::parse(text).unwrap();
    written.iter().map(read).collect()
}

/// Feeds pieces of the given sizes, over and over; returns what was found and the bytes looked at.
fn in_pieces(document: &[u8], wanted: &[Pointer], sizes: &[usize]) -> (Found, usize) {
    let mut peek = Peek::new(wanted);
    let mut rest = document;
    for &size in sizes.iter().cycle() {
        let (piece, after) = rest.split_at(size.clamp(1, rest.len().max(1)).min(rest.len()));
        rest = after;
        if peek.feed(piece) == Progress::Done || rest.is_empty() {
            break;
        }
    }
    let looked_at = peek.looked_at;
    (peek.finish(), looked_at)
}

fn found(document: impl AsRef<[u8]>, place: &str) -> Option<String> {
    let wanted = places(&[place]);
    let (whole, _) = in_pieces(document.as_ref(), &wanted, &[usize::MAX]);
    let (bytewise, _) = in_pieces(document.as_ref(), &wanted, &[1]);
    assert_eq!(whole, bytewise);
    whole.get(&wanted[0]).map(str::to_owned)
}

fn broken(document: &str) -> bool {
    let (found, _) = in_pieces(document.as_bytes(), &places(&["/a"]), &[1]);
    found.is_broken()
}

#[test]
fn values_are_found_where_they_are_wanted() {
    let chat = r#" {"model": "m", "metadata": {"user": "ann", "n": -1.50e+3, "ok": true},
        "messages": [{"role": "system"}, {"role": "user", "content": "hi"}]} "#;
    for (place, value) in [
        ("/model", Some("m")),
        ("/metadata/user", Some("ann")),
        ("/metadata/n", Some("-1.50e+3")),
        ("/metadata/ok", Some("true")),
        ("/messages/1/role", Some("user")),
        ("/messages/01/role", None),
        ("/messages/2/role", None),
        ("/messages", None),
        ("/user", None),
        ("", None),
    ] {
        assert_eq!(found(chat, place).as_deref(), value, "{place}");
    }
    assert_eq!(
        found(r#"{"a/b": {"~": "x"}}"#, "/a~1b/~0").as_deref(),
        Some("x")
    );
    assert_eq!(found(r#"{"0": 7}"#, "/0").as_deref(), Some("7"));
}

#[test]
fn the_document_itself_can_be_the_value() {
    assert_eq!(found("\u{feff} \"x\"", "").as_deref(), Some("x"));
    assert_eq!(found("12", "").as_deref(), Some("12"));
    assert_eq!(found("12 ", "").as_deref(), Some("12"));
    assert_eq!(found("12.", ""), None);
    assert_eq!(found("fals", ""), None);
}

#[test]
fn null_objects_and_arrays_are_no_values() {
    for other in ["null", "{}", "[]", "NaN", "-Infinity"] {
        let document = format!(r#"{{"a": {other}, "b": 1}}"#);
        assert_eq!(found(&document, "/a"), None, "{other}");
        assert_eq!(found(&document, "/b").as_deref(), Some("1"), "{other}");
    }
}

#[test]
fn the_last_member_of_a_name_counts() {
    assert_eq!(
        found(r#"{"a": "x", "b": 1, "a": "y"}"#, "/a").as_deref(),
        Some("y")
    );
    assert_eq!(
        found(r#"{"a": "x", "\u0061": "y"}"#, "/a").as_deref(),
        Some("y")
    );
    assert_eq!(found(r#"{"a": "x", "a": null}"#, "/a"), None);
    assert_eq!(found(r#"{"a": {"b": "x"}, "a": {}}"#, "/a/b"), None);
    assert_eq!(found(r#"{"a": {"b": "x"}, "a": 1}"#, "/a/b"), None);
}

#[test]
fn escapes_are_read_and_invalid_text_is_not_found() {
    let escaped = r#"{"a": "\u00e9\ud83d\ude00\n\"\\\/\b\f\r\t"}"#;
    assert_eq!(
        found(escaped, "/a").as_deref(),
        Some("é😀\n\"\\/\u{8}\u{c}\r\t")
    );
    for half in [
        r"\ud83d",
        r"\ud83dx",
        r"\ude00",
        r"\ud83d\n",
        r"\ud83d\u0041",
        r"\ud83d\ud83d\ude00",
    ] {
        let document = format!(r#"{{"{half}": 1, "a": "{half}", "b": "x"}}"#);
        assert_eq!(found(&document, "/a"), None, "{half}");
        assert_eq!(found(&document, "/b").as_deref(), Some("x"), "{half}");
    }
    assert_eq!(found(b"{\"a\": \"\xff\"}", "/a"), None);
    assert_eq!(
        found(b"{\"\xff\": 1, \"a\": \"x\"}", "/a").as_deref(),
        Some("x")
    );
}

#[test]
fn text_that_is_too_long_is_not_found() {
    let longest = "x".repeat(LONGEST);
    assert_eq!(
        found(format!(r#"{{"a": "{longest}"}}"#), "/a"),
        Some(longest.clone())
    );
    assert_eq!(found(format!(r#"{{"a": "{longest}x"}}"#), "/a"), None);
    assert_eq!(
        found(format!(r#"{{"{longest}x": 1, "a": 2}}"#), "/a").as_deref(),
        Some("2")
    );
}

#[test]
fn nesting_ends_at_the_deepest_level() {
    let nested = |levels| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    let document = |levels| format!(r#"{{"b": {}, "a": "x"}}"#, nested(levels));
    assert_eq!(found(document(DEEPEST - 1), "/a").as_deref(), Some("x"));
    assert!(broken(&document(DEEPEST)));
}

#[test]
fn what_is_not_json_holds_nothing() {
    for text in [
        r#"{"a": 1]"#,
        r#"{"a": 1,}"#,
        r#"{"a": 1, 2}"#,
        r#"{"a": 01}"#,
        r#"{"a": .5}"#,
        r#"{"a": 1.}"#,
        r#"{"a": +1}"#,
        r#"{"a": -}"#,
        r#"{"a": 1e}"#,
        r#"{"a": "\x"}"#,
        r#"{"a": "\u12g4"}"#,
        r#"{"a" 1}"#,
        r#"{"a": truE}"#,
        r#"{'a': 1}"#,
        r#"[,1]"#,
        "{\"a\": \"\n\"}",
        "\u{feff}\u{feff}{}",
        "model=m",
        "{\0\"\0a\0\"\0",
    ] {
        // A document of its own kind must hold what is wanted, or nothing after its bracket is looked at.
        let (found, _) = in_pieces(text.as_bytes(), &places(&["/a", "/9"]), &[1]);
        assert!(found.is_broken(), "{text}");
        assert_eq!(found.get(&places(&["/a"])[0]), None, "{text}");
    }
    assert!(!broken(r#"{"a": 1}}"#), "bytes after it are not looked at");
    assert!(!broken(r#"{"a": "#), "it may go on");
    assert!(!broken(""));
}

#[test]
fn it_is_done_when_nothing_can_change() {
    let done = |document: &str, wanted: &[&str]| {
        let mut peek = Peek::new(&places(wanted));
        let pieces = (0..document.len()).map(|at| &document.as_bytes()[at..=at]);
        1 + pieces
            .take_while(|piece| peek.feed(piece) == Progress::More)
            .count()
    };
    assert_eq!(done(r#"{"a":1,"b":2} x"#, &["/a"]), 13);
    assert_eq!(done(r#"[{"a":1},2,3]"#, &["/0/a"]), 8);
    assert_eq!(done(r#"[[1,2],2,3]"#, &["/0/0", "/1"]), 8 + 1);
    assert_eq!(done(r#"[{"a":1},2,3]"#, &["/a"]), 1);
    assert_eq!(done(r#"{"a":1}"#, &[""]), 1);
    assert_eq!(done(r#"{"a":1,"#, &["/a"]), 8, "cut off: never");
    assert_eq!(Peek::new(&[]).feed(b"{"), Progress::Done);
}

#[test]
fn a_cut_document_holds_what_came() {
    assert_eq!(found(r#"{"a": "x", "b": "lon"#, "/a").as_deref(), Some("x"));
    assert_eq!(found(r#"{"a": "x", "b": "lon"#, "/b"), None);
    assert_eq!(found(r#"{"a": 12"#, "/a"), None, "digits may follow");
}

/// JSON text with members that come twice, spaces, escapes, and numbers that are printed as they are read.
fn json() -> impl Strategy<Value = String> {
    let text = "[a-c0é~/😀\n\"\\\\]{0,3}".prop_map(|text: String| {
        let escaped = |c: char| match c {
            'a' => r"\u0061".to_owned(),
            '😀' => r"\uD83d\uDe00".to_owned(),
            c => serde_json::to_string(&c.to_string())
                .map(|quoted| quoted[1..quoted.len() - 1].to_owned())
                .unwrap(),
        };
        format!("\"{}\"", text.chars().map(escaped).collect::<String>())
    });
    let key = prop_oneof!["[a-c0]".prop_map(|key| format!("\"{key}\"")), text.clone()];
    let leaf = prop_oneof![
        text,
        any::<i64>().prop_map(|number| number.to_string()),
        prop::sample::select(vec!["true", "false", "null", "[ ]", "{}"]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 64, 6, move |inner| {
        let member =
            (key.clone(), inner.clone()).prop_map(|(key, value)| format!("{key}\n:{value}"));
        prop_oneof![
            vec(inner, 0..5).prop_map(|elements| format!("[{}]", elements.join(" ,"))),
            vec(member, 0..6).prop_map(|members| format!("{{{} }}", members.join(","))),
        ]
    })
}

fn pointers() -> impl Strategy<Value = Vec<Pointer>> {
    let pointer = vec(
        prop::sample::select(vec!["a", "b", "c", "0", "1", "é", "~0"]),
        0..4,
    );
    let pointer = pointer.prop_map(|tokens| {
        let written: String = tokens.iter().map(|token| format!("/{token}")).collect();
        Pointer::parse(&written).unwrap()
    });
    vec(pointer, 1..6)
}

fn reference(document: &Value, place: &Pointer) -> Option<String> {
    match document.pointer(&place.to_string())? {
        Value::String(text) => Some(text.clone()),
        other @ (Value::Bool(_) | Value::Number(_)) => Some(other.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

proptest! {
    #[test]
    fn a_peek_finds_what_a_whole_parse_finds(
        text in json(), wanted in pointers(), sizes in vec(1usize..9, 1..6),
    ) {
        let document: Value = serde_json::from_str(&text).unwrap();
        let (found, looked_at) = in_pieces(text.as_bytes(), &wanted, &sizes);
        prop_assert!(!found.is_broken());
        prop_assert!(looked_at <= text.len());
        for place in &wanted {
            prop_assert_eq!(found.get(place).map(str::to_owned), reference(&document, place));
        }
    }

    #[test]
    fn pieces_change_nothing_whatever_the_bytes(
        text in json(), wanted in pointers(), sizes in vec(1usize..9, 1..6),
        strange in any::<u8>(), at in any::<prop::sample::Index>(), until in any::<prop::sample::Index>(),
    ) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = strange;
        bytes.truncate(until.index(bytes.len()) + 1);
        let whole = in_pieces(&bytes, &wanted, &[usize::MAX]);
        prop_assert_eq!(&in_pieces(&bytes, &wanted, &sizes), &whole);
        prop_assert_eq!(&in_pieces(&bytes, &wanted, &[1]), &whole);
        // Whatever serde_json reads is JSON here as well.
        if serde_json::from_slice::<Value>(&bytes).is_ok() {
            prop_assert!(!whole.0.is_broken());
        }
    }

    #[test]
    fn any_bytes_are_survived_and_looked_at_once(
        bytes in vec(any::<u8>(), 0..300), wanted in pointers(),
    ) {
        let (_, looked_at) = in_pieces(&bytes, &wanted, &[1]);
        prop_assert!(looked_at <= bytes.len());
    }

    #[test]
    fn brackets_and_quotes_in_any_order_are_survived(
        text in "[\\[\\]{}\",:\\\\u0a1eE.+\\-tn ]{0,80}", wanted in pointers(), sizes in vec(1usize..9, 1..6),
    ) {
        let whole = in_pieces(text.as_bytes(), &wanted, &[usize::MAX]);
        prop_assert_eq!(in_pieces(text.as_bytes(), &wanted, &sizes), whole);
    }
}

#[test]
fn work_grows_with_the_bytes_and_not_with_the_pieces() {
    let members: String = (0..4000)
        .map(|n| format!(r#""k{n}": "\u00e9 v", "#))
        .collect();
    let document = format!(r#"{{{members}"a": "x"}}"#);
    let wanted = places(&["/a", "/b/c", "/d/0/e"]);
    for sizes in [&[1][..], &[7, 1, 300], &[usize::MAX]] {
        let (found, looked_at) = in_pieces(document.as_bytes(), &wanted, sizes);
        assert_eq!(found.get(&wanted[0]), Some("x"));
        assert_eq!(looked_at, document.len());
    }
}
