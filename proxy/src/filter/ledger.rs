//! Steps compiled for one configuration, with what they keep from the one before.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_config::peek::Places;
use forebay_config::pointer::Pointer;
use forebay_config::{Action, Bound, Config, LimitKey, LimitSource, Position, RateLimit, Route};

use super::Filters;
use super::access::Access;
use super::auth::Keys;
use super::cors::Cors;
use super::files::{FileError, Files};
use super::limit::{Limits, State, Tally};
use super::sticky::Sticky;
use crate::metrics::{Samples, family};

/// Counters and buckets by name, handed from one configuration to the next: a limit is known by its route and name,
/// a policy by its name, an access list by its route.
#[derive(Debug, Default)]
pub struct Ledger {
    limits: HashMap<(String, String), State>,
    policies: HashMap<String, State>,
    limited: BTreeMap<(String, String), Arc<AtomicU64>>,
    denied: BTreeMap<String, Arc<AtomicU64>>,
    filtered: HashSet<String>,
    files: Files,
}

/// Why steps cannot be compiled.
#[derive(Debug)]
pub struct FilterError {
    /// Where the configuration names the file.
    pub position: Position,
    /// Which file, and what is wrong with it.
    pub message: String,
}

impl Ledger {
    /// Requests in progress under a limit of a route's own; `None`: there is no such limit.
    pub fn in_progress(&self, route: &str, limit: &str) -> Option<u64> {
        let key = (route.to_owned(), limit.to_owned());
        self.limits.get(&key).map(|state| state.slots.in_progress())
    }

    /// What a limit of a route has counted; nothing when there is no such limit.
    pub fn tally(&self, route: &str, limit: &RateLimit) -> Tally {
        let key = (route.to_owned(), limit.name.clone());
        let state = match &limit.source {
            LimitSource::Own(_) => self.limits.get(&key),
            LimitSource::Policy(policy) => self.policies.get(&policy.name),
        };
        let refused = self.limited.get(&key);
        Tally {
            keys: state.map_or(0, |state| match &limit.rule().bound {
                Bound::Rate(_) => state.buckets.len(),
                Bound::Concurrent(_) => state.slots.keys(),
            }),
            in_progress: state.map_or(0, |state| state.slots.in_progress()),
            refused: refused.map_or(0, |count| count.load(Ordering::Relaxed)),
        }
    }

    /// Requests that the access list of a route refused, or would have but for a dry run.
    pub fn denied(&self, route: &str) -> u64 {
        let count = self.denied.get(route);
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// True when the route of this name has any step.
    pub fn filters(&self, route: &str) -> bool {
        self.filtered.contains(route)
    }

    /// The list and key files that were read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.paths()
    }

    /// True when a list or key file is not what was read any more; blocking.
    pub fn files_changed(&self) -> bool {
        self.files.changed()
    }

    /// Adds `rate_limited_total` and `access_denied_total` to a scrape.
    pub fn collect(&self, samples: &mut Samples) {
        for ((route, limit), count) in &self.limited {
            let count = count.load(Ordering::Relaxed) as f64;
            samples.add(&family::RATE_LIMITED, &[route, limit], count);
        }
        for (route, count) in &self.denied {
            let count = count.load(Ordering::Relaxed) as f64;
            samples.add(&family::ACCESS_DENIED, &[route], count);
        }
    }
}

/// Compiles the steps of every route of one configuration.
pub struct Compiler<'a> {
    old: Option<&'a Ledger>,
    new: Ledger,
    keys: Option<Arc<Keys>>,
}

impl<'a> Compiler<'a> {
    /// Begins, and reads the key file.
    ///
    /// * `old`: of the configuration that is replaced
    ///
    /// # Errors
    ///
    /// The key file cannot be used.
    pub fn new(config: &Config, old: Option<&'a Ledger>) -> Result<Self, FilterError> {
        let mut new = Ledger::default();
        let keys = match &config.auth.api_keys {
            None => None,
            Some(wanted) => {
                let read = new.files.keys(&wanted.file).map_err(|error| FilterError {
                    position: wanted.position.clone(),
                    message: format!("auth.api_keys: {error}"),
                })?;
                Some(Arc::new(Keys::new(read)))
            }
        };
        Ok(Self { old, new, keys })
    }

    /// Compiles the steps of a route; `None`: it has none.
    ///
    /// # Errors
    ///
    /// A list file cannot be used.
    pub fn route(&mut self, route: &Route) -> Result<Option<Box<Filters>>, FilterError> {
        let access = match &route.access {
            None => None,
            Some(access) => Some(self.access(route, access).map_err(|error| FilterError {
                position: access.position.clone(),
                message: format!("route `{}`: access: {error}", route.name),
            })?),
        };
        let limits = self.limits(route);
        let filters = Filters {
            cors: route.cors.as_ref().map(Cors::new),
            access,
            keys: self.keys.clone(),
            key_required: route.auth.required,
            keep_key: route.auth.keep_key,
            limits,
            body_max: route.body_max,
            fields: fields(route),
            sticky: sticky(route),
        };
        let some = filters.cors.is_some()
            || filters.access.is_some()
            || filters.keys.is_some()
            || filters.key_required
            || filters.sticky.is_some()
            || !filters.limits.is_empty();
        if some {
            self.new.filtered.insert(route.name.clone());
        }
        Ok(some.then(|| Box::new(filters)))
    }

    fn access(
        &mut self,
        route: &Route,
        config: &forebay_config::Access,
    ) -> Result<Access, FileError> {
        let kept = self.old.and_then(|old| old.denied.get(&route.name));
        let denied = kept.cloned().unwrap_or_default();
        self.new
            .denied
            .insert(route.name.clone(), Arc::clone(&denied));
        Access::new(config, &mut self.new.files, denied)
    }

    fn limits(&mut self, route: &Route) -> Limits {
        let mut limits = Limits::default();
        for limit in &route.rate_limits {
            let key = (route.name.clone(), limit.name.clone());
            let kept = self.old.and_then(|old| old.limited.get(&key));
            let refused = kept.cloned().unwrap_or_default();
            self.new.limited.insert(key.clone(), Arc::clone(&refused));
            let state = match &limit.source {
                LimitSource::Own(_) => {
                    let kept = self.old.and_then(|old| old.limits.get(&key)).cloned();
                    self.new
                        .limits
                        .entry(key)
                        .or_insert(kept.unwrap_or_default())
                }
                LimitSource::Policy(policy) => {
                    let kept = self.old.and_then(|old| old.policies.get(&policy.name));
                    let kept = kept.cloned().unwrap_or_default();
                    self.new.policies.entry(policy.name.clone()).or_insert(kept)
                }
            };
            limits.push(limit, state, refused);
        }
        limits
    }

    /// What the next configuration will begin with.
    pub fn finish(mut self) -> Ledger {
        self.new.files.seal();
        self.new
    }
}

/// Every place in a body that a limit's key or the sticky split is at, once.
fn fields(route: &Route) -> Option<Arc<Places>> {
    let limits = route.rate_limits.iter().map(|limit| &limit.rule().per);
    let limits = limits.filter_map(|per| match per {
        LimitKey::Json(place) => Some(place),
        _ => None,
    });
    let sticky = match &route.sticky {
        Some(forebay_config::Sticky::Json(place)) => Some(place),
        _ => None,
    };
    let mut fields: Vec<Pointer> = Vec::new();
    for place in limits.chain(sticky) {
        if !fields.contains(place) {
            fields.push(place.clone());
        }
    }
    (!fields.is_empty()).then(|| Arc::new(Places::new(&fields)))
}

fn sticky(route: &Route) -> Option<Sticky> {
    let Action::Forward(members) = &route.action else {
        return None;
    };
    let by = route.sticky.clone().filter(|_| members.len() > 1)?;
    let names = members.iter().map(|member| member.cluster.as_str());
    Some(Sticky::new(by, names))
}
