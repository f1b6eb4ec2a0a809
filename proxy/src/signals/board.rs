//! What the ready endpoints of one cluster last told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::scan::{Lack, Reading};
use crate::scaler::{Inside, Told};
use crate::server_kind::Signal;

/// What is older says nothing of the present.
pub const STALE: Duration = Duration::from_secs(5);
/// The signals that can be a target.
pub(super) const TARGETS: [Signal; 2] = [Signal::Queue, Signal::KvCache];

/// Why an endpoint does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no connection, or no whole answer in time.
    Unreachable,
    /// The answer is no page: its status is not 200.
    Status(u16),
    /// The page is larger than is read.
    TooLarge,
    /// The page has no such series.
    Missing,
    /// It has one of that name, which is no gauge.
    WrongType,
}

impl Fault {
    /// Label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Status(_) => "status",
            Self::TooLarge => "too_large",
            Self::Missing => "missing",
            Self::WrongType => "wrong_type",
        }
    }
}

/// What all ready endpoints told together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum State {
    /// None is ready, or none was asked for long enough.
    Nothing,
    /// The sum over all ready endpoints, of which those that do not tell are taken for average.
    Known(f64),
    /// None of them told for [`STALE`].
    Stale(Fault),
}

impl State {
    fn told(self) -> Told {
        match self {
            Self::Nothing => Told::Nothing,
            Self::Known(value) => Told::Known(value),
            Self::Stale(_) => Told::Stale,
        }
    }

    /// `None` unless it is stale.
    pub fn fault(self) -> Option<Fault> {
        match self {
            Self::Stale(fault) => Some(fault),
            Self::Nothing | Self::Known(_) => None,
        }
    }
}

/// What the ready endpoints of one cluster last told, by address.
#[derive(Default)]
pub struct Board(Mutex<BTreeMap<SocketAddr, Page>>);

/// The last pages of one endpoint.
#[derive(Clone, Debug)]
struct Page {
    /// When it became ready.
    since: Instant,
    values: [Option<(Instant, f64)>; Signal::ALL.len()],
    faults: [Option<Fault>; Signal::ALL.len()],
}

impl Board {
    /// Nobody told anything.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Page>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An endpoint is ready.
    pub(super) fn begin(&self, address: SocketAddr, now: Instant) {
        self.lock().entry(address).or_insert(Page {
            since: now,
            values: Default::default(),
            faults: Default::default(),
        });
    }

    /// An endpoint is not ready any more, or gone.
    pub(super) fn remove(&self, address: SocketAddr) {
        self.lock().remove(&address);
    }

    /// Forgets all others.
    pub(super) fn retain(&self, stays: impl Fn(SocketAddr) -> bool) {
        self.lock().retain(|address, _| stays(*address));
    }

    /// Nobody is asked any more.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    /// An endpoint that is ready was asked.
    pub(super) fn enter(&self, address: SocketAddr, read: Result<Reading, Fault>, now: Instant) {
        let mut pages = self.lock();
        let Some(page) = pages.get_mut(&address) else {
            return; // it went meanwhile
        };
        for signal in Signal::ALL {
            let index = signal as usize;
            page.faults[index] = match read.map(|reading| reading[index]) {
                Ok(Ok(value)) => {
                    page.values[index] = Some((now, value));
                    None
                }
                Ok(Err(Lack::Missing)) => Some(Fault::Missing),
                Ok(Err(Lack::NotGauge)) => Some(Fault::WrongType),
                Err(fault) => Some(fault),
            };
        }
    }

    /// What a signal is at `now`.
    pub fn state(&self, signal: Signal, now: Instant) -> State {
        let pages = self.lock();
        let index = signal as usize;
        let fresh = pages.values().filter_map(|page| page.fresh(index, now));
        let (count, sum) = fresh.fold((0u32, 0.0), |(count, sum), value| (count + 1, sum + value));
        if count > 0 {
            return State::Known(sum / f64::from(count) * pages.len() as f64);
        }
        let young = |page: &Page| now.saturating_duration_since(page.since) < STALE;
        if pages.is_empty() || pages.values().any(young) {
            return State::Nothing;
        }
        let fault = pages.values().find_map(|page| page.faults[index]);
        State::Stale(fault.unwrap_or(Fault::Unreachable))
    }

    /// What the scaler goes by.
    pub fn inside(&self) -> Inside {
        let now = Instant::now();
        Inside {
            queue: self.state(Signal::Queue, now).told(),
            kv_cache: self.state(Signal::KvCache, now).told(),
        }
    }

    /// The same for people; `signals`: those that are wanted.
    pub(super) fn report(&self, signals: &[Signal]) -> Value {
        let now = Instant::now();
        let mut all = serde_json::Map::new();
        for &signal in signals {
            let state = self.state(signal, now);
            let value = match state {
                State::Known(value) => Some(value),
                State::Nothing | State::Stale(_) => None,
            };
            let stale = state.fault().map(Fault::label);
            all.insert(
                signal.as_str().to_owned(),
                json!({ "value": value, "stale": stale }),
            );
        }
        let pages = self.lock();
        let endpoints = pages.iter().map(|(address, page)| {
            let mut one = serde_json::Map::new();
            one.insert("endpoint".to_owned(), json!(address.to_string()));
            for signal in Signal::ALL {
                let value = page.fresh(signal as usize, now);
                one.insert(signal.as_str().to_owned(), json!(value));
            }
            let faults = signals.iter().filter_map(|&s| page.faults[s as usize]);
            let fault = faults.map(Fault::label).next();
            one.insert("error".to_owned(), json!(fault));
            Value::Object(one)
        });
        let endpoints = endpoints.collect();
        all.insert("endpoints".to_owned(), Value::Array(endpoints));
        Value::Object(all)
    }
}

impl Page {
    fn fresh(&self, index: usize, now: Instant) -> Option<f64> {
        let (at, value) = self.values[index]?;
        (now.saturating_duration_since(at) <= STALE).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 8000))
    }

    fn page(queue: f64) -> Result<Reading, Fault> {
        Ok([Ok(1.0), Ok(queue), Err(Lack::Missing)])
    }

    #[test]
    fn endpoints_that_do_not_tell_are_taken_for_average() {
        let (board, now) = (Board::new(), Instant::now());
        assert_eq!(board.state(Signal::Queue, now), State::Nothing);
        (1..=3).for_each(|last| board.begin(address(last), now));
        assert_eq!(board.state(Signal::Queue, now), State::Nothing);
        board.enter(address(1), page(4.0), now);
        board.enter(address(2), page(6.0), now);
        board.enter(address(3), Err(Fault::Unreachable), now);
        assert_eq!(board.state(Signal::Queue, now), State::Known(15.0));
        board.remove(address(1));
        assert_eq!(board.state(Signal::Queue, now), State::Known(12.0));
        board.enter(address(9), page(1000.0), now);
        assert_eq!(board.state(Signal::Queue, now), State::Known(12.0));
    }

    #[test]
    fn what_is_old_is_stale_and_says_why() {
        let (board, begin) = (Board::new(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        board.begin(address(1), begin);
        board.enter(address(1), page(4.0), at(1));
        board.enter(address(1), Err(Fault::Status(503)), at(2));
        assert_eq!(board.state(Signal::Queue, at(6)), State::Known(4.0));
        let stale = board.state(Signal::Queue, at(7));
        assert_eq!(stale, State::Stale(Fault::Status(503)));
        assert_eq!(stale.fault().map(Fault::label), Some("status"));
        board.enter(address(1), page(5.0), at(8));
        assert_eq!(board.state(Signal::Queue, at(8)), State::Known(5.0));
        assert_eq!(
            board.state(Signal::KvCache, at(8)),
            State::Stale(Fault::Missing),
            "the page is good, and lacks it"
        );
    }

    #[test]
    fn whoever_became_ready_has_time_to_tell() {
        let (board, begin) = (Board::new(), Instant::now());
        board.begin(address(1), begin);
        board.enter(address(1), Err(Fault::Unreachable), begin);
        let later = begin + Duration::from_secs(4);
        assert_eq!(board.state(Signal::Queue, later), State::Nothing);
        let later = begin + Duration::from_secs(5);
        assert_eq!(
            board.state(Signal::Queue, later),
            State::Stale(Fault::Unreachable)
        );
    }
}
