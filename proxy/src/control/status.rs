//! What is live, since when, and what went wrong last.

use std::time::SystemTime;

use forebay_config::Config;
use forebay_config::diagnostic::Diagnostic;
use forebay_config::load::SourceFile;
use serde::Serialize;

use super::weights::{Override, Pending};
use crate::snapshot::Snapshot;

/// `/api/config/status`.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Number of the live configuration.
    pub generation: u64,
    /// Of its text.
    pub hash: String,
    /// RFC 3339.
    pub applied_at: String,
    /// The files it came from.
    pub sources: Vec<String>,
    /// What `validate` would say, and keys that wait for a restart.
    pub warnings: Vec<String>,
    /// Changes made through the API that are not in the files.
    pub overrides: Vec<Override>,
    /// Weights that wait for endpoints, by `cutover: ready`.
    pub pending: Vec<Pending>,
    /// The last reload that failed, until one succeeds.
    pub last_error: Option<LastError>,
}

/// Why the last reload failed.
#[derive(Clone, Debug, Serialize)]
pub struct LastError {
    /// One line.
    pub message: String,
    /// File at fault.
    pub file: Option<String>,
    /// 1-based.
    pub line: Option<u32>,
    /// 1-based.
    pub column: Option<u32>,
    /// RFC 3339.
    pub at: String,
}

/// Identifies a configuration by its text.
pub fn hash_of(sources: &[SourceFile]) -> String {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    for source in sources {
        hasher.update(source.name.as_bytes());
        hasher.update(&[0]);
        hasher.update(source.text.as_bytes());
        hasher.update(&[0]);
    }
    format!("{:032x}", hasher.digest128())
}

/// Seconds precision, UTC.
pub fn rfc3339(time: SystemTime) -> String {
    crate::access_log::rfc3339(time)
}

pub(super) fn status_of(
    snapshot: &Snapshot,
    sources: &[SourceFile],
    warnings: Vec<String>,
) -> Status {
    Status {
        generation: snapshot.generation,
        hash: snapshot.hash.clone(),
        applied_at: rfc3339(snapshot.applied_at),
        sources: sources.iter().map(|s| s.name.to_string()).collect(),
        warnings,
        overrides: Vec::new(),
        pending: Vec::new(),
        last_error: None,
    }
}

/// What `validate` says of a configuration, and what of it waits for a restart.
pub(super) fn notes(warnings: &[Diagnostic], first: &Config, now: &Config) -> Vec<String> {
    let said = warnings.iter().map(ToString::to_string);
    said.chain(restart_warnings(first, now)).collect()
}

/// Keys that only a restart applies.
fn restart_warnings(first: &Config, now: &Config) -> Vec<String> {
    let mut waits = Vec::new();
    if first.workers != now.workers {
        waits.push("`workers` changed: it takes effect at the next start".to_owned());
    }
    if first.admin != now.admin {
        waits.push("`admin` changed: it takes effect at the next start".to_owned());
    }
    waits
}
