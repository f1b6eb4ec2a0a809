//! Where a body ends: `Content-Length`, `Transfer-Encoding`, chunks.

use super::Expect::{Closed, Cut, Kept, Refused, Tolerated};
use super::{Bench, Case, SMUGGLED, case};

const BAD: &[u16] = &[400];
const BAD_OR_UNKNOWN: &[u16] = &[400, 501];

fn with_coding(fields: &str) -> String {
    format!("POST {{p}} HTTP/1.1\r\nhost: t\r\n{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n{SMUGGLED}")
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_plain_chunked_is_a_transfer_coding() {
    let mut cases = Vec::new();
    let bad = [
        "xchunked",
        "chunked, identity",
        "chunked,",
        "\x0bchunked",
        "chunked\x0c",
        "chunked\0",
        "",
        "identity",
        "gzip",
        "cow",
        "\"chunked\"",
        "chunked;q=1",
        "chunk",
        "chunked, chunked",
        "chunked,chunked",
        "chunked chunked",
        "chunked\r\ntransfer-encoding: identity",
        "identity\r\ntransfer-encoding: chunked",
        "chunked\r\ntransfer-encoding: chunked",
        "chunked\r\n ",
        "\r\n chunked",
        "chunked\r\n\tidentity",
        "chu\rnked",
        "\u{e7}hunked",
    ];
    cases.extend(bad.iter().map(|value| {
        case(
            with_coding(&format!("transfer-encoding: {value}")),
            Refused(BAD),
        )
    }));
    let unknown = [
        "gzip, chunked",
        "identity, chunked",
        "deflate,gzip,chunked",
        ", chunked",
        "x, chunked",
    ];
    let unknown = unknown.map(|v| {
        case(
            with_coding(&format!("transfer-encoding: {v}")),
            Refused(BAD_OR_UNKNOWN),
        )
    });
    cases.extend(unknown);
    let names = [
        "Transfer-Encoding : chunked",
        "transfer-encoding\t: chunked",
        " transfer-encoding: chunked",
        "x: y\r\n transfer-encoding: chunked",
        "transfer-encoding\0: chunked",
        "x: y\rtransfer-encoding: chunked",
        "transfer encoding: chunked",
    ];
    cases.extend(
        names
            .iter()
            .map(|fields| case(with_coding(fields), Refused(BAD))),
    );
    // Read as a request without a body; what follows is no request.
    cases.push(case(with_coding("transfer_encoding: chunked"), Closed("")));
    let good = [
        "chunked",
        "CHUNKED",
        "Chunked",
        "\tchunked",
        "  chunked",
        "chunked  ",
        "chunked\t",
    ];
    let plain = |value: &str| {
        format!(
            "POST {{p}} HTTP/1.1\r\nhost: t\r\ntransfer-encoding:{value}\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        )
    };
    cases.extend(good.map(|value| case(plain(value), Kept("hello"))));
    Bench::run_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_beside_chunks_is_dropped_and_the_connection_with_it() {
    let mut cases = Vec::new();
    for length in [
        "Content-Length: 0",
        "content-length: 5",
        "CONTENT-LENGTH: 4",
        "content-length: 1000",
    ] {
        for coding in ["transfer-encoding: chunked", "Transfer-Encoding: CHUNKED"] {
            for fields in [
                format!("{length}\r\n{coding}"),
                format!("{coding}\r\n{length}"),
            ] {
                cases.push(case(with_coding(&fields), Closed("hello")));
                let empty = format!(
                    "POST {{p}} HTTP/1.1\r\nhost: t\r\n{fields}\r\n\r\n0\r\n\r\n{SMUGGLED}"
                );
                cases.push(case(empty, Closed("")));
            }
        }
    }
    for fields in [
        "transfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
    ] {
        let old = format!(
            "POST {{p}} HTTP/1.0\r\nhost: t\r\n{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n{SMUGGLED}"
        );
        cases.push(case(old, Refused(BAD)));
    }
    Bench::run_all(cases).await;
}

fn with_length(value: &str) -> String {
    format!("POST {{p}} HTTP/1.1\r\nhost: t\r\ncontent-length: {value}\r\n\r\nhello")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_is_digits_and_only_one() {
    let bad = [
        "5, 6",
        "5,6",
        "+5",
        "-0",
        "-5",
        "0x5",
        "1_0",
        "5 5",
        "",
        "18446744073709551616",
        "99999999999999999999999",
        "5;",
        "5.0",
        "5e0",
        "five",
        "5\r\ncontent-length: 6",
        "6\r\nContent-Length: 5",
        "5\r\ncontent-length: 5x",
        "5\0",
        "5\x0b",
        "\u{665}",
        "\"5\"",
        "5,",
        ",5",
        "5\r\n 0",
        "5\r0",
    ];
    let mut cases: Vec<Case> = bad
        .iter()
        .map(|v| case(format!("{}{SMUGGLED}", with_length(v)), Refused(BAD)))
        .collect();
    // The parser calls this one too large.
    let most = format!("{}{SMUGGLED}", with_length("18446744073709551615"));
    cases.push(case(most, Refused(&[400, 431])));
    let names = [
        "Content-Length : 5",
        "content-length\t: 5",
        " content-length: 5",
        "content-length\0: 5",
    ];
    for fields in names {
        let raw = format!("POST {{p}} HTTP/1.1\r\nhost: t\r\n{fields}\r\n\r\nhello{SMUGGLED}");
        cases.push(case(raw, Refused(BAD)));
    }
    let good = [
        "5",
        "  5  ",
        "\t5",
        "5\r\ncontent-length: 5",
        "5\r\nCONTENT-LENGTH: 5",
    ];
    cases.extend(good.map(|v| case(with_length(v), Kept("hello"))));
    cases.extend(["05", "0000000005", "5, 5"].map(|v| case(with_length(v), Tolerated("hello"))));
    // A request without a length has no body; what follows is no request.
    let twin = "POST {p} HTTP/1.1\r\nhost: t\r\ncontent_length: 5\r\n\r\nhello /\r\n\r\n";
    cases.push(case(twin, Closed("")));
    Bench::run_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_may_carry_a_body_and_it_arrives_whole() {
    let mut cases = Vec::new();
    for method in ["GET", "DELETE", "OPTIONS", "PUT", "PATCH", "QUERY", "get"] {
        let head = format!("{method} {{p}} HTTP/1.1\r\nhost: t\r\n");
        cases.push(case(
            format!("{head}content-length: 5\r\n\r\nhello"),
            Kept("hello"),
        ));
        let chunks = "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
        cases.push(case(
            format!("{head}transfer-encoding: chunked\r\n\r\n{chunks}"),
            Kept("hello"),
        ));
        let old = format!("{method} {{p}} HTTP/1.0\r\nhost: t\r\ncontent-length: 5\r\n\r\nhello");
        cases.push(case(old, Closed("hello")));
    }
    let get = format!("GET {{p}} HTTP/1.0\r\nhost: t\r\n\r\n{SMUGGLED}");
    cases.push(case(get, Closed("")));
    let masked =
        "POST {p} HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\nx: GET / HTTP/1.1\r\n\r\nhello";
    cases.push(case(masked, Kept("hello")));
    Bench::run_all(cases).await;
}

fn with_chunks(chunks: &str) -> String {
    format!("POST {{p}} HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n{chunks}")
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_chunks_abort_the_request_and_never_end_it() {
    let tail = format!("hello\r\n0\r\n\r\n{SMUGGLED}");
    let sizes = [
        "0x5",
        "-1",
        "1_0",
        " 5",
        "\t5",
        "+5",
        "g",
        "",
        ";x",
        "5 5",
        "5,",
        "10000000000000000",
        "fffffffffffffffff",
        "5\x0b",
        "5\0",
        "\u{665}",
        "0x",
        "5\rx",
    ];
    let mut cases: Vec<Case> = sizes
        .iter()
        .map(|s| case(with_chunks(&format!("{s}\r\n{tail}")), Cut))
        .collect();
    for chunks in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nx\r\n\r\n",
        "5\r\nhello\r\n0\r\n x: y\r\n\r\n",
        "5\r\nhello\r\n\r\n0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n-0\r\n\r\n",
    ] {
        cases.push(case(with_chunks(&format!("{chunks}{SMUGGLED}")), Cut));
    }
    cases.push(case(
        with_chunks(&format!("5;{}\r\n{tail}", "e".repeat(20 << 10))),
        Cut,
    ));
    let many: String = (0..200).map(|n| format!("t{n}: x\r\n")).collect();
    cases.push(case(
        with_chunks(&format!("5\r\nhello\r\n0\r\n{many}\r\n")),
        Cut,
    ));
    let large = format!("5\r\nhello\r\n0\r\nt: {}\r\n\r\n", "x".repeat(70 << 10));
    cases.push(case(with_chunks(&large), Cut));
    Bench::run_all(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunk_extensions_and_spellings_of_sizes_stay_with_us() {
    let good = [
        "5\r\nhello\r\n0\r\n\r\n",
        "05\r\nhello\r\n00\r\n\r\n",
        "0000000000000005\r\nhello\r\n0\r\n\r\n",
        "5;a=b\r\nhello\r\n0;c=\"d\"\r\n\r\n",
        "5;\r\nhello\r\n0\r\n\r\n",
        "5 ;a\r\nhello\r\n0\r\n\r\n",
        "1\r\nh\r\n4\r\nello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nx-t: y\r\n\r\n",
        "5\r\nhello\r\n0\r\nhost: evil\r\ncontent-length: 3\r\nauthorization: evil\r\n\r\n",
    ];
    let mut cases: Vec<Case> = good
        .iter()
        .map(|chunks| case(with_chunks(chunks), Kept("hello")))
        .collect();
    let hex = format!("A\r\n{}\r\n0\r\n\r\n", "0123456789");
    cases.push(case(with_chunks(&hex), Kept("0123456789")));
    cases.push(case(with_chunks(&hex.to_lowercase()), Kept("0123456789")));
    cases.push(case(
        with_chunks("5;\0\r\nhello\r\n0\r\n\r\n"),
        Kept("hello"),
    ));
    Bench::run_all(cases).await;
}
