//! What a rule does: forward, redirect, answer.

use super::destination_rule::Rules;
use super::policy::{Headers, headers};
use super::text::shaped;
use crate::import::native::{Action, Member, Redirect, Respond};
use crate::import::services::{PortRef, Target};
use crate::import::{Document, Fields, Leaf, Work};
use crate::schema::{HostName, Name, PathText};

/// What a rule does, and what its only destination does to headers.
pub(super) struct Done {
    pub(super) action: Action,
    pub(super) headers: Headers,
}

impl Done {
    fn new(action: Action) -> Self {
        let headers = Headers::default();
        Self { action, headers }
    }

    /// Answers 503, as for a destination that is not there: nobody else may get these requests.
    fn unavailable(fields: &Fields<'_>) -> Self {
        let respond = Respond {
            status: Some(Leaf::number(fields.at(), 503)),
            ..Respond::default()
        };
        Self::new(Action::Respond(Box::new(respond)))
    }
}

/// Reads what a rule does. `None`: it does nothing.
pub(super) fn action(
    work: &mut Work<'_>,
    document: &Document<'_>,
    rules: &Rules,
    rule: &Fields<'_>,
) -> Option<Done> {
    if rule.has("directResponse") {
        return Some(respond(rule));
    }
    if rule.has("redirect") {
        return Some(redirect(rule));
    }
    if rule.has("delegate") {
        return Some(Done::unavailable(rule));
    }
    rule.has("route")
        .then(|| forward(work, document, rules, rule))
}

/// Finds the cluster of a Destination; says why there is none.
pub(super) fn destination(
    work: &mut Work<'_>,
    document: &Document<'_>,
    rules: &Rules,
    fields: &Fields<'_>,
) -> Option<Leaf> {
    let found = cluster(work, document, rules, fields);
    found.map_err(|note| fields.lost_here(note)).ok()
}

fn cluster(
    work: &mut Work<'_>,
    document: &Document<'_>,
    rules: &Rules,
    fields: &Fields<'_>,
) -> Result<Leaf, String> {
    let host = fields.text("host");
    let subset = fields.text("subset");
    let number = fields
        .map("port")
        .map(|port| port.whole("number", 1..=65_535));
    let port = match number {
        None if fields.has("port") => return Err("`port` is not a map".to_owned()),
        None => PortRef::Only,
        Some(number) => {
            let number = number.and_then(|number| u16::try_from(number.whole()?).ok());
            PortRef::Number(number.ok_or("`port` has no number from 1 to 65535")?)
        }
    };
    let host = host.ok_or("`host` is missing")?;
    if fields.has("subset") && subset.is_none() {
        return Err("`subset` is not a name".to_owned());
    }
    let subset = subset.filter(|subset| !subset.as_str().is_empty());
    let full = work
        .services
        .full_name(host.as_str(), document.namespace, work.options);
    shaped::<HostName>(&host.with(full.as_str()))?;
    if let Some(subset) = &subset {
        shaped::<Name>(&subset.with(format!("{full}:65535/{subset}")))?;
        if !rules.has_subset(&full, subset.as_str()) {
            return Err(format!(
                "no DestinationRule of `{full}` describes the subset `{subset}`"
            ));
        }
    }
    work.cluster(&Target {
        host: host.as_str(),
        namespace: document.namespace,
        port,
        subset: subset.as_ref().map(Leaf::as_str),
        at: host.at(),
    })
}

fn forward(work: &mut Work<'_>, document: &Document<'_>, rules: &Rules, rule: &Fields<'_>) -> Done {
    let routes = rule.maps("route");
    let only = routes.len() == 1;
    let mut members: Vec<(Leaf, Option<Leaf>, Headers)> = Vec::new();
    for fields in &routes {
        let weight = fields.whole("weight", 0..=1_000_000);
        let headers = headers(fields);
        if headers.host.is_some() && !only {
            fields.lost("headers", "members of a split do not have their own `Host`");
        }
        let Some(to) = fields.map("destination") else {
            fields.lost_here("`destination` is missing");
            continue;
        };
        let Some(cluster) = destination(work, document, rules, &to) else {
            continue;
        };
        let bad = weight.is_none() && fields.has("weight");
        let weight = weight.or_else(|| Some(Leaf::number(fields.at(), 0)));
        if bad {
            continue;
        }
        members.push((cluster, weight.filter(|_| !only), headers));
    }
    let some = members.iter().any(|(_, weight, _)| {
        weight
            .as_ref()
            .is_none_or(|weight| weight.whole() != Some(0))
    });
    if !some {
        if !members.is_empty() {
            rule.lost("route", "all weights are 0");
        }
        return Done::unavailable(rule);
    }
    if only && let Some((cluster, _, headers)) = members.pop() {
        let action = Action::Cluster(cluster);
        return Done { action, headers };
    }
    let member = |(cluster, weight, headers): (Leaf, Option<Leaf>, Headers)| Member {
        at: Some(cluster.at().clone()),
        cluster: Some(cluster),
        weight,
        request_headers: headers.request,
        response_headers: headers.response,
    };
    Done::new(Action::Split(members.into_iter().map(member).collect()))
}

fn respond(rule: &Fields<'_>) -> Done {
    let Some(fields) = rule.map("directResponse") else {
        return Done::unavailable(rule);
    };
    let Some(status) = fields.whole("status", 200..=599) else {
        return Done::unavailable(rule);
    };
    let body = fields.map("body").and_then(|body| {
        let text = body.text("string");
        if text.is_none() && body.has("bytes") {
            body.lost("bytes", "write the body as `string`");
        }
        text
    });
    let respond = Respond {
        at: Some(fields.at().clone()),
        status: Some(status),
        body,
        ..Respond::default()
    };
    Done::new(Action::Respond(Box::new(respond)))
}

fn redirect(rule: &Fields<'_>) -> Done {
    let Some(fields) = rule.map("redirect") else {
        return Done::unavailable(rule);
    };
    match target(&fields) {
        Ok(redirect) => Done::new(Action::Redirect(Box::new(redirect))),
        Err(note) => {
            fields.lost_here(note);
            Done::unavailable(rule)
        }
    }
}

fn target(fields: &Fields<'_>) -> Result<Redirect, String> {
    let mut redirect = Redirect {
        at: Some(fields.at().clone()),
        ..Redirect::default()
    };
    let status = fields.whole("redirectCode", 301..=308);
    let legal = |leaf: &Leaf| matches!(leaf.whole(), Some(301 | 302 | 303 | 307 | 308));
    redirect.status = match status {
        Some(status) if legal(&status) => Some(status),
        _ if fields.has("redirectCode") => {
            return Err("`redirectCode` is one of 301, 302, 303, 307 and 308".to_owned());
        }
        _ => Some(Leaf::number(fields.at(), 301)),
    };
    if let Some(uri) = fields.text("uri").filter(|uri| !uri.as_str().is_empty()) {
        if uri.as_str().contains('%') && uri.as_str().ends_with(")%") {
            return Err("`uri` with variables".to_owned());
        }
        shaped::<PathText>(&uri)?;
        redirect.path = Some(uri);
    }
    if let Some(authority) = fields
        .text("authority")
        .filter(|one| !one.as_str().is_empty())
    {
        let (host, port) = match authority.as_str().rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') && !port.ends_with(']') => {
                (host, Some(port))
            }
            _ => (authority.as_str(), None),
        };
        let host = authority.with(host);
        shaped::<HostName>(&host)?;
        redirect.host = Some(host);
        if let Some(port) = port {
            let port: u16 = port
                .parse()
                .map_err(|_| "the port is not a number".to_owned())?;
            redirect.port = Some(Leaf::number(authority.at(), port));
        }
    }
    if let Some(scheme) = fields.text("scheme").filter(|one| !one.as_str().is_empty()) {
        if !matches!(scheme.as_str(), "http" | "https") {
            return Err("`scheme` is `http` or `https`".to_owned());
        }
        redirect.scheme = Some(scheme);
    }
    if let Some(port) = fields.whole("port", 1..=65_535) {
        redirect.port = Some(port);
    }
    if let Some(word) = fields.text("derivePort")
        && word.as_str() == "FROM_REQUEST_PORT"
    {
        let note = "the port is that of the listener, and with `scheme` its default";
        fields.approximated("derivePort", note);
    }
    let Redirect {
        scheme,
        host,
        port,
        path,
        ..
    } = &redirect;
    match scheme.is_none() && host.is_none() && port.is_none() && path.is_none() {
        true => Err("it leads to the request's own address".to_owned()),
        false => Ok(redirect),
    }
}
