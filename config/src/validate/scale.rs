//! Where requests wait, and who starts and stops replicas.

use std::path::PathBuf;
use std::time::Duration;

use super::gpu;
use crate::diagnostic::{Code, Diagnostic};
use crate::model::{Driver, Gpu, Position, Process, Queue, Scale, ServerKind, Targets};
use crate::schema::keys::{ClusterKeys, ProcessKeys, QueueKeys, ScaleKeys, TargetKeys};
use crate::schema::{At, Path, Reader};
use crate::units::show_duration;

/// How long a start may take, where nothing else is written.
const START: Duration = Duration::from_secs(600);
/// How long a replica stays when others need its place, where nothing else is written.
const RESIDENCY: Duration = Duration::from_secs(60);

/// Reads `queue` of a cluster.
pub(super) fn queue(keys: &QueueKeys) -> Queue {
    let default = Queue::default();
    Queue {
        max_requests: keys
            .max_requests
            .as_ref()
            .map_or(default.max_requests, |at| at.value.narrow()),
        max_bytes: keys
            .max_bytes
            .as_ref()
            .map_or(default.max_bytes, |at| at.value.0),
        saturated: keys
            .saturated
            .as_ref()
            .map_or(default.saturated, |at| at.value.0),
        empty: keys.empty.as_ref().map_or(default.empty, |at| at.value.0),
        heartbeat: match &keys.heartbeat {
            None => default.heartbeat,
            Some(at) => at.value.0.map(|period| period.0),
        },
        waiting_page: keys
            .waiting_page
            .as_ref()
            .map_or(default.waiting_page, |at| at.value),
    }
}

/// Reads `scale` of a cluster.
///
/// * `gpus`: the devices that are written
/// * `above`: the path of the cluster
pub(super) fn scale(
    at: &At<ScaleKeys>,
    cluster: &ClusterKeys,
    gpus: &[Gpu],
    above: Path<'_>,
    reader: &mut Reader<'_>,
) -> Option<Scale> {
    let keys = &at.value;
    let path = above.key("scale");
    let gpu = gpu::share(keys, gpus, path, reader);
    let target = keys.target.as_ref().map(|at| {
        unpublished(cluster, &at.value, path.key("target"), reader);
        targets(&at.value)
    });
    let driver = driver(keys, path, reader);
    let min = keys.min.as_ref().map_or(0, |at| at.value.narrow());
    let max = keys.max.as_ref().map_or(min.max(1), |at| at.value.narrow());
    if let (Some(at), true) = (&keys.max, max < min) {
        let message = format!("{max} is less than `min`, {min}");
        let help = format!("raise `max`, or write `min: {max}` or less");
        reader.refuse(
            Code::OutOfRange,
            &at.position,
            path.key("max"),
            message,
            &help,
        );
    }
    let (stable, panic) = windows(keys, path, reader);
    if keys.process.is_some() {
        unshared(cluster, above, reader);
    }
    let driver = driver?;
    if let (Driver::Process(process), Some(at)) = (&driver, &keys.process) {
        placed(process, &at.value, max, path.key("process"), reader);
    }
    let factor = |written: Option<f64>| written.unwrap_or(2.0);
    Some(Scale {
        min,
        max,
        target: target.unwrap_or_default(),
        stable_window: stable,
        panic_window: panic,
        panic_threshold: factor(keys.panic_threshold.as_ref().map(|at| at.value.0)),
        max_down_rate: factor(keys.max_down_rate.as_ref().map(|at| at.value.0)),
        idle: match &keys.idle {
            None => Some(Duration::from_secs(300)),
            Some(at) => at.value.0.map(|period| period.0),
        },
        start_timeout: keys.start_timeout.as_ref().map_or(START, |at| at.value.0),
        preload: keys.preload.as_ref().is_some_and(|at| at.value),
        pin: keys.pin.as_ref().is_some_and(|at| at.value),
        min_residency: keys
            .min_residency
            .as_ref()
            .map_or(RESIDENCY, |at| at.value.0),
        gpu,
        driver,
        position: at.position.clone(),
    })
}

fn targets(keys: &TargetKeys) -> Targets {
    Targets {
        in_flight: keys.in_flight.as_ref().map(|at| at.value.0),
        rate: keys.rate.as_ref().map(|at| at.value.0),
        queue: keys.queue.as_ref().map(|at| at.value.0),
        kv_cache: keys.kv_cache.as_ref().map(|at| at.value.as_f64()),
    }
}

/// Refuses targets on what servers of this kind do not publish.
///
/// * `path`: that of `target`
fn unpublished(cluster: &ClusterKeys, keys: &TargetKeys, path: Path<'_>, reader: &mut Reader<'_>) {
    let server = match &cluster.server {
        Some(at) => at.value,
        None if cluster.broken => return,
        None => ServerKind::Generic,
    };
    let mut check = |key: &str, at: Option<&Position>, tells: fn(ServerKind) -> bool| {
        let Some(position) = at.filter(|_| !tells(server)) else {
            return;
        };
        let kinds = ServerKind::ALL.into_iter().filter(|kind| tells(*kind));
        let kinds: Vec<String> = kinds.map(|kind| format!("`{}`", kind.as_str())).collect();
        let message = format!("`{}` servers publish no such number", server.as_str());
        let help = format!(
            "say which `server` it is; those that do are {}",
            kinds.join(", ")
        );
        reader.refuse(Code::Conflict, position, path.key(key), message, &help);
    };
    let queue = keys.queue.as_ref().map(|at| &at.position);
    check("queue", queue, ServerKind::tells_queue);
    let kv_cache = keys.kv_cache.as_ref().map(|at| &at.position);
    check("kv_cache", kv_cache, ServerKind::tells_kv_cache);
}

/// Reads `stable_window` and `panic_window`.
fn windows(keys: &ScaleKeys, path: Path<'_>, reader: &mut Reader<'_>) -> (Duration, Duration) {
    let seconds =
        |written: Option<Duration>, default| written.unwrap_or(Duration::from_secs(default));
    let stable = seconds(keys.stable_window.as_ref().map(|at| at.value.0), 60);
    let panic = seconds(keys.panic_window.as_ref().map(|at| at.value.0), 6);
    if panic < stable || keys.broken {
        return (stable, panic);
    }
    let [short, long] = [panic, stable].map(show_duration);
    let (key, at, message) = match (&keys.panic_window, &keys.stable_window) {
        (None, Some(at)) => {
            let message = format!("{long} is not longer than `panic_window`, {short}");
            ("stable_window", &at.position, message)
        }
        (Some(at), _) => {
            let message = format!("{short} is not shorter than `stable_window`, {long}");
            ("panic_window", &at.position, message)
        }
        (None, None) => return (stable, panic),
    };
    let help = "bursts are looked for in a part of the stable window";
    reader.refuse(Code::OutOfRange, at, path.key(key), message, help);
    (stable, panic)
}

fn driver(keys: &ScaleKeys, path: Path<'_>, reader: &mut Reader<'_>) -> Option<Driver> {
    match (&keys.process, &keys.webhook, &keys.observe) {
        (Some(at), None, None) => Some(Driver::Process(process(&at.value, reader)?)),
        (None, Some(at), None) => Some(Driver::Webhook {
            url: at.value.url.as_ref()?.value.0.clone(),
        }),
        (None, None, Some(_)) => Some(Driver::Observe),
        _ if keys.broken => None,
        (None, None, None) => {
            let message = "nobody starts replicas: expected `process`, `webhook` or `observe`";
            let help =
                "for example `process: {command: \"llama-server --port ${PORT} -m m.gguf\"}`";
            reader.refuse(Code::MissingKey, &keys.position, path, message, help);
            None
        }
        _ => {
            let [process, webhook] = [
                keys.process.as_ref().map(|at| (&at.position, "process")),
                keys.webhook.as_ref().map(|at| (&at.position, "webhook")),
            ];
            let observe = keys.observe.as_ref().map(|at| (&at.position, "observe"));
            let mut written: Vec<_> = [process, webhook, observe].into_iter().flatten().collect();
            written.sort_by_key(|(position, _)| (position.line, position.column));
            if let [(_, first), (position, second), ..] = written[..] {
                let message = format!("`{first}` and `{second}` cannot both start replicas");
                let help = format!("remove `{first}` or `{second}`");
                reader.refuse(Code::Conflict, position, path, message, &help);
            }
            None
        }
    }
}

fn process(keys: &ProcessKeys, reader: &Reader<'_>) -> Option<Process> {
    let here = || -> PathBuf { reader.directory(&keys.position).join(".") };
    Some(Process {
        command: keys.command.as_ref()?.value.0.clone(),
        env: keys
            .env
            .iter()
            .flat_map(|at| &at.value.0)
            .map(|(name, value)| (name.0.clone(), value.0.clone()))
            .collect(),
        directory: keys
            .directory
            .as_ref()
            .map_or_else(here, |at| at.value.0.clone()),
        stop: keys.stop.as_ref().map(|at| at.value.0.clone()),
        stop_timeout: keys
            .stop_timeout
            .as_ref()
            .map_or(Duration::from_secs(10), |at| at.value.0),
        address: keys.address.as_ref().map(|at| at.value.0),
    })
}

/// Checks that it is known where a process listens.
///
/// * `max`: most replicas
fn placed(
    process: &Process,
    keys: &ProcessKeys,
    max: u32,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) {
    let texts = || process.command.iter().chain(process.env.values());
    let Some(at) = &keys.address else {
        if !keys.broken && !texts().any(|text| text.contains("${PORT}")) {
            let near = |text: &String| {
                let text = text.to_ascii_uppercase();
                text.contains("$PORT") || text.contains("{PORT}")
            };
            let help = match texts().any(near) {
                true => "the port is written `${PORT}`",
                false => {
                    "pass `${PORT}` in `command` or `env`, or say `address: \"127.0.0.1:8080\"`"
                }
            };
            let message = "nobody knows where it listens";
            reader.refuse(Code::MissingKey, &keys.position, path, message, help);
        }
        return;
    };
    let path = path.key("address");
    if at.value.0.port() == 0 {
        let message = "port 0 is no place";
        let help = "the port it listens on; without one, pass it `${PORT}`";
        reader.refuse(Code::BadValue, &at.position, path, message, help);
    }
    if max > 1 {
        let message = format!("{max} replicas cannot all listen on one address");
        let help = "pass `${PORT}` instead of `address`, or write `max: 1`";
        reader.refuse(Code::Conflict, &at.position, path, message, help);
    }
}

/// Refuses other endpoints than the processes.
///
/// * `path`: that of the cluster
fn unshared(cluster: &ClusterKeys, path: Path<'_>, reader: &mut Reader<'_>) {
    let endpoints = cluster.endpoints.as_ref();
    let endpoints = endpoints.filter(|at| !at.value.items.is_empty());
    let discover = cluster.discover.as_ref();
    for (key, there) in [
        ("endpoints", endpoints.map(|at| &at.position)),
        ("discover", discover.map(|at| &at.position)),
    ] {
        let Some(position) = there else { continue };
        let message = format!("`{key}` and `scale.process` cannot both say who serves");
        let help = format!("remove `{key}`: the processes are the endpoints");
        reader.refuse(Code::Conflict, position, path, message, &help);
    }
}

/// Reports what is legal and hardly meant.
///
/// * `path`: that of the cluster
pub(super) fn odd(keys: &ClusterKeys, path: Path<'_>, reader: &mut Reader<'_>) {
    let Some(At { value: scale, .. }) = &keys.scale else {
        return;
    };
    let target = scale.target.as_ref();
    let target = target.and_then(|at| at.value.in_flight.as_ref());
    if let (Some(at), Some(target)) = (&keys.concurrency, target)
        && target.value.0 > at.value.0 as f64
    {
        let message = format!(
            "{path}.scale.target.in_flight: {} is more than `concurrency`, {}, so it is reached only by requests that wait",
            target.value.0, at.value.0
        );
        reader.report(Diagnostic::new(Code::NoEffect, &target.position, message));
    }
    let min = scale.min.as_ref().map_or(0, |at| at.value.0);
    let useless = match (&scale.observe, min) {
        (Some(_), _) => Some("`observe` starts nothing".to_owned()),
        (None, 0) => None,
        (None, min) => Some(format!("`min: {min}` starts as many anyway")),
    };
    if let (Some(at), Some(why)) = (scale.preload.as_ref().filter(|at| at.value), useless) {
        let message = format!("{path}.scale.preload: has no effect, because {why}");
        reader.report(Diagnostic::new(Code::NoEffect, &at.position, message));
    }
    gpu::idle_keys(scale, path.key("scale"), reader);
    gives_up(keys, scale, path, reader);
}

/// Reports what is said about waiting requests that never wait so.
///
/// * `path`: that of the cluster
pub(super) fn odd_queue(keys: &ClusterKeys, path: Path<'_>, reader: &mut Reader<'_>) {
    let Some(At { value: written, .. }) = &keys.queue else {
        return;
    };
    let path = path.key("queue");
    let page = written.waiting_page.as_ref().filter(|at| at.value);
    if let Some(at) = page.filter(|_| keys.scale.is_none() && !keys.broken) {
        let message = format!(
            "{path}.waiting_page: has no effect, because without `scale` nobody waits for a first replica"
        );
        reader.report(Diagnostic::new(Code::NoEffect, &at.position, message));
    }
    let bounds = queue(written);
    if let (Some(at), Some(period)) = (&written.heartbeat, bounds.heartbeat)
        && period >= bounds.saturated.max(bounds.empty)
    {
        let message = format!(
            "{path}.heartbeat: has no effect, because nobody waits as long as {}",
            show_duration(period)
        );
        let help = "a shorter one, or longer waits: `saturated` and `empty`";
        reader.report(Diagnostic::new(Code::NoEffect, &at.position, message).help(help));
    }
}

/// Reports requests that wait shorter than a start may take.
fn gives_up(keys: &ClusterKeys, scale: &ScaleKeys, path: Path<'_>, reader: &mut Reader<'_>) {
    let empty = keys.queue.as_ref().and_then(|at| at.value.empty.as_ref());
    let start = scale.start_timeout.as_ref();
    let wait = empty.map_or(Queue::default().empty, |at| at.value.0);
    let takes = start.map_or(START, |at| at.value.0);
    if takes <= wait || scale.observe.is_some() || keys.broken {
        return;
    }
    let [shown, taken] = [wait, takes].map(show_duration);
    let (key, position) = match (start, empty) {
        (Some(at), _) => ("scale.start_timeout", &at.position),
        (None, Some(at)) => ("queue.empty", &at.position),
        (None, None) => return,
    };
    let message = format!(
        "{path}.{key}: requests give up after {shown}, `queue.empty`, and a start may take {taken}, `scale.start_timeout`"
    );
    let help = format!("raise `queue.empty`, or write `start_timeout: {shown}` or less");
    reader.report(Diagnostic::new(Code::GivesUp, position, message).help(help));
}
