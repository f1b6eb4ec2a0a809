//! The `process` driver: local model servers started, probed, logged and stopped.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forebay_config::{Process, Scale};
use tokio::sync::{mpsc, watch};

use super::crew::{Board, Command, Crew, Inbox};
use super::launch::{Launch, Supervised};
use super::log::Log;
use super::replica::{Recipe, Settings, Tools};
use super::supervise::Ending;
use super::{Endpoints, Readiness};
use crate::gpu::{Broker, Sight, Tenancy, Terms};
use crate::scaler::{Driver, Replicas};

/// The longest a replica that is no longer wanted may take to finish its work.
const DRAIN: Duration = Duration::from_secs(300);
/// What a supervisor may take beyond the stop timeout.
const GRACE: Duration = Duration::from_secs(2);

/// Runs the replicas of one cluster on this machine. Dropping it drains and stops them; when the proxy dies, they do.
#[derive(Debug)]
pub struct ProcessDriver {
    wanted: watch::Sender<u32>,
    settings: watch::Sender<Settings>,
    commands: mpsc::UnboundedSender<Command>,
    board: Arc<Board>,
    done: watch::Receiver<bool>,
    log: Log,
    tenancy: Option<Arc<Tenancy>>,
}

/// What a driver needs from the proxy.
pub struct Surroundings {
    /// The cluster's name, for logs.
    pub cluster: Arc<str>,
    /// Asks its servers whether they are ready.
    pub readiness: Arc<dyn Readiness>,
    /// Who is told which of them serve.
    pub endpoints: Arc<dyn Endpoints>,
    /// The executable that knows `supervise`; `None`: the running one. For tests.
    pub supervisor: Option<PathBuf>,
    /// Who shares the devices, and the requests of the cluster; `None`: nobody does, and `gpu` means nothing.
    pub budget: Option<(Arc<Broker>, Arc<dyn Sight>)>,
}

impl ProcessDriver {
    /// Makes a driver that runs nothing until it is asked to; `None` when `scale` names another one. Needs a tokio
    /// runtime, which then must not end before [`shutdown`](Self::shutdown).
    pub fn new(scale: &Scale, around: Surroundings) -> Option<Self> {
        let launch = Supervised {
            program: around.supervisor.clone(),
        };
        Self::with(scale, around, Box::new(launch))
    }

    pub(super) fn with(
        scale: &Scale,
        around: Surroundings,
        launch: Box<dyn Launch>,
    ) -> Option<Self> {
        let process = process_of(scale)?;
        let log = Log::default();
        let tools = Tools {
            launch,
            readiness: around.readiness,
            endpoints: around.endpoints,
            log: log.clone(),
        };
        let board = Arc::<Board>::default();
        let (settings, told) = watch::channel(settings(scale, process, false));
        let (wanted, asked) = watch::channel(0);
        let (commands, told_commands) = mpsc::unbounded_channel();
        let (finished, done) = watch::channel(false);
        let recipe = (Recipe::of(scale, process), scale.max);
        let (tenancy, notices) = match around.budget {
            Some((broker, sight)) => {
                let (cluster, terms) = (around.cluster.clone(), Terms::of(scale));
                let (tenancy, notices) = broker.join(cluster, terms, Arc::downgrade(&sight));
                (Some(Arc::new(tenancy)), notices)
            }
            None => (None, mpsc::unbounded_channel().1),
        };
        let shared = tenancy.clone();
        let crew = Crew::new(around.cluster, tools, board.clone(), told, shared, recipe);
        let inbox = Inbox {
            wanted: asked,
            commands: told_commands,
            notices,
        };
        tokio::spawn(async move {
            crew.run(inbox).await;
            finished.send_replace(true);
        });
        Some(Self {
            wanted,
            settings,
            commands,
            board,
            done,
            log,
            tenancy,
        })
    }

    /// Takes a new configuration: another command, environment, directory or address replaces the replicas as they
    /// finish their work; everything else holds at once. Returns false, and does nothing, when `scale` names another
    /// driver: then drop this one.
    pub fn reconfigure(&self, scale: &Scale) -> bool {
        let Some(process) = process_of(scale) else {
            return false;
        };
        self.settings.send_if_modified(|old| {
            let new = settings(scale, process, old.hurry);
            let differs = *old != new;
            *old = new;
            differs
        });
        if let Some(tenancy) = &self.tenancy {
            tenancy.set_terms(Terms::of(scale));
        }
        let recipe = Command::Recipe(Recipe::of(scale, process), scale.max);
        self.commands.send(recipe).is_ok()
    }

    /// While somebody waits, servers that start are probed every 20 ms, else ever more rarely, up to a second.
    pub fn hurry(&self, somebody_waits: bool) {
        self.settings.send_if_modified(|settings| {
            let differs = settings.hurry != somebody_waits;
            settings.hurry = somebody_waits;
            differs
        });
    }

    /// True while no device could hold one of its replicas, whoever makes room, and it has none. `None`: it shares no
    /// devices.
    pub fn hopeless(&self) -> Option<watch::Receiver<bool>> {
        self.tenancy.as_ref().map(|tenancy| tenancy.hopeless())
    }

    /// What ends its replicas, also when the driver is dropped already.
    pub fn ender(&self) -> Ender {
        Ender {
            settings: self.settings.subscribe(),
            commands: self.commands.clone(),
            done: self.done.clone(),
        }
    }

    /// Stops all replicas at once, see [`Ender::shutdown`].
    pub fn shutdown(&self) -> impl Future<Output = ()> + Send + use<> {
        self.ender().shutdown()
    }

    /// What the servers of this cluster print.
    pub fn log(&self) -> &Log {
        &self.log
    }
}

/// Ends the replicas of a driver. It does not keep the driver.
#[derive(Clone, Debug)]
pub struct Ender {
    settings: watch::Receiver<Settings>,
    commands: mpsc::UnboundedSender<Command>,
    done: watch::Receiver<bool>,
}

impl Ender {
    /// Stops all replicas at once, without waiting for their work. The future ends when nothing of them is left, at
    /// most 2 s after the stop timeout; nothing is started from now on, whether it is awaited or not.
    pub fn shutdown(&self) -> impl Future<Output = ()> + Send + use<> {
        let _ = self.commands.send(Command::Shutdown);
        let limit = self.settings.borrow().ending.timeout + GRACE;
        let mut done = self.done.clone();
        async move {
            let _ = tokio::time::timeout(limit, done.wait_for(|&done| done)).await;
        }
    }

    /// Resolves once the driver is gone and so is everything it ran.
    #[cfg(test)]
    pub(crate) async fn ended(&mut self) {
        let _ = self.done.wait_for(|&done| done).await;
    }

    /// True once the driver is gone and so is everything it ran.
    pub fn is_done(&self) -> bool {
        *self.done.borrow()
    }
}

impl Driver for ProcessDriver {
    fn want(&self, replicas: u32) {
        // The same number too: there may be a reason now to have as many.
        self.wanted.send_replace(replicas);
    }

    fn status(&self) -> Replicas {
        self.board.status()
    }

    fn changed(&self) -> watch::Receiver<()> {
        self.board.changed.subscribe()
    }
}

fn process_of(scale: &Scale) -> Option<&Process> {
    match &scale.driver {
        forebay_config::Driver::Process(process) => Some(process),
        _ => None,
    }
}

fn settings(scale: &Scale, process: &Process, hurry: bool) -> Settings {
    Settings {
        start_timeout: scale.start_timeout,
        ending: Ending::of(process),
        drain: DRAIN,
        hurry,
    }
}

#[cfg(test)]
mod tests;
