//! Which weights a route serves by: those of the files, those set by API, or for a while still those before.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use forebay_config::{Action, Config, Cutover, Member, Route};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::snapshot::{HeldRoutes, Snapshot};

/// Weights set by API, by route.
pub(super) type Overlays = BTreeMap<String, Overlay>;

/// Weights of one route that were set by API.
#[derive(Clone, Debug)]
pub(super) struct Overlay {
    /// Of each member, in file order; one is above 0.
    pub(super) weights: Vec<u32>,
    /// What the file said then: the overlay ends when it says something else.
    pub(super) written: Vec<(String, u32)>,
    /// When it ends by itself.
    pub(super) until: Option<(Instant, SystemTime)>,
}

/// Weights of a route that are not those of the files.
#[derive(Clone, Debug, Serialize)]
pub struct Override {
    /// The route.
    pub route: String,
    /// Set by API: by cluster, or in file order when a cluster is in the split twice.
    pub weights: Value,
    /// In the files, in the same form.
    pub configured: Value,
    /// RFC 3339; `None`: they stay until they are removed or the split changes on disk.
    pub expires_at: Option<String>,
}

/// New weights that wait for endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pending {
    /// The route.
    pub route: String,
    /// Clusters that get a larger share and have no ready endpoint.
    pub waiting_for: Vec<String>,
}

impl Overlay {
    pub(super) fn shown(&self, route: &str) -> Override {
        let names: Vec<&str> = self.written.iter().map(|(name, _)| name.as_str()).collect();
        let configured: Vec<u32> = self.written.iter().map(|(_, weight)| *weight).collect();
        Override {
            route: route.to_owned(),
            weights: by_name(&names, &self.weights),
            configured: by_name(&names, &configured),
            expires_at: self.until.map(|(_, time)| super::rfc3339(time)),
        }
    }
}

/// An object when names are unique, else a list.
fn by_name(names: &[&str], weights: &[u32]) -> Value {
    let pairs = names.iter().zip(weights);
    let object: Map<String, Value> = pairs
        .map(|(name, weight)| ((*name).to_owned(), json!(weight)))
        .collect();
    if object.len() == names.len() {
        Value::Object(object)
    } else {
        json!(weights)
    }
}

/// Cluster and weight of each member, in file order; `None`: the route does not forward.
pub(super) fn written(route: &Route) -> Option<Vec<(String, u32)>> {
    let pair = |member: &Member| (member.cluster.clone(), member.weight);
    members(route).map(|members| members.iter().map(pair).collect())
}

fn members(route: &Route) -> Option<&[Member]> {
    match &route.action {
        Action::Forward(members) => Some(members),
        Action::ByModel | Action::Redirect(_) | Action::Respond(_) => None,
    }
}

/// What every route serves by.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Those that differ from the files.
    pub(super) held: HeldRoutes,
    /// Those that are not yet what is wanted.
    pub(super) pending: Vec<Pending>,
}

impl Plan {
    /// * `old`: what serves now; `None`: the process starts, and nothing is waited for
    /// * `ready`: whether a cluster has a ready endpoint
    pub(super) fn new(
        config: &Config,
        overlays: &Overlays,
        old: Option<&Snapshot>,
        ready: &dyn Fn(&str) -> bool,
    ) -> Self {
        let mut plan = Self::default();
        let served = old.iter().flat_map(|old| &old.routes);
        let served: HashMap<&str, &Route> = served
            .map(|view| (view.config.name.as_str(), &*view.config))
            .collect();
        let exists = |name: &str| config.clusters.iter().any(|c| c.name == name);
        for route in &config.routes {
            let Some(now) = members(route) else { continue };
            let overlay = overlays.get(&route.name);
            if overlay.is_none() && route.cutover == Cutover::AtOnce {
                continue;
            }
            let wanted: Vec<u32> = match overlay {
                Some(overlay) => overlay.weights.clone(),
                None => now.iter().map(|member| member.weight).collect(),
            };
            let before = served.get(route.name.as_str()).and_then(|r| members(r));
            let before = before.filter(|_| route.cutover == Cutover::Ready);
            let outcome = match before {
                Some(before) => cut_over(before, now, wanted, ready, &exists),
                None => Outcome::of(wanted),
            };
            plan.take(route, now, outcome);
        }
        plan
    }

    fn take(&mut self, route: &Arc<Route>, now: &[Member], outcome: Outcome) {
        if !outcome.waiting_for.is_empty() {
            self.pending.push(Pending {
                route: route.name.clone(),
                waiting_for: outcome.waiting_for,
            });
        }
        let as_written = now.iter().map(|member| &member.weight);
        if outcome.leaving.is_empty() && outcome.weights.iter().eq(as_written) {
            return;
        }
        let weighted = now.iter().zip(outcome.weights).map(|(member, weight)| {
            let mut member = member.clone();
            member.weight = weight;
            member
        });
        let mut route = Route::clone(route);
        route.action = Action::Forward(weighted.chain(outcome.leaving).collect());
        self.held.insert(route.name.clone(), Arc::new(route));
    }

    /// The routes that serve by other weights than planned, as planned.
    pub(super) fn changes(&self, snapshot: &Snapshot) -> HeldRoutes {
        let mut changes = HeldRoutes::new();
        for (view, route) in snapshot.routes.iter().zip(&snapshot.config.routes) {
            let planned = self.held.get(&route.name).unwrap_or(route);
            if !Arc::ptr_eq(&view.config, planned) && written(&view.config) != written(planned) {
                changes.insert(route.name.clone(), Arc::clone(planned));
            }
        }
        changes
    }
}

/// What a route that forwards serves by.
#[derive(Debug)]
struct Outcome {
    /// Of each member, in file order.
    weights: Vec<u32>,
    /// No members any more, but their share has not been taken over yet.
    leaving: Vec<Member>,
    waiting_for: Vec<String>,
}

impl Outcome {
    fn of(weights: Vec<u32>) -> Self {
        Self {
            weights,
            leaving: Vec::new(),
            waiting_for: Vec::new(),
        }
    }
}

/// Keeps everybody's weight until all whose share grows are ready. Where nothing of before is left, those that are
/// ready share what there is; if none is, nothing is gained by waiting.
fn cut_over(
    before: &[Member],
    now: &[Member],
    wanted: Vec<u32>,
    ready: &dyn Fn(&str) -> bool,
    exists: &dyn Fn(&str) -> bool,
) -> Outcome {
    let mut left: Vec<&Member> = before.iter().collect();
    let mut take = |name: &str| {
        let found = left.iter().position(|member| member.cluster == name)?;
        Some(left.remove(found).weight)
    };
    let kept: Vec<u32> = now
        .iter()
        .map(|member| take(&member.cluster).unwrap_or(0))
        .collect();
    let sum = |weights: &[u32]| weights.iter().copied().map(u64::from).sum::<u64>();
    let all_before: u64 = before.iter().map(|m| u64::from(m.weight)).sum();
    let all_wanted = sum(&wanted);
    let waits = |index: usize| {
        let grows = u64::from(wanted[index]) * all_before > u64::from(kept[index]) * all_wanted;
        grows && !ready(&now[index].cluster)
    };
    let waiting: Vec<bool> = (0..now.len()).map(waits).collect();
    if !waiting.contains(&true) {
        return Outcome::of(wanted);
    }
    let mut waiting_for: Vec<String> = Vec::new();
    for (member, _) in now.iter().zip(&waiting).filter(|(_, waits)| **waits) {
        if !waiting_for.contains(&member.cluster) {
            waiting_for.push(member.cluster.clone());
        }
    }
    let serves = |member: &&Member| member.weight > 0 && exists(&member.cluster);
    let leaving: Vec<Member> = left.into_iter().filter(serves).cloned().collect();
    if sum(&kept) > 0 || !leaving.is_empty() {
        return Outcome {
            weights: kept,
            leaving,
            waiting_for,
        };
    }
    let able = wanted.iter().zip(&waiting);
    let able: Vec<u32> = able.map(|(w, waits)| if *waits { 0 } else { *w }).collect();
    if sum(&able) == 0 {
        return Outcome::of(wanted);
    }
    Outcome {
        weights: able,
        leaving,
        waiting_for,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(members: &[(&str, u32)]) -> Vec<Member> {
        let member = |&(cluster, weight): &(&str, u32)| Member {
            cluster: cluster.to_owned(),
            weight,
            request_headers: Default::default(),
            response_headers: Default::default(),
        };
        members.iter().map(member).collect()
    }

    /// Weights, members that are leaving, and clusters waited for.
    fn outcome(
        before: &[(&str, u32)],
        now: &[(&str, u32)],
        ready: &[&str],
    ) -> (Vec<u32>, Vec<(String, u32)>, Vec<String>) {
        let wanted = now.iter().map(|(_, weight)| *weight).collect();
        let outcome = cut_over(
            &split(before),
            &split(now),
            wanted,
            &|name| ready.contains(&name),
            &|name| name != "gone",
        );
        let leaving = outcome.leaving.into_iter().map(|m| (m.cluster, m.weight));
        (outcome.weights, leaving.collect(), outcome.waiting_for)
    }

    #[test]
    fn a_larger_share_waits_for_its_cluster_and_holds_all_others() {
        let (before, now) = ([("a", 100), ("b", 0)], [("a", 20), ("b", 80)]);
        let held = outcome(&before, &now, &["a"]);
        assert_eq!(held, (vec![100, 0], vec![], vec!["b".to_owned()]));
        assert_eq!(outcome(&before, &now, &["b"]).0, [20, 80]);
        let new = outcome(&[("a", 1)], &[("a", 1), ("b", 1), ("c", 0)], &["a"]);
        assert_eq!(new, (vec![1, 0, 0], vec![], vec!["b".to_owned()]));
    }

    #[test]
    fn the_same_or_a_smaller_share_waits_for_nobody() {
        let same = outcome(&[("a", 1), ("b", 1)], &[("a", 50), ("b", 50)], &[]);
        assert_eq!(same, (vec![50, 50], vec![], vec![]));
        let fewer = outcome(&[("a", 1), ("b", 1)], &[("a", 3), ("b", 1)], &["a"]);
        assert_eq!(fewer, (vec![3, 1], vec![], vec![]));
    }

    #[test]
    fn who_leaves_serves_on_until_those_who_stay_can() {
        let swapped = outcome(&[("blue", 7)], &[("green", 7)], &["blue"]);
        let blue = vec![("blue".to_owned(), 7)];
        assert_eq!(swapped, (vec![0], blue, vec!["green".to_owned()]));
        assert_eq!(outcome(&[("blue", 7)], &[("green", 7)], &["green"]).0, [7]);
    }

    #[test]
    fn where_nothing_of_before_is_left_those_that_are_ready_serve() {
        let some = outcome(&[("gone", 1)], &[("a", 5), ("b", 5)], &["b"]);
        assert_eq!(some, (vec![0, 5], vec![], vec!["a".to_owned()]));
        let none = outcome(&[("gone", 1)], &[("a", 5), ("b", 5)], &[]);
        assert_eq!(none, (vec![5, 5], vec![], vec![]));
    }

    #[test]
    fn a_cluster_that_is_in_a_split_twice_is_two_members() {
        let (before, now) = ([("a", 1), ("a", 3)], [("a", 1), ("a", 4)]);
        assert_eq!(outcome(&before, &now, &[]).0, [1, 3]);
        assert_eq!(by_name(&["a", "a"], &[1, 4]), json!([1, 4]));
        assert_eq!(by_name(&["a", "b"], &[1, 4]), json!({"a": 1, "b": 4}));
    }
}
