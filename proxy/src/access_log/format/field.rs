//! The values that operators show.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use crate::access_log::record::{Captured, MAX_VALUE, Record};
use crate::access_log::{escape, flags, time};

/// All that is known for one line.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) record: &'a Record<'a>,
    pub(super) request: &'a Captured,
    pub(super) response: &'a Captured,
}

/// Where the value of `%REQ()%` or `%RESP()%` is; indices are those of [`Wants`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    Method,
    Path,
    Authority,
    Scheme,
    RequestId,
    Status,
    Request(usize),
    Response(usize),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Field {
    Absent,
    StartTime,
    Protocol,
    Status,
    Flags,
    Details,
    BytesReceived,
    BytesSent,
    Duration,
    RequestDuration,
    ResponseDuration,
    ResponseTransferDuration,
    Endpoint,
    Cluster,
    Route,
    Client,
    ClientAddress,
    ClientPort,
    Peer,
    PeerAddress,
    PeerPort,
    Local,
    LocalAddress,
    LocalPort,
    TraceId,
    StreamId,
    Attempts,
}

/// Operators without arguments. Those at the end are Envoy's and say what we do not know: they are `-`, so that
/// Envoy's and Istio's own formats work.
pub(super) const FIELDS: &[(&str, Field)] = &[
    ("START_TIME", Field::StartTime),
    ("PROTOCOL", Field::Protocol),
    ("RESPONSE_CODE", Field::Status),
    ("RESPONSE_FLAGS", Field::Flags),
    ("RESPONSE_CODE_DETAILS", Field::Details),
    ("BYTES_RECEIVED", Field::BytesReceived),
    ("BYTES_SENT", Field::BytesSent),
    ("DURATION", Field::Duration),
    ("REQUEST_DURATION", Field::RequestDuration),
    ("RESPONSE_DURATION", Field::ResponseDuration),
    ("RESPONSE_TX_DURATION", Field::ResponseTransferDuration),
    ("UPSTREAM_HOST", Field::Endpoint),
    ("UPSTREAM_REMOTE_ADDRESS", Field::Endpoint),
    ("UPSTREAM_CLUSTER", Field::Cluster),
    ("UPSTREAM_CLUSTER_RAW", Field::Cluster),
    ("ROUTE_NAME", Field::Route),
    ("DOWNSTREAM_REMOTE_ADDRESS", Field::Client),
    (
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
        Field::ClientAddress,
    ),
    ("DOWNSTREAM_REMOTE_PORT", Field::ClientPort),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", Field::Peer),
    (
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
        Field::PeerAddress,
    ),
    ("DOWNSTREAM_DIRECT_REMOTE_PORT", Field::PeerPort),
    ("DOWNSTREAM_LOCAL_ADDRESS", Field::Local),
    ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Field::LocalAddress),
    ("DOWNSTREAM_LOCAL_PORT", Field::LocalPort),
    ("TRACE_ID", Field::TraceId),
    ("STREAM_ID", Field::StreamId),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", Field::Attempts),
    ("CONNECTION_TERMINATION_DETAILS", Field::Absent),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", Field::Absent),
    ("UPSTREAM_LOCAL_ADDRESS", Field::Absent),
    ("REQUESTED_SERVER_NAME", Field::Absent),
];

impl Source {
    pub(super) fn find<'a>(self, line: &Line<'a>) -> Option<Cow<'a, [u8]>> {
        let record = line.record;
        let ours = match self {
            Self::Request(index) => return line.request.find(index).map(Cow::Borrowed),
            Self::Response(index) => return line.response.find(index).map(Cow::Borrowed),
            Self::Status if record.status == 0 => return None,
            Self::Status => return Some(Cow::Owned(record.status.to_string().into_bytes())),
            Self::Method => record.method,
            Self::Path => escape::cut(record.path, MAX_VALUE),
            Self::Authority => record.authority,
            Self::Scheme => record.scheme,
            Self::RequestId => record.request_id.unwrap_or_default(),
        };
        (!ours.is_empty()).then_some(Cow::Borrowed(ours.as_bytes()))
    }
}

impl Field {
    pub(super) fn push(self, out: &mut Vec<u8>, record: &Record<'_>) {
        match self {
            Self::Absent => out.push(b'-'),
            Self::StartTime => time::push_rfc3339(out, record.time),
            Self::Protocol => text(out, record.protocol),
            Self::Status => shown(out, Some(record.status)),
            Self::Flags => {
                text(out, flags::of(record.reason));
                if record.attempts > 1 && flags::is_retriable(record.reason) {
                    text(out, ",URX");
                }
            }
            Self::Details => text(out, details(record)),
            Self::BytesReceived => shown(out, Some(record.request_bytes)),
            Self::BytesSent => shown(out, Some(record.response_bytes)),
            Self::Duration => millis(out, Some(record.duration)),
            Self::RequestDuration => millis(out, record.request_duration),
            Self::ResponseDuration => millis(out, record.first_byte),
            Self::ResponseTransferDuration => {
                millis(
                    out,
                    record
                        .first_byte
                        .map(|first| record.duration.saturating_sub(first)),
                );
            }
            Self::Endpoint => text(out, record.endpoint.unwrap_or_default()),
            Self::Cluster => text(out, record.cluster),
            Self::Route => text(out, record.route),
            Self::Client => shown(out, Some(record.client_address())),
            Self::ClientAddress => shown(out, Some(record.client)),
            Self::ClientPort => shown(out, Some(record.client_address().port())),
            Self::Peer => shown(out, Some(record.peer)),
            Self::PeerAddress => shown(out, Some(record.peer.ip())),
            Self::PeerPort => shown(out, Some(record.peer.port())),
            Self::Local => shown(out, Some(record.local)),
            Self::LocalAddress => shown(out, Some(record.local.ip())),
            Self::LocalPort => shown(out, Some(record.local.port())),
            Self::TraceId => text(out, record.trace_id.unwrap_or_default()),
            Self::StreamId => text(out, record.request_id.unwrap_or_default()),
            Self::Attempts => shown(out, Some(record.attempts)),
        }
    }
}

/// Our reason, or who else answered, in Envoy's words.
fn details<'a>(record: &Record<'a>) -> &'a str {
    if !record.reason.is_empty() {
        record.reason
    } else if record.status == 0 {
        ""
    } else if record.endpoint.is_none() {
        "direct_response"
    } else {
        "via_upstream"
    }
}

fn text(out: &mut Vec<u8>, value: &str) {
    escape::push(
        out,
        if value.is_empty() {
            b"-"
        } else {
            value.as_bytes()
        },
    );
}

fn shown(out: &mut Vec<u8>, value: Option<impl Display>) {
    match value {
        Some(value) => write!(out, "{value}").expect("a Vec takes all bytes"),
        None => out.push(b'-'),
    }
}

fn millis(out: &mut Vec<u8>, value: Option<Duration>) {
    shown(out, value.map(|value| value.as_millis()));
}
