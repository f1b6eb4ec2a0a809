//! Models by name, ports and endpoints without one: what is refused, what is odd, and how it reads.
#![allow(clippy::unwrap_used, reason = "a test")]

mod shipped;
mod told;

use forebay_config::{Action, Cluster, ServerKind};
use told::{codes, findings, fits_the_schema, loaded, says};

/// A file whose one cluster has these keys.
fn cluster(keys: &str) -> String {
    format!("routes: [{{name: r, cluster: c}}]\nclusters:\n- {{name: c, {keys}}}\n")
}

fn cluster_of(text: &str) -> Cluster {
    let (config, _) = loaded(text).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"));
    Cluster::clone(&config.clusters[0])
}

/// A file with these routes, and clusters `a` and `b` with these keys.
fn routes(routes: &str, a: &str, b: &str) -> String {
    let more = |keys: &str| match keys {
        "" => String::new(),
        keys => format!(", {keys}"),
    };
    let (a, b) = (more(a), more(b));
    format!(
        "routes:\n{routes}\nclusters:\n- {{name: a, endpoints: ['a:1']{a}}}\n- {{name: b, endpoints: ['b:1']{b}}}\n"
    )
}

const BY_MODEL: &str = "- {name: r, by_model: true}";

#[test]
fn names_of_models() {
    let endpoint = "endpoints: ['a:1']";
    let long = "m".repeat(256);
    for (models, code) in [
        ("[resnet]", ""),
        ("[]", ""),
        ("null", ""),
        ("[7, 3.10, 'a b', 'org/m:7b', Ünï]", ""),
        ("['${env:PORT}', 8]", ""),
        ("[m, m]", "E020"),
        ("['${env:PORT}', 7]", "E020"),
        ("m", "E012"),
        ("['']", "E013"),
        ("[true]", "E013"),
        ("[[m]]", "E012"),
        ("[null]", "E012"),
        ("[\"a\\nb\"]", "E013"),
        ("[\"a\\x7f\"]", "E013"),
        ("{m: n}", "E012"),
        (&format!("[{long}]"), ""),
        (&format!("[{long}m]"), "E013"),
    ] {
        codes(&cluster(&format!("{endpoint}, models: {models}")), code);
    }
    let text = cluster(&format!("{endpoint}, models: [b, a, 1.0]"));
    assert_eq!(cluster_of(&text).models, ["b", "a", "1.0"]);
    says(
        &cluster("endpoints: ['a:1'], models: [m, k, m]"),
        "3:48 E020 clusters[0] (c).models[2]: `m` is in the list twice",
        "remove one of them",
    );
    says(
        &cluster("endpoints: ['a:1'], models: ['']"),
        "3:42 E013 clusters[0] (c).models[0]: the string `` is not the name of a model",
        "1 to 256 bytes without control characters, as in `resnet50` or `qwen3:8b`",
    );
    says(
        &cluster("endpoints: ['a:1'], model: [m]"),
        "3:33 E010 clusters[0] (c): unknown key `model`",
        "did you mean `models`?",
    );
}

#[test]
fn routes_by_model() {
    for (route, a, b, code) in [
        ("by_model: true", "models: [m]", "models: [k]", ""),
        ("by_model: true", "models: [m]", "", "W001"),
        ("by_model: true", "models: []", "", "E015"),
        ("by_model: true", "", "", "E015"),
        ("by_model: true", "models: [m, k]", "models: [o, m]", "E020"),
        (
            "by_model: true",
            "models: [m, k]",
            "models: [k, m]",
            "E020 E020",
        ),
        ("by_model: false", "models: [m]", "models: [k]", "E013"),
        ("by_model: yes", "models: [m]", "models: [k]", "E012"),
        (
            "by_model: null, cluster: a",
            "models: [m]",
            "models: [m]",
            "W001",
        ),
        (
            "by_model: true, cluster: a",
            "models: [m]",
            "models: [k]",
            "E022",
        ),
        (
            "respond: {}, by_model: true",
            "models: [m]",
            "models: [k]",
            "E022",
        ),
        (
            "by_model: true, split: [{cluster: a}]",
            "models: [m]",
            "models: [k]",
            "E022",
        ),
        (
            "cluster: a, mirrors: [{cluster: b}]",
            "models: [m]",
            "models: [m]",
            "",
        ),
        (
            "by_model: true, sticky: {client_ip: true}",
            "models: [m]",
            "models: [k]",
            "W005",
        ),
        (
            "by_model: true, cutover: ready",
            "models: [m]",
            "models: [k]",
            "W005",
        ),
        (
            "by_model: true, cutover: at_once",
            "models: [m]",
            "models: [k]",
            "",
        ),
        (
            "by_model: true, wake: false",
            "models: [m]",
            "models: [k]",
            "W005",
        ),
        (
            "by_model: true, wake: false",
            "models: [m], scale: {observe: {}}",
            "models: [k]",
            "",
        ),
        (
            "by_model: true, wake: false",
            "scale: {observe: {}}",
            "models: [k]",
            "W001 W005",
        ),
        (
            "by_model: true, retry: {}, mirrors: [{cluster: b}], rewrite: {host: a}",
            "models: [m]",
            "models: [k]",
            "",
        ),
    ] {
        let mut found: Vec<&str> = code.split_whitespace().collect();
        found.sort_unstable();
        let text = routes(&format!("- {{name: r, {route}}}"), a, b);
        let mut codes: Vec<&str> = findings(&text)
            .iter()
            .map(|one| one.code.as_str())
            .collect();
        codes.sort_unstable();
        assert_eq!(codes, found, "{text}\n{:#?}", findings(&text));
    }
    let text = routes(BY_MODEL, "models: [m, k]", "models: [o]");
    assert!(fits_the_schema(&text));
    let (config, _) = loaded(&text).unwrap();
    assert!(matches!(config.routes[0].action, Action::ByModel));
}

#[test]
fn what_is_wrong_with_routes_by_model_names_the_places() {
    says(
        &routes(BY_MODEL, "models: [m, k]", "models: [o, m]"),
        "5:45 E020 clusters[1] (b).models[1]: another cluster serves `m` as well, and the route `r` goes by the name",
        "the first one is at a.yaml:4; leave it to one of them",
    );
    says(
        &routes(BY_MODEL, "", ""),
        "2:23 E015 routes[0] (r): `by_model` finds nothing, because no cluster has `models`",
        "give clusters `models: [NAME]`, or use `cluster: NAME`",
    );
    says(
        &routes("- {name: r, by_model: false}", "models: [m]", ""),
        "2:23 E013 routes[0] (r).by_model: `false` says nothing here",
        "remove the key, or write `true`; `null` switches a default off",
    );
    says(
        &routes("- {name: r, by_model: true, cluster: a}", "models: [m]", ""),
        "2:38 E022 routes[0] (r): a route has exactly one of `cluster`, `split`, `by_model`, `redirect` and `respond`, this one has `by_model` and `cluster`",
        "remove `by_model` or `cluster`",
    );
    says(
        &routes(
            "- {name: r, by_model: true, cutover: ready}",
            "models: [m]",
            "",
        ),
        "2:38 W005 routes[0] (r).cutover: has no effect, because `by_model` has no weights",
        "weights are those of a `split`",
    );
    let tcp = "listeners: [{name: t, address: '127.0.0.1:0', protocol: tcp}]\n";
    let route = "- {name: r, listeners: [t], by_model: true}";
    says(
        &format!("{tcp}{}", routes(route, "models: [m]", "models: [k]")),
        "3:25 E024 routes[0] (r): the tcp listener `t` can only forward",
        "use `cluster` or `split`",
    );
}

#[test]
fn defaults_and_variables() {
    let text = "defaults: {route: {by_model: true, match: {model: m}}, cluster: {server: vllm, ports: {grpc: 5, http: 6}, models: [m]}}\n\
                routes:\n- {name: r}\n- {name: s, split: [{cluster: a}, {cluster: b}], match: {path: {exact: /s}, model: null}}\n\
                clusters:\n- {name: a, endpoints: [a], ports: {http: '${env:PORT}', grpc: null}}\n- {name: b, endpoints: [b], models: []}\n";
    let (config, warnings) = loaded(text).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(warnings, []);
    assert!(fits_the_schema(text));
    assert!(matches!(config.routes[0].action, Action::ByModel));
    assert!(matches!(config.routes[1].action, Action::Forward(_)));
    let models = [0, 1].map(|route: usize| config.routes[route].matches[0].model.as_deref());
    assert_eq!(models, [Some("m"), None]);
    let [a, b] = &config.clusters[..] else {
        panic!()
    };
    assert_eq!((a.ports.http, a.ports.grpc), (Some(7), None));
    assert_eq!((b.ports.http, b.ports.grpc), (Some(6), Some(5)));
    assert_eq!((a.endpoints[0].port, b.endpoints[0].port), (7, 6));
    assert_eq!((a.models.len(), b.models.len()), (1, 0));
}

#[test]
fn matches_on_a_model() {
    for (keys, a, code) in [
        ("cluster: a, match: {model: m}", "models: [m]", ""),
        ("cluster: a, match: {model: k}", "models: [m, k]", ""),
        ("cluster: a, match: {model: m}", "", ""),
        ("cluster: a, match: {model: o}", "models: [m]", "W016"),
        (
            "cluster: a, match: [{model: m}, {model: o}, {model: p}]",
            "models: [m]",
            "W016 W016",
        ),
        ("by_model: true, match: {model: z}", "models: [m]", ""),
        ("by_model: true, match: {model: o}", "models: [m]", "W016"),
        (
            "split: [{cluster: a}, {cluster: b}], match: {model: z}",
            "models: [m]",
            "",
        ),
        (
            "split: [{cluster: a}, {cluster: b}], match: {model: o}",
            "models: [m]",
            "W016",
        ),
        (
            "respond: {status: 410}, match: {model: o}",
            "models: [m]",
            "W001",
        ),
        ("cluster: a, match: {model: ''}", "", "E013"),
        ("cluster: a, match: {model: true}", "", "E013"),
        ("cluster: a, match: {model: [m]}", "", "E012"),
        ("cluster: a, match: {models: m}", "", "E010"),
    ] {
        let file = format!(
            "- {{name: r, {keys}}}\n- {{name: s, cluster: b, match: {{path: {{exact: /s}}}}}}"
        );
        codes(&routes(&file, a, "models: [z]"), code);
    }
    says(
        &routes(
            "- {name: r, cluster: a, match: {model: resnt}}",
            "models: [resnet]",
            "",
        ),
        "2:40 W016 routes[0] (r).match.model: no cluster of the route serves `resnt`",
        "did you mean `resnet`?",
    );
    says(
        &routes(
            "- {name: r, cluster: a, match: {model: other}}",
            "models: [resnet]",
            "",
        ),
        "2:40 W016 routes[0] (r).match.model: no cluster of the route serves `other`",
        "add it to the `models` of one of them",
    );
}

#[test]
fn a_model_is_a_condition_like_any_other() {
    let two = |first: &str, second: &str| {
        routes(
            &format!("- {{name: r, cluster: a, {first}}}\n- {{name: s, cluster: b, {second}}}"),
            "",
            "",
        )
    };
    for (first, second, code) in [
        ("match: {model: m}", "match: {}", ""),
        ("match: {model: m}", "match: {model: k}", ""),
        ("match: {model: m}", "match: {model: m}", "W002"),
        (
            "priority: 9, match: {model: m}",
            "match: {path: {prefix: /a}}",
            "",
        ),
        ("priority: 9, match: {}", "match: {model: m}", "W002"),
        (
            "match: {path: {prefix: /v1}, model: m}",
            "match: {path: {prefix: /v1}}",
            "",
        ),
    ] {
        codes(&two(first, second), code);
    }
}

#[test]
fn endpoints_without_a_port_have_that_of_their_server() {
    for (server, port) in [
        ("tensorflow-serving", 8501),
        ("torchserve", 8080),
        ("onnxruntime", 8001),
        ("triton", 8000),
        ("kserve-v1", 8080),
        ("kserve-v2", 8080),
        ("vllm", 8000),
        ("sglang", 30000),
        ("tgi", 3000),
        ("llama.cpp", 8080),
        ("ollama", 11434),
        ("bentoml", 3000),
    ] {
        let text = cluster(&format!(
            "server: {server}, endpoints: [10.0.0.1, '[FD00::1]', {{address: h}}, 'h:9']"
        ));
        codes(&text, "");
        let cluster = cluster_of(&text);
        let read = cluster.endpoints.iter().map(|one| (&*one.host, one.port));
        let wanted = [("10.0.0.1", port), ("fd00::1", port), ("h", port), ("h", 9)];
        assert_eq!(read.collect::<Vec<_>>(), wanted);
        assert_eq!(cluster.server.as_str(), server);
        assert_eq!(cluster.server.ports().http, Some(port));
    }
    assert_eq!(ServerKind::ALL.len(), 13);
    for (keys, code) in [
        ("endpoints: [h]", "E027"),
        ("server: generic, endpoints: ['h:1', h]", "E027"),
        ("ports: {http: 9}, endpoints: [h]", ""),
        ("ports: {grpc: 9}, endpoints: [h]", "E027"),
        ("ports: {http: 0}, endpoints: [h]", "E014"),
        ("ports: {http: 65536}, endpoints: [h]", "E014"),
        ("ports: {http: x}, endpoints: [h]", "E012"),
        ("ports: {https: 9}, endpoints: ['h:1']", "E010"),
        ("ports: 80, endpoints: ['h:1']", "E012"),
        ("ports: {}, endpoints: ['h:1']", ""),
        ("ports: {http: 9}, endpoints: ['h:1']", "W005"),
        ("ports: {http: 9}, endpoints: ['h:1', h]", ""),
        ("ports: {grpc: 9, metrics: 10}, endpoints: ['h:1']", ""),
        ("server: vlm, endpoints: [h]", "E013"),
        ("server: vllm, endpoints: [h, 'h:8000']", "E027"),
        (
            "server: vllm, ports: {http: 8001}, endpoints: [h, 'h:8000']",
            "",
        ),
        ("server: vllm, endpoints: [8000]", "E013"),
        ("server: vllm, endpoints: [true]", "E013"),
        ("server: vllm, endpoints: [10.0]", "E013"),
        ("server: vllm, endpoints: ['::1']", "E013"),
        ("server: vllm, endpoints: ['h:']", "E013"),
        ("server: vllm, endpoints: ['h/v1']", "E013"),
        (
            "scale: {process: {command: 'a ${PORT}'}}, ports: {metrics: 9}",
            "",
        ),
        (
            "scale: {max: 2, process: {command: 'a ${PORT}'}}, ports: {metrics: 9}",
            "E016",
        ),
        (
            "scale: {min: 2, process: {command: 'a ${PORT}'}}, ports: {grpc: 9}",
            "E016",
        ),
        (
            "scale: {process: {command: 'a ${PORT}'}}, ports: {http: 9}",
            "W005",
        ),
    ] {
        codes(&cluster(keys), code);
    }
}

#[test]
fn what_is_wrong_with_a_port_says_what_to_write() {
    let told = "this endpoint has no port, and `generic` servers have no usual one";
    for (endpoint, help) in [
        ("H", "write it: `h:8080`?"),
        ("'[fd00::1]'", "write it: `[fd00::1]:8080`?"),
    ] {
        says(
            &cluster(&format!("endpoints: [{endpoint}]")),
            &format!("3:25 E027 clusters[0] (c).endpoints[0]: {told}"),
            help,
        );
    }
    for (endpoint, shown, help) in [
        (
            "8080",
            "the number `8080`",
            "a host in front of the port: `127.0.0.1:8080`?",
        ),
        (
            "'fd00::1'",
            "the string `fd00::1`",
            "brackets and a port: `[fd00::1]:8080`?",
        ),
        (
            "'https://h'",
            "the string `https://h`",
            "drop the scheme and give the cluster `tls: {}`",
        ),
    ] {
        says(
            &cluster(&format!("endpoints: [{endpoint}]")),
            &format!("3:25 E013 clusters[0] (c).endpoints[0]: {shown} is not an endpoint"),
            help,
        );
    }
    says(
        &cluster("endpoints: ['h:1'], ports: {http: 9}"),
        "3:47 W005 clusters[0] (c).ports.http: has no effect, because no endpoint is written without a port",
        "",
    );
    says(
        &cluster("scale: {max: 3, process: {command: 'a ${PORT}'}}, ports: {grpc: 9}"),
        "3:77 E016 clusters[0] (c).ports.grpc: 3 replicas on one host cannot all listen on one port",
        "leave it out, and serve everything on `${PORT}`; or write `max: 1` in `scale`",
    );
}

#[test]
fn the_schema_refuses_what_can_be_seen_without_the_rest() {
    for keys in [
        "endpoints: ['a:1'], models: m",
        "endpoints: ['a:1'], models: ['']",
        "endpoints: ['a:1'], models: [true]",
        "endpoints: ['h/v1']",
        "endpoints: ['::1']",
        "endpoints: ['a:1'], ports: {http: 0}",
        "endpoints: ['a:1'], ports: {ssh: 22}",
    ] {
        assert!(!fits_the_schema(&cluster(keys)), "{keys}");
        assert!(loaded(&cluster(keys)).is_err(), "{keys}");
    }
    let text = routes("- {name: r, by_model: false}", "models: [m]", "");
    assert!(!fits_the_schema(&text));
}
