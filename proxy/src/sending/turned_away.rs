//! Answers of a sidecar that did not pass a request on: it waits again instead of its client.

use std::sync::Arc;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, StatusCode};

use super::Sending;
use crate::cluster::Endpoint;
use crate::error::Reason;
use crate::headers::X_FOREBAY_REASON;

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Why a sidecar did not pass the request on, if that is what the answer says.
///
/// * `http2`: gRPC's answers have their status in a field
pub(super) fn reason(status: StatusCode, headers: &HeaderMap, http2: bool) -> Option<Reason> {
    let refusal = match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => true,
        _ => http2 && headers.contains_key(&GRPC_STATUS),
    };
    if !refusal {
        return None;
    }
    let said = headers.get(&X_FOREBAY_REASON)?.as_bytes();
    [Reason::QueueFull, Reason::Draining]
        .into_iter()
        .find(|reason| reason.label().as_bytes() == said)
}

/// When the sidecar wants to be asked again; `None`: it does not say, or names a date.
fn asked(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    seconds.parse().ok().map(Duration::from_secs)
}

impl Sending<'_> {
    /// Gives the endpoint a moment, before its slot goes to somebody else.
    pub(super) fn pause(&self, endpoint: &Arc<Endpoint>, headers: &HeaderMap) {
        let state = &self.member.cluster.state;
        let roll = self.connection.worker.roll();
        let Some(pause) = state.pause(endpoint, asked(headers), roll) else {
            return;
        };
        let length = pause.length();
        tracing::debug!(cluster = state.name(), endpoint = %endpoint.label, ?length, "endpoint is paused");
        tokio::task::spawn_local(async move {
            tokio::time::sleep(length).await;
            drop(pause);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: u16, name: &HeaderName, value: &str, http2: bool) -> Option<Reason> {
        let status = StatusCode::from_u16(status).unwrap();
        let mut headers = HeaderMap::from_iter([(name.clone(), value.parse().unwrap())]);
        if http2 {
            headers.insert(&GRPC_STATUS, "8".parse().unwrap());
        }
        reason(status, &headers, http2)
    }

    #[test]
    fn only_what_was_not_begun_is_turned_away() {
        let of = |status, value| said(status, &X_FOREBAY_REASON, value, false);
        assert_eq!(of(429, "queue_full"), Some(Reason::QueueFull));
        assert_eq!(of(503, "draining"), Some(Reason::Draining));
        for (status, value) in [
            (429, "queue_timeout"),
            (429, "rate_limited"),
            (503, "no_endpoint"),
            (503, "breaker_open"),
            (200, "queue_full"),
            (504, "draining"),
            (503, ""),
        ] {
            assert_eq!(of(status, value), None, "{status} {value}");
        }
        assert_eq!(said(429, &RETRY_AFTER, "1", false), None);
        let grpc = said(200, &X_FOREBAY_REASON, "queue_full", true);
        assert_eq!(grpc, Some(Reason::QueueFull));
    }

    #[test]
    fn a_time_to_come_back_is_in_seconds() {
        let of = |value: &str| {
            asked(&HeaderMap::from_iter([(
                RETRY_AFTER,
                value.parse().unwrap(),
            )]))
        };
        assert_eq!(of("2"), Some(Duration::from_secs(2)));
        assert_eq!(of("Wed, 21 Oct 2026 07:28:00 GMT"), None);
        assert_eq!(asked(&HeaderMap::new()), None);
    }
}
