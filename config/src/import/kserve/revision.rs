//! Revisions of a component, for canaries.

use crate::import::Fields;

/// The revisions that a canary is between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Revisions {
    /// The one that is new.
    pub(super) latest: String,
    /// The one that was there before.
    pub(super) previous: String,
}

/// Finds the revisions in what the controller wrote of a component.
pub(super) fn revisions(document: &Fields<'_>, component: &str) -> Option<Revisions> {
    let components = document.map("status")?.map("components")?;
    let component = components.map(component)?;
    let named = |key: &str| {
        let leaf = component.text(key)?;
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let text = leaf.as_str();
        let name = !text.is_empty() && text.len() <= 63 && text.chars().all(legal);
        name.then(|| text.to_owned())
    };
    let latest = named("latestReadyRevision").or_else(|| named("latestCreatedRevision"))?;
    let rolled_out = named("latestRolledoutRevision").filter(|name| *name != latest);
    let previous = rolled_out.or_else(|| named("previousRolledoutRevision"))?;
    (previous != latest).then_some(Revisions { latest, previous })
}
