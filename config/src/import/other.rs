//! Kinds that nobody translates.

use super::{Document, Level};
use crate::node::{Node, Value};

/// What an untranslated document means.
pub(super) struct Verdict {
    pub(super) level: Level,
    pub(super) security: bool,
    pub(super) note: String,
}

/// Groups whose kinds say nothing about what this proxy does with requests.
const HARMLESS: &[(&str, &str)] = &[
    ("", "*"),
    ("apps", "*"),
    ("batch", "*"),
    ("autoscaling", "*"),
    ("policy", "*"),
    ("rbac.authorization.k8s.io", "*"),
    ("apiextensions.k8s.io", "*"),
    ("monitoring.coreos.com", "*"),
    ("cert-manager.io", "*"),
    ("networking.k8s.io", "NetworkPolicy"),
    ("networking.k8s.io", "IngressClass"),
    ("storage.k8s.io", "*"),
    ("coordination.k8s.io", "*"),
];

/// Kinds that protect somebody.
const PROTECTING: &[(&str, &str, &str)] = &[
    (
        "security.istio.io",
        "AuthorizationPolicy",
        "use `access` of a route",
    ),
    (
        "security.istio.io",
        "RequestAuthentication",
        "JSON web tokens are not checked",
    ),
    (
        "security.istio.io",
        "PeerAuthentication",
        "use `tls: {client_ca: …}` of a listener",
    ),
    (
        "extensions.istio.io",
        "WasmPlugin",
        "what it does, and whom it lets in, is not known",
    ),
    (
        "gateway.networking.k8s.io",
        "BackendTLSPolicy",
        "use `tls` of a cluster",
    ),
    (
        "gateway.networking.x-k8s.io",
        "XBackendTrafficPolicy",
        "use keys of the route",
    ),
    (
        "gateway.envoyproxy.io",
        "SecurityPolicy",
        "use `access` and `auth` of a route",
    ),
    (
        "gateway.envoyproxy.io",
        "ClientTrafficPolicy",
        "use keys of a listener",
    ),
];

/// Filters in an EnvoyFilter that protect somebody.
const FILTERS: &[&str] = &[
    "ext_authz",
    "rbac",
    "jwt_authn",
    "basic_auth",
    "api_key_auth",
    "oauth2",
    "credential",
];

/// Says what a document of a kind that has no table means.
pub(super) fn verdict(document: &Document<'_>) -> Verdict {
    let Document { group, kind, .. } = *document;
    let lost = |security, note: &str| Verdict {
        level: Level::Lost,
        security,
        note: note.to_owned(),
    };
    if kind.is_empty() {
        return lost(
            false,
            "this is no object of Kubernetes: `apiVersion` or `kind` is missing",
        );
    }
    let protecting = PROTECTING
        .iter()
        .find(|one| (one.0, one.1) == (group, kind));
    if let Some((.., note)) = protecting {
        return lost(true, &format!("this kind is not translated; {note}"));
    }
    if kind == "EnvoyFilter" {
        return lost(mentions(document.node), "this kind is not translated");
    }
    if HARMLESS.contains(&(group, "*")) || HARMLESS.contains(&(group, kind)) {
        return Verdict {
            level: Level::Ok,
            security: false,
            note: "this kind says nothing about requests".to_owned(),
        };
    }
    lost(false, "this kind is not translated")
}

/// True when a text in the tree names a protecting filter.
fn mentions(node: &Node) -> bool {
    match &node.value {
        Value::Map(entries) => entries.iter().any(|entry| mentions(&entry.value)),
        Value::List(items) => items.iter().any(mentions),
        Value::Scalar(scalar) => FILTERS.iter().any(|name| scalar.text.contains(name)),
    }
}
