//! Requests in, what becomes of them out.

use std::sync::Arc;

use forebay_config::import::{Options, Translation, to_yaml, translate};
use forebay_config::load::load_with;
use forebay_config::rewrite::{RequestOrigin, location, rewritten_path};
use forebay_config::route::{Lookup, ModelName, RequestHead, RouteTable};
use forebay_config::{Action, Config, PathOptions, Route};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::support::{comparable, file, parsed};

/// What the caller of the tests says: one certificate.
pub(crate) fn options() -> Options {
    let files = forebay_config::import::CertificateFiles {
        certificate: "a.crt".to_owned(),
        key: "a.key".to_owned(),
    };
    Options {
        certificates: [("ml/web-tls".to_owned(), files)].into(),
        verbose: true,
        ..Options::default()
    }
}

/// Translates with a certificate at hand.
pub(crate) fn translation(text: &str) -> Translation {
    translate(&parsed(text), &options())
}

/// Loads a text, which may have losses that protect nobody.
pub(crate) fn config(text: &str) -> Config {
    let loaded = load_with(&[file("a.yaml", text)], &|_| None, &options());
    loaded
        .unwrap_or_else(|problems| panic!("{problems}"))
        .config
}

/// A VirtualService `ml/v` without gateways for `h.example`, with these rules.
pub(crate) fn service(rules: &str) -> String {
    service_of("[h.example]", rules)
}

/// A VirtualService `ml/v` without gateways, with these hosts and rules.
pub(crate) fn service_of(hosts: &str, rules: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v, namespace: ml}}\n\
         spec:\n  hosts: {hosts}\n  http:\n{rules}"
    )
}

/// The action that forwards to `ml/NAME:80`.
pub(crate) fn to(name: &str) -> String {
    format!("route: [{{destination: {{host: {name}, port: {{number: 80}}}}}}]")
}

/// Asks `http://h.example`.
pub(crate) fn ask(config: &Config, method: &str, target: &str, headers: &[(&str, &str)]) -> String {
    ask_at(config, None, method, &format!("h.example{target}"), headers)
}

/// Says what becomes of a request: the clusters with their weights and the path, the location, or the status.
///
/// * `listener`: where it comes to; `None`: a listener that no route names
/// * `target`: host and path
/// * `headers`: more than one of a name is several lines
pub(crate) fn ask_at(
    config: &Config,
    listener: Option<&str>,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
) -> String {
    let on = |route: &&Arc<Route>| {
        route.listeners.is_empty()
            || listener.is_some_and(|one| route.listeners.iter().any(|own| own == one))
    };
    let routes: Vec<Arc<Route>> = config.routes.iter().filter(on).cloned().collect();
    let table = RouteTable::new(&routes);
    let (target, query) = match target.split_once('?') {
        Some((target, query)) => (target, Some(query)),
        None => (target, None),
    };
    let (host, path) = target.split_once('/').unwrap();
    let path = format!("/{path}");
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_str(value).unwrap());
    }
    let head = RequestHead {
        host,
        path: &path,
        query,
        method: &method,
        headers: &map,
        model: ModelName::None,
    };
    let (route, matched) = match table.find(&head) {
        Lookup::Found { route, matched } => (&routes[route], matched),
        Lookup::MethodNotAllowed { .. } => return "405".to_owned(),
        Lookup::NotFound | Lookup::NeedsModel { .. } => return "404".to_owned(),
    };
    match &route.action {
        Action::ByModel => "by model".to_owned(),
        Action::Forward(members) => {
            let path = match &route.rewrite.path {
                Some(rewrite) => {
                    let path = rewritten_path(rewrite, matched, &path, PathOptions::default());
                    path.unwrap().into_owned()
                }
                None => path.clone(),
            };
            let names: Vec<String> = members
                .iter()
                .map(|one| match members.len() {
                    1 => one.cluster.clone(),
                    _ => format!("{}*{}", one.cluster, one.weight),
                })
                .collect();
            let host = route.rewrite.host.as_ref();
            let host = host.map_or_else(String::new, |host| {
                format!(" as {}", host.to_str().unwrap())
            });
            format!("{} {path}{host}", names.join(" "))
        }
        Action::Redirect(redirect) => {
            let tls = listener.is_some_and(|name| name.starts_with("https"));
            let origin = RequestOrigin {
                scheme: if tls { "https" } else { "http" },
                host,
                port: if tls { 443 } else { 8080 },
            };
            let to = location(redirect, origin, &path, query);
            format!("{} {to}", redirect.status.as_u16())
        }
        Action::Respond(respond) => {
            let body = String::from_utf8_lossy(respond.body.as_ref());
            format!("{} {body}", respond.status.as_u16())
                .trim_end()
                .to_owned()
        }
    }
}

/// Checks that the printed YAML gives what loading the documents gives.
pub(crate) fn round_trip(text: &str) -> Config {
    let direct = config(text);
    let options = Options {
        wanted: Some(Default::default()),
        ..options()
    };
    let printed = to_yaml(&translate(&parsed(text), &options).root);
    let again = load_with(&[file("b.yaml", &printed)], &|_| None, &options);
    let again = again.unwrap_or_else(|problems| panic!("{problems}\n{printed}"));
    let (one, two) = (comparable(&direct), comparable(&again.config));
    assert_eq!(one, two, "{printed}");
    direct
}
