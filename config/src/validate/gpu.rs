//! The devices that local processes share, and what replicas take of them.

use std::collections::HashMap;

use super::route::not_empty;
use crate::diagnostic::{Code, Diagnostic};
use crate::model::{Cluster, Gpu, GpuShare, Position};
use crate::schema::keys::{GpuKeys, GpuShareKeys, ScaleKeys};
use crate::schema::{At, List, Path, Reader};
use crate::units::show_size;

/// Reads `gpus`; empty when nothing is written, or what is written cannot be read as a whole.
pub(super) fn devices(list: Option<&At<List<GpuKeys>>>, reader: &mut Reader<'_>) -> Vec<Gpu> {
    let path = Path::ROOT.key("gpus");
    let Some(list) = list else { return Vec::new() };
    let help = "leave `gpus` out for those that the driver reports";
    not_empty(list, help, path, reader);
    let List { items, incomplete } = &list.value;
    if *incomplete || items.iter().any(|item| item.value.broken) {
        return Vec::new();
    }
    let mut first: HashMap<u32, &Position> = HashMap::new();
    let mut devices = Vec::new();
    for (
        place,
        At {
            value: keys,
            position,
        },
    ) in items.iter().enumerate()
    {
        let written = keys.index.as_ref();
        let place_of = written.map_or(position, |at| &at.position);
        let index = written.map_or(u32::try_from(place).unwrap_or(u32::MAX), |at| {
            at.value.narrow()
        });
        if let Some(taken) = first.insert(index, place_of) {
            let message = format!("the index {index} is taken");
            let help = format!("the first one is at {}:{}", taken.file, taken.line);
            let item = path.item(place, None);
            reader.refuse(Code::DuplicateName, place_of, item, message, &help);
        }
        devices.extend(keys.memory.as_ref().map(|memory| Gpu {
            index,
            memory: memory.value.0,
            cores: keys.cores.as_ref().map_or(100, |at| at.value.narrow()),
        }));
    }
    devices
}

/// Reads `gpu` of a cluster, and holds it against the devices.
///
/// * `path`: that of `scale`
pub(super) fn share(
    scale: &ScaleKeys,
    devices: &[Gpu],
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Option<GpuShare> {
    let At {
        value: keys,
        position,
    } = scale.gpu.as_ref()?;
    let path = path.key("gpu");
    if scale.process.is_none() && !scale.broken {
        let message = "only local processes share the devices of this host";
        let help = "remove `gpu`, or write `gpu: null` if it is a default";
        reader.refuse(Code::Conflict, position, path, message, help);
        return None;
    }
    let share = GpuShare {
        memory: keys.memory.as_ref()?.value.0,
        cores: keys.cores.as_ref().map_or(0, |at| at.value.narrow()),
    };
    if scale.process.is_some() && !devices.iter().any(|device| share.fits(device)) {
        too_large(share, keys, devices, path, reader);
    }
    Some(share)
}

/// Refuses a replica that fits on none of the devices.
fn too_large(
    share: GpuShare,
    keys: &GpuShareKeys,
    devices: &[Gpu],
    path: Path<'_>,
    reader: &mut Reader<'_>,
) {
    let Some(largest) = devices.iter().max_by_key(|gpu| (gpu.memory, gpu.cores)) else {
        return;
    };
    let Gpu {
        index,
        memory,
        cores,
    } = *largest;
    let has = format!("the largest, of index {index}, has {}", show_size(memory));
    let takes = show_size(share.memory.of(largest));
    let most = devices.iter().map(|gpu| gpu.cores).max().unwrap_or(cores);
    let (key, at, message) = if share.memory.of(largest) > memory {
        let message = format!("no device of `gpus` has {takes}: {has}");
        (
            Some("memory"),
            keys.memory.as_ref().map(|at| &at.position),
            message,
        )
    } else if share.cores > most {
        let message = format!(
            "no device of `gpus` has {} cores to give: the most is {most}, and {has}",
            share.cores
        );
        (
            Some("cores"),
            keys.cores.as_ref().map(|at| &at.position),
            message,
        )
    } else {
        let message = format!(
            "no device of `gpus` has {takes} and {} cores to give: {has} and {cores} cores",
            share.cores
        );
        (None, None, message)
    };
    let help = "one replica is on one device; ask for less, or correct `gpus`";
    let place = at.unwrap_or(&keys.position);
    match key {
        Some(key) => reader.refuse(Code::OutOfRange, place, path.key(key), message, help),
        None => reader.refuse(Code::OutOfRange, place, path, message, help),
    }
}

/// Reports what says who makes room, where nobody does.
///
/// * `path`: that of `scale`
pub(super) fn idle_keys(scale: &ScaleKeys, path: Path<'_>, reader: &mut Reader<'_>) {
    let pin = scale.pin.as_ref().filter(|at| at.value);
    let residency = scale.min_residency.as_ref();
    let nothing = "without `gpu` its replicas take nothing that others need";
    let (pin_why, residency_why) = match (&scale.gpu, pin) {
        (None, _) if scale.broken => return,
        (None, _) => (Some(nothing), Some(nothing)),
        (Some(_), Some(_)) => (
            None,
            Some("a replica with `pin` is never stopped to make room"),
        ),
        (Some(_), None) => (None, None),
    };
    for (key, at, why) in [
        ("pin", pin.map(|at| &at.position), pin_why),
        (
            "min_residency",
            residency.map(|at| &at.position),
            residency_why,
        ),
    ] {
        if let (Some(position), Some(why)) = (at, why) {
            let message = format!("{path}.{key}: has no effect, because {why}");
            reader.report(Diagnostic::new(Code::NoEffect, position, message));
        }
    }
}

/// Reports clusters whose `min` replicas the devices have no room for at once: alone, or besides those of the clusters
/// before them.
pub(super) fn crowded(clusters: &[Cluster], devices: &[Gpu], reader: &mut Reader<'_>) {
    let Some(smallest) = devices.iter().min_by_key(|gpu| gpu.memory) else {
        return;
    };
    let (mut memory, mut cores) = (0_u128, 0_u64);
    let all_memory: u128 = devices.iter().map(|gpu| u128::from(gpu.memory)).sum();
    let all_cores: u64 = devices.iter().map(|gpu| u64::from(gpu.cores)).sum();
    for (index, cluster) in clusters.iter().enumerate() {
        let Some((scale, share)) = cluster
            .scale
            .as_ref()
            .and_then(|scale| Some((scale, scale.gpu?)))
        else {
            continue;
        };
        let room: u64 = devices.iter().map(|gpu| places(&share, gpu)).sum();
        memory += u128::from(scale.min) * u128::from(share.memory.of(smallest));
        cores += u64::from(scale.min) * u64::from(share.cores);
        let why = if scale.min == 0 {
            continue;
        } else if u64::from(scale.min) > room {
            format!("the devices of `gpus` have room for {room} at once")
        } else if memory > all_memory || cores > all_cores {
            "the devices of `gpus` have no room for all of them besides those of the clusters before it".to_owned()
        } else {
            continue;
        };
        let list = Path::ROOT.key("clusters");
        let path = list.item(index, Some(&cluster.name));
        let message = format!(
            "{path}.scale.min: {} is never reached, because {why}",
            scale.min
        );
        reader.report(Diagnostic::new(Code::NoRoom, &scale.position, message));
    }
}

/// How many replicas fit on a device that nobody else uses.
fn places(share: &GpuShare, device: &Gpu) -> u64 {
    let by_memory = device.memory / share.memory.of(device).max(1);
    match share.cores {
        0 => by_memory,
        cores => by_memory.min(u64::from(device.cores / cores)),
    }
}
