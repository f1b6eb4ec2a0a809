//! Our reasons in the words of Envoy's `%RESPONSE_FLAGS%`.

/// Returns Envoy's response flag for one of our reasons, `-` where Envoy has none.
pub(super) fn of(reason: &str) -> &'static str {
    match reason {
        "no_route" | "unknown_model" => "NR",
        "invalid_backend" => "NC",
        "bad_request" | "bad_host" | "bad_path" | "uri_too_long" | "headers_too_large" => "DPE",
        "unauthorized" => "UAEX",
        "rate_limited" | "concurrency_limited" | "token_limited" => "RL",
        "queue_full" | "queue_timeout" | "breaker_open" => "UO",
        "overloaded" => "OM",
        "no_endpoint" | "asleep" | "start_failed" | "start_timeout" | "no_capacity" => "UH",
        "connect_failed" | "connect_timeout" => "UF",
        "upstream_reset" => "UC",
        "upstream_protocol" => "UPE",
        "first_byte_timeout" | "total_timeout" => "UT",
        "idle_timeout" | "request_timeout" => "SI",
        "client_closed" => "DC",
        "draining" => "LR",
        _ => "-",
    }
}

/// True when another attempt could have helped, so that a second one in vain means the retry limit was reached.
pub(super) fn is_retriable(reason: &str) -> bool {
    matches!(
        reason,
        "connect_failed"
            | "connect_timeout"
            | "upstream_reset"
            | "upstream_protocol"
            | "first_byte_timeout"
    )
}
