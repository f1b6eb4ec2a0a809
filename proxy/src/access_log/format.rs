//! Envoy's access log format strings.

mod field;
mod operator;

use std::fmt::Display;

use http::HeaderName;

use field::{FIELDS, Field, Line, Source};
use operator::Operator;

use super::escape;
use super::record::{Captured, MAX_VALUE, Record, Wants};
use super::time::TimeFormat;

/// Why a format string is not one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatError {
    /// Byte offset in the format string.
    pub offset: usize,
    /// What is wrong there, lower case.
    pub message: String,
}

impl Display for FormatError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at offset {}", self.message, self.offset)
    }
}

impl std::error::Error for FormatError {}

/// A compiled format string.
#[derive(Debug)]
pub struct Format {
    pieces: Vec<Piece>,
    wants: Wants,
}

#[derive(Debug)]
enum Piece {
    Text(String),
    Time(TimeFormat),
    Header {
        first: Source,
        second: Option<Source>,
        limit: usize,
    },
    Field(Field),
}

impl Format {
    /// Compiles a format string. One line end at its end is dropped: every line gets one anyway.
    ///
    /// # Errors
    ///
    /// An unknown operator, header name or time specifier, or a `%` that starts no operator, with its place.
    pub fn parse(format: &str) -> Result<Self, FormatError> {
        let format = format.strip_suffix('\n').unwrap_or(format);
        let mut compiled = Self {
            pieces: Vec::new(),
            wants: Wants::default(),
        };
        let mut at = 0;
        while let Some(found) = format[at..].find('%') {
            compiled.text(&format[at..at + found]);
            at += found;
            if format[at + 1..].starts_with('%') {
                compiled.text("%");
                at += 2;
                continue;
            }
            let operator = Operator::read(format, at)?;
            at = operator.end;
            let piece = compiled.compile(&operator)?;
            match piece {
                Piece::Text(text) => compiled.text(&text),
                piece => compiled.pieces.push(piece),
            }
        }
        compiled.text(&format[at..]);
        Ok(compiled)
    }

    /// The headers whose values [`Captured`] must hold.
    pub fn wants(&self) -> &Wants {
        &self.wants
    }

    /// Appends the line of a record, without a line end.
    pub(super) fn push(
        &self,
        out: &mut Vec<u8>,
        record: &Record<'_>,
        request: &Captured,
        response: &Captured,
    ) {
        let line = Line {
            record,
            request,
            response,
        };
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Time(format) => format.push(out, record.time),
                Piece::Field(field) => field.push(out, record),
                Piece::Header {
                    first,
                    second,
                    limit,
                } => {
                    let second = || second.and_then(|source| source.find(&line));
                    match first.find(&line).or_else(second) {
                        Some(value) => escape::push(out, &value[..value.len().min(*limit)]),
                        None => out.push(b'-'),
                    }
                }
            }
        }
    }

    fn text(&mut self, text: &str) {
        match self.pieces.last_mut() {
            Some(Piece::Text(known)) => known.push_str(text),
            _ if text.is_empty() => {}
            _ => self.pieces.push(Piece::Text(text.to_owned())),
        }
    }

    fn compile(&mut self, operator: &Operator<'_>) -> Result<Piece, FormatError> {
        match (operator.name, operator.argument) {
            ("REQ" | "RESP" | "TRAILER", Some(argument)) => self.compile_header(operator, argument),
            ("START_TIME", Some(format)) if !format.is_empty() => {
                let compiled =
                    TimeFormat::parse(format).map_err(|(offset, message)| FormatError {
                        offset: operator.argument_at + offset,
                        message,
                    })?;
                Ok(Piece::Time(compiled))
            }
            ("HOSTNAME", None) => {
                let mut shown = Vec::new();
                escape::push(&mut shown, host_name().as_bytes());
                Ok(Piece::Text(String::from_utf8_lossy(&shown).into_owned()))
            }
            (name, None | Some("")) => match FIELDS.iter().find(|(known, _)| *known == name) {
                Some(&(_, field)) if operator.limit.is_none() => Ok(Piece::Field(field)),
                Some(_) => Err(operator.error(format!("`{name}` takes no length"))),
                None if matches!(name, "REQ" | "RESP" | "TRAILER") => Err(operator.error(format!(
                    "`{name}` needs a header name, as in `%{name}(X-NAME)%`"
                ))),
                None => Err(operator.error(format!("unknown operator `{name}`"))),
            },
            (name, Some(_))
                if FIELDS.iter().any(|(known, _)| *known == name) || name == "HOSTNAME" =>
            {
                Err(operator.error(format!("`{name}` takes no argument")))
            }
            (name, Some(_)) => Err(operator.error(format!("unknown operator `{name}`"))),
        }
    }

    /// `%REQ(A?B):Z%`: A, or B where A is missing, cut to Z bytes.
    fn compile_header(
        &mut self,
        operator: &Operator<'_>,
        argument: &str,
    ) -> Result<Piece, FormatError> {
        let (first, second) = match argument.split_once('?') {
            Some((first, second)) => (first, Some(second)),
            None => (argument, None),
        };
        let second_at = operator.argument_at + first.len() + 1;
        let first = self.source(operator.name, first, operator.argument_at)?;
        let second = second
            .map(|second| self.source(operator.name, second, second_at))
            .transpose()?
            .flatten();
        let limit = operator.limit.unwrap_or(MAX_VALUE).min(MAX_VALUE);
        Ok(match (first, second) {
            (Some(first), second) => Piece::Header {
                first,
                second,
                limit,
            },
            (None, Some(first)) => Piece::Header {
                first,
                second: None,
                limit,
            },
            (None, None) => Piece::Field(Field::Absent), // trailers are not kept
        })
    }

    fn source(
        &mut self,
        operator: &str,
        name: &str,
        offset: usize,
    ) -> Result<Option<Source>, FormatError> {
        let lower = name.to_ascii_lowercase();
        let ours = match (operator, &*lower) {
            ("REQ", ":method") => Some(Source::Method),
            ("REQ", ":path") => Some(Source::Path),
            ("REQ", ":authority" | "host") => Some(Source::Authority),
            ("REQ", ":scheme") => Some(Source::Scheme),
            ("REQ", "x-request-id") => Some(Source::RequestId),
            ("RESP", ":status") => Some(Source::Status),
            _ => None,
        };
        if ours.is_some() {
            return Ok(ours);
        }
        let Ok(name) = HeaderName::from_bytes(lower.as_bytes()) else {
            return Err(FormatError {
                offset,
                message: format!("`{name}` is no header name"),
            });
        };
        Ok(match operator {
            "REQ" => Some(Source::Request(index_of(&mut self.wants.request, name))),
            "RESP" => Some(Source::Response(index_of(&mut self.wants.response, name))),
            _ => None,
        })
    }
}

fn index_of(names: &mut Vec<HeaderName>, name: HeaderName) -> usize {
    names
        .iter()
        .position(|known| *known == name)
        .unwrap_or_else(|| {
            names.push(name);
            names.len() - 1
        })
}

/// The name of this machine, or `-`.
fn host_name() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = kernel.trim();
    if name.is_empty() {
        std::env::var("HOSTNAME").unwrap_or_else(|_| "-".to_owned())
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::super::record::sample;
    use super::*;

    fn shown(format: &str, record: &Record<'_>, headers: &HeaderMap) -> String {
        let format = Format::parse(format).unwrap();
        let request = Captured::copy(&format.wants().request, headers);
        let response = Captured::copy(&format.wants().response, headers);
        let mut out = Vec::new();
        format.push(&mut out, record, &request, &response);
        String::from_utf8(out).unwrap()
    }

    #[track_caller]
    fn assert_shown(format: &str, expected: &str) {
        let headers = HeaderMap::from_iter([
            (
                HeaderName::from_static("user-agent"),
                HeaderValue::from_static("curl/8 \"x\""),
            ),
            (
                HeaderName::from_static("authorization"),
                HeaderValue::from_static("Bearer secret"),
            ),
        ]);
        assert_eq!(shown(format, &sample(), &headers), expected);
    }

    #[track_caller]
    fn assert_refused(format: &str, offset: usize, message: &str) {
        let error = Format::parse(format).unwrap_err();
        assert_eq!((error.offset, &*error.message), (offset, message));
    }

    #[test]
    fn envoys_default_format_works() {
        assert_shown(
            "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
             %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
             \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \
             \"%UPSTREAM_HOST%\"\n",
            "[2026-01-02T03:04:05.006Z] \"POST /v1/x?y=1 HTTP/1.1\" 200 - 5 7 1234 - \"-\" \"curl/8 \\\"x\\\"\" \
             \"id-1\" \"m.example\" \"10.0.0.9:8501\"",
        );
    }

    #[test]
    fn istios_default_format_works() {
        assert_shown(
            "%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" \
             %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% \
             %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%",
            "via_upstream - \"-\" resnet-v1 - 127.0.0.1:8080 192.0.2.1:555 - resnet",
        );
    }

    #[test]
    fn operators_show_their_values() {
        assert_shown(
            "%START_TIME(%Y/%m/%dT%H:%M:%S%z %s.%3f)%",
            "2026/01/02T03:04:05+0000 1767323045.006",
        );
        assert_shown("%START_TIME((%s) )%", "(1767323045) ");
        assert_shown(
            "%REQUEST_DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION%",
            "2 1000 234",
        );
        assert_shown(
            "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_PORT%",
            "192.0.2.1 8080",
        );
        assert_shown(
            "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS% %UPSTREAM_CLUSTER%",
            "192.0.2.1:555 resnet-v1",
        );
        assert_shown(
            "%TRACE_ID% %STREAM_ID% %UPSTREAM_REQUEST_ATTEMPT_COUNT%",
            "abc id-1 1",
        );
        assert_shown(
            "%REQ(USER-AGENT):4%|%REQ(a?user-agent):0%|%REQ(a?b)%|%RESP(:status)%",
            "curl||-|200",
        );
        assert_shown(
            "%TRAILER(x)% %TRAILER(x?y)% 100%% %%%PROTOCOL%",
            "- - 100% %HTTP/1.1",
        );
        assert_shown(
            "%REQ(authorization)% %RESP(Authorization):4%",
            "[redacted] [red",
        );
        assert_shown("", "");
        assert!(!shown("%HOSTNAME%", &sample(), &HeaderMap::new()).is_empty());
    }

    #[test]
    fn our_reasons_become_envoys_flags() {
        let refused = |reason, attempts| Record {
            reason,
            attempts,
            ..sample()
        };
        let flags = |record: &Record<'_>| {
            shown(
                "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%",
                record,
                &HeaderMap::new(),
            )
        };
        assert_eq!(flags(&refused("no_route", 0)), "NR no_route");
        assert_eq!(flags(&refused("connect_failed", 1)), "UF connect_failed");
        assert_eq!(
            flags(&refused("connect_failed", 2)),
            "UF,URX connect_failed"
        );
        assert_eq!(flags(&refused("queue_full", 2)), "UO queue_full");
        assert_eq!(
            flags(&Record {
                endpoint: None,
                ..sample()
            }),
            "- direct_response"
        );
        assert_eq!(
            flags(&Record {
                status: 0,
                ..sample()
            }),
            "- -"
        );
    }

    #[test]
    fn a_client_behind_a_proxy_has_no_known_port() {
        let client = "198.51.100.7".parse().unwrap();
        let line = shown(
            "%DOWNSTREAM_REMOTE_ADDRESS%",
            &Record { client, ..sample() },
            &HeaderMap::new(),
        );
        assert_eq!(line, "198.51.100.7:0");
    }

    #[test]
    fn headers_are_wanted_once() {
        let format =
            Format::parse("%REQ(A)% %REQ(a?B)% %RESP(c)% %REQ(:PATH?x)% %REQ(HOST)%").unwrap();
        assert_eq!(format.wants().request, ["a", "b", "x"]);
        assert_eq!(format.wants().response, ["c"]);
    }

    #[test]
    fn what_is_no_format_is_refused_with_its_place() {
        assert_refused("a %NOPE% b", 2, "unknown operator `NOPE`");
        assert_refused("%NOPE(x)%", 0, "unknown operator `NOPE`");
        assert_refused(
            "100% sure",
            3,
            "`%` starts no operator; a percent sign is written `%%`",
        );
        assert_refused(
            "%",
            0,
            "`%` starts no operator; a percent sign is written `%%`",
        );
        assert_refused("x %PROTOCOL", 2, "the operator has no closing `%`");
        assert_refused("%REQ(A%", 0, "the operator has no closing `)%`");
        assert_refused("%REQ(A):x%", 0, "the operator has no closing `)%`");
        assert_refused(
            "%REQ%",
            0,
            "`REQ` needs a header name, as in `%REQ(X-NAME)%`",
        );
        assert_refused("%REQ()%", 5, "`` is no header name");
        assert_refused("%REQ(A?b c)%", 7, "`b c` is no header name");
        assert_refused("é%START_TIME(%Y %Q)%", 17, "unknown time specifier `%Q`");
        assert_refused("%PROTOCOL(x)%", 0, "`PROTOCOL` takes no argument");
        assert_refused("%PROTOCOL:3%", 0, "`PROTOCOL` takes no length");
    }
}
