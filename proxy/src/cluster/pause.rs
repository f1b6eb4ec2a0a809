//! Short pauses of endpoints that say that they did not take a request on, so that it does not go round in circles
//! between them and the waiting room.

use std::sync::Arc;
use std::time::Duration;

use super::{ClusterState, Endpoint};

/// The shortest first pause; each further one in a row is twice as long.
const FIRST: Duration = Duration::from_millis(50);
/// None is longer, whatever the endpoint asks for: what it says to clients is an estimate.
const LONGEST: Duration = Duration::from_secs(1);

/// An endpoint that gets nothing of its room until this is dropped.
#[must_use]
pub struct Pause {
    state: Arc<ClusterState>,
    endpoint: Arc<Endpoint>,
    length: Duration,
}

impl Pause {
    /// How long it should last: 50 ms … 1 s.
    pub fn length(&self) -> Duration {
        self.length
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        self.endpoint.vitals().end_pause();
        let newest = self.state.roots.newest.load();
        if let Some(endpoint) = newest.at(self.endpoint.address) {
            self.state.room().opened(endpoint);
        }
    }
}

/// How long the nth pause in a row lasts, n ≥ 1: 50 … 100 ms, doubled with each, and not longer than it was asked for.
fn length(nth: u32, asked: Option<Duration>, roll: u32) -> Duration {
    let first = FIRST.mul_f64(1.0 + f64::from(roll) / f64::from(u32::MAX));
    let doubled = first.saturating_mul(1 << (nth - 1).min(5));
    let most = asked.unwrap_or(LONGEST).clamp(FIRST, LONGEST);
    doubled.min(most)
}

impl ClusterState {
    /// The endpoint said that it did not take a request on. `None`: it is paused already.
    ///
    /// * `asked`: the time after which it may be asked again, as it said
    /// * `roll`: uniform
    pub fn pause(
        self: &Arc<Self>,
        endpoint: &Arc<Endpoint>,
        asked: Option<Duration>,
        roll: u32,
    ) -> Option<Pause> {
        let nth = endpoint.vitals().begin_pause()?;
        Some(Pause {
            state: Arc::clone(self),
            endpoint: Arc::clone(endpoint),
            length: length(nth, asked, roll),
        })
    }
}

impl Endpoint {
    /// It took a request on: the next pause is a first one.
    pub fn took_on(&self) {
        self.vitals().forget_pauses();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn pauses_double_up_to_what_was_asked_for() {
        let lengths = |asked| [1, 2, 3, 4, 5, 6, 99].map(|nth| length(nth, asked, 0).as_millis());
        let doubled = [50, 100, 200, 400, 800, 1000, 1000];
        assert_eq!(lengths(None), doubled);
        assert_eq!(lengths(Some(Duration::from_secs(1))), doubled);
        assert_eq!(lengths(Some(Duration::from_secs(60))), doubled);
        assert_eq!(lengths(Some(Duration::ZERO)), [50; 7]);
        assert_eq!(length(1, None, u32::MAX), 100 * MILLI);
    }

    #[test]
    fn one_pause_at_a_time_and_a_request_taken_on_ends_the_row() {
        let state = Arc::new(ClusterState::new("c"));
        let endpoint = Arc::new(Endpoint::unlisted(([127, 0, 0, 1], 1).into()));
        let first = state.pause(&endpoint, None, 0).unwrap();
        assert!(state.pause(&endpoint, None, 0).is_none());
        assert!(endpoint.vitals().is_paused() && !endpoint.vitals().may_serve(false));
        assert!(endpoint.vitals().is_there(false), "it exists nevertheless");
        drop(first);
        assert!(endpoint.vitals().may_serve(false));
        let second = state.pause(&endpoint, None, 0).unwrap();
        assert_eq!(second.length(), 100 * MILLI);
        drop(second);
        endpoint.took_on();
        assert_eq!(state.pause(&endpoint, None, 0).unwrap().length(), FIRST);
    }
}
