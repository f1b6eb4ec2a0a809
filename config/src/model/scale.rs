//! Where requests wait, and who starts and stops replicas.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use super::Position;
use crate::units::{MILLIONTHS, Rate};

/// `queue:` of a cluster: the bounds of its waiting room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Requests that wait at once; default 1000.
    pub max_requests: u32,
    /// Bytes of their bodies that are held; beyond them clients are not read from. Default 64 MiB.
    pub max_bytes: u64,
    /// How long a request waits while replicas exist; default 60 s.
    pub saturated: Duration,
    /// How long it waits while none does, and something can bring one; default 600 s.
    pub empty: Duration,
    /// A client that reads events and waits gets a comment this often, so that nobody in between gives up; at least
    /// 100 ms. `None`: never, the default.
    pub heartbeat: Option<Duration>,
    /// A browser that would wait for the first replica gets a page that asks again by itself; default false.
    pub waiting_page: bool,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            max_requests: 1000,
            max_bytes: 64 << 20,
            saturated: Duration::from_secs(60),
            empty: Duration::from_secs(600),
            heartbeat: None,
            waiting_page: false,
        }
    }
}

/// `scale:` of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// Replicas that run without any demand; default 0.
    pub min: u32,
    /// Most replicas; at least 1 and `min`; default 1.
    pub max: u32,
    /// What one replica is meant to carry.
    pub target: Targets,
    /// Demand is averaged over this; default 60 s.
    pub stable_window: Duration,
    /// Bursts are looked for in this; shorter than `stable_window`, default 6 s.
    pub panic_window: Duration,
    /// A burst is demand for so many times the ready replicas; above 1, default 2.
    pub panic_threshold: f64,
    /// Replicas shrink at most to this part of themselves in one tick, such as 2 for a half; above 1, default 2.
    pub max_down_rate: f64,
    /// Without demand for so long there are `min` replicas; `None`: never. Default 5 min.
    pub idle: Option<Duration>,
    /// A replica that is not ready after this has failed; default 600 s.
    pub start_timeout: Duration,
    /// One replica is started at once; it goes when it is idle, as any other. Default false.
    pub preload: bool,
    /// Its replicas are never stopped to make room for those of others; default false.
    pub pin: bool,
    /// A replica is not stopped to make room sooner than this after it became ready; default 60 s.
    pub min_residency: Duration,
    /// What one replica takes of one device; `None`: nothing. Only with [`Driver::Process`].
    pub gpu: Option<GpuShare>,
    /// Who starts and stops replicas.
    pub driver: Driver,
    /// Where it was written.
    pub position: Position,
}

/// `target:`: per replica, the largest answer wins. All `None`: in flight as `concurrency`, or 1 without it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Targets {
    /// Requests in flight or waiting; above 0.
    pub in_flight: Option<f64>,
    /// Requests per time.
    pub rate: Option<Rate>,
    /// Requests that wait inside a server, by its own metrics; above 0.
    pub queue: Option<f64>,
    /// Part of a server's KV cache that is in use, by its own metrics; above 0, at most 1.
    pub kv_cache: Option<f64>,
}

/// One entry of `gpus:`: a device that local processes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// As the driver numbers it; unique.
    pub index: u32,
    /// Bytes; above 0.
    pub memory: u64,
    /// Hundredths of its computing units that may be given away; 1 … 100, default 100.
    pub cores: u32,
}

/// `gpu:` of a cluster: what one replica takes of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuShare {
    /// How much of its memory.
    pub memory: GpuMemory,
    /// Hundredths of its computing units; 0 … 100, default 0: they are shared freely.
    pub cores: u32,
}

impl GpuShare {
    /// True when one replica fits on the device while nothing else is there.
    pub fn fits(&self, device: &Gpu) -> bool {
        self.memory.of(device) <= device.memory && self.cores <= device.cores
    }
}

/// How much of a device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuMemory {
    /// Bytes; above 0.
    Bytes(u64),
    /// Millionths of the device's memory, above 0, at most 1 000 000, as in `100%`.
    Share(u32),
}

impl GpuMemory {
    /// Bytes of this device; above 0. A share is rounded down, so that as many fit as it says.
    pub fn of(self, device: &Gpu) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Share(parts) => {
                let whole = u128::from(device.memory) * u128::from(parts);
                let bytes = whole / u128::from(MILLIONTHS);
                u64::try_from(bytes).unwrap_or(u64::MAX).max(1)
            }
        }
    }
}

/// Who starts and stops replicas.
#[derive(Clone, Debug, PartialEq)]
pub enum Driver {
    /// Local processes.
    Process(Process),
    /// Somebody who is told how many are wanted.
    Webhook {
        /// `POST {cluster, desired, current}` goes here; `http` or `https`, with a host.
        url: Uri,
    },
    /// Nobody: what would be wanted is only published.
    Observe,
}

/// `process:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Program and arguments, at least one; `${PORT}` is replaced in each.
    pub command: Vec<String>,
    /// Added to the environment of the proxy; `${PORT}` is replaced.
    pub env: BTreeMap<String, String>,
    /// Where it runs; joined to the directory of the configuration.
    pub directory: PathBuf,
    /// A command that ends it, instead of SIGTERM; `${PORT}` and `${PID}` are replaced.
    pub stop: Option<Vec<String>>,
    /// After this long it is killed; default 10 s.
    pub stop_timeout: Duration,
    /// Where it listens, when it does not take `${PORT}`; then there is at most one replica.
    pub address: Option<SocketAddr>,
}
