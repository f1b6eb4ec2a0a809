//! The mirrors of a configuration, compiled, with what they keep from the one before.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_config as config;
use http::HeaderValue;
use serde_json::{Value, json};

use super::state::{MirrorState, Outcome};
use crate::capture::Budget;
use crate::compare::Comparer;
use crate::metrics::{Samples, family};
use crate::record::Recorder;
use crate::snapshot::ClusterView;

/// The mirrors of one route, and what is written down of its requests.
pub struct Mirrors {
    /// In the order of the configuration.
    pub all: Vec<Arc<MirrorView>>,
    /// With its share of requests, in millionths, and the bytes kept of a body.
    pub record: Option<(Arc<Recorder>, u32, u64)>,
    /// Compares answers off the workers.
    pub comparer: Arc<Comparer>,
    /// The route's name.
    pub route: Arc<str>,
    /// Bytes of requests and answers of the primary that are kept, over all workers.
    pub budget: Arc<Budget>,
}

impl Mirrors {
    /// The clusters that get copies.
    pub fn clusters(&self) -> impl Iterator<Item = &config::Cluster> {
        self.all.iter().flat_map(|mirror| {
            let noise = mirror
                .compare
                .as_ref()
                .and_then(|(_, noise)| noise.as_ref());
            let both = std::iter::once(&mirror.cluster).chain(noise);
            both.map(|view| &*view.config)
        })
    }
}

/// Bytes of requests and answers of the primary that are kept for comparing and recording, of one route.
const KEPT: u64 = 64 << 20;

/// One mirror.
pub struct MirrorView {
    /// As configured.
    pub config: config::Mirror,
    /// Its name.
    pub name: Arc<str>,
    /// Value of `x-forebay-mirror`.
    pub tag: HeaderValue,
    /// Where copies go.
    pub cluster: Arc<ClusterView>,
    /// What its answers are compared by, and where the noise twin is.
    pub compare: Option<(Arc<config::Compare>, Option<Arc<ClusterView>>)>,
    /// What outlives the generation.
    pub state: Arc<MirrorState>,
}

/// Why mirrors cannot be compiled.
#[derive(Debug)]
pub struct MirrorError {
    /// Where the configuration asks for it.
    pub position: config::Position,
    /// Which file, and what is wrong with it.
    pub message: String,
}

/// What mirrors and recordings keep, handed from one configuration to the next: a mirror is known by its route and
/// name, a recording by its route.
#[derive(Default)]
pub struct Ledger {
    mirrors: BTreeMap<(String, String), (Arc<MirrorState>, Shown)>,
    recorders: HashMap<String, (config::Recording, Arc<Recorder>)>,
    comparer: Option<Arc<Comparer>>,
}

/// What is shown of a mirror besides its state.
struct Shown {
    cluster: String,
    sample: u32,
    compares: bool,
}

impl Ledger {
    /// Writes out what recordings hold, all at once.
    pub fn close(&self, within: Duration) {
        let deadline = Instant::now() + within;
        let recorders = self.recorders.values().map(|(_, recorder)| recorder);
        let asked: Vec<_> = recorders.map(|r| (r, r.ask_flush())).collect();
        for (recorder, flush) in asked {
            recorder.await_flush(flush, deadline.saturating_duration_since(Instant::now()));
        }
    }

    /// Opens files again, after they were moved away.
    pub fn reopen(&self) {
        for (_, recorder) in self.recorders.values() {
            recorder.reopen();
        }
    }

    /// The files that recordings write; never read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let configs = self.recorders.values().map(|(config, _)| config);
        configs.filter_map(|config| config.path.as_deref())
    }

    /// Adds what mirrors, comparisons and recordings count to a scrape.
    pub fn collect(&self, samples: &mut Samples) {
        for ((route, mirror), (state, shown)) in &self.mirrors {
            let others = state.others();
            for result in Outcome::RESULTS {
                let count = match result {
                    "ok" => state.ok(),
                    _ => {
                        let of = others.iter().filter(|(o, _)| o.result() == result);
                        of.map(|(_, count)| count).sum()
                    }
                };
                samples.add(
                    &family::MIRROR_REQUESTS,
                    &[route, mirror, result],
                    count as f64,
                );
            }
            for (outcome, count) in &others {
                let labels = [route, mirror, outcome.result(), outcome.reason()];
                samples.add(&family::MIRROR_FAILURES, &labels, *count as f64);
            }
            let in_flight = f64::from(state.in_flight());
            samples.add(&family::MIRROR_IN_FLIGHT, &[route, mirror], in_flight);
            let held = state.budget.held() as f64;
            samples.add(&family::MIRROR_HELD, &[route, mirror], held);
            if shown.compares {
                for (verdict, count) in state.tally.verdicts() {
                    samples.add(&family::COMPARE, &[route, mirror, verdict], count as f64);
                }
            }
        }
        for (route, (_, recorder)) in &self.recorders {
            let counts = recorder.counts();
            for (result, count) in [
                ("written", counts.written),
                ("posted", counts.posted),
                ("dropped", counts.dropped()),
            ] {
                samples.add(&family::RECORD, &[route, result], count as f64);
            }
        }
    }

    /// What `/api/mirrors` shows, by route and name.
    pub fn report(&self) -> Value {
        let mirrors = self.mirrors.iter();
        let mirrors = mirrors.map(|((route, name), (state, shown))| {
            let mut reasons = BTreeMap::from([("ok".to_owned(), state.ok())]);
            for (outcome, count) in state.others() {
                let key = match outcome {
                    Outcome::Ok => continue,
                    Outcome::Timeout => "timeout".to_owned(),
                    other => format!("{}:{}", other.result(), other.reason()),
                };
                reasons.insert(key, count);
            }
            json!({
                "route": route,
                "name": name,
                "cluster": shown.cluster,
                "sample": f64::from(shown.sample) / 1e6,
                "in_flight": state.in_flight(),
                "held_bytes": state.budget.held(),
                "outcomes": reasons,
                "compare": shown.compares.then(|| state.tally.describe()),
            })
        });
        let mirrors: Vec<Value> = mirrors.collect();
        let mut records: Vec<_> = self.recorders.iter().collect();
        records.sort_by_key(|(route, _)| route.as_str());
        let records: Vec<Value> = records
            .into_iter()
            .map(|(route, (config, recorder))| {
                let counts = recorder.counts();
                json!({
                    "route": route,
                    "path": config.path,
                    "url": config.url.is_some(),
                    "written": counts.written,
                    "posted": counts.posted,
                    "dropped": counts.dropped(),
                })
            })
            .collect();
        json!({ "mirrors": mirrors, "records": records })
    }
}

/// True when only the place in the file differs.
fn is_same(one: &config::Recording, other: &config::Recording) -> bool {
    let position = other.position.clone();
    let there = config::Recording {
        position,
        ..one.clone()
    };
    there == *other
}

/// Compiles the mirrors of every route of one configuration.
pub struct Compiler<'a> {
    old: Option<&'a Ledger>,
    new: Ledger,
    comparer: Arc<Comparer>,
}

impl<'a> Compiler<'a> {
    /// * `old`: of the configuration that is replaced
    pub fn new(old: Option<&'a Ledger>) -> Self {
        let comparer = old.and_then(|old| old.comparer.clone());
        Self {
            old,
            new: Ledger::default(),
            comparer: comparer.unwrap_or_else(Comparer::start),
        }
    }

    /// Compiles the mirrors and the recording of a route; `None`: it has neither.
    ///
    /// # Errors
    ///
    /// The recording's file cannot be opened.
    pub fn route(
        &mut self,
        route: &config::Route,
        clusters: &HashMap<String, Arc<ClusterView>>,
    ) -> Result<Option<Box<Mirrors>>, MirrorError> {
        if route.mirrors.is_empty() && route.record.is_none() {
            return Ok(None);
        }
        let all = route.mirrors.iter();
        let all = all.map(|mirror| Arc::new(self.mirror(route, mirror, clusters)));
        let all = all.collect();
        let record = match &route.record {
            None => None,
            Some(wanted) => {
                let recorder = self.recorder(route, wanted)?;
                Some((recorder, wanted.sample, wanted.max_body))
            }
        };
        Ok(Some(Box::new(Mirrors {
            all,
            record,
            comparer: Arc::clone(&self.comparer),
            route: route.name.as_str().into(),
            budget: Arc::new(Budget::new(KEPT)),
        })))
    }

    fn mirror(
        &mut self,
        route: &config::Route,
        mirror: &config::Mirror,
        clusters: &HashMap<String, Arc<ClusterView>>,
    ) -> MirrorView {
        let cluster = |name: &str| {
            let cluster = clusters.get(name);
            Arc::clone(cluster.expect("validation resolved every cluster's name"))
        };
        let key = (route.name.clone(), mirror.name.clone());
        let kept = self.old.and_then(|old| old.mirrors.get(&key));
        let state = match kept {
            Some((state, _)) => {
                state.budget.set(mirror.max_bytes);
                Arc::clone(state)
            }
            None => Arc::new(MirrorState::new(mirror.max_bytes)),
        };
        let shown = Shown {
            cluster: mirror.cluster.clone(),
            sample: mirror.sample,
            compares: mirror.compare.is_some(),
        };
        self.new.mirrors.insert(key, (Arc::clone(&state), shown));
        let compare = mirror.compare.as_ref().map(|compare| {
            let noise = compare.noise.as_deref().map(cluster);
            (Arc::new(compare.clone()), noise)
        });
        MirrorView {
            name: mirror.name.as_str().into(),
            tag: HeaderValue::from_str(&mirror.name)
                .unwrap_or_else(|_| HeaderValue::from_static("mirror")),
            cluster: cluster(&mirror.cluster),
            config: mirror.clone(),
            compare,
            state,
        }
    }

    /// A recording that did not change is kept.
    fn recorder(
        &mut self,
        route: &config::Route,
        wanted: &config::Recording,
    ) -> Result<Arc<Recorder>, MirrorError> {
        let kept = self.old.and_then(|old| old.recorders.get(&route.name));
        let recorder = match kept {
            Some((config, recorder)) if is_same(config, wanted) => Arc::clone(recorder),
            _ => Recorder::start(wanted).map_err(|error| MirrorError {
                position: wanted.position.clone(),
                message: format!("route `{}`: record: {error}", route.name),
            })?,
        };
        let entry = (wanted.clone(), Arc::clone(&recorder));
        self.new.recorders.insert(route.name.clone(), entry);
        Ok(recorder)
    }

    /// What the next configuration will begin with.
    pub fn finish(mut self) -> Ledger {
        self.new.comparer = Some(self.comparer);
        self.new
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;
    use crate::capture::{Kept, Seen, SeenRequest};
    use crate::record::{Entry, Role};

    fn recording(text: String) -> config::Recording {
        let file = config::load::SourceFile {
            name: "test.yaml".into(),
            directory: ".".into(),
            text,
        };
        let loaded = config::load::load(&[file], &|_| None).unwrap();
        loaded.config.routes[0].record.clone().unwrap()
    }

    fn posting(above: &str, url: &str) -> config::Recording {
        recording(format!(
            "{above}routes: [{{name: r, cluster: c, record: {{url: '{url}'}}}}]\n\
             clusters: [{{name: c, endpoints: ['127.0.0.1:1']}}]\n"
        ))
    }

    #[test]
    fn a_recording_is_the_same_wherever_it_is_written() {
        let one = posting("", "http://127.0.0.1:1/");
        let moved = posting("# a line above\n", "http://127.0.0.1:1/");
        assert_ne!(one.position, moved.position);
        assert!(is_same(&one, &moved));
        assert!(!is_same(&one, &posting("", "http://127.0.0.1:2/")));
    }

    #[test]
    fn recordings_share_the_time_they_have_at_the_end() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap(); // accepts nobody
        let config = posting("", &format!("http://{}/", listener.local_addr().unwrap()));
        let mut ledger = Ledger::default();
        for route in ["a", "b", "c", "d"] {
            let recorder = Recorder::start(&config).unwrap();
            let entry = (config.clone(), Arc::clone(&recorder));
            ledger.recorders.insert(route.to_owned(), entry);
            assert!(recorder.submit(Entry {
                time: std::time::SystemTime::now(),
                role: Role::Primary,
                mirror: None,
                cluster: "c".into(),
                request: Arc::new(SeenRequest {
                    id: String::new(),
                    route: route.into(),
                    method: Method::GET,
                    authority: String::new(),
                    target: "/".to_owned(),
                    headers: HeaderMap::new(),
                    body: Kept::default(),
                }),
                seen: Seen::Nothing("connect_failed"),
            }));
        }
        let began = Instant::now();
        ledger.close(Duration::from_millis(500));
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(500), "{took:?}");
        assert!(took < Duration::from_millis(1500), "{took:?}");
    }
}
