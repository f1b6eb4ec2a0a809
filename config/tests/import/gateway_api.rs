//! Gateway API: what requests meet once its documents are translated and loaded.

#[path = "gateway_api_attachment.rs"]
mod attachment;
#[path = "gateway_api_backends.rs"]
mod backends;
#[path = "gateway_api_filters.rs"]
mod filters;
#[path = "gateway_api_grpc.rs"]
mod grpc;
#[path = "gateway_api_matching.rs"]
mod matching;
#[path = "gateway_api_mutations.rs"]
mod mutations;
#[path = "gateway_api_wrong.rs"]
mod wrong;

use std::sync::Arc;

use forebay_config::Config;
use forebay_config::canonical::canonical_path;
use forebay_config::import::{CertificateFiles, Options, Translation, to_yaml, translate};
use forebay_config::load::load_with;
use forebay_config::model::{Action, PathOptions, Route};
use forebay_config::rewrite::{RequestOrigin, location, rewritten_path};
use forebay_config::route::{Lookup, ModelName, RequestHead, RouteTable};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::support::{comparable, file, parsed};

const CORPUS: &str = include_str!("corpus/gateway_api.yaml");

/// A Gateway `ml/edge` that takes every route of its namespace on port 80.
pub(crate) const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: edge, namespace: ml}\n\
    spec: {gatewayClassName: x, listeners: [{name: http, port: 80, protocol: HTTP}]}\n";

/// An HTTPRoute `ml/NAME` on [`GATEWAY`] with these rules, a flow list.
pub(crate) fn route(name: &str, rules: &str) -> String {
    hosted(name, "", rules)
}

/// The same with hostnames, separated by commas.
pub(crate) fn hosted(name: &str, hosts: &str, rules: &str) -> String {
    let hosts = match hosts {
        "" => String::new(),
        hosts => format!(", hostnames: [{hosts}]"),
    };
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: ml}}\n\
         spec: {{parentRefs: [{{name: edge}}]{hosts}, rules: {rules}}}\n"
    )
}

fn options() -> Options {
    let files = |name: &str| CertificateFiles {
        certificate: format!("{name}.crt"),
        key: format!("{name}.key"),
    };
    let secrets = ["ml/web-tls", "other/wildcard"];
    Options {
        certificates: secrets.map(|name| (name.to_owned(), files(name))).into(),
        wanted: Some(Default::default()),
        ..Options::default()
    }
}

/// What documents become, with the certificates of the corpus.
pub(crate) fn made(text: &str) -> Translation {
    translate(&parsed(text), &options())
}

/// Loads documents, and checks that what `import` prints gives the same.
pub(crate) fn config(text: &str) -> Config {
    let direct = load_with(&[file("a.yaml", text)], &|_| None, &options());
    let direct = direct.unwrap_or_else(|problems| panic!("{problems}"));
    let printed = to_yaml(&made(text).root);
    let again = load_with(&[file("b.yaml", &printed)], &|_| None, &options());
    let again = again.unwrap_or_else(|problems| panic!("{problems}\n{printed}"));
    assert_eq!(
        comparable(&direct.config),
        comparable(&again.config),
        "{printed}"
    );
    direct.config
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    listener: String,
    method: Method,
    host: String,
    path: String,
    headers: HeaderMap,
}

/// A GET of `host/path` on port 80; the path may have a query.
pub(crate) fn ask(host: &str, path: &str) -> Ask {
    Ask {
        listener: "http-80".to_owned(),
        method: Method::GET,
        host: host.to_owned(),
        path: path.to_owned(),
        headers: HeaderMap::new(),
    }
}

impl Ask {
    /// With another method.
    pub(crate) fn method(mut self, method: &str) -> Self {
        self.method = method.parse().unwrap();
        self
    }

    /// On another listener.
    pub(crate) fn on(mut self, listener: &str) -> Self {
        self.listener = listener.to_owned();
        self
    }

    /// With a header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers
            .append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    /// The answer: `ROUTE: ACTION`, or `404`, or `405`. A cluster that is not the request's path as it was says what
    /// becomes of it: `CLUSTER /path`.
    pub(crate) fn of(&self, config: &Config) -> String {
        let on = |route: &&Arc<Route>| {
            route.listeners.is_empty() || route.listeners.contains(&self.listener)
        };
        let routes: Vec<Arc<Route>> = config.routes.iter().filter(on).cloned().collect();
        let table = RouteTable::new(&routes);
        let (path, query) = match self.path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.path.as_str(), None),
        };
        let path = canonical_path(path, PathOptions::default()).unwrap();
        let head = RequestHead {
            host: &self.host,
            path: &path,
            query,
            method: &self.method,
            headers: &self.headers,
            model: ModelName::None,
        };
        let (route, matched) = match table.find(&head) {
            Lookup::NotFound | Lookup::NeedsModel { .. } => return "404".to_owned(),
            Lookup::MethodNotAllowed { .. } => return "405".to_owned(),
            Lookup::Found { route, matched } => (&routes[route], matched),
        };
        let done = match &route.action {
            Action::ByModel => "by model".to_owned(),
            Action::Respond(respond) => respond.status.as_u16().to_string(),
            Action::Redirect(redirect) => {
                let port = self.listener.rsplit_once('-').unwrap().1.parse().unwrap();
                let scheme = self.listener.split_once('-').unwrap().0;
                let origin = RequestOrigin {
                    scheme,
                    host: &self.host,
                    port,
                };
                let place = location(redirect, origin, &path, query);
                format!("{} {place}", redirect.status.as_u16())
            }
            Action::Forward(members) => {
                let shown = members.iter().map(|one| match members.len() {
                    1 => one.cluster.clone(),
                    _ => format!("{}={}", one.cluster, one.weight),
                });
                let shown: Vec<String> = shown.collect();
                let mut text = shown.join(" ");
                if let Some(rewrite) = &route.rewrite.path {
                    let became = rewritten_path(rewrite, matched, &path, PathOptions::default());
                    text.push_str(&format!(" {}", became.unwrap()));
                }
                text
            }
        };
        format!("{}: {done}", route.name)
    }
}

/// The route by its name.
pub(crate) fn named<'c>(config: &'c Config, name: &str) -> &'c Route {
    let mut routes = config.routes.iter();
    routes.find(|route| route.name == name).unwrap()
}

#[test]
fn the_corpus_goes_round() {
    let config = config(CORPUS);
    let listeners = config.listeners.iter();
    let listeners: Vec<(&str, bool)> = listeners
        .map(|one| (&*one.name, one.tls.is_some()))
        .collect();
    assert_eq!(
        listeners,
        [
            ("http-80", false),
            ("http-8080", false),
            ("https-443", true)
        ]
    );
    let post = ask("secure.example.com", "/v1/models?version=2")
        .on("https-443")
        .method("POST")
        .header("x-tenant", "b")
        .header("x-plain", "p");
    assert_eq!(
        post.of(&config),
        "ml/all/0-2: ml/a:80=70 other/shared:80=30 /v2/models"
    );
    assert_eq!(
        ask("plain.example.com", "/old/x?q").of(&config),
        "ml/all/1: 301 https://new.example.com:8443/new?q"
    );
    assert_eq!(
        ask("x.models.example.com", "/old").of(&config),
        "ml/edge/1/no-match: 404"
    );
    assert_eq!(
        ask("plain.example.com", "/strip/x").of(&config),
        "ml/all/2: ml/a:80 /x"
    );
}
