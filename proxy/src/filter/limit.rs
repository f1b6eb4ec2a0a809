//! How much of a route a client may use: requests per time, and requests at once.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forebay_config::route::cookie;
use forebay_config::{Bound, LimitKey, MissingKey, PerKey, Quota, RateLimit};
use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue};

use super::bucket::{Buckets, KeyHash, Pace, Ticks, Verdict, hash_key};
use super::slots::{Permit, Slots};
use super::{Asked, client_bytes};
use crate::answer::Refusal;
use crate::error::Reason;

static RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
static RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

const ROUTE: KeyHash = 0;
const MISSING: KeyHash = 1;

/// What of a limit outlives the configuration.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Of a rate.
    pub buckets: Arc<Buckets>,
    /// Of a bound on requests at once.
    pub slots: Arc<Slots>,
}

/// What a limit has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Keys that have a bucket, or a request in progress.
    pub keys: usize,
    /// Requests in progress under a bound on requests at once.
    pub in_progress: u64,
    /// Requests refused since the limit is there, those of a dry run included.
    pub refused: u64,
}

/// The limits of a route, compiled: rates before bounds on requests at once, each in file order.
#[derive(Debug, Default)]
pub struct Limits {
    rates: Vec<Limit<Rate>>,
    bounds: Vec<Limit<u32>>,
    states: Vec<Arc<Buckets>>,
    slots: Vec<Arc<Slots>>,
}

#[derive(Debug)]
struct Limit<T> {
    name: String,
    per: LimitKey,
    missing: MissingKey,
    dry_run: bool,
    general: T,
    overrides: HashMap<KeyHash, T>,
    refused: Arc<AtomicU64>,
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    pace: Pace,
    quota: Quota,
}

impl Limits {
    /// Adds a limit.
    ///
    /// * `state`: of the same limit in the last configuration, or a new one
    /// * `refused`: counts the requests it refuses, or would refuse but for a dry run
    pub fn push(&mut self, config: &RateLimit, state: &State, refused: Arc<AtomicU64>) {
        match &config.rule().bound {
            Bound::Rate(quotas) => {
                let now = Ticks::at(Instant::now());
                let rate = |quota: &Quota| Rate {
                    pace: Pace::new(quota.rate, quota.burst.get().into(), now),
                    quota: *quota,
                };
                self.rates.push(Limit::new(config, quotas, rate, refused));
                self.states.push(Arc::clone(&state.buckets));
            }
            Bound::Concurrent(bounds) => {
                let limit = Limit::new(config, bounds, |bound| bound.get(), refused);
                self.bounds.push(limit);
                self.slots.push(Arc::clone(&state.slots));
            }
        }
    }

    /// True when there is no limit.
    pub fn is_empty(&self) -> bool {
        self.rates.is_empty() && self.bounds.is_empty()
    }

    /// Admits a request by all limits or refuses it and charges none.
    ///
    /// * `permits`: gets what must be held until the client has its last byte
    ///
    /// # Errors
    ///
    /// 429, with what the limit that refused says of itself.
    pub fn admit(&self, asked: &Asked<'_>, permits: &mut Vec<Permit>) -> Result<(), Refusal> {
        let taken = self.take_rates(asked)?;
        let entered = self.enter(asked, permits);
        if entered.is_err() {
            permits.clear();
            self.give_back(asked, taken);
        }
        entered
    }

    fn take_rates(&self, asked: &Asked<'_>) -> Result<usize, Refusal> {
        for (index, (limit, buckets)) in self.rates.iter().zip(&self.states).enumerate() {
            let (rate, wait) = match limit.key(asked) {
                Key::Skip => continue,
                Key::Refuse => (&limit.general, Duration::ZERO),
                Key::Of(key) => {
                    let rate = limit.of(key);
                    match buckets.take(key, rate.pace, asked.now) {
                        Verdict::Admitted => continue,
                        Verdict::Wait(time) => (rate, time),
                    }
                }
            };
            if limit.refuses() {
                self.give_back(asked, index);
                return Err(rate.refusal(&limit.name, wait));
            }
        }
        Ok(self.rates.len())
    }

    /// Undoes the first `count` rates, which admitted a request that something else refused.
    fn give_back(&self, asked: &Asked<'_>, count: usize) {
        for (limit, buckets) in self.rates.iter().zip(&self.states).take(count) {
            // A dry run may have refused: what it did not take it does not get back.
            if let (Key::Of(key), false) = (limit.key(asked), limit.dry_run) {
                buckets.give_back(key, limit.of(key).pace, asked.now);
            }
        }
    }

    fn enter(&self, asked: &Asked<'_>, permits: &mut Vec<Permit>) -> Result<(), Refusal> {
        for (limit, slots) in self.bounds.iter().zip(&self.slots) {
            let most = match limit.key(asked) {
                Key::Skip => continue,
                Key::Refuse => limit.general,
                Key::Of(key) => {
                    let most = *limit.of(key);
                    if let Some(permit) = slots.enter(key, most) {
                        permits.push(permit);
                        continue;
                    }
                    most
                }
            };
            if limit.refuses() {
                return Err(bound_refusal(&limit.name, most));
            }
        }
        Ok(())
    }
}

enum Key {
    Of(KeyHash),
    Skip,
    Refuse,
}

impl<T> Limit<T> {
    fn new<C>(
        config: &RateLimit,
        values: &PerKey<C>,
        compile: impl Fn(&C) -> T,
        refused: Arc<AtomicU64>,
    ) -> Self {
        let rule = config.rule();
        let others: &BTreeMap<String, C> = &values.overrides;
        Self {
            name: config.name.clone(),
            per: rule.per.clone(),
            missing: rule.missing,
            dry_run: config.dry_run,
            general: compile(&values.general),
            overrides: others
                .iter()
                .map(|(key, value)| (override_key(&rule.per, key), compile(value)))
                .collect(),
            refused,
        }
    }

    fn of(&self, key: KeyHash) -> &T {
        if self.overrides.is_empty() {
            return &self.general;
        }
        self.overrides.get(&key).unwrap_or(&self.general)
    }

    fn key(&self, asked: &Asked<'_>) -> Key {
        let found = match &self.per {
            LimitKey::Route => return Key::Of(ROUTE),
            LimitKey::ClientIp => Some(client_key(asked.client)),
            LimitKey::Identity => asked.identity.map(|name| hash_key(name.as_bytes())),
            LimitKey::Header(name) => header_key(asked, name),
            LimitKey::Cookie(name) => cookie(asked.headers, name).map(hash_key),
            LimitKey::Json(place) => asked
                .fields
                .get(place)
                .map(|value| hash_key(value.as_bytes())),
        };
        match (found, self.missing) {
            (Some(key), _) => Key::Of(key),
            (None, MissingKey::Shared) => Key::Of(MISSING),
            (None, MissingKey::Skip) => Key::Skip,
            (None, MissingKey::Refuse) => Key::Refuse,
        }
    }

    /// Counts a request that is over the limit; `true`: it is refused indeed.
    fn refuses(&self) -> bool {
        self.refused.fetch_add(1, Ordering::Relaxed); // a statistic: orders no other memory
        !self.dry_run
    }
}

fn client_key(client: IpAddr) -> KeyHash {
    let (bytes, length) = client_bytes(client);
    hash_key(&bytes[..length])
}

/// All lines of a field together are its value: nobody gets two buckets by sending two lines.
fn header_key(asked: &Asked<'_>, name: &HeaderName) -> Option<KeyHash> {
    let mut lines = asked.headers.get_all(name).iter();
    let mut value = Cow::Borrowed(lines.next()?.as_bytes());
    for line in lines {
        value.to_mut().push(b',');
        value.to_mut().extend_from_slice(line.as_bytes());
    }
    Some(hash_key(&value))
}

fn override_key(per: &LimitKey, key: &str) -> KeyHash {
    match (per, key.parse::<IpAddr>()) {
        (LimitKey::ClientIp, Ok(ip)) => client_key(ip),
        _ => hash_key(key.as_bytes()),
    }
}

impl Rate {
    fn refusal(&self, name: &str, wait: Duration) -> Refusal {
        let wait = wait.as_nanos().div_ceil(1_000_000_000).max(1);
        let rate = self.quota.rate;
        let part = gcd(rate.thousandths, 1000);
        let (quota, window) = (
            rate.thousandths / part,
            rate.period.as_secs() * (1000 / part),
        );
        refusal(
            Reason::RateLimited,
            &wait.min(LONGEST_RETRY_AFTER).to_string(),
            &format!("{};r=0;t={wait}", quoted(name)),
            &format!("{};q={quota};w={window}", quoted(name)),
        )
    }
}

/// The most that `Retry-After` says, seconds; `RateLimit` tells the whole truth.
const LONGEST_RETRY_AFTER: u128 = 60;

fn bound_refusal(name: &str, most: u32) -> Refusal {
    refusal(
        Reason::ConcurrencyLimited,
        "1",
        &format!("{};r=0", quoted(name)),
        &format!("{};q={most};qu=\"concurrent-requests\"", quoted(name)),
    )
}

/// 429 with the fields of draft-ietf-httpapi-ratelimit-headers.
fn refusal(reason: Reason, after: &str, limit: &str, policy: &str) -> Refusal {
    let mut refusal = Refusal::from(reason);
    let fields = [
        (RETRY_AFTER, after),
        (RATELIMIT.clone(), limit),
        (RATELIMIT_POLICY.clone(), policy),
    ];
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::from_str(value) {
            refusal.fields.push((name, value));
        }
    }
    refusal
}

/// A structured field's string, which is ASCII.
fn quoted(name: &str) -> String {
    let escaped = name.chars().flat_map(|c| {
        let slash = matches!(c, '"' | '\\').then_some('\\');
        let plain = if matches!(c, ' '..='~') { c } else { '?' };
        slash.into_iter().chain([plain])
    });
    format!("\"{}\"", escaped.collect::<String>())
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests;
