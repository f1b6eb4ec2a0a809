//! `forebay import` as a user calls it.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::Write;
use std::process::{Command, Output, Stdio};

const ROUTES: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: iris, namespace: ml}
spec:
  parentRefs: [{name: public}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /iris}}]
    backendRefs: [{name: iris, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: iris, namespace: ml}
spec: {ports: [{name: http, port: 80}]}
";

fn import(arguments: &[&str], document: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["import", "gateway-api", "-"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(document.as_bytes()).unwrap();
    drop(input);
    child.wait_with_output().unwrap()
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn what_is_printed_is_a_configuration() {
    let output = import(&["--resolve", "iris.ml:80=127.0.0.1:8000"], ROUTES);
    let (yaml, findings) = texts(&output);
    assert_eq!(output.status.code(), Some(0), "{findings}");
    assert!(yaml.contains("127.0.0.1:8000"), "{yaml}");
    let mut check = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(["validate", "-c", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = check.stdin.take().unwrap();
    input.write_all(yaml.as_bytes()).unwrap();
    drop(input);
    assert!(check.wait_with_output().unwrap().status.success());
}

#[test]
fn what_is_lost_is_named_with_its_place_and_exits_with_3() {
    let lossy = ROUTES.replace("  rules:", "  novelty: 1\n  rules:");
    let output = import(&[], &lossy);
    let (yaml, findings) = texts(&output);
    assert_eq!(output.status.code(), Some(3), "{findings}");
    assert!(findings.contains("-:6:"), "{findings}");
    assert!(findings.contains("lost: HTTPRoute ml/iris"), "{findings}");
    assert!(findings.contains("novelty"), "{findings}");
    assert!(yaml.contains("routes:"), "{yaml}");
    let output = import(&["--json"], &lossy);
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3));
    let lost = printed["findings"].as_array().unwrap();
    assert!(lost.iter().any(|finding| finding["level"] == "lost"));
}

#[test]
fn what_is_no_yaml_and_what_is_not_there_have_codes_of_their_own() {
    let output = import(&[], "kind: [");
    assert_eq!(output.status.code(), Some(1), "{:?}", texts(&output));
    let output = import(&["/nonexistent.yaml"], ROUTES);
    assert_eq!(output.status.code(), Some(2), "{:?}", texts(&output));
    let output = import(&["--resolve", "nonsense"], ROUTES);
    assert_eq!(output.status.code(), Some(2), "{:?}", texts(&output));
}
