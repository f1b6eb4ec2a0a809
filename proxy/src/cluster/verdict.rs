//! What one answer says about the endpoint that gave it.

use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode, header};

/// The longest time that an endpoint may call itself busy.
const MAX_BUSY: Duration = Duration::from_secs(60);

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What one attempt says about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It works.
    Good,
    /// It does not: an answer that says so, or none.
    Failed,
    /// It works but wants to be left alone so long, at most 60 s: neither a success nor a failure.
    Busy(Duration),
    /// Nothing is known, such as after a client that left.
    Unknown,
}

impl Verdict {
    /// Judges by the head of an answer as far as anything follows from it: where nothing is ejected only a busy endpoint
    /// matters.
    ///
    /// * `ejects`: the cluster ejects endpoints whose answers fail
    pub fn that_matters(ejects: bool, status: StatusCode, headers: &HeaderMap) -> Self {
        if ejects || status == StatusCode::SERVICE_UNAVAILABLE {
            Self::of_head(status, headers)
        } else {
            Self::Unknown
        }
    }

    /// Judges by the head of an answer. Statuses 5xx are failures, except 501, and 503 with `Retry-After` in seconds,
    /// which is busy (longer times count as 60 s; a date says nothing); so are gRPC's INTERNAL, UNAVAILABLE and
    /// DATA_LOSS when the head carries them.
    fn of_head(status: StatusCode, headers: &HeaderMap) -> Self {
        if status.is_server_error() {
            let wait = headers.get(header::RETRY_AFTER);
            return match (status, wait) {
                (StatusCode::NOT_IMPLEMENTED, _) => Self::Good,
                (StatusCode::SERVICE_UNAVAILABLE, Some(wait)) => Self::of_wait(wait.as_bytes()),
                _ => Self::Failed,
            };
        }
        match headers.get(&GRPC_STATUS).map(|v| v.as_bytes()) {
            Some(b"13" | b"14" | b"15") => Self::Failed,
            _ => Self::Good,
        }
    }

    fn of_wait(value: &[u8]) -> Self {
        let text = value.trim_ascii();
        if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
            return Self::Unknown;
        }
        let seconds = std::str::from_utf8(text).ok().and_then(|s| s.parse().ok());
        // More digits than a number has are a long time too.
        Self::Busy(seconds.map_or(MAX_BUSY, |s| Duration::from_secs(s).min(MAX_BUSY)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, name: &'static str, value: &str) -> Verdict {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        Verdict::of_head(StatusCode::from_u16(status).unwrap(), &headers)
    }

    #[test]
    fn server_errors_fail_but_a_busy_endpoint_and_an_unknown_method_do_not() {
        for status in [500, 502, 503, 504, 507, 599] {
            assert_eq!(judged(status, "x", ""), Verdict::Failed, "{status}");
        }
        for status in [200, 304, 404, 429, 501] {
            assert_eq!(judged(status, "x", ""), Verdict::Good, "{status}");
        }
        assert_eq!(judged(500, "retry-after", "1"), Verdict::Failed);
        let busy = |value| judged(503, "retry-after", value);
        assert_eq!(busy("7"), Verdict::Busy(Duration::from_secs(7)));
        assert_eq!(busy("0"), Verdict::Busy(Duration::ZERO));
        assert_eq!(busy("3600"), Verdict::Busy(MAX_BUSY));
        assert_eq!(busy("99999999999999999999999"), Verdict::Busy(MAX_BUSY));
        assert_eq!(busy("Wed, 21 Oct 2026 07:28:00 GMT"), Verdict::Unknown);
    }

    #[test]
    fn where_nothing_is_ejected_only_a_busy_endpoint_matters() {
        let judged = |status: u16| {
            let headers = HeaderMap::from_iter([
                (header::RETRY_AFTER, "1".parse().unwrap()),
                (GRPC_STATUS.clone(), "14".parse().unwrap()),
            ]);
            Verdict::that_matters(false, StatusCode::from_u16(status).unwrap(), &headers)
        };
        assert_eq!(judged(503), Verdict::Busy(Duration::from_secs(1)));
        for status in [200, 500, 502, 504] {
            assert_eq!(judged(status), Verdict::Unknown, "{status}");
        }
    }

    #[test]
    fn grpc_heads_that_tell_of_a_broken_server_fail() {
        for (status, verdict) in [
            ("0", Verdict::Good),
            ("5", Verdict::Good),
            ("8", Verdict::Good),
            ("13", Verdict::Failed),
            ("14", Verdict::Failed),
            ("15", Verdict::Failed),
        ] {
            assert_eq!(judged(200, "grpc-status", status), verdict, "{status}");
        }
    }
}
