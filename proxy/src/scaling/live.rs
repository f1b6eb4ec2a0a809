//! A cluster as its drivers and the budget of devices see it, whatever generation is live.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::cluster::{Candidate, ClusterState};
use crate::driver::{Endpoints, Readiness};
use crate::gpu::Sight;
use crate::health;
use crate::scaler::{Demand, Inside};
use crate::signals::Board;
use crate::snapshot::{ClusterView, Snapshot};

/// A cluster of the newest generation, as drivers see it.
pub(super) struct Live {
    pub(super) view: ArcSwap<ClusterView>,
    /// Who serves, by the driver's last word; held while a generation is told of it.
    serving: Mutex<Vec<SocketAddr>>,
    came: Arc<Notify>,
    /// What its servers tell of themselves.
    signals: Arc<Board>,
}

impl Live {
    pub(super) fn new(view: &Arc<ClusterView>, signals: Arc<Board>) -> Arc<Self> {
        Arc::new(Self {
            view: ArcSwap::new(Arc::clone(view)),
            serving: Mutex::default(),
            came: Arc::clone(view.state.room().came()),
            signals,
        })
    }

    pub(super) fn state(&self) -> Arc<ClusterState> {
        Arc::clone(&self.view.load().state)
    }

    /// Drivers see the next generation from now on. What a driver said while that was built is said to it too.
    pub(super) fn renew(&self, view: &Arc<ClusterView>) {
        let serving = self.serving();
        self.view.store(Arc::clone(view));
        if Snapshot::is_driven(view) {
            self.tell(&serving);
        }
    }

    fn serving(&self) -> MutexGuard<'_, Vec<SocketAddr>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, addresses: &[SocketAddr]) {
        let view = self.view.load();
        let candidates = addresses.iter().map(|&address| Candidate {
            address,
            host: address.ip().to_string().into(),
            weight: 1,
        });
        view.state
            .update(candidates.collect(), &view.config.balance);
    }

    pub(super) fn ready(&self) -> u32 {
        let state = self.state();
        let endpoints = state.endpoints();
        let ready = endpoints.endpoints.iter().filter(|e| e.is_healthy());
        u32::try_from(ready.count()).unwrap_or(u32::MAX)
    }
}

impl Endpoints for Live {
    fn serve(&self, addresses: &[SocketAddr]) {
        let mut serving = self.serving();
        let before = std::mem::replace(&mut *serving, addresses.to_vec());
        for address in addresses.iter().filter(|address| !before.contains(address)) {
            self.state().begin_anew(*address);
        }
        self.tell(&serving);
    }

    fn in_flight(&self, address: SocketAddr) -> u64 {
        self.state().in_flight_at(address).into()
    }
}

impl Readiness for Live {
    fn probe(&self, address: SocketAddr) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        let view = self.view.load_full();
        Box::pin(async move { health::is_ready(&(&view).into(), address).await })
    }
}

impl Demand for Live {
    fn in_flight(&self) -> u32 {
        self.state().demanding()
    }

    fn waiting(&self) -> u32 {
        self.state().demanding_waiters()
    }

    fn arrivals(&self) -> u64 {
        self.state().arrivals()
    }

    fn inside(&self) -> Inside {
        self.signals.inside()
    }

    fn wake(&self) -> &Notify {
        &self.came
    }
}

impl Sight for Live {
    fn waiting(&self) -> u32 {
        self.state().demanding_waiters()
    }

    fn oldest_wait(&self) -> Option<Duration> {
        self.state().oldest_wait()
    }

    fn arrivals(&self) -> u64 {
        self.state().arrivals()
    }

    fn in_flight(&self, address: SocketAddr) -> u64 {
        Endpoints::in_flight(self, address)
    }
}
