//! A machine with devices, models and requests in virtual time, to try policies on.

use std::collections::VecDeque;
use std::time::Duration;

use forebay_config::{Gpu, GpuMemory, GpuShare};

use super::{Decision, Resident, STUCK, TURN, Urgency, Want, could_ever, decide};

/// Time passes in such steps, milliseconds.
const STEP: u64 = 500;
/// Recent demand fades in this time, seconds.
const FADES: f64 = 600.0;

/// A model: at most one replica of it runs, which serves one request at a time.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// Units of memory, of `GIB` bytes.
    pub(super) size: u64,
    pub(super) cores: u32,
    pub(super) load: u64,
    pub(super) service: u64,
    pub(super) pinned: bool,
    pub(super) min_residency: u64,
}

/// Bytes in a unit.
pub(super) const GIB: u64 = 1 << 30;

impl Model {
    /// Seconds to load and to serve one request.
    pub(super) fn new(size: u64, load: u64, service: u64) -> Self {
        Self {
            size,
            cores: 0,
            load,
            service,
            pinned: false,
            min_residency: 60,
        }
    }

    pub(super) fn share(&self) -> GpuShare {
        GpuShare {
            memory: GpuMemory::Bytes(self.size * GIB),
            cores: self.cores,
        }
    }
}

pub(super) fn device(index: u32, size: u64) -> Gpu {
    Gpu {
        index,
        memory: size * GIB,
        cores: 100,
    }
}

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    Ours,
    /// Whoever came first is served first, and whatever is idle and was used least recently goes for it.
    Lru,
}

#[derive(Clone, Debug)]
struct Replica {
    id: u64,
    model: usize,
    device: u32,
    ready_at: u64,
    serving_until: Option<u64>,
    leaving: bool,
    evicted_at: Option<u64>,
    spared_until: u64,
    used: u64,
}

/// The machine.
pub(super) struct World {
    policy: Policy,
    devices: Vec<Gpu>,
    pub(super) models: Vec<Model>,
    replicas: Vec<Replica>,
    queues: Vec<VecDeque<u64>>,
    demand: Vec<f64>,
    now: u64,
    next: u64,
    pub(super) loads: u64,
    pub(super) served: usize,
    pub(super) longest_wait: u64,
    pub(super) order: Vec<usize>,
}

impl World {
    pub(super) fn new(policy: Policy, devices: Vec<Gpu>, models: Vec<Model>) -> Self {
        Self {
            policy,
            devices,
            queues: vec![VecDeque::new(); models.len()],
            demand: vec![0.0; models.len()],
            models,
            replicas: Vec::new(),
            now: 0,
            next: 1,
            loads: 0,
            served: 0,
            longest_wait: 0,
            order: Vec::new(),
        }
    }

    pub(super) fn arrive(&mut self, model: usize) {
        self.queues[model].push_back(self.now);
        self.demand[model] += 1.0;
    }

    /// The last one that waits for a model leaves.
    pub(super) fn cancel(&mut self, model: usize) {
        self.queues[model].pop_back();
    }

    pub(super) fn waiting(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    /// Some time passes.
    pub(super) fn step(&mut self) {
        self.now += STEP;
        for demand in &mut self.demand {
            *demand *= (-(STEP as f64) / 1000.0 / FADES).exp();
        }
        let now = self.now;
        for replica in &mut self.replicas {
            if replica.serving_until.is_some_and(|until| until <= now) {
                replica.serving_until = None;
                replica.used = now;
            }
        }
        // What was idle at the last step and had to go is gone now.
        let gone = |r: &Replica| r.leaving && r.serving_until.is_none() && r.used < now;
        self.replicas.retain(|r| !gone(r));
        match self.policy {
            Policy::Ours => self.decide(),
            Policy::Lru => self.lru(),
        }
        self.serve();
        self.check();
    }

    fn seconds(&self, since: u64) -> Duration {
        Duration::from_millis(self.now.saturating_sub(since))
    }

    fn residents(&self) -> Vec<Resident> {
        let resident = |r: &Replica| {
            let model = &self.models[r.model];
            let busy = r.serving_until.is_some() || !self.queues[r.model].is_empty() && !r.leaving;
            Resident {
                id: r.id,
                tenant: r.model as u64,
                device: r.device,
                share: model.share(),
                ready_for: (r.ready_at <= self.now).then(|| self.seconds(r.ready_at)),
                leaving: r.leaving,
                evicted: r.evicted_at.map(|at| self.seconds(at)),
                busy,
                idle_for: self.seconds(r.used),
                pinned: model.pinned,
                stale: false,
                spared: r.spared_until > self.now,
                min_residency: Duration::from_secs(model.min_residency),
                cost: model.load as f64 * self.demand[r.model],
            }
        };
        self.replicas.iter().map(resident).collect()
    }

    fn wants(&self) -> Vec<Want> {
        let models = self.models.iter().enumerate();
        let wants = models.filter_map(|(at, model)| {
            let oldest = *self.queues[at].front()?;
            let there = self.replicas.iter().any(|r| r.model == at);
            (!there).then(|| Want {
                id: 1_000_000 + at as u64,
                tenant: at as u64,
                share: model.share(),
                only: None,
                urgency: Urgency::Waiting(self.seconds(oldest)),
                runs: false,
            })
        });
        wants.collect()
    }

    fn decide(&mut self) {
        let (residents, wants) = (self.residents(), self.wants());
        let Decision {
            places,
            evict,
            keep,
            ..
        } = decide(&self.devices, &residents, &wants);
        let longest = wants
            .iter()
            .map(|want| match want.urgency {
                Urgency::Waiting(waited) => waited,
                _ => Duration::ZERO,
            })
            .max();
        for id in evict {
            let victim = residents.iter().find(|r| r.id == id).unwrap();
            let ready_for = victim.ready_for.expect("one that starts is no victim");
            assert!(!victim.pinned && ready_for >= victim.min_residency);
            let over = longest.unwrap() >= TURN && ready_for >= TURN;
            assert!(!victim.busy || over, "{victim:?}");
            let replica = self.replicas.iter_mut().find(|r| r.id == id).unwrap();
            replica.evicted_at = Some(self.now);
            replica.leaving = true;
        }
        for id in keep {
            let replica = self.replicas.iter_mut().find(|r| r.id == id).unwrap();
            let since = replica.evicted_at.take().unwrap();
            replica.leaving = false;
            if self.now - since >= STUCK.as_millis() as u64 {
                replica.spared_until = self.now + STUCK.as_millis() as u64;
            }
        }
        for (id, device) in places {
            self.load((id - 1_000_000) as usize, device);
        }
    }

    fn load(&mut self, model: usize, device: u32) {
        self.loads += 1;
        self.replicas.push(Replica {
            id: self.next,
            model,
            device,
            ready_at: self.now + self.models[model].load * 1000,
            serving_until: None,
            leaving: false,
            evicted_at: None,
            spared_until: 0,
            used: self.now,
        });
        self.next += 1;
    }

    fn lru(&mut self) {
        let mut heads: Vec<(u64, usize)> = (0..self.models.len())
            .filter_map(|at| Some((*self.queues[at].front()?, at)))
            .collect();
        heads.sort_unstable();
        // Who came earlier is served before its model goes.
        let mut before = Vec::new();
        for (_, model) in heads {
            if self.replicas.iter().any(|r| r.model == model) {
                before.push(model);
                continue;
            }
            let size = self.models[model].size;
            let used = |device: u32| -> u64 {
                let here = self.replicas.iter().filter(|r| r.device == device);
                here.map(|r| self.models[r.model].size).sum()
            };
            let free = self
                .devices
                .iter()
                .find(|d| used(d.index) + size <= d.memory / GIB);
            if let Some(device) = free {
                let device = device.index;
                self.load(model, device);
                before.push(model);
                continue;
            }
            if self.replicas.iter().any(|r| r.leaving) {
                return;
            }
            let idle = self.replicas.iter_mut().filter(|r| {
                r.serving_until.is_none() && r.ready_at <= self.now && !before.contains(&r.model)
            });
            if let Some(victim) = idle.min_by_key(|r| r.used) {
                victim.leaving = true;
            }
            return; // one after the other
        }
    }

    /// Requests go to replicas that are free.
    fn serve(&mut self) {
        for replica in &mut self.replicas {
            let can =
                replica.ready_at <= self.now && !replica.leaving && replica.serving_until.is_none();
            if can && let Some(came) = self.queues[replica.model].pop_front() {
                replica.serving_until = Some(self.now + self.models[replica.model].service * 1000);
                self.longest_wait = self.longest_wait.max(self.now - came);
                self.served += 1;
                self.order.push(replica.model);
            }
        }
    }

    /// What must hold at any time.
    fn check(&self) {
        for device in &self.devices {
            let here = self.replicas.iter().filter(|r| r.device == device.index);
            let (mut memory, mut cores) = (0, 0);
            for replica in here {
                memory += self.models[replica.model].size * GIB;
                cores += self.models[replica.model].cores;
            }
            assert!(memory <= device.memory && cores <= device.cores);
        }
    }

    /// True when the model could be loaded if everybody made room who may.
    pub(super) fn could_ever(&self, model: usize) -> bool {
        let share = self.models[model].share();
        could_ever(&self.devices, &self.residents(), model as u64, &share, None)
    }

    pub(super) fn is_waited_for(&self, model: usize) -> bool {
        !self.queues[model].is_empty()
    }
}
