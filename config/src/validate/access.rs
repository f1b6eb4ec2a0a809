//! Who may send requests.

use std::collections::{HashMap, HashSet};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::cross::known;
use crate::diagnostic::{Code, Diagnostic};
use crate::model::{Access, AccessEntry};
use crate::schema::keys::{AccessKeys, AccessListKeys};
use crate::schema::{AccessShape, At, List, Path, Reader};

/// The named lists.
pub(super) struct Lists<'a> {
    /// Those that could be read, by name.
    pub(super) lists: HashMap<&'a str, &'a AccessListKeys>,
    /// All names; `None`: not all of them could be read.
    pub(super) names: Option<HashSet<&'a str>>,
}

impl<'a> Lists<'a> {
    /// Indexes the lists by name; of two with the same name the last one, which is an error anyway.
    pub(super) fn new(
        list: Option<&'a At<List<AccessListKeys>>>,
        names: Option<HashSet<&'a str>>,
    ) -> Self {
        let items = list.map_or(&[][..], |list| &list.value.items);
        let named =
            |at: &'a At<AccessListKeys>| Some((&*at.value.name.as_ref()?.value.0, &at.value));
        Self {
            lists: items.iter().filter_map(named).collect(),
            names,
        }
    }
}

/// Merges a route's own entries into those of the list it names.
pub(super) fn access(
    at: &At<AccessKeys>,
    lists: &Lists<'_>,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Option<Access> {
    let keys = &at.value;
    let named = keys.list.as_ref().map(|at| At {
        value: at.value.0.clone(),
        position: at.position.clone(),
    });
    if let Some(name) = &named {
        known(
            "access list",
            name,
            lists.names.as_ref(),
            path.key("list"),
            reader,
        );
    }
    let list = match &named {
        Some(name) => Some(*lists.lists.get(&*name.value)?),
        None => None,
    };
    let merged = |of_list: Option<&At<List<AccessShape>>>, own: Option<&At<List<AccessShape>>>| {
        let all = of_list
            .into_iter()
            .chain(own)
            .flat_map(|at| &at.value.items);
        all.map(|at| at.value.0.clone()).collect::<Vec<_>>()
    };
    let of_list = list.map(|list| (list.deny.as_ref(), list.allow.as_ref()));
    let (list_deny, list_allow) = of_list.unwrap_or_default();
    let allows = list_allow.is_some() || keys.allow.is_some();
    let access = Access {
        list: named.map(|at| at.value),
        deny: merged(list_deny, keys.deny.as_ref()),
        allow: allows.then(|| merged(list_allow, keys.allow.as_ref())),
        dry_run: keys.dry_run.as_ref().is_some_and(|at| at.value),
        position: at.position.clone(),
    };
    if !keys.broken && !list.is_some_and(|list| list.broken) {
        warn(&access, path, reader);
    }
    Some(access)
}

/// Reports access rules that let everybody in, or nobody.
fn warn(access: &Access, path: Path<'_>, reader: &mut Reader<'_>) {
    let (code, what) = match &access.allow {
        None if access.deny.is_empty() => (Code::NoEffect, "names nobody, so it has no effect"),
        _ if access.dry_run => return,
        Some(allow) if allow.is_empty() => (
            Code::BlocksAll,
            "blocks everything: `allow` is there and empty, so nobody is let in",
        ),
        Some(allow) if all_denied(allow, &access.deny) => (
            Code::BlocksAll,
            "blocks everything: all that `allow` lets in is in `deny`, which wins",
        ),
        None if all_denied(&everybody(), &access.deny) => (
            Code::BlocksAll,
            "blocks everything: `deny` names every address",
        ),
        Some(_) | None => return,
    };
    let message = format!("{path}: {what}");
    reader.report(Diagnostic::new(code, &access.position, message));
}

fn everybody() -> [AccessEntry; 2] {
    let all = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
    all.map(AccessEntry::Net)
}

/// True when every entry of `allow` is an address block inside one of `deny`; what files and headers say is not known.
fn all_denied(allow: &[AccessEntry], deny: &[AccessEntry]) -> bool {
    let net = |entry: &AccessEntry| match entry {
        AccessEntry::Net(net) => Some(*net),
        AccessEntry::Headers(_) | AccessEntry::File(_) => None,
    };
    // Sorted and apart from each other, so that only the last one that starts before a block can hold it.
    let mut denied = IpNet::aggregate(&deny.iter().filter_map(net).collect());
    denied.sort_unstable_by_key(IpNet::network);
    let inside = |allowed: IpNet| {
        let behind = denied.partition_point(|net| net.network() <= allowed.network());
        behind
            .checked_sub(1)
            .is_some_and(|last| denied[last].contains(&allowed))
    };
    allow.iter().all(|entry| net(entry).is_some_and(inside))
}
