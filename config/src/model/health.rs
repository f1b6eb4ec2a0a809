//! Who counts as able to serve: active checks and what requests tell.

use std::num::NonZeroU32;
use std::time::Duration;

use http::StatusCode;

/// `health:` of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What is asked.
    pub kind: HealthKind,
    /// The port asked instead of the endpoint's own; 1 … 65535.
    pub port: Option<u16>,
    /// Between two checks of one endpoint; default 5 s.
    pub interval: Duration,
    /// How long one check may take; default 2 s.
    pub timeout: Duration,
    /// Failures in a row after which an endpoint gets no requests; default 3.
    pub unhealthy: NonZeroU32,
    /// Successes in a row after which it gets them again; default 1.
    pub healthy: NonZeroU32,
}

/// What an active check asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthKind {
    /// What servers of this kind are asked, and for the first of the cluster's `models` where one model can be asked
    /// for. A check then may take at least as long as such servers need.
    Server,
    /// `GET path`.
    Http {
        /// With its query, begins with `/`; default `/`.
        path: String,
        /// Statuses of a healthy endpoint, at least one; default 200.
        status: Vec<StatusCode>,
    },
    /// A connection can be made.
    Tcp,
    /// `grpc.health.v1.Health/Check` answers SERVING.
    Grpc {
        /// The service asked about; default empty, which is the whole server.
        service: String,
    },
}

/// `outlier:` of a cluster: an endpoint whose answers fail gets no requests for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlier {
    /// Failures in a row: statuses 5xx other than 503 with `Retry-After`, and no answer at all. Default 5.
    pub consecutive_5xx: NonZeroU32,
    /// The first time; each further one in a row lasts as much longer. Default 30 s.
    pub base: Duration,
    /// The longest time; at least `base`. Default 300 s.
    pub max: Duration,
    /// So many endpoints of the cluster are left whatever they answer; default 1.
    pub keep_at_least: u32,
    /// An endpoint that is new or back gets its full share after this long, growing from a tenth; default 0.
    pub slow_start: Duration,
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            consecutive_5xx: const { NonZeroU32::new(5).unwrap() },
            base: Duration::from_secs(30),
            max: Duration::from_secs(300),
            keep_at_least: 1,
            slow_start: Duration::ZERO,
        }
    }
}
