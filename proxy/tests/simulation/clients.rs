//! The clients: they come, wait, are served, are refused, or leave.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use forebay::capture::Budget;
use forebay::cluster::{Choice, Endpoint, InFlight, clocks};
use forebay::error::Reason;
use forebay::room::{Clocks, Due, Slot, Waiting};
use forebay_config as config;
use tokio::time::Instant;

use super::events::Event;
use super::promises::Check;
use super::scenario::Spoilt;
use super::world::World;

/// After so many endpoints that took no connection a request is given up, as the gateway does.
const MOST_TRIES: u32 = 50;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    Served,
    /// Its client left while it waited.
    LeftWaiting,
    /// Its client left while it was served.
    LeftServed,
    Refused(Reason),
    /// Its server died.
    Cut,
}

/// One request.
pub(crate) struct Client {
    pub(crate) phase: Phase,
    /// How often it joined the line or a server.
    visit: u32,
    tries: u32,
    /// Its place among all that ever came; `None`: it has neither waited nor been served.
    order: Option<u64>,
    /// When it began to wait, milliseconds.
    since: Option<u64>,
    bytes: u64,
    work: u64,
}

/// Where it is.
pub(crate) enum Phase {
    /// Nowhere yet.
    New,
    Waits(Box<Wait>),
    Served(Service),
}

/// In the line.
pub(crate) struct Wait {
    waiting: Waiting<Arc<Endpoint>>,
    bell: Arc<Bell>,
    clocks: Clocks,
    _held: Held,
    /// The tick before it joined.
    pub(crate) joined: u64,
    pub(crate) order: u64,
    /// Milliseconds.
    pub(crate) since: u64,
}

/// At a server.
pub(crate) struct Service {
    pub(crate) flight: InFlight,
    pub(crate) replica: u64,
    pub(crate) has_head: bool,
}

/// Bytes of a body that waits.
struct Held {
    budget: Arc<Budget>,
    bytes: u64,
    is_lost: bool,
}

impl Held {
    /// As much as the room has place for; else the client is not read from.
    fn take(budget: &Arc<Budget>, bytes: u64, is_lost: bool) -> Self {
        Self {
            budget: Arc::clone(budget),
            bytes: if budget.take(bytes) { bytes } else { 0 },
            is_lost,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.is_lost {
            self.budget.give_back(self.bytes);
        }
    }
}

/// Notes who is woken, and when.
pub(crate) struct Bell {
    client: u64,
    ticks: Arc<AtomicU64>,
    rung: AtomicU64,
    woken: Arc<Mutex<Vec<u64>>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let now = self.ticks.fetch_add(1, Ordering::Relaxed) + 1;
        self.rung.store(now, Ordering::Relaxed);
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        woken.push(self.client);
    }
}

/// One that was given a slot.
struct Granted {
    client: u64,
    order: u64,
    /// The tick at which it was.
    at: u64,
    slot: Slot<Arc<Endpoint>>,
}

fn due_in_millis(epoch: Instant, at: Instant) -> u64 {
    let since = at.saturating_duration_since(epoch);
    u64::try_from(since.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}

/// What a request without any key asks for.
fn choice(config: &config::Cluster, roll: u32) -> Choice<'_> {
    Choice {
        cluster: config,
        key: None,
        roll,
        tried: &[],
        free: None,
    }
}

impl World {
    /// A request comes to the gateway.
    pub(crate) fn arrive(&mut self) -> Check {
        self.arrived += 1;
        let client = self.arrived;
        let leaves = self.rng.u32(0..100) < self.scenario.leaving;
        if leaves {
            let at = self.now + self.rng.u64(0..5_000);
            self.agenda.plan(at, Event::Leave { client });
        }
        let new = Client {
            phase: Phase::New,
            visit: 0,
            tries: 0,
            order: None,
            since: None,
            bytes: self.rng.u64(0..200_000),
            work: self.rng.u64(self.scenario.work.clone()),
        };
        self.clients.insert(client, new);
        let config = Arc::clone(&self.config);
        let choice = choice(&config, self.rng.u32(..));
        let somebody_waits = !self.line.is_empty();
        if let Some((slot, _)) = self.state.take_slot(&choice) {
            self.state.arrived();
            if somebody_waits {
                return Err(self.broken("one that has just come was overtaking those who wait"));
            }
            return self.serve(client, slot);
        }
        self.state.arrived();
        let exist = self.state.room().replicas().exist();
        if !exist && self.state.outlook().start_failed {
            return self.refuse(client, Reason::StartFailed);
        }
        let joined = self.tick();
        let waiting = match self.first_ticket {
            Some(ticket) if self.scenario.spoilt == Spoilt::Overtakes => {
                Ok(self.state.wait_again(ticket, &choice))
            }
            _ => self.state.wait(&choice),
        };
        match waiting {
            Ok(waiting) => self.stand(client, waiting, joined),
            Err(_) => {
                let reason = if exist {
                    Reason::QueueFull
                } else {
                    self.nothing_came()
                };
                self.refuse(client, reason)
            }
        }
    }

    fn nothing_came(&self) -> Reason {
        match self.state.outlook().asked {
            true => Reason::StartTimeout,
            false => Reason::NoEndpoint,
        }
    }

    fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A client stands in the line.
    fn stand(&mut self, client: u64, waiting: Waiting<Arc<Endpoint>>, joined: u64) -> Check {
        let bell = Arc::new(Bell {
            client,
            ticks: Arc::clone(&self.ticks),
            rung: AtomicU64::new(0),
            woken: Arc::clone(&self.woken),
        });
        let spoilt = self.scenario.spoilt;
        let budget = Arc::clone(self.state.room().bytes());
        let Some(one) = self.clients.get_mut(&client) else {
            return Err("who stands there has not come".to_owned());
        };
        one.visit += 1;
        let lost = spoilt == Spoilt::LosesBytes && client.is_multiple_of(7);
        let order = *one.order.get_or_insert_with(|| {
            self.joined += 1;
            self.joined
        });
        let wait = Wait {
            clocks: clocks(&self.config),
            _held: Held::take(&budget, one.bytes, lost),
            joined,
            order,
            since: *one.since.get_or_insert(self.now),
            waiting,
            bell: Arc::clone(&bell),
        };
        self.line.insert((order, joined, client));
        one.phase = Phase::Waits(Box::new(wait));
        let visit = one.visit;
        self.due(client, visit)?;
        Arc::clone(&bell).wake(); // it is looked at once
        Ok(())
    }

    /// A clock of one that waits rings.
    pub(crate) fn due(&mut self, client: u64, visit: u32) -> Check {
        self.notice();
        let Some(one) = self.clients.get(&client) else {
            return Ok(());
        };
        let Phase::Waits(wait) = &one.phase else {
            return Ok(());
        };
        if one.visit != visit || self.scenario.spoilt == Spoilt::ForgetsClocks {
            return Ok(());
        }
        let replicas = self.state.room().replicas();
        let due = wait
            .clocks
            .due(wait.waiting.since(), Instant::now(), replicas);
        let reason = match due {
            Due::Wait(until) => {
                let at = due_in_millis(self.epoch, until).max(self.now);
                self.agenda.plan(at, Event::Due { client, visit });
                return Ok(());
            }
            Due::Saturated => Reason::QueueTimeout,
            Due::Empty => self.nothing_came(),
        };
        self.too_late(wait, reason)?;
        self.refuse(client, reason)
    }

    /// Looks at those who were woken, until nobody is.
    pub(crate) fn settle(&mut self) -> Check {
        loop {
            let woken =
                std::mem::take(&mut *self.woken.lock().unwrap_or_else(PoisonError::into_inner));
            if woken.is_empty() {
                return Ok(());
            }
            let mut granted = Vec::new();
            for client in woken {
                self.wake(client, &mut granted)?;
            }
            for one in &granted {
                let mut before = self
                    .line
                    .iter()
                    .take_while(|(order, ..)| *order < one.order);
                if let Some(other) = before.find(|(_, joined, _)| *joined < one.at) {
                    let what =
                        format!("{other:?} was overtaken by {} of {}", one.client, one.order);
                    return Err(self.broken(&what));
                }
            }
            for one in granted {
                self.serve(one.client, one.slot)?;
            }
        }
    }

    fn wake(&mut self, client: u64, granted: &mut Vec<Granted>) -> Check {
        let leaves = self.scenario.leaving > 0 && self.rng.u8(0..64) == 0;
        let Some(one) = self.clients.get_mut(&client) else {
            return Ok(()); // it was woken and left
        };
        let Phase::Waits(wait) = &mut one.phase else {
            return Ok(());
        };
        if leaves {
            return self.leave(client); // with a slot in its hand, perhaps
        }
        let waker = Waker::from(Arc::clone(&wait.bell));
        let fate = std::pin::Pin::new(&mut wait.waiting).poll(&mut Context::from_waker(&waker));
        let Poll::Ready(fate) = fate else {
            return Ok(());
        };
        let (order, joined, at) = (
            wait.order,
            wait.joined,
            wait.bell.rung.load(Ordering::Relaxed),
        );
        self.line.remove(&(order, joined, client));
        one.phase = Phase::New;
        match fate {
            Ok(slot) => {
                granted.push(Granted {
                    client,
                    order,
                    at,
                    slot,
                });
                Ok(())
            }
            Err(reason) => {
                if reason != Reason::StartFailed || self.crew.status.failed_in_a_row < 3 {
                    return Err(self.broken(&format!("told {reason:?} for no reason")));
                }
                self.refuse(client, reason)
            }
        }
    }

    /// A request with a slot goes to its server, which may not be there.
    fn serve(&mut self, client: u64, slot: Slot<Arc<Endpoint>>) -> Check {
        let ticket = slot.ticket();
        let endpoint = Arc::clone(slot.seat());
        let flight = InFlight::begin(Arc::clone(&endpoint), Some(slot));
        let Some(one) = self.clients.get_mut(&client) else {
            return Err("who is served has not come".to_owned());
        };
        one.visit += 1;
        one.order.get_or_insert(self.joined); // behind all that have waited, before all that will
        self.first_ticket.get_or_insert(ticket);
        if let Some(replica) = self.crew.taken_at(endpoint.address, self.now) {
            let visit = one.visit;
            let head = self.now + self.rng.u64(0..=one.work);
            let done = self.now + one.work;
            one.phase = Phase::Served(Service {
                flight,
                replica,
                has_head: false,
            });
            self.agenda.plan(head, Event::Head { client, visit });
            self.agenda
                .plan(done.max(head), Event::Done { client, visit });
            self.crew.enter(replica, client);
            return Ok(());
        }
        // Nothing takes a connection: it goes back to where it stood.
        self.tally.returned += 1;
        one.tries += 1;
        drop(flight);
        if one.tries >= MOST_TRIES {
            return self.end(client, Outcome::Refused(Reason::ConnectFailed));
        }
        self.state.mark_down(&endpoint);
        let config = Arc::clone(&self.config);
        let choice = choice(&config, self.rng.u32(..));
        let joined = self.tick();
        let waiting = self.state.wait_again(ticket, &choice);
        self.stand(client, waiting, joined)
    }

    pub(crate) fn head(&mut self, client: u64, visit: u32) {
        if let Some(Client {
            phase: Phase::Served(service),
            visit: now,
            ..
        }) = self.clients.get_mut(&client)
            && *now == visit
        {
            service.has_head = true;
            service.flight.head_came();
        }
    }

    pub(crate) fn done(&mut self, client: u64, visit: u32) -> Check {
        let is_there = self
            .clients
            .get(&client)
            .is_some_and(|one| one.visit == visit);
        match is_there {
            true => self.end(client, Outcome::Served),
            false => Ok(()),
        }
    }

    pub(crate) fn leave(&mut self, client: u64) -> Check {
        match self.clients.get(&client).map(|one| &one.phase) {
            Some(Phase::Served(_)) => self.end(client, Outcome::LeftServed),
            Some(_) => self.end(client, Outcome::LeftWaiting),
            None => Ok(()),
        }
    }

    pub(crate) fn refuse(&mut self, client: u64, reason: Reason) -> Check {
        self.notice();
        self.rightly(reason)?;
        self.end(client, Outcome::Refused(reason))
    }

    /// A request is over, whatever phase it is in.
    pub(crate) fn end(&mut self, client: u64, outcome: Outcome) -> Check {
        let Some(one) = self.clients.remove(&client) else {
            return Err(self.broken(&format!("request {client} ends twice")));
        };
        match one.phase {
            Phase::New => {}
            Phase::Waits(wait) => {
                self.line.remove(&(wait.order, wait.joined, client));
            }
            Phase::Served(service) => {
                self.crew.exit(service.replica, client);
                if self.scenario.spoilt == Spoilt::LosesSlots && client.is_multiple_of(11) {
                    std::mem::forget(service.flight);
                }
            }
        }
        self.tally.count(client, outcome, self.now);
        Ok(())
    }
}
