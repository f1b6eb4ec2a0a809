//! A driver's side of the budget: its tenancy, and a claim for each replica.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::Terms;
use super::books::{Hold, Stage};
use super::broker::Broker;

/// What a driver is told; both name a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It makes room for others: no new work, and it goes when it is idle.
    Evict(u64),
    /// It need not.
    Keep(u64),
}

/// A cluster that shares the devices, until it is dropped and its claims are.
#[derive(Debug)]
pub struct Tenancy {
    pub(super) broker: Arc<Broker>,
    pub(super) id: u64,
}

impl Tenancy {
    /// Other terms hold from now on, for what has its place already too.
    pub fn set_terms(&self, terms: Terms) {
        self.broker.change(|books| {
            if let Some(tenant) = books.tenants.get_mut(&self.id) {
                tenant.terms = terms;
            }
        });
    }

    /// How many replicas there should be, of those that the scaler `wanted`: no more than `least` without a reason to
    /// load any.
    ///
    /// * `least`: those that have a place, and successors that are due
    pub fn target(&self, wanted: u32, least: u32) -> u32 {
        let mut books = self.broker.books();
        books.target(self.id, wanted, least, Instant::now())
    }

    /// Asks for a place for one replica.
    ///
    /// * `due`: it is to be there without any request, as far as there is room
    pub fn ask(&self, due: bool) -> Claim {
        let (to, answer) = oneshot::channel();
        let now = Instant::now();
        let mut claimed = 0;
        self.broker.change(|books| {
            claimed = books.number();
            let hold = Hold {
                tenant: self.id,
                since: now,
                stage: Stage::Wanted { due, why: None, to },
                stale: false,
            };
            books.holds.insert(claimed, hold);
        });
        Claim {
            broker: Arc::clone(&self.broker),
            id: claimed,
            asked: now,
            answer: Some(answer),
        }
    }

    /// One gets no new work and will be gone; or it is taken back.
    pub fn set_leaving(&self, claim: u64, leaving: bool) {
        self.broker.set_leaving(claim, leaving);
    }

    /// One runs what is no longer configured: it makes room for its successor.
    pub fn set_stale(&self, claim: u64, stale: bool) {
        self.broker.change(|books| {
            if let Some(hold) = books.holds.get_mut(&claim) {
                hold.stale = stale;
            }
        });
    }

    /// True while no device could hold one of its replicas, whoever is asked to go, and it has none.
    pub fn hopeless(&self) -> watch::Receiver<bool> {
        let books = self.broker.books();
        match books.tenants.get(&self.id) {
            Some(tenant) => tenant.hopeless.subscribe(),
            None => watch::channel(false).1,
        }
    }
}

impl Drop for Tenancy {
    fn drop(&mut self) {
        self.broker.change(|books| {
            if let Some(tenant) = books.tenants.get_mut(&self.id) {
                tenant.left = true;
            }
            books.forget(self.id);
        });
    }
}

/// A place that one replica waits for or has. It is free again when this is dropped.
#[derive(Debug)]
pub struct Claim {
    broker: Arc<Broker>,
    id: u64,
    asked: Instant,
    answer: Option<oneshot::Receiver<Option<u32>>>,
}

impl Claim {
    /// Its number, unique in the process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Waits for the place; how long it took is counted from when it was asked for. Returns the index of its device,
    /// `None` where there is no budget. To be called once.
    pub async fn placed(&mut self) -> (Option<u32>, Duration) {
        let device = match self.answer.take() {
            Some(answer) => answer.await.unwrap_or_default(),
            None => None,
        };
        (device, self.asked.elapsed())
    }

    /// It can serve.
    ///
    /// * `took`: to load it, once it had its place
    pub fn ready(&self, address: SocketAddr, took: Duration) {
        self.broker.change(|books| {
            let Some(hold) = books.holds.get_mut(&self.id) else {
                return;
            };
            if let Stage::Placed(placed) = &mut hold.stage {
                placed.ready = Some(Instant::now());
                placed.address = Some(address);
            }
            if let Some(tenant) = books.tenants.get_mut(&hold.tenant) {
                tenant.starts.learn(took);
                tenant.was_ready = true;
            }
        });
    }

    /// It serves no more and will be gone.
    pub fn leaves(&self) {
        self.broker.set_leaving(self.id, true);
    }

    /// Nothing of it is left: gives the place back once the memory of the device is free, as far as that can be seen,
    /// after 5 s at the latest.
    pub async fn give_back(self) {
        self.broker.really_free(self.id).await;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.broker.change(|books| books.remove(self.id));
    }
}
