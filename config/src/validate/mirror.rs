//! Copies of requests: mirrors, what their answers are held against, and what is written down.

use std::collections::HashSet;
use std::time::Duration;

use super::clock;
use super::cross::known;
use super::route::edits;
use crate::diagnostic::{Code, Diagnostic, quoted};
use crate::model::{Compare, Member, Mirror, Recording, Tolerance};
use crate::schema::keys::{CompareKeys, MirrorKeys, RecordKeys, ToleranceKeys};
use crate::schema::{At, List, Path, PointerText, Reader};
use crate::units::MILLIONTHS;

/// Bytes of one body, where nothing else is written.
pub(super) const BODY: u64 = 1 << 20;

/// A cluster that a mirror names.
pub(super) struct Reference {
    /// The place of the mirror in its list, and its name.
    mirror: (usize, String),
    /// The keys below the mirror.
    keys: &'static [&'static str],
    /// The name of the cluster.
    pub(super) cluster: At<String>,
}

impl Reference {
    /// Reports a cluster that does not exist.
    ///
    /// * `names`: the names there are; `None`: not all of them could be read
    /// * `path`: that of the route
    pub(super) fn check(
        &self,
        names: Option<&HashSet<&str>>,
        path: Path<'_>,
        reader: &mut Reader<'_>,
    ) {
        let list = path.key("mirrors");
        let mirror = list.item(self.mirror.0, Some(&self.mirror.1));
        let first = mirror.key(self.keys[0]);
        let path = match self.keys.get(1) {
            Some(second) => first.key(second),
            None => first,
        };
        known("cluster", &self.cluster, names, path, reader);
    }
}

/// Reads `mirrors` of a route.
pub(super) fn mirrors(
    list: &List<MirrorKeys>,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> (Vec<Mirror>, Vec<Reference>) {
    let mut mirrors: Vec<Mirror> = Vec::new();
    let mut named: Vec<Reference> = Vec::new();
    for (index, at) in list.items.iter().enumerate() {
        let written = at.value.name.as_ref().or(at.value.cluster.as_ref());
        let path = path.item(index, written.map(|at| &*at.value.0));
        let Some(mirror) = mirror(at, path, reader) else {
            continue;
        };
        if let Some(first) = mirrors.iter().find(|first| first.name == mirror.name) {
            let place = &first.position;
            let message = format!("the name {} is taken", quoted(&mirror.name));
            let help = format!(
                "the first one is at {}:{}; give this one a `name` of its own",
                place.file, place.line
            );
            reader.refuse(Code::DuplicateName, &at.position, path, message, &help);
        }
        let noise = at.value.compare.as_ref();
        let noise = noise.and_then(|at| at.value.noise.as_ref());
        let both = [
            (at.value.cluster.as_ref(), &["cluster"][..]),
            (noise, &["compare", "noise"][..]),
        ];
        named.extend(both.into_iter().filter_map(|(at, keys)| {
            let at = at?;
            Some(Reference {
                mirror: (index, mirror.name.clone()),
                keys,
                cluster: At {
                    value: at.value.0.clone(),
                    position: at.position.clone(),
                },
            })
        }));
        mirrors.push(mirror);
    }
    (mirrors, named)
}

fn mirror(at: &At<MirrorKeys>, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Mirror> {
    let keys = &at.value;
    let cluster = keys.cluster.as_ref()?.value.0.clone();
    let compare = keys.compare.as_ref();
    let compare = compare.map(|at| compare_with(&at.value, &cluster, path.key("compare"), reader));
    let (lag, bytes) = (keys.max_lag.as_ref(), keys.max_bytes.as_ref());
    Some(Mirror {
        name: keys
            .name
            .as_ref()
            .map_or_else(|| cluster.clone(), |at| at.value.0.clone()),
        cluster,
        sample: keys.sample.as_ref().map_or(MILLIONTHS, |at| at.value.0),
        max_in_flight: keys
            .max_in_flight
            .as_ref()
            .map_or(256, |at| at.value.narrow()),
        max_lag: lag.map_or(1 << 20, |at| at.value.0),
        max_bytes: bytes.map_or(64 << 20, |at| at.value.0),
        timeout: clock(&keys.timeout, Some(Duration::from_secs(30))),
        demand: keys.demand.as_ref().is_some_and(|at| at.value),
        request_headers: edits(&keys.request_headers),
        compare,
        position: at.position.clone(),
    })
}

/// Reads `compare` of a mirror of `cluster`.
fn compare_with(
    keys: &CompareKeys,
    cluster: &str,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Compare {
    if let Some(noise) = keys.noise.as_ref().filter(|at| at.value.0 == cluster) {
        let message = format!(
            "{path}.noise: the mirror's own cluster, so that all its differences count as noise"
        );
        let help = "name a cluster that serves what the primary serves";
        reader.report(Diagnostic::new(Code::SelfNoise, &noise.position, message).help(help));
    }
    let headers = keys.headers.iter().flat_map(|at| &at.value.items);
    Compare {
        sample: keys.sample.as_ref().map_or(MILLIONTHS, |at| at.value.0),
        noise: keys.noise.as_ref().map(|at| at.value.0.clone()),
        headers: headers.map(|at| at.value.clone()).collect(),
        ignore: pointers(keys.ignore.as_ref()),
        tolerance: keys
            .tolerance
            .as_ref()
            .map_or_else(Tolerance::default, |at| tolerance(&at.value)),
        array_order: keys.array_order.as_ref().is_none_or(|at| at.value),
        max_body: keys.max_body.as_ref().map_or(BODY, |at| at.value.0),
    }
}

fn tolerance(keys: &ToleranceKeys) -> Tolerance {
    Tolerance {
        abs: keys.abs.as_ref().map_or(0.0, |at| at.value.0),
        rel: keys.rel.as_ref().map_or(0.0, |at| at.value.0),
    }
}

fn pointers(list: Option<&At<List<PointerText>>>) -> Vec<crate::pointer::Pointer> {
    let items = list.map_or(&[][..], |at| &at.value.items);
    items.iter().map(|at| at.value.0.clone()).collect()
}

/// Reports mirrors to a cluster that the requests themselves go to.
pub(super) fn doubled(
    mirrors: &[Mirror],
    members: &[Member],
    path: Path<'_>,
    reader: &mut Reader<'_>,
) {
    for (index, mirror) in mirrors.iter().enumerate() {
        let primary = |member: &Member| member.cluster == mirror.cluster && member.weight > 0;
        if mirror.sample == 0 || !members.iter().any(primary) {
            continue;
        }
        let message = format!(
            "{}: `{}` gets these requests already, so that the mirror doubles its load",
            path.item(index, Some(&mirror.name)),
            mirror.cluster
        );
        let help = "mirror to a cluster that the route does not forward to";
        let finding = Diagnostic::new(Code::DoubleLoad, &mirror.position, message);
        reader.report(finding.help(help));
    }
}

/// Reads `record` of a route.
pub(super) fn record(
    at: &At<RecordKeys>,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Option<Recording> {
    let keys = &at.value;
    if keys.path.is_none() && keys.url.is_none() {
        if !keys.broken {
            let message = "a record needs `path`, `url` or both";
            let help = "for example `path: pairs.jsonl`";
            reader.refuse(Code::MissingKey, &keys.position, path, message, help);
        }
        return None;
    }
    if keys.path.is_none() && !keys.broken {
        let max_file = keys.max_file.as_ref().map(|at| ("max_file", &at.position));
        let keep = keys.keep.as_ref().map(|at| ("keep", &at.position));
        for (key, position) in max_file.into_iter().chain(keep) {
            let message = format!("{path}.{key}: has no effect, because there is no `path`");
            reader.report(Diagnostic::new(Code::NoEffect, position, message));
        }
    }
    Some(Recording {
        path: keys.path.as_ref().map(|at| at.value.0.clone()),
        max_file: keys.max_file.as_ref().map_or(100 << 20, |at| at.value.0),
        keep: keys.keep.as_ref().map_or(5, |at| at.value.narrow()),
        url: keys.url.as_ref().map(|at| at.value.0.clone()),
        sample: keys.sample.as_ref().map_or(MILLIONTHS, |at| at.value.0),
        max_body: keys.max_body.as_ref().map_or(BODY, |at| at.value.0),
        redact: pointers(keys.redact.as_ref()),
        position: at.position.clone(),
    })
}
