//! Everything there is, and the passing of time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use forebay::cluster::ClusterState;
use forebay::error::Reason;
use forebay::room::{Seat as _, Ticket};
use forebay::scaler::Replicas;
use forebay_config as config;
use tokio::time::Instant;

use super::brain::{Brain, Cause};
use super::clients::{Client, Outcome};
use super::events::{Agenda, Event};
use super::promises::Check;
use super::replicas::{Crew, Life};
use super::scenario::Scenario;

/// Between two probes of what is down while somebody waits.
const OFTEN: u64 = 20;
/// And while nobody does.
const SELDOM: u64 = 1_000;

/// What happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    served: u64,
    left_waiting: u64,
    left_served: u64,
    cut: u64,
    refused: BTreeMap<&'static str, u64>,
    /// To the line, from an endpoint that took no connection.
    pub(crate) returned: u64,
    pub(crate) starts: u64,
    pub(crate) failed_starts: u64,
    pub(crate) crashes: u64,
    meddled: u64,
    /// Tells one course of events from another.
    pub(crate) course: u64,
}

impl Tally {
    pub(crate) fn count(&mut self, client: u64, outcome: Outcome, now: u64) {
        match outcome {
            Outcome::Served => self.served += 1,
            Outcome::LeftWaiting => self.left_waiting += 1,
            Outcome::LeftServed => self.left_served += 1,
            Outcome::Cut => self.cut += 1,
            Outcome::Refused(reason) => *self.refused.entry(reason.label()).or_default() += 1,
        }
        for part in [client, now, self.served, self.starts] {
            self.course = (self.course ^ part)
                .wrapping_mul(0x0100_0000_01b3)
                .rotate_left(7);
        }
    }

    pub(crate) fn ended(&self) -> u64 {
        let refused: u64 = self.refused.values().sum();
        self.served + self.left_waiting + self.left_served + self.cut + refused
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.served += other.served;
        self.left_waiting += other.left_waiting;
        self.left_served += other.left_served;
        self.cut += other.cut;
        for (label, count) in &other.refused {
            *self.refused.entry(label).or_default() += count;
        }
        self.returned += other.returned;
        self.starts += other.starts;
        self.failed_starts += other.failed_starts;
        self.crashes += other.crashes;
        self.meddled += other.meddled;
    }

    /// What should happen over many seeds, and did not.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let refused = |reason: Reason| self.refused.get(reason.label()).copied().unwrap_or(0);
        let counts = [
            ("served", self.served),
            ("left while it waited", self.left_waiting),
            ("left while it was served", self.left_served),
            ("cut by a crash", self.cut),
            ("queue_full", refused(Reason::QueueFull)),
            ("queue_timeout", refused(Reason::QueueTimeout)),
            ("start_failed", refused(Reason::StartFailed)),
            ("start_timeout", refused(Reason::StartTimeout)),
            ("returned to the line", self.returned),
            ("start", self.starts),
            ("failed start", self.failed_starts),
            ("crash", self.crashes),
            ("meddling", self.meddled),
        ];
        let missing = counts.into_iter().filter(|(_, count)| *count == 0);
        missing.map(|(what, _)| what).collect()
    }
}

/// One course of events.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) rng: Rng,
    pub(crate) epoch: Instant,
    /// Milliseconds since the epoch.
    pub(crate) now: u64,
    pub(crate) agenda: Agenda,
    pub(crate) state: Arc<ClusterState>,
    pub(crate) config: Arc<config::Cluster>,
    pub(crate) clients: BTreeMap<u64, Client>,
    pub(crate) arrived: u64,
    /// Those that ever stood in the line.
    pub(crate) joined: u64,
    /// Order, tick and number of those who wait.
    pub(crate) line: BTreeSet<(u64, u64, u64)>,
    /// Counts what happens to the line.
    pub(crate) ticks: Arc<AtomicU64>,
    pub(crate) woken: Arc<Mutex<Vec<u64>>>,
    pub(crate) first_ticket: Option<Ticket>,
    pub(crate) crew: Crew,
    pub(crate) status_before: Replicas,
    pub(crate) brain: Brain,
    pub(crate) pinned: Option<u32>,
    /// When that was said last.
    pub(crate) pinned_at: u64,
    /// Served at each address, after the last event.
    pub(crate) here: BTreeMap<SocketAddr, u32>,
    /// The largest bounds there have been.
    pub(crate) most_bytes: u64,
    pub(crate) longest_wait: u64,
    /// Since when an endpoint may serve; `None`: none may.
    pub(crate) exist_since: Option<u64>,
    /// When the last one that could serve went.
    pub(crate) gone_since: Option<u64>,
    pub(crate) nothing_runs_since: Option<u64>,
    next_probe: (u64, u64),
    pub(crate) tally: Tally,
}

impl World {
    pub(crate) fn new(scenario: Scenario) -> Self {
        fastrand::seed(scenario.seed); // whatever else draws lots
        let config = Arc::new(scenario.cluster.load());
        let state = Arc::new(ClusterState::new("m"));
        state.settle(&config);
        let queue = config.queue.clone().unwrap_or_default();
        let both = queue.saturated + queue.empty;
        Self {
            rng: scenario.rng.clone(),
            epoch: Instant::now(),
            now: 0,
            agenda: Agenda::default(),
            brain: Brain::new(scenario.scaling, &state, &config),
            state,
            clients: BTreeMap::new(),
            arrived: 0,
            joined: 0,
            line: BTreeSet::new(),
            ticks: Arc::default(),
            woken: Arc::default(),
            first_ticket: None,
            crew: Crew::default(),
            status_before: Replicas::default(),
            pinned: None,
            pinned_at: 0,
            here: BTreeMap::new(),
            most_bytes: queue.max_bytes,
            longest_wait: both.as_millis() as u64,
            exist_since: None,
            gone_since: None,
            nothing_runs_since: None,
            next_probe: (u64::MAX, 0),
            tally: Tally::default(),
            config,
            scenario,
        }
    }

    /// Lets everything happen, and looks at every promise.
    pub(crate) async fn run(mut self) -> Result<Tally, String> {
        let end = self.scenario.quiet + self.last_wait();
        let first = Event::Arrive {
            more: self.scenario.burst,
        };
        self.agenda.plan(self.rng.u64(0..3_000), first);
        self.agenda.plan(self.scenario.meddling, Event::Meddle);
        let (cause, number) = (Cause::Tick, 0);
        self.agenda.plan(2_000, Event::Look { cause, number });
        self.crew.changed = true;
        self.after()?;
        while self.now < end {
            self.pass_time(end).await;
            self.tasks().await;
            while let Some(event) = self.agenda.pop(self.now) {
                self.happen(event)?;
                self.after()?;
                self.tasks().await;
            }
            self.after()?;
        }
        self.check_the_end()?;
        Ok(self.tally)
    }

    /// How long it takes, once the last request came, until nothing is left and idle replicas are gone.
    fn last_wait(&self) -> u64 {
        let scale = self.config.scale.as_ref();
        let idle = scale.and_then(|scale| scale.idle).unwrap_or_default();
        let stable = scale.map(|scale| scale.stable_window).unwrap_or_default();
        let slow = Duration::from_millis(self.scenario.work.end + self.scenario.start.end);
        let back_off = Duration::from_secs(180);
        let waits = Duration::from_millis(self.longest_wait);
        // One after the other, as many as may wait, on one slot.
        let line = slow * self.scenario.cluster.max_requests.min(40);
        (idle + 2 * stable + slow + back_off + 2 * waits + line).as_millis() as u64
    }

    /// Sleeps until something is due, or until the scaler's task says something.
    async fn pass_time(&mut self, end: u64) {
        let next = self.agenda.next_at().unwrap_or(end).min(end);
        let sleep = tokio::time::sleep_until(self.epoch + Duration::from_millis(next));
        match &self.brain {
            Brain::Step(_) => sleep.await,
            Brain::Task(brain) => tokio::select! {
                biased;
                () = brain.stage.rings.notified() => {}
                () = sleep => {}
            },
        }
        self.now = self.epoch.elapsed().as_millis() as u64;
    }

    /// Lets the scaler's task, if there is one, do what it can do now.
    async fn tasks(&mut self) {
        if matches!(self.brain, Brain::Task(_)) {
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn happen(&mut self, event: Event) -> Check {
        match event {
            Event::Arrive { more } => {
                self.plan_the_next(more);
                return self.arrive();
            }
            Event::Leave { client } => return self.leave(client),
            Event::Due { client, visit } => return self.due(client, visit),
            Event::Head { client, visit } => self.head(client, visit),
            Event::Done { client, visit } => return self.done(client, visit),
            Event::Look { cause, number } => self.look(cause, number),
            Event::Started { replica, failed } => self.started(replica, failed),
            Event::Crash { replica } => return self.crash(replica),
            Event::Gone { replica } => self.gone(replica),
            Event::Refuse { replica } => self.refuses(replica),
            Event::Drained { replica } => self.drained(replica),
            Event::Unblocked => {}
            Event::Probe { number } => {
                if number == self.next_probe.1 {
                    self.next_probe.0 = u64::MAX;
                    self.probe();
                }
            }
            Event::Meddle => self.meddle(),
            Event::Undrain { port } => {
                self.state.undrain(([127, 0, 0, 1], port).into());
            }
        }
        Ok(())
    }

    /// What follows from an event at once.
    fn after(&mut self) -> Check {
        for _ in 0..3 {
            self.settle()?;
            self.advance();
            self.think();
        }
        self.advance();
        self.settle()?;
        self.notice();
        self.plan_a_probe();
        self.check()
    }

    /// Whether anybody may serve, as seen from outside.
    pub(crate) fn notice(&mut self) {
        let set = self.state.endpoints();
        let exist = set.endpoints.iter().any(|endpoint| endpoint.may_serve());
        if !exist && self.exist_since.is_some() {
            self.gone_since = Some(self.now);
        }
        self.exist_since = exist.then(|| self.exist_since.unwrap_or(self.now));
    }

    fn plan_the_next(&mut self, more: usize) {
        let (gap, more) = match more {
            0 => {
                let pause = self.rng.u64(self.scenario.pause.clone());
                (pause, self.rng.usize(0..self.scenario.burst))
            }
            more => (self.rng.u64(0..=self.scenario.gap), more - 1),
        };
        let at = self.now + gap;
        if at < self.scenario.quiet {
            self.agenda.plan(at, Event::Arrive { more });
        }
    }

    fn plan_a_probe(&mut self) {
        let waits = !self.line.is_empty();
        if self.state.unready(waits).is_empty() {
            return;
        }
        let at = self.now + if waits { OFTEN } else { SELDOM };
        if at < self.next_probe.0 {
            let number = self.next_probe.1 + 1;
            self.next_probe = (at, number);
            self.agenda.plan(at, Event::Probe { number });
        }
    }

    /// An operator drains an endpoint or wants a number of replicas, or the file changes.
    fn meddle(&mut self) {
        if self.now >= self.scenario.quiet {
            self.pin(None);
            return;
        }
        self.tally.meddled += 1;
        let at = self.now + self.rng.u64(1..2 * self.scenario.meddling);
        self.agenda.plan(at.min(self.scenario.quiet), Event::Meddle);
        match self.rng.u8(0..6) {
            0..2 => self.reload(),
            2..4 => {
                let ready = self
                    .crew
                    .replicas
                    .values()
                    .filter(|r| r.life == Life::Ready);
                let ports: Vec<u16> = ready.map(|replica| replica.address.port()).collect();
                if let Some(&port) = self.rng.choice(&ports) {
                    self.state.drain(([127, 0, 0, 1], port).into());
                    let at = self.now + self.rng.u64(1..8_000);
                    self.agenda.plan(at, Event::Undrain { port });
                }
            }
            4 if self.scenario.seed.is_multiple_of(4) => {
                let replicas = self.rng.u32(0..6);
                self.pin(Some(replicas));
            }
            _ => self.pin(None),
        }
    }

    /// A new generation, with other bounds.
    fn reload(&mut self) {
        let keys = &mut self.scenario.cluster;
        keys.max_requests = self.rng.u32(1..80);
        keys.max_bytes = self.rng.u64(1..40) << 16;
        keys.concurrency = match self.rng.u8(0..4) {
            0 => keys.concurrency.xor(Some(2)),
            _ => keys.concurrency.map(|_| self.rng.u32(1..8)),
        };
        self.config = Arc::new(keys.load());
        debug_assert_eq!(
            self.config.concurrency.map(NonZeroU32::get),
            keys.concurrency
        );
        self.most_bytes = self.most_bytes.max(keys.max_bytes);
        self.state = Arc::new(self.state.next_generation());
        self.state.settle(&self.config);
        self.tell();
        self.follow();
    }
}
