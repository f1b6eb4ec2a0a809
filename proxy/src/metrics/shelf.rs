//! Series by name, outliving configurations and bounded over any number of them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a series that nothing configures or holds is still exported, so that its last value is scraped.
pub(super) const KEEP: Duration = Duration::from_secs(300);

/// Most such series; beyond it the longest idle ones go at once.
pub(super) const MAX_IDLE: usize = 1000;

/// One value per worker, under the labels that all of them share.
#[derive(Debug)]
pub struct PerWorker<T> {
    pub(super) route: Box<str>,
    pub(super) cluster: Box<str>,
    pub(super) cells: Box<[Arc<T>]>,
}

impl<T> PerWorker<T> {
    pub(super) fn new(
        workers: usize,
        route: &str,
        cluster: &str,
        make: impl FnMut(usize) -> T,
    ) -> Self {
        let cells = (0..workers).map(make).map(Arc::new).collect();
        Self {
            route: route.into(),
            cluster: cluster.into(),
            cells,
        }
    }

    /// Returns the cells of the worker with the number `index`, of which it must be the only writer.
    ///
    /// # Panics
    ///
    /// When `index` is not below the number of workers that the metrics were made for.
    pub fn worker(&self, index: usize) -> &Arc<T> {
        &self.cells[index]
    }

    /// The route these cells are about; empty when no route matched.
    pub fn route(&self) -> &str {
        &self.route
    }

    /// The cluster these cells are about; empty when none was chosen.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    fn is_held(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1 || self.cells.iter().any(|cell| Arc::strong_count(cell) > 1)
    }
}

#[derive(Debug)]
struct Entry<V> {
    value: Arc<V>,
    configured: bool,
    idle_since: Option<Instant>,
}

/// Values by key.
#[derive(Debug)]
pub(super) struct Shelf<K, V>(HashMap<K, Entry<V>>);

impl<K, V> Default for Shelf<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash + Clone, V> Shelf<K, V> {
    pub(super) fn find(&self, key: &K) -> Option<&Arc<V>> {
        self.0.get(key).map(|entry| &entry.value)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn find_or_insert(&mut self, key: K, make: impl FnOnce() -> V) -> &Arc<V> {
        &self
            .0
            .entry(key)
            .or_insert_with(|| Entry {
                value: Arc::new(make()),
                configured: false,
                idle_since: None,
            })
            .value
    }

    /// Marks nothing as configured.
    pub(super) fn forget_configured(&mut self) {
        self.0
            .values_mut()
            .for_each(|entry| entry.configured = false);
    }

    /// Marks one value as configured: it stays and its zeros are exported.
    pub(super) fn set_configured(&mut self, key: &K) {
        if let Some(entry) = self.0.get_mut(key) {
            entry.configured = true;
        }
    }

    /// Every value, and whether it is configured.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<V>, bool)> {
        self.0
            .values()
            .map(|entry| (&entry.value, entry.configured))
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&K, &Arc<V>)> {
        self.0.iter().map(|(key, entry)| (key, &entry.value))
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }

    /// Drops what has been neither configured nor held for [`KEEP`], and more when there is too much of it.
    ///
    /// Whoever calls it holds the lock under which values are handed out, so an unheld value stays unheld.
    pub(super) fn sweep(&mut self, now: Instant, is_held: impl Fn(&Arc<V>) -> bool) {
        let mut idle = Vec::new();
        for (key, entry) in &mut self.0 {
            if entry.configured || is_held(&entry.value) {
                entry.idle_since = None;
            } else {
                idle.push((*entry.idle_since.get_or_insert(now), key.clone()));
            }
        }
        idle.sort_unstable_by_key(|&(since, _)| since);
        let excess = idle.len().saturating_sub(MAX_IDLE);
        for (position, (since, key)) in idle.into_iter().enumerate() {
            if position < excess || now.saturating_duration_since(since) >= KEEP {
                self.0.remove(&key);
            }
        }
    }
}

impl<K: Eq + Hash + Clone, T> Shelf<K, PerWorker<T>> {
    pub(super) fn sweep_cells(&mut self, now: Instant) {
        self.sweep(now, PerWorker::is_held);
    }
}
