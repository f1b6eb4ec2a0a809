//! What a route says to browsers, and what ties a client to a member of its split; API keys.

use std::time::Duration;

use http::Method;

use super::limits::needs_api_keys;
use crate::diagnostic::{Code, Diagnostic};
use crate::model::{Action, AnyOf, ApiKeys, Auth, Cors, RouteAuth, Sticky};
use crate::schema::keys::{AuthKeys, CorsKeys, MemberKeys, RouteAuthKeys, StickyKeys};
use crate::schema::{AnyList, At, List, Path, Reader};

/// One in so many requests is the smallest share that a sticky split can give.
const STICKY_BUCKETS: u64 = 10_000;

pub(super) fn auth(keys: Option<&At<AuthKeys>>) -> Auth {
    let file = |at: &At<crate::schema::keys::KeyFileKeys>| {
        Some(ApiKeys {
            file: at.value.file.as_ref()?.value.0.clone(),
            position: at.position.clone(),
        })
    };
    let keys = keys.and_then(|at| at.value.api_keys.as_ref());
    Auth {
        api_keys: keys.and_then(file),
    }
}

/// Reads `auth` of a route.
///
/// * `identity`: API keys are there, or may be
pub(super) fn route_auth(
    keys: &RouteAuthKeys,
    identity: bool,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> RouteAuth {
    let auth = RouteAuth {
        required: keys.required.as_ref().is_some_and(|at| at.value),
        keep_key: keys.keep_key.as_ref().is_some_and(|at| at.value),
    };
    if let (Some(at), true, false) = (&keys.required, auth.required, identity) {
        let message = "an API key is required, and none is known";
        needs_api_keys(message, &at.position, path.key("required"), reader);
    } else if let (Some(at), true, false) = (&keys.keep_key, auth.keep_key, identity) {
        let message = format!("{path}.keep_key: has no effect, because no API key is known");
        reader.report(Diagnostic::new(Code::NoEffect, &at.position, message));
    }
    auth
}

pub(super) fn cors(keys: &CorsKeys, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Cors> {
    let origins = keys.origins.as_ref()?;
    let credentials = keys.credentials.as_ref().is_some_and(|at| at.value);
    match (&origins.value, &keys.credentials) {
        (AnyList::Only(list), _) if list.items.is_empty() && !list.incomplete => {
            let help = "`[\"*\"]` is every site; leave `cors` out for none";
            let path = path.key("origins");
            reader.refuse(
                Code::BadValue,
                &origins.position,
                path,
                "the list is empty",
                help,
            );
        }
        (AnyList::Any, Some(at)) if credentials => {
            let message = format!(
                "{path}.credentials: any site may call this route as the user and read the answers"
            );
            let help = "list the sites in `origins`, or remove `credentials`";
            reader.report(Diagnostic::new(Code::OpenCors, &at.position, message).help(help));
        }
        (AnyList::Only(_) | AnyList::Any, _) => {}
    }
    let max_age = keys.max_age.as_ref();
    Some(Cors {
        origins: any_of(&origins.value, |origin| origin.0.clone()),
        methods: keys.methods.as_ref().map_or_else(
            || AnyOf::Only(vec![Method::GET, Method::POST]),
            |at| any_of(&at.value, Clone::clone),
        ),
        headers: keys
            .headers
            .as_ref()
            .map_or(AnyOf::Any, |at| any_of(&at.value, Clone::clone)),
        expose: keys.expose.as_ref().map_or_else(
            || AnyOf::Only(Vec::new()),
            |at| any_of(&at.value.0, Clone::clone),
        ),
        credentials,
        max_age: max_age.map_or(Duration::from_secs(300), |at| whole_seconds(at.value.0)),
    })
}

fn any_of<S, T>(list: &AnyList<S>, value: impl Fn(&S) -> T) -> AnyOf<T> {
    match list {
        AnyList::Any => AnyOf::Any,
        AnyList::Only(list) => AnyOf::Only(list.items.iter().map(|at| value(&at.value)).collect()),
    }
}

/// Rounds up, because headers know whole seconds only.
fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_nanos().div_ceil(1_000_000_000) as u64)
}

/// Reads `sticky` of a route.
///
/// * `split`: the members as written
/// * `action`: what the route does, if that could be read
pub(super) fn sticky(
    at: &At<StickyKeys>,
    split: Option<&At<List<MemberKeys>>>,
    action: Option<&Action>,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Option<Sticky> {
    let keys = &at.value;
    let mut found: Vec<Sticky> = Vec::new();
    found.extend(
        keys.header
            .as_ref()
            .map(|at| Sticky::Header(at.value.0.clone())),
    );
    found.extend(keys.cookie.as_ref().and_then(|at| {
        let cookie = &at.value.0;
        let ttl = cookie.ttl.as_ref().and_then(|at| at.value.0);
        Some(Sticky::Cookie {
            name: cookie.name.as_ref()?.value.0.clone(),
            ttl: ttl.map(|ttl| whole_seconds(ttl.0)),
        })
    }));
    found.extend(
        keys.client_ip
            .as_ref()
            .filter(|on| on.value)
            .map(|_| Sticky::ClientIp),
    );
    found.extend(
        keys.json
            .as_ref()
            .map(|at| Sticky::Json(at.value.0.clone())),
    );
    if found.len() != 1 {
        if !keys.broken {
            let message =
                "expected exactly one of `header`, `cookie`, `client_ip: true` and `json`";
            reader.refuse(Code::Conflict, &keys.position, path, message, "");
        }
        return None;
    }
    match action {
        Some(Action::Forward(members)) if members.len() > 1 => {
            small_shares(split, path, reader);
        }
        Some(_) => {
            let message = format!("{path}: has no effect, because there is no choice to stick to");
            let help = "it ties clients to members of a `split`; `balance: {hash: …}` of a cluster to endpoints";
            reader.report(Diagnostic::new(Code::NoEffect, &at.position, message).help(help));
        }
        None => {}
    }
    found.pop()
}

/// Reports members whose share is too small for a sticky split to give.
fn small_shares(split: Option<&At<List<MemberKeys>>>, path: Path<'_>, reader: &mut Reader<'_>) {
    let Some(At { value: split, .. }) = split else {
        return;
    };
    let weight = |member: &MemberKeys| {
        let written = member.weight.as_ref();
        written.map_or(1, |at| u64::from(at.value.narrow()))
    };
    let sum: u64 = split.items.iter().map(|at| weight(&at.value)).sum();
    for member in &split.items {
        let share = weight(&member.value);
        if share == 0 || share * STICKY_BUCKETS >= sum {
            continue;
        }
        let written = member.value.weight.as_ref();
        let position = written.map_or(&member.position, |at| &at.position);
        let message = format!(
            "{path}: a share of {share} in {sum} is below the resolution of a sticky split, 1 in {STICKY_BUCKETS}"
        );
        let help = "raise this weight, or lower the others";
        reader.report(Diagnostic::new(Code::StickyShare, position, message).help(help));
    }
}
