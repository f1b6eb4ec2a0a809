//! Which documents there are, and what is found of those that cannot be translated.

use forebay_config::diagnostic::Code;
use forebay_config::import::{Format, Options, to_yaml, translate};
use forebay_config::node::{Kind, Node, Scalar, Value};

use crate::support::{file, findings, loaded, parsed, round_trip, translated};

const ENTRY: &str = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n";

/// A ServiceEntry with this `spec`.
fn entry(spec: &str) -> String {
    format!("{ENTRY}metadata: {{name: a, namespace: n}}\nspec:\n{spec}")
}

#[test]
fn what_nobody_reads_is_lost_with_its_place() {
    let text = entry(
        "  hosts: [h.example]\n  resolution: STATIC\n  speling: 1\n  subjectAltNames: [x]\n  ports: [{number: 80, nme: a}]\n\
         \x20 endpoints: [{address: 10.0.0.1, network: n}]\n",
    );
    assert_eq!(
        findings(&translated(&text)),
        [
            "7:3 lost spec.speling: not translated",
            "8:3 lost! spec.subjectAltNames: set `tls: {server_name: …}`",
            "9:24 lost spec.ports[0].nme: not translated",
            "10:35 lost spec.endpoints[0].network: one network",
        ]
    );
}

#[test]
fn wrong_types_are_lost_with_their_place() {
    let text = entry(
        "  hosts: [h.example, {a: b}]\n  resolution: STATIC\n  ports: {number: 80}\n  endpoints: [5, {address: [x]}]\n",
    );
    assert_eq!(
        findings(&translated(&text)),
        [
            "5:22 lost spec.hosts[1]: expected a string, found a map",
            "6:15 lost spec.resolution: where the endpoints are is not said",
            "7:10 lost spec.ports: expected a list, found a map",
            "8:15 lost spec.endpoints[0]: expected a map, found the number `5`",
            "8:28 lost spec.endpoints[1].address: expected a string, found a list",
        ]
    );
}

#[test]
fn documents_that_cannot_be_used_are_lost_whole() {
    let text = "apiVersion: networking.istio.io/v9\nkind: ServiceEntry\nmetadata: {name: a}\n---\n\
                apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {namespace: b}\n---\n\
                apiVersion: made.up/v1\nkind: Thing\nmetadata: {name: c}\n---\n\
                apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n---\n\
                apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: e}\nspec: {x: envoy.filters.http.ext_authz}\n---\n\
                just: a map\n";
    assert_eq!(
        findings(&translated(text)),
        [
            "2:7 lost : the version `v9` is not known; known are v1, v1beta1, v1alpha3",
            "6:7 lost : `metadata.name` is missing",
            "10:7 lost : this kind is not translated",
            "18:7 lost! : this kind is not translated",
            "22:1 lost : this is no object of Kubernetes: `apiVersion` or `kind` is missing",
        ]
    );
}

#[test]
fn an_object_written_twice_counts_once() {
    let one = entry("  hosts: [h.example]\n  resolution: DNS\n  ports: [{number: 80}]\n");
    let text = format!("{one}---\n{one}");
    assert_eq!(
        findings(&translated(&text)),
        ["10:7 lost : the object is written twice; the first counts"]
    );
}

#[test]
fn a_format_has_its_own_kinds_only() {
    let text = entry("  hosts: [h.example]\n  resolution: DNS\n  ports: [{number: 80}]\n");
    let options = Options {
        format: Some(Format::Ingress),
        ..Options::default()
    };
    assert_eq!(
        findings(&translate(&parsed(&text), &options)),
        ["2:7 lost : import it with the format `istio`"]
    );
}

#[test]
fn a_loss_is_a_warning_and_one_of_security_refuses_the_load() {
    let native = ("a.yaml", "routes: [{name: r, respond: {}}]");
    let harmless = entry("  hosts: [h.example]\n  resolution: DNS\n  odd: 1\n");
    let warnings = loaded(&[native, ("b.yaml", &harmless)]).unwrap().warnings;
    let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        ["b.yaml:7:3: warning[W040]: lost: ServiceEntry n/a: spec.odd: not translated"]
    );
    let weaker = entry("  hosts: [h.example]\n  resolution: DNS\n  subjectAltNames: [x]\n");
    let refused = loaded(&[native, ("b.yaml", &weaker)]).unwrap_err();
    let first = refused.first_error().unwrap();
    assert_eq!((first.code, first.position.line), (Code::Unprotected, 7));
}

#[test]
fn one_native_document_may_be_among_objects() {
    let object = entry("  hosts: [h.example]\n  resolution: DNS\n  ports: [{number: 80}]\n");
    let native = "routes: [{name: r, cluster: 'h.example:80'}]\n";
    let text = format!("{object}---\n{native}---\n---\n");
    assert_eq!(
        loaded(&[("a.yaml", &text)]).unwrap().config.clusters.len(),
        1
    );
    let twice = format!("{object}---\n{native}---\n{native}");
    let refused = loaded(&[("a.yaml", &twice)]).unwrap_err();
    assert_eq!(refused.0[0].code, Code::Document);
    assert_eq!(refused.0[0].position.line, 11);
}

#[test]
fn bombs_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    let text = format!("{ENTRY}metadata: {{name: a}}\nspec: {{}}\n---\n{bomb}");
    let (documents, problems) = forebay_config::node::parse_documents(&file("a.yaml", &text));
    assert!(documents.is_none());
    assert_eq!(problems[0].code, Code::Document, "{}", problems[0]);
    assert!(problems[0].position.line > 5, "{}", problems[0]);
}

#[test]
fn variables_are_not_expanded_in_documents() {
    let text = entry(
        "  hosts: [h.example]\n  resolution: STATIC\n  ports: [{number: 80}]\n\
         \x20 endpoints: [{address: 10.0.0.1, labels: {a: '${env:SECRET}', b: '$${x}', c: '${PORT}', d: '5', e: 'yes'}}]\n\
         ---\nroutes: [{name: r, cluster: 'h.example:80'}]\n",
    );
    let config = loaded(&[("a.yaml", &text)]).unwrap().config;
    let labels = format!("{:?}", config.clusters[0].endpoints);
    for text in ["${env:SECRET}", "\"$${x}\"", "\"${PORT}\""] {
        assert!(labels.contains(text), "{labels}");
    }
    let printed = to_yaml(&translated(&text[..text.find("---").unwrap()]).root);
    let again = loaded(&[
        ("b.yaml", &printed),
        ("c.yaml", "routes: [{name: r, cluster: 'h.example:80'}]"),
    ]);
    let again = again.unwrap_or_else(|problems| panic!("{problems}\n{printed}"));
    assert_eq!(format!("{:?}", again.config.clusters[0].endpoints), labels);
}

#[test]
fn nothing_becomes_nothing() {
    round_trip("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n");
}

#[test]
fn every_text_survives_printing() {
    let odd = [
        "",
        " ",
        "yes",
        "5",
        "1.10",
        "null",
        "~",
        "a: b",
        "- x",
        "# c",
        "x #y",
        "\"q\"",
        "'q'",
        "/'",
        "l1\nx\"",
        "l1\nl2\n",
        "\n",
        "tab\t",
        "é",
        "%",
        "@",
        "`",
        "{",
        "[",
        "!t",
        "&a",
        "*a",
        "|",
        ">",
        "0x10",
        "1e3",
        "2026-01-01",
        "\u{7f}\u{1}",
        "$1",
        "${x}",
        "\r\n",
        ".inf",
        "=",
        "<<",
        "trailing ",
        "very long ".repeat(40).as_str(),
    ]
    .map(str::to_owned);
    let at = parsed("a: 1\n")[0].position.clone();
    let text = |text: &String| Node {
        position: at.clone(),
        value: Value::Scalar(Scalar {
            kind: Kind::Text,
            text: text.clone(),
            unexpanded: None,
        }),
    };
    let list = Node {
        position: at.clone(),
        value: Value::List(odd.iter().map(text).collect()),
    };
    let printed = to_yaml(&list);
    let again = parsed(&printed).remove(0);
    let Value::List(items) = again.value else {
        panic!("{printed}")
    };
    for (item, text) in items.iter().zip(&odd) {
        let scalar = item.scalar().unwrap();
        assert_eq!((&scalar.text, scalar.kind), (text, Kind::Text), "{printed}");
    }
    assert_eq!(items.len(), odd.len());
}
