//! Demand becomes replicas: by the pure step, called here, or by the scaler's own task.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forebay::cluster::ClusterState;
use forebay::error::Reason;
use forebay::scaler::{
    Decision, Demand, Driver, Outlook, Policy, Replicas, Sample, Scaler, State, Subject, TICK, step,
};
use forebay_config as config;
use tokio::sync::{Notify, watch};

use super::events::Event;
use super::scenario::Scaling;
use super::world::World;

/// Between two looks that only learn averages.
const LOOK: u64 = 200;

/// Why the scaler looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    Tick,
    Look,
    Wake,
    Change,
}

/// Who decides.
pub(crate) enum Brain {
    Step(Box<Stepped>),
    Task(Tasked),
}

/// What the scaler's task remembers, kept here.
pub(crate) struct Stepped {
    pub(crate) state: State,
    pub(crate) decision: Decision,
    told: Option<u32>,
    /// Looks that were planned before this one mean nothing.
    number: u64,
}

/// The scaler's task, and what it is shown.
pub(crate) struct Tasked {
    pub(crate) scaler: Scaler,
    pub(crate) stage: Arc<Stage>,
    pub(crate) outlook: watch::Receiver<Outlook>,
}

/// Driver and demand as the task sees them.
pub(crate) struct Stage {
    cluster: Mutex<Arc<ClusterState>>,
    came: Arc<Notify>,
    status: Mutex<Replicas>,
    changed: watch::Sender<()>,
    wanted: AtomicU32,
    told: AtomicBool,
    /// Rings when the driver was told something.
    pub(crate) rings: Notify,
}

impl Driver for Stage {
    fn want(&self, replicas: u32) {
        self.wanted.store(replicas, Ordering::Relaxed);
        self.told.store(true, Ordering::Relaxed);
        self.rings.notify_one();
    }

    fn status(&self) -> Replicas {
        let status = self.status.lock();
        status.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

impl Stage {
    fn cluster(&self) -> Arc<ClusterState> {
        let cluster = self.cluster.lock();
        Arc::clone(&cluster.unwrap_or_else(PoisonError::into_inner))
    }
}

impl Demand for Stage {
    fn in_flight(&self) -> u32 {
        self.cluster().demanding()
    }

    fn waiting(&self) -> u32 {
        self.cluster().demanding_waiters()
    }

    fn arrivals(&self) -> u64 {
        self.cluster().arrivals()
    }

    fn wake(&self) -> &Notify {
        &self.came
    }
}

fn policy(cluster: &config::Cluster) -> Option<Policy> {
    let scale = cluster.scale.as_ref()?;
    Some(Policy::new(scale, cluster.concurrency))
}

impl Brain {
    pub(crate) fn new(
        scaling: Scaling,
        cluster: &Arc<ClusterState>,
        config: &Arc<config::Cluster>,
    ) -> Self {
        if scaling == Scaling::Step {
            return Self::Step(Box::new(Stepped {
                state: State::new(Duration::ZERO),
                decision: Decision::default(),
                told: None,
                number: 0,
            }));
        }
        let stage = Arc::new(Stage {
            cluster: Mutex::new(Arc::clone(cluster)),
            came: Arc::clone(cluster.room().came()),
            status: Mutex::default(),
            changed: watch::Sender::new(()),
            wanted: AtomicU32::new(0),
            told: AtomicBool::new(false),
            rings: Notify::new(),
        });
        let scaler = Scaler::new();
        scaler.follow([subject(&stage, config)]);
        let outlook = scaler.outlook(&config.name);
        Self::Task(Tasked {
            scaler,
            stage,
            outlook: outlook.expect("the cluster is scaled"),
        })
    }
}

fn subject(stage: &Arc<Stage>, config: &Arc<config::Cluster>) -> Subject {
    Subject {
        config: Arc::clone(config),
        demand: Arc::clone(stage) as Arc<dyn Demand>,
        driver: Arc::clone(stage) as Arc<dyn Driver>,
    }
}

impl World {
    /// The step looks, for this reason.
    pub(crate) fn look(&mut self, cause: Cause, number: u64) {
        let Brain::Step(brain) = &mut self.brain else {
            return;
        };
        let is_planned = matches!(cause, Cause::Look | Cause::Change) && number > 0;
        if is_planned && number != brain.number {
            return;
        }
        if cause == Cause::Tick {
            let tick = Event::Look { cause, number: 0 };
            self.agenda.plan(self.now + TICK.as_millis() as u64, tick);
        }
        let Some(policy) = policy(&self.config) else {
            return;
        };
        let replicas = self.crew.status.clone();
        let sample = Sample {
            in_flight: self.state.demanding(),
            waiting: self.state.demanding_waiters(),
            arrivals: self.state.arrivals(),
            ready: replicas.ready,
            starting: replicas.starting,
            failed_in_a_row: replicas.failed_in_a_row,
            last_start: replicas.last_start,
            wake: cause == Cause::Wake,
            ..Sample::default()
        };
        let now = Duration::from_millis(self.now);
        brain.number += 1;
        let number = brain.number;
        if cause == Cause::Look {
            brain.state.observe(&policy, &sample, now);
        } else {
            brain.decision = step(&policy, &mut brain.state, &sample, now);
            let order = brain.decision.order;
            if brain.told != Some(order) || cause == Cause::Tick {
                brain.told = Some(order);
                self.crew.wanted = order;
            }
        }
        let decision = brain.decision;
        if let Some(again) = decision.again {
            let cause = Cause::Change;
            let at = again.as_micros().div_ceil(1000) as u64;
            self.agenda
                .plan(at.max(self.now), Event::Look { cause, number });
        }
        if sample.in_flight + sample.waiting > 0 {
            let cause = Cause::Look;
            self.agenda
                .plan(self.now + LOOK, Event::Look { cause, number });
        }
        self.take_outlook(Outlook {
            asked: decision.desired > 0,
            start_failed: decision.start_failed,
            no_capacity: false,
            ..Outlook::default()
        });
    }

    fn take_outlook(&mut self, outlook: Outlook) {
        self.state.set_outlook(outlook);
        if outlook.start_failed {
            self.state.room().fail_all(Reason::StartFailed);
        }
    }

    /// Lets the scaler see what has just happened, and hears what it says.
    pub(crate) fn think(&mut self) {
        let changed = std::mem::take(&mut self.crew.changed);
        match &mut self.brain {
            Brain::Step(_) => {
                let came = Arc::clone(self.state.room().came());
                let woken = {
                    use futures_util::FutureExt as _;
                    came.notified().now_or_never().is_some()
                };
                if woken {
                    self.look(Cause::Wake, 0);
                }
                if changed {
                    self.look(Cause::Change, 0);
                }
            }
            Brain::Task(brain) => {
                if changed {
                    let status = brain.stage.status.lock();
                    *status.unwrap_or_else(PoisonError::into_inner) = self.crew.status.clone();
                    brain.stage.changed.send_replace(());
                }
                if brain.stage.told.swap(false, Ordering::Relaxed) {
                    self.crew.wanted = brain.stage.wanted.load(Ordering::Relaxed);
                }
                let outlook = *brain.outlook.borrow();
                self.take_outlook(outlook);
            }
        }
    }

    /// The scaler follows a new generation.
    pub(crate) fn follow(&mut self) {
        if let Brain::Task(brain) = &mut self.brain {
            let cluster = brain.stage.cluster.lock();
            *cluster.unwrap_or_else(PoisonError::into_inner) = Arc::clone(&self.state);
            brain.scaler.follow([subject(&brain.stage, &self.config)]);
        }
        self.crew.changed = true;
    }

    /// An operator wants so many replicas.
    pub(crate) fn pin(&mut self, replicas: Option<u32>) {
        (self.pinned, self.pinned_at) = (replicas, self.now);
        match &mut self.brain {
            Brain::Step(brain) => {
                brain.state.pin(replicas);
                brain.state.forgive();
                self.look(Cause::Change, 0);
            }
            Brain::Task(brain) => {
                brain.scaler.pin(&self.config.name, replicas);
            }
        }
    }

    /// True while the scaler waits after a failed start.
    pub(crate) fn backs_off(&self) -> bool {
        match &self.brain {
            Brain::Step(brain) => {
                let now = Duration::from_millis(self.now);
                brain.state.backing_off(now).is_some()
            }
            // It says so only by what it orders.
            Brain::Task(_) => self.crew.status.failed_in_a_row > 0,
        }
    }

    /// What the scaler wants now.
    pub(crate) fn desired(&self) -> u32 {
        match &self.brain {
            Brain::Step(brain) => brain.decision.desired,
            Brain::Task(brain) => {
                let numbers = brain.scaler.numbers();
                numbers
                    .get(&self.config.name)
                    .map_or(0, |n| n.decision.desired)
            }
        }
    }
}
