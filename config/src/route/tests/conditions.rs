//! What each condition means.

use super::{answer, table};

#[test]
fn conditions_on_headers() {
    type Lines = &'static [(&'static str, &'static str)];
    let cases: &[(&str, Lines, bool)] = &[
        ("h:x=1", &[("x", "1")], true),
        ("h:x=1", &[("X", "1")], true),
        ("h:x=1", &[("x", "2")], false),
        ("h:x=1", &[], false),
        ("h:x=1", &[("x", "1"), ("x", "2")], false),
        ("h:x=1,2", &[("x", "1"), ("x", "2")], true),
        ("h:x=~g.*", &[("x", "gold")], true),
        ("h:x=~g", &[("x", "gold")], false),
        ("h:x=~.*", &[], false),
        ("h:x=!present", &[("x", "")], true),
        ("h:x=!present", &[], false),
        ("h:x=!absent", &[], true),
        ("h:x=!absent", &[("x", "")], false),
        ("h:x=!z", &[("x", "z")], false),
        ("h:x=!z", &[("x", "y")], true),
        ("h:x=!z", &[], true),
        ("h:x=[p,q", &[("x", "q")], true),
        ("h:x=[p,q", &[("x", "r")], false),
        ("h:x=[p,q", &[], false),
        ("h:x=~.*", &[("x", "\u{fc}")], true),
        ("h:x=1 h:y=2", &[("x", "1")], false),
        ("h:x=1 h:y=2", &[("x", "1"), ("y", "2")], true),
    ];
    for (conditions, lines, want) in cases {
        let table = table(&[&format!("- - {conditions}")]);
        assert_eq!(
            answer(&table, "GET h /", lines).is_ok(),
            *want,
            "{conditions} {lines:?}"
        );
    }
}

#[test]
fn conditions_on_cookies() {
    let cases: &[(&str, &[&str], bool)] = &[
        ("c:a=1", &["a=1"], true),
        ("c:a=1", &["b=2; a=1;c=3"], true),
        ("c:a=1", &["b=2", "a=1"], true),
        ("c:a=1", &["a=2; a=1"], false),
        ("c:a=1", &["A=1"], false),
        ("c:a=1", &["aa=1; xa=1"], false),
        ("c:a=1", &["a=\"1\""], true),
        ("c:a=x=y", &["a=x=y"], true),
        ("c:a=!absent", &["b=1"], true),
        ("c:a=!present", &["a="], true),
        ("c:a=!present", &["a"], false),
    ];
    for (conditions, cookies, want) in cases {
        let lines: Vec<_> = cookies.iter().map(|cookie| ("cookie", *cookie)).collect();
        let table = table(&[&format!("- - {conditions}")]);
        assert_eq!(
            answer(&table, "GET h /", &lines).is_ok(),
            *want,
            "{conditions} {cookies:?}"
        );
    }
}

#[test]
fn conditions_on_the_query() {
    for (conditions, query, want) in [
        ("q:a=1", "?a=1", true),
        ("q:a=1", "?b=2&a=1", true),
        ("q:a=1", "?a=2&a=1", false),
        ("q:a=1", "?&&a=1", true),
        ("q:a=1", "?%61=%31", true),
        ("q:a=1", "?A=1", false),
        ("q:a=1", "", false),
        ("q:a=1", "?", false),
        ("q:a=~x.y", "?a=x+y", true),
        ("q:a=~x.y", "?a=x%20y", true),
        ("q:a=x+y", "?a=x%2By", true),
        ("q:a=%zz", "?a=%zz", true),
        ("q:a=%", "?a=%", true),
        ("q:a=x=y", "?a=x=y", true),
        ("q:a=ü", "?a=%C3%BC", true),
        ("q:a=!present", "?a", true),
        ("q:a=!present", "?a=", true),
        ("q:a=!absent", "?b", true),
        ("q:a=!1", "?a=2", true),
        ("q:a=!1", "", true),
    ] {
        let table = table(&[&format!("- - {conditions}")]);
        assert_eq!(
            answer(&table, &format!("GET h /{query}"), &[]).is_ok(),
            want,
            "{conditions} {query}"
        );
    }
}
