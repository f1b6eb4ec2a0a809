//! What acts on a running proxy: reload, drain, status. The admin API, signals and the file watch all call it.

mod error;
mod overlay;
mod status;
#[cfg(test)]
mod tests;
mod weights;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use forebay_config::Config;
use forebay_config::diagnostic::Diagnostic;
use forebay_config::load::{Loaded, SourceFile};
use tokio::sync::{oneshot, watch};

use crate::access_log::AccessLog;
use crate::discovery::Discovery;
use crate::error::Reason;
use crate::health::Checker;
use crate::load::{self, LoadError};
use crate::metrics::Metrics;
use crate::scaling::Scaling;
use crate::snapshot::{Build, Registry, Snapshot};
use crate::sockets::Sockets;
use crate::tls;
use crate::worker::{Order, Shared, Stage};

pub use error::ReloadError;
use overlay::{Agenda, Shares};
pub use overlay::{GivenWeights, RouteWeights, WeightsError};
pub use status::{LastError, Status, hash_of, rfc3339};
use status::{notes, status_of};
pub use weights::{Override, Pending};

/// After GOAWAY, how long idle HTTP/1.1 connections are still served.
pub const IDLE_GRACE: Duration = Duration::from_secs(1);
/// What those who still wait when a drain ends may take to hear of it.
const LAST_WORDS: Duration = Duration::from_millis(250);
/// How often the stop looks whether requests that no close announces have ended.
const LOOK: Duration = Duration::from_millis(250);

/// Where a configuration comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Files and directories, watched.
    Paths(Vec<PathBuf>),
    /// Text that is part of the program, such as the demo's.
    Text(Arc<str>),
}

impl Source {
    /// Reads and checks it; blocking.
    ///
    /// # Errors
    ///
    /// Unreadable or illegal.
    pub fn load(&self) -> Result<(Loaded, Vec<SourceFile>), LoadError> {
        match self {
            Self::Paths(paths) => load::load(paths),
            Self::Text(text) => {
                let sources = vec![SourceFile {
                    name: "embedded".into(),
                    directory: PathBuf::from("."),
                    text: text.to_string(),
                }];
                match forebay_config::load::load(&sources, &|_| None) {
                    Ok(loaded) => Ok((loaded, sources)),
                    Err(diagnostics) => Err(LoadError::Invalid {
                        diagnostics,
                        sources,
                    }),
                }
            }
        }
    }
}

/// What a reload works on; one at a time.
struct Workshop {
    registry: Arc<Mutex<Registry>>,
    sockets: Sockets,
    discovery: Discovery,
    checker: Checker,
    scaling: Arc<Scaling>,
    first: Arc<Config>,
    shares: Shares,
}

/// A running proxy, as seen from outside the workers.
pub struct Control {
    source: Source,
    shared: Arc<Shared>,
    workshop: tokio::sync::Mutex<Workshop>,
    snapshot: ArcSwap<Snapshot>,
    status: Mutex<Status>,
    stage: watch::Sender<Stage>,
    draining: AtomicBool,
    admin_tls: Option<forebay_config::ServerTls>,
    /// Where the admin API really listens.
    pub admin: std::net::SocketAddr,
    /// Where the probes really listen.
    pub probes: Option<std::net::SocketAddr>,
    watched: watch::Sender<BTreeSet<PathBuf>>,
    /// What brings endpoints up and down.
    pub scaling: Arc<Scaling>,
    agenda: watch::Sender<Agenda>,
}

/// What a [`Control`] begins with.
#[expect(missing_docs, reason = "the fields are those of `Control`")]
pub struct Parts {
    pub source: Source,
    pub shared: Arc<Shared>,
    pub registry: Registry,
    pub sockets: Sockets,
    pub discovery: Discovery,
    pub checker: Checker,
    pub scaling: Arc<Scaling>,
    pub snapshot: Arc<Snapshot>,
    pub sources: Vec<SourceFile>,
    pub warnings: Vec<Diagnostic>,
    pub admin: std::net::SocketAddr,
    pub probes: Option<std::net::SocketAddr>,
}

impl Control {
    /// The control of a proxy that serves its first snapshot. Must run on the control runtime.
    pub fn new(parts: Parts) -> Arc<Self> {
        let first = Arc::clone(&parts.snapshot.config);
        let notes = notes(&parts.warnings, &first, &first);
        let status = status_of(&parts.snapshot, &parts.sources, notes.clone());
        let metrics = &parts.shared.metrics;
        let admin_tls = parts.snapshot.config.admin.tls.clone();
        sync_metrics(metrics, &parts.snapshot);
        metrics.config_applied(parts.snapshot.generation, &parts.snapshot.hash);
        let watched = watch::Sender::new(files_of(&parts.source, &parts.snapshot));
        let (agenda, ahead) = watch::channel(Agenda::default());
        let control = Arc::new(Self {
            workshop: tokio::sync::Mutex::new(Workshop {
                registry: Arc::new(Mutex::new({
                    let mut registry = parts.registry;
                    registry.follow(&parts.snapshot);
                    registry
                })),
                sockets: parts.sockets,
                discovery: parts.discovery,
                checker: parts.checker,
                scaling: Arc::clone(&parts.scaling),
                first,
                shares: Shares::new(notes),
            }),
            snapshot: ArcSwap::new(parts.snapshot),
            source: parts.source,
            shared: parts.shared,
            status: Mutex::new(status),
            stage: watch::Sender::new(Stage::Running),
            draining: AtomicBool::new(false),
            admin_tls,
            admin: parts.admin,
            probes: parts.probes,
            watched,
            scaling: parts.scaling,
            agenda,
        });
        overlay::keep(&control, ahead);
        control
    }

    /// The snapshot that serves.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Every metric.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// Where the configuration comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// What the workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// `/api/config/status`.
    pub fn status(&self) -> Status {
        self.status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// TLS of the admin API, as it was when the process started: a change of `admin` waits for a restart.
    pub fn admin_tls(&self) -> Option<forebay_config::ServerTls> {
        self.admin_tls.clone()
    }

    /// Where the listeners are really bound, by name.
    pub async fn addresses(&self) -> Vec<(String, std::net::SocketAddr)> {
        self.workshop.lock().await.sockets.addresses()
    }

    /// Loaded, bound, and not draining.
    pub fn is_ready(&self) -> bool {
        !self.is_draining()
    }

    /// True once a drain has begun.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The files whose content a reload depends on; changes when a reload names others.
    pub fn watched(&self) -> watch::Receiver<BTreeSet<PathBuf>> {
        self.watched.subscribe()
    }

    /// Opens log files and recordings again, after they were moved away.
    pub fn reopen_logs(&self) {
        self.snapshot.load().mirrors.reopen();
        if let Some(log) = &self.snapshot.load().log
            && let Err(error) = log.reopen()
        {
            tracing::warn!(%error, "the access log cannot be opened again");
        }
    }

    /// Reads the configuration again and applies it whole, or not at all. Returns once every worker serves by it.
    ///
    /// # Errors
    ///
    /// Nothing live has changed then; the error is counted, logged and in the status.
    pub async fn reload(&self) -> Result<Status, ReloadError> {
        let mut workshop = self.workshop.lock().await;
        match self.apply(&mut workshop).await {
            Ok(()) => Ok(self.status()),
            Err(error) => {
                self.reject(&error);
                Err(error)
            }
        }
    }

    fn reject(&self, error: &ReloadError) {
        self.shared.metrics.config_rejected();
        let position = error.position();
        tracing::error!(
            generation = self.snapshot.load().generation,
            "the new configuration is refused, the last good one serves on: {error}"
        );
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.last_error = Some(LastError {
            message: error.summary(),
            file: position.map(|p| p.file.to_string()),
            line: position.map(|p| p.line),
            column: position.map(|p| p.column),
            at: rfc3339(SystemTime::now()),
        });
    }

    async fn apply(&self, workshop: &mut Workshop) -> Result<(), ReloadError> {
        if self.is_draining() {
            return Err(ReloadError::Draining);
        }
        let source = self.source.clone();
        let (loaded, sources) = blocking(move || source.load())
            .await
            .map_err(ReloadError::Load)?;
        if sources.iter().all(|source| source.text.trim().is_empty()) {
            return Err(ReloadError::Empty);
        }
        let old = self.snapshot.load_full();
        let config = Arc::new(loaded.config);
        let log = open_log(&config, Some(&old), &self.shared.metrics).map_err(ReloadError::Log)?;
        let shares = workshop.shares.beside(&config);
        let held = shares.plan_for(&config, &old).held;
        let registry = Arc::clone(&workshop.registry);
        let metrics = Arc::clone(&self.shared.metrics);
        let before = Arc::clone(&old);
        let hash = hash_of(&sources);
        let built = blocking(move || {
            let build = Build {
                config,
                held,
                hash,
                generation: before.generation + 1,
                old: Some(&before),
                metrics: &metrics,
                log,
            };
            build.run(&registry.lock().unwrap_or_else(PoisonError::into_inner))
        })
        .await;
        let snapshot = Arc::new(built?);
        // Bound before the swap: a failure here leaves everything as it was.
        let bound = workshop.sockets.bind(&snapshot, &self.shared)?;
        workshop.discovery.follow(&snapshot).await;
        workshop.checker.follow(snapshot.clusters.values());
        workshop.scaling.follow(&snapshot);
        self.publish(&snapshot).await;
        snapshot.show_certificates();
        workshop.sockets.switch(bound, &self.shared);
        {
            let registry = &workshop.registry;
            let mut registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
            registry.follow(&snapshot);
        }
        sync_metrics(&self.shared.metrics, &snapshot);
        let metrics = &self.shared.metrics;
        metrics.config_applied(snapshot.generation, &snapshot.hash);
        let notes = notes(&loaded.warnings, &workshop.first, &snapshot.config);
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) =
            shares.shown_in(status_of(&snapshot, &sources, notes.clone()));
        shares.log_dropped(&workshop.shares);
        workshop.shares = shares.with_notes(notes);
        let files = files_of(&self.source, &snapshot);
        self.watched
            .send_if_modified(|watched| std::mem::replace(watched, files.clone()) != files);
        if let Some(log) = &old.log
            && snapshot
                .log
                .as_ref()
                .is_none_or(|new| !Arc::ptr_eq(log, new))
        {
            log.flush(Duration::from_secs(1));
        }
        tracing::info!(
            generation = snapshot.generation,
            hash = snapshot.hash,
            "configuration applied"
        );
        self.settle(workshop).await;
        Ok(())
    }

    /// Returns when every worker serves by the snapshot.
    async fn publish(&self, snapshot: &Arc<Snapshot>) {
        let mut applied = Vec::new();
        for mailbox in &self.shared.mailboxes {
            let (tx, rx) = oneshot::channel();
            if mailbox
                .send(Order::Publish(Arc::clone(snapshot), tx))
                .is_ok()
            {
                applied.push(rx);
            }
        }
        for worker in applied {
            let _ = worker.await;
        }
        self.snapshot.store(Arc::clone(snapshot));
    }

    /// Begins to stop, once: new work is refused step by step, work in progress finishes.
    ///
    /// * `delay`: how long answers only announce it; `None`: as configured
    /// * `timeout`: how long work in progress may take after that; `None`: as configured
    pub fn drain(self: &Arc<Self>, delay: Option<Duration>, timeout: Option<Duration>) {
        if self.draining.swap(true, Ordering::Relaxed) {
            return;
        }
        let config = self.snapshot.load().config.drain.clone();
        let delay = delay.or(config.delay).unwrap_or_else(default_delay);
        let timeout = timeout.unwrap_or(config.timeout);
        tracing::info!(?delay, ?timeout, "draining");
        let control = Arc::clone(self);
        tokio::spawn(async move { control.run_drain(delay, timeout).await });
    }

    async fn run_drain(&self, delay: Duration, timeout: Duration) {
        self.enter(Stage::Announcing);
        tokio::time::sleep(delay).await;
        self.enter(Stage::Closing);
        let mut workshop = self.workshop.lock().await;
        workshop.sockets.close();
        // Whoever the kernel accepted already is served.
        let taken = tokio::time::Instant::now() + IDLE_GRACE;
        while workshop.sockets.are_accepting() && tokio::time::Instant::now() < taken {
            let _ = tokio::time::timeout(LOOK, self.shared.closed.notified()).await;
        }
        drop(workshop);
        let end = tokio::time::Instant::now() + timeout;
        let grace = IDLE_GRACE.min(timeout);
        if tokio::time::timeout(grace, self.idle()).await.is_err() {
            self.enter(Stage::Idle);
            if tokio::time::timeout_at(end, self.idle()).await.is_err() {
                // Whoever waits has begun nothing that could be cut: it is told, and gets a moment to hear it.
                for cluster in self.snapshot.load().clusters.values() {
                    cluster.state.room().fail_all(Reason::Draining);
                }
                let _ = tokio::time::timeout(LAST_WORDS.min(timeout), self.idle()).await;
            }
        }
        self.enter(Stage::Ended);
    }

    /// Cuts a drain short: everything ends now.
    pub fn end(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.enter(Stage::Ended);
    }

    fn enter(&self, stage: Stage) {
        self.stage.send_if_modified(|now| {
            let later = stage > *now;
            if later {
                *now = stage;
                for mailbox in &self.shared.mailboxes {
                    let _ = mailbox.send(Order::Enter(stage));
                }
            }
            later
        });
    }

    async fn idle(&self) {
        while self.shared.connections() > 0 {
            let _ = tokio::time::timeout(LOOK, self.shared.closed.notified()).await;
        }
    }

    /// Returns when a drain has ended; starts nothing.
    pub async fn drained(&self) {
        let mut stage = self.stage.subscribe();
        let _ = stage.wait_for(|stage| *stage == Stage::Ended).await;
    }

    /// Writes out what the access log and recordings still hold.
    pub fn close_logs(&self) {
        self.snapshot.load().mirrors.close(Duration::from_secs(1));
        if let Some(log) = &self.snapshot.load().log {
            log.close();
        }
    }
}

/// 5 s in a Kubernetes pod, where endpoints learn of the end late; else none.
fn default_delay() -> Duration {
    match std::env::var_os("KUBERNETES_SERVICE_HOST") {
        Some(_) => Duration::from_secs(5),
        None => Duration::ZERO,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

/// Opens the access log, or keeps the one that is open when nothing about it changed.
///
/// # Errors
///
/// The file cannot be opened.
pub fn open_log(
    config: &Config,
    old: Option<&Snapshot>,
    metrics: &Metrics,
) -> std::io::Result<Option<Arc<AccessLog>>> {
    let Some(wanted) = &config.access_log else {
        return Ok(None);
    };
    if let Some(old) = old
        && old.config.access_log.as_ref() == Some(wanted)
    {
        return Ok(old.log.clone());
    }
    AccessLog::start(wanted, metrics.access_log_dropped()).map(Some)
}

/// Exports what the routes count, from 0.
fn sync_metrics(metrics: &Metrics, snapshot: &Snapshot) {
    let pairs = snapshot.routes.iter().flat_map(|view| {
        let route = &view.config;
        let mut clusters: Vec<&str> = match &route.action {
            forebay_config::Action::Forward(members) => {
                members.iter().map(|m| m.cluster.as_str()).collect()
            }
            forebay_config::Action::ByModel => {
                let models = view.models.iter().flat_map(|models| models.members());
                let names = models.map(|member| member.cluster.config.name.as_str());
                names.chain([""]).collect()
            }
            _ => vec![""],
        };
        if !clusters.contains(&"") && snapshot.ledger.filters(&route.name) {
            clusters.push("");
        }
        clusters
            .into_iter()
            .map(|cluster| (route.name.as_str(), cluster))
            .collect::<Vec<_>>()
    });
    metrics.sync(pairs);
}

/// Everything a reload reads: the configuration itself, certificates, keys, CA bundles, lists.
fn files_of(source: &Source, snapshot: &Snapshot) -> BTreeSet<PathBuf> {
    let mut files: BTreeSet<PathBuf> = match source {
        Source::Paths(paths) => paths
            .iter()
            .filter(|p| p.as_os_str() != "-")
            .cloned()
            .collect(),
        Source::Text(_) => BTreeSet::new(),
    };
    files.extend(
        snapshot
            .config
            .admin
            .tls
            .iter()
            .flat_map(tls::server::files_of),
    );
    files.extend(
        snapshot
            .config
            .listeners
            .iter()
            .filter_map(|l| l.tls.as_ref())
            .flat_map(tls::server::files_of),
    );
    files.extend(
        snapshot
            .config
            .clusters
            .iter()
            .filter_map(|c| c.tls.as_ref())
            .flat_map(tls::client::files_of),
    );
    files.extend(snapshot.ledger.files().map(PathBuf::from));
    files
}
