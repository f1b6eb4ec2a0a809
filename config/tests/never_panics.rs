//! Whatever is in a file, loading it ends with a configuration or with findings.
#![allow(clippy::unwrap_used, reason = "a test")]

mod shipped;

use forebay_config::load::load;
use proptest::prelude::*;

fn loads(name: &str, text: &str) {
    let files = [shipped::source(name, text)];
    match load(&files, &|name| (name.len() < 3).then(|| name.to_owned())) {
        Ok(loaded) => assert!(!loaded.config.listeners.is_empty()),
        Err(problems) => {
            assert!(
                problems.first_error().is_some(),
                "refused without a reason: {text:?}"
            );
            assert!(!problems.render(&files).is_empty());
        }
    }
}

/// Pieces that are likely to get past the YAML parser.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "routes:",
            "listeners:",
            "clusters:",
            "defaults:",
            "route:",
            "cluster:",
            "- name: a\n",
            "  match:",
            "path:",
            "prefix: /",
            "regex: (",
            "split:",
            "weight: 1",
            "endpoints:",
            "[",
            "]",
            "{",
            "}",
            ", ",
            ": ",
            "\n",
            "\n  ",
            "\n- ",
            "&a ",
            "*a",
            "<<: *a",
            "null",
            "none",
            "5s",
            "1MiB",
            "'",
            "\"",
            "|\n",
            ">-\n",
            "#",
            "---\n",
            "? ",
            "!!str ",
            "!x ",
            "${env:A}",
            "${env:",
            "$${",
            "\t",
            "\u{feff}",
            "é",
            "99999999999999999999",
            "-1",
            "0x1F",
            "admin: {address: ':1'}",
            "tls: {}",
            "mirrors: [{cluster: a}]",
            "retry: {when: [5",
            "json: /a~",
            "health: {}",
            "%",
            "\\u0000",
        ])
        .prop_map(str::to_owned),
        ".{0,6}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text(text: String) {
        loads("a.yaml", &text);
        loads("a.json", &text);
    }

    #[test]
    fn likely_text(pieces in prop::collection::vec(piece(), 0..24)) {
        loads("a.yaml", &pieces.concat());
    }

    #[test]
    fn shipped_text_with_a_hole_or_a_patch(file in 0_usize..1000, at in 0.0..1.0, hole in 0_usize..12, patch in piece()) {
        let files = shipped::all_and_traffic();
        let chars: Vec<char> = files[file % files.len()].text.chars().collect();
        let start = (chars.len() as f64 * at) as usize;
        let end = (start + hole).min(chars.len());
        let text: String = chars[..start].iter().copied().chain(patch.chars()).chain(chars[end..].iter().copied()).collect();
        loads("a.yaml", &text);
    }
}

#[test]
fn deep_and_bulging_files_are_refused() {
    for text in [
        "[".repeat(100_000),
        "{a: ".repeat(10_000),
        "- ".repeat(10_000),
        (0..5_000)
            .map(|depth| format!("{}a:\n", " ".repeat(depth)))
            .collect(),
        "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned()
            + &('b'..='j')
                .map(|c| {
                    let before = char::from(c as u8 - 1);
                    format!("{c}: &{c} [{}]\n", vec![format!("*{before}"); 10].join(","))
                })
                .collect::<String>(),
        "a: &a [*a]".to_owned(),
        "a: *nowhere".to_owned(),
    ] {
        let files = [shipped::source("a.yaml", &text)];
        let problems = load(&files, &|_| None).unwrap_err();
        let code = problems.first_error().unwrap().code.as_str();
        assert!(
            ["E001", "E003", "E010"].contains(&code),
            "{}",
            problems.0[0]
        );
    }
}
