//! What is known of tenants and of what they hold. No I/O; the time is told.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use forebay_config::Gpu;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Notice;
use super::plan::{Decision, Resident, STUCK, Urgency, Want, Why, could_ever, decide};
use super::tenant::Tenant;

/// The devices.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Budget {
    /// The driver has not answered yet: nothing is placed.
    #[default]
    Unknown,
    /// There is none: everything is placed at once, on no device.
    None,
    Devices(Vec<Gpu>),
}

/// A place that somebody has or wants.
pub(super) struct Hold {
    pub(super) tenant: u64,
    pub(super) since: Instant,
    pub(super) stage: Stage,
    /// Its tenant runs another command by now.
    pub(super) stale: bool,
}

/// How far it is.
pub(super) enum Stage {
    Wanted {
        /// It is to be there without any request.
        due: bool,
        why: Option<Why>,
        /// Where the answer goes.
        to: oneshot::Sender<Option<u32>>,
    },
    Placed(Placed),
    /// It runs outside of any budget.
    Free,
}

/// One that has a device.
pub(super) struct Placed {
    pub(super) device: u32,
    pub(super) ready: Option<Instant>,
    pub(super) address: Option<SocketAddr>,
    pub(super) leaving: bool,
    pub(super) evicted: Option<Instant>,
    spared_until: Option<Instant>,
    used: Instant,
}

/// Everything the broker knows.
#[derive(Default)]
pub(super) struct Books {
    pub(super) budget: Budget,
    pub(super) tenants: BTreeMap<u64, Tenant>,
    pub(super) holds: BTreeMap<u64, Hold>,
    /// What operators want, by cluster.
    pub(super) overrides: HashMap<String, u32>,
    last: u64,
}

impl Placed {
    pub(super) fn new(device: u32, now: Instant) -> Self {
        Self {
            device,
            ready: None,
            address: None,
            leaving: false,
            evicted: None,
            spared_until: None,
            used: now,
        }
    }

    /// It will go on.
    pub(super) fn stays(&self) -> bool {
        !self.leaving && self.evicted.is_none()
    }
}

impl Books {
    pub(super) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// What a tenant has a device for, its number first.
    pub(super) fn placed_of(&self, tenant: u64) -> impl Iterator<Item = (u64, &Placed)> {
        let holds = self
            .holds
            .iter()
            .filter(move |(_, hold)| hold.tenant == tenant);
        holds.filter_map(|(id, hold)| match &hold.stage {
            Stage::Placed(placed) => Some((*id, placed)),
            Stage::Wanted { .. } | Stage::Free => None,
        })
    }

    /// How many of a tenant's replicas have a device and will go on.
    fn running(&self, tenant: u64) -> usize {
        let placed = self.placed_of(tenant);
        placed.filter(|(_, placed)| placed.stays()).count()
    }

    /// Takes in what came to a tenant since the last time.
    pub(super) fn observe(&mut self, id: u64, now: Instant) {
        let mut placed = self.placed_of(id);
        let serves = placed.any(|(_, placed)| placed.ready.is_some() && placed.stays());
        drop(placed);
        if let Some(tenant) = self.tenants.get_mut(&id) {
            tenant.observe(serves, now);
        }
    }

    /// Why a tenant wants more than it has; `None`: it has no reason.
    pub(super) fn urgency(&self, id: u64, now: Instant) -> Option<Urgency> {
        let tenant = self.tenants.get(&id)?;
        if let Some(waited) = tenant.waits(now) {
            return Some(Urgency::Waiting(waited));
        }
        if self.is_asked(tenant) {
            return Some(Urgency::Asked);
        }
        let running = self.running(id);
        let mut placed = self.placed_of(id);
        let in_use = placed.any(|(_, placed)| placed.stays() && tenant.in_flight(placed));
        let standing = in_use
            || running < tenant.terms.min as usize
            || running == 0 && tenant.terms.preload && !tenant.was_ready;
        standing.then_some(Urgency::Standing)
    }

    fn is_asked(&self, tenant: &Tenant) -> bool {
        let asked = self.overrides.get(&*tenant.cluster);
        asked.is_some_and(|replicas| *replicas > 0)
    }

    /// How many replicas of a tenant there should be, of those that the scaler wants.
    ///
    /// * `least`: those that are there for good, and their successors
    pub(super) fn target(&mut self, id: u64, wanted: u32, least: u32, now: Instant) -> u32 {
        self.observe(id, now);
        let Some(tenant) = self.tenants.get(&id) else {
            return wanted;
        };
        if self.budget == Budget::None || tenant.terms.share.is_none() {
            return wanted;
        }
        if tenant.waits(now).is_some() || self.is_asked(tenant) {
            return wanted;
        }
        let mut placed = self.placed_of(id);
        if placed.any(|(_, placed)| placed.stays() && tenant.in_flight(placed)) {
            return wanted;
        }
        let preloaded = u32::from(tenant.terms.preload && !tenant.was_ready);
        wanted.min(least.max(tenant.terms.min).max(preloaded))
    }

    fn residents(&mut self, now: Instant) -> Vec<Resident> {
        let mut counts: HashMap<u64, usize> = HashMap::new();
        for hold in self.holds.values() {
            if matches!(hold.stage, Stage::Placed(_)) {
                *counts.entry(hold.tenant).or_default() += 1;
            }
        }
        let Self {
            tenants,
            holds,
            overrides,
            ..
        } = self;
        let residents = holds.iter_mut().filter_map(|(&id, hold)| {
            let tenant = tenants.get(&hold.tenant)?;
            let Stage::Placed(placed) = &mut hold.stage else {
                return None;
            };
            let ready_for = placed.ready.map(|ready| now - ready);
            let waited_for = placed.stays() && tenant.waiting() > 0;
            let busy = waited_for || tenant.in_flight(placed);
            placed.used = match busy {
                true => now,
                false => placed.used.max(tenant.used()),
            };
            let replicas = counts.get(&hold.tenant).copied().unwrap_or(1).max(1);
            let asked = overrides.get(&*tenant.cluster).is_some_and(|n| *n > 0);
            Some(Resident {
                id,
                tenant: hold.tenant,
                device: placed.device,
                share: tenant.terms.share?,
                ready_for,
                leaving: placed.leaving,
                evicted: placed.evicted.map(|at| now - at),
                busy,
                idle_for: now.saturating_duration_since(placed.used),
                pinned: (tenant.terms.pin || asked) && !tenant.left,
                stale: hold.stale,
                spared: placed.spared_until.is_some_and(|until| now < until),
                min_residency: tenant.terms.min_residency,
                cost: tenant.cost() / replicas as f64,
            })
        });
        residents.collect()
    }

    fn wants(&self, now: Instant) -> Vec<Want> {
        let mut before: HashMap<u64, usize> = HashMap::new();
        let wants = self.holds.iter().filter_map(|(&id, hold)| {
            let Stage::Wanted { due, .. } = hold.stage else {
                return None;
            };
            let tenant = self.tenants.get(&hold.tenant)?;
            let standing = due.then_some(Urgency::Standing);
            let urgency = self.urgency(hold.tenant, now).or(standing)?;
            let earlier = before.entry(hold.tenant).or_default();
            *earlier += 1;
            Some(Want {
                id,
                tenant: hold.tenant,
                share: tenant.terms.share?,
                only: tenant.terms.only,
                urgency,
                runs: *earlier > 1 || self.running(hold.tenant) > 0,
            })
        });
        wants.collect()
    }

    /// Gives places and asks for them, as things are now.
    pub(super) fn settle(&mut self, now: Instant) {
        for id in self.tenants.keys().copied().collect::<Vec<_>>() {
            self.observe(id, now);
        }
        let devices = match &self.budget {
            Budget::Unknown => return,
            Budget::None => return self.let_all(now),
            Budget::Devices(devices) => devices.clone(),
        };
        self.let_unshared(now);
        let (residents, wants) = (self.residents(now), self.wants(now));
        let decision = decide(&devices, &residents, &wants);
        self.carry_out(&decision, now);
        for (id, tenant) in &self.tenants {
            let runs = self.running(*id) > 0;
            let could = |share| could_ever(&devices, &residents, *id, &share, tenant.terms.only);
            let hopeless = !runs && tenant.terms.share.is_some_and(|share| !could(share));
            let news = tenant
                .hopeless
                .send_if_modified(|known| std::mem::replace(known, hopeless) != hopeless);
            if news && hopeless {
                tracing::warn!(cluster = %tenant.cluster, "no device has room for it, whoever else goes");
            }
        }
    }

    /// There is no budget: nobody waits for a place.
    fn let_all(&mut self, now: Instant) {
        self.let_those(now, |_| true);
        for tenant in self.tenants.values() {
            tenant.hopeless.send_if_modified(std::mem::take);
        }
    }

    /// Those that take nothing need no place.
    fn let_unshared(&mut self, now: Instant) {
        self.let_those(now, |tenant| tenant.terms.share.is_none());
    }

    fn let_those(&mut self, now: Instant, may: impl Fn(&Tenant) -> bool) {
        for hold in self.holds.values_mut() {
            let may = self.tenants.get(&hold.tenant).is_some_and(&may);
            if may && matches!(hold.stage, Stage::Wanted { .. }) {
                hold.give(Stage::Free, None, now);
            }
        }
    }

    fn carry_out(&mut self, decision: &Decision, now: Instant) {
        for &(id, why) in &decision.waits {
            if let Some(Stage::Wanted { why: known, .. }) = self.stage(id) {
                *known = Some(why);
            }
        }
        for &id in &decision.evict {
            if let Some(Stage::Placed(placed)) = self.stage(id) {
                placed.evicted = Some(now);
                let device = placed.device;
                self.notify(id, Notice::Evict(id), device, "makes room for others");
            }
        }
        for &id in &decision.keep {
            if let Some(Stage::Placed(placed)) = self.stage(id) {
                let stuck = placed.evicted.take().is_some_and(|at| now - at >= STUCK);
                placed.spared_until = stuck.then(|| now + STUCK);
                let device = placed.device;
                self.notify(id, Notice::Keep(id), device, "need not make room any more");
            }
        }
        for &(id, device) in &decision.places {
            if let Some(hold) = self.holds.get_mut(&id) {
                hold.give(Stage::Placed(Placed::new(device, now)), Some(device), now);
            }
        }
    }

    fn stage(&mut self, id: u64) -> Option<&mut Stage> {
        self.holds.get_mut(&id).map(|hold| &mut hold.stage)
    }

    fn notify(&self, hold: u64, notice: Notice, device: u32, what: &str) {
        let tenant = self
            .holds
            .get(&hold)
            .and_then(|hold| self.tenants.get(&hold.tenant));
        if let Some(tenant) = tenant {
            tracing::info!(cluster = %tenant.cluster, device, "{what}");
            let _ = tenant.notices.send(notice); // a driver that is gone lets all of them go
        }
    }

    /// Memory that must be free on the device of a hold once nothing of it is left: what the others leave of the
    /// budget. `None`: it has no device, or that is not listed any more.
    pub(super) fn free_without(&self, id: u64) -> Option<(u32, u64, u64)> {
        let Some(Stage::Placed(placed)) = self.holds.get(&id).map(|hold| &hold.stage) else {
            return None;
        };
        let Budget::Devices(devices) = &self.budget else {
            return None;
        };
        let device = devices.iter().find(|gpu| gpu.index == placed.device)?;
        let others = self.used_on(device, Some(id)).0;
        Some((device.index, device.memory, others))
    }

    /// Memory and cores that are taken on a device, but by `without`.
    pub(super) fn used_on(&self, device: &Gpu, without: Option<u64>) -> (u64, u64) {
        let mut sum = (0_u64, 0_u64);
        for (id, hold) in &self.holds {
            let Stage::Placed(placed) = &hold.stage else {
                continue;
            };
            let share = self
                .tenants
                .get(&hold.tenant)
                .and_then(|tenant| tenant.terms.share);
            if let Some(share) = share.filter(|_| placed.device == device.index)
                && Some(*id) != without
            {
                sum.0 = sum.0.saturating_add(share.memory.of(device));
                sum.1 += u64::from(share.cores);
            }
        }
        sum
    }

    /// True while somebody wants a place, or is asked for his.
    pub(super) fn is_unsettled(&self) -> bool {
        self.holds.values().any(|hold| match &hold.stage {
            Stage::Wanted { .. } => true,
            Stage::Placed(placed) => placed.evicted.is_some(),
            Stage::Free => false,
        })
    }

    /// Forgets a place, and its tenant when that has left.
    pub(super) fn remove(&mut self, id: u64) {
        let Some(hold) = self.holds.remove(&id) else {
            return;
        };
        self.forget(hold.tenant);
    }

    /// Forgets a tenant that has left and holds nothing.
    pub(super) fn forget(&mut self, tenant: u64) {
        let holds = self.holds.values().any(|hold| hold.tenant == tenant);
        if !holds && self.tenants.get(&tenant).is_some_and(|tenant| tenant.left) {
            self.tenants.remove(&tenant);
        }
    }
}

impl Hold {
    /// Ends its wait.
    fn give(&mut self, stage: Stage, device: Option<u32>, now: Instant) {
        if let Stage::Wanted { to, .. } = std::mem::replace(&mut self.stage, stage) {
            let _ = to.send(device); // one that is not interested any more gives it back
        }
        self.since = now;
    }
}
