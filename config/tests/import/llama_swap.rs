//! The configuration of llama-swap becomes clusters of local processes.

use forebay_config::import::{Level, to_yaml};

use crate::llama_swap_support::{CMD, CORPUS, at, model, models, printed, swapped};
use crate::support::{findings, parsed};

#[test]
fn a_model_becomes_a_cluster_of_a_process() {
    assert_eq!(
        printed(CORPUS[0]),
        "routes:\n\
         - name: llama-swap/qwen\n\
         \x20 match:\n\
         \x20 - model: qwen\n\
         \x20 - model: gpt-4o\n\
         \x20 cluster: qwen\n\
         \x20 timeouts:\n\
         \x20   first_byte: 60s\n\
         \x20   idle: none\n\
         - name: llama-swap\n\
         \x20 by_model: true\n\
         \x20 timeouts:\n\
         \x20   first_byte: none\n\
         \x20   idle: none\n\
         clusters:\n\
         - name: qwen\n\
         \x20 server: llama.cpp\n\
         \x20 models:\n\
         \x20 - qwen\n\
         \x20 - gpt-4o\n\
         \x20 connect_timeout: 30s\n\
         \x20 keepalive:\n\
         \x20   idle: 90s\n\
         \x20 concurrency: 4\n\
         \x20 scale:\n\
         \x20   idle: 60s\n\
         \x20   start_timeout: 90s\n\
         \x20   preload: true\n\
         \x20   min_residency: 0s\n\
         \x20   gpu:\n\
         \x20     memory: 100%\n\
         \x20   process:\n\
         \x20     command: /opt/llama-server --port $${PORT} -ngl 10 -m ${env:HOME}/models/qwen.gguf\n\
         \x20     env:\n\
         \x20       A: b=c\n\
         \x20       TOKEN: ${env:TOKEN}\n\
         \x20       CUDA_VISIBLE_DEVICES: 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n\
         \x20     stop_timeout: 5s\n\
         - name: docker/llama_3\n\
         \x20 server: llama.cpp\n\
         \x20 models:\n\
         \x20 - llama-3\n\
         \x20 - docker/llama 3\n\
         \x20 concurrency: 10\n\
         \x20 queue:\n\
         \x20   heartbeat: 1s\n\
         \x20 scale:\n\
         \x20   idle: 300s\n\
         \x20   start_timeout: 90s\n\
         \x20   min_residency: 0s\n\
         \x20   gpu:\n\
         \x20     memory: 100%\n\
         \x20   process:\n\
         \x20     command: docker run --name x -p ${PORT}:8080 ghcr.io/ggml-org/llama.cpp:server\n\
         \x20     env:\n\
         \x20       CUDA_VISIBLE_DEVICES: 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n\
         \x20     stop: docker stop x\n\
         \x20     stop_timeout: 20s\n\
         - name: whisper\n\
         \x20 server: generic\n\
         \x20 models:\n\
         \x20 - whisper\n\
         \x20 health:\n\
         \x20   path: /v1/ready\n\
         \x20 concurrency: 10\n\
         \x20 queue:\n\
         \x20   heartbeat: 1s\n\
         \x20 scale:\n\
         \x20   idle: none\n\
         \x20   start_timeout: 90s\n\
         \x20   process:\n\
         \x20     command: whisper-server --port 9000\n\
         \x20     stop_timeout: 20s\n\
         \x20     address: 127.0.0.1:9000\n\
         gpus:\n\
         - index: 0\n\
         \x20 memory: 1GiB\n"
    );
}

#[test]
fn nothing_of_the_corpus_is_lost() {
    for text in CORPUS {
        let lost = swapped(text).findings;
        let lost: Vec<_> = lost.iter().filter(|one| one.level == Level::Lost).collect();
        assert!(lost.is_empty(), "{lost:?}");
    }
}

/// The printed file, parsed again, is the tree that was printed, but for variables of the environment.
#[test]
fn the_corpus_survives_printing() {
    for text in CORPUS {
        let printed = printed(text);
        let again = parsed(&printed).remove(0);
        assert_eq!(
            to_yaml(&again)
                .replace("$${env:", "${env:")
                .replace("$$${", "$${"),
            printed
        );
    }
}

#[test]
fn times_are_those_of_the_model_or_of_the_file() {
    for (file, own, idle, stop, start) in [
        ("", "", "none", "", "120s"),
        ("globalTTL: 30", "", "30s", "", "120s"),
        ("globalTTL: 30", "ttl: -1", "30s", "", "120s"),
        ("globalTTL: 30", "ttl: 0", "none", "", "120s"),
        ("globalTTL: 30", "ttl: 7", "7s", "", "120s"),
        ("unloadTimeout: 9", "", "none", "9s", "120s"),
        ("unloadTimeout: 9", "unloadTimeout: 3", "none", "3s", "120s"),
        ("unloadTimeout: 0", "unloadTimeout: 0", "none", "", "120s"),
        ("healthCheckTimeout: 500", "", "none", "", "500s"),
        ("healthCheckTimeout: 1", "", "none", "", "15s"),
    ] {
        let comma = if own.is_empty() { "" } else { ", " };
        let text = format!("{}{file}\n", model(&format!("{CMD}{comma}{own}")));
        let root = swapped(&text).root;
        let scale = |key: &str| at(&root, &format!("clusters.0.scale.{key}"));
        let times = (
            scale("idle"),
            scale("process.stop_timeout"),
            scale("start_timeout"),
        );
        assert_eq!(
            times,
            (idle.into(), stop.into(), start.into()),
            "{file} {own}"
        );
        assert_eq!(findings(&swapped(&text)), [""; 0], "{file} {own}");
    }
}

#[test]
fn servers_are_known_by_their_command_or_by_what_is_asked() {
    for (keys, server, path, kind) in [
        ("cmd: 'llama-server --port ${PORT}'", "llama.cpp", "", ""),
        ("cmd: 'x --port ${PORT}'", "llama.cpp", "", ""),
        (
            "cmd: 'x --port ${PORT}', checkEndpoint: /up",
            "generic",
            "/up",
            "",
        ),
        (
            "cmd: 'x --port ${PORT}', checkEndpoint: up",
            "generic",
            "/up",
            "",
        ),
        (
            "cmd: 'x --port ${PORT}', checkEndpoint: none",
            "generic",
            "",
            "tcp",
        ),
        ("cmd: 'vllm serve --port ${PORT}'", "vllm", "", ""),
        (
            "cmd: 'vllm serve --port ${PORT}', checkEndpoint: none",
            "vllm",
            "",
            "tcp",
        ),
        (
            "cmd: 'ollama serve ${PORT}', checkEndpoint: /api/version",
            "ollama",
            "",
            "",
        ),
        (
            "cmd: 'ollama serve ${PORT}', checkEndpoint: /",
            "ollama",
            "/",
            "",
        ),
    ] {
        let root = swapped(&model(keys)).root;
        let cluster = |key: &str| at(&root, &format!("clusters.0.{key}"));
        let found = (
            cluster("server"),
            cluster("health.path"),
            cluster("health.kind"),
        );
        assert_eq!(found, (server.into(), path.into(), kind.into()), "{keys}");
    }
}

#[test]
fn macros_are_replaced_and_unknown_ones_lose_the_model() {
    let text = "macros: {a: 1, b: '${a}${a}', bin: /bin/x, PORT: 5, 'b d': x}\n\
                models:\n  m:\n    macros: {a: 2, c: '${MODEL_ID}'}\n    cmd: '${bin} ${b} ${c} ${PORT}'\n\
                \x20   cmdStop: 'kill ${PID} ${a}'\n    proxy: 'http://127.0.0.${a}:80${a}'\n    checkEndpoint: '/${a}'\n\
                \x20 n:\n    cmd: 'x ${c} ${PORT}'\n    ttl: 5\n";
    let translation = swapped(text);
    let process = |key: &str| {
        at(
            &translation.root,
            &format!("clusters.0.scale.process.{key}"),
        )
    };
    assert_eq!(process("command"), "/bin/x 22 m ${PORT}");
    assert_eq!(process("stop"), "kill ${PID} 2");
    assert_eq!(process("address"), "127.0.0.2:802");
    assert_eq!(at(&translation.root, "clusters.0.health.path"), "/2");
    assert_eq!(at(&translation.root, "clusters.1.name"), "");
    assert_eq!(
        findings(&translation),
        [
            "1:9 lost macros: `PORT` is a reserved name; a name of a macro has letters, digits, `_` and `-`",
            "5:10 approximated models.m.cmd: `${PORT}` is the port of `proxy`",
            "8:20 approximated models.m.checkEndpoint: asked as long as it runs",
            "10:10 lost models.n.cmd: the macro `${c}` is not known",
            "11:5 lost models.n.ttl: not used here",
        ]
    );
}

#[test]
fn names_are_unique_over_all_models() {
    let text = "models:\n  a: {cmd: 'x ${PORT}', useModelName: same, aliases: [a, b, x, x]}\n\
                \x20 b: {cmd: 'x ${PORT}', useModelName: same, aliases: [x, y, '']}\n";
    let translation = swapped(text);
    assert_eq!(at(&translation.root, "clusters.0.models"), "same a x");
    assert_eq!(at(&translation.root, "clusters.1.models"), "b y");
    assert_eq!(
        findings(&translation),
        [
            "2:39 approximated models.a.useModelName: requests may use this name too",
            "2:54 lost models.a.aliases: `b` is another model's name",
            "3:39 lost models.b.useModelName: another model has the name, or nobody can: the server is told the own one",
            "3:54 lost models.b.aliases: `x` is another model's name; a name has 1 to 256 bytes without control characters",
        ]
    );
}

#[test]
fn clusters_of_odd_names_have_names_of_their_own() {
    let root = swapped(&models(&["'a b'", "a_b", "'a?b'"], "")).root;
    let names: Vec<String> = (0..3)
        .map(|index| at(&root, &format!("clusters.{index}.name")))
        .collect();
    assert_eq!(names, ["a_b", "a_b-2", "a_b-3"]);
}

#[test]
fn peers_are_asked_for_their_models() {
    let root = swapped(CORPUS[2]).root;
    for (path, expected) in [
        ("routes.0.match.0.model", "model_a"),
        ("routes.0.match.1.model", "embeddings/model_b"),
        ("routes.0.cluster", "other"),
        ("routes.0.rewrite.host", "192.168.1.23"),
        ("routes.0.rewrite.prefix", ""),
        ("routes.1.match.model", "big/one"),
        ("routes.1.match.path.prefix", "/"),
        ("routes.1.rewrite.prefix", "/api"),
        ("routes.1.rewrite.host", "openrouter.example"),
        ("routes.1.timeouts.first_byte", "60s"),
        (
            "routes.1.request_headers.set.authorization",
            "Bearer ${env:OPENROUTER_KEY}",
        ),
        (
            "routes.1.request_headers.set.x-api-key",
            "${env:OPENROUTER_KEY}",
        ),
        ("clusters.3.endpoints.0.address", "192.168.1.23:80"),
        ("clusters.4.name", "open_router"),
        ("clusters.4.endpoints.0.address", "openrouter.example:443"),
        ("clusters.4.tls.server_name", "openrouter.example"),
        ("clusters.4.connect_timeout", "5s"),
    ] {
        assert_eq!(at(&root, path), expected, "{path}");
    }
}
