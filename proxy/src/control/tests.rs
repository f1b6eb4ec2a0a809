//! Weights beyond the files, on a proxy without workers.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::{GivenWeights, RouteWeights, Status, WeightsError};
use crate::admin::testing::Stage;
use crate::cluster::{Candidate, Verdict};

const SPLIT: &str = "\
listeners: [{name: main, address: '127.0.0.1:0'}]
routes:
- {name: r, split: [{cluster: a, weight: 100}, {cluster: b, weight: 0}]}
- {name: twice, match: {path: {prefix: /t}}, split: [{cluster: a, weight: 1}, {cluster: a, weight: 2}]}
- {name: ping, match: {path: {exact: /ping}}, respond: {body: pong}}
clusters:
- {name: a, endpoints: ['127.0.0.1:8001']}
- {name: b, endpoints: ['127.0.0.1:8002']}
";
const MINUTE: Duration = Duration::from_secs(60);

fn named(weights: &[(&str, u32)]) -> GivenWeights {
    let pairs = weights
        .iter()
        .map(|(name, weight)| ((*name).to_owned(), *weight));
    GivenWeights::ByName(pairs.collect())
}

/// Cluster and weight of each member of a route, as the workers would see them.
fn serves(stage: &Stage, route: &str) -> Vec<(String, u32)> {
    let snapshot = stage.control.snapshot();
    let mut seen = None;
    for listener in &snapshot.listeners {
        let view = listener.routes.iter().find(|r| r.config.name == route);
        let split = view.and_then(|view| view.split.as_ref());
        seen = split.map(|split| {
            let members = split.members();
            let pair = |(member, weight): (&crate::snapshot::MemberView, u32)| {
                (member.cluster.config.name.clone(), weight)
            };
            members.map(pair).collect()
        });
    }
    seen.unwrap()
}

fn weights(stage: &Stage) -> Vec<u32> {
    let members = serves(stage, "r");
    members.into_iter().map(|(_, weight)| weight).collect()
}

fn effective(weights: &RouteWeights) -> Vec<u32> {
    weights.members.iter().map(|m| m.effective).collect()
}

async fn rewrite(stage: &Stage, text: &str) -> Status {
    std::fs::write(&stage.file, text).unwrap();
    stage.control.reload().await.unwrap()
}

/// Waits until the route serves by these weights; until then it does what it is asked to.
async fn until_weights(stage: &Stage, wanted: &[u32], mut meanwhile: impl FnMut()) {
    let reached = async {
        while weights(stage) != wanted {
            meanwhile();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_secs(20), reached).await;
    assert!(reached.is_ok(), "{:?}", serves(stage, "r"));
}

#[tokio::test(start_paused = true)]
async fn weights_hold_for_their_time_and_then_those_of_the_files_do() {
    let stage = Stage::new(SPLIT).await;
    let given = named(&[("a", 90), ("b", 10)]);
    let answer = stage.control.set_weights("r", given, Some(15 * MINUTE));
    let answer = answer.await.unwrap();
    assert_eq!((effective(&answer), answer.generation), (vec![90, 10], 2));
    assert!(answer.overridden && answer.expires_at.is_some());
    assert_eq!(weights(&stage), [90, 10]);
    let status = stage.control.status();
    assert_eq!((status.generation, &*status.hash), (2, "0123456789abcdef"));
    assert_eq!(
        json!(status.overrides),
        json!([{"route": "r", "weights": {"a": 90, "b": 10}, "configured": {"a": 100, "b": 0},
                "expires_at": answer.expires_at}])
    );
    tokio::time::sleep(15 * MINUTE - Duration::from_secs(1)).await;
    assert_eq!(weights(&stage), [90, 10]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    until_weights(&stage, &[100, 0], || {}).await;
    let status = stage.control.status();
    assert_eq!((status.generation, status.overrides.len()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn later_weights_replace_those_before_with_their_end() {
    let stage = Stage::new(SPLIT).await;
    let control = &stage.control;
    let first = control.set_weights("r", named(&[("b", 10)]), Some(MINUTE));
    assert_eq!(effective(&first.await.unwrap()), [100, 10]);
    let second = control.set_weights("r", GivenWeights::InOrder(vec![1, 2]), None);
    assert_eq!(second.await.unwrap().expires_at, None);
    tokio::time::sleep(2 * MINUTE).await;
    assert_eq!(weights(&stage), [1, 2]);
    let cleared = control.clear_weights("r").await.unwrap();
    assert_eq!(
        (effective(&cleared), cleared.overridden),
        (vec![100, 0], false)
    );
    let generation = control.status().generation;
    control.clear_weights("r").await.unwrap();
    assert_eq!(control.status().generation, generation, "nothing changed");
}

#[tokio::test]
async fn weights_survive_reloads_until_their_split_changes_on_disk() {
    let stage = Stage::new(SPLIT).await;
    let given = named(&[("a", 1), ("b", 1)]);
    stage.control.set_weights("r", given, None).await.unwrap();
    let status = rewrite(&stage, &SPLIT.replace("pong", "peng")).await;
    assert_eq!((weights(&stage), status.overrides.len()), (vec![1, 1], 1));
    std::fs::write(&stage.file, "routes: [").unwrap();
    assert!(stage.control.reload().await.is_err());
    assert_eq!(weights(&stage), [1, 1]);
    let changed = SPLIT.replace("weight: 100", "weight: 70");
    let status = rewrite(&stage, &changed).await;
    assert_eq!((weights(&stage), status.overrides.len()), (vec![70, 0], 0));
    let note = "the weights set by API for route `r` were dropped: its split changed on disk";
    assert_eq!(status.warnings.last().unwrap(), note);
    let given = named(&[("b", 1)]);
    stage.control.set_weights("r", given, None).await.unwrap();
    assert!(!stage.control.status().warnings.iter().any(|w| w == note));
    let status = rewrite(&stage, &changed.replace("name: r,", "name: q,")).await;
    assert!(
        status
            .warnings
            .last()
            .unwrap()
            .ends_with("the route is gone")
    );
}

#[tokio::test]
async fn weights_that_cannot_be_are_refused() {
    let stage = Stage::new(SPLIT).await;
    let control = &stage.control;
    let illegal = [
        ("r", named(&[("c", 1)]), "`c` is no member"),
        ("r", named(&[("a", 0)]), "add up to"),
        ("r", named(&[("a", 1_000_001)]), "not 1000001"),
        ("r", GivenWeights::InOrder(vec![1]), "1 are given"),
        ("twice", named(&[("a", 1)]), "more than once"),
        ("ping", named(&[("a", 1)]), "has no split"),
    ];
    for (route, given, told) in illegal {
        let error = control.set_weights(route, given, None).await.unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
    }
    let unknown = control.set_weights("x", named(&[("a", 1)]), None).await;
    assert_eq!(unknown.unwrap_err(), WeightsError::UnknownRoute("x".into()));
    for time in [Duration::ZERO, 400 * 24 * 60 * MINUTE] {
        let set = control.set_weights("r", named(&[("b", 1)]), Some(time));
        assert!(set.await.is_err());
    }
    assert_eq!(control.status().generation, 1);
    let list = GivenWeights::InOrder(vec![3, 4]);
    let answer = control.set_weights("twice", list, None).await.unwrap();
    assert_eq!(effective(&answer), [3, 4]);
    assert_eq!(
        json!(control.status().overrides)[0]["weights"],
        json!([3, 4])
    );
}

/// `b` is found by a name that nobody answers for.
const READY: &str = "\
listeners: [{name: main, address: '127.0.0.1:0'}]
routes:
- {name: r, cutover: ready, split: [{cluster: a, weight: 100}, {cluster: b, weight: 0}]}
clusters:
- {name: a, endpoints: ['127.0.0.1:8001']}
- {name: b, discover: {dns: {name: nowhere.invalid, port: 80, refresh: 1h}}}
";

/// As discovery does, which soon finds the name without an answer again.
fn appear(stage: &Stage, cluster: &str) {
    let snapshot = stage.control.snapshot();
    let view = &snapshot.clusters[cluster];
    let candidate = Candidate {
        address: ([127, 0, 0, 1], 8002).into(),
        host: "127.0.0.1".into(),
        weight: 1,
    };
    view.state.update(vec![candidate], &view.config.balance);
}

#[tokio::test]
async fn a_larger_share_waits_for_an_endpoint() {
    let stage = Stage::new(READY).await;
    let new = READY
        .replace("weight: 100", "weight: 20")
        .replace("weight: 0", "weight: 80");
    let status = rewrite(&stage, &new).await;
    assert_eq!(weights(&stage), [100, 0]);
    let waits = json!([{"route": "r", "waiting_for": ["b"]}]);
    assert_eq!(json!(status.pending), waits);
    until_weights(&stage, &[20, 80], || appear(&stage, "b")).await;
    let status = stage.control.status();
    assert_eq!((status.pending.len(), status.generation), (0, 3));
}

#[tokio::test]
async fn a_later_reload_takes_back_what_still_waits() {
    let stage = Stage::new(READY).await;
    rewrite(&stage, &READY.replace("weight: 0", "weight: 80")).await;
    assert_eq!(weights(&stage), [100, 0]);
    let status = rewrite(&stage, READY).await;
    assert_eq!((weights(&stage), status.pending.len()), (vec![100, 0], 0));
    appear(&stage, "b");
    let answer = stage
        .control
        .set_weights("r", named(&[("a", 0), ("b", 1)]), None);
    assert_eq!(effective(&answer.await.unwrap()), [0, 1]);
}

#[tokio::test]
async fn weights_by_api_wait_for_endpoints_as_well() {
    let stage = Stage::new(READY).await;
    let given = named(&[("a", 90), ("b", 10)]);
    let answer = stage.control.set_weights("r", given, None).await.unwrap();
    assert_eq!((effective(&answer), answer.generation), (vec![100, 0], 1));
    assert_eq!(
        (answer.overridden, answer.waiting_for),
        (true, vec!["b".to_owned()])
    );
    until_weights(&stage, &[90, 10], || appear(&stage, "b")).await;
}

#[tokio::test]
async fn who_leaves_a_split_serves_until_those_who_stay_can() {
    let stage = Stage::new(READY).await;
    let split = "split: [{cluster: a, weight: 100}, {cluster: b, weight: 0}]";
    let status = rewrite(&stage, &READY.replace(split, "cluster: b")).await;
    let both = [("b".to_owned(), 0), ("a".to_owned(), 100)];
    assert_eq!(serves(&stage, "r"), both);
    assert_eq!(status.pending[0].waiting_for, ["b"]);
    until_weights(&stage, &[1], || appear(&stage, "b")).await;
    assert_eq!(serves(&stage, "r"), [("b".to_owned(), 1)]);
}

#[tokio::test]
async fn a_member_that_is_ready_takes_its_share_with_the_reload() {
    let stage = Stage::new(READY).await;
    let split = "split: [{cluster: a, weight: 100}, {cluster: b, weight: 0}]";
    let new = READY.replace(
        split,
        "split: [{cluster: a, weight: 1}, {cluster: c, weight: 1}]",
    ) + "- {name: c, endpoints: ['127.0.0.1:8003']}\n";
    let status = rewrite(&stage, &new).await;
    assert_eq!((weights(&stage), status.generation), (vec![1, 1], 2));
}

#[tokio::test(start_paused = true)]
async fn an_ejection_that_is_over_keeps_no_weights_waiting() {
    let stage = Stage::new(
        "\
listeners: [{name: main, address: '127.0.0.1:0'}]
routes:
- {name: r, cutover: ready, split: [{cluster: a, weight: 100}, {cluster: b, weight: 0}]}
clusters:
- {name: a, endpoints: ['127.0.0.1:8001']}
- {name: b, endpoints: ['127.0.0.1:8002'], outlier: {consecutive_5xx: 1, base: 5s, keep_at_least: 0}}
",
    )
    .await;
    let snapshot = stage.control.snapshot();
    let view = &snapshot.clusters["b"];
    view.state.settle(&view.config);
    let endpoint = Arc::clone(&view.state.endpoints().endpoints[0]);
    let outlier = view.config.outlier.as_ref();
    view.state
        .observe(&endpoint, None, Verdict::Failed, outlier);
    let given = named(&[("a", 90), ("b", 10)]);
    let answer = stage.control.set_weights("r", given, None).await.unwrap();
    assert_eq!(answer.waiting_for, ["b"]);
    until_weights(&stage, &[90, 10], || {}).await;
}

#[tokio::test]
async fn every_overlay_that_a_reload_ends_is_told_of() {
    let stage = Stage::new(SPLIT).await;
    let control = &stage.control;
    let lists = [("r", vec![1, 1]), ("twice", vec![5, 5])];
    for (route, weights) in lists {
        let given = GivenWeights::InOrder(weights);
        control.set_weights(route, given, None).await.unwrap();
    }
    let changed = SPLIT
        .replace("weight: 100", "weight: 70")
        .replace("weight: 2", "weight: 3");
    let told = |status: &Status, route: &str| {
        let name = format!("`{route}` were dropped");
        status.warnings.iter().any(|w| w.contains(&name))
    };
    let status = rewrite(&stage, &changed).await;
    assert!(told(&status, "r") && told(&status, "twice"));
    let status = rewrite(&stage, &changed.replace("pong", "peng")).await;
    assert!(told(&status, "r"), "until somebody looked after it");
    control.clear_weights("r").await.unwrap();
    let status = control.status();
    assert!(!told(&status, "r") && told(&status, "twice"));
}
