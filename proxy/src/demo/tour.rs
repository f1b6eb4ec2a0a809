//! What `forebay demo` runs and prints.

/// The demo's configuration: both versions of the model server behind a 20/80 split. Nothing runs until it is asked
/// for, and nothing runs for long after that.
///
/// * `program`: starts one model server, given `demo --model VERSION --port PORT`
/// * `listen`, `admin`: addresses of the proxy, `127.0.0.1:9900` and `127.0.0.1:9901` unless the user chose others
///
/// `x-version: v1` or `v2` chooses a version, and what v1 answers then is compared with what v2 does; `x-user` names whom
/// the limit counts; `/` redirects to the model's description; `/ping` is answered by the proxy. A prefix that ends with
/// the model's name matches `iris:predict` and `iris/infer` alike, and no other model.
pub fn config(program: &str, listen: &str, admin: &str) -> String {
    let program = serde_json::Value::from(program); // JSON is YAML, whatever is in the path
    format!(
        r#"# The configuration of `forebay demo`.
admin: {{address: "{admin}"}}
drain: {{delay: 0s, timeout: 10s}}

listeners:
- name: demo
  address: "{listen}"

routes:
- name: iris                       # one in five requests goes to v1
  match:
  - path: {{prefix: /v1/models/iris}}
  - path: {{prefix: /v2/models/iris}}
  - path: {{exact: /v1/models}}     # the list of models
  - path: {{exact: /v2}}            # what the server is
  - path: {{prefix: /v2/health}}
  split:
  - {{cluster: iris-v1, weight: 20}}
  - {{cluster: iris-v2, weight: 80}}
  rate_limits:                     # five at once, then one per second and user
  - {{name: users, rate: 1/s, burst: 5, per: {{header: x-user}}, missing: skip}}
- name: iris-v1                    # more header conditions win: this one is looked at before the split
  match:
  - {{path: {{prefix: /v1/models/iris}}, headers: {{x-version: v1}}}}
  - {{path: {{prefix: /v2/models/iris}}, headers: {{x-version: v1}}}}
  cluster: iris-v1
  mirrors:                         # what would v2 have said?
  - name: candidate
    cluster: iris-v2
    demand: true                   # a copy starts v2 as a request does; else copies are dropped while v2 sleeps
    compare: {{ignore: [/model_version, /versions, /*/model_version]}}   # of answers, metadata, events
- name: iris-v2
  match:
  - {{path: {{prefix: /v1/models/iris}}, headers: {{x-version: v2}}}}
  - {{path: {{prefix: /v2/models/iris}}, headers: {{x-version: v2}}}}
  cluster: iris-v2
- name: home
  match: {{path: {{exact: /}}}}
  redirect: {{path: /v2/models/iris, status: 302}}
- name: ping
  match: {{path: {{exact: /ping}}}}
  respond: {{status: 200, headers: {{content-type: text/plain}}, body: "pong\n"}}

clusters:                          # no endpoints: the first request starts one
- name: iris-v1
  server: kserve-v2                # ready when GET /v2/health/ready says so
  scale:
    idle: 30s                      # without a request for so long it is stopped
    process: {{command: [{program}, demo, --model, v1, --port, "${{PORT}}"]}}
- name: iris-v2
  server: kserve-v2
  scale:
    idle: 30s
    process: {{command: [{program}, demo, --model, v2, --port, "${{PORT}}"]}}
"#
    )
}

/// What the demo prints once it serves: the addresses and lines to paste into a shell.
///
/// * `listen`, `admin`: the addresses as bound
pub fn banner(listen: &str, admin: &str) -> String {
    format!(
        r#"Forebay demo: two versions of an iris classifier behind one address, split 20/80. Neither runs yet.

  proxy      http://{listen}
  dashboard  http://{admin}/ui/

Try, in another terminal:

  # the first request waits while its model starts, 2 s; the second one does not. See x-forebay-cold-start, in ms
  curl -i -H 'x-version: v2' http://{listen}/v1/models/iris:predict -d '{{"instances": [[5.1, 3.5, 1.4, 0.2]]}}'
  curl -i -H 'x-version: v2' http://{listen}/v1/models/iris:predict -d '{{"instances": [[5.1, 3.5, 1.4, 0.2]]}}'

  # a hundred requests: about 20 say v1, about 80 say v2; the first one for v1 starts it
  for i in $(seq 100); do curl -s http://{listen}/v1/models/iris; done | sort | uniq -c

  # what v1 is asked by name, v2 is asked too; the two disagree about this flower, and the comparison says so
  curl -H 'x-version: v1' http://{listen}/v1/models/iris:predict -d '{{"instances": [[6.0, 2.2, 5.0, 1.5]]}}'
  curl http://{admin}/api/mirrors

  # a limit per user: five at once, then one per second
  for i in $(seq 8); do curl -so /dev/null -w '%{{http_code}}\n' -H 'x-user: ada' http://{listen}/v1/models/iris; done | sort | uniq -c

  # the same model over the Open Inference Protocol v2; a stream of predictions, one event every 300 ms
  curl http://{listen}/v2/models/iris/infer -d '{{"inputs": [{{"name": "features", "datatype": "FP32", "shape": [1, 4], "data": [6.0, 2.2, 5.0, 1.5]}}]}}'
  curl -N 'http://{listen}/v1/models/iris:stream?n=10&every=300'

  # a redirect, an answer of the proxy's own, a path nobody serves
  curl -i http://{listen}/
  curl http://{listen}/ping
  curl -i http://{listen}/nowhere

  # who runs, and why: after 30 s without a request the replicas are 0 again
  curl -s http://{admin}/metrics | grep -E '^forebay_(replicas|demand|requests_total)'
  curl -sN http://{admin}/api/logs/iris-v2

Ctrl-C stops it, and the models with it.
"#
    )
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, Method};
    use forebay_config::load::{SourceFile, load};
    use forebay_config::route::{Lookup, ModelName, RequestHead, RouteTable};

    use super::*;

    #[test]
    fn the_configuration_is_legal_and_routes_as_the_banner_says() {
        let file = SourceFile {
            name: "demo".into(),
            directory: ".".into(),
            text: config("/usr/bin/forebay", "127.0.0.1:9900", "127.0.0.1:9901"),
        };
        let loaded = load(&[file], &|_| None).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);

        let routes = &loaded.config.routes;
        let table = RouteTable::new(routes);
        for (path, version, expected) in [
            ("/v1/models", None, Some("iris")),
            ("/v1/models/iris:predict", None, Some("iris")),
            ("/v1/models/iris:predict", Some("v1"), Some("iris-v1")),
            ("/v1/models/iris:stream", Some("v2"), Some("iris-v2")),
            ("/v1/models/iris", Some("v1"), Some("iris-v1")),
            ("/v1/models/rose:predict", None, None),
            ("/v2", None, Some("iris")),
            ("/v2/health/ready", None, Some("iris")),
            ("/v2/models/iris", None, Some("iris")),
            ("/v2/models/iris/infer", None, Some("iris")),
            ("/v2/models/iris/infer", Some("v1"), Some("iris-v1")),
            ("/v2/models/iris/infer", Some("v3"), Some("iris")),
            ("/", None, Some("home")),
            ("/ping", None, Some("ping")),
            ("/nowhere", None, None),
        ] {
            let version =
                version.map(|v| ("x-version".parse().unwrap(), HeaderValue::from_static(v)));
            let request = RequestHead {
                host: "127.0.0.1",
                path,
                query: None,
                method: &Method::GET,
                headers: &HeaderMap::from_iter(version),
                model: ModelName::Unknown,
            };
            let found = match table.find(&request) {
                Lookup::Found { route, .. } => Some(routes[route].name.as_str()),
                _ => None,
            };
            assert_eq!(found, expected, "{path} {:?}", request.headers);
        }
    }

    #[test]
    fn the_configuration_names_what_it_was_given() {
        let text = config("/a \"b\"/forebay", "127.0.0.1:9900", "[::1]:9901");
        for line in [
            r#"admin: {address: "[::1]:9901"}"#,
            r#"  address: "127.0.0.1:9900""#,
            r#"    process: {command: ["/a \"b\"/forebay", demo, --model, v1, --port, "${PORT}"]}"#,
            r#"    process: {command: ["/a \"b\"/forebay", demo, --model, v2, --port, "${PORT}"]}"#,
        ] {
            assert!(
                text.lines().any(|l| l == line),
                "{line} is missing in\n{text}"
            );
        }
    }

    #[test]
    fn the_banner_says_both_addresses() {
        let text = banner("127.0.0.1:9900", "127.0.0.1:9901");
        assert!(text.contains("curl http://127.0.0.1:9900/ping"));
        assert!(text.contains("http://127.0.0.1:9901/ui/"));
    }
}
