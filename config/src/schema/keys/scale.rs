//! Keys of the waiting room and of replicas.

use super::{HOUR, YEAR};
use crate::schema::section::section;
use crate::schema::{
    Bytes, CommandShape, Dictionary, Empty, Factor, FilePath, ListenAddress, OrNone, Period,
    Positive, RateText, UrlText, VariableName, VariableText, Whole,
};

section! {
    /// Bounds of a waiting room.
    QueueKeys {
        /// Requests that wait at once; default 1000.
        "max_requests" max_requests: Whole<1, 1_000_000>,
        /// Bytes of their bodies that are held; beyond them clients are not read from. Default 64MiB.
        "max_bytes" max_bytes: Bytes<0, { 1 << 40 }>,
        /// How long a request waits while replicas exist; default 60s.
        "saturated" saturated: Period<1, YEAR>,
        /// How long it waits while none does, and something can bring one; default 600s.
        "empty" empty: Period<1, YEAR>,
    }
    later ["heartbeat", "waiting_page"]
}

section! {
    /// Who starts and stops replicas, and by what demand. Has exactly one of `process`, `webhook` and `observe`.
    ScaleKeys {
        /// Replicas that run without any demand; default 0.
        "min" min: Whole<0, 10_000>,
        /// Most replicas; default 1.
        "max" max: Whole<1, 10_000>,
        /// What one replica is meant to carry; the largest answer wins. Default: `in_flight` as `concurrency`.
        "target" target: TargetKeys,
        /// Demand is averaged over this; default 60s.
        "stable_window" stable_window: Period<2000, HOUR>,
        /// Bursts are looked for in this; default 6s.
        "panic_window" panic_window: Period<1000, HOUR>,
        /// A burst is demand for so many times the ready replicas; default 2.
        "panic_threshold" panic_threshold: Factor,
        /// Replicas shrink at most to this part of themselves at once, such as 2 for a half; default 2.
        "max_down_rate" max_down_rate: Factor,
        /// Without demand for so long there are `min` replicas; `none`: never. Default 5m.
        "idle" idle: OrNone<Period<1000, YEAR>>,
        /// A replica that is not ready after this has failed; default 600s.
        "start_timeout" start_timeout: Period<100, YEAR>,
        /// One replica is started at once, before any request; default false.
        "preload" preload: bool,
        /// Local processes.
        "process" process: ProcessKeys,
        /// Somebody who is told how many replicas are wanted.
        "webhook" webhook: WebhookKeys,
        /// Nobody: what would be wanted is only published.
        "observe" observe: Empty,
    }
    later ["pin", "min_residency", "gpu", "gpu_pods", "kubernetes"]
}

section! {
    /// What one replica is meant to carry.
    TargetKeys {
        /// Requests in flight or waiting.
        "in_flight" in_flight: Positive,
        /// Requests per time.
        "rate" rate: RateText,
    }
    later ["queue", "kv_cache", "gpu"]
}

section! {
    /// Local processes.
    ProcessKeys {
        /// Program and arguments, as a list or as a shell would split it; run without a shell. `${PORT}` becomes the port to listen on. A program with a slash is relative to `directory`, another one is looked for in `PATH`.
        [required] "command" command: CommandShape,
        /// Added to the proxy's environment; `${PORT}` is replaced.
        "env" env: Dictionary<VariableName, VariableText>,
        /// Where it runs, relative to this file; default: the directory of this file.
        "directory" directory: FilePath,
        /// A command that ends it, instead of SIGTERM; `${PID}` and `${PORT}` are replaced.
        "stop" stop: CommandShape,
        /// After this long it is killed; default 10s.
        "stop_timeout" stop_timeout: Period<1, HOUR>,
        /// Where it listens when it does not take `${PORT}`; then there is at most one replica.
        "address" address: ListenAddress,
    }
    later []
}

section! {
    /// Somebody who is told how many replicas are wanted.
    WebhookKeys {
        /// `{cluster, desired, current}` is posted here.
        [required] "url" url: UrlText,
    }
    later []
}
