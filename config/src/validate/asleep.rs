//! What routes say about clusters that have no replica, and which of it does not do what it seems to.

use std::collections::{HashMap, HashSet};

use super::route::Draft;
use crate::diagnostic::{Code, Diagnostic};
use crate::model::{Action, Cluster, Position, Scale};
use crate::schema::{Path, Reader};

/// Reports a `wake: false` where nothing is ever started, and mirrors that do not wake what sleeps.
pub(super) fn warnings(drafts: &[Draft], clusters: &[Cluster], reader: &mut Reader<'_>) {
    let scaled = clusters
        .iter()
        .filter_map(|cluster| Some((&*cluster.name, cluster.scale.as_ref()?)));
    let scaled: HashMap<&str, &Scale> = scaled.collect();
    let mut named = clusters.iter().filter(|cluster| !cluster.models.is_empty());
    let named = named.any(|cluster| cluster.scale.is_some());
    needless(drafts, &scaled, named, reader);
    for draft in drafts {
        dropped(draft, &scaled, reader);
    }
}

/// A default is at one place for many routes: it is odd only if it has an effect on none of them.
///
/// * `named`: a cluster that sleeps is found by the name of a model
fn needless(
    drafts: &[Draft],
    scaled: &HashMap<&str, &Scale>,
    named: bool,
    reader: &mut Reader<'_>,
) {
    let mirrored = |draft: &Draft| {
        let mut mirrored = draft.mirrored.iter();
        mirrored.any(|reference| scaled.contains_key(&*reference.cluster.value))
    };
    let holds = |draft: &Draft| {
        let mut clusters = draft.clusters.iter();
        clusters.any(|at| scaled.contains_key(&*at.value))
            || mirrored(draft)
            || named && draft.by_model.is_some()
    };
    let asleep = || {
        let drafts = drafts.iter();
        drafts.filter_map(|draft| Some((draft, draft.asleep.as_ref()?)))
    };
    let mut done: HashSet<&Position> = asleep()
        .filter(|(draft, _)| holds(draft))
        .map(|(_, position)| position)
        .collect();
    for (draft, position) in asleep() {
        if !done.insert(position) {
            continue;
        }
        let why = match draft.route.action {
            Action::Forward(_) | Action::ByModel => "no cluster of the route has `scale`",
            Action::Redirect(_) | Action::Respond(_) => "the route forwards nothing",
        };
        let list = Path::ROOT.key("routes");
        let path = list.item(draft.index, Some(&draft.route.name));
        let message = format!("{path}.wake: has no effect, because {why}");
        reader.report(Diagnostic::new(Code::NoEffect, position, message));
    }
}

/// Reports mirrors whose copies nobody gets while their cluster has no replica.
fn dropped(draft: &Draft, scaled: &HashMap<&str, &Scale>, reader: &mut Reader<'_>) {
    for (index, mirror) in draft.route.mirrors.iter().enumerate() {
        let sleeps = scaled
            .get(&*mirror.cluster)
            .is_some_and(|scale| scale.min == 0);
        if mirror.demand || mirror.sample == 0 || !sleeps {
            continue;
        }
        let routes = Path::ROOT.key("routes");
        let route = routes.item(draft.index, Some(&draft.route.name));
        let list = route.key("mirrors");
        let path = list.item(index, Some(&mirror.name));
        let message = format!(
            "{path}: at zero the copies are dropped, because they do not wake `{}`",
            mirror.cluster
        );
        let help = "write `demand: true`, so that copies start replicas as requests do";
        let finding = Diagnostic::new(Code::DroppedCopies, &mirror.position, message);
        reader.report(finding.help(help));
    }
}
