//! HTTPRoute: a rule becomes routes.

use std::collections::BTreeSet;

use super::action::{Done, action, destination};
use super::condition::Condition;
use super::destination_rule::Rules;
use super::gateway::Gateways;
use super::place::{Hosts, Place, joined, places};
use super::policy::{self, headers};
use super::text::{Replaced, shaped};
use crate::import::native::{
    Action, Edits, Match, Mirror, Order, RegexRewrite, Rewrite, Route, Timeouts,
};
use crate::import::{Document, Fields, Leaf, Work};
use crate::schema::{PathText, Pattern, RewriteHost};

/// Keys of a rule that are about forwarded requests.
const FORWARDED: &[&str] = &[
    "timeout",
    "retries",
    "mirror",
    "mirrors",
    "mirrorPercent",
    "mirrorPercentage",
    "rewrite",
];

/// What all rules of a VirtualService share.
pub(super) struct Service<'s> {
    pub(super) document: &'s Document<'s>,
    pub(super) gateways: &'s Gateways,
    pub(super) rules: &'s Rules<'s>,
    pub(super) all: &'s Hosts,
    /// Its own hosts.
    pub(super) hosts: Vec<Leaf>,
    /// The gateways it is for.
    pub(super) names: BTreeSet<String>,
}

/// What the rewrites of a rule say.
#[derive(Default)]
struct Rewrites {
    uri: Option<Leaf>,
    regex: Option<RegexRewrite>,
    host: Option<Leaf>,
}

/// A route, and whether it takes every request to its hosts.
pub(super) type Made = (Route, bool);

/// Makes the routes of a rule. True: rules behind it are never reached.
pub(super) fn rule(
    work: &mut Work<'_>,
    service: &Service<'_>,
    index: usize,
    rule: &Fields<'_>,
    made: &mut Vec<Made>,
) -> bool {
    let conditions = conditions(rule);
    if conditions.is_empty() {
        return nothing(rule, "none of its conditions can be expressed");
    }
    let held: Vec<(Condition, Vec<Place>)> = conditions
        .into_iter()
        .filter_map(|(condition, fields)| match held(service, &condition) {
            Ok(places) => Some((condition, places)),
            Err(note) => {
                match fields {
                    Some(fields) => fields.lost_here(note),
                    None => rule.lost_here(note),
                }
                None
            }
        })
        .collect();
    if held.is_empty() {
        return nothing(rule, "it holds for no request");
    }
    let Some(done) = action(work, service.document, service.rules, rule) else {
        rule.lost_here("it has neither `route`, `redirect` nor `directResponse`");
        return false;
    };
    let name = work.name(service.document, index, rule.at());
    let mut route = Route::new(rule.at(), name, done.action.clone());
    let mut rewrites = rewrites(rule);
    fill(work, service, rule, done, &mut route, &mut rewrites);
    let mut last = false;
    for (condition, places) in held {
        last |= condition.holds_always() && condition.holds_everywhere();
        let places = match apart(&route.action) {
            true => places,
            false => joined(places),
        };
        for place in places {
            add(made, &route, &condition, place, &rewrites, rule);
        }
    }
    last
}

/// True for what differs between listeners with TLS and those without.
fn apart(action: &Action) -> bool {
    matches!(action, Action::Redirect(to) if to.host.is_some() && to.port.is_none() && to.scheme.is_none())
}

/// Says that what a rule does is not done.
fn nothing(rule: &Fields<'_>, note: &str) -> bool {
    for key in rule.keys().filter(|key| *key != "match") {
        rule.lost(key, note);
    }
    false
}

/// Reads the conditions of a rule, each with the map it comes from; says which cannot be expressed.
fn conditions<'f>(rule: &Fields<'f>) -> Vec<(Condition, Option<Fields<'f>>)> {
    if !rule.has("match") {
        return vec![(Condition::none(), None)];
    }
    let matches = rule.maps("match");
    if matches.is_empty() {
        rule.lost("match", "there is no condition");
    }
    let read = |fields: Fields<'f>| match Condition::read(&fields) {
        Ok(condition) => Some((condition, Some(fields))),
        Err(note) => {
            fields.lost_here(note);
            None
        }
    };
    matches.into_iter().filter_map(read).collect()
}

/// Finds where a condition holds. `Err` says why nowhere.
fn held(service: &Service<'_>, condition: &Condition) -> Result<Vec<Place>, String> {
    let hosts: Vec<Leaf> = match &condition.authority {
        None => {
            let hosts = service.hosts.iter();
            hosts.flat_map(|host| service.all.spread(host)).collect()
        }
        Some(name) => {
            let mut hosts = service.hosts.iter();
            match hosts.any(|host| service.all.owns(host.as_str(), name.as_str())) {
                true => vec![name.clone()],
                false => return Err(format!("requests to `{name}` do not come here")),
            }
        }
    };
    let own: Option<BTreeSet<String>> = condition.gateways.as_ref().map(|names| {
        let names = names.iter();
        let namespace = service.document.namespace;
        names
            .map(|name| Gateways::name(name.as_str(), namespace))
            .collect()
    });
    let names = own.as_ref().unwrap_or(&service.names);
    places(
        service.gateways,
        names,
        service.document.namespace,
        &hosts,
        condition.asked,
    )
}

/// Fills in what does not depend on the condition.
fn fill(
    work: &mut Work<'_>,
    service: &Service<'_>,
    rule: &Fields<'_>,
    done: Done,
    route: &mut Route,
    rewrites: &mut Rewrites,
) {
    route.order = Order::FirstMatch;
    let own = headers(rule);
    route.request_headers = merged(done.headers.request, own.request);
    route.response_headers = merged(done.headers.response, own.response);
    let host = done.headers.host.or(own.host);
    rewrites.host = rewrites.host.take().or(host);
    route.cors = policy::cors(rule);
    let forwards = matches!(done.action, Action::Cluster(_) | Action::Split(_));
    let timeout = rule.duration("timeout");
    let retry = policy::retry(rule);
    let mirrors = mirrors(work, service, rule, timeout.as_ref());
    if forwards {
        route.timeouts = timeouts(timeout.as_ref());
        route.retry = retry;
        route.mirrors = mirrors;
    } else {
        for key in FORWARDED {
            rule.approximated(key, "nothing is forwarded that it could hold for");
        }
    }
    faults(rule);
}

/// There is no other clock there: one that is longer than the native ones by themselves moves them.
fn timeouts(timeout: Option<&Leaf>) -> Timeouts {
    let total = timeout.map(policy::clock);
    let length = timeout.and_then(|time| crate::units::duration(time.as_str()));
    let native = crate::model::Timeouts::default();
    let longer = |own: Option<std::time::Duration>| {
        let moved = length.is_some_and(|length| length.is_zero() || Some(length) > own);
        total.clone().filter(|_| moved)
    };
    Timeouts {
        first_byte: longer(native.first_byte),
        idle: longer(native.idle),
        total,
        ..Timeouts::default()
    }
}

/// What closes a way for everybody must not be lost unseen.
fn faults(rule: &Fields<'_>) {
    let Some(abort) = rule.map("fault").and_then(|fault| fault.map("abort")) else {
        return;
    };
    let share = abort
        .map("percentage")
        .and_then(|share| share.float("value"));
    if share.is_none_or(|(share, _)| share >= 100.0) {
        rule.lost_security(
            "fault",
            "all requests are refused there, and here none; use `access`",
        );
    }
}

/// Joins edits; the first ones count.
fn merged(mut first: Edits, second: Edits) -> Edits {
    if first == Edits::default() {
        return second;
    }
    for (to, from) in [(&mut first.set, second.set), (&mut first.add, second.add)] {
        for (name, value) in from.iter() {
            to.add(name.clone(), value.clone());
        }
    }
    first.remove.extend(second.remove);
    first
}

fn mirrors(
    work: &mut Work<'_>,
    service: &Service<'_>,
    rule: &Fields<'_>,
    timeout: Option<&Leaf>,
) -> Vec<Mirror> {
    let timeout = timeout.map(policy::clock);
    let mut mirrors: Vec<Mirror> = Vec::new();
    let mut add =
        |work: &mut Work<'_>, to: &Fields<'_>, sample: Result<Option<Leaf>, String>| match sample {
            Ok(sample) => {
                let cluster = destination(work, service.document, service.rules, to);
                let mirror = cluster.and_then(|cluster| {
                    policy::mirror(cluster, sample, timeout.as_ref(), &mirrors)
                });
                mirrors.extend(mirror);
            }
            Err(note) => to.lost_here(note),
        };
    if let Some(to) = rule.map("mirror") {
        let new = rule.map("mirrorPercentage");
        let sample = match new {
            Some(share) => policy::percentage(&share, "value"),
            None if rule.has("mirrorPercentage") => Err("the percentage is no map".to_owned()),
            None => policy::percentage(rule, "mirrorPercent"),
        };
        add(work, &to, sample);
    }
    for fields in rule.maps("mirrors") {
        let share = fields.map("percentage");
        let sample = match share {
            Some(share) => policy::percentage(&share, "value"),
            None if fields.has("percentage") => Err("the percentage is no map".to_owned()),
            None => Ok(None),
        };
        match fields.map("destination") {
            Some(to) => add(work, &to, sample),
            None => fields.lost_here("`destination` is missing"),
        }
    }
    mirrors
}

fn rewrites(rule: &Fields<'_>) -> Rewrites {
    let mut rewrites = Rewrites::default();
    let Some(fields) = rule.map("rewrite") else {
        return rewrites;
    };
    if let Some(uri) = fields.text("uri").filter(|uri| !uri.as_str().is_empty()) {
        match shaped::<PathText>(&uri) {
            Ok(_) => rewrites.uri = Some(uri),
            Err(note) => fields.lost("uri", note),
        }
    }
    if let Some(host) = fields
        .text("authority")
        .filter(|host| !host.as_str().is_empty())
    {
        match shaped::<RewriteHost>(&host) {
            Ok(_) => rewrites.host = Some(host),
            Err(note) => fields.lost("authority", note),
        }
    }
    if let Some(regex) = fields.map("uriRegexRewrite") {
        match replacement(&regex) {
            Ok(regex) => rewrites.regex = Some(regex),
            Err(note) => fields.lost("uriRegexRewrite", note),
        }
        if rewrites.uri.is_some() && rewrites.regex.take().is_some() {
            fields.lost("uriRegexRewrite", "`uri` counts");
        }
    }
    rewrites
}

fn replacement(fields: &Fields<'_>) -> Result<RegexRewrite, String> {
    let find = fields.text("match");
    let with = fields.text("rewrite");
    let find = find.ok_or("`match` is missing")?;
    let groups = shaped::<Pattern>(&find)?.free.captures_len();
    let with = with.unwrap_or_else(|| find.with(""));
    let mut text = String::new();
    let mut rest = with.as_str().chars();
    while let Some(c) = rest.next() {
        match c {
            '$' => text.push_str("$$"),
            '\\' => match rest.next() {
                Some('\\') => text.push('\\'),
                Some(digit) if digit.to_digit(10).is_some_and(|n| (n as usize) < groups) => {
                    text.push_str(&format!("${{{digit}}}"));
                }
                other => {
                    let other = other.map_or_else(String::new, String::from);
                    return Err(format!("the expression has no group `\\{other}`"));
                }
            },
            c => text.push(c),
        }
    }
    Ok(RegexRewrite {
        at: Some(fields.at().clone()),
        find: Some(find),
        with: Some(with.with(text)),
    })
}

/// Adds a rule's route at a place, or its condition to the route before.
fn add(
    made: &mut Vec<Made>,
    template: &Route,
    condition: &Condition,
    place: Place,
    rewrites: &Rewrites,
    rule: &Fields<'_>,
) {
    let mut route = template.clone();
    if let Action::Redirect(redirect) = &mut route.action
        && let (Some(host), None, None) = (&redirect.host, &redirect.port, &redirect.scheme)
    {
        // A host of its own has the port of the scheme, not that of the listener.
        let default = place.tls.map(|tls| if tls { 443 } else { 80 });
        match default {
            Some(port) => redirect.port = Some(Leaf::number(host.at(), port)),
            None => {
                if let Some(fields) = rule.map("redirect") {
                    fields.approximated("authority", "the port is that of the listener");
                }
            }
        }
    }
    if matches!(route.action, Action::Cluster(_) | Action::Split(_)) {
        route.rewrite = rewrite(rewrites, condition);
    }
    route.listeners = place.listeners;
    let matches = spread(&condition.native, &place.hosts);
    let always = condition.holds_always() && condition.holds_everywhere();
    let alike = |(last, last_always): &&mut Made| {
        last.name == route.name
            && last.listeners == route.listeners
            && last.rewrite == route.rewrite
            && last.action == route.action
            && *last_always == always
    };
    match made.last_mut().filter(alike) {
        Some((last, _)) => last.matches.extend(matches),
        None => {
            route.matches = matches;
            made.push((route, always));
        }
    }
}

/// Makes a condition for each host; one for any host stands alone.
pub(super) fn spread(condition: &Match, hosts: &[Leaf]) -> Vec<Match> {
    let (any, named): (Vec<&Leaf>, Vec<&Leaf>) =
        hosts.iter().partition(|host| host.as_str().is_empty());
    let mut matches = Vec::new();
    if !named.is_empty() {
        matches.push(Match {
            hosts: named.into_iter().cloned().collect(),
            ..condition.clone()
        });
    }
    if !any.is_empty() {
        matches.push(condition.clone());
    }
    matches
}

fn rewrite(rewrites: &Rewrites, condition: &Condition) -> Rewrite {
    let mut rewrite = Rewrite {
        regex: rewrites.regex.clone(),
        host: rewrites.host.clone(),
        ..Rewrite::default()
    };
    match (&rewrites.uri, &condition.replaced) {
        (None, _) => {}
        (Some(uri), Replaced::Whole) => rewrite.path = Some(uri.clone()),
        // Nothing would change.
        (Some(uri), Replaced::Front(find)) if find == "^/" && uri.as_str() == "/" => {}
        (Some(uri), Replaced::Front(find)) => {
            rewrite.regex = Some(RegexRewrite {
                at: Some(uri.at().clone()),
                find: Some(uri.with(find.as_str())),
                with: Some(uri.with(uri.as_str().replace('$', "$$"))),
            });
        }
    }
    rewrite
}
