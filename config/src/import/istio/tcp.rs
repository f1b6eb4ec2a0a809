//! TCPRoute: where connections of a listener go.

use std::collections::BTreeSet;

use super::action::destination;
use super::gateway::Gateways;
use super::rule::Service;
use crate::import::native::{Action, Member, Route};
use crate::import::{Fields, Leaf, Work};

/// Makes the route of a rule for connections; the first one of a listener counts.
///
/// * `taken`: listeners that have a route
pub(super) fn rule(
    work: &mut Work<'_>,
    service: &Service<'_>,
    index: usize,
    rule: &Fields<'_>,
    taken: &mut BTreeSet<String>,
) {
    let mut listeners: Vec<(u16, Leaf)> = Vec::new();
    let ports = ports(service, rule);
    for (port, at) in ports {
        let name = format!("tcp-{port}");
        match taken.insert(name.clone()) {
            true => listeners.push((port, Leaf::text(&at, name))),
            false => rule.lost_here(format!("the port {port} has a route already")),
        }
    }
    if listeners.is_empty() {
        return rule.lost_here("it is for no port");
    }
    let Some(action) = action(work, service, rule) else {
        return rule.lost("route", "there is no destination");
    };
    let name = work.name(service.document, index, rule.at());
    let mut route = Route::new(rule.at(), name, action);
    for (port, at) in listeners {
        let listener = work.listener(port, "tcp", at.at());
        route.listeners.push(listener);
    }
    work.output.routes.push(route);
}

/// Returns the ports whose connections the rule is for; says which conditions cannot be expressed.
fn ports(service: &Service<'_>, rule: &Fields<'_>) -> Vec<(u16, crate::model::Position)> {
    const KNOWN: &[&str] = &["port", "gateways"];
    let servers = |names: &BTreeSet<String>, port: Option<u16>| {
        let of = service.gateways.of(names);
        let tcp = of.filter(move |one| one.tcp && port.is_none_or(|port| port == one.port));
        tcp.map(|one| one.port).collect::<Vec<u16>>()
    };
    let mut found = Vec::new();
    if !rule.has("match") {
        let all = servers(&service.names, None).into_iter();
        return all.map(|port| (port, rule.at().clone())).collect();
    }
    for fields in rule.maps("match") {
        let camel = crate::import::fields::camel;
        if let Some(key) = fields.keys().find(|key| !KNOWN.contains(&&*camel(key))) {
            fields.lost_here(format!("connections are not told apart by `{key}`"));
            continue;
        }
        let port = fields.whole("port", 1..=65_535);
        let port = port.and_then(|port| u16::try_from(port.whole()?).ok());
        let own: BTreeSet<String> = fields
            .texts("gateways")
            .iter()
            .map(|name| Gateways::name(name.as_str(), service.document.namespace))
            .collect();
        let names = if fields.has("gateways") {
            &own
        } else {
            &service.names
        };
        let ports = match port {
            None if fields.has("port") => Vec::new(),
            Some(port) if service.gateways.none() => vec![port],
            port => servers(names, port),
        };
        if ports.is_empty() {
            fields.lost_here("no server of its gateways takes such connections");
        }
        found.extend(ports.into_iter().map(|port| (port, fields.at().clone())));
    }
    found
}

fn action(work: &mut Work<'_>, service: &Service<'_>, rule: &Fields<'_>) -> Option<Action> {
    let routes = rule.maps("route");
    let only = routes.len() == 1;
    let mut members: Vec<Member> = Vec::new();
    for fields in &routes {
        let weight = fields.whole("weight", 0..=1_000_000);
        let Some(to) = fields.map("destination") else {
            fields.lost_here("`destination` is missing");
            continue;
        };
        let Some(cluster) = destination(work, service.document, service.rules, &to) else {
            continue;
        };
        let weight = weight.unwrap_or_else(|| Leaf::number(fields.at(), 0));
        members.push(Member {
            at: Some(cluster.at().clone()),
            cluster: Some(cluster),
            weight: Some(weight),
            ..Member::default()
        });
    }
    if only {
        return members.pop()?.cluster.map(Action::Cluster);
    }
    let some = members.iter().any(|member| {
        let weight = member.weight.as_ref();
        weight.is_some_and(|weight| weight.whole() != Some(0))
    });
    some.then_some(Action::Split(members))
}
