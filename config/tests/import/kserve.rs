//! InferenceServices become routes to their Services.

use std::sync::Arc;
use std::time::Duration;

use forebay_config::import::{Format, Options, to_yaml, translate};
use forebay_config::load::load;
use forebay_config::node::parse_documents;
use forebay_config::route::{Lookup, ModelName, RequestHead, RouteTable};
use forebay_config::{Action, Config, Route};
use http::{HeaderMap, Method};

use crate::support::{file, findings, loaded, parsed, round_trip, translated};

const CORPUS: &str = include_str!("corpus/kserve.yaml");

/// An InferenceService `ml/a` with this `spec`, in a Deployment.
fn standard(spec: &str) -> String {
    service("{serving.kserve.io/deploymentMode: Standard}", spec)
}

/// An InferenceService `ml/a` with these annotations and this `spec`.
fn service(annotations: &str, spec: &str) -> String {
    format!(
        "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\n\
         metadata: {{name: a, namespace: ml, annotations: {annotations}}}\nspec:\n{spec}\n"
    )
}

fn config(text: &str) -> Config {
    let loaded = loaded(&[("a.yaml", text)]);
    loaded
        .unwrap_or_else(|problems| panic!("{problems}"))
        .config
}

/// Where a request goes: clusters with their weights, and the host that they are told.
fn ask(config: &Config, host: &str, path: &str) -> String {
    let routes: Vec<Arc<Route>> = config.routes.to_vec();
    let table = RouteTable::new(&routes);
    let head = RequestHead {
        host,
        path,
        query: None,
        method: &Method::POST,
        headers: &HeaderMap::new(),
        model: ModelName::None,
    };
    let Lookup::Found { route, .. } = table.find(&head) else {
        return "none".to_owned();
    };
    let Action::Forward(members) = &routes[route].action else {
        return "no cluster".to_owned();
    };
    let names = members.iter();
    let names: Vec<String> = names
        .map(|one| match members.len() {
            1 => one.cluster.clone(),
            _ => format!("{}*{}", one.cluster, one.weight),
        })
        .collect();
    let host = routes[route].rewrite.host.as_ref();
    let host = host.map_or_else(String::new, |host| {
        format!(" as {}", host.to_str().unwrap())
    });
    format!("{}{host}", names.join(" "))
}

#[test]
fn the_corpus_survives_printing() {
    round_trip(CORPUS);
}

#[test]
fn requests_go_through_the_transformer_and_explanations_to_the_explainer() {
    let config = config(CORPUS);
    let transformer = "ml/flowers-transformer-00005:80*20 ml/flowers-transformer-00004:80*80";
    let explainer = "ml/flowers-explainer-00002:80*30 ml/flowers-explainer-00001:80*70";
    let predictor = "ml/flowers-predictor-00002:80*10 ml/flowers-predictor-00001:80*90";
    for (host, path, expected) in [
        (
            "flowers.ml.example.com",
            "/v1/models/flowers:predict",
            transformer,
        ),
        (
            "flowers.ml.example.com",
            "/v1/models/flowers:explain",
            explainer,
        ),
        (
            "flowers.ml.svc.cluster.local",
            "/v2/models/flowers/explain",
            explainer,
        ),
        ("flowers.ml", "/v2/models/flowers/infer", transformer),
        (
            "flowers-predictor.ml.svc.cluster.local",
            "/v1/models/flowers:explain",
            predictor,
        ),
        (
            "flowers-predictor.ml",
            "/v1/models/flowers:predict",
            predictor,
        ),
        (
            "own.ml.svc",
            "/v1/chat/completions",
            "ml/own-predictor:80 as own-predictor.ml.svc.cluster.local",
        ),
        (
            "with-onnx.ml",
            "/v2/health/ready",
            "ml/with-onnx-predictor:80",
        ),
        ("with-onnx-predictor.ml", "/v2/health/ready", "none"),
        ("flowers.other", "/", "none"),
    ] {
        assert_eq!(ask(&config, host, path), expected, "{host}{path}");
    }
}

#[test]
fn revisions_of_a_canary_are_told_who_is_meant() {
    let printed = to_yaml(&translated(CORPUS).root);
    let member = "  - cluster: ml/flowers-predictor-00001:80\n    weight: 90\n    request_headers:\n      set:\n\
                  \x20       knative-serving-namespace: ml\n        knative-serving-revision: flowers-predictor-00001\n";
    assert!(printed.contains(member), "{printed}");
}

#[test]
fn a_canary_without_revisions_is_left_to_knative() {
    let text = service("{}", "  predictor: {canaryTrafficPercent: 10, sklearn: {}}");
    let entry = "ml/a-predictor:80 as a-predictor.ml.svc.cluster.local";
    assert_eq!(ask(&config(&text), "a.ml", "/"), entry);
    assert_eq!(
        findings(&translated(&text))[1],
        "5:37 approximated spec.predictor.canaryTrafficPercent: Knative splits, behind this proxy: the revisions are not in `status`"
    );
    let text = standard("  predictor: {canaryTrafficPercent: 10, sklearn: {}}");
    assert_eq!(
        findings(&translated(&text))[1],
        "5:37 lost spec.predictor.canaryTrafficPercent: there are no revisions without Knative: write a `split`"
    );
}

#[test]
fn the_kind_of_server_is_that_of_the_runtime_that_kserve_takes() {
    for (predictor, expected) in [
        ("sklearn: {}", "KserveV1"),
        ("sklearn: {protocolVersion: v2}", "KserveV2"),
        ("xgboost: {protocolVersion: grpc-v2}", "KserveV2 Http2"),
        ("tensorflow: {}", "TensorflowServing"),
        (
            "tensorflow: {protocolVersion: grpc-v1}",
            "TensorflowServing Http2",
        ),
        ("pytorch: {}", "KserveV1"),
        ("triton: {}", "Triton"),
        ("onnx: {}", "Triton"),
        ("huggingface: {}", "KserveV2"),
        ("huggingface: {protocolVersion: v1}", "KserveV1"),
        ("model: {modelFormat: {name: sklearn}}", "KserveV1"),
        ("model: {modelFormat: {name: mlflow}}", "KserveV2"),
        (
            "model: {modelFormat: {name: tensorflow}, protocolVersion: v2}",
            "Triton",
        ),
        (
            "model: {modelFormat: {name: sklearn}, runtime: kserve-mlserver}",
            "KserveV2",
        ),
        (
            "model: {modelFormat: {name: vLLM}, runtime: vllm-cuda}",
            "Vllm",
        ),
        (
            "model: {modelFormat: {name: onnx}, runtime: my-ovms}",
            "KserveV2",
        ),
        (
            "model: {modelFormat: {name: mine}, protocolVersion: v2}",
            "KserveV2",
        ),
        ("model: {modelFormat: {name: mine}}", "Generic"),
        (
            "containers: [{image: nvcr.io/nvidia/tritonserver:25.01}]",
            "Triton",
        ),
        ("containers: [{image: mine}]", "Generic"),
    ] {
        let config = config(&standard(&format!("  predictor: {{{predictor}}}")));
        let cluster = &config.clusters[0];
        let mut kind = format!("{:?}", cluster.server);
        if format!("{:?}", cluster.protocol) == "Http2" {
            kind.push_str(" Http2");
        }
        assert_eq!(kind, expected, "{predictor}");
    }
}

#[test]
fn limits_of_components_are_those_of_their_cluster() {
    let knative = "{}";
    let deployed = "{serving.kserve.io/deploymentMode: RawDeployment}";
    for (annotations, keys, expected) in [
        (knative, "minReplicas: 0", "0..10000 None"),
        (knative, "maxReplicas: 3", "1..3 None"),
        (knative, "maxReplicas: 0", "1..10000 None"),
        (deployed, "minReplicas: 2", "2..2 None"),
        (deployed, "minReplicas: 2, maxReplicas: 1", "2..2 None"),
        (knative, "scaleTarget: 5", "1..10000 Some(5.0)"),
        (
            deployed,
            "scaleTarget: 5, scaleMetric: concurrency",
            "1..1 Some(5.0)",
        ),
        (deployed, "scaleTarget: 80", ""),
        (knative, "scaleTarget: 80, scaleMetric: cpu", ""),
        (
            "{autoscaling.knative.dev/target: '7'}",
            "minReplicas: 1",
            "1..10000 Some(7.0)",
        ),
        (knative, "timeout: 5", ""),
    ] {
        let text = service(
            annotations,
            &format!("  predictor: {{{keys}, sklearn: {{}}}}"),
        );
        let config = config(&text);
        let scale = config.clusters[0].scale.as_ref();
        let scale = scale.map(|one| format!("{}..{} {:?}", one.min, one.max, one.target.in_flight));
        assert_eq!(scale.unwrap_or_default(), expected, "{keys}");
    }
    let text = standard(
        "  predictor: {containerConcurrency: 8, timeout: 5, scaleTarget: 9, scaleMetric: rps, sklearn: {}}",
    );
    let config = config(&text);
    let cluster = &config.clusters[0];
    assert_eq!(cluster.concurrency.map(u32::from), Some(8));
    assert!(cluster.scale.as_ref().unwrap().target.rate.is_some());
    assert_eq!(
        config.routes[0].timeouts.total,
        Some(Duration::from_secs(5))
    );
}

#[test]
fn without_limits_nothing_is_bounded() {
    let config = config(&standard(
        "  predictor: {containerConcurrency: 0, timeout: 0, sklearn: {}}",
    ));
    let cluster = &config.clusters[0];
    assert!(cluster.scale.is_none() && cluster.concurrency.is_none());
    assert_eq!(config.routes[0].timeouts.total, None);
}

#[test]
fn a_service_says_where_the_pods_are() {
    let services = "---\napiVersion: v1\nkind: Service\nmetadata: {name: a-predictor, namespace: ml}\n\
                    spec: {clusterIP: None, ports: [{port: 80, targetPort: 8080}]}\n";
    let text = standard("  predictor: {sklearn: {}}") + services;
    let config = config(&text);
    let found = format!("{:?}", config.clusters[0].discover);
    assert!(
        found.contains("a-predictor.ml.svc.cluster.local") && found.contains("8080"),
        "{found}"
    );
    let odd = text.replace("port: 80,", "port: 9000,");
    assert_eq!(ask(&self::config(&odd), "a.ml", "/"), "ml/a-predictor:9000");
    let none = text.replace("[{port: 80, targetPort: 8080}]", "[]");
    assert_eq!(
        findings(&translated(&none)).last().unwrap(),
        "5:14 lost spec.predictor: `ml/a-predictor` has no port 80"
    );
}

#[test]
fn a_service_for_the_cluster_alone_has_no_public_host() {
    let text = |label: &str| {
        format!(
            "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\n\
             metadata: {{name: a, namespace: ml, labels: {{{label}}}}}\nspec: {{predictor: {{sklearn: {{}}}}}}\n\
             status: {{url: 'https://a.example.com:8443/x'}}\n"
        )
    };
    let entry = "ml/a-predictor:80 as a-predictor.ml.svc.cluster.local";
    let open = config(&text("team: x"));
    assert_eq!(ask(&open, "a.example.com", "/"), entry);
    for key in [
        "networking.kserve.io/visibility",
        "networking.knative.dev/visibility",
    ] {
        let closed = text(&format!("{key}: cluster-local"));
        assert_eq!(ask(&config(&closed), "a.example.com", "/"), "none");
        assert_eq!(ask(&config(&closed), "a.ml", "/"), entry);
        assert_eq!(findings(&translated(&closed)), [""; 0]);
    }
}

#[test]
fn what_is_wrong_is_found_where_it_is() {
    let head = "2:7 lost : ";
    for (spec, expected) in [
        ("{}", "`spec.predictor` is missing"),
        ("[]", "`spec` is missing"),
        (
            "{transformer: {containers: []}}",
            "`spec.predictor` is missing",
        ),
    ] {
        let text = format!(
            "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {{name: a}}\nspec: {spec}\n"
        );
        assert_eq!(
            findings(&translated(&text)),
            [format!("{head}{expected}")],
            "{spec}"
        );
    }
    let mesh = service(
        "{serving.kserve.io/deploymentMode: ModelMesh}",
        "  predictor: {sklearn: {}}",
    );
    assert!(findings(&translated(&mesh))[0].starts_with("2:7 lost : with ModelMesh"));
    let name = standard("  predictor: {sklearn: {}}").replace("name: a,", "name: A b,");
    assert!(findings(&translated(&name))[0].starts_with("2:7 lost : its name and namespace"));
    let text = standard(
        "  predictor:\n    minReplicas: many\n    maxReplicas: -1\n    scaleTarget: [1]\n    timeout: 1.5\n    minReplica: 1\n\
         \x20   containerConcurrency: {}\n    canaryTrafficPercent: 101\n    logger: {mode: all}\n    batcher: {}\n\
         \x20   model: {modelFormat: x, protocolVersion: v9, storageUri: s, protocol: v1}",
    );
    let found = findings(&translated(&text));
    assert_eq!(
        found[1..],
        [
            "6:18 lost spec.predictor.minReplicas: expected a whole number from 0 to 10000, found the string `many`",
            "7:18 lost spec.predictor.maxReplicas: expected a whole number from 0 to 10000, found the number `-1`",
            "8:18 lost spec.predictor.scaleTarget: expected a whole number from 1 to 1000000000, found a list; replicas are wanted by requests here: write `target` of `scale`, or keep the HPA",
            "9:14 lost spec.predictor.timeout: expected a whole number from 0 to 31536000, found the number `1.5`",
            "10:5 lost spec.predictor.minReplica: not translated",
            "11:27 lost spec.predictor.containerConcurrency: expected a whole number from 0 to 1000000, found a map",
            "12:27 lost spec.predictor.canaryTrafficPercent: expected a whole number from 0 to 100, found the number `101`",
            "13:5 lost spec.predictor.logger: write `record` of the route",
            "14:5 lost spec.predictor.batcher: requests are not joined",
            "15:26 lost spec.predictor.model.modelFormat: expected a map, found the string `x`",
            "15:46 lost spec.predictor.model.protocolVersion: `v1`, `v2`, `grpc-v1` and `grpc-v2` are known",
            "15:62 approximated spec.predictor.model.storageUri: the pods stay with KServe; nothing here loads a model",
            "15:65 lost spec.predictor.model.protocol: not translated",
        ]
    );
}

/// Each line of the corpus once left out, and once with another value.
#[test]
fn no_document_makes_it_panic() {
    let one = CORPUS.split("---").next().unwrap();
    let lines: Vec<&str> = one.lines().collect();
    for index in 0..lines.len() {
        for value in ["", "[]", "-1", "{a: {b: [c]}}"] {
            let mut changed: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            match changed[index].split_once(": ") {
                Some((key, _)) if !value.is_empty() => changed[index] = format!("{key}: {value}"),
                _ => drop(changed.remove(index)),
            }
            let changed = file("a.yaml", &changed.join("\n"));
            if let (Some(documents), _) = parse_documents(&changed) {
                let printed = to_yaml(&translate(&documents, &Options::default()).root);
                let again = load(&[file("b.yaml", &printed)], &|_| None);
                assert!(again.is_ok(), "{}\n{printed}", lines[index]);
            }
        }
    }
}

#[test]
fn what_protects_is_not_lost_in_silence() {
    let text = service(
        "{security.opendatahub.io/enable-auth: 'true'}",
        "  predictor: {sklearn: {}}",
    );
    let refused = loaded(&[("a.yaml", &text)]).unwrap_err();
    assert_eq!(refused.first_error().unwrap().position.line, 3);
}

#[test]
fn other_kinds_of_kserve_are_findings() {
    let text = "apiVersion: serving.kserve.io/v1alpha1\nkind: InferenceGraph\nmetadata: {name: g}\nspec: {nodes: {}}\n---\n\
                apiVersion: serving.kserve.io/v1alpha1\nkind: ServingRuntime\nmetadata: {name: r}\nspec: {}\n---\n\
                apiVersion: serving.kserve.io/v1alpha1\nkind: ClusterServingRuntime\nmetadata: {name: r}\nspec: {}\n---\n\
                apiVersion: serving.kserve.io/v1alpha1\nkind: TrainedModel\nmetadata: {name: t}\nspec: {}\n---\n\
                apiVersion: serving.kserve.io/v1\nkind: InferenceService\nmetadata: {name: v}\nspec: {}\n";
    let found = findings(&translated(text));
    let places: Vec<&str> = found
        .iter()
        .map(|one| one.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        places,
        [
            "17:7 lost ",
            "22:7 lost ",
            "4:1 lost spec",
            "9:1 lost spec",
            "14:1 lost spec"
        ]
    );
}

#[test]
fn thousands_of_services_are_translated() {
    let one = |index: usize| {
        service("{}", "  predictor: {minReplicas: 0, sklearn: {}}")
            .replace("name: a,", &format!("name: a{index},"))
    };
    let many: Vec<String> = (0..2000).map(one).collect();
    let documents = parsed(&many.join("---\n"));
    let options = Options {
        format: Some(Format::Kserve),
        ..Options::default()
    };
    let translation = translate(&documents, &options);
    let printed = to_yaml(&translation.root);
    assert_eq!(printed.matches("- name: ml/a").count(), 4000);
}
