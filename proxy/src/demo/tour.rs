//! What `forebay demo` runs and prints.

use std::net::SocketAddr;

/// The demo's configuration: both versions of the model server behind a 20/80 split.
///
/// * `v1`, `v2`: where the two model servers listen
/// * `listen`, `admin`: addresses of the proxy, `127.0.0.1:9900` and `127.0.0.1:9901` unless the user chose others
///
/// `x-version: v1` or `v2` chooses a version; `/` redirects to the model's description; `/ping` is answered by the proxy.
/// A prefix that ends with the model's name matches `iris:predict` and `iris/infer` alike, and no other model.
pub fn config(v1: SocketAddr, v2: SocketAddr, listen: &str, admin: &str) -> String {
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
- name: iris-v1                    # more header conditions win: this one is looked at before the split
  match:
  - {{path: {{prefix: /v1/models/iris}}, headers: {{x-version: v1}}}}
  - {{path: {{prefix: /v2/models/iris}}, headers: {{x-version: v1}}}}
  cluster: iris-v1
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

clusters:
- name: iris-v1
  server: kserve-v2
  endpoints: ["{v1}"]
- name: iris-v2
  server: kserve-v2
  endpoints: ["{v2}"]
"#
    )
}

/// What the demo prints once it serves: the addresses and lines to paste into a shell.
///
/// * `listen`, `admin`: the addresses as bound
pub fn banner(listen: &str, admin: &str) -> String {
    format!(
        r#"Forebay demo: two versions of an iris classifier behind one address, split 20/80.

  proxy  http://{listen}
  admin  http://{admin}

Try, in another terminal:

  # ask the model (KServe v1); which version answers is the split's choice
  curl -i http://{listen}/v1/models/iris:predict -d '{{"instances": [[5.1, 3.5, 1.4, 0.2]]}}'

  # the same model over the Open Inference Protocol v2
  curl http://{listen}/v2/models/iris/infer -d '{{"inputs": [{{"name": "features", "datatype": "FP32", "shape": [1, 4], "data": [6.0, 2.2, 5.0, 1.5]}}]}}'

  # a hundred requests: about 20 say v1, about 80 say v2
  for i in $(seq 100); do curl -s http://{listen}/v1/models/iris; done | sort | uniq -c

  # choose a version; the two disagree about this flower
  curl -H 'x-version: v1' http://{listen}/v1/models/iris:predict -d '{{"instances": [[6.0, 2.2, 5.0, 1.5]]}}'
  curl -H 'x-version: v2' http://{listen}/v1/models/iris:predict -d '{{"instances": [[6.0, 2.2, 5.0, 1.5]]}}'

  # a stream of predictions, one event every 300 ms
  curl -N 'http://{listen}/v1/models/iris:stream?n=10&every=300'

  # a redirect, an answer of the proxy's own, a path nobody serves
  curl -i http://{listen}/
  curl http://{listen}/ping
  curl -i http://{listen}/nowhere

  # what the proxy knows
  curl http://{admin}/api/routes
  curl http://{admin}/api/config/status
  curl -s http://{admin}/metrics | grep forebay_requests_total

Ctrl-C stops it.
"#
    )
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, Method};
    use forebay_config::load::{SourceFile, load};
    use forebay_config::route::{Lookup, RequestHead, RouteTable};

    use super::*;

    #[test]
    fn the_configuration_is_legal_and_routes_as_the_banner_says() {
        let server = SocketAddr::from(([127, 0, 0, 1], 1001));
        let file = SourceFile {
            name: "demo".into(),
            directory: ".".into(),
            text: config(server, server, "127.0.0.1:9900", "127.0.0.1:9901"),
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
        let v1 = SocketAddr::from(([127, 0, 0, 1], 1001));
        let v2 = SocketAddr::from(([127, 0, 0, 1], 1002));
        let text = config(v1, v2, "127.0.0.1:9900", "[::1]:9901");
        for line in [
            r#"admin: {address: "[::1]:9901"}"#,
            r#"  address: "127.0.0.1:9900""#,
            r#"  endpoints: ["127.0.0.1:1001"]"#,
            r#"  endpoints: ["127.0.0.1:1002"]"#,
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
        assert!(text.contains("curl http://127.0.0.1:9901/api/routes"));
    }
}
