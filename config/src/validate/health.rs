//! Which endpoints count as able to serve.

use std::num::NonZeroU32;
use std::time::Duration;

use http::StatusCode;

use super::route::not_empty;
use crate::diagnostic::{Code, Diagnostic};
use crate::model::{EndpointConfig, Health, HealthKind, Outlier, Position, ServerKind};
use crate::schema::keys::{ClusterKeys, HealthKeys, OutlierKeys};
use crate::schema::{At, CheckKind, Path, Reader, Whole};
use crate::units::show_duration;

/// Reads `health` of a cluster.
pub(super) fn health(
    keys: &HealthKeys,
    server: ServerKind,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Health {
    // Nothing says what is asked.
    let by_server = server != ServerKind::Generic
        && keys.kind.is_none()
        && keys.path.is_none()
        && keys.status.is_none()
        && keys.port.is_none();
    let kind = keys.kind.as_ref().map_or(CheckKind::Http, |at| at.value);
    let not_for = match kind {
        CheckKind::Http => [None, None, misplaced("service", keys.service.as_ref())],
        CheckKind::Tcp => [
            misplaced("path", keys.path.as_ref()),
            misplaced("status", keys.status.as_ref()),
            misplaced("service", keys.service.as_ref()),
        ],
        CheckKind::Grpc => [
            misplaced("path", keys.path.as_ref()),
            misplaced("status", keys.status.as_ref()),
            None,
        ],
    };
    for (key, position) in not_for.into_iter().flatten() {
        let (is, wanted) = match (kind, key) {
            (CheckKind::Http, _) => ("http", "grpc"),
            (CheckKind::Tcp, "service") => ("tcp", "grpc"),
            (CheckKind::Tcp, _) => ("tcp", "http"),
            (CheckKind::Grpc, _) => ("grpc", "http"),
        };
        let message = format!("`{key}` belongs to `kind: {wanted}`, and this is `kind: {is}`");
        let help = format!("remove `{key}`, or write `{key}: null` if it is a default");
        if !keys.broken {
            reader.refuse(Code::Conflict, position, path, message, &help);
        }
    }
    if let Some(at) = &keys.status {
        let help = "leave `status` out for 200";
        not_empty(at, help, path.key("status"), reader);
    }
    let number = |at: &Option<At<Whole<1, 1000>>>, default: NonZeroU32| {
        let written = at
            .as_ref()
            .and_then(|at| NonZeroU32::new(at.value.narrow()));
        written.unwrap_or(default)
    };
    let time = |written: Option<Duration>, default| written.unwrap_or(default);
    let (interval, timeout) = (keys.interval.as_ref(), keys.timeout.as_ref());
    Health {
        kind: match kind {
            CheckKind::Http if by_server => HealthKind::Server,
            CheckKind::Http => HealthKind::Http {
                path: keys
                    .path
                    .as_ref()
                    .map_or_else(|| "/".to_owned(), |at| at.value.0.clone()),
                status: statuses(keys),
            },
            CheckKind::Tcp => HealthKind::Tcp,
            CheckKind::Grpc => HealthKind::Grpc {
                service: keys
                    .service
                    .as_ref()
                    .map(|at| at.value.0.clone())
                    .unwrap_or_default(),
            },
        },
        port: keys
            .port
            .as_ref()
            .and_then(|at| u16::try_from(at.value.0).ok()),
        interval: time(interval.map(|at| at.value.0), Duration::from_secs(5)),
        timeout: time(timeout.map(|at| at.value.0), Duration::from_secs(2)),
        unhealthy: number(&keys.unhealthy, const { NonZeroU32::new(3).unwrap() }),
        healthy: number(&keys.healthy, NonZeroU32::MIN),
    }
}

/// Returns a key and its place when it is written.
fn misplaced<'a, T>(
    key: &'static str,
    at: Option<&'a At<T>>,
) -> Option<(&'static str, &'a Position)> {
    at.map(|at| (key, &at.position))
}

fn statuses(keys: &HealthKeys) -> Vec<StatusCode> {
    let Some(at) = &keys.status else {
        return vec![StatusCode::OK];
    };
    let mut found: Vec<StatusCode> = Vec::new();
    for status in at.value.items.iter().flat_map(|at| &at.value.0) {
        if !found.contains(status) {
            found.push(*status);
        }
    }
    found
}

/// Reads `outlier` of a cluster.
pub(super) fn outlier(keys: &OutlierKeys, path: Path<'_>, reader: &mut Reader<'_>) -> Outlier {
    let default = Outlier::default();
    let base = keys.base.as_ref().map_or(default.base, |at| at.value.0);
    let max = keys
        .max
        .as_ref()
        .map_or(default.max.max(base), |at| at.value.0);
    if let (Some(at), true) = (&keys.max, max < base) {
        let [max, base] = [max, base].map(show_duration);
        let message = format!("{max} is shorter than `base`, {base}");
        let help = format!("raise `max`, or write `base: {max}` or less");
        reader.refuse(
            Code::OutOfRange,
            &at.position,
            path.key("max"),
            message,
            &help,
        );
    }
    let failures = keys.consecutive_5xx.as_ref();
    let failures = failures.and_then(|at| NonZeroU32::new(at.value.narrow()));
    Outlier {
        consecutive_5xx: failures.unwrap_or(default.consecutive_5xx),
        base,
        max,
        keep_at_least: keys
            .keep_at_least
            .as_ref()
            .map_or(default.keep_at_least, |at| at.value.narrow()),
        slow_start: keys
            .slow_start
            .as_ref()
            .map_or(default.slow_start, |at| at.value.0),
    }
}

/// Reports an `outlier` that keeps all endpoints there are. A name may stand for any number of them.
///
/// * `serving`: the static endpoints that the subset leaves
pub(super) fn never_ejects<'a>(
    keys: &ClusterKeys,
    outlier: &Outlier,
    serving: impl Iterator<Item = &'a EndpointConfig>,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) {
    let mut known = 0_u32;
    for endpoint in serving {
        if endpoint.host.parse::<std::net::IpAddr>().is_err() {
            return;
        }
        known += 1;
    }
    let Some(at) = &keys.outlier else { return };
    if keys.discover.is_some() || keys.broken || known == 0 || outlier.keep_at_least < known {
        return;
    }
    let position = at.value.keep_at_least.as_ref();
    let position = position.map_or(&at.position, |at| &at.position);
    let message = format!(
        "{path}: nothing is ever ejected, because `keep_at_least`, {}, leaves {}",
        outlier.keep_at_least,
        match known {
            1 => "the only endpoint".to_owned(),
            number => format!("all {number} endpoints"),
        }
    );
    let help = "add endpoints, lower `keep_at_least`, or remove `outlier`";
    reader.report(Diagnostic::new(Code::NoEffect, position, message).help(help));
}
