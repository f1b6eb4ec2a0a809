//! Copies of requests: where they go, what their answers are held against, what is written down of them.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, Uri};

use super::{HeaderEdits, Position};
use crate::pointer::Pointer;

/// One entry of `mirrors:` of a route.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// Unique within its route; by default the cluster's name.
    pub name: String,
    /// Name of a cluster of this configuration.
    pub cluster: String,
    /// Share of requests that are copied, in millionths, a multiple of 100; default all.
    pub sample: u32,
    /// Copies under way at once, over all workers; more are dropped. At least 1; default 256.
    pub max_in_flight: u32,
    /// How many bytes of one body a copy may be behind before it is cut; default 1 MiB.
    pub max_lag: u64,
    /// Bytes held for all copies together, over all workers; default 64 MiB.
    pub max_bytes: u64,
    /// From its start to the last byte of its answer; `None`: as long as it takes. Default 30 s.
    pub timeout: Option<Duration>,
    /// Copies wake and scale their cluster; default false.
    pub demand: bool,
    /// Applied to the copy, after those of the route and the split's member.
    pub request_headers: HeaderEdits,
    /// Its answers are held against those of the primary.
    pub compare: Option<Compare>,
    /// Where it was written.
    pub position: Position,
}

/// `compare:` of a mirror.
#[derive(Clone, Debug, PartialEq)]
pub struct Compare {
    /// Share of the copies whose answers are compared, in millionths, a multiple of 100; default all.
    pub sample: u32,
    /// Cluster of a second primary: what differs between the two is noise. `None`: nothing is.
    pub noise: Option<String>,
    /// Headers that are compared, besides the status; default none.
    pub headers: Vec<HeaderName>,
    /// Fields of JSON bodies that are not compared, with all below them.
    pub ignore: Vec<Pointer>,
    /// How far numbers may be apart.
    pub tolerance: Tolerance,
    /// Arrays are compared element by element; false: as bags. Default true.
    pub array_order: bool,
    /// Larger bodies are not compared; bytes, default 1 MiB.
    pub max_body: u64,
}

/// Two numbers are equal when they are at most `abs`, or `rel` times the larger magnitude, apart.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tolerance {
    /// Finite, ≥ 0; default 0.
    pub abs: f64,
    /// Finite, ≥ 0; default 0.
    pub rel: f64,
}

/// `record:` of a route. At least one of `path` and `url` is set.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// JSON lines are appended here; joined to the directory of the configuration.
    pub path: Option<PathBuf>,
    /// A file this large is moved aside; bytes, default 100 MiB.
    pub max_file: u64,
    /// Files kept besides the one that is written; default 5.
    pub keep: u32,
    /// Batches of lines are posted here; `http` or `https`, with a host.
    pub url: Option<Uri>,
    /// Share of requests that are written down, in millionths, a multiple of 100; default all.
    pub sample: u32,
    /// Larger bodies are cut off here; bytes, default 1 MiB.
    pub max_body: u64,
    /// Fields of JSON bodies whose values are replaced.
    pub redact: Vec<Pointer>,
    /// Where it was written.
    pub position: Position,
}
