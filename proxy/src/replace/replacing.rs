//! The replacements of a route, and the answers they could not be made in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forebay_config::Replace;

use super::Replacer;

/// How often the log says that answers pass unedited.
const SAY_AGAIN: u64 = 60;

/// `body.replace` of a route at work.
#[derive(Debug)]
pub struct Replacing {
    /// Compiled.
    pub replacer: Replacer,
    skipped: Arc<AtomicU64>,
    began: Instant,
    /// Seconds after `began` when the log said it last, plus 1; 0: never.
    said: AtomicU64,
}

impl Replacing {
    /// * `skipped`: counts answers that pass as they are because of their encoding
    pub fn new(entries: &[Replace], skipped: Arc<AtomicU64>) -> Self {
        Self {
            replacer: Replacer::new(entries),
            skipped,
            began: Instant::now(),
            said: AtomicU64::new(0),
        }
    }

    /// An answer passes as it is because it is encoded in a way that is not read here.
    pub fn skipped(&self, route: &str, coding: &str) {
        self.skipped.fetch_add(1, Ordering::Relaxed); // a statistic: orders no other memory
        let now = Duration::as_secs(&self.began.elapsed()) + 1;
        let said = self.said.load(Ordering::Relaxed);
        let due = said == 0 || now >= said + SAY_AGAIN;
        let exchange = |said| {
            self.said
                .compare_exchange(said, now, Ordering::Relaxed, Ordering::Relaxed)
        };
        if due && exchange(said).is_ok() {
            tracing::warn!(
                route,
                coding,
                "an answer passes unedited: it is encoded although the endpoint was asked for `identity`"
            );
        }
    }
}
