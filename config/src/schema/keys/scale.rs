//! Keys of the waiting room and of replicas.

use super::{HOUR, YEAR};
use crate::schema::section::section;
use crate::schema::{
    Bytes, CommandShape, DeviceMemory, Dictionary, Empty, Factor, FilePath, ListenAddress,
    MemoryShare, OrNone, Part, Period, Positive, RateText, UrlText, VariableName, VariableText,
    Whole,
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
        /// A client that reads events gets a comment this often while it waits, so that nobody in between gives up; default none.
        "heartbeat" heartbeat: OrNone<Period<100, HOUR>>,
        /// A browser that would wait for the first replica gets a page that asks again by itself; default false.
        "waiting_page" waiting_page: bool,
    }
    later []
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
        /// What one replica takes of one device; `process` only. Default: nothing.
        "gpu" gpu: GpuShareKeys,
        /// Its replicas are never stopped to make room on a device for those of others; default false.
        "pin" pin: bool,
        /// A replica is not stopped to make room sooner than this after it became ready; default 60s.
        "min_residency" min_residency: Period<0, YEAR>,
        /// Local processes.
        "process" process: ProcessKeys,
        /// Somebody who is told how many replicas are wanted.
        "webhook" webhook: WebhookKeys,
        /// Nobody: what would be wanted is only published.
        "observe" observe: Empty,
    }
    later ["gpu_pods", "kubernetes"]
}

section! {
    /// What one replica is meant to carry.
    TargetKeys {
        /// Requests in flight or waiting.
        "in_flight" in_flight: Positive,
        /// Requests per time.
        "rate" rate: RateText,
        /// Requests that wait inside the server, by its own metrics; servers that publish this only.
        "queue" queue: Positive,
        /// Part of the server's KV cache that is in use, by its own metrics; servers that publish this only.
        "kv_cache" kv_cache: Part,
    }
    later ["gpu"]
}

section! {
    /// A device that local processes share.
    GpuKeys {
        /// As the driver numbers it, in the order of the PCI bus; default: its place in the list.
        "index" index: Whole<0, 65_535>,
        /// Memory that may be given away.
        [required] "memory" memory: DeviceMemory,
        /// Hundredths of its computing units that may be given away; default 100.
        "cores" cores: Whole<1, 100>,
    }
    later []
}

section! {
    /// What one replica takes of one device. The process is told which by `CUDA_VISIBLE_DEVICES`, unless its `env` says otherwise.
    GpuShareKeys {
        /// A size, or a percentage of the device's memory.
        [required] "memory" memory: MemoryShare,
        /// Hundredths of its computing units; default 0: they are shared freely.
        "cores" cores: Whole<0, 100>,
    }
    later []
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
