//! What came of all comparisons of one mirror.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::found::{Difference, Differences};
use super::latency::Latency;
use crate::secret::{REDACTED, is_secret, is_url, target};

/// Fields counted by name; what differs elsewhere is counted as [`OTHER`].
pub const MOST_NAMES: usize = 1000;
/// The name of all fields beyond the first 1000.
pub const OTHER: &str = "_other";

/// Diffy's `threshold.relative`, in percent.
const LEAST_RELATIVE: f64 = 20.0;
/// Diffy's `threshold.absolute`, in percent.
const LEAST_ABSOLUTE: f64 = 0.03;

/// What came of one comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing differs.
    Equal,
    /// Something differs.
    Different,
    /// Something differs, but only fields in which the noise cluster's answer to this request differs as well.
    Noise,
    /// A body is larger than what is compared; status and headers were.
    TooLarge,
    /// A body was cut; status and headers were compared.
    Incomplete,
    /// The primary gave no answer.
    PrimaryFailed,
    /// The copy got no answer.
    MirrorFailed,
    /// Not compared: too many are waiting.
    Busy,
}

impl Verdict {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 8] = [
        Self::Equal,
        Self::Different,
        Self::Noise,
        Self::TooLarge,
        Self::Incomplete,
        Self::PrimaryFailed,
        Self::MirrorFailed,
        Self::Busy,
    ];

    /// The `verdict` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Different => "different",
            Self::Noise => "noise",
            Self::TooLarge => "too_large",
            Self::Incomplete => "incomplete",
            Self::PrimaryFailed => "primary_failed",
            Self::MirrorFailed => "mirror_failed",
            Self::Busy => "busy",
        }
    }
}

/// What came of all comparisons of one mirror. Workers only touch its counters of verdicts, which take no lock.
#[derive(Debug, Default)]
pub struct Tally {
    verdicts: [AtomicU64; Verdict::ALL.len()],
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Comparisons made.
    total: u64,
    fields: HashMap<String, Field>,
    notes: BTreeMap<&'static str, u64>,
    primary: Latency,
    mirror: Latency,
}

/// Counts of comparisons in which a field differs.
#[derive(Debug, Default)]
struct Field {
    raw: u64,
    noise: u64,
    example: Option<Difference>,
}

impl Tally {
    /// Counts one verdict.
    pub fn count(&self, verdict: Verdict) {
        // Statistics: they order no other memory.
        self.verdicts[verdict as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Label and count of every verdict, those of 0 as well.
    pub fn verdicts(&self) -> [(&'static str, u64); Verdict::ALL.len()] {
        let count = |verdict: Verdict| self.verdicts[verdict as usize].load(Ordering::Relaxed);
        Verdict::ALL.map(|verdict| (verdict.label(), count(verdict)))
    }

    /// Adds one comparison: what the copy's answer differs in, and the noise cluster's, if there is one.
    pub(super) fn record(&self, raw: &Differences, noise: Option<&Differences>) {
        let mut seen = self.lock();
        seen.total += 1;
        seen.each_field(raw, |field, difference| {
            field.raw += 1;
            field.example = Some(difference.clone());
        });
        if let Some(noise) = noise {
            seen.each_field(noise, |field, _| field.noise += 1);
        }
        for note in &raw.notes {
            seen.note(note);
        }
    }

    /// Adds one pair of latencies, both of whole answers; seconds.
    pub(super) fn time(&self, primary: f64, mirror: f64) {
        let mut seen = self.lock();
        seen.primary.add(primary);
        seen.mirror.add(mirror);
    }

    /// Counts something that should be known of how comparisons were made.
    pub(super) fn note(&self, note: &'static str) {
        self.lock().note(note);
    }

    /// Returns what `GET /api/mirrors` shows of a mirror:
    ///
    /// ```json
    /// {"verdicts": {"equal": 1, "different": 0, "noise": 0, "too_large": 0, "incomplete": 0, "primary_failed": 0,
    ///               "mirror_failed": 0, "busy": 0},
    ///  "total": 1,
    ///  "fields": [{"field": "/outputs/*/data/*", "raw": 1, "noise": 0, "relative": 100.0, "absolute": 100.0,
    ///              "regression": true, "example": {"primary": "1", "mirror": null}}],
    ///  "latency": {"primary": {"mean": 0.1, "p50": 0.1, "p99": 0.1}, "mirror": {"mean": 0.2, "p50": 0.2, "p99": 0.2},
    ///              "ratio": 2.0},
    ///  "notes": {"array_ordered": 1}}
    /// ```
    ///
    /// `total` counts the comparisons made (`equal` to `incomplete`), `relative` and `absolute` are percent, latencies
    /// seconds, `ratio` that of the means; what there is none of is `null`. Regressions come first, then what differs
    /// most often.
    pub fn describe(&self) -> Value {
        let verdicts: serde_json::Map<_, _> = {
            let counts = self.verdicts().into_iter();
            counts
                .map(|(label, count)| (label.to_owned(), count.into()))
                .collect()
        };
        let seen = self.lock();
        let mut fields: Vec<_> = seen
            .fields
            .iter()
            .map(|(name, field)| (name, field, field.rule(seen.total)))
            .collect();
        fields.sort_by(
            |(left_name, left, left_rule), (right_name, right, right_rule)| {
                let regressions = right_rule.regression.cmp(&left_rule.regression);
                regressions
                    .then(right.raw.cmp(&left.raw))
                    .then_with(|| left_name.cmp(right_name))
            },
        );
        let fields: Vec<_> = fields
            .into_iter()
            .map(|(name, field, rule)| field.describe(name, &rule))
            .collect();
        let means = seen.primary.mean().zip(seen.mirror.mean());
        let ratio = means
            .filter(|(primary, _)| *primary > 0.0)
            .map(|(primary, mirror)| mirror / primary);
        json!({
            "verdicts": verdicts,
            "total": seen.total,
            "fields": fields,
            "latency": {"primary": seen.primary.describe(), "mirror": seen.mirror.describe(), "ratio": ratio},
            "notes": seen.notes,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // Counters make sense wherever a panic left them.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Calls `count` for every field in `found`, for [`OTHER`] once at most.
    fn each_field(&mut self, found: &Differences, mut count: impl FnMut(&mut Field, &Difference)) {
        let mut other = None;
        for (name, difference) in &found.fields {
            if self.fields.len() < MOST_NAMES || self.fields.contains_key(name) {
                count(self.fields.entry(name.clone()).or_default(), difference);
            } else {
                other = Some(difference);
            }
        }
        if let Some(difference) = other {
            count(self.fields.entry(OTHER.to_owned()).or_default(), difference);
        }
    }

    fn note(&mut self, note: &'static str) {
        *self.notes.entry(note).or_default() += 1;
    }
}

/// Diffy's view of a field.
#[derive(Debug, PartialEq)]
struct Rule {
    /// Percent.
    relative: f64,
    /// Percent.
    absolute: f64,
    regression: bool,
}

impl Field {
    /// Source: Diffy's `JoinedField` and `DifferencesFilterFactory`.
    fn rule(&self, total: u64) -> Rule {
        let apart = self.raw.abs_diff(self.noise) as f64;
        let percent = |of: u64| {
            if of == 0 {
                0.0
            } else {
                apart / of as f64 * 100.0
            }
        };
        let (relative, absolute) = (percent(self.raw + self.noise), percent(total));
        let regression =
            self.raw > self.noise && relative > LEAST_RELATIVE && absolute > LEAST_ABSOLUTE;
        Rule {
            relative,
            absolute,
            regression,
        }
    }

    fn describe(&self, name: &str, rule: &Rule) -> Value {
        let example = self.example.as_ref();
        json!({
            "field": name,
            "raw": self.raw,
            "noise": self.noise,
            "relative": rule.relative,
            "absolute": rule.absolute,
            "regression": rule.regression,
            "example": example.map(|example| shown(name, example)),
        })
    }
}

/// Without the values of headers that carry secrets.
fn shown(name: &str, example: &Difference) -> Value {
    let header = name.strip_prefix("header:");
    let value = |value: &Option<String>| {
        let value = value.as_deref()?;
        Some(match header {
            Some(header) if is_secret(header) => REDACTED.to_owned(),
            Some(header) if is_url(header) => target(value).into_owned(),
            _ => value.to_owned(),
        })
    };
    json!({"primary": value(&example.primary), "mirror": value(&example.mirror)})
}
