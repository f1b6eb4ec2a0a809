//! Ingresses in, what becomes of requests out.

use std::sync::Arc;

use forebay_config::import::{CertificateFiles, Options, to_yaml, translate};
use forebay_config::load::{Loaded, load_with};
use forebay_config::rewrite::{RequestOrigin, location, rewritten_path};
use forebay_config::route::{Lookup, ModelName, RequestHead, RouteTable};
use forebay_config::{Action, Config, PathOptions, Route};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::support::{comparable, file, parsed};

/// What the caller says: the certificate of `ml/front-tls`.
pub(crate) fn options() -> Options {
    let files = CertificateFiles {
        certificate: "a.crt".to_owned(),
        key: "a.key".to_owned(),
    };
    Options {
        certificates: [("ml/front-tls".to_owned(), files)].into(),
        verbose: true,
        ..Options::default()
    }
}

/// An Ingress `ml/NAME` with annotations, as lines `name: value`, and rules in flow style.
pub(crate) fn ingress(name: &str, annotations: &[&str], spec: &str) -> String {
    let lines = annotations.iter();
    let lines = lines.map(|line| format!("    nginx.ingress.kubernetes.io/{line}\n"));
    let annotations = match annotations.is_empty() {
        true => String::new(),
        false => format!("  annotations:\n{}", lines.collect::<String>()),
    };
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\n  namespace: ml\n\
         {annotations}spec:\n{spec}"
    )
}

/// A rule of `host` whose paths are `PATH KIND SERVICE`; the kind is `E`, `P` or `I`.
pub(crate) fn rule(host: &str, paths: &[&str]) -> String {
    let entry = |line: &&str| {
        let words: Vec<&str> = line.split(' ').collect();
        let kind = match words[1] {
            "E" => "Exact",
            "P" => "Prefix",
            _ => "ImplementationSpecific",
        };
        format!(
            "      - {{path: '{}', pathType: {kind}, backend: {{service: {{name: {}, port: {{number: 80}}}}}}}}\n",
            words[0], words[2]
        )
    };
    let paths: String = paths.iter().map(entry).collect();
    let host = match host {
        "" => String::new(),
        host => format!("    host: '{host}'\n"),
    };
    format!("  rules:\n  -\n{host}    http:\n      paths:\n{paths}")
}

/// Loads a text, which may have losses that protect nobody.
pub(crate) fn loaded(text: &str) -> Loaded {
    let loaded = load_with(&[file("a.yaml", text)], &|_| None, &options());
    loaded.unwrap_or_else(|problems| panic!("{problems}"))
}

/// Loads a text and checks that the printed YAML gives the same.
pub(crate) fn config(text: &str) -> Config {
    let direct = loaded(text).config;
    let options = Options {
        wanted: Some(Default::default()),
        ..options()
    };
    let printed = to_yaml(&translate(&parsed(text), &options).root);
    let again = load_with(&[file("b.yaml", &printed)], &|_| None, &options);
    let again = again.unwrap_or_else(|problems| panic!("{problems}\n{printed}"));
    assert_eq!(comparable(&direct), comparable(&again.config), "{printed}");
    direct
}

/// Finds the route of a GET, and the path that is forwarded.
///
/// * `listener`: the port; 0: one that no route names
/// * `target`: host, path and query
pub(crate) fn found(
    config: &Config,
    listener: u16,
    target: &str,
    headers: &[(&str, &str)],
) -> Option<(Arc<Route>, String)> {
    let name = [format!("http-{listener}"), format!("https-{listener}")];
    let on = |route: &&Arc<Route>| {
        let own = route.listeners.iter().any(|own| name.contains(own));
        own || route.listeners.is_empty()
    };
    let routes: Vec<Arc<Route>> = config.routes.iter().filter(on).cloned().collect();
    let table = RouteTable::new(&routes);
    let (target, query) = match target.split_once('?') {
        Some((target, query)) => (target, Some(query)),
        None => (target, None),
    };
    let (host, path) = target.split_once('/').unwrap();
    let path = format!("/{path}");
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_str(value).unwrap());
    }
    let head = RequestHead {
        host,
        path: &path,
        query,
        method: &Method::GET,
        headers: &map,
        model: ModelName::None,
    };
    let (route, matched) = match table.find(&head) {
        Lookup::Found { route, matched } => (Arc::clone(&routes[route]), matched),
        Lookup::MethodNotAllowed { .. } | Lookup::NotFound | Lookup::NeedsModel { .. } => {
            return None;
        }
    };
    let shown = match &route.action {
        Action::Forward(_) => match &route.rewrite.path {
            Some(rewrite) => {
                let path = rewritten_path(rewrite, matched, &path, PathOptions::default());
                path.unwrap().into_owned()
            }
            None => path.clone(),
        },
        Action::Redirect(redirect) => {
            let origin = RequestOrigin {
                scheme: if listener == 443 { "https" } else { "http" },
                host,
                port: if listener == 0 { 80 } else { listener },
            };
            location(redirect, origin, &path, query)
        }
        Action::Respond(_) | Action::ByModel => path.clone(),
    };
    Some((route, shown))
}

/// Says what becomes of a GET: clusters with their weights and the path, the location, or the status.
pub(crate) fn ask(config: &Config, target: &str, headers: &[(&str, &str)]) -> String {
    ask_at(config, 0, target, headers)
}

/// As [`ask`], on a port.
pub(crate) fn ask_at(
    config: &Config,
    listener: u16,
    target: &str,
    headers: &[(&str, &str)],
) -> String {
    let Some((route, shown)) = found(config, listener, target, headers) else {
        return "404".to_owned();
    };
    match &route.action {
        Action::Forward(members) => {
            let name = |one: &str| {
                one.trim_start_matches("ml/")
                    .trim_end_matches(":80")
                    .to_owned()
            };
            let members = members.iter().map(|one| match members.len() {
                1 => name(&one.cluster),
                _ => format!("{}*{}", name(&one.cluster), one.weight),
            });
            format!("{} {shown}", members.collect::<Vec<_>>().join("+"))
        }
        Action::ByModel => format!("by model {shown}"),
        Action::Redirect(redirect) => format!("{} {shown}", redirect.status.as_u16()),
        Action::Respond(respond) => respond.status.as_u16().to_string(),
    }
}
