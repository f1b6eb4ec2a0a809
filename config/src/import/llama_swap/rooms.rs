//! Groups and the matrix: which models run beside each other.
//!
//! What a model needs is not known there, only who may run together. Here that is said by room on one pretended device:
//! models that do not fit on it together do not run together.

use std::collections::HashMap;

use super::matrix;
use crate::import::Fields;

/// What a model takes of the pretended device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// Percent of its memory, 1 … 100.
    pub(super) memory: usize,
    /// All its computing units, which keeps away others that take them all.
    pub(super) alone: bool,
}

impl Share {
    /// All of it.
    const WHOLE: Self = Self {
        memory: 100,
        alone: false,
    };

    /// One of `count` equal parts.
    fn part(count: usize) -> Self {
        Self {
            memory: (100 / count.max(1)).max(1),
            alone: false,
        }
    }
}

/// The shares of all models; one that is in none takes nothing.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    shares: HashMap<String, Share>,
}

/// A group of models.
struct Group {
    members: Vec<String>,
    swap: bool,
    exclusive: bool,
    persistent: bool,
}

impl Rooms {
    /// Reads `groups`, `matrix` or `routing`.
    ///
    /// * `ids`: names of all models
    pub(super) fn read(root: &Fields<'_>, ids: &[&str]) -> Self {
        let router = root
            .map("routing")
            .and_then(|routing| routing.map("router"));
        let chosen = router.and_then(|router| router.text("use"));
        let settings = router.and_then(|router| router.map("settings"));
        let source = match &settings {
            Some(settings) if !root.has("groups") && !root.has("matrix") => settings,
            _ => root,
        };
        let by_matrix = match chosen.as_ref().map(|word| word.as_str()) {
            Some("group") => false,
            Some("matrix") => true,
            Some(_) => {
                if let Some(router) = router {
                    router.lost("use", "`group` and `matrix` are known");
                }
                source.has("matrix")
            }
            None => source.has("matrix"),
        };
        let shares = match source.map("matrix").filter(|_| by_matrix) {
            Some(matrix) => matrix::shares(&matrix, ids),
            None => grouped(groups(source, ids)),
        };
        match ids.len() {
            0 | 1 => Self::default(),
            _ => Self { shares },
        }
    }

    /// Returns what a model takes.
    pub(super) fn share(&self, id: &str) -> Option<Share> {
        self.shares.get(id).copied()
    }
}

/// Reads `groups`. Models in none of them are a group by themselves.
fn groups(source: &Fields<'_>, ids: &[&str]) -> Vec<Group> {
    let mut groups = Vec::new();
    let mut left: Vec<&str> = ids.to_vec();
    for (_, fields) in source.named("groups") {
        let mut members = Vec::new();
        for member in fields.texts("members") {
            match left.iter().position(|id| *id == member.as_str()) {
                Some(index) => members.push(left.swap_remove(index).to_owned()),
                None => fields.lost(
                    "members",
                    format!("`{member}` is no model, or in two groups"),
                ),
            }
        }
        groups.push(Group {
            members,
            swap: fields.flag("swap").unwrap_or(true),
            exclusive: fields.flag("exclusive").unwrap_or(true),
            persistent: fields.flag("persistent").unwrap_or(false),
        });
    }
    groups.push(Group {
        members: left.into_iter().map(str::to_owned).collect(),
        swap: true,
        exclusive: true,
        persistent: false,
    });
    groups
}

/// Gives out shares. A persistent group takes nothing, so nobody makes it go. An exclusive one takes everything,
/// together or each. The others have room beside each other.
fn grouped(groups: Vec<Group>) -> HashMap<String, Share> {
    let side = groups
        .iter()
        .filter(|group| !group.persistent && !group.exclusive);
    let places: usize = side
        .map(|group| match group.swap {
            true => group.members.len().min(1),
            false => group.members.len(),
        })
        .sum();
    let mut shares = HashMap::new();
    for group in groups.into_iter().filter(|group| !group.persistent) {
        let share = match (group.exclusive, group.swap) {
            (true, true) => Share::WHOLE,
            (true, false) => Share::part(group.members.len()),
            (false, swap) => Share {
                alone: swap,
                ..Share::part(places)
            },
        };
        shares.extend(group.members.into_iter().map(|id| (id, share)));
    }
    shares
}

impl Share {
    /// Makes shares of the members of the best arrangement of a matrix: one `heavy` model beside all `light` ones; every
    /// other model runs alone.
    pub(super) fn arranged(
        ids: &[&str],
        light: &[usize],
        heavy: &dyn Fn(usize) -> bool,
    ) -> HashMap<String, Self> {
        let share = |index: usize| match index {
            index if light.contains(&index) => Self {
                memory: (49 / light.len()).max(1),
                alone: false,
            },
            index if heavy(index) => Self {
                memory: 51,
                alone: false,
            },
            _ => Self::WHOLE,
        };
        let each = ids.iter().enumerate();
        each.map(|(index, id)| ((*id).to_owned(), share(index)))
            .collect()
    }
}
