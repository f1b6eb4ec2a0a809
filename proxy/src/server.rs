//! Starts the workers and what controls them, and stops them again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use forebay_config::diagnostic::Diagnostic;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::admin;
use crate::control::{self, Control, Parts, ReloadError, Source};
use crate::discovery::Discovery;
use crate::dns::Resolver;
use crate::health::Checker;
use crate::metrics::{EndpointSample, Metrics};
use crate::scaling::Scaling;
use crate::snapshot::{Build, Registry, Snapshot};
use crate::sockets::{self, Sockets};
use crate::tls::{ALPN_HTTP1, ServerTlsState};
use crate::watch::{WatchOptions, Watcher};
use crate::worker::{self, Order, Shared};

/// How long worker threads may take to end after a drain.
const JOIN: Duration = Duration::from_secs(2);

/// What to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the configuration comes from.
    pub source: Source,
    /// Names pinned for a trial, `NAME:PORT` to an address.
    pub resolve: Vec<((String, u16), SocketAddr)>,
    /// Takes a free port from the configured one up when the admin address is taken.
    pub admin_port_may_move: bool,
}

/// Why nothing was started. No socket is left bound.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be read, is not legal, or asks for what cannot be had.
    #[error(transparent)]
    Config(#[from] ReloadError),
    /// The admin API or the probes cannot be bound.
    #[error("cannot bind `admin.{key}` to {address}: {error}")]
    Admin {
        /// `address` or `probes`.
        key: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// A thread, runtime or the resolver could not be made.
    #[error("cannot start: {0}")]
    System(String),
}

/// A running proxy.
pub struct Server {
    control: Arc<Control>,
    workers: Vec<JoinHandle<()>>,
    /// The admin API and the probes, which answer to the end.
    desks: Vec<tokio::task::JoinHandle<()>>,
    warnings: Vec<Diagnostic>,
}

impl Server {
    /// Loads the configuration, binds every socket and starts to serve. Runs on the control runtime, which must
    /// outlive the server.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let source = options.source.clone();
        let loading = tokio::task::spawn_blocking(move || source.load());
        let (loaded, sources) = loading
            .await
            .map_err(|e| StartError::System(e.to_string()))?
            .map_err(ReloadError::Load)?;
        let config = Arc::new(loaded.config);
        let count = config
            .workers
            .map_or_else(available_cores, |n| n.get() as usize);
        let metrics = Metrics::new(count);
        let log = control::open_log(&config, None, &metrics).map_err(ReloadError::Log)?;
        let registry = Registry::default();
        let build = Build {
            config: Arc::clone(&config),
            held: HashMap::new(),
            hash: control::hash_of(&sources),
            generation: 1,
            old: None,
            metrics: &metrics,
            log,
        };
        let snapshot = Arc::new(build.run(&registry).map_err(ReloadError::Build)?);
        let descriptors = sockets::raise_descriptor_limit();
        let (mailboxes, inboxes): (Vec<_>, Vec<_>) =
            (0..count).map(|_| mpsc::unbounded_channel()).unzip();
        let shared = Shared::new(Arc::clone(&metrics), mailboxes);
        let mut sockets = Sockets::new(descriptors);
        let bound = sockets.bind(&snapshot, &shared)?;
        let api = bind_admin("address", config.admin.address, options.admin_port_may_move)?;
        let probes = config
            .admin
            .probes
            .map(|address| bind_admin("probes", address, false))
            .transpose()?;
        let admin_tls = admin_tls(&config)?;
        let (api_address, probes_address) = (local(&api)?, probes.as_ref().map(local).transpose()?);

        let resolver = Resolver::system().map_err(|e| StartError::System(e.to_string()))?;
        let mut discovery = Discovery::new(resolver, options.resolve.into_iter().collect());
        discovery.follow(&snapshot).await;
        let checker = Checker::new();
        checker.follow(snapshot.clusters.values());
        let scaling = Arc::new(Scaling::new());
        scaling.follow(&snapshot);
        let workers = start_workers(&shared, &snapshot, inboxes)?;
        sockets.switch(bound, &shared);
        let warnings = loaded.warnings.clone();
        let control = Control::new(Parts {
            source: options.source,
            shared,
            registry,
            sockets,
            discovery,
            checker,
            scaling,
            snapshot,
            sources,
            warnings: loaded.warnings,
            admin: api_address,
            probes: probes_address,
        });
        publish_endpoints(&control);
        publish_policy(&control);
        let mut desks = vec![serve_admin(&control, api, true, admin_tls.clone())];
        desks.extend(probes.map(|probes| serve_admin(&control, probes, false, None)));
        tokio::spawn(watch_files(Arc::clone(&control), admin_tls));
        tokio::spawn(crate::memory::watch(Arc::clone(&control)));
        Ok(Self {
            control,
            workers,
            desks,
            warnings,
        })
    }

    /// What acts on the proxy.
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// What `validate` would say of the configuration it started with.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// Returns when a drain has ended and every thread with it.
    pub async fn ended(self) {
        self.control.drained().await;
        self.control.scaling.shutdown().await;
        for mailbox in &self.control.shared().mailboxes {
            let _ = mailbox.send(Order::Stop);
        }
        let workers = self.workers;
        let joined = tokio::task::spawn_blocking(move || {
            for worker in workers {
                let _ = worker.join();
            }
        });
        let _ = tokio::time::timeout(JOIN, joined).await;
        for desk in self.desks {
            let _ = tokio::time::timeout(JOIN, desk).await;
        }
        self.control.close_logs();
    }
}

/// One worker per core that this process may use.
fn available_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn bind_admin(
    key: &'static str,
    address: SocketAddr,
    may_move: bool,
) -> Result<TcpListener, StartError> {
    let mut tried = address;
    loop {
        let bound = sockets::bind(tried, false).and_then(TcpListener::from_std);
        match bound {
            Ok(listener) => return Ok(listener),
            Err(error)
                if may_move
                    && error.kind() == std::io::ErrorKind::AddrInUse
                    && tried.port() < u16::MAX =>
            {
                tried.set_port(tried.port() + 1);
            }
            Err(error) => {
                return Err(StartError::Admin {
                    key,
                    address,
                    error,
                });
            }
        }
    }
}

fn local(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener
        .local_addr()
        .map_err(|e| StartError::System(e.to_string()))
}

fn admin_tls(config: &forebay_config::Config) -> Result<Option<Arc<ServerTlsState>>, StartError> {
    let Some(wanted) = &config.admin.tls else {
        return Ok(None);
    };
    let state = ServerTlsState::load(wanted, ALPN_HTTP1).map_err(|e| {
        StartError::Config(ReloadError::Build(crate::snapshot::BuildError {
            position: None,
            message: format!("admin.tls: {e}"),
        }))
    })?;
    Ok(Some(Arc::new(state)))
}

/// Serves the admin API, or only the probes, until the drain has ended.
fn serve_admin(
    control: &Arc<Control>,
    listener: TcpListener,
    whole: bool,
    tls: Option<Arc<ServerTlsState>>,
) -> tokio::task::JoinHandle<()> {
    let router = if whole {
        admin::api(Arc::clone(control))
    } else {
        admin::probes(Arc::clone(control))
    };
    let control = Arc::clone(control);
    tokio::spawn(async move {
        admin::serve_until(listener, router, tls, control.drained()).await;
    })
}

fn start_workers(
    shared: &Arc<Shared>,
    snapshot: &Arc<Snapshot>,
    inboxes: Vec<mpsc::UnboundedReceiver<Order>>,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let start = |(index, inbox): (usize, _)| {
        let (shared, snapshot) = (Arc::clone(shared), Arc::clone(snapshot));
        std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                if let Err(error) = worker::run(index, shared, snapshot, inbox) {
                    tracing::error!(%error, index, "a worker could not start");
                }
            })
            .map_err(|e| StartError::System(e.to_string()))
    };
    inboxes.into_iter().enumerate().map(start).collect()
}

/// Endpoint gauges are read at scrape time.
fn publish_endpoints(control: &Arc<Control>) {
    let weak = Arc::downgrade(control);
    control
        .metrics()
        .set_endpoints(Arc::new(move |samples: &mut Vec<EndpointSample>| {
            let Some(control) = weak.upgrade() else {
                return;
            };
            for (name, cluster) in &control.snapshot().clusters {
                let name: Arc<str> = name.as_str().into();
                samples.extend(cluster.state.endpoints().endpoints.iter().map(|endpoint| {
                    EndpointSample {
                        cluster: Arc::clone(&name),
                        endpoint: Arc::clone(&endpoint.label),
                        in_flight: endpoint.in_flight().into(),
                        healthy: endpoint.is_healthy(),
                        ejections: endpoint.ejections(),
                    }
                }));
            }
        }));
}

/// Counters of limits and access lists are read at scrape time.
fn publish_policy(control: &Arc<Control>) {
    let weak = Arc::downgrade(control);
    control.metrics().add_source(Arc::new(move |samples| {
        if let Some(control) = weak.upgrade() {
            let snapshot = control.snapshot();
            snapshot.ledger.collect(samples);
            snapshot.mirrors.collect(samples);
            for (name, cluster) in &snapshot.clusters {
                if cluster.config.has_room() {
                    cluster.state.collect_room(name, samples);
                }
            }
            control.scaling.collect(samples);
        }
    }));
}

/// Reloads after every change of the configuration or of a file it names.
async fn watch_files(control: Arc<Control>, admin_tls: Option<Arc<ServerTlsState>>) {
    let mut wanted = control.watched();
    let paths = |set: &std::collections::BTreeSet<std::path::PathBuf>| {
        set.iter().cloned().collect::<Vec<_>>()
    };
    let first = paths(&wanted.borrow_and_update());
    let (watcher, mut changes) = match Watcher::start(first, WatchOptions::default()).await {
        Ok(started) => started,
        Err(error) => {
            tracing::error!(%error, "files are not watched: reload with SIGHUP or POST /api/reload");
            return;
        }
    };
    if let Some(why) = watcher.fallback() {
        tracing::warn!(why, "files are polled");
    }
    // What changed between the first load and the first look.
    let mut pending = stale(&control).await;
    loop {
        if pending {
            reload_admin_tls(&control, admin_tls.as_ref()).await;
            let _ = control.reload().await; // counted, logged and in the status
        }
        pending = tokio::select! {
            change = changes.recv() => match change {
                Some(change) => { tracing::debug!(?change, "files changed"); true }
                None => return,
            },
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                let next = paths(&wanted.borrow_and_update());
                if let Err(error) = watcher.set_paths(next).await {
                    tracing::error!(%error, "new files are not watched");
                }
                // What changed between their first reading and this.
                stale(&control).await
            }
        };
        if control.is_draining() {
            return;
        }
    }
}

/// The admin API's certificates follow their files; a bad one keeps what is shown.
async fn reload_admin_tls(control: &Arc<Control>, state: Option<&Arc<ServerTlsState>>) {
    let (Some(state), Some(wanted)) = (state.cloned(), control.admin_tls()) else {
        return;
    };
    let reloaded = tokio::task::spawn_blocking(move || state.reload(&wanted)).await;
    if let Ok(Err(error)) = reloaded {
        tracing::error!(%error, "the admin API keeps its certificates");
    }
}

/// Whether the files, certificates and keys included, differ from what is live.
async fn stale(control: &Arc<Control>) -> bool {
    let control = Arc::clone(control);
    let look = tokio::task::spawn_blocking(move || {
        let read = control.source().load();
        let live = control.snapshot();
        read.map_or(true, |(_, sources)| control::hash_of(&sources) != live.hash)
            || live.files_changed()
    });
    look.await.unwrap_or(true)
}
