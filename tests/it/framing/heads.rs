//! Request lines, fields, hosts and targets.

use super::Expect::{Answered, Closed, Dropped, Kept, Refused, Tolerated};
use super::{Bench, Case, SMUGGLED, case};

const BAD: &[u16] = &[400];

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_request_line_is_refused() {
    let lines = [
        "GET {p}",
        "GET {p} HTTP/1",
        "GET {p} HTTP/01.1",
        "GET {p} HTTP/1.01",
        "GET {p} HTTP/1.2",
        "GET {p} HTTP/2.0",
        "GET {p} HTTP/3.0",
        "GET {p} http/1.1",
        "GET {p} HTTP/1.1 x",
        "GET {p} HTTP/1.1 ",
        "GET\t{p} HTTP/1.1",
        "GET  {p} HTTP/1.1",
        "GET {p}  HTTP/1.1",
        "GET {p}\tHTTP/1.1",
        "GET {p} HTTP /1.1",
        " GET {p} HTTP/1.1",
        "G\0ET {p} HTTP/1.1",
        "GE{T {p} HTTP/1.1",
        "GET: {p} HTTP/1.1",
        "{p} HTTP/1.1",
        "HTTP/1.1 200 OK",
        "GET {p}\0 HTTP/1.1",
        "GET {p}\x07 HTTP/1.1",
        "GET {p} x HTTP/1.1",
        "GET {p}\x0b HTTP/1.1",
        "GET {p} HTTP/1.1\r",
        "\u{80}\u{81}\u{1f} {p}",
    ];
    let mut cases: Vec<Case> = lines
        .iter()
        .map(|line| case(format!("{line}\r\nhost: t\r\n\r\n{SMUGGLED}"), Refused(BAD)))
        .collect();
    cases.push(case(
        "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03{p}",
        Dropped,
    ));
    // A blank line before a request is ignored (RFC 9112 §2.2).
    cases.push(case("\r\nGET {p} HTTP/1.1\r\nhost: t\r\n\r\n", Kept("")));
    Bench::run_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_field_is_refused() {
    let fields = [
        "x: a\rb",
        "x: a\0b",
        "x: a\x0bb",
        "x: a\x7fb",
        "x : a",
        "x\t: a",
        ": a",
        "x",
        "x y: a",
        "x(y: a",
        "x\0: a",
        "\u{e9}: a",
        "x: a\r\n b",
        "x: a\r\n\tb",
        "x: a\r\n \r\nb: c",
        "x[]: a",
        "x,y: a",
        "\"x\": a",
        "x: a\x1b",
    ];
    let mut cases: Vec<Case> = fields
        .iter()
        .map(|f| {
            case(
                format!("GET {{p}} HTTP/1.1\r\nhost: t\r\n{f}\r\n\r\n{SMUGGLED}"),
                Refused(BAD),
            )
        })
        .collect();
    let first = format!("GET {{p}} HTTP/1.1\r\n x: a\r\nhost: t\r\n\r\n{SMUGGLED}");
    cases.push(case(first, Refused(BAD)));
    for lines in [
        "GET {p} HTTP/1.1\nhost: t\n\n",
        "GET {p} HTTP/1.1\r\nhost: t\nx: y\r\n\r\n",
    ] {
        cases.push(case(lines, Tolerated("")));
    }
    Bench::run_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_names_exactly_one_host() {
    let bad = [
        "x: y",
        "host: a\r\nhost: b",
        "host: a\r\nhost: a",
        "host:",
        "host: ",
        "host: a, b",
        "host: u@a",
        "host: a/b",
        "host: a:port",
        "host: a:99999",
        "host: a:-1",
        "host: a b",
        "host: [::1",
        "host: a?b",
        "host: a#b",
        "host: a\\b",
        "host: a:80:80",
        "host : a",
        "Host: a\r\nHOST: b",
        "host: http://a",
        "host: %zz",
        "host: *",
    ];
    let mut cases: Vec<Case> = bad
        .iter()
        .map(|f| {
            case(
                format!("GET {{p}} HTTP/1.1\r\n{f}\r\n\r\n{SMUGGLED}"),
                Refused(BAD),
            )
        })
        .collect();
    cases.push(case(
        "GET http://a{p} HTTP/1.1\r\nx: y\r\n\r\n",
        Refused(BAD),
    ));
    cases.push(case(
        "GET http://u@a{p} HTTP/1.1\r\nhost: a\r\n\r\n",
        Refused(BAD),
    ));
    cases.push(case(
        "GET http://a{p} HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        Refused(BAD),
    ));
    for host in [
        "T.EXAMPLE.",
        "t:80",
        "[::1]:8080",
        "127.0.0.1",
        "a-b_c",
        "t:0080",
    ] {
        cases.push(case(
            format!("GET {{p}} HTTP/1.1\r\nhost: {host}\r\n\r\n"),
            Kept(""),
        ));
    }
    cases.push(case("GET {p} HTTP/1.0\r\n\r\n", Closed("")));
    cases.push(case(
        "GET http://other{p} HTTP/1.1\r\nhost: t\r\n\r\n",
        Kept(""),
    ));
    Bench::run_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_forms_of_targets_and_refused_methods() {
    let at = |line: &str| format!("{line} HTTP/1.1\r\nhost: t\r\nx: {{p}}\r\n\r\n");
    let cases = vec![
        case(at("OPTIONS *"), Answered(&[204])),
        case(at("GET *"), Answered(BAD)),
        case(at("POST *"), Answered(BAD)),
        case(at("GET t:80"), Answered(BAD)),
        case(at("GET t"), Answered(BAD)),
        case(at("GET ?{p}") + SMUGGLED, Refused(BAD)),
        case(at("GET ftp:{p}") + SMUGGLED, Refused(BAD)),
        case(at("CONNECT t:80"), Answered(&[405])),
        case(at("CONNECT {p}"), Answered(&[405])),
        case(at("TRACE {p}"), Answered(&[405])),
        case(at("TRACE *"), Answered(&[405])),
        case(at("GET {p}%2F"), Answered(BAD)),
        case(at("GET {p}%5c"), Answered(BAD)),
        case(at("GET {p}%00"), Answered(BAD)),
        case(at("GET {p}%zz"), Answered(BAD)),
        case(at("GET {p}/../../../x"), Answered(BAD)),
        case(at("GET {p}%"), Answered(BAD)),
    ];
    Bench::run_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_of_anything_is_refused() {
    let fields = |count: usize| {
        (1..count)
            .map(|n| format!("x{n}: y\r\n"))
            .collect::<String>()
    };
    let with = |fields: &str| format!("GET {{p}} HTTP/1.1\r\nhost: t\r\n{fields}\r\n");
    let cases = vec![
        case(with(&fields(99)), Kept("")),
        case(with(&fields(101)), Refused(&[431])),
        case(with(&fields(1000)), Refused(&[431])),
        case(with(&format!("x: {}\r\n", "y".repeat(60 << 10))), Kept("")),
        case(
            with(&format!("x: {}\r\n", "y".repeat(70 << 10))),
            Refused(&[431]),
        ),
        case(
            with(&format!("{}: y\r\n", "x".repeat(70 << 10))),
            Refused(&[400, 431]),
        ),
        case(
            format!(
                "GET {{p}}?{} HTTP/1.1\r\nhost: t\r\n\r\n",
                "q".repeat(100 << 10)
            ),
            Refused(&[414, 431]),
        ),
        case(
            format!("{} {{p}} HTTP/1.1\r\nhost: t\r\n\r\n", "M".repeat(20 << 10)),
            Refused(&[400, 501]),
        ),
    ];
    Bench::run_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expectations_are_met_by_us_or_refused() {
    let with = |expect: &str, body: &str| {
        let length = body.len();
        format!(
            "POST {{p}} HTTP/1.1\r\nhost: t\r\nexpect: {expect}\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    let mut cases = Vec::new();
    for expect in [
        "100-continue",
        "100-Continue",
        " 100-continue ",
        "100-continue\t",
    ] {
        cases.push(case(with(expect, "hello"), Kept("hello")));
        cases.push(case(with(expect, ""), Kept("")));
    }
    for expect in [
        "100-continued",
        "200-ok",
        "100-continue, x",
        "\"100-continue\"",
        "100 continue",
        "x=y",
    ] {
        cases.push(case(with(expect, SMUGGLED) + SMUGGLED, Refused(&[417])));
    }
    Bench::run_all(cases).await;
}
