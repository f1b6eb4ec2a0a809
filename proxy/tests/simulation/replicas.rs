//! The driver and the servers: they start, fail to, serve, refuse, crash, drain and go. The rules are those of the
//! process driver.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use forebay::cluster::Candidate;
use forebay::scaler::Replicas;

use super::clients::Outcome;
use super::events::Event;
use super::promises::Check;
use super::scenario::Spoilt;
use super::world::World;

const FIRST_PORT: u16 = 9000;
/// Between two questions whether a replica that drains is idle.
const IDLE_LOOK: u64 = 25;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Starting,
    Ready,
    Draining,
    Stopping,
}

pub(crate) struct Replica {
    pub(crate) life: Life,
    pub(crate) address: SocketAddr,
    /// The server itself; the driver hears of its death later.
    is_alive: bool,
    refuses_until: u64,
    began: u64,
    ready: Option<u64>,
    /// Clients it serves.
    pub(crate) here: BTreeSet<u64>,
}

/// All replicas, and what the driver knows.
#[derive(Default)]
pub(crate) struct Crew {
    pub(crate) wanted: u32,
    pub(crate) status: Replicas,
    /// The status is another one.
    pub(crate) changed: bool,
    pub(crate) replicas: BTreeMap<u64, Replica>,
    pub(crate) blocked_until: u64,
    failures: u32,
    serving: Vec<SocketAddr>,
}

impl Crew {
    /// The replica that takes a connection at this address.
    pub(crate) fn taken_at(&self, address: SocketAddr, now: u64) -> Option<u64> {
        let takes = |replica: &Replica| {
            let listens = matches!(replica.life, Life::Ready | Life::Draining);
            listens
                && replica.address == address
                && replica.is_alive
                && now >= replica.refuses_until
        };
        let found = self.replicas.iter().find(|(_, replica)| takes(replica));
        found.map(|(&id, _)| id)
    }

    pub(crate) fn enter(&mut self, replica: u64, client: u64) {
        if let Some(replica) = self.replicas.get_mut(&replica) {
            replica.here.insert(client);
        }
    }

    pub(crate) fn exit(&mut self, replica: u64, client: u64) {
        if let Some(replica) = self.replicas.get_mut(&replica) {
            replica.here.remove(&client);
        }
    }

    pub(crate) fn count(&self, life: Life) -> u32 {
        self.replicas.values().filter(|r| r.life == life).count() as u32
    }

    fn of(&self, life: Life) -> Vec<u64> {
        let mut found: Vec<(bool, u64)> = self
            .replicas
            .iter()
            .filter(|(_, replica)| replica.life == life)
            .map(|(&id, replica)| (!replica.here.is_empty(), id))
            .collect();
        found.sort_by_key(|&(busy, id)| (busy, std::cmp::Reverse(id))); // the idle ones, newest first
        found.into_iter().map(|(_, id)| id).collect()
    }

    fn free_address(&self) -> SocketAddr {
        let taken: BTreeSet<u16> = self.replicas.values().map(|r| r.address.port()).collect();
        let port = (FIRST_PORT..).find(|port| !taken.contains(port));
        ([127, 0, 0, 1], port.unwrap_or(FIRST_PORT)).into()
    }
}

impl World {
    /// The driver goes one step towards what is wanted.
    pub(crate) fn advance(&mut self) {
        let max = self.config.scale.as_ref().map_or(0, |scale| scale.max);
        let wanted = match self.scenario.spoilt {
            Spoilt::NeverStarts => 0,
            Spoilt::StartsTooMany if self.crew.wanted > 0 => self.crew.wanted + max,
            _ => self.crew.wanted.min(max),
        };
        let (starting, ready) = (self.crew.of(Life::Starting), self.crew.of(Life::Ready));
        let there = (starting.len() + ready.len()) as u32;
        let surplus = there.saturating_sub(wanted) as usize;
        if surplus > 0 && self.scenario.spoilt != Spoilt::NeverStops {
            let cancelled = surplus.min(starting.len());
            starting[..cancelled].iter().for_each(|&id| self.stop(id));
            for &id in &ready[..surplus - cancelled] {
                self.set_life(id, Life::Draining);
                self.list();
                self.agenda
                    .plan(self.now + IDLE_LOOK, Event::Drained { replica: id });
            }
        }
        let mut missing = wanted.saturating_sub(there);
        for id in self
            .crew
            .of(Life::Draining)
            .into_iter()
            .take(missing as usize)
        {
            self.set_life(id, Life::Ready);
            missing -= 1;
        }
        self.list();
        let room = match self.scenario.spoilt {
            Spoilt::StartsTooMany => missing,
            _ => max.saturating_sub(self.crew.replicas.len() as u32),
        };
        let starts = missing.min(room);
        if starts > 0 && self.now < self.crew.blocked_until {
            self.agenda.plan(self.crew.blocked_until, Event::Unblocked);
        } else {
            (0..starts).for_each(|_| self.start());
        }
        self.publish();
    }

    fn set_life(&mut self, id: u64, life: Life) {
        if let Some(replica) = self.crew.replicas.get_mut(&id) {
            replica.life = life;
        }
    }

    fn start(&mut self) {
        self.crew.status.starts += 1;
        let replica = self.crew.status.starts;
        let calm = self.now >= self.scenario.quiet;
        let failed = !calm && self.rng.u32(0..100) < self.scenario.failing_starts;
        let took = self.rng.u64(self.scenario.start.clone());
        self.agenda
            .plan(self.now + took, Event::Started { replica, failed });
        let new = Replica {
            life: Life::Starting,
            address: self.crew.free_address(),
            is_alive: true,
            refuses_until: 0,
            began: self.now,
            ready: None,
            here: BTreeSet::new(),
        };
        self.crew.replicas.insert(replica, new);
    }

    /// Ends one that serves nobody.
    fn stop(&mut self, replica: u64) {
        self.set_life(replica, Life::Stopping);
        let took = self.rng.u64(0..500);
        self.agenda.plan(self.now + took, Event::Gone { replica });
    }

    pub(crate) fn started(&mut self, id: u64, failed: bool) {
        let Some(replica) = self.crew.replicas.get_mut(&id) else {
            return;
        };
        if replica.life != Life::Starting {
            return;
        }
        if failed {
            self.tally.failed_starts += 1;
            self.crew.replicas.remove(&id);
            self.crew.status.failed_in_a_row += 1;
            self.block(0);
            return;
        }
        self.tally.starts += 1;
        replica.life = Life::Ready;
        replica.ready = Some(self.now);
        self.crew.status.failed_in_a_row = 0;
        self.crew.status.last_start = Some(Duration::from_millis(self.now - replica.began));
        self.list();
        if self.now < self.scenario.quiet {
            if self.rng.u32(0..100) < self.scenario.crashing {
                let at = self.now + self.rng.u64(self.scenario.life.clone());
                self.agenda.plan(at, Event::Crash { replica: id });
            }
            if self.rng.u32(0..100) < self.scenario.refusing {
                let at = self.now + self.rng.u64(0..10_000);
                self.agenda.plan(at, Event::Refuse { replica: id });
            }
        }
    }

    /// The next start waits, the longer the more often something failed.
    fn block(&mut self, served: u64) {
        if served >= 60_000 {
            self.crew.failures = 0;
        }
        let pause = (1_000 << self.crew.failures.min(6)).min(60_000);
        self.crew.failures += 1;
        self.crew.blocked_until = self.now + pause;
    }

    /// A server dies in the middle of what it does.
    pub(crate) fn crash(&mut self, id: u64) -> Check {
        let Some(replica) = self.crew.replicas.get_mut(&id) else {
            return Ok(());
        };
        if !matches!(replica.life, Life::Ready | Life::Draining) {
            return Ok(());
        }
        self.tally.crashes += 1;
        replica.is_alive = false;
        let here = replica.here.clone();
        for client in here {
            self.end(client, Outcome::Cut)?;
        }
        let heard = self.now + self.rng.u64(0..100);
        self.agenda.plan(heard, Event::Gone { replica: id });
        Ok(())
    }

    /// The driver hears that a process is gone, asked or not.
    pub(crate) fn gone(&mut self, id: u64) {
        let Some(replica) = self.crew.replicas.get(&id) else {
            return;
        };
        let (asked, ready) = (replica.life == Life::Stopping, replica.ready);
        self.crew.replicas.remove(&id);
        if !asked {
            let served = ready.map_or(0, |ready| self.now - ready);
            self.block(served);
        }
        self.list();
    }

    pub(crate) fn refuses(&mut self, id: u64) {
        let until = self.now + self.rng.u64(0..4_000);
        if let Some(replica) = self.crew.replicas.get_mut(&id) {
            replica.refuses_until = until;
        }
    }

    /// Is it idle at last?
    pub(crate) fn drained(&mut self, id: u64) {
        let Some(replica) = self.crew.replicas.get(&id) else {
            return;
        };
        if replica.life != Life::Draining {
            return;
        }
        if self.state.in_flight_at(replica.address) == 0 {
            self.stop(id);
        } else {
            let again = Event::Drained { replica: id };
            self.agenda.plan(self.now + IDLE_LOOK, again);
        }
    }

    /// Tells the cluster who serves, if that changed.
    fn list(&mut self) {
        let serving: Vec<SocketAddr> = self
            .crew
            .replicas
            .values()
            .filter(|replica| replica.life == Life::Ready)
            .map(|replica| replica.address)
            .collect();
        if serving != self.crew.serving {
            let before = std::mem::replace(&mut self.crew.serving, serving);
            let fresh = |address: &&SocketAddr| !before.contains(address);
            for address in self.crew.serving.iter().filter(fresh) {
                self.state.begin_anew(*address);
            }
            self.tell();
        }
    }

    /// Tells this generation of the cluster who serves.
    pub(crate) fn tell(&self) {
        let candidate = |&address: &SocketAddr| Candidate {
            address,
            host: "127.0.0.1".into(),
            weight: 1,
        };
        let serving = self.crew.serving.iter().map(candidate);
        self.state.update(serving.collect(), &self.config.balance);
    }

    fn publish(&mut self) {
        let before = self.crew.status.clone();
        self.crew.status.starting = self.crew.count(Life::Starting);
        self.crew.status.ready = self.crew.count(Life::Ready);
        self.crew.status.stopping =
            self.crew.count(Life::Draining) + self.crew.count(Life::Stopping);
        self.crew.changed |= self.crew.status != before || self.status_before != before;
        self.status_before = self.crew.status.clone();
    }

    /// Endpoints that are down are tried, as the prober does.
    pub(crate) fn probe(&mut self) {
        let waits = !self.line.is_empty();
        for endpoint in self.state.unready(waits) {
            if self.crew.taken_at(endpoint.address, self.now).is_some() {
                self.state.mark_up(&endpoint);
            }
        }
    }
}
