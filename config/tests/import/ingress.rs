//! Ingresses: which location of which host has a request.

use crate::ingress_support::{ask, config, ingress, rule};
use crate::support::{findings, round_trip, translated};

const CORPUS: &str = include_str!("corpus/ingress.yaml");

#[test]
fn the_corpus_survives_printing() {
    round_trip(CORPUS);
}

#[test]
fn the_annotations_of_the_platform_are_imported_without_loss() {
    let translation = translated(CORPUS);
    let lost = findings(&translation);
    let lost: Vec<&String> = lost.iter().filter(|one| one.contains(" lost")).collect();
    assert!(lost.is_empty(), "{lost:#?}");
    let config = round_trip(CORPUS);
    let route = config
        .routes
        .iter()
        .find(|route| route.name == "ml/platform/0")
        .unwrap();
    assert_eq!(route.timeouts.first_byte.unwrap().as_secs(), 300);
    assert_eq!(route.timeouts.idle.unwrap().as_secs(), 300);
    assert_eq!(route.body_max, Some(50 << 20));
    let replace = &route.replace[0];
    assert!(replace.once && replace.ignore_case && replace.types == ["text/html"]);
    assert_eq!(replace.with, "<head><script src=\"/top.js\"></script>");
    assert_eq!(route.request_headers.remove[0], "accept-encoding");
    let cors = route.cors.as_ref().unwrap();
    assert!(!cors.credentials, "browsers refuse credentials for `*`");
    let cluster = config.clusters.iter().find(|one| one.name == "ml/web:80");
    assert_eq!(cluster.unwrap().connect_timeout.as_secs(), 300);
}

#[test]
fn whole_paths_come_first_and_then_the_longest() {
    let paths = [
        "/ P root",
        "/a P a",
        "/a/b P ab",
        "/a/b E exact",
        "/raw I raw",
        "/a/raw I araw",
        "/s/ I slash",
        "/t P tbare",
        "/t/ I tslash",
    ];
    let config = config(&ingress("i", &[], &rule("h.com", &paths)));
    for (target, wanted) in [
        ("h.com/", "root /"),
        ("h.com/x", "root /x"),
        ("h.com/a", "a /a"),
        ("h.com/a/", "a /a/"),
        ("h.com/a/x", "a /a/x"),
        ("h.com/ab", "root /ab"),
        ("h.com/a/b", "exact /a/b"),
        ("h.com/a/b/", "ab /a/b/"),
        ("h.com/a/b/c", "ab /a/b/c"),
        ("h.com/raw", "raw /raw"),
        ("h.com/raw/x", "raw /raw/x"),
        ("h.com/rawness/x", "raw /rawness/x"),
        ("h.com/ra", "root /ra"),
        ("h.com/RAW", "root /RAW"),
        ("h.com/a/raw", "araw /a/raw"),
        ("h.com/a/rawness", "araw /a/rawness"),
        ("h.com/a/ra", "a /a/ra"),
        ("h.com/s/", "slash /s/"),
        ("h.com/s/x", "slash /s/x"),
        ("h.com/s?q=1", "301 http://h.com/s/?q=1"),
        ("h.com/t", "tbare /t"),
        ("h.com/t/", "tslash /t/"),
        ("h.com/t/x", "tslash /t/x"),
        ("other.com/", "404"),
    ] {
        assert_eq!(ask(&config, target, &[]), wanted, "{target}");
    }
}

/// Of all sets of paths the answer is that of a plain search for the longest beginning.
#[test]
fn beginnings_are_those_of_strings() {
    let all = [
        "/a", "/ab", "/a/b", "/a/bc", "/ab/c", "/abc", "/a/b/c", "/b",
    ];
    let asked = [
        "/a", "/ab", "/abc", "/abcd", "/a/b", "/a/bx", "/a/bc", "/a/bcx/y", "/ab/c", "/ab/cd",
        "/b", "/bb", "/c", "/a/", "/a/b/cc",
    ];
    for set in (1_u32..256).step_by(3) {
        let chosen: Vec<(usize, &str)> = all
            .iter()
            .copied()
            .enumerate()
            .filter(|(bit, _)| set >> bit & 1 == 1)
            .collect();
        let kind = |index: usize| {
            if (set as usize).wrapping_mul(31) >> index & 1 == 1 {
                "P"
            } else {
                "I"
            }
        };
        let lines: Vec<String> = chosen
            .iter()
            .map(|(index, path)| format!("{path} {} s{index}", kind(*index)))
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let text = ingress("i", &[], &rule("h.com", &lines));
        let config = crate::ingress_support::loaded(&text).config;
        for path in asked {
            let fits = |(index, own): &&(usize, &str)| match kind(*index) {
                "P" => path
                    .strip_prefix(own)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
                _ => path.starts_with(own),
            };
            let best = chosen.iter().filter(fits).max_by_key(|(_, own)| own.len());
            let wanted =
                best.map_or_else(|| "404".to_owned(), |(index, _)| format!("s{index} {path}"));
            assert_eq!(
                ask(&config, &format!("h.com{path}"), &[]),
                wanted,
                "{path} of {lines:?}"
            );
        }
    }
}

#[test]
fn a_host_is_chosen_before_a_path() {
    let text = [
        ingress("a", &[], &rule("a.h.com", &["/x P exact"])),
        ingress("b", &[], &rule("*.h.com", &["/ P wild"])),
        ingress("c", &[], &rule("", &["/ P any", "/x/y P anyxy"])),
    ]
    .concat();
    let config = config(&text);
    for (target, wanted) in [
        ("a.h.com/x/y", "exact /x/y"),
        ("a.h.com/z", "404"),
        ("b.h.com/x/y", "wild /x/y"),
        ("c.b.h.com/", "wild /"),
        ("h.com/x/y", "anyxy /x/y"),
        ("h.com/z", "any /z"),
    ] {
        assert_eq!(ask(&config, target, &[]), wanted, "{target}");
    }
}

#[test]
fn a_default_backend_has_the_rest_of_its_hosts() {
    let default = "  defaultBackend: {service: {name: NAME, port: {number: 80}}}\n";
    let text = [
        ingress(
            "a",
            &[],
            &(default.replace("NAME", "rest") + &rule("a.com", &["/x P x"])),
        ),
        ingress("b", &[], &default.replace("NAME", "all")),
        ingress("c", &[], &default.replace("NAME", "late")),
        ingress("d", &[], &rule("d.com", &["/x P x"])),
    ]
    .concat();
    let config = config(&text);
    for (target, wanted) in [
        ("a.com/x", "x /x"),
        ("a.com/y", "rest /y"),
        ("d.com/y", "404"),
        ("e.com/y", "all /y"),
    ] {
        assert_eq!(ask(&config, target, &[]), wanted, "{target}");
    }
    let lost = findings(&translated(&text));
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(lost[0].ends_with("other backends take all requests of its hosts"));
}

#[test]
fn the_oldest_ingress_has_a_host_and_path() {
    let old = "  creationTimestamp: \"2020-01-01T00:00:00Z\"\n";
    let aged = |name: &str, when: &str, service: &str| {
        let text = ingress(name, &[], &rule("h.com", &[&format!("/x P {service}")]));
        text.replacen("  namespace: ml\n", &format!("  namespace: ml\n{when}"), 1)
    };
    let text = aged("a", "", "young") + &aged("b", old, "old");
    assert_eq!(ask(&config(&text), "h.com/x", &[]), "old /x");
    let lost = findings(&translated(&text));
    assert_eq!(
        lost,
        [
            "13:9 lost spec.rules[0].http.paths[0]: another Ingress, which is older, or an earlier path has the same host and path"
        ]
    );
}

#[test]
fn expressions_hold_for_all_paths_of_a_host() {
    let text = [
        ingress(
            "a",
            &[],
            &rule("h.com", &["/foo/bar I one", "/foo/bar/ P two", "/ P root"]),
        ),
        ingress(
            "b",
            &["rewrite-target: /$1"],
            &rule("h.com", &["/foo/bar/(.+) I three"]),
        ),
        ingress("c", &[], &rule("other.com", &["/foo/bar I one"])),
    ]
    .concat();
    let config = config(&text);
    for (target, wanted) in [
        ("h.com/foo/bar/1", "three /1"),
        ("h.com/foo/bar/1/2", "three /1/2"),
        ("h.com/foo/bar/", "two /foo/bar/"),
        ("h.com/foo/bar", "one /foo/bar"),
        ("h.com/FOO/barn", "one /FOO/barn"),
        ("h.com/x", "root /x"),
        ("other.com/FOO/bar", "404"),
    ] {
        assert_eq!(ask(&config, target, &[]), wanted, "{target}");
    }
    let paths = ["/foo/bar/bar I exact", "/foo/bar/[A-Z0-9]{3} I class"];
    let text = ingress("a", &["use-regex: \"true\""], &rule("test.com", &paths));
    let config = self::config(&text);
    assert_eq!(
        ask(&config, "test.com/foo/bar/bar", &[]),
        "class /foo/bar/bar"
    );
    assert_eq!(ask(&config, "test.com/foo/bar/b", &[]), "404");
}

#[test]
fn targets_are_whole_paths_with_groups() {
    for (path, target, asked, wanted) in [
        ("/a(/|$)(.*)", "/$2", "/a", "s /"),
        ("/a(/|$)(.*)", "/$2", "/a/b/c", "s /b/c"),
        ("/a(/|$)(.*)", "/$2", "/ab", "404"),
        ("/a(/|$)(.*)", "/x/$2/y", "/A/b", "s /x/b/y"),
        ("/a", "/", "/a/b", "s /"),
        ("/a", "/new", "/abc", "s /new"),
        ("/a/(v[12])/(.*)", "/$2/$1", "/a/v2/m", "s /m/v2"),
        ("/a|/b", "/", "/x/b", "s /"),
        ("/", "/root", "/q", "s /root"),
        ("/same", "/same", "/same/x", "s /same/x"),
    ] {
        let note = format!("rewrite-target: '{target}'");
        let text = ingress("i", &[&note], &rule("h.com", &[&format!("{path} I s")]));
        let config = config(&text);
        let found = ask(&config, &format!("h.com{asked}"), &[]);
        assert_eq!(found, wanted, "{path} {target} {asked}");
    }
}

#[test]
fn further_names_and_roots() {
    let notes = [
        "server-alias: 'b.com, *.c.com'",
        "app-root: /ui",
        "from-to-www-redirect: \"true\"",
    ];
    let config = config(&ingress("i", &notes, &rule("a.com", &["/ P s"])));
    for (target, wanted) in [
        ("a.com/", "302 http://a.com/ui"),
        ("b.com/", "302 http://b.com/ui"),
        ("x.c.com/y", "s /y"),
        ("www.a.com/y?z=1", "308 http://a.com/y?z=1"),
    ] {
        assert_eq!(ask(&config, target, &[]), wanted, "{target}");
    }
}
