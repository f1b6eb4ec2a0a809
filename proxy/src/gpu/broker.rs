//! The budget at run time: one task that settles who gets what, and the driver of the devices.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use forebay_config::Gpu;
use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::books::{Books, Budget, Stage};
use super::tenant::Tenant;
use super::{Notice, Sight, Tenancy, Terms, report};

/// How often it is looked who can get a place while somebody wants one: nobody tells when the others become idle.
const LOOK: Duration = Duration::from_millis(25);
/// And else, to know recent demand.
const SELDOM: Duration = Duration::from_secs(1);
/// How often the memory of a device is looked at until it is free.
const POLL: Duration = Duration::from_millis(250);
/// And for how long.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the driver may take to say what devices there are.
const ANSWER: Duration = Duration::from_secs(30);
/// Of a device's memory so small a part may be missing: somebody draws a screen.
const TOLERANCE: u64 = 64;

/// The memory of a device, as its driver tells it, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What processes can use, all together.
    pub usable: u64,
    /// What nobody uses now.
    pub free: u64,
}

/// The driver of the devices. Calls may block.
pub trait Cards: Send + Sync {
    /// All devices whose memory is known, with all of it.
    ///
    /// # Errors
    ///
    /// What the driver says.
    fn devices(&self) -> Result<Vec<Gpu>, String>;

    /// The memory of one device; `None`: that is not known.
    fn memory(&self, index: u32) -> Option<Memory>;
}

/// Finds the driver of the devices, or says why there is none. May block.
pub type Opener = Box<dyn Fn() -> Result<Arc<dyn Cards>, String> + Send + Sync>;

/// Shares the devices of this host among the clusters.
pub struct Broker {
    books: Mutex<Books>,
    ring: Notify,
    opener: Opener,
    cards: Mutex<Option<Arc<dyn Cards>>>,
    /// The task that settles, and the one that asks the driver.
    tasks: Mutex<[Option<AbortHandle>; 2]>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").finish_non_exhaustive()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let tasks = self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner);
        for task in tasks.iter().flatten() {
            task.abort();
        }
    }
}

impl Broker {
    /// Knows of no device yet: nothing is placed before it [follows](Self::follow) a configuration.
    pub fn new(opener: Opener) -> Arc<Self> {
        Arc::new(Self {
            books: Mutex::default(),
            ring: Notify::new(),
            opener,
            cards: Mutex::default(),
            tasks: Mutex::default(),
        })
    }

    /// Takes these devices from now on. What has a place keeps it; nothing new is placed on a device before what is
    /// there fits its budget. Must be called on a runtime.
    ///
    /// * `gpus`: none: those that the driver reports
    pub fn follow(self: &Arc<Self>, gpus: &[Gpu]) {
        self.change(|books| match (gpus, &books.budget) {
            ([], Budget::None) => books.budget = Budget::Unknown,
            ([], _) => {} // until the driver has answered
            (gpus, _) => books.budget = Budget::Devices(gpus.to_vec()),
        });
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks[0].get_or_insert_with(|| tokio::spawn(settle(Arc::downgrade(self))).abort_handle());
        let asks = tokio::spawn(ask(Arc::downgrade(self), gpus.is_empty())).abort_handle();
        if let Some(before) = tasks[1].replace(asks) {
            before.abort();
        }
    }

    /// A cluster shares the devices from now on, as far as its terms name a share. What it is told comes by the
    /// receiver.
    pub fn join(
        self: &Arc<Self>,
        cluster: Arc<str>,
        terms: Terms,
        sight: Weak<dyn Sight>,
    ) -> (Tenancy, mpsc::UnboundedReceiver<Notice>) {
        let (notices, receiver) = mpsc::unbounded_channel();
        let mut id = 0;
        self.change(|books| {
            id = books.number();
            let tenant = Tenant::new(cluster, terms, sight, notices);
            books.tenants.insert(id, tenant);
        });
        let broker = Arc::clone(self);
        (Tenancy { broker, id }, receiver)
    }

    /// An operator wants so many replicas of a cluster, or by demand again.
    pub fn set_override(&self, cluster: &str, replicas: Option<u32>) {
        self.change(|books| {
            match replicas {
                Some(replicas) => books.overrides.insert(cluster.to_owned(), replicas),
                None => books.overrides.remove(cluster),
            };
        });
    }

    /// Forgets what operators wanted of clusters that are gone.
    pub fn retain_overrides(&self, is_scaled: impl Fn(&str) -> bool) {
        self.change(|books| books.overrides.retain(|cluster, _| is_scaled(cluster)));
    }

    /// Every device with its budget and what is taken of it; empty while none is known.
    pub fn devices(&self) -> Value {
        report::devices(&self.books())
    }

    /// What is known of a cluster's places; `None`: it shares no devices.
    pub fn report(&self, cluster: &str) -> Option<Value> {
        report::cluster(&self.books(), cluster)
    }

    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something, which is settled soon.
    pub(super) fn change(&self, change: impl FnOnce(&mut Books)) {
        change(&mut self.books());
        self.ring.notify_one();
    }

    pub(super) fn set_leaving(&self, claim: u64, leaving: bool) {
        self.change(|books| {
            let stage = books.holds.get_mut(&claim).map(|hold| &mut hold.stage);
            if let Some(Stage::Placed(placed)) = stage {
                placed.leaving = leaving;
            }
        });
    }

    fn cards(&self) -> Option<Arc<dyn Cards>> {
        let cards = self.cards.lock().unwrap_or_else(PoisonError::into_inner);
        cards.clone()
    }

    /// Waits until the memory that a claim should leave is free, as far as the driver can be asked, and not for ever.
    pub(super) async fn really_free(&self, claim: u64) {
        let Some(cards) = self.cards() else { return };
        let begun = Instant::now();
        loop {
            let Some((device, budget, others)) = self.books().free_without(claim) else {
                return;
            };
            let asked = Arc::clone(&cards);
            let memory = tokio::task::spawn_blocking(move || asked.memory(device));
            let Ok(Ok(Some(memory))) = timeout(PATIENCE, memory).await else {
                return;
            };
            let wanted = budget.min(memory.usable).saturating_sub(others);
            let wanted = wanted.saturating_sub(memory.usable / TOLERANCE);
            if memory.free >= wanted {
                return;
            }
            if begun.elapsed() >= PATIENCE {
                tracing::warn!(
                    device,
                    free = memory.free,
                    wanted,
                    "the memory of a model that is gone is not free, or somebody else uses it: the next one may not fit"
                );
                return;
            }
            sleep(POLL).await;
        }
    }

    /// Finds the driver, and takes its devices where none are written.
    fn known(&self, found: Result<(Arc<dyn Cards>, Vec<Gpu>), String>, needed: bool) {
        let result = found.map(|(cards, devices)| {
            let mut known = self.cards.lock().unwrap_or_else(PoisonError::into_inner);
            *known = Some(cards);
            devices
        });
        if !needed {
            return;
        }
        let budget = match result {
            Ok(devices) if !devices.is_empty() => {
                for gpu in &devices {
                    let mib = gpu.memory >> 20;
                    tracing::info!(index = gpu.index, memory_mib = mib, "device found");
                }
                Budget::Devices(devices)
            }
            Ok(_) => Self::nobody("it reports no device"),
            Err(error) => Self::nobody(&error),
        };
        self.change(|books| books.budget = budget);
    }

    fn nobody(error: &str) -> Budget {
        tracing::warn!(
            error,
            "`gpus` is not written and no NVIDIA driver answers: what models take of devices is not limited"
        );
        Budget::None
    }
}

/// Settles after each change, and often while somebody wants a place.
async fn settle(broker: Weak<Broker>) {
    loop {
        let Some(strong) = broker.upgrade() else {
            return;
        };
        let pause = {
            let mut books = strong.books();
            books.settle(Instant::now());
            if books.is_unsettled() { LOOK } else { SELDOM }
        };
        let ring = strong.ring.notified();
        tokio::select! {
            () = ring => {}
            () = sleep(pause) => {}
        }
    }
}

/// Asks for the driver, and for its devices if they are needed.
async fn ask(broker: Weak<Broker>, needed: bool) {
    let found = tokio::task::spawn_blocking({
        let broker = broker.clone();
        move || {
            let broker = broker.upgrade().ok_or("the proxy ends")?;
            let cards = match broker.cards() {
                Some(cards) => cards,
                None => (broker.opener)()?,
            };
            let devices = if needed { cards.devices()? } else { Vec::new() };
            Ok((cards, devices))
        }
    });
    let found = match timeout(ANSWER, found).await {
        Ok(found) => found.unwrap_or_else(|error| Err(error.to_string())),
        Err(_) => Err(format!("no answer within {ANSWER:?}")),
    };
    if let Some(broker) = broker.upgrade() {
        broker.known(found, needed);
    }
}
