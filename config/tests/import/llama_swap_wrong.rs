//! What is lost of configurations of llama-swap, and what is wrong with them.

use forebay_config::import::{Format, Options, to_yaml, translate};
use forebay_config::node::parse_documents;

use crate::llama_swap_support::{CORPUS, at, model, models, swapped};
use crate::support::{file, findings, parsed};

#[test]
fn macros_that_grow_beyond_measure_are_refused() {
    let mut text = "macros:\n  m0: xxxxxxxxxx\n".to_owned();
    for level in 1..30 {
        let below = format!("${{m{}}}", level - 1).repeat(10);
        text.push_str(&format!("  m{level}: '{below}'\n"));
    }
    text.push_str("models: {a: {cmd: 'x ${PORT} ${m29}'}}\n");
    let found = findings(&swapped(&text));
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains("lost models.a.cmd: with the macro `m"),
        "{found:?}"
    );
}

#[test]
fn peers_that_cannot_be_asked_are_left_out() {
    for (peer, expected) in [
        ("{models: [x]}", "4:6 lost peers.p: `proxy` is missing"),
        (
            "{proxy: box, models: []}",
            "4:14 lost peers.p.proxy: it is no URL with `http://` or `https://`; the peer is left out",
        ),
        (
            "{proxy: 'http://a b', models: []}",
            "4:14 lost peers.p.proxy: its host is none; the peer is left out",
        ),
        (
            "{proxy: 'http://a:0', models: []}",
            "4:14 lost peers.p.proxy: its port is no number; the peer is left out",
        ),
        (
            "{proxy: 'http://u:p@a', models: []}",
            "4:14 lost peers.p.proxy: a name and a password are not sent; the peer is left out",
        ),
        (
            "{proxy: 'http://a/?x', models: []}",
            "4:14 lost peers.p.proxy: its path is not plain; the peer is left out",
        ),
        (
            "{proxy: 'http://a', models: [a]}",
            "4:6 lost peers.p: no model is left that it could be asked for",
        ),
    ] {
        let translation = swapped(&models(&["a"], &format!("peers:\n  p: {peer}\n")));
        let found = findings(&translation);
        assert!(found.contains(&expected.to_owned()), "{peer}: {found:?}");
        assert_eq!(at(&translation.root, "clusters.1.name"), "", "{peer}");
    }
}

/// Each line of the corpus once left out, and once with another value.
#[test]
fn no_file_makes_it_panic() {
    for text in CORPUS {
        let lines: Vec<&str> = text.lines().collect();
        for index in 0..lines.len() {
            for value in [
                "",
                "~",
                "[]",
                "{}",
                "-1",
                "[[a], {b: c}]",
                "'${PORT}'",
                "{a: {b: [c]}}",
            ] {
                let mut changed: Vec<String> =
                    lines.iter().map(|line| (*line).to_owned()).collect();
                match changed[index].split_once(": ") {
                    Some((key, _)) if !value.is_empty() => {
                        changed[index] = format!("{key}: {value}")
                    }
                    _ => drop(changed.remove(index)),
                }
                let changed = file("a.yaml", &changed.join("\n"));
                if let (Some(documents), _) = parse_documents(&changed) {
                    let options = Options {
                        format: Some(Format::LlamaSwap),
                        ..Options::default()
                    };
                    to_yaml(&translate(&documents, &options).root);
                }
            }
        }
    }
}

#[test]
fn what_is_not_translated_is_lost() {
    let text = "models:\n  m:\n    cmd: x ${PORT}\n    name: M\n    description: D\n    unlisted: true\n    metadata: {a: 1}\n\
                \x20   capabilities: {tools: true}\n    filters: {stripParams: a, strip_params: b, setParams: {c: 1}, setParamsByID: {d: {}}}\n\
                \x20   timeouts: {keepalive: 1, tlsHandshake: 1, expectContinue: 1, connect: 0, other: 1}\n    speling: 1\n\
                peers: {p: {proxy: 'http://a', models: [z], filters: {stripParams: a, setParams: {b: 1}}}}\nprofiles: {}\nupstream: {}\nrouting: {scheduler: {use: fifo}}\n\
                hooks: {on_startup: {preload: [zz]}}\nlogLevel: debug\nincludeAliasesInList: false\n";
    let found = findings(&swapped(text));
    let found: Vec<&str> = found
        .iter()
        .map(|one| one.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        found,
        [
            "4:5 lost models.m.name",
            "5:5 lost models.m.description",
            "6:5 lost models.m.unlisted",
            "7:5 lost models.m.metadata",
            "8:5 lost models.m.capabilities",
            "9:15 lost models.m.filters.stripParams",
            "9:31 lost models.m.filters.strip_params",
            "9:48 lost models.m.filters.setParams",
            "9:67 lost models.m.filters.setParamsByID",
            "10:16 lost models.m.timeouts.keepalive",
            "10:30 lost models.m.timeouts.tlsHandshake",
            "10:47 lost models.m.timeouts.expectContinue",
            "10:75 approximated models.m.timeouts.connect",
            "10:78 lost models.m.timeouts.other",
            "11:5 lost models.m.speling",
            "12:40 approximated peers.p.models",
            "12:55 lost peers.p.filters.stripParams",
            "12:71 lost peers.p.filters.setParams",
            "13:1 lost profiles",
            "14:1 lost upstream",
            "15:11 lost routing.scheduler",
            "16:31 lost hooks.on_startup.preload",
            "18:23 approximated includeAliasesInList",
        ]
    );
}

#[test]
fn what_is_wrong_is_found_where_it_is() {
    for (keys, expected) in [
        ("ttl: 5", "1:13 lost models.m: `cmd` is missing"),
        ("cmd: ''", "1:19 lost models.m.cmd: it names no program"),
        (
            "cmd: [a]",
            "1:19 lost models.m.cmd: expected a string, found a list",
        ),
        (
            "cmd: \"x 'y ${PORT}\"",
            "1:19 lost models.m.cmd: a quote is not closed",
        ),
        (
            "cmd: 'x', proxy: 'http://box:80'",
            "1:31 lost models.m.proxy: a process is reached by an IP address, not by the name `box`; the model is left out",
        ),
        (
            "cmd: 'x'",
            "1:19 lost models.m.cmd: nobody knows where it listens: `${PORT}` is not in it, and `proxy` has no port; the model is left out",
        ),
        (
            "cmd: 'x ${PORT} #y'",
            "1:19 approximated models.m.cmd: what follows a word that begins with `#` is a comment here",
        ),
        (
            "cmd: 'x ${PORT}', proxy: 'http://box:${PORT}'",
            "1:39 approximated models.m.proxy: it is reached at 127.0.0.1",
        ),
        (
            "cmd: 'x ${PORT}', proxy: 'http://localhost:${PORT}/v1'",
            "1:39 lost models.m.proxy: its path is not put in front of those of requests",
        ),
        (
            "cmd: 'x ${PORT}', env: [A]",
            "1:37 lost models.m.env: each is NAME=VALUE",
        ),
        (
            "cmd: 'x ${PORT}', ttl: -2",
            "1:37 lost models.m.ttl: expected a whole number from -1 to 31536000, found the number `-2`",
        ),
        (
            "cmd: 'x ${PORT}', concurrencyLimit: many",
            "1:50 lost models.m.concurrencyLimit: expected a whole number from 0 to 1000000, found the string `many`",
        ),
        (
            "cmd: 'x ${PORT}', aliases: {a: b}",
            "1:41 lost models.m.aliases: expected a list, found a map",
        ),
    ] {
        assert_eq!(findings(&swapped(&model(keys))), [expected], "{keys}");
    }
    for (text, expected) in [
        (
            "{}",
            "1:1 lost : this is no configuration of llama-swap: `models` is missing",
        ),
        (
            "[a]",
            "1:1 lost : this is no configuration of llama-swap: `models` is missing",
        ),
        (
            "models: [a]",
            "1:9 lost models: expected a map, found a list",
        ),
        (
            "models: {m: x}",
            "1:13 lost models.m: expected a map, found the string `x`",
        ),
    ] {
        let translation = swapped(text);
        assert_eq!(findings(&translation), [expected], "{text}");
        assert!(translation.root.get("routes").is_none());
    }
    let text = models(
        &["a"],
        "groups:\n  g: {members: [a, zz]}\n  h: {members: [a], swap: 1}\n",
    );
    assert_eq!(
        findings(&swapped(&text)),
        [
            "4:16 lost groups.g.members: `zz` is no model, or in two groups",
            "5:16 lost groups.h.members: `a` is no model, or in two groups",
            "5:27 lost groups.h.swap: expected `true` or `false`, found the number `1`",
        ]
    );
}

#[test]
fn api_keys_are_required_and_never_shown() {
    for keys in ["[sk-secret]", "sk-secret", "[{a: sk-secret}]"] {
        let text = format!("{}apiKeys: {keys}\n", models(&["a"], ""));
        let translation = swapped(&text);
        assert_eq!(
            at(&translation.root, "routes.0.auth.required"),
            "true",
            "{keys}"
        );
        assert!(
            translation.findings.iter().any(|one| one.security),
            "{keys}"
        );
        let shown = format!("{:?}{}", findings(&translation), to_yaml(&translation.root));
        assert!(
            keys != "[sk-secret]" || !shown.contains("sk-secret"),
            "{shown}"
        );
    }
    let none = swapped(&models(&["a"], "apiKeys: []\n"));
    assert_eq!(at(&none.root, "routes.0.auth.required"), "");
    assert_eq!(findings(&none), [""; 0]);
}

#[test]
fn without_the_format_on_the_command_line_no_process_is_named() {
    let options = Options::default();
    let translation = translate(&parsed(CORPUS[0]), &options);
    assert!(translation.root.get("clusters").is_none());
}
