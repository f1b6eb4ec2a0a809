//! A condition on the model: looked for only when it decides.

use super::*;

/// What is found for `METHOD host path[?query]`: the route, `?` and the route that needs the model, `405` or `404`.
fn found(table: &RouteTable, request: &str, model: ModelName<'_>) -> String {
    let words: Vec<_> = request.split_whitespace().collect();
    let method = words[0].parse().unwrap();
    let head = RequestHead {
        host: words[1],
        path: words[2],
        query: None,
        method: &method,
        headers: &HeaderMap::new(),
        model,
    };
    match table.find(&head) {
        Lookup::Found { route, .. } => route.to_string(),
        Lookup::NeedsModel { route, .. } => format!("?{route}"),
        Lookup::MethodNotAllowed { .. } => "405".into(),
        Lookup::NotFound => "404".into(),
    }
}

fn check(routes: &[&str], cases: &[(&str, ModelName<'_>, &str)]) {
    let table = table(routes);
    for (request, model, want) in cases {
        assert_eq!(found(&table, request, *model), *want, "{request} {model:?}");
    }
}

#[test]
fn the_name_is_compared_as_a_whole() {
    use ModelName::{Named, None, Unknown};
    check(
        &["- /v1/* model:m", "- /v1/* model:org/m:7b"],
        &[
            ("POST h /v1/x", Unknown, "?0"),
            ("POST h /v1/x", Named("m"), "0"),
            ("POST h /v1/x", Named("org/m:7b"), "1"),
            ("POST h /v1/x", Named("M"), "404"),
            ("POST h /v1/x", Named("m2"), "404"),
            ("POST h /v1/x", Named(""), "404"),
            ("POST h /v1/x", None, "404"),
            ("POST h /v2/x", Unknown, "404"),
        ],
    );
}

#[test]
fn a_model_comes_after_query_keys_and_before_file_order() {
    use ModelName::{Named, Unknown};
    check(
        &["- /x", "- /x model:m"],
        &[
            ("GET h /x", Unknown, "?1"),
            ("GET h /x", Named("m"), "1"),
            ("GET h /x", Named("n"), "0"),
        ],
    );
    for better in ["- /x m:GET", "- /x h:a=!absent", "- /x q:a=!absent"] {
        check(
            &["- /x model:m", better],
            &[("GET h /x", Unknown, "1"), ("GET h /x", Named("m"), "1")],
        );
    }
    check(
        &["- /x/* model:m", "- /x/y", "h - m:PUT"],
        &[
            ("GET h /x/y", Unknown, "1"),
            ("GET h /x/z", Unknown, "?0"),
            ("PUT h /x/z", Unknown, "2"),
        ],
    );
}

#[test]
fn nobody_asks_when_a_higher_priority_wins_anyway() {
    let low = || route(0, vec![matching("h /x model:m")]);
    let high = || route(5, vec![matching("- - m:GET")]);
    let table = RouteTable::new(&[low(), high()]);
    assert_eq!(found(&table, "GET h /x", ModelName::Unknown), "1");
    assert_eq!(found(&table, "POST h /x", ModelName::Unknown), "?0");
}

#[test]
fn another_method_is_allowed_only_where_the_model_holds() {
    use ModelName::{Named, None, Unknown};
    check(
        &["- /x m:POST model:m"],
        &[
            ("GET h /x", Unknown, "?0"),
            ("GET h /x", None, "404"),
            ("GET h /x", Named("m"), "405"),
            ("POST h /x", Named("n"), "404"),
        ],
    );
}

#[test]
fn a_failed_model_is_explained() {
    let table = table(&["- /x model:m"]);
    let (method, headers) = (Method::GET, HeaderMap::new());
    let head = |model| RequestHead {
        host: "h",
        path: "/x",
        query: None,
        method: &method,
        headers: &headers,
        model,
    };
    let failure = |model| table.failures(&head(model)).next().unwrap().1;
    assert!(failure(ModelName::Unknown).is_none());
    assert!(failure(ModelName::Named("m")).is_none());
    let other = failure(ModelName::Named("n"));
    assert!(matches!(other, Some(Failure::Condition(Condition::Model(name))) if name == "m"));
}
