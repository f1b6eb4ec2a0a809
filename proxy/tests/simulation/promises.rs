//! What is promised, looked at after every event. What is counted here is counted by the simulation itself, not asked
//! of the room.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use forebay::error::Reason;
use forebay::room::Seat as _;

use super::clients::{Phase, Wait};
use super::replicas::Life;
use super::world::World;

/// `Err`: what was broken.
pub(crate) type Check = Result<(), String>;

/// The longest somebody waits before something is started for it: a tick of the scaler, and what a process takes to
/// make room.
const TICK: u64 = 2_000 + 600;

impl World {
    pub(crate) fn broken(&self, what: &str) -> String {
        let Self {
            now, config, line, ..
        } = self;
        let status = &self.crew.status;
        format!(
            "seed {}: at {now} ms: {what}; {} wait, {status:?}, wanted {}, {:?}, {:?}",
            self.scenario.seed,
            line.len(),
            self.crew.wanted,
            config.queue,
            config.concurrency,
        )
    }

    /// Everything that holds whenever nothing is under way.
    pub(crate) fn check(&mut self) -> Check {
        self.nobody_is_lost()?;
        self.slots_are_exact()?;
        self.nobody_waits_in_vain()?;
        self.nobody_waits_too_long()?;
        self.replicas_are_within_bounds()?;
        self.whoever_waits_starts_something()
    }

    /// Each request is waiting, served, or over; and the room counts the same.
    fn nobody_is_lost(&self) -> Check {
        let there = self.clients.len() as u64;
        if self.tally.ended() + there != self.arrived {
            return Err(self.broken("a request was lost"));
        }
        let waiting = self
            .clients
            .values()
            .filter(|one| matches!(one.phase, Phase::Waits(_)));
        let waiting = waiting.count() as u32;
        let counted = self.state.room().demand().waiting;
        if counted != waiting || self.line.len() as u32 != waiting {
            return Err(self.broken(&format!("{waiting} wait and {counted} are counted")));
        }
        let held = self.state.room().bytes().held();
        if waiting == 0 && held > 0 {
            return Err(self.broken(&format!("{held} bytes are held for nobody")));
        }
        // What was taken before the bound was lowered may be more.
        if held > self.most_bytes {
            return Err(self.broken(&format!("{held} bytes are held")));
        }
        Ok(())
    }

    /// At no endpoint are more than it has slots, and the room counts the same.
    fn slots_are_exact(&mut self) -> Check {
        let mut here: BTreeMap<SocketAddr, u32> = BTreeMap::new();
        for one in self.clients.values() {
            if let Phase::Served(service) = &one.phase {
                *here.entry(service.flight.endpoint().address).or_default() += 1;
            }
        }
        let served: u32 = here.values().sum();
        let counted = self.state.room().demand().in_flight;
        if counted != served {
            return Err(self.broken(&format!(
                "{served} are served and {counted} slots are in use"
            )));
        }
        if let Some(limit) = self.config.concurrency {
            for (address, &now) in &here {
                let before = self.here.get(address).copied().unwrap_or(0);
                if now > limit.get().max(before) {
                    return Err(self.broken(&format!("{now} are served at {address}")));
                }
            }
        }
        self.here = here;
        Ok(())
    }

    /// While somebody waits no slot is free.
    fn nobody_waits_in_vain(&self) -> Check {
        if self.line.is_empty() {
            return Ok(());
        }
        for endpoint in &self.state.endpoints().endpoints {
            if !endpoint.may_serve() {
                continue;
            }
            let address = endpoint.address;
            let in_vain = match self.config.concurrency {
                Some(limit) => self.here.get(&address).copied().unwrap_or(0) < limit.get(),
                None => !self.clients.values().any(|one| match &one.phase {
                    Phase::Served(service) => {
                        service.flight.endpoint().address == address && !service.has_head
                    }
                    Phase::New | Phase::Waits(_) => false,
                }),
            };
            if in_vain {
                return Err(self.broken(&format!("somebody waits in vain for {address}")));
            }
        }
        Ok(())
    }

    /// While somebody may serve one clock counts, else the other one; who waits looks once a second which it is.
    fn nobody_waits_too_long(&self) -> Check {
        let Some((_, _, first)) = self.line.first() else {
            return Ok(());
        };
        let Some(Phase::Waits(wait)) = self.clients.get(first).map(|one| &one.phase) else {
            return Ok(());
        };
        let (saturated, empty) = self.clocks();
        let waited = self.now - wait.since;
        let is_late = match self.exist_since {
            Some(exist) => self.now - exist.max(wait.since) > saturated.max(1_000) + 2,
            // It may have been about to be served: that clock runs out first.
            None => {
                waited > empty + 2
                    && self
                        .gone_since
                        .is_none_or(|gone| self.now > gone + saturated + 2)
            }
        };
        if is_late || waited > saturated + empty + 2 {
            return Err(self.broken(&format!("one waits longer than it may: {waited} ms")));
        }
        Ok(())
    }

    /// `saturated` and `empty` in milliseconds.
    fn clocks(&self) -> (u64, u64) {
        let queue = self.config.queue.clone().unwrap_or_default();
        (
            queue.saturated.as_millis() as u64,
            queue.empty.as_millis() as u64,
        )
    }

    fn replicas_are_within_bounds(&self) -> Check {
        let Some(scale) = &self.config.scale else {
            return Ok(());
        };
        let there = self.crew.replicas.len() as u32;
        if there > scale.max {
            return Err(self.broken("more replicas than there may be"));
        }
        let desired = self.desired();
        let least = if self.pinned.is_some() { 0 } else { scale.min };
        let is_early = self.now == self.pinned_at; // the task has not looked yet
        if !is_early && !(least..=scale.max).contains(&desired) {
            return Err(self.broken(&format!("{desired} replicas are wanted")));
        }
        Ok(())
    }

    /// Somebody who waits while nothing runs leads to a start, unless starts have just failed.
    fn whoever_waits_starts_something(&mut self) -> Check {
        let runs = self.crew.count(Life::Starting) + self.crew.count(Life::Ready) > 0;
        let pauses = self.now < self.crew.blocked_until || self.backs_off();
        let may_wait = self.line.is_empty() || runs || pauses || self.pinned.is_some();
        if may_wait {
            self.nothing_runs_since = None;
            return Ok(());
        }
        let since = *self.nothing_runs_since.get_or_insert(self.now);
        if self.now - since > TICK {
            return Err(self.broken(&format!("nothing starts since {since} ms")));
        }
        Ok(())
    }

    /// One is told that it waited too long: it did.
    pub(crate) fn too_late(&self, wait: &Wait, reason: Reason) -> Check {
        let (saturated, empty) = self.clocks();
        let waited = self.now - wait.since;
        let rightly = match (reason, self.exist_since) {
            (Reason::QueueTimeout, Some(exist)) => {
                self.now - exist.max(wait.since) >= saturated || waited >= empty + saturated
            }
            (Reason::StartTimeout | Reason::NoEndpoint, None) => waited >= empty,
            _ => false,
        };
        match rightly {
            true => Ok(()),
            false => Err(self.broken(&format!("{reason:?} after {waited} ms"))),
        }
    }

    /// The reason of a refusal says what is the case.
    pub(crate) fn rightly(&self, reason: Reason) -> Check {
        let full = self.line.len() as u32 >= self.scenario.cluster.max_requests;
        let exist = self.exist_since.is_some();
        let rightly = match reason {
            Reason::QueueFull => exist && full,
            Reason::QueueTimeout => exist,
            Reason::StartFailed => self.crew.status.failed_in_a_row >= 3,
            Reason::StartTimeout => !exist,
            // Nobody was asked: an operator wants none, or the scaler has not looked yet.
            Reason::NoEndpoint => !exist && (self.pinned == Some(0) || full),
            _ => false,
        };
        match rightly {
            true => Ok(()),
            false => Err(self.broken(&format!("refused with {reason:?}"))),
        }
    }

    /// When everything is over nothing is left, and there are as many replicas as without any demand.
    pub(crate) fn check_the_end(&self) -> Check {
        if !self.clients.is_empty() {
            return Err(self.broken("somebody is still here"));
        }
        let demand = self.state.room().demand();
        let held = self.state.room().bytes().held();
        if (demand.in_flight, demand.waiting, held) != (0, 0, 0) {
            return Err(self.broken(&format!("{demand:?} and {held} bytes are left")));
        }
        if self.state.requests() != 0 || self.state.demanding() != 0 {
            return Err(self.broken("requests are still counted"));
        }
        let min = self.config.scale.as_ref().map_or(0, |scale| scale.min);
        let there = self.crew.replicas.len() as u32;
        if there != min || self.crew.count(Life::Ready) != min {
            return Err(self.broken(&format!("{there} replicas when nobody comes, not {min}")));
        }
        Ok(())
    }
}
