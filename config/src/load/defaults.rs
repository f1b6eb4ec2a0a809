//! `defaults:` are merged into the entries of the lists, field by field.

use super::entries_mut;
use crate::diagnostic::Code;
use crate::node::{Entry, Node, Value};
use crate::schema::{Path, Reader};

/// Which default is for which list.
const KINDS: &[(&str, &str)] = &[
    ("route", "routes"),
    ("cluster", "clusters"),
    ("listener", "listeners"),
];

/// Keys that exclude each other: an entry that has one of them takes none of the others from the defaults.
const EXCLUSIVE: &[&[&str]] = &[
    &[
        "cluster", "split", "redirect", "respond", "by_model", "pipeline",
    ],
    &["exact", "prefix", "regex"],
    &["prefix", "path", "regex"],
    &["regex", "present", "not", "in"],
    &["certificate", "key", "certificates"],
    &["header", "cookie", "client_ip", "json"],
    &["process", "webhook", "observe"],
];

/// Maps whose keys are names that users choose.
const FREE: &[&str] = &[
    "headers", "query", "cookies", "set", "add", "labels", "subset", "env",
];

/// Takes `defaults` out of the tree.
pub(super) fn take(root: &mut Node) -> Option<Node> {
    let entries = entries_mut(root)?;
    let place = entries
        .iter()
        .position(|entry| entry.key == "defaults" && !entry.value.is_null())?;
    Some(entries.remove(place).value)
}

/// Merges `defaults` into every entry of the lists.
pub(super) fn apply(defaults: &Node, root: &mut Node, reader: &mut Reader<'_>) {
    for (kind, list) in KINDS {
        let Some(default) = defaults.get(kind) else {
            continue;
        };
        if let Some(name) = default.get("name") {
            let path = Path::ROOT.key("defaults");
            reader.refuse(
                Code::BadValue,
                &name.position,
                path.key(kind),
                "a name cannot be a default",
                "remove it",
            );
        }
        let Some(entry) = entries_mut(root)
            .and_then(|entries| entries.iter_mut().find(|entry| entry.key == *list))
        else {
            continue;
        };
        if let Value::List(items) = &mut entry.value.value {
            items.iter_mut().for_each(|item| fill(item, default, false));
        }
    }
}

/// Adds to a map what the default has and the map has not. What is `null` in the map stays switched off.
///
/// * `free`: the keys are names that users choose, so that none excludes another
fn fill(own: &mut Node, default: &Node, free: bool) {
    let (Value::Map(own), Value::Map(default)) = (&mut own.value, &default.value) else {
        return;
    };
    let written = own.len();
    for entry in default.iter().filter(|entry| free || entry.key != "name") {
        let place = own[..written]
            .iter()
            .position(|known| known.key == entry.key);
        match place {
            Some(place) => fill(
                &mut own[place].value,
                &entry.value,
                FREE.contains(&&*entry.key),
            ),
            None if free || !excluded(&own[..written], &entry.key) => own.push(entry.clone()),
            None => {}
        }
    }
}

fn excluded(own: &[Entry], key: &str) -> bool {
    let has = |key: &&str| own.iter().any(|entry| entry.key == *key);
    EXCLUSIVE
        .iter()
        .any(|group| group.contains(&key) && group.iter().any(has))
}

#[cfg(test)]
mod tests {
    use crate::load::{SourceFile, load};
    use crate::model::{Action, Config, PathMatch};

    fn config(text: &str) -> Config {
        let file = SourceFile {
            name: "a.yaml".into(),
            directory: ".".into(),
            text: text.to_owned(),
        };
        load(&[file], &|_| None)
            .unwrap_or_else(|problems| panic!("{problems}"))
            .config
    }

    #[test]
    fn an_own_key_wins_field_by_field_and_null_switches_off() {
        let config = config(
            "defaults:\n  route:\n    timeouts: {total: 7s, idle: 8s}\n    request_headers: {set: {x-a: '1', x-b: '2'}}\n\
             \x20 cluster: {endpoints: ['a:1'], breaker: {connections: 5}}\n\
             routes:\n- name: r\n  cluster: c\n  timeouts: {idle: null, tunnel: 9s}\n\
             \x20 request_headers: {set: {x-b: null, X-C: '3'}}\n\
             clusters: [{name: c, endpoints: ['b:2']}]\n",
        );
        let route = &config.routes[0];
        assert_eq!(route.timeouts.total.unwrap().as_secs(), 7);
        assert_eq!(route.timeouts.idle, None);
        assert_eq!(route.timeouts.tunnel.unwrap().as_secs(), 9);
        let set: Vec<&str> = route
            .request_headers
            .set
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(set, ["x-c", "x-a"]);
        assert_eq!(config.clusters[0].endpoints.len(), 1);
        assert_eq!(config.clusters[0].breaker.connections, Some(5));
    }

    #[test]
    fn an_own_alternative_drops_the_default_one() {
        let config = config(
            "defaults: {route: {match: {path: {prefix: /a}}, cluster: c}}\n\
             routes:\n- {name: r, match: {path: {exact: /b}}, respond: {body: x}}\n- {name: s}\n\
             clusters: [{name: c, endpoints: ['b:2']}]\n",
        );
        assert!(matches!(config.routes[0].action, Action::Respond(_)));
        assert!(
            matches!(&config.routes[0].matches[0].path, Some(PathMatch::Exact(path)) if path == "/b")
        );
        assert!(matches!(config.routes[1].action, Action::Forward(_)));
    }
}
