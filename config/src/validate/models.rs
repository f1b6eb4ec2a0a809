//! Models by name: who serves which, and routes that go by it.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::route::Draft;
use crate::diagnostic::{Code, Diagnostic, did_you_mean, quoted};
use crate::model::{Action, Cluster, Position};
use crate::schema::keys::{ClusterKeys, RouteKeys};
use crate::schema::{At, List, ModelName, Path, Reader};

/// Reads `models` of a cluster; each name may be in it once.
///
/// * `path`: that of the cluster
pub(super) fn names(
    list: Option<&At<List<ModelName>>>,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Vec<String> {
    let path = path.key("models");
    let mut seen = HashSet::new();
    let mut names = Vec::new();
    let items = list.map_or(&[][..], |list| &list.value.items);
    for (index, At { value, position }) in items.iter().enumerate() {
        if seen.insert(&value.0) {
            names.push(value.0.clone());
            continue;
        }
        let message = format!("{} is in the list twice", quoted(&value.0));
        let item = path.item(index, None);
        reader.refuse(
            Code::DuplicateName,
            position,
            item,
            message,
            "remove one of them",
        );
    }
    names
}

/// Returns the models that the `match` of a route names.
pub(super) fn matched(keys: &RouteKeys) -> Vec<At<String>> {
    let matches = keys.matches.iter().flat_map(|at| &at.value.0);
    matches
        .filter_map(|at| at.value.model.as_ref())
        .map(|at| At {
            value: at.value.0.clone(),
            position: at.position.clone(),
        })
        .collect()
}

/// Checks that routes with `by_model` have somewhere to go, and only one place for each name.
pub(super) fn by_model(
    drafts: &[Draft],
    clusters: Option<&At<List<ClusterKeys>>>,
    reader: &mut Reader<'_>,
) {
    let Some((draft, at)) = drafts
        .iter()
        .find_map(|draft| Some((draft, draft.by_model.as_ref()?)))
    else {
        return;
    };
    let mut first: HashMap<&str, &Position> = HashMap::new();
    let items = clusters.map_or(&[][..], |list| &list.value.items);
    let list = Path::ROOT.key("clusters");
    for (index, cluster) in items.iter().enumerate() {
        let cluster = &cluster.value;
        let name = cluster.name.as_ref().map(|name| &*name.value.0);
        let above = list.item(index, name);
        let path = above.key("models");
        let models = cluster.models.iter().flat_map(|list| &list.value.items);
        for (index, model) in models.enumerate() {
            let Some(taken) = first.insert(&model.value.0, &model.position) else {
                continue;
            };
            let message = format!(
                "another cluster serves {} as well, and the route `{}` goes by the name",
                quoted(&model.value.0),
                draft.route.name
            );
            let help = format!(
                "the first one is at {}:{}; leave it to one of them",
                taken.file, taken.line
            );
            let item = path.item(index, None);
            reader.refuse(Code::DuplicateName, &model.position, item, message, &help);
        }
    }
    if first.is_empty() {
        let routes = Path::ROOT.key("routes");
        let path = routes.item(draft.index, Some(&draft.route.name));
        let message = "`by_model` finds nothing, because no cluster has `models`";
        let help = "give clusters `models: [NAME]`, or use `cluster: NAME`";
        reader.refuse(Code::MissingKey, at, path, message, help);
    }
}

/// Reports a match on a model that no cluster of its route serves. A cluster without `models` may serve anything.
pub(super) fn warnings(drafts: &[Draft], clusters: &[Cluster], reader: &mut Reader<'_>) {
    let by_name: HashMap<&str, &Cluster> = clusters
        .iter()
        .map(|cluster| (&*cluster.name, cluster))
        .collect();
    for draft in drafts {
        let reached: Vec<&Cluster> = match &draft.route.action {
            Action::Forward(members) => members
                .iter()
                .filter_map(|member| by_name.get(&*member.cluster).copied())
                .collect(),
            Action::ByModel => clusters
                .iter()
                .filter(|one| !one.models.is_empty())
                .collect(),
            Action::Redirect(_) | Action::Respond(_) => continue,
        };
        if reached.iter().any(|cluster| cluster.models.is_empty()) {
            continue;
        }
        let served: BTreeSet<&str> = reached
            .iter()
            .flat_map(|cluster| &cluster.models)
            .map(String::as_str)
            .collect();
        for at in draft
            .models
            .iter()
            .filter(|at| !served.contains(&*at.value))
        {
            let routes = Path::ROOT.key("routes");
            let path = routes.item(draft.index, Some(&draft.route.name));
            let message = format!(
                "{path}.match.model: no cluster of the route serves {}",
                quoted(&at.value)
            );
            let finding = Diagnostic::new(Code::UnservedModel, &at.position, message);
            let help = match did_you_mean(&at.value, served.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "add it to the `models` of one of them".to_owned(),
            };
            reader.report(finding.help(help));
        }
    }
}
