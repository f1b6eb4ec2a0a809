//! Ingresses that cannot be translated, or not wholly: each loss has its place, and what protects somebody is marked.

use forebay_config::diagnostic::Code;
use forebay_config::import::Level;

use crate::ingress_support::{ask, ingress, loaded, rule};
use crate::support::{findings, translated};

fn annotated(notes: &[&str]) -> String {
    ingress("i", notes, &rule("h.com", &["/ P s"]))
}

/// The findings of one annotation, without its place and name.
fn of(note: &str) -> Vec<String> {
    let found = findings(&translated(&annotated(&[note])));
    let short = |one: String| {
        let (place, rest) = one.split_once(' ').unwrap();
        assert!(place.starts_with("8:"), "{one}");
        rest.replace("metadata.annotations.nginx.ingress.kubernetes.io/", "")
    };
    found.into_iter().map(short).collect()
}

#[test]
fn what_protects_somebody_refuses_the_load() {
    for note in [
        "auth-type: basic",
        "auth-secret: users",
        "auth-url: http://auth",
        "auth-tls-secret: ml/ca",
        "enable-modsecurity: 'true'",
        "ssl-passthrough: 'true'",
        "proxy-ssl-secret: ml/s",
        "force-ssl-redirect: 'true'",
        "whitelist-source-range: nobody",
        "denylist-source-range: '10.0.0.0/8, x'",
        "server-snippet: 'deny all;'",
        "server-snippet: 'location /x { auth_basic y; }'",
        "configuration-snippet: 'deny 1.2.3.4; allow all;'",
        "configuration-snippet: 'if ($http_x = \"\") { return 403; }'",
        "some-auth-thing: x",
        "my-allow: x",
        "geo-deny: x",
        "old-whitelist: x",
        "my-waf: x",
        "modsecurity-transaction-id: x",
        "foo-ssl-verify: x",
    ] {
        let found = of(note);
        assert!(
            found.len() == 1 && found[0].starts_with("lost! "),
            "{note}: {found:?}"
        );
        let refused = crate::support::loaded(&[("a.yaml", &annotated(&[note]))]).unwrap_err();
        assert_eq!(
            refused.first_error().unwrap().code,
            Code::Unprotected,
            "{note}"
        );
    }
}

#[test]
fn other_losses_are_told() {
    for (note, wanted) in [
        (
            "limit-rps: many",
            "lost limit-rps: expected a whole number from 0 to 1000000",
        ),
        (
            "limit-whitelist: 10.0.0.0/8",
            "lost limit-whitelist: limits hold for all clients",
        ),
        (
            "proxy-body-size: 5q",
            "lost proxy-body-size: expected a size such as `8m`",
        ),
        (
            "proxy-read-timeout: soon",
            "lost proxy-read-timeout: expected a whole number of seconds",
        ),
        (
            "enable-cors: perhaps",
            "lost enable-cors: expected `true` or `false`",
        ),
        ("canary: perhaps", "lost canary: expected `true` or `false`"),
        ("canary-weight: '5'", "lost canary-weight: not used here"),
        ("affinity: ip", "lost affinity: `cookie` is the only kind"),
        (
            "load-balance: odd",
            "lost load-balance: the word is not known",
        ),
        (
            "upstream-vhost: $host",
            "lost upstream-vhost: it is no constant host",
        ),
        ("app-root: ui", "lost app-root: it is no path to be sent to"),
        ("server-alias: '~^x'", "lost server-alias: `~^x` is no host"),
        (
            "custom-http-errors: '404'",
            "lost custom-http-errors: answers of servers are passed on",
        ),
        ("brand-new: x", "lost brand-new: nobody knows it here"),
        (
            "server-snippet: 'gzip on;'",
            "lost server-snippet: this is no nginx",
        ),
        (
            "configuration-snippet: 'gzip on; more_set_headers \"A: b\";'",
            "lost configuration-snippet: `gzip`: not translated",
        ),
        (
            "configuration-snippet: 'proxy_set_header X $host;'",
            "lost configuration-snippet: `proxy_set_header`: variables are not known",
        ),
        (
            "configuration-snippet: 'add_header X y;'",
            "approximated configuration-snippet: `add_header`: errors have the header too",
        ),
        (
            "configuration-snippet: 'return 444;'",
            "lost! configuration-snippet: `return`: the status `444` cannot be sent",
        ),
        (
            "rewrite-target: '/$9$host'",
            "lost rewrite-target: the variable `$host` is not known; requests of `/` are answered 503",
        ),
        (
            "limit-rps: {a: b}",
            "lost limit-rps: expected a string, found a map",
        ),
    ] {
        assert_eq!(of(note), [wanted], "{note}");
    }
}

#[test]
fn an_answer_that_cannot_be_said_forwards_nothing() {
    let text = annotated(&["configuration-snippet: 'return 302 https://$arg_to;'"]);
    assert_eq!(ask(&loaded(&text).config, "h.com/", &[]), "503");
}

#[test]
fn values_of_headers_are_in_no_note() {
    let found = of("configuration-snippet: \"add_header X-Key 's3\\u0001cret';\"");
    assert!(found[0].starts_with("lost "), "{found:?}");
    assert!(!found[0].contains("cret"), "{found:?}");
}

#[test]
fn references_to_nothing_are_answered_503() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: ml}\nspec: {ports: [{name: http, port: 81}]}\n";
    let text = format!(
        "{service}{}",
        ingress("i", &[], &rule("h.com", &["/a P s", "/ P root"]))
    );
    assert_eq!(
        findings(&translated(&text)),
        [
            "17:49 lost spec.rules[0].http.paths[0].backend: `ml/s` has no port 80; its requests are answered 503"
        ]
    );
    let config = loaded(&text).config;
    assert_eq!(ask(&config, "h.com/a/x", &[]), "503");
    assert_eq!(ask(&config, "h.com/x", &[]), "root /x");
    let spec = "  rules: [{host: h.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: t, port: {name: http}}}}]}}]\n";
    let found = findings(&translated(&ingress("i", &[], spec)));
    assert!(
        found[0].contains("the number of the port is unknown"),
        "{found:?}"
    );
}

#[test]
fn wrong_shapes_have_their_places() {
    for (spec, wanted) in [
        (
            "  rules: {}\n",
            &["8:10 lost spec.rules: expected a list, found a map"][..],
        ),
        (
            "  rules: [5]\n",
            &["8:11 lost spec.rules[0]: expected a map, found the number `5`"],
        ),
        ("  rules: []\n", &[]),
        (
            "  rules: [{host: [a]}]\n",
            &["8:18 lost spec.rules[0].host: expected a string, found a list"],
        ),
        (
            "  rules: [{host: 'a b'}]\n",
            &["8:11 lost spec.rules[0]: no request has the host `a b`"],
        ),
        ("  rules: [{host: a.com, http: {paths: []}}]\n", &[]),
        (
            "  rules: [{http: {paths: [{path: x}]}}]\n",
            &["8:27 lost spec.rules[0].http.paths[0]: a path begins with a slash"],
        ),
        (
            "  rules: [{http: {paths: [{path: /x, pathType: Odd}]}}]\n",
            &[
                "8:27 lost spec.rules[0].http.paths[0]: `pathType` is Exact, Prefix or ImplementationSpecific",
            ],
        ),
        (
            "  rules: [{http: {paths: [{path: /a//b, pathType: Exact, backend: {service: {name: s, port: {number: 1}}}}]}}]\n",
            &[
                "8:34 lost spec.rules[0].http.paths[0].path: no request has the path `/a//b`",
                "8:68 lost spec.rules[0].http.paths[0].backend.service: not used here",
            ],
        ),
        (
            "  rules: [{http: {paths: [{path: /, pathType: Exact, backend: {resource: {kind: x}}}]}}]\n",
            &["8:64 lost spec.rules[0].http.paths[0].backend.resource: name a service"],
        ),
        (
            "  rules: [{http: {paths: [{path: /, pathType: Exact, backend: {}}]}}]\n",
            &["8:63 lost spec.rules[0].http.paths[0].backend: it names no service"],
        ),
        ("  odd: 1\n", &["8:3 lost spec.odd: not translated"]),
        (
            "  tls: [{hosts: [h.com], secretName: other}]\n",
            &["8:38 lost! spec.tls[0].secretName: no files are given for the Secret `ml/other`"],
        ),
        (
            "  tls: [{hosts: [h.com]}]\n",
            &["8:17 lost! spec.tls[0].hosts: no Secret with a certificate is named"],
        ),
        (
            "  tls: [{}]\n",
            &["8:8 lost! spec.tls: an entry names no Secret"],
        ),
        (
            "  ingressClassName: traefik\n",
            &["8:21 approximated spec.ingressClassName: read as that of ingress-nginx"],
        ),
    ] {
        assert_eq!(
            findings(&translated(&ingress("i", &[], spec))),
            wanted,
            "{spec}"
        );
    }
    let old =
        "apiVersion: networking.k8s.io/v1beta1\nkind: Ingress\nmetadata: {name: a}\nspec: {}\n";
    assert_eq!(
        findings(&translated(old)),
        ["2:7 lost : the version `v1beta1` is not known; known are v1"]
    );
}

#[test]
fn an_expression_that_is_not_understood_is_lost() {
    let text = ingress(
        "i",
        &["use-regex: 'true'"],
        &rule("h.com", &["/a(?=b) I s", "/(a I t", "/c I u"]),
    );
    let lost = findings(&translated(&text));
    assert_eq!(
        lost.iter()
            .filter(|one| one.contains("the regular expression is not understood"))
            .count(),
        2,
        "{lost:?}"
    );
    assert_eq!(ask(&loaded(&text).config, "h.com/c", &[]), "u /c");
}

#[test]
fn whatever_an_annotation_holds_the_configuration_is_legal() {
    let values = [
        "",
        " ",
        "x",
        "-1",
        "0",
        "999999999999999999999",
        "true",
        "/",
        "/x",
        "//",
        "http://",
        "https://a b/",
        "$",
        "${",
        "a,b,,",
        "*",
        "'",
        "é",
        "\\u0000\\n",
        "10.0.0.0/99",
    ];
    let kinds = forebay_config::import::kinds();
    let kind = kinds.iter().find(|kind| kind.name == "Ingress").unwrap();
    let names = kind.fields.iter().filter_map(|field| {
        let name = field.path.strip_prefix("metadata.annotations.")?;
        name.rsplit('/').next().filter(|name| *name != "*")
    });
    let names: Vec<&str> = names.collect();
    // Annotations that switch others on are now said, now odd themselves.
    let more = ["affinity: cookie", "enable-cors: 'true'"];
    for value in values {
        for some in names.chunks(4) {
            let odd = some.iter().map(|name| format!("{name}: \"{value}\""));
            let mut notes: Vec<String> = odd.collect();
            let said = |one: &&&str| !some.iter().any(|name| one.starts_with(name));
            notes.extend(more.iter().filter(said).map(|one| (*one).to_owned()));
            let notes: Vec<&str> = notes.iter().map(String::as_str).collect();
            let translation = translated(&annotated(&notes));
            let printed = forebay_config::import::to_yaml(&translation.root);
            let again = crate::support::loaded(&[("a.yaml", &printed)]);
            let again = again.map(|_| ());
            assert!(
                again.is_ok(),
                "{notes:?}: {}\n{printed}",
                again.unwrap_err()
            );
        }
    }
}

#[test]
fn ten_thousand_ingresses_are_translated() {
    let mut text = String::new();
    for index in 0..10_000 {
        let host = format!("h{}.com", index % 2_000);
        text += &format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: i{index}, namespace: ml, annotations: {{nginx.ingress.kubernetes.io/proxy-connect-timeout: '7'}}}}\n\
             spec: {{rules: [{{host: {host}, http: {{paths: [{{path: /p{index}, pathType: Prefix, backend: {{service: {{name: s{index}, port: {{number: 80}}}}}}}}]}}}}]}}\n"
        );
    }
    let documents = crate::support::parsed(&text);
    let translation = forebay_config::import::translate(&documents, &Default::default());
    assert_eq!(translation.findings.len(), 0);
    assert_eq!(translation.worst(), Level::Ok);
}
