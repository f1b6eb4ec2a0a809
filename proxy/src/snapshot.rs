//! The live view of one configuration, built beside the old one and swapped whole.

mod models;
mod reweight;
mod worker;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use forebay_config as config;
use forebay_config::route::RouteTable;
use forebay_config::split::Split;
use forebay_config::{Config, ListenerProtocol, UpstreamProtocol};

use crate::access_log::AccessLog;
use crate::cluster::ClusterState;
use crate::filter::{self, FilterError, Filters, Ledger};
use crate::metrics::{Metrics, Traffic};
use crate::mirror::{self, MirrorError, Mirrors};
use crate::model_name::{Grammar, Served};
use crate::outgoing::is_grpc;
use crate::replace::Replacing;
use crate::tls::{self, Loaded, ServerTlsState, TlsError};
use crate::upstream::{Connector, ConnectorTls};

pub use worker::{OwnTraffic, WorkerSnapshot};

/// Everything that requests of one generation see. Never changed after it is published; cloned when only weights change.
#[derive(Clone)]
pub struct Snapshot {
    /// 1 for the first configuration, then one more for each that was applied.
    pub generation: u64,
    /// Of the configuration's text.
    pub hash: String,
    /// When it was built.
    pub applied_at: SystemTime,
    /// What was loaded.
    pub config: Arc<Config>,
    /// In file order.
    pub listeners: Vec<Arc<ListenerView>>,
    /// All of them, in file order.
    pub routes: Vec<Arc<RouteView>>,
    /// By name.
    pub clusters: HashMap<String, Arc<ClusterView>>,
    /// Metric cells of each member of each route, by [`MemberView::cell`].
    traffic: Arc<[Arc<Traffic>]>,
    /// What limits and access lists count, and the files they were read from.
    pub ledger: Arc<Ledger>,
    /// What mirrors and recordings count and keep.
    pub mirrors: Arc<mirror::Ledger>,
    /// Where finished requests are written.
    pub log: Option<Arc<AccessLog>>,
}

impl Snapshot {
    /// Shows the certificates that were read for this snapshot: only now, since a refused one changes nothing.
    pub fn show_certificates(&self) {
        for view in &self.listeners {
            if let (Some(state), Some(fresh)) = (&view.tls, &view.fresh) {
                state.commit(Arc::clone(fresh));
            }
        }
    }

    /// Whether a certificate, key, CA or list file is not what this was built from any more; blocking.
    pub fn files_changed(&self) -> bool {
        let shows_old = |view: &Arc<ListenerView>| match (&view.tls, &view.config.tls) {
            (Some(state), Some(wanted)) => !matches!(state.prepare(wanted), Ok(None)),
            _ => false,
        };
        let trusts_old =
            |view: &Arc<ClusterView>| connector_key(&view.config) != Ok(view.connector.key);
        self.listeners.iter().any(shows_old)
            || self.clusters.values().any(trusts_old)
            || self.ledger.files_changed()
    }
}

/// A listener and the routes on it.
#[derive(Clone)]
pub struct ListenerView {
    /// As configured.
    pub config: Arc<config::Listener>,
    /// Over `routes`.
    pub table: Arc<RouteTable>,
    /// In file order; a tcp listener has one.
    pub routes: Vec<Arc<RouteView>>,
    /// Where the models are named that the `match` of some route asks for: as all clusters of all those routes have it.
    pub asks: Grammar,
    /// Certificates, re-read when their files change.
    pub tls: Option<Arc<ServerTlsState>>,
    /// What the files hold now, shown once the snapshot is live.
    fresh: Option<Arc<Loaded>>,
}

/// A route and what it leads to. Cloned when only its weights change.
#[derive(Clone)]
pub struct RouteView {
    /// As configured, but with the members and weights that serve now.
    pub config: Arc<config::Route>,
    /// Only for a route that forwards to a cluster or a split.
    pub split: Option<Split<MemberView>>,
    /// Only for a route that forwards by model.
    pub models: Option<Arc<Served>>,
    /// What a request must pass; `None`: nothing.
    pub filters: Option<Arc<Filters>>,
    /// What is copied and written down of its requests; `None`: nothing.
    pub mirrors: Option<Arc<Mirrors>>,
    /// Edits of answers' bodies; `None`: none.
    pub replace: Option<Arc<Replacing>>,
    /// Metric cells for answers of the route itself.
    pub cell: usize,
}

/// One way out of a route.
#[derive(Clone)]
pub struct MemberView {
    /// Where it leads.
    pub cluster: Arc<ClusterView>,
    /// After the route's own.
    pub request_headers: config::HeaderEdits,
    /// After the route's own.
    pub response_headers: config::HeaderEdits,
    /// Index of its metric cells.
    pub cell: usize,
}

/// A cluster as this generation sees it.
pub struct ClusterView {
    /// As configured.
    pub config: Arc<config::Cluster>,
    /// Outlives the generation.
    pub state: Arc<ClusterState>,
    /// How connections are opened.
    pub connector: Connector,
    /// The same for gRPC, where that has a port of its own.
    pub grpc: Option<Connector>,
}

/// Why a legal configuration cannot go live.
#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", place(.position))]
pub struct BuildError {
    /// Where the configuration asks for it.
    pub position: Option<config::Position>,
    /// What is wrong, and with which file.
    pub message: String,
}

impl From<FilterError> for BuildError {
    fn from(error: FilterError) -> Self {
        Self {
            position: Some(error.position),
            message: error.message,
        }
    }
}

impl From<MirrorError> for BuildError {
    fn from(error: MirrorError) -> Self {
        Self {
            position: Some(error.position),
            message: error.message,
        }
    }
}

fn place(position: &Option<config::Position>) -> String {
    match position {
        Some(at) => format!("{}:{}:{}", at.file, at.line, at.column),
        None => "configuration".to_owned(),
    }
}

/// What outlives generations.
#[derive(Default)]
pub struct Registry {
    clusters: HashMap<String, Arc<ClusterState>>,
}

impl Registry {
    fn cluster(&self, name: &str) -> Arc<ClusterState> {
        Arc::new(match self.clusters.get(name) {
            Some(live) => live.next_generation(),
            None => ClusterState::new(name),
        })
    }

    /// Remembers the clusters of the snapshot that went live, and forgets the others; requests under way keep theirs.
    pub fn follow(&mut self, snapshot: &Snapshot) {
        let live = snapshot.clusters.iter();
        self.clusters = live
            .map(|(name, view)| (name.clone(), Arc::clone(&view.state)))
            .collect();
    }
}

/// Routes by name that serve by other members or weights than are in the files.
pub type HeldRoutes = HashMap<String, Arc<config::Route>>;

/// A configuration on its way to a snapshot.
pub struct Build<'a> {
    /// What was loaded.
    pub config: Arc<Config>,
    /// Routes that begin with other members or weights than were loaded.
    pub held: HeldRoutes,
    /// Of its text.
    pub hash: String,
    /// The number it will have.
    pub generation: u64,
    /// The snapshot it replaces.
    pub old: Option<&'a Snapshot>,
    /// Where cells come from.
    pub metrics: &'a Metrics,
    /// Where finished requests are written.
    pub log: Option<Arc<AccessLog>>,
}

impl Build<'_> {
    /// Builds the snapshot: reads certificates, compiles tables, finds metric cells.
    ///
    /// # Errors
    ///
    /// A certificate, key, CA or list file is missing or wrong. Nothing live has changed then.
    pub fn run(self, registry: &Registry) -> Result<Snapshot, BuildError> {
        let clusters = self
            .config
            .clusters
            .iter()
            .map(|cluster| {
                Ok((
                    cluster.name.clone(),
                    Arc::new(cluster_view(cluster, registry)?),
                ))
            })
            .collect::<Result<HashMap<_, _>, BuildError>>()?;
        let mut traffic = Vec::new();
        let mut compiler = filter::Compiler::new(&self.config, self.old.map(|old| &*old.ledger))?;
        let mut mirrors = mirror::Compiler::new(self.old.map(|old| &*old.mirrors));
        let all: Vec<Arc<RouteView>> = self
            .config
            .routes
            .iter()
            .map(|route| {
                let route = self.held.get(&route.name).unwrap_or(route);
                let filters = compiler.route(route)?.map(Arc::from);
                let mirrors = mirrors.route(route, &clusters)?.map(Arc::from);
                let view = self.route_view(route, filters, &clusters, &mut traffic);
                Ok(Arc::new(RouteView { mirrors, ..view }))
            })
            .collect::<Result<_, BuildError>>()?;
        let listeners = self
            .config
            .listeners
            .iter()
            .map(|l| self.listener_view(l, &all))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Snapshot {
            generation: self.generation,
            hash: self.hash,
            applied_at: SystemTime::now(),
            config: self.config,
            listeners,
            routes: all,
            clusters,
            traffic: traffic.into(),
            ledger: Arc::new(compiler.finish()),
            mirrors: Arc::new(mirrors.finish()),
            log: self.log,
        })
    }

    fn route_view(
        &self,
        route: &Arc<config::Route>,
        filters: Option<Arc<Filters>>,
        clusters: &HashMap<String, Arc<ClusterView>>,
        traffic: &mut Vec<Arc<Traffic>>,
    ) -> RouteView {
        let mut cell = |cluster: &str| {
            traffic.push(self.metrics.traffic(&route.name, cluster));
            traffic.len() - 1
        };
        let mut view = |member: &config::Member| MemberView {
            cluster: Arc::clone(
                clusters
                    .get(&member.cluster)
                    .expect("validation resolved every cluster's name"),
            ),
            request_headers: member.request_headers.clone(),
            response_headers: member.response_headers.clone(),
            cell: cell(&member.cluster),
        };
        let (mut split, mut models, mut first) = (None, None, None);
        match &route.action {
            config::Action::Forward(members) => {
                let views: Vec<_> = members.iter().map(|m| (view(m), m.weight)).collect();
                first = views.first().map(|(view, _)| view.cell);
                let chosen = Split::new(views).expect("validation refused splits without weight");
                split = Some(chosen);
            }
            config::Action::ByModel => {
                let members = models::members(&self.config);
                let views = members.iter().map(&mut view).collect();
                models = Some(Arc::new(Served::new(views, SystemTime::now())));
            }
            config::Action::Redirect(_) | config::Action::Respond(_) => {}
        }
        let own = match (first, &filters) {
            (Some(first), None) => first,
            _ => cell(""), // what is refused before a member is chosen, and what the route answers itself
        };
        let forwards = split.is_some() || models.is_some();
        RouteView {
            config: Arc::clone(route),
            split,
            models,
            filters,
            mirrors: None,
            replace: (forwards && !route.replace.is_empty()).then(|| {
                Arc::new(Replacing::new(
                    &route.replace,
                    self.metrics.replace_skipped(),
                ))
            }),
            cell: own,
        }
    }

    fn listener_view(
        &self,
        listener: &Arc<config::Listener>,
        all: &[Arc<RouteView>],
    ) -> Result<Arc<ListenerView>, BuildError> {
        let on = |route: &&Arc<RouteView>| match route.config.listeners.as_slice() {
            [] => listener.protocol == ListenerProtocol::Http,
            names => names.contains(&listener.name),
        };
        let routes: Vec<Arc<RouteView>> = all.iter().filter(on).cloned().collect();
        let configs: Vec<Arc<config::Route>> =
            routes.iter().map(|r| Arc::clone(&r.config)).collect();
        let (tls, fresh) = match &listener.tls {
            None => (None, None),
            Some(wanted) => {
                let found = self.server_tls(listener, wanted);
                let (state, fresh) = found.map_err(|e| BuildError {
                    position: Some(listener.position.clone()),
                    message: format!("listener `{}`: {e}", listener.name),
                })?;
                (Some(state), fresh)
            }
        };
        Ok(Arc::new(ListenerView {
            config: Arc::clone(listener),
            table: Arc::new(RouteTable::new(&configs)),
            asks: models::asks(&routes),
            routes,
            tls,
            fresh,
        }))
    }

    /// The state of an unchanged `tls:` is kept, so that session tickets stay valid.
    fn server_tls(
        &self,
        listener: &config::Listener,
        wanted: &config::ServerTls,
    ) -> Result<(Arc<ServerTlsState>, Option<Arc<Loaded>>), TlsError> {
        let before = self.old.and_then(|old| {
            old.listeners
                .iter()
                .find(|l| l.config.name == listener.name)
        });
        if let Some(before) = before
            && before.config.tls.as_ref() == Some(wanted)
            && let Some(state) = &before.tls
        {
            return Ok((Arc::clone(state), state.prepare(wanted)?));
        }
        let alpn: &[&[u8]] = match listener.protocol {
            ListenerProtocol::Http => &[b"h2", b"http/1.1"],
            ListenerProtocol::Tcp => &[],
        };
        Ok((Arc::new(ServerTlsState::load(wanted, alpn)?), None))
    }
}

/// Tells connections made under these TLS settings and file contents from all others.
fn connector_key(cluster: &config::Cluster) -> Result<u64, TlsError> {
    let mut hasher = DefaultHasher::new();
    if let Some(wanted) = &cluster.tls {
        wanted.hash(&mut hasher);
        tls::client::fingerprint(wanted)?.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

fn cluster_view(
    cluster: &Arc<config::Cluster>,
    registry: &Registry,
) -> Result<ClusterView, BuildError> {
    let error = |e: TlsError| BuildError {
        position: Some(cluster.position.clone()),
        message: format!("cluster `{}`: {e}", cluster.name),
    };
    // Taken before the files are used: whatever changes in between is noticed later.
    let key = connector_key(cluster).map_err(error)?;
    let tls = match &cluster.tls {
        None => None,
        Some(wanted) => {
            let named = match &wanted.server_name {
                Some(name) => Some(tls::client::server_name(wanted, name).map_err(error)?),
                None => None,
            };
            Some(Arc::new(ConnectorTls {
                http1: tls::client::client_config(wanted, &[b"http/1.1"]).map_err(error)?,
                http2: tls::client::client_config(wanted, &[b"h2"]).map_err(error)?,
                server_name: named,
            }))
        }
    };
    let connector = Connector {
        timeout: cluster.connect_timeout,
        limit: cluster.breaker.connections,
        tls,
        key,
        port: None,
    };
    Ok(ClusterView {
        config: Arc::clone(cluster),
        state: registry.cluster(&cluster.name),
        grpc: cluster.ports.grpc.map(|port| connector.at_port(port)),
        connector,
    })
}

impl ClusterView {
    /// How connections for a request with these headers are opened.
    pub fn connector_for(&self, headers: &http::HeaderMap) -> &Connector {
        match &self.grpc {
            Some(grpc) if is_grpc(headers) => grpc,
            _ => &self.connector,
        }
    }

    /// The keys of all its connections.
    pub fn connector_keys(&self) -> impl Iterator<Item = u64> {
        let all = std::iter::once(&self.connector).chain(&self.grpc);
        all.map(|connector| connector.key)
    }

    /// Whether a request goes over HTTP/2; `grpc`: it is one.
    pub fn wants_http2(&self, grpc: bool) -> bool {
        match self.config.protocol {
            UpstreamProtocol::Auto => grpc,
            UpstreamProtocol::Http1 => false,
            UpstreamProtocol::Http2 => true,
        }
    }
}

impl ListenerView {
    /// The longest a peer may take for a head or handshake.
    pub fn header_timeout(&self) -> Duration {
        self.config.limits.header_timeout
    }
}
