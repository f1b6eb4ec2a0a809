//! `max_memory`: load is shed before the kernel ends the process.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::control::Control;

/// How often resident memory is looked at.
const PERIOD: Duration = Duration::from_millis(250);
/// Share of the limit above which new requests get 503 `overloaded`, in percent.
const SHED: u64 = 92;
/// Share below which they are taken again.
const RESUME: u64 = 88;

/// Follows the process's resident memory until the proxy is gone. Without a limit there is nothing to do.
pub async fn watch(control: Arc<Control>) {
    let cgroup = cgroup_limit();
    let shared = Arc::clone(control.shared());
    let weak = Arc::downgrade(&control);
    drop(control);
    let mut tick = tokio::time::interval(PERIOD);
    loop {
        tick.tick().await;
        let Some(control) = weak.upgrade() else {
            return;
        };
        let Some(limit) = control.snapshot().config.max_memory.or(cgroup) else {
            continue;
        };
        let Some(resident) = resident() else { return };
        let percent = resident.saturating_mul(100) / limit.max(1);
        let shedding = shared.overloaded.load(Ordering::Relaxed);
        if !shedding && percent >= SHED {
            tracing::warn!(resident, limit, "new requests are refused: memory is short");
            shared.overloaded.store(true, Ordering::Relaxed);
        } else if shedding && percent < RESUME {
            tracing::info!(resident, limit, "new requests are taken again");
            shared.overloaded.store(false, Ordering::Relaxed);
        }
    }
}

/// Resident bytes of this process.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// The memory limit of this process's cgroup, version 2 or 1.
fn cgroup_limit() -> Option<u64> {
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    let group = std::fs::read_to_string("/proc/self/cgroup").ok();
    let own = group
        .as_deref()
        .and_then(|text| text.lines().find_map(|line| line.strip_prefix("0::/")))
        .map(|path| Path::new("/sys/fs/cgroup").join(path).join("memory.max"));
    own.as_deref()
        .and_then(read)
        .or_else(|| read(Path::new("/sys/fs/cgroup/memory.max")))
        .or_else(|| read(Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes")))
        .filter(|&limit| limit < 1 << 60) // version 1 says "no limit" with a huge number
}
