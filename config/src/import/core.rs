//! Services and EndpointSlices: which ports a service has.

use super::coverage::{Field, Kind};
use super::services::{Backing, Port, Service};
use super::{Document, Fields, Translator, Work};

/// Every kind translated here, and how.
pub(super) const TRANSLATOR: Translator = Translator {
    kinds: KINDS,
    services: translate,
    routes: |_| {},
};

const KINDS: &[Kind] = &[
    Kind {
        group: "",
        name: "Service",
        versions: &["v1"],
        format: None,
        proto: false,
        fields: &[
            Field::ok("spec.ports[].name"),
            Field::ok("spec.ports[].port"),
            Field::ok("spec.ports[].targetPort"),
            Field::ok("spec.ports[].appProtocol"),
            Field::ok("spec.ports[].protocol"),
            Field::harmless("spec.ports[].nodePort", "for clients of nodes"),
            Field::ok("spec.clusterIP"),
            Field::ok("spec.externalName"),
            Field::ok("spec.type"),
            Field::ok("spec.sessionAffinity"),
            Field::lost(
                "spec.sessionAffinityConfig",
                "set `balance: {hash: {client_ip: true}}`",
            ),
            Field::harmless("spec.*", "for Kubernetes"),
        ],
    },
    Kind {
        group: "discovery.k8s.io",
        name: "EndpointSlice",
        versions: &["v1"],
        format: None,
        proto: false,
        fields: &[
            Field::ok("metadata.labels.kubernetes.io/service-name"),
            Field::harmless("metadata.labels.*", "for Kubernetes"),
            Field::ok("ports[].name"),
            Field::ok("ports[].port"),
            Field::harmless("ports[].*", "the Service says it"),
            Field::harmless("addressType", "addresses are found at run time"),
            Field::harmless("endpoints", "addresses are found at run time"),
        ],
    },
];

/// Adds the services of all documents.
fn translate(work: &mut Work<'_>) {
    for document in work.documents("", "Service") {
        let fields = document.fields(work.audit);
        let service = service(&document, fields, &work.options.cluster_domain);
        work.services.add(service);
    }
    for document in work.documents("discovery.k8s.io", "EndpointSlice") {
        slice(&document, document.fields(work.audit), work);
    }
}

fn service(document: &Document<'_>, fields: Fields<'_>, domain: &str) -> Service {
    let Document {
        name, namespace, ..
    } = document;
    let host = format!("{name}.{namespace}.svc.{domain}").to_ascii_lowercase();
    let spec = fields.map("spec");
    let mut ports = Vec::new();
    let mut backing = Backing::Name(host.clone());
    if let Some(spec) = spec {
        spec.accept("type");
        ports = spec.maps("ports").into_iter().filter_map(port).collect();
        let headless = spec
            .text("clusterIP")
            .is_some_and(|ip| ip.as_str() == "None");
        if headless {
            backing = Backing::Headless(host.clone());
        }
        if let Some(name) = spec.text("externalName") {
            backing = Backing::Name(name.as_str().to_owned());
        }
        if spec
            .text("sessionAffinity")
            .is_some_and(|word| word.as_str() != "None")
        {
            spec.lost(
                "sessionAffinity",
                "set `balance: {hash: {client_ip: true}}`",
            );
        }
    }
    Service {
        title: format!("{namespace}/{name}"),
        host,
        ports,
        backing,
        at: document.at().clone(),
    }
}

fn port(fields: Fields<'_>) -> Option<Port> {
    let name = fields.text("name");
    let number = fields.whole("port", 1..=65_535)?;
    let target = fields.scalar("targetPort");
    let application = fields.text("appProtocol");
    if fields
        .text("protocol")
        .is_some_and(|word| word.as_str() != "TCP")
    {
        fields.lost_here("only TCP is served");
        return None;
    }
    let number = u16::try_from(number.whole()?).ok()?;
    let target = match target {
        None => Some(number),
        Some(target) => target.whole().and_then(|number| u16::try_from(number).ok()),
    };
    let name = name.map_or_else(String::new, |name| name.as_str().to_owned());
    let spoken = application.map(|word| word.as_str().to_ascii_lowercase());
    Some(Port {
        protocol: spoken_over(spoken.as_deref().unwrap_or(&name)),
        name,
        number,
        target,
    })
}

/// Returns the HTTP version that a protocol, or a port name such as `grpc-web`, stands for, if it is not left open.
pub(super) fn spoken_over(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    match word.split('-').next().unwrap_or_default() {
        "http2" | "grpc" | "kubernetes.io/h2c" | "h2c" => Some("http2"),
        _ => None,
    }
}

/// Fills in the numbers of target ports that a Service only names.
fn slice(document: &Document<'_>, fields: Fields<'_>, work: &mut Work<'_>) {
    let labels = fields.map("metadata").and_then(|one| one.map("labels"));
    let name = labels.and_then(|labels| labels.text("kubernetes.io/service-name"));
    let ports = fields.maps("ports").into_iter().filter_map(|port| {
        let name = port.text("name");
        let number = port.whole("port", 1..=65_535)?.whole()?;
        let name = name.map_or_else(String::new, |name| name.as_str().to_owned());
        Some((name, u16::try_from(number).ok()?))
    });
    let ports: Vec<(String, u16)> = ports.collect();
    let Some(name) = name else {
        fields.lost_here("no label `kubernetes.io/service-name` says whose ports these are");
        return;
    };
    let host = work
        .services
        .full_name(name.as_str(), document.namespace, work.options);
    work.services.learn(&host, &ports);
}
