//! VirtualService: which requests go where.

use std::collections::BTreeSet;

use super::destination_rule::Rules;
use super::gateway::Gateways;
use super::place::{self, Hosts};
use super::rule::{Made, Service, rule};
use super::tcp;
use super::virtual_service_fields::FIELDS;
use crate::import::coverage::Kind;
use crate::import::{Document, Fields, Format, Leaf, Work};

/// What becomes of its fields.
pub(super) const KIND: Kind = Kind {
    group: "networking.istio.io",
    name: "VirtualService",
    versions: &["v1", "v1beta1", "v1alpha3"],
    format: Some(Format::Istio),
    proto: true,
    fields: FIELDS,
};

/// Makes the routes of all VirtualServices: the oldest first, then by name, as they count there.
pub(super) fn translate(work: &mut Work<'_>, gateways: &Gateways, rules: &Rules) {
    let mut documents: Vec<Document<'_>> = work.documents(KIND.group, KIND.name).collect();
    documents.sort_by_key(|one| (one.created(), one.name, one.namespace));
    let specs: Vec<(Document<'_>, Fields<'_>)> = documents
        .into_iter()
        .filter_map(|document| Some((document, document.fields(work.audit).map("spec")?)))
        .collect();
    let all = hosts_of_all(work, &specs);
    let mut made: Vec<Made> = Vec::new();
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for (document, spec) in &specs {
        let Some(service) = service(work, (document, spec), gateways, rules, &all) else {
            continue;
        };
        let mut last = false;
        for (index, fields) in spec.maps("http").iter().enumerate() {
            if last {
                fields.approximated_here("never reached, as there: a rule before takes everything");
                continue;
            }
            last = rule(work, &service, index, fields, &mut made);
        }
        for (index, fields) in spec.maps("tcp").iter().enumerate() {
            tcp::rule(work, &service, index, fields, &mut taken);
        }
    }
    // Services of one host are merged, and what takes everything comes last.
    let (last, first): (Vec<Made>, Vec<Made>) = made.into_iter().partition(|(_, always)| *always);
    let routes = first.into_iter().chain(last).map(|(route, _)| route);
    work.output.routes.extend(routes);
}

/// Collects the hosts of all VirtualServices and the names in their conditions.
fn hosts_of_all(work: &Work<'_>, specs: &[(Document<'_>, Fields<'_>)]) -> Hosts {
    let mut hosts = BTreeSet::new();
    let mut authorities = BTreeSet::new();
    for (document, spec) in specs {
        let own = spellings(work, document, spec);
        hosts.extend(own.iter().map(|host| host.as_str().to_owned()));
        let rules = spec.maps("http");
        for condition in rules.iter().flat_map(|rule| rule.maps("match")) {
            let name = condition.map("authority").and_then(|one| one.text("exact"));
            authorities.extend(name.map(|name| name.as_str().to_ascii_lowercase()));
        }
    }
    Hosts::new(&hosts, &authorities)
}

/// Returns the hosts that requests to a VirtualService have; says which no request has.
fn spellings(work: &Work<'_>, document: &Document<'_>, spec: &Fields<'_>) -> Vec<Leaf> {
    let mut hosts: Vec<Leaf> = Vec::new();
    for written in spec.texts("hosts") {
        let host = match place::host(&written) {
            Ok(host) => host,
            Err(note) => {
                spec.lost("hosts", note);
                continue;
            }
        };
        let name = host.as_str();
        if name.is_empty() || name.contains('*') {
            hosts.push(host);
            continue;
        }
        let full = work
            .services
            .full_name(name, document.namespace, work.options);
        let domain = format!(".svc.{}", work.options.cluster_domain);
        let mut all = vec![host.clone()];
        if let Some(short) = full.strip_suffix(&domain) {
            all.extend([host.with(short), host.with(format!("{short}.svc"))]);
            all.push(host.with(full.as_str()));
        }
        for one in all {
            if !hosts.iter().any(|known| known.as_str() == one.as_str()) {
                hosts.push(one);
            }
        }
    }
    hosts
}

/// Reads what all rules of a VirtualService share. `None`: it has no effect, which was said.
fn service<'s>(
    work: &Work<'_>,
    (document, spec): (&'s Document<'s>, &Fields<'_>),
    gateways: &'s Gateways,
    rules: &'s Rules,
    all: &'s Hosts,
) -> Option<Service<'s>> {
    let hosts = spellings(work, document, spec);
    if hosts.is_empty() {
        if !spec.has("hosts") {
            spec.lost_here(
                "without `hosts` it is part of another one, and `delegate` is not translated",
            );
        } else {
            idle(spec, "there is no host that requests can have");
        }
        return None;
    }
    let written = spec.texts("gateways");
    let mut names: BTreeSet<String> = BTreeSet::new();
    if !spec.has("gateways") {
        names.insert("mesh".to_owned());
    }
    for leaf in &written {
        names.insert(Gateways::name(leaf.as_str(), document.namespace));
    }
    if gateways.none() {
        if !written.is_empty() {
            let note = "no document describes a Gateway: on all listeners for HTTP";
            spec.approximated("gateways", note);
        }
    } else {
        let unknown: Vec<&str> = names
            .iter()
            .map(String::as_str)
            .filter(|name| *name != "mesh" && !gateways.knows(name))
            .collect();
        if !unknown.is_empty() {
            let note = format!("no document describes {}", unknown.join(", "));
            spec.lost("gateways", note);
        }
        if !names.iter().any(|name| gateways.knows(name)) {
            let note =
                "no Gateway of the documents is meant, so that no listener takes its requests";
            idle(spec, note);
            return None;
        }
    }
    if spec.has("gateways") && names.is_empty() {
        idle(spec, "no gateway is named");
        return None;
    }
    Some(Service {
        document,
        gateways,
        rules,
        all,
        hosts,
        names,
    })
}

/// Says that no rule has an effect.
fn idle(spec: &Fields<'_>, note: &str) {
    for key in ["http", "tcp"] {
        spec.lost(key, note);
    }
}
