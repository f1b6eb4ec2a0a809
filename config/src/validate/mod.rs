//! From typed keys to a legal [`Config`]: what one value alone cannot tell.

mod access;
mod action;
mod asleep;
mod cluster;
mod cross;
mod endpoint;
mod gpu;
mod health;
mod limits;
mod listener;
mod mirror;
mod models;
mod rewrite;
mod route;
mod scale;
mod sharing;
mod traffic;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::diagnostic::{Code, quoted};
use crate::model::{AccessLog, Config, Drain, LimitSource, LogFormat, LogTarget, Position};
use crate::schema::keys::{AccessLogKeys, DrainKeys, FileKeys};
use crate::schema::{At, List, Path, Reader};
use crate::units::MILLIONTHS;

/// Makes a configuration of the keys, or reports to `reader` why there is none.
///
/// * `complete`: all files could be read, so that a name that nothing has is really unknown
pub fn validate(keys: FileKeys, complete: bool, reader: &mut Reader<'_>) -> Option<Config> {
    let surely = |there: bool| complete && (there || !keys.top_broken);
    let listener_names = names(keys.listeners.as_ref(), "listeners", reader)
        .filter(|_| surely(keys.listeners.is_some()))
        .map(|names| {
            if keys.listeners.is_some() {
                names
            } else {
                HashSet::from(["default"])
            }
        });
    let cluster_names = names(keys.clusters.as_ref(), "clusters", reader)
        .filter(|_| surely(keys.clusters.is_some()));
    let list_names = names(keys.access_lists.as_ref(), "access_lists", reader)
        .filter(|_| surely(keys.access_lists.is_some()));
    let policies = keys.rate_limit_policies.as_ref();
    let policy_names = names(policies, "rate_limit_policies", reader)
        .filter(|_| surely(keys.rate_limit_policies.is_some()));
    names(keys.routes.as_ref(), "routes", reader);
    let admin = listener::admin(keys.admin.as_ref(), &keys.position, reader);
    let sockets = listener::Sockets::of_admin(admin.as_ref());
    let listeners = listener::listeners(keys.listeners.as_ref(), sockets, reader);
    let gpus = gpu::devices(keys.gpus.as_ref(), reader);
    let clusters = keys.clusters.as_ref();
    let clusters: Vec<_> = each(clusters, "clusters", reader, |keys, path, reader| {
        cluster::cluster(keys, &gpus, path, reader)
    });
    let identity = match &keys.auth {
        Some(auth) => auth.value.api_keys.is_some() || auth.value.broken,
        None => !surely(false),
    };
    let policies: Vec<_> = each(
        policies,
        "rate_limit_policies",
        reader,
        |keys, path, reader| limits::policy(keys, identity, path, reader).map(Arc::new),
    );
    let named = route::Named {
        lists: access::Lists::new(keys.access_lists.as_ref(), list_names),
        policies: limits::Policies {
            policies: policies
                .iter()
                .map(|policy| (policy.name.clone(), Arc::clone(policy)))
                .collect(),
            names: policy_names,
            identity,
        },
    };
    let mut index = 0..;
    let routes: Vec<route::Draft> = each(
        keys.routes.as_ref(),
        "routes",
        reader,
        |route, path, reader| route::route(route, index.next()?, &named, path, reader),
    );
    cross::references(
        &routes,
        listener_names.as_ref(),
        cluster_names.as_ref(),
        reader,
    );
    if reader.failures() > 0 {
        return None;
    }
    cross::tcp(&routes, &listeners, reader);
    models::by_model(&routes, keys.clusters.as_ref(), reader);
    if reader.failures() > 0 {
        return None;
    }
    cross::warnings(&routes, &listeners, &clusters, reader);
    asleep::warnings(&routes, &clusters, reader);
    models::warnings(&routes, &clusters, reader);
    gpu::crowded(&clusters, &gpus, reader);
    unused(&keys, &routes, reader);
    Some(Config {
        admin: admin?,
        workers: keys
            .workers
            .and_then(|workers| std::num::NonZeroU32::new(workers.value.narrow())),
        drain: drain(keys.drain.map(|drain| drain.value)),
        max_memory: keys.max_memory.map(|bytes| bytes.value.0),
        listeners: listeners.into_iter().map(Arc::new).collect(),
        routes: routes
            .into_iter()
            .map(|draft| Arc::new(draft.route))
            .collect(),
        clusters: clusters.into_iter().map(Arc::new).collect(),
        rate_limit_policies: policies,
        auth: sharing::auth(keys.auth.as_ref()),
        gpus,
        access_log: keys.access_log.map(|log| access_log(log.value)),
    })
}

/// Reports access lists and policies that no route names.
fn unused(keys: &FileKeys, routes: &[route::Draft], reader: &mut Reader<'_>) {
    let routes = || routes.iter().map(|draft| &draft.route);
    let lists = routes().filter_map(|route| route.access.as_ref()?.list.as_deref());
    let policies = routes()
        .flat_map(|route| &route.rate_limits)
        .filter_map(|limit| match &limit.source {
            LimitSource::Policy(policy) => Some(&*policy.name),
            LimitSource::Own(_) => None,
        });
    let (used_lists, used_policies) = (lists.collect(), policies.collect());
    let lists = keys.access_lists.as_ref();
    cross::unused(lists, "access_lists", "access list", &used_lists, reader);
    let policies = keys.rate_limit_policies.as_ref();
    cross::unused(
        policies,
        "rate_limit_policies",
        "policy",
        &used_policies,
        reader,
    );
}

/// Returns the names in a list, and reports those that are in it twice. `None`: there may be one that could not be
/// read, so that a name that is not found may just be spoilt, and is not reported on top.
fn names<'a, K: Named>(
    list: Option<&'a At<List<K>>>,
    key: &'static str,
    reader: &mut Reader<'_>,
) -> Option<HashSet<&'a str>> {
    let mut first: HashMap<&str, &Position> = HashMap::new();
    let mut readable = list.is_none_or(|list| !list.value.incomplete);
    for item in list.iter().flat_map(|list| &list.value.items) {
        let Some(name) = item.value.name() else {
            readable = false;
            continue;
        };
        let Some(place) = first.insert(name, &item.position) else {
            continue;
        };
        let message = format!("the name {} is taken", quoted(name));
        let help = format!("the first one is at {}:{}", place.file, place.line);
        reader.refuse(
            Code::DuplicateName,
            &item.position,
            Path::ROOT.key(key),
            message,
            &help,
        );
        first.insert(name, place);
    }
    readable.then(|| first.into_keys().collect())
}

/// Reads each item of a top-level list, with its path.
fn each<K, T>(
    list: Option<&At<List<K>>>,
    key: &'static str,
    reader: &mut Reader<'_>,
    mut read: impl FnMut(&K, Path<'_>, &mut Reader<'_>) -> Option<T>,
) -> Vec<T>
where
    K: Named,
{
    let path = Path::ROOT.key(key);
    let items = list.map_or(&[][..], |list| &list.value.items);
    items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| read(&item.value, path.item(index, item.value.name()), reader))
        .collect()
}

/// An entry of a list that has a name.
trait Named {
    /// Returns the name, if it could be read.
    fn name(&self) -> Option<&str>;
}

macro_rules! named {
    ($($keys:ident),+) => {
        $(impl Named for crate::schema::keys::$keys {
            fn name(&self) -> Option<&str> {
                self.name.as_ref().map(|name| &*name.value.0)
            }
        })+
    };
}

named!(
    ListenerKeys,
    RouteKeys,
    ClusterKeys,
    AccessListKeys,
    RateLimitPolicyKeys
);

fn drain(keys: Option<DrainKeys>) -> Drain {
    let (delay, timeout) = keys.map_or((None, None), |keys| (keys.delay, keys.timeout));
    Drain {
        delay: delay.map(|delay| delay.value.0),
        timeout: timeout.map_or(Duration::from_secs(300), |timeout| timeout.value.0),
    }
}

fn access_log(keys: AccessLogKeys) -> AccessLog {
    AccessLog {
        target: keys.path.map_or(LogTarget::Stdout, |path| path.value.0),
        format: keys.format.map_or(LogFormat::Json, |format| format.value.0),
        sample: keys.sample.map_or(MILLIONTHS, |share| share.value.0),
        slow: keys.slow.map_or(Some(Duration::from_secs(1)), |slow| {
            slow.value.0.map(|slow| slow.0)
        }),
    }
}

/// Returns the place of what is not written in any file.
fn built_in() -> Position {
    Position {
        file: Arc::from("built-in"),
        line: 1,
        column: 1,
    }
}

/// Returns a clock: what is written, `none` included, or the default.
fn clock(
    at: &Option<At<crate::schema::keys::Clock>>,
    default: Option<Duration>,
) -> Option<Duration> {
    match at {
        Some(at) => at.value.0.map(|period| period.0),
        None => default,
    }
}
