//! What routes that go by model names need.

use std::sync::Arc;

use forebay_config as config;
use forebay_config::Config;

use super::RouteView;
use crate::model_name::Grammar;

/// Where the models are named that these routes match on.
pub(super) fn asks(routes: &[Arc<RouteView>]) -> Grammar {
    let asks = |route: &&Arc<RouteView>| {
        let mut matches = route.config.matches.iter();
        matches.any(|entry| entry.model.is_some())
    };
    let grammars = routes.iter().filter(asks).map(|route| {
        if let Some(models) = &route.models {
            return models.grammar();
        }
        let Some(split) = &route.split else {
            return Grammar::of(config::ServerKind::Generic);
        };
        let members = split.members();
        let each = members.map(|(member, _)| Grammar::of(member.cluster.config.server));
        each.fold(Grammar::default(), |all, one| all | one)
    });
    grammars.fold(Grammar::default(), |all, one| all | one)
}

/// The clusters that serve models by name, as members of a route.
pub(super) fn members(config: &Config) -> Vec<config::Member> {
    let named = config.clusters.iter().filter(|c| !c.models.is_empty());
    let member = |cluster: &Arc<config::Cluster>| config::Member {
        cluster: cluster.name.clone(),
        weight: 1,
        request_headers: config::HeaderEdits::default(),
        response_headers: config::HeaderEdits::default(),
    };
    named.map(member).collect()
}
