//! The budget as JSON.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::books::{Books, Budget, Hold, Stage};
use super::plan::Why;

impl Why {
    /// In a few words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Leaving => "those that make room are not gone yet",
            Self::Blocked => "those that are there have work or have just been loaded",
            Self::Never => "no device has room for it, whoever else goes",
        }
    }
}

/// An object per device: budget, what is taken, and who is there.
pub(super) fn devices(books: &Books) -> Value {
    let Budget::Devices(devices) = &books.budget else {
        return json!([]);
    };
    let devices = devices.iter().map(|gpu| {
        let (memory, cores) = books.used_on(gpu, None);
        let here = books.holds.values().filter_map(|hold| match &hold.stage {
            Stage::Placed(placed) if placed.device == gpu.index => {
                let tenant = books.tenants.get(&hold.tenant)?;
                Some(tenant.cluster.as_ref())
            }
            Stage::Placed(_) | Stage::Wanted { .. } | Stage::Free => None,
        });
        json!({
            "index": gpu.index,
            "memory": gpu.memory,
            "memory_used": memory,
            "cores": gpu.cores,
            "cores_used": cores,
            "clusters": here.collect::<Vec<_>>(),
        })
    });
    devices.collect()
}

/// Where a cluster's replicas are and what they wait for. `None`: it shares no devices.
pub(super) fn cluster(books: &Books, cluster: &str) -> Option<Value> {
    let of_cluster = books.tenants.iter();
    let mut of_cluster = of_cluster.filter(|(_, tenant)| *tenant.cluster == *cluster);
    // The newest: one before it may still be leaving.
    let (id, tenant) = of_cluster.next_back()?;
    tenant.terms.share?;
    let mut devices: Vec<u32> = books
        .placed_of(*id)
        .map(|(_, placed)| placed.device)
        .collect();
    devices.sort_unstable();
    let waits = |hold: &&Hold| hold.tenant == *id && matches!(hold.stage, Stage::Wanted { .. });
    let waiting = books.holds.values().find(waits);
    let why = waiting.and_then(|hold| match &hold.stage {
        Stage::Wanted { why, .. } => *why,
        Stage::Placed(_) | Stage::Free => None,
    });
    let hopeless = *tenant.hopeless.borrow();
    let why = why.or(hopeless.then_some(Why::Never));
    let making_room = books
        .placed_of(*id)
        .filter(|(_, placed)| placed.evicted.is_some());
    let since = waiting.map(|hold| (Instant::now() - hold.since).as_secs_f64());
    Some(json!({
        "devices": devices,
        "waiting_for": (waiting.is_some() || hopeless).then_some("gpu"),
        "why": why.map(Why::text),
        "waiting_since": since,
        "making_room": making_room.count(),
    }))
}
