//! Why we answered, not the upstream: every reason of the contract and the status that goes with it.

use std::time::Duration;

use http::StatusCode;

macro_rules! reasons {
    ($($variant:ident $label:literal $status:literal $message:literal),* $(,)?) => {
        /// Why Forebay answered a request itself, or cut it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "each variant carries its message below")]
        pub enum Reason { $($variant),* }

        impl Reason {
            /// Every reason, in the order of the contract's table.
            pub const ALL: &[Reason] = &[$(Reason::$variant),*];

            /// Value of `x-forebay-reason`, of the metrics' `reason` label and of the log.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label),* }
            }

            /// Status for the caller.
            pub const fn code(self) -> u16 {
                match self { $(Self::$variant => $status),* }
            }

            /// One sentence for the caller.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$variant => $message),* }
            }
        }
    };
}

reasons! {
    BadRequest "bad_request" 400 "the request is malformed",
    BadHost "bad_host" 400 "the request names no host, more than one, or contradicting ones",
    BadPath "bad_path" 400 "the path has a bad escape, an encoded slash or leads above the root",
    Unauthorized "unauthorized" 401 "this route asks for a known API key",
    Denied "denied" 403 "this route does not serve this client",
    NoRoute "no_route" 404 "no route matches this host, path and headers",
    UnknownModel "unknown_model" 404 "no cluster serves this model",
    MethodNotAllowed "method_not_allowed" 405 "a route matches, but not with this method",
    RequestTimeout "request_timeout" 408 "the request body stopped coming",
    BodyTooLarge "body_too_large" 413 "the request body is larger than this route allows",
    UriTooLong "uri_too_long" 414 "the request target is too long",
    ExpectationFailed "bad_request" 417 "the only expectation understood is 100-continue",
    Misdirected "misdirected" 421 "this connection was opened for another host name",
    HeadersTooLarge "headers_too_large" 431 "the request has too many or too large header fields",
    RateLimited "rate_limited" 429 "this client has used up its share for now",
    ConcurrencyLimited "concurrency_limited" 429 "too many requests of this client are in progress",
    QueueFull "queue_full" 429 "every replica is busy and as many requests wait as may",
    QueueTimeout "queue_timeout" 429 "every replica was busy for too long",
    Internal "internal" 500 "a fault inside the proxy; this request alone is affected",
    NotImplemented "not_implemented" 501 "the method or the transfer coding is not implemented",
    ConnectFailed "connect_failed" 502 "no connection to the upstream could be made",
    UpstreamReset "upstream_reset" 502 "the upstream closed the connection before it answered",
    UpstreamProtocol "upstream_protocol" 502 "the upstream's answer is not valid HTTP",
    NoEndpoint "no_endpoint" 503 "the cluster has no usable endpoint",
    Asleep "asleep" 503 "no replica runs, and requests of this route start none",
    StartFailed "start_failed" 503 "the model server could not be started",
    StartTimeout "start_timeout" 503 "no replica was ready in time",
    NoCapacity "no_capacity" 503 "no device has room for the model: what is there is never stopped for it",
    BreakerOpen "breaker_open" 503 "the cluster is at its limit of connections or requests",
    Overloaded "overloaded" 503 "the proxy is at its memory limit",
    Draining "draining" 503 "the proxy is stopping",
    ConnectTimeout "connect_timeout" 504 "connecting to the upstream took too long",
    FirstByteTimeout "first_byte_timeout" 504 "the upstream took too long to begin its answer",
    IdleTimeout "idle_timeout" 504 "no byte moved in either direction for too long",
    TotalTimeout "total_timeout" 504 "the request took longer than its route allows in total",
    ClientClosed "client_closed" 499 "the client left before the answer",
}

impl Reason {
    /// Status for the caller.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.code()).expect("every code of the table is a valid status")
    }

    /// True when nothing that follows on the same HTTP/1.1 connection may be taken for a request: the message
    /// could be framed in two ways, or its body will not be read.
    pub fn ends_connection(self) -> bool {
        matches!(
            self,
            Self::BadRequest
                | Self::BadHost
                | Self::RequestTimeout
                | Self::BodyTooLarge
                | Self::UriTooLong
                | Self::ExpectationFailed
                | Self::HeadersTooLarge
                | Self::NotImplemented
        )
    }

    /// `Retry-After` for reasons that pass by themselves, within 1 … 60 s.
    pub fn retry_after(self) -> Option<Duration> {
        match self {
            Self::NoEndpoint
            | Self::BreakerOpen
            | Self::Overloaded
            | Self::RateLimited
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::ConcurrencyLimited => Some(Duration::from_secs(1)),
            Self::Draining
            | Self::Asleep
            | Self::StartFailed
            | Self::StartTimeout
            | Self::NoCapacity => Some(Duration::from_secs(5)),
            _ => None,
        }
    }

    /// The gRPC status code a gRPC client is told, per gRPC's HTTP mapping.
    pub fn grpc_status(self) -> u8 {
        match self {
            Self::ClientClosed => 1,
            Self::BadRequest | Self::BadHost | Self::BadPath | Self::ExpectationFailed => 13,
            Self::NoRoute | Self::MethodNotAllowed | Self::NotImplemented => 12,
            Self::UnknownModel => 5,
            Self::Unauthorized => 16,
            Self::Denied => 7,
            Self::BodyTooLarge
            | Self::UriTooLong
            | Self::HeadersTooLarge
            | Self::RateLimited
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::ConcurrencyLimited => 8,
            Self::RequestTimeout
            | Self::ConnectTimeout
            | Self::FirstByteTimeout
            | Self::IdleTimeout
            | Self::TotalTimeout => 4,
            Self::Internal | Self::UpstreamProtocol => 13,
            Self::Misdirected
            | Self::ConnectFailed
            | Self::UpstreamReset
            | Self::NoEndpoint
            | Self::Asleep
            | Self::StartFailed
            | Self::StartTimeout
            | Self::NoCapacity
            | Self::BreakerOpen
            | Self::Overloaded
            | Self::Draining => 14,
        }
    }

    /// OpenAI's `type` of the error object.
    pub fn kind(self) -> &'static str {
        kind_of(self.code())
    }
}

/// OpenAI's `type` of an error with this status.
pub fn kind_of(code: u16) -> &'static str {
    match code {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        503 => "unavailable_error",
        504 => "timeout_error",
        _ => "server_error",
    }
}

/// An answer that cannot be finished: the stream is reset so that a cut answer never looks complete.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{}", .0.message())]
pub struct Cut(pub Reason);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_status_and_a_label_of_the_contract() {
        for reason in Reason::ALL {
            assert!(reason.status().as_u16() >= 400);
            assert!(
                reason
                    .label()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'_')
            );
            assert!(reason.grpc_status() != 0);
        }
    }
}
