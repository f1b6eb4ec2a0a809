//! The task that watches one cluster: samples in, decisions out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forebay_config as config;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::driver::{Driver, Replicas};
use super::inside::Inside;
use super::starts::hint;
use super::step::{Decision, Policy, Sample, State, TICK, step};
use crate::error::Reason;

/// How often demand is looked at between ticks while there is any.
const LOOK: Duration = Duration::from_millis(200);
/// What `Retry-After` goes by while nothing is known of starts.
const UNKNOWN_START: Duration = Duration::from_secs(10);

/// What requests want of a cluster.
pub trait Demand: Send + Sync {
    /// Requests at endpoints; streams until they are closed.
    fn in_flight(&self) -> u32;

    /// Requests in the waiting room.
    fn waiting(&self) -> u32;

    /// Requests so far; never falls.
    fn arrivals(&self) -> u64;

    /// What the servers tell of themselves; nothing by default.
    fn inside(&self) -> Inside {
        Inside::default()
    }

    /// Is notified (`notify_one`) when a request begins to wait and none did, so that it is seen at once.
    fn wake(&self) -> &Notify;
}

/// A cluster as its scaler sees it.
#[derive(Clone)]
pub struct Subject {
    /// As configured.
    pub config: Arc<config::Cluster>,
    /// What requests want of it.
    pub demand: Arc<dyn Demand>,
    /// Who starts and stops its replicas.
    pub driver: Arc<dyn Driver>,
}

/// What those who wait need to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Replicas are wanted and somebody was told: what is missing will come. Never with `observe`, nor while an
    /// operator wants none.
    pub asked: bool,
    /// Three starts in a row failed and none is tried now: whoever waits, and whoever comes, is answered
    /// `start_failed`. False again when the back-off ends; then the next request that waits starts another try.
    pub start_failed: bool,
    /// No device could hold a replica, whoever makes room: whoever waits, and whoever comes, is answered `no_capacity`.
    pub no_capacity: bool,
    /// When a replica should be ready, or starts are tried again.
    pub expected: Option<Instant>,
}

impl Outlook {
    /// Why nobody needs to wait while no replica is there; `None`: it may be worth it.
    pub fn refusal(&self) -> Option<Reason> {
        match (self.no_capacity, self.start_failed) {
            (true, _) => Some(Reason::NoCapacity),
            (false, true) => Some(Reason::StartFailed),
            (false, false) => None,
        }
    }

    /// What `Retry-After` says to somebody who is refused at `now`: 1 … 60 s.
    pub fn retry_after(&self, now: Instant) -> u64 {
        hint(match self.expected {
            Some(expected) => expected.saturating_duration_since(now),
            None => UNKNOWN_START,
        })
    }
}

/// A cluster's numbers as of the last look.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// What was seen.
    pub sample: Sample,
    /// What was decided.
    pub decision: Decision,
    /// What the driver said.
    pub replicas: Replicas,
    /// How long there has been no demand; `None`: there never was any.
    pub idle_for: Option<Duration>,
    /// How long the last start took that succeeded.
    pub start_latest: Option<Duration>,
    /// What half of the last 20 starts did not exceed.
    pub start_p50: Option<Duration>,
    /// What 95 % of the last 20 starts did not exceed.
    pub start_p95: Option<Duration>,
    /// Starts that succeeded, and the time they took together.
    pub starts: (u64, Duration),
    /// What an operator pinned.
    pub pinned: Option<u32>,
}

/// What a cluster's task shares with the rest.
pub(super) struct Shared {
    pub(super) subject: watch::Sender<Subject>,
    pub(super) pinned: watch::Sender<Option<u32>>,
    pub(super) outlook: watch::Sender<Outlook>,
    pub(super) numbers: Mutex<Numbers>,
}

impl Shared {
    pub(super) fn new(subject: Subject) -> Self {
        Self {
            subject: watch::Sender::new(subject),
            pinned: watch::Sender::new(None),
            outlook: watch::Sender::default(),
            numbers: Mutex::default(),
        }
    }

    pub(super) fn numbers(&self) -> Numbers {
        let numbers = self.numbers.lock();
        numbers.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Why the task looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Time for a step.
    Tick,
    /// Only to know the averages.
    Look,
    /// Somebody began to wait.
    Wake,
    /// The replicas, the configuration or the operator's wish changed.
    Change,
}

/// Scales one cluster until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut subject = shared.subject.subscribe();
    let mut pinned = shared.pinned.subscribe();
    let mut current = subject.borrow_and_update().clone();
    let mut driver_changed = current.driver.changed();
    driver_changed.mark_unchanged();
    let mut scaled = Scaled::new();
    let mut ticks = tokio::time::interval_at(Instant::now() + TICK, TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut cause = Cause::Change;
    loop {
        scaled.state.pin(*pinned.borrow_and_update());
        let rest = scaled.look(&current, &shared, cause);
        cause = tokio::select! {
            () = current.demand.wake().notified() => Cause::Wake,
            _ = ticks.tick() => Cause::Tick,
            () = sleep_until(scaled.again) => Cause::Change,
            () = tokio::time::sleep(LOOK), if !rest => Cause::Look,
            changed = driver_changed.changed() => {
                if changed.is_err() {
                    // It will not ring again; ticks go on.
                    let (silent, receiver) = watch::channel(());
                    driver_changed = receiver;
                    scaled.silent = Some(silent);
                }
                Cause::Change
            }
            changed = subject.changed() => {
                if changed.is_err() {
                    return;
                }
                let before = std::mem::replace(&mut current, subject.borrow_and_update().clone());
                driver_changed = current.driver.changed();
                driver_changed.mark_unchanged();
                scaled.told = None; // it may be another one
                if starts_something_else(&before, &current) {
                    scaled.state.forgive();
                }
                Cause::Change
            }
            changed = pinned.changed() => {
                if changed.is_err() {
                    return;
                }
                scaled.state.forgive(); // whoever says so knows what has changed
                Cause::Change
            }
        };
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What the task remembers.
struct Scaled {
    epoch: Instant,
    state: State,
    decision: Decision,
    /// What the driver was told last.
    told: Option<u32>,
    again: Option<Instant>,
    /// When the oldest start that goes on was first seen.
    starting_since: Option<Instant>,
    /// Of the driver's replicas, so many have made room for others.
    evictions: u64,
    /// Keeps a receiver quiet whose driver is gone.
    silent: Option<watch::Sender<()>>,
}

impl Scaled {
    fn new() -> Self {
        Self {
            epoch: Instant::now(),
            state: State::new(Duration::ZERO),
            decision: Decision::default(),
            told: None,
            again: None,
            starting_since: None,
            evictions: 0,
            silent: None,
        }
    }

    /// Takes a sample and, unless this is only a look, a step. True when there is nothing to look at until the next
    /// tick.
    fn look(&mut self, subject: &Subject, shared: &Shared, cause: Cause) -> bool {
        let Some(policy) = policy_of(subject) else {
            return true; // ended by whoever follows
        };
        let instant = Instant::now();
        let now = instant - self.epoch;
        let replicas = subject.driver.status();
        let sample = Sample {
            in_flight: subject.demand.in_flight(),
            waiting: subject.demand.waiting(),
            arrivals: subject.demand.arrivals(),
            ready: replicas.ready,
            starting: replicas.starting,
            failed_in_a_row: replicas.failed_in_a_row,
            last_start: replicas.last_start,
            wake: cause == Cause::Wake,
            inside: subject.demand.inside(),
        };
        self.starting_since = match sample.starting {
            0 => None,
            _ => self.starting_since.or(Some(instant)),
        };
        self.heed_evictions(&policy, &replicas, &sample);
        if cause == Cause::Look {
            self.state.observe(&policy, &sample, now);
        } else {
            let before = std::mem::replace(
                &mut self.decision,
                step(&policy, &mut self.state, &sample, now),
            );
            self.again = self.decision.again.map(|again| self.epoch + again);
            self.log(subject, &before, &sample);
            self.tell(subject, shared, cause);
        }
        let starts = self.state.starts();
        let numbers = Numbers {
            sample,
            decision: self.decision,
            replicas,
            idle_for: self.state.idle_for(now),
            start_latest: starts.latest(),
            start_p50: starts.quantile(0.5),
            start_p95: starts.p95(),
            starts: starts.totals(),
            pinned: self.state.pinned(),
        };
        *shared
            .numbers
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = numbers;
        sample.in_flight == 0 && sample.waiting == 0
    }

    /// The last replica made room for others and nobody misses it: then none is wanted only because `idle` is not over.
    fn heed_evictions(&mut self, policy: &Policy, replicas: &Replicas, sample: &Sample) {
        let none_is_left = sample.ready == 0 && sample.starting == 0;
        let nobody_asks = sample.in_flight == 0 && sample.waiting == 0;
        if replicas.evictions > self.evictions && none_is_left && nobody_asks {
            self.state.observe(policy, sample, self.epoch.elapsed());
            self.state.give_up();
        } else if none_is_left {
            return; // somebody may leave yet
        }
        self.evictions = replicas.evictions;
    }

    fn log(&self, subject: &Subject, before: &Decision, sample: &Sample) {
        let decision = &self.decision;
        if decision.desired != before.desired || decision.start_failed != before.start_failed {
            tracing::info!(
                cluster = subject.config.name,
                desired = decision.desired,
                ready = sample.ready,
                starting = sample.starting,
                in_flight = sample.in_flight,
                waiting = sample.waiting,
                panic = decision.panic,
                start_failed = decision.start_failed,
                "scaled"
            );
        }
    }

    /// Tells the driver and those who wait.
    fn tell(&mut self, subject: &Subject, shared: &Shared, cause: Cause) {
        let decision = &self.decision;
        // Not after every ring: a driver that rings when it is told would never come to rest.
        let again = matches!(cause, Cause::Tick | Cause::Wake);
        if self.told != Some(decision.order) || again {
            self.told = Some(decision.order);
            subject.driver.want(decision.order);
        }
        let retried = self.state.backing_off(self.epoch.elapsed());
        let started = self.starting_since.or(Some(Instant::now()));
        let ready = started.zip(self.state.starts().p95());
        let expected = retried
            .map(|at| self.epoch + at)
            .or_else(|| ready.map(|(since, took)| since + took));
        let outlook = Outlook {
            asked: decision.desired > 0 && !is_observed(subject),
            start_failed: decision.start_failed,
            no_capacity: false, // the budget knows
            expected,
        };
        shared.outlook.send_if_modified(|known| {
            let news = (known.asked, known.start_failed) != (outlook.asked, outlook.start_failed);
            *known = outlook;
            news
        });
    }
}

fn policy_of(subject: &Subject) -> Option<Policy> {
    let scale = subject.config.scale.as_ref()?;
    Some(Policy::new(scale, subject.config.concurrency))
}

fn is_observed(subject: &Subject) -> bool {
    let scale = subject.config.scale.as_ref();
    scale.is_some_and(|scale| scale.driver == config::Driver::Observe)
}

fn starts_something_else(before: &Subject, now: &Subject) -> bool {
    let driver = |subject: &Subject| {
        subject
            .config
            .scale
            .as_ref()
            .map(|scale| scale.driver.clone())
    };
    driver(before) != driver(now)
}
