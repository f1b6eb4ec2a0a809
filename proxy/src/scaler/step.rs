//! How many replicas there should be: a pure function of what was, what is and what time it is.
//!
//! The rules are those of Knative's KPA, over demand = in flight + waiting: the average of the stable window divided
//! by the target, rounded up; when the panic window asks for a multiple of what there is, the larger of the two, and
//! no less while that lasts. What differs: replicas that start are capacity, so that one burst makes one wave; the
//! last replica stays for `idle` after the last request, however short that was; and a rise of the stable window is
//! followed as far ahead as a start takes.

#[cfg(test)]
mod tests;

use std::num::NonZeroU32;
use std::time::Duration;

use forebay_config::Scale;

use super::failures::Failures;
use super::inside::{Inside, Record};
use super::starts::Starts;
use super::trend::forecast;
use super::window::Window;

/// How often a step is due.
pub const TICK: Duration = Duration::from_secs(2);
/// Ticks come this much early or late.
const SLACK: Duration = Duration::from_millis(100);
/// After a burst woke a cluster, the next step comes so soon: by then the burst is known.
const SECOND_LOOK: Duration = Duration::from_millis(200);
/// Windows are not longer than this.
const LONGEST_WINDOW: Duration = Duration::from_secs(3600);
/// A quotient this little above a whole number is that number: sums of products are not exact.
const ROUNDING: f64 = 1e-6;

/// `scale:` as the step needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    min: u32,
    max: u32,
    pub(super) in_flight: Option<f64>,
    pub(super) rate: Option<f64>,
    pub(super) queue: Option<f64>,
    pub(super) kv_cache: Option<f64>,
    pub(super) concurrency: Option<f64>,
    pub(super) stable: Duration,
    burst: Duration,
    panic_threshold: f64,
    max_down_rate: f64,
    idle: Option<Duration>,
    preload: bool,
}

impl Policy {
    /// Reads the configuration of a cluster.
    ///
    /// * `concurrency`: of the cluster; what a replica is meant to carry when no target is written
    pub fn new(scale: &Scale, concurrency: Option<NonZeroU32>) -> Self {
        let rate = scale.target.rate.map(|rate| rate.per_second());
        let concurrency = concurrency.map(|most| f64::from(most.get()));
        let (queue, kv_cache) = (scale.target.queue, scale.target.kv_cache);
        let none = rate.is_none() && queue.is_none() && kv_cache.is_none();
        let each = none.then_some(concurrency.unwrap_or(1.0));
        let in_flight = scale.target.in_flight.or(each);
        Self {
            min: scale.min,
            max: scale.max.max(scale.min),
            in_flight,
            rate,
            queue,
            kv_cache,
            concurrency,
            stable: scale.stable_window.min(LONGEST_WINDOW),
            burst: scale.panic_window.min(LONGEST_WINDOW),
            panic_threshold: scale.panic_threshold,
            max_down_rate: scale.max_down_rate,
            idle: scale.idle,
            preload: scale.preload,
        }
    }

    /// True when replicas follow what servers tell of themselves.
    pub(super) fn has_signals(&self) -> bool {
        self.queue.is_some() || self.kv_cache.is_some()
    }

    fn seconds(&self) -> usize {
        usize::try_from(self.stable.max(self.burst).as_secs() + 1).unwrap_or(1)
    }
}

/// What is seen of a cluster at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Requests at endpoints; streams until they are closed.
    pub in_flight: u32,
    /// Requests in the waiting room.
    pub waiting: u32,
    /// Requests so far; never falls.
    pub arrivals: u64,
    /// Replicas that can serve.
    pub ready: u32,
    /// Replicas that cannot yet.
    pub starting: u32,
    /// Failed starts since the last one that was none.
    pub failed_in_a_row: u32,
    /// How long the last successful start took.
    pub last_start: Option<Duration>,
    /// Somebody began to wait where nobody did.
    pub wake: bool,
    /// What the servers tell of themselves.
    pub inside: Inside,
}

impl Sample {
    fn demand(&self) -> u32 {
        self.in_flight.saturating_add(self.waiting)
    }
}

/// What should be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Decision {
    /// Replicas wanted: `min` … `max`, or fewer when an operator says so.
    pub desired: u32,
    /// What the driver is told: `desired`, or what there is while failed starts are not tried again.
    pub order: u32,
    /// A burst is on: nothing shrinks.
    pub panic: bool,
    /// Three starts in a row failed and none is tried yet: nobody needs to wait.
    pub start_failed: bool,
    /// Demand averaged over the stable window.
    pub demand: f64,
    /// Requests per second, averaged over the stable window.
    pub rate: f64,
    /// When the next step is worth it, if that is not the next tick.
    pub again: Option<Duration>,
}

/// A burst that is being ridden out.
#[derive(Clone, Copy, Debug)]
struct Panic {
    /// When it was last above the threshold.
    over: Duration,
    /// Most replicas wanted since it began.
    most: u32,
}

/// What the scaler remembers of a cluster.
#[derive(Clone, Debug)]
pub struct State {
    /// In flight and waiting.
    demand: Window,
    /// In flight only.
    served: Window,
    /// Requests per second.
    rate: Window,
    /// What servers told.
    inside: Record,
    last: Option<(Duration, Sample)>,
    /// When there last was any.
    wanted: Option<Duration>,
    panic: Option<Panic>,
    desired: u32,
    grown: Option<Duration>,
    shrunk: Option<Duration>,
    failures: Failures,
    starts: Starts,
    pinned: Option<u32>,
}

impl State {
    /// Nothing was seen before `now`, which counts from any one moment.
    pub fn new(now: Duration) -> Self {
        let window = Window::new(1, now); // as long as the policy wants it with the first sample
        Self {
            demand: window.clone(),
            served: window.clone(),
            rate: window,
            inside: Record::new(now),
            last: None,
            wanted: None,
            panic: None,
            desired: 0,
            grown: None,
            shrunk: None,
            failures: Failures::default(),
            starts: Starts::default(),
            pinned: None,
        }
    }

    /// Wants this many replicas, at most `max`, from the next step on, whatever the demand; `None`: by demand again.
    pub fn pin(&mut self, replicas: Option<u32>) {
        self.pinned = replicas;
    }

    /// Forgets that there was demand: others need more what nobody uses.
    pub fn give_up(&mut self) {
        self.wanted = None;
    }

    /// Forgets failed starts: what failed is not what would be started now.
    pub fn forgive(&mut self) {
        self.failures.forgive();
    }

    /// What [`pin`](Self::pin) said.
    pub fn pinned(&self) -> Option<u32> {
        self.pinned
    }

    /// The starts that were seen.
    pub fn starts(&self) -> &Starts {
        &self.starts
    }

    /// How long there has been no demand; `None`: there never was any.
    pub fn idle_for(&self, now: Duration) -> Option<Duration> {
        self.wanted.map(|wanted| now.saturating_sub(wanted))
    }

    /// When starts are tried again after one failed; `None`: at once.
    pub fn backing_off(&self, now: Duration) -> Option<Duration> {
        self.failures.over(now)
    }

    /// Takes in a sample without deciding anything. Averages are the better the more often.
    pub fn observe(&mut self, policy: &Policy, sample: &Sample, now: Duration) {
        let (then, before) = match self.last {
            Some(last) => last,
            None => self.begin(policy, sample, now),
        };
        let now = now.max(then);
        for window in [&mut self.demand, &mut self.served, &mut self.rate] {
            window.keep(policy.seconds());
        }
        // Between two samples there was what the first one saw; requests that came and went count as arrivals.
        self.demand.hold(f64::from(before.demand()), now);
        self.served.hold(f64::from(before.in_flight), now);
        self.inside.observe(&before, policy.seconds(), now);
        let arrived = sample.arrivals.saturating_sub(before.arrivals);
        let elapsed = (now - then).as_secs_f64();
        if elapsed > 0.0 {
            self.rate.hold(arrived as f64 / elapsed, now);
        }
        if sample.demand() > 0 || arrived > 0 || (before.demand() > 0 && now > then) {
            self.wanted = Some(now);
        }
        if let Some(took) = sample.last_start
            && before.last_start != sample.last_start
        {
            self.starts.learn(took);
        }
        self.failures.observe(sample, now);
        let served = self.served.average(policy.stable);
        self.inside.learn(policy, sample, served);
        // Arrivals that took no time are counted with the next sample.
        let arrivals = match elapsed > 0.0 {
            true => sample.arrivals,
            false => before.arrivals,
        };
        self.last = Some((
            now,
            Sample {
                arrivals,
                ..*sample
            },
        ));
    }

    /// The first sample: what there was before is not known, so nothing that runs is taken for idle.
    fn begin(&mut self, policy: &Policy, sample: &Sample, now: Duration) -> (Duration, Sample) {
        let running = sample.ready.saturating_add(sample.starting);
        if policy.preload || running > 0 {
            self.wanted = Some(now);
        }
        if running > 1 {
            self.panic = Some(Panic {
                over: now,
                most: running.min(policy.max),
            });
        }
        let before = Sample {
            arrivals: sample.arrivals,
            ..Sample::default()
        };
        (now, before)
    }

    /// True while the last replica is held.
    fn is_wanted(&self, policy: &Policy, now: Duration) -> bool {
        let demand = self.last.is_some_and(|(_, sample)| sample.demand() > 0);
        let recent = |wanted| policy.idle.is_none_or(|idle| now - wanted < idle);
        demand || self.wanted.is_some_and(recent)
    }
}

/// Decides how many replicas there should be.
///
/// * `now`: from the same moment as in all calls; not before the last one
pub fn step(policy: &Policy, state: &mut State, sample: &Sample, now: Duration) -> Decision {
    state.observe(policy, sample, now);
    let now = state.last.map_or(now, |(last, _)| last);
    let wanted = state.is_wanted(policy, now);
    let running = sample.ready.saturating_add(sample.starting);
    let desired = match wanted {
        true => by_demand(policy, state, sample, now).max(1),
        false => {
            state.panic = None;
            policy.min
        }
    };
    let mut desired = desired.clamp(policy.min, policy.max);
    if state.failures.are_resting() {
        desired = desired.min(running.clamp(policy.min, policy.max));
    }
    if let Some(pinned) = state.pinned {
        desired = pinned.min(policy.max);
    }
    if desired > state.desired {
        state.grown = Some(now);
    } else if desired < state.desired {
        state.shrunk = Some(now);
    }
    state.desired = desired;
    let order = match state.failures.is_backing_off(now) {
        true => desired.min(running),
        false => desired,
    };
    let idle_at = state
        .wanted
        .zip(policy.idle)
        .map(|(wanted, idle)| wanted + idle)
        .filter(|&at| wanted && desired > policy.min && at > now);
    let look = sample.wake.then_some(now + SECOND_LOOK);
    Decision {
        desired,
        order,
        panic: state.panic.is_some(),
        start_failed: sample.ready == 0 && state.failures.are_hopeless(now),
        demand: state.demand.average(policy.stable),
        rate: state.rate.average(policy.stable),
        again: [look, idle_at, state.failures.over(now)]
            .into_iter()
            .flatten()
            .min(),
    }
}

/// KPA's rules, without bounds.
fn by_demand(policy: &Policy, state: &mut State, sample: &Sample, now: Duration) -> u32 {
    // The driver may not have come to what it was told a moment ago.
    let ordered = match state.grown {
        Some(grown) if now - grown < TICK => state.desired,
        _ => 0,
    };
    let running = sample.ready.saturating_add(sample.starting);
    let capacity = running.max(ordered);
    let base = f64::from(capacity.max(1));
    let starting = capacity > sample.ready;
    let low = (base / policy.max_down_rate).floor() as u32;

    let held_up = |need: Need| {
        let waits_for_starts = starting && f64::from(need.all) < policy.panic_threshold * base;
        match waits_for_starts {
            true => need.all.min(capacity.max(need.served)),
            false => need.all,
        }
    };
    let stable = held_up(Need::over(policy.stable, policy, state, sample).and_ahead(policy, state));
    let burst = held_up(Need::over(policy.burst, policy, state, sample));
    let stable = stable.max(low);

    if f64::from(burst) / base >= policy.panic_threshold {
        let most = state.panic.map_or(state.desired, |panic| panic.most);
        state.panic = Some(Panic { over: now, most });
    } else if let Some(panic) = state.panic
        && now - panic.over > policy.stable
    {
        state.panic = None;
    }
    if let Some(panic) = &mut state.panic {
        panic.most = panic.most.max(stable).max(burst).min(policy.max);
        return panic.most;
    }
    // Once in a tick: a step may also come because of a wake or a change of the replicas.
    let again_soon = state
        .shrunk
        .is_some_and(|shrunk| now - shrunk < TICK - SLACK);
    if stable < state.desired && again_soon {
        return state.desired;
    }
    stable
}

/// Replicas by the targets.
#[derive(Clone, Copy, Debug)]
struct Need {
    /// For all demand.
    all: u32,
    /// Without what waits: a queue that grows while replicas start says nothing of how many more are needed.
    served: u32,
}

impl Need {
    fn over(window: Duration, policy: &Policy, state: &State, sample: &Sample) -> Self {
        let young = state.demand.is_young();
        let average = |of: &Window, value: u32| match young {
            true => of.average(window).max(f64::from(value)),
            false => of.average(window),
        };
        let rate = policy
            .rate
            .map_or(0, |target| replicas(state.rate.average(window), target));
        let target = policy.in_flight.or(state.inside.instead(policy, sample));
        let by = |demand: f64| {
            let in_flight = target.map_or(0, |target| replicas(demand, target));
            in_flight.max(rate)
        };
        let asked = state.inside.asked(window, policy, sample);
        Self {
            all: by(average(&state.demand, sample.demand())).max(asked.all),
            served: by(average(&state.served, sample.in_flight)).max(asked.served),
        }
    }

    /// And for what will be when a replica that is started now is ready.
    fn and_ahead(self, policy: &Policy, state: &State) -> Self {
        let Some(start) = state.starts.p95() else {
            return self;
        };
        let ahead = |of: &Window, target: Option<f64>| {
            let values = of.whole_seconds(policy.stable);
            // Less than half a window is no trend.
            let long = values.len() as f64 * 2.0 >= policy.stable.as_secs_f64();
            let (target, true) = (target?, long) else {
                return None;
            };
            Some(replicas(forecast(&values, start.as_secs_f64())?, target))
        };
        let most = ahead(&state.served, policy.in_flight).max(ahead(&state.rate, policy.rate));
        let most = most.unwrap_or(0);
        Self {
            all: self.all.max(most),
            served: self.served.max(most),
        }
    }
}

/// `demand ÷ target`, rounded up; saturating.
pub(super) fn replicas(demand: f64, target: f64) -> u32 {
    (demand / target - ROUNDING).ceil().max(0.0) as u32
}
