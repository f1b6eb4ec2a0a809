//! Whether a failed attempt is followed by another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use forebay_config::{Retry, RetryMethods};
use http::{HeaderMap, HeaderName, Method, StatusCode};

use crate::error::Reason;

/// Attempts of one request, the first included, while nothing of it was written and its route says nothing else.
const ATTEMPTS: u32 = 3;
/// Retries under way that a cluster may always have.
const FEW: u64 = 3;
/// The longest pause before the first attempt that goes to the same endpoint again; doubled for each further one.
const PAUSE: Duration = Duration::from_millis(25);

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There was no connection, or nothing of the request was written.
    Unsent(Reason),
    /// A connection that had served before was closed before anything of the request was written.
    Stale,
    /// The endpoint says that it did nothing with it.
    Refused,
    /// It broke before the head of an answer was whole.
    Broken(Reason),
    /// It took longer than one attempt may.
    TooLong,
    /// It was answered with this.
    Status(StatusCode),
    /// A sidecar before the endpoint says that it did not pass it on, and why.
    TurnedAway(Reason),
}

impl Failure {
    /// Value of the `reason` label of `retries_total`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unsent(reason) | Self::Broken(reason) | Self::TurnedAway(reason) => {
                reason.label()
            }
            Self::Stale => "stale_connection",
            Self::Refused => "refused",
            Self::TooLong => "per_try",
            Self::Status(status) => match status.as_u16() {
                408 => "408",
                425 => "425",
                429 => "429",
                500 => "500",
                502 => "502",
                503 => "503",
                504 => "504",
                400..500 => "4xx",
                _ => "5xx",
            },
        }
    }

    /// What the client is told when no further attempt follows.
    pub fn reason(self) -> Reason {
        match self {
            Self::Unsent(reason) | Self::Broken(reason) | Self::TurnedAway(reason) => reason,
            Self::Stale | Self::Refused | Self::Status(_) => Reason::UpstreamReset,
            Self::TooLong => Reason::FirstByteTimeout,
        }
    }

    /// True when the request was certainly not acted on.
    fn is_harmless(self) -> bool {
        matches!(
            self,
            Self::Unsent(_) | Self::Stale | Self::Refused | Self::TurnedAway(_)
        )
    }
}

/// What a route allows one request.
#[derive(Clone, Copy)]
pub struct Allowance<'c> {
    config: Option<&'c Retry>,
    /// The request may be done twice.
    repeatable: bool,
}

impl<'c> Allowance<'c> {
    /// * `config`: of the route; `None`: only what was not written is sent again
    pub fn new(config: Option<&'c Retry>, method: &Method, headers: &HeaderMap) -> Self {
        let repeatable = config.is_some_and(|retry| {
            let listed = match &retry.methods {
                RetryMethods::All => true,
                RetryMethods::Idempotent => method.is_idempotent(), // RFC 9110 §9.2.2
                RetryMethods::Only(methods) => methods.contains(method),
            };
            listed || headers.contains_key(&IDEMPOTENCY_KEY)
        });
        Self { config, repeatable }
    }

    /// Bytes of the body to keep for another attempt; `None`: none.
    pub fn keeps(&self) -> Option<u64> {
        let retry = self.config.filter(|retry| retry.attempts > 0)?;
        let after_writing =
            self.repeatable && (retry.when.reset || !retry.when.statuses.is_empty());
        (after_writing || retry.when.refused).then_some(retry.max_body)
    }

    /// True when the request may be sent again though something of it was written, so that its head is kept.
    ///
    /// * `http2`: only such endpoints can refuse what was sent
    /// * `made`: attempts so far, this one included
    pub fn spares(&self, http2: bool, made: u32) -> bool {
        let left = || self.config.is_some_and(|retry| made <= retry.attempts);
        http2 && self.again(Failure::Refused, made) || self.keeps().is_some() && left()
    }

    /// How long one attempt may take.
    pub fn per_try(&self) -> Option<Duration> {
        self.config?.per_try
    }

    /// True when an answer with this status may be worth another attempt.
    pub fn wants(&self, status: StatusCode) -> bool {
        let retry = self.config.filter(|_| self.repeatable);
        retry.is_some_and(|retry| retry.when.statuses.contains(&status))
    }

    /// Whether another attempt follows.
    ///
    /// * `made`: attempts so far, ≥ 1
    pub fn again(&self, failure: Failure, made: u32) -> bool {
        let Some(retry) = self.config else {
            let wanted = failure.is_harmless() && !matches!(failure, Failure::TurnedAway(_));
            return made < ATTEMPTS && wanted;
        };
        if failure == Failure::Stale {
            return made < ATTEMPTS.max(retry.attempts + 1); // it is our own doing
        }
        let wanted = match failure {
            Failure::Stale => true,
            Failure::Unsent(Reason::BreakerOpen) => false,
            Failure::Unsent(_) => retry.when.connect,
            Failure::Refused => retry.when.refused,
            Failure::Broken(_) => retry.when.reset,
            Failure::TooLong => retry.when.statuses.contains(&StatusCode::GATEWAY_TIMEOUT),
            Failure::Status(status) => retry.when.statuses.contains(&status),
            Failure::TurnedAway(_) => false, // it returns to the room, or its answer is passed on
        };
        wanted && made <= retry.attempts && (failure.is_harmless() || self.repeatable)
    }

    /// True when a cluster's endpoints that failed the request may be tried once more.
    pub fn returns(&self) -> bool {
        self.config.is_some()
    }

    /// Takes a place among the retries under way in a cluster; `None`: there are as many as the route allows. There is
    /// always one after a connection of our own that had gone stale: the endpoint saw nothing of the request.
    ///
    /// * `in_flight`: requests in flight in the cluster
    pub fn retrying(
        &self,
        failure: Failure,
        retries: &Arc<AtomicU32>,
        in_flight: u32,
    ) -> Option<Retrying> {
        let before = retries.fetch_add(1, Ordering::Relaxed);
        let place = Retrying(Arc::clone(retries));
        if failure == Failure::Stale {
            return Some(place);
        }
        let share = self.config.map_or(u64::MAX, |retry| {
            u64::from(in_flight) * u64::from(retry.budget) / 1_000_000
        });
        (u64::from(before) < share.max(FEW)).then_some(place)
    }
}

/// One retry under way.
#[must_use]
pub struct Retrying(Arc<AtomicU32>);

impl Drop for Retrying {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long to wait before an endpoint that failed a request gets it again: full jitter, doubled each time.
///
/// * `roll`: uniform
pub fn pause(made: u32, roll: u32) -> Duration {
    let longest = PAUSE * 2u32.saturating_pow(made.saturating_sub(1).min(6));
    longest.mul_f64(f64::from(roll) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_config::RetryWhen;

    fn retry(methods: RetryMethods) -> Retry {
        Retry {
            attempts: 2,
            when: RetryWhen {
                connect: true,
                refused: true,
                reset: true,
                statuses: vec![StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT],
            },
            methods,
            budget: 200_000,
            max_body: 100,
            per_try: None,
        }
    }

    const BROKEN: Failure = Failure::Broken(Reason::UpstreamReset);
    const UNSENT: Failure = Failure::Unsent(Reason::ConnectFailed);
    const BUSY: Failure = Failure::Status(StatusCode::SERVICE_UNAVAILABLE);

    #[test]
    fn what_may_have_been_acted_on_is_repeated_only_when_that_is_allowed() {
        let config = retry(RetryMethods::Idempotent);
        let none = HeaderMap::new();
        let get = Allowance::new(Some(&config), &Method::GET, &none);
        let post = Allowance::new(Some(&config), &Method::POST, &none);
        for failure in [BROKEN, BUSY, Failure::TooLong] {
            assert!(get.again(failure, 1), "{failure:?}");
            assert!(!post.again(failure, 1), "{failure:?}");
        }
        for failure in [UNSENT, Failure::Refused, Failure::Stale] {
            assert!(
                get.again(failure, 1) && post.again(failure, 1),
                "{failure:?}"
            );
        }
        let keyed = HeaderMap::from_iter([(IDEMPOTENCY_KEY.clone(), "7".parse().unwrap())]);
        assert!(Allowance::new(Some(&config), &Method::POST, &keyed).again(BROKEN, 1));
        let all = retry(RetryMethods::All);
        assert!(Allowance::new(Some(&all), &Method::POST, &none).again(BROKEN, 1));
        let only = retry(RetryMethods::Only(vec![Method::POST]));
        assert!(Allowance::new(Some(&only), &Method::POST, &none).again(BUSY, 1));
        assert!(!Allowance::new(Some(&only), &Method::GET, &none).again(BUSY, 1));
    }

    #[test]
    fn a_route_that_says_nothing_repeats_only_what_was_not_written() {
        let headers = HeaderMap::new();
        let plain = Allowance::new(None, &Method::GET, &headers);
        assert!(plain.again(UNSENT, 1) && plain.again(UNSENT, 2) && !plain.again(UNSENT, 3));
        assert!(!plain.again(BROKEN, 1) && !plain.again(BUSY, 1));
        assert_eq!(plain.keeps(), None);
    }

    #[test]
    fn what_a_sidecar_turned_away_is_no_attempt_of_the_route() {
        let config = retry(RetryMethods::All);
        let headers = HeaderMap::new();
        let away = Failure::TurnedAway(Reason::Draining);
        for config in [Some(&config), None] {
            let allowed = Allowance::new(config, &Method::GET, &headers);
            assert!(!allowed.again(away, 1));
        }
        assert_eq!(away.label(), "draining");
        assert_eq!(Failure::TurnedAway(Reason::QueueFull).label(), "queue_full");
    }

    #[test]
    fn attempts_are_counted() {
        let config = retry(RetryMethods::All);
        let headers = HeaderMap::new();
        let allowed = Allowance::new(Some(&config), &Method::GET, &headers);
        assert!(allowed.again(BUSY, 1) && allowed.again(BUSY, 2) && !allowed.again(BUSY, 3));
        let never = Retry {
            attempts: 0,
            ..config
        };
        let allowed = Allowance::new(Some(&never), &Method::GET, &headers);
        assert!(!allowed.again(UNSENT, 1));
        assert!(
            allowed.again(Failure::Stale, 1),
            "our own stale connection is no attempt"
        );
    }

    #[test]
    fn the_last_attempt_spares_nothing() {
        let headers = HeaderMap::new();
        let plain = Allowance::new(None, &Method::GET, &headers);
        assert!(!plain.spares(false, 1));
        assert!(plain.spares(true, 1) && !plain.spares(true, ATTEMPTS));
        let config = retry(RetryMethods::All);
        let allowed = Allowance::new(Some(&config), &Method::GET, &headers);
        assert!(allowed.spares(false, 2) && !allowed.spares(false, 3));
        assert!(allowed.spares(true, 2) && !allowed.spares(true, 3));
    }

    #[test]
    fn retries_under_way_stay_a_share_of_all_requests() {
        let config = retry(RetryMethods::All);
        let allowed = Allowance::new(Some(&config), &Method::GET, &HeaderMap::new());
        let count = Arc::default();
        let few: Vec<_> = (0..10)
            .map_while(|_| allowed.retrying(BUSY, &count, 1))
            .collect();
        assert_eq!(few.len(), 3);
        assert!(allowed.retrying(Failure::Stale, &count, 1).is_some());
        drop(few);
        let many: Vec<_> = (0..100)
            .map_while(|_| allowed.retrying(BUSY, &count, 100))
            .collect();
        assert_eq!(many.len(), 20);
        drop(many);
        assert_eq!(count.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_pause_is_within_its_bound() {
        for made in 1..20 {
            assert!(pause(made, u32::MAX) <= PAUSE * 64);
            assert_eq!(pause(made, 0), Duration::ZERO);
        }
        assert_eq!(pause(2, u32::MAX), PAUSE * 2);
    }
}
