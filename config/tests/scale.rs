//! Waiting rooms, replicas and processes: what is refused, what is odd, and how it reads.
#![allow(clippy::unwrap_used, reason = "a test")]

mod shipped;
mod told;

use forebay_config::{Driver, Process, Scale, ServerKind};
use told::{codes, findings, fits_the_schema, loaded, says};

/// A file whose one cluster has an endpoint and these keys.
fn cluster(keys: &str) -> String {
    format!(
        "routes: [{{name: r, cluster: c}}]\nclusters:\n- {{name: c, endpoints: ['10.0.0.1:1'], {keys}}}\n"
    )
}

/// A file whose one cluster has no endpoint and these keys, in `scale`.
fn scale(keys: &str) -> String {
    format!("routes: [{{name: r, cluster: c}}]\nclusters:\n- {{name: c, scale: {{{keys}}}}}\n")
}

/// A file whose one cluster is started by these keys of `process`.
fn process(keys: &str) -> String {
    scale(&format!("process: {{{keys}}}"))
}

fn scale_of(text: &str) -> Option<Scale> {
    let (config, _) = loaded(text).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"));
    config.clusters[0].scale.clone()
}

fn process_of(text: &str) -> Process {
    let Some(Driver::Process(process)) = scale_of(text).map(|scale| scale.driver) else {
        panic!("{text}")
    };
    process
}

#[test]
fn rooms() {
    for (keys, code) in [
        ("queue: {}", ""),
        ("queue: null", ""),
        ("queue: {max_bytes: 0}", ""),
        ("queue: {max_requests: 0}", "E014"),
        ("queue: {max_requests: 1000001}", "E014"),
        ("queue: {max_requests: none}", "E012"),
        ("queue: {saturated: 0s}", "E014"),
        ("queue: {empty: none}", "E013"),
        ("queue: {empty: 5}", "E013"),
        ("queue: {heartbeat: 5s}", ""),
        ("queue: {heartbeat: 100ms}", ""),
        ("queue: {heartbeat: 99ms}", "E014"),
        ("queue: {heartbeat: 2h}", "E014"),
        ("queue: {heartbeat: none}", ""),
        ("queue: {heartbeat: null}", ""),
        ("queue: {heartbeat: 5}", "E013"),
        ("queue: {heartbeat: true}", "E013"),
        ("queue: {heartbeat: 20m}", "W005"),
        ("queue: {heartbeat: 1m, saturated: 30s, empty: 1m}", "W005"),
        ("queue: {heartbeat: 59s, saturated: 30s, empty: 1m}", ""),
        ("queue: {heartbeat: 59s, saturated: 1m, empty: 30s}", ""),
        ("queue: {waiting_page: true}", "W005"),
        ("queue: {waiting_page: false}", ""),
        ("queue: {waiting_page: yes}", "E012"),
        ("queue: {waiting_page: true}, scale: {observe: {}}", ""),
        (
            "queue: {waiting_page: true}, scale: {observe: {a: 1}}",
            "E010",
        ),
        ("queue: 1000", "E012"),
        ("concurrency: 8", ""),
        ("concurrency: 0", "E014"),
    ] {
        codes(&cluster(keys), code);
    }
}

#[test]
fn replicas() {
    for (keys, code) in [
        ("", "E015"),
        ("min: 0", "E015"),
        ("observe: {}", ""),
        ("observe: null", "E015"),
        ("observe: true", "E012"),
        ("observe: {a: 1}", "E010"),
        ("webhook: {url: 'http://a/b'}", ""),
        ("webhook: {}", "E015"),
        ("webhook: {url: a}", "E013"),
        ("observe: {}, webhook: {url: 'http://a'}", "E016"),
        ("kubernetes: {}", "E011"),
        ("gpu_pods: {}, observe: {}", "E011"),
        ("observe: {}, target: {gpu: 0.8}", "E011"),
        ("observe: {}, target: {in_flight: 0.5, rate: 6/m}", ""),
        ("observe: {}, target: {in_flight: 0}", "E013"),
        ("observe: {}, target: {in_flight: '8'}", "E012"),
        ("observe: {}, target: {in_flight: 2e9}", "E013"),
        ("observe: {}, target: {rate: 50}", "E013"),
        ("observe: {}, max: 0", "E014"),
        ("observe: {}, min: -1", "E014"),
        ("observe: {}, min: 3", ""),
        ("observe: {}, min: 3, max: 3", ""),
        ("observe: {}, min: 3, max: 2", "E014"),
        ("observe: {}, panic_threshold: 1", "E013"),
        ("observe: {}, panic_threshold: 1.01", ""),
        ("observe: {}, max_down_rate: 1.0", "E013"),
        ("observe: {}, max_down_rate: .inf", "E012"),
        ("observe: {}, stable_window: 1s", "E014"),
        ("observe: {}, stable_window: 6s", "E014"),
        ("observe: {}, stable_window: 7s", ""),
        ("observe: {}, panic_window: 60s", "E014"),
        ("observe: {}, panic_window: 500ms", "E014"),
        ("observe: {}, stable_window: 2s, panic_window: 1s", ""),
        ("observe: {}, idle: 999ms", "E014"),
        ("observe: {}, idle: 1s", ""),
        ("observe: {}, idle: none", ""),
        ("observe: {}, idle: null", ""),
        ("observe: {}, start_timeout: none", "E013"),
        ("observe: {}, start_timeout: 99ms", "E014"),
        ("observe: {}, preload: yes", "E012"),
    ] {
        codes(&cluster(&format!("scale: {{{keys}}}")), code);
    }
    assert_eq!(
        scale_of(&cluster("scale: {observe: {}, min: 3}"))
            .unwrap()
            .max,
        3
    );
    assert_eq!(scale_of(&cluster("scale: null")), None);
    let driver = "for example `process: {command: \"llama-server --port ${PORT} -m m.gguf\"}`";
    says(
        &cluster("scale: {min: 1}"),
        "3:47 E015 clusters[0] (c).scale: nobody starts replicas: expected `process`, `webhook` or `observe`",
        driver,
    );
    codes(&scale("min: 1"), "E015");
    says(
        &cluster("scale: {observe: {}, webhook: {url: 'http://a'}}"),
        "3:70 E016 clusters[0] (c).scale: `observe` and `webhook` cannot both start replicas",
        "remove `observe` or `webhook`",
    );
    says(
        &cluster("scale: {observe: {a: 1}}"),
        "3:58 E010 clusters[0] (c).scale.observe: unknown key `a`",
        "there are no keys here: write `{}`",
    );
    says(
        &cluster("scale: {observe: {}, min: 3, max: 2}"),
        "3:74 E014 clusters[0] (c).scale.max: 2 is less than `min`, 3",
        "raise `max`, or write `min: 2` or less",
    );
    let windows = "bursts are looked for in a part of the stable window";
    says(
        &cluster("scale: {observe: {}, panic_window: 2m}"),
        "3:75 E014 clusters[0] (c).scale.panic_window: 2m is not shorter than `stable_window`, 1m",
        windows,
    );
    says(
        &cluster("scale: {observe: {}, stable_window: 5s}"),
        "3:76 E014 clusters[0] (c).scale.stable_window: 5s is not longer than `panic_window`, 6s",
        windows,
    );
    says(
        &cluster("scale: {observe: {}, panic_threshold: 1}"),
        "3:78 E013 clusters[0] (c).scale.panic_threshold: the number `1` is not a number above 1",
        "as in `8` or `1.5`, at most 1e9",
    );
    for keys in ["observe: {}", "webhook: {url: 'http://a'}"] {
        says(
            &scale(keys),
            "3:3 E027 clusters[0] (c): a cluster needs `endpoints` or `discover`",
            "add `endpoints: [\"127.0.0.1:8080\"]`",
        );
    }
}

#[test]
fn waits_that_nobody_has_are_odd() {
    says(
        &cluster("queue: {heartbeat: 20m}"),
        "3:59 W005 clusters[0] (c).queue.heartbeat: has no effect, because nobody waits as long as 20m",
        "a shorter one, or longer waits: `saturated` and `empty`",
    );
    says(
        &cluster("queue: {waiting_page: true}"),
        "3:62 W005 clusters[0] (c).queue.waiting_page: has no effect, because without `scale` nobody waits for a first replica",
        "",
    );
    says(
        &cluster("queue: {heartbeat: 50ms}"),
        "3:59 E014 clusters[0] (c).queue.heartbeat: 50ms is out of range: 100ms to 1h",
        "",
    );
}

#[test]
fn targets_by_what_servers_publish() {
    let kinds = ServerKind::ALL.map(ServerKind::as_str);
    for kind in kinds {
        for (key, value, those) in [
            ("queue", "5", "vllm sglang triton tgi llama.cpp"),
            ("kv_cache", "0.8", "vllm sglang triton"),
        ] {
            let text = cluster(&format!(
                "server: {kind}, scale: {{observe: {{}}, target: {{{key}: {value}}}}}"
            ));
            let publishes = those.split(' ').any(|one| one == kind);
            codes(&text, if publishes { "" } else { "E016" });
        }
    }
    for (target, code) in [
        ("queue: 0.5", ""),
        ("queue: 0", "E013"),
        ("queue: -1", "E013"),
        ("queue: '5'", "E012"),
        ("queue: null", ""),
        ("kv_cache: 80%", ""),
        ("kv_cache: 1", ""),
        ("kv_cache: 0.000001", ""),
        ("kv_cache: 0", "E013"),
        ("kv_cache: 0%", "E013"),
        ("kv_cache: 1.1", "E013"),
        ("kv_cache: 80", "E013"),
        ("kv_cache: none", "E013"),
        ("in_flight: 8, queue: 2, kv_cache: ${env:KV:-70%}", ""),
    ] {
        let target = target.replace("${env:KV:-70%}", "'${env:KV:-70%}'");
        let keys = format!("server: vllm, scale: {{observe: {{}}, target: {{{target}}}}}");
        codes(&cluster(&keys), code);
    }
    let target = |keys: &str| scale_of(&cluster(keys)).unwrap().target;
    let read = target("server: sglang, scale: {observe: {}, target: {queue: 5, kv_cache: 80%}}");
    assert_eq!((read.queue, read.kv_cache), (Some(5.0), Some(0.8)));
    assert_eq!((read.in_flight, read.rate), (None, None));
    says(
        &cluster("scale: {observe: {}, target: {queue: 5}}"),
        "3:77 E016 clusters[0] (c).scale.target.queue: `generic` servers publish no such number",
        "say which `server` it is; those that do are `triton`, `vllm`, `sglang`, `tgi`, `llama.cpp`",
    );
    says(
        &cluster("server: tgi, scale: {observe: {}, target: {kv_cache: 0.8}}"),
        "3:93 E016 clusters[0] (c).scale.target.kv_cache: `tgi` servers publish no such number",
        "say which `server` it is; those that do are `triton`, `vllm`, `sglang`",
    );
    // Which server it is cannot be read: that alone is wrong.
    codes(
        &cluster("server: vlm, scale: {observe: {}, target: {queue: 5}}"),
        "E013",
    );
}

#[test]
fn processes() {
    for (keys, code) in [
        ("", "E015"),
        ("command: 'a ${PORT}'", ""),
        ("command: a", "E015"),
        ("command: ['${PORT}']", ""),
        ("command: a, env: {P: '${PORT}'}", ""),
        ("command: a, env: {P: 1, Q: null, R: true}", "E015"),
        ("command: a, stop: 'b ${PORT}'", "E015"),
        ("command: 8, address: '127.0.0.1:1'", ""),
        ("command: true, address: '[::1]:1'", ""),
        ("command: a, address: '127.0.0.1:0'", "E013"),
        ("command: a, address: 'localhost:1'", "E013"),
        ("command: a, address: 8080", "E013"),
        ("command: ''", "E013"),
        ("command: ' '", "E013"),
        ("command: []", "E013"),
        ("command: ['', '${PORT}']", "E013"),
        ("command: '# ${PORT}'", "E013"),
        ("command: \"a 'b ${PORT}\"", "E013"),
        ("command: 'a ${PORT} \\'", "E013"),
        ("command: \"a ${PORT}\\0\"", "E013"),
        ("command: [a, [b]]", "E012"),
        ("command: {a: b}", "E012"),
        ("command: 'a ${PORT}', stop: []", "E013"),
        ("command: 'a ${PORT}', stop: 'kill ${PID}'", ""),
        ("command: 'a ${PORT}', stop_timeout: 0s", "E014"),
        ("command: 'a ${PORT}', directory: ''", "E013"),
        ("command: 'a ${PORT}', directory: /abs", ""),
        ("command: 'a ${PORT}', env: {'A=B': c}", "E013"),
        ("command: 'a ${PORT}', env: {A: \"b\\0\"}", "E013"),
        ("command: 'a ${PORT}', env: [A=b]", "E012"),
        ("command: 'a ${PORT}', cmd: a", "E010"),
    ] {
        codes(&process(keys), code);
    }
    says(
        &process("command: serve"),
        "3:30 E015 clusters[0] (c).scale.process: nobody knows where it listens",
        "pass `${PORT}` in `command` or `env`, or say `address: \"127.0.0.1:8080\"`",
    );
    for near in ["$PORT", "${port}", "{port}", "{PORT}"] {
        says(
            &process(&format!("command: 'serve {near}'")),
            "3:30 E015 clusters[0] (c).scale.process: nobody knows where it listens",
            "the port is written `${PORT}`",
        );
    }
    says(
        &process("command: \"serve 'a\""),
        "3:40 E013 clusters[0] (c).scale.process.command: the string `serve 'a` is not a command",
        "a quote is not closed, or a backslash is the last character",
    );
    says(
        &process("command: []"),
        "3:40 E013 clusters[0] (c).scale.process.command: this names no program",
        "for example `llama-server --port ${PORT} -m model.gguf`",
    );
    says(
        &process("command: 'a ${PORT}', env: {A: \"b\\0\"}"),
        "3:62 E013 clusters[0] (c).scale.process.env.A: a zero byte cannot be given to a program",
        "",
    );
    says(
        &process("command: 'a ${PORT}', env: {'A=B': c}"),
        "3:59 E013 clusters[0] (c).scale.process.env: `A=B` is not the name of a variable",
        "letters, digits and `_`, as in `CUDA_VISIBLE_DEVICES`",
    );
    says(
        &process("command: a, address: '127.0.0.1:0'"),
        "3:52 E013 clusters[0] (c).scale.process.address: port 0 is no place",
        "the port it listens on; without one, pass it `${PORT}`",
    );
    says(
        &scale("max: 2, process: {command: a, address: '127.0.0.1:1'}"),
        "3:60 E016 clusters[0] (c).scale.process.address: 2 replicas cannot all listen on one address",
        "pass `${PORT}` instead of `address`, or write `max: 1`",
    );
    for (key, value) in [
        ("endpoints", "['a:1']"),
        ("discover", "{dns: {name: a, port: 1}}"),
    ] {
        let file =
            process("command: 'a ${PORT}'").replace("scale:", &format!("{key}: {value}, scale:"));
        let place = 3 + "{name: c, ".len() + key.len() + ": ".len();
        says(
            &file,
            &format!(
                "3:{place} E016 clusters[0] (c): `{key}` and `scale.process` cannot both say who serves"
            ),
            &format!("remove `{key}`: the processes are the endpoints"),
        );
    }
    codes(
        &process("command: 'a ${PORT}'").replace("scale:", "endpoints: [], scale:"),
        "",
    );
}

#[test]
fn the_port_arrives_however_it_is_written() {
    let block = |command: &str| {
        format!(
            "routes: [{{name: r, cluster: c}}]\nclusters:\n- name: c\n  scale:\n    process:\n      command: {command}\n"
        )
    };
    for command in [
        "serve --port ${PORT}",
        "'serve --port ${PORT}'",
        "\"serve --port ${PORT}\"",
        "serve --port $${PORT}",
        "serve  --port '${PORT}'",
        "|\n        serve --port \\\n        ${PORT}",
        "|\n        serve # a comment\n        --port ${PORT}",
        ">-\n        serve\n        --port ${PORT}",
        "\n      - serve\n      - --port\n      - ${PORT}",
        "[serve, --port, '${PORT}']",
        "[\"serve\", \"--port\", \"$${PORT}\"]",
    ] {
        let text = block(command);
        assert_eq!(
            process_of(&text).command,
            ["serve", "--port", "${PORT}"],
            "{text}"
        );
        assert!(fits_the_schema(&text), "{text}");
    }
    let text = block("serve ${env:PORT} ${PORT} ${env:HOST:-${PORT}} $${env:PORT}");
    assert_eq!(
        process_of(&text).command,
        ["serve", "7", "${PORT}", "${PORT}", "${env:PORT}"]
    );
    let text = process("command: serve, env: {P: '${PORT}', Q: '$${PORT}', R: '${env:PORT}'}");
    let env: Vec<String> = process_of(&text).env.into_values().collect();
    assert_eq!(env, ["${PORT}", "${PORT}", "7"]);
}

/// Two routes with these keys, to a cluster `c` that sleeps and a cluster `d` that does not.
fn routes(first: &str, second: &str) -> String {
    format!(
        "routes:\n- {{name: r, {first}}}\n- {{name: s, match: {{path: {{exact: /s}}}}, {second}}}\n\
         clusters: [{{name: c, scale: {{process: {{command: 'a ${{PORT}}'}}}}}}, {{name: d, endpoints: ['127.0.0.1:1']}}]\n"
    )
}

#[test]
fn routes_that_wake_nothing() {
    for (first, second, code) in [
        ("cluster: c, wake: false", "cluster: d", ""),
        ("cluster: c", "cluster: d, wake: true", ""),
        ("cluster: c", "cluster: d, wake: false", "W005"),
        ("cluster: c", "respond: {}, wake: false", "W005 W001"),
        ("cluster: c", "redirect: {host: a}, wake: true", "W001"),
        (
            "cluster: c",
            "split: [{cluster: c}, {cluster: d}], wake: false",
            "",
        ),
        ("cluster: c", "cluster: d, wake: no", "E012"),
        (
            "cluster: c",
            "cluster: d, mirrors: [{cluster: c, demand: true}], wake: false",
            "",
        ),
    ] {
        codes(&routes(first, second), code);
    }
    says(
        &routes("cluster: c", "cluster: d, wake: false"),
        "3:59 W005 routes[1] (s).wake: has no effect, because no cluster of the route has `scale`",
        "",
    );
    says(
        &routes("cluster: c", "respond: {}, wake: false"),
        "3:60 W005 routes[1] (s).wake: has no effect, because the route forwards nothing",
        "",
    );
    let default = |routes: String| format!("defaults: {{route: {{wake: false}}}}\n{routes}");
    let text = default(routes("cluster: c", "cluster: d"));
    codes(&text, "");
    assert!(
        loaded(&text)
            .unwrap()
            .0
            .routes
            .iter()
            .all(|route| !route.wake)
    );
    let none = default(routes("cluster: d", "cluster: d").replace(
        "scale: {process: {command: 'a ${PORT}'}}",
        "endpoints: ['a:1']",
    ));
    codes(&none, "W005 W001");
}

#[test]
fn mirrors_to_what_sleeps() {
    let file = |mirror: &str| routes("cluster: c", &format!("cluster: d, mirrors: [{mirror}]"));
    for (mirror, code) in [
        ("{cluster: c}", "W014"),
        ("{cluster: c, demand: false}", "W014"),
        ("{cluster: c, demand: true}", ""),
        ("{cluster: c, sample: 0%}", ""),
        ("{cluster: d, sample: 0%}", ""),
    ] {
        codes(&file(mirror), code);
    }
    codes(
        &file("{cluster: c}").replace("scale: {", "scale: {min: 1, "),
        "",
    );
    says(
        &file("{cluster: c, name: m}"),
        "3:63 W014 routes[1] (s).mirrors[0] (m): at zero the copies are dropped, because they do not wake `c`",
        "write `demand: true`, so that copies start replicas as requests do",
    );
}

#[test]
fn what_does_not_do_what_it_seems_to() {
    let webhook = "webhook: {url: 'http://a'}";
    for (keys, code) in [
        (
            "concurrency: 8, scale: {observe: {}, target: {in_flight: 8}}",
            "",
        ),
        (
            "concurrency: 8, scale: {observe: {}, target: {in_flight: 8.5}}",
            "W005",
        ),
        ("scale: {observe: {}, preload: true}", "W005"),
        ("scale: {WEBHOOK, preload: true}", ""),
        ("scale: {WEBHOOK, preload: true, min: 2}", "W005"),
        ("scale: {WEBHOOK, preload: false, min: 2}", ""),
        ("scale: {WEBHOOK, start_timeout: 600s}", ""),
        ("scale: {WEBHOOK, start_timeout: 601s}", "W015"),
        (
            "scale: {WEBHOOK, start_timeout: 601s}, queue: {empty: 601s}",
            "",
        ),
        ("scale: {WEBHOOK}, queue: {empty: 599s}", "W015"),
        ("scale: {observe: {}}, queue: {empty: 599s}", ""),
        ("queue: {empty: 599s}", ""),
    ] {
        codes(&cluster(&keys.replace("WEBHOOK", webhook)), code);
    }
    says(
        &cluster("concurrency: 8, scale: {observe: {}, target: {in_flight: 9}}"),
        "3:97 W005 clusters[0] (c).scale.target.in_flight: 9 is more than `concurrency`, 8, so it is reached only by requests that wait",
        "",
    );
    says(
        &cluster("scale: {observe: {}, preload: true}"),
        "3:70 W005 clusters[0] (c).scale.preload: has no effect, because `observe` starts nothing",
        "",
    );
    says(
        &cluster("scale: {preload: true, min: 2, webhook: {url: 'http://a'}}"),
        "3:57 W005 clusters[0] (c).scale.preload: has no effect, because `min: 2` starts as many anyway",
        "",
    );
    says(
        &cluster("scale: {start_timeout: 15m, webhook: {url: 'http://a'}}"),
        "3:63 W015 clusters[0] (c).scale.start_timeout: requests give up after 10m, `queue.empty`, and a start may take 15m, `scale.start_timeout`",
        "raise `queue.empty`, or write `start_timeout: 10m` or less",
    );
    says(
        &cluster("queue: {empty: 90s}, scale: {webhook: {url: 'http://a'}}"),
        "3:55 W015 clusters[0] (c).queue.empty: requests give up after 1m30s, `queue.empty`, and a start may take 10m, `scale.start_timeout`",
        "raise `queue.empty`, or write `start_timeout: 1m30s` or less",
    );
}

#[test]
fn defaults_reach_every_cluster() {
    let text = "defaults:\n  cluster:\n    concurrency: 4\n    queue: {max_requests: 5, saturated: 6s}\n    scale:\n      max: 3\n      idle: 10s\n\
                \x20     process: {command: 'a ${PORT}', env: {name: x, B: y}, directory: run}\n\
                routes: [{name: r, split: [{cluster: a}, {cluster: b}, {cluster: c}, {cluster: d}]}]\nclusters:\n\
                - {name: a}\n\
                - {name: b, endpoints: ['b:1'], concurrency: null, queue: null, scale: null}\n\
                - {name: c, endpoints: ['c:1'], queue: {saturated: 7s}, scale: {idle: null, webhook: {url: 'http://a'}}}\n\
                - {name: d, scale: {max: 2, process: {command: [d, '${PORT}'], env: {name: null, C: z}}}}\n";
    let (config, warnings) = loaded(text).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(warnings, []);
    assert!(fits_the_schema(text));
    let [a, b, c, d] = &config.clusters[..] else {
        panic!()
    };
    assert_eq!((b.concurrency, &b.queue, &b.scale), (None, &None, &None));
    let queue = c.queue.as_ref().unwrap();
    assert_eq!((queue.max_requests, queue.saturated.as_secs()), (5, 7));
    let [first, told, last] = [a, c, d].map(|cluster| cluster.scale.as_ref().unwrap());
    assert_eq!([first.max, told.max, last.max], [3, 3, 2]);
    assert_eq!((first.idle.unwrap().as_secs(), told.idle), (10, None));
    assert!(matches!(told.driver, Driver::Webhook { .. }));
    let Driver::Process(process) = &last.driver else {
        panic!()
    };
    assert_eq!(process.command, ["d", "${PORT}"]);
    let env: Vec<&str> = process.env.keys().map(String::as_str).collect();
    assert_eq!(env, ["B", "C"]);
    assert_eq!(process.directory.to_str(), Some("run"));
    let Driver::Process(process) = &first.driver else {
        panic!()
    };
    assert_eq!(process.env["name"], "x");
    let partly = "defaults: {cluster: {scale: {process: {env: {A: b}, stop_timeout: 1s}}}}\n";
    codes(&format!("{partly}{}", process_text()), "");
    let wrong = "defaults: {cluster: {scale: {max: 0}}}\n";
    says(
        &format!("{wrong}{}", process_text()),
        "1:35 E014 defaults.cluster.scale.max: 0 is out of range: 1 to 10000",
        "",
    );
}

fn process_text() -> String {
    process("command: 'a ${PORT}'")
}

#[test]
fn the_schema_refuses_what_can_be_seen_without_the_rest() {
    for keys in [
        "queue: {max_requests: 0}",
        "queue: {empty: none}",
        "concurrency: 0",
        "scale: {observe: true}",
        "scale: {observe: {a: 1}}",
        "scale: {observe: {}, max: 0}",
        "scale: {observe: {}, panic_threshold: 1}",
        "scale: {observe: {}, target: {in_flight: 0}}",
        "scale: {observe: {}, target: {rate: 5}}",
        "scale: {observe: {}, idle: 5}",
        "scale: {webhook: {url: a}}",
        "scale: {kubernetes: {}}",
    ] {
        assert!(!fits_the_schema(&cluster(keys)), "{keys}");
        assert!(loaded(&cluster(keys)).is_err(), "{keys}");
    }
    for keys in [
        "command: ''",
        "command: ' '",
        "command: []",
        "command: {a: b}",
        "command: null",
        "command: a, address: 8080",
        "command: a, directory: ''",
        "command: a, env: [A=b]",
        "command: a, stop: []",
    ] {
        assert!(!fits_the_schema(&process(keys)), "{keys}");
        assert!(loaded(&process(keys)).is_err(), "{keys}");
    }
}

#[test]
fn a_port_without_quotes_inside_brackets_is_explained() {
    for keys in [
        "command: serve ${PORT}",
        "command: [serve, ${PORT}]",
        "command: a, env: {P: ${PORT}}",
    ] {
        let found = findings(&process(keys));
        let help = found[0].help.as_deref();
        let wanted = "inside brackets a value with `${` needs quotes: `\"${PORT}\"`";
        assert_eq!(help, Some(wanted), "{keys} {found:#?}");
    }
}
