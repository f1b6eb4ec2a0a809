//! One line per request: JSON or Envoy's format strings, sampled, bounded, and never in a request's way.
//!
//! A worker [`captures`](AccessLog::capture_request) the few headers a line needs while they exist, asks
//! [`keep`](AccessLog::keep) when the request is over, and formats the [`Record`] straight into a buffer that one
//! thread writes out.

mod escape;
mod flags;
mod format;
mod json;
mod record;
mod time;
mod writer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use forebay_config::{LogFormat, LogTarget};
use http::{HeaderMap, header};

pub use format::{Format, FormatError};
pub use record::{Captured, Record, Wants};

use writer::Queue;

/// How long the end of the proxy waits for the last lines.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A log that lines are written to.
pub struct AccessLog {
    target: LogTarget,
    layout: Layout,
    wants: Wants,
    sample: u32,
    slow: Option<Duration>,
    queue: Arc<Queue>,
}

enum Layout {
    Json,
    Text(Format),
}

impl AccessLog {
    /// Opens the target and starts the thread that writes to it. Dropping the log ends the thread once it has
    /// written what there is.
    ///
    /// * `dropped`: counts lines that are lost; see `Metrics::access_log_dropped`
    ///
    /// # Errors
    ///
    /// What opening the file says; `InvalidInput` for a format string that [`Format::parse`] refuses.
    pub fn start(
        config: &forebay_config::AccessLog,
        dropped: Arc<AtomicU64>,
    ) -> io::Result<Arc<Self>> {
        let (layout, wants) = match &config.format {
            LogFormat::Json => (
                Layout::Json,
                Wants {
                    request: vec![header::USER_AGENT],
                    response: Vec::new(),
                },
            ),
            LogFormat::Envoy(format) => {
                let format = Format::parse(format)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
                let wants = format.wants().clone();
                (Layout::Text(format), wants)
            }
        };
        let queue = Queue::start(writer::open(&config.target)?, dropped)?;
        let (sample, slow) = (config.sample, config.slow);
        Ok(Arc::new(Self {
            target: config.target.clone(),
            layout,
            wants,
            sample,
            slow,
            queue,
        }))
    }

    /// Copies the request headers that lines need; allocates only when one of them is there.
    pub fn capture_request(&self, headers: &HeaderMap) -> Captured {
        Captured::copy(&self.wants.request, headers)
    }

    /// Copies the response headers that lines need; allocates only when one of them is there.
    pub fn capture_response(&self, headers: &HeaderMap) -> Captured {
        Captured::copy(&self.wants.response, headers)
    }

    /// True when a request gets a line: it failed, was slow, or is in the sample.
    ///
    /// * `status`: as in [`Record`]
    /// * `reason`: as in [`Record`]: any reason of our own keeps it
    /// * `roll`: uniform over all of `u32`, best a hash of the request id
    #[inline]
    pub fn keep(&self, status: u16, reason: &str, duration: Duration, roll: u32) -> bool {
        status >= 500
            || !reason.is_empty()
            || self.slow.is_some_and(|slow| duration >= slow)
            || (u64::from(roll) * 1_000_000) >> 32 < u64::from(self.sample)
    }

    /// Writes the line of a request. Never waits; a line that finds no room is counted and lost.
    ///
    /// * `request`: from [`capture_request`](Self::capture_request)
    /// * `response`: from [`capture_response`](Self::capture_response); empty when there was no response
    pub fn write(&self, record: &Record<'_>, request: &Captured, response: &Captured) {
        self.queue.push(|out| match &self.layout {
            Layout::Json => json::push(out, record, request),
            Layout::Text(format) => format.push(out, record, request, response),
        });
    }

    /// Opens the target again, after its file was moved away. Lines written since the move may still go to the
    /// moved file.
    ///
    /// # Errors
    ///
    /// What opening the file says; the log then goes on with the one it has.
    pub fn reopen(&self) -> io::Result<()> {
        self.queue.replace_sink(writer::open(&self.target)?);
        Ok(())
    }

    /// Waits until the lines written so far have left the process, at most `timeout`; false when they have not.
    /// Blocks the thread.
    pub fn flush(&self, timeout: Duration) -> bool {
        self.queue.flush(timeout)
    }

    /// Ends the log: waits at most 1 s for its last lines; false when they are not written by then. Blocks the
    /// thread. Nothing may be written afterwards.
    pub fn close(&self) -> bool {
        self.queue.stop();
        self.queue.join(CLOSE_TIMEOUT)
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.queue.stop();
    }
}

/// Formats a time as RFC 3339 in UTC with milliseconds.
pub fn rfc3339(time: std::time::SystemTime) -> String {
    let mut out = Vec::with_capacity(24);
    time::push_rfc3339(&mut out, time);
    String::from_utf8(out).expect("digits and punctuation are ASCII")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn config(target: LogTarget, format: LogFormat) -> forebay_config::AccessLog {
        forebay_config::AccessLog {
            target,
            format,
            sample: 1_000_000,
            slow: Some(Duration::from_secs(1)),
        }
    }

    fn start(config: &forebay_config::AccessLog) -> io::Result<Arc<AccessLog>> {
        AccessLog::start(config, Arc::new(AtomicU64::new(0)))
    }

    /// A directory of its own, gone when the test ends.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("forebay-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn errors_and_slow_requests_are_kept_and_others_sampled() {
        let quick = Duration::from_millis(3);
        let quarter = forebay_config::AccessLog {
            sample: 250_000,
            ..config(LogTarget::Stderr, LogFormat::Json)
        };
        let log = start(&quarter).unwrap();
        assert!(log.keep(200, "", quick, 0));
        assert!(log.keep(200, "", quick, u32::MAX / 4 - 5000));
        assert!(!log.keep(200, "", quick, u32::MAX / 4 + 5000));
        assert!(!log.keep(404, "", quick, u32::MAX));
        assert!(log.keep(500, "", quick, u32::MAX));
        assert!(log.keep(404, "no_route", quick, u32::MAX));
        assert!(log.keep(200, "", Duration::from_secs(1), u32::MAX));
        let none = start(&forebay_config::AccessLog {
            sample: 0,
            slow: None,
            ..quarter.clone()
        })
        .unwrap();
        assert!(!none.keep(200, "", Duration::MAX, 0));
        let all = start(&forebay_config::AccessLog {
            sample: 1_000_000,
            ..quarter
        })
        .unwrap();
        assert!(all.keep(200, "", quick, u32::MAX));
    }

    #[test]
    fn a_moved_file_is_left_on_reopen_and_the_end_keeps_every_line() {
        let directory = Directory::new("reopen");
        let (path, moved) = (
            directory.0.join("access.log"),
            directory.0.join("access.log.1"),
        );
        let format = LogFormat::Envoy("%ROUTE_NAME%\n".to_owned());
        let log = start(&config(LogTarget::File(path.clone()), format)).unwrap();
        let write = |route| {
            log.write(
                &Record {
                    route,
                    ..record::sample()
                },
                &Captured::default(),
                &Captured::default(),
            )
        };
        write("one");
        assert!(log.flush(Duration::from_secs(20)));
        std::fs::rename(&path, &moved).unwrap();
        log.reopen().unwrap();
        write("two");
        assert!(log.flush(Duration::from_secs(20)));
        write("three");
        assert!(log.close());
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\nthree\n");
    }

    #[test]
    fn what_cannot_be_opened_or_read_is_an_error() {
        let missing = LogTarget::File(PathBuf::from("/nonexistent/access.log"));
        assert!(start(&config(missing, LogFormat::Json)).is_err());
        let format = LogFormat::Envoy("%NOPE%".to_owned());
        let error = start(&config(LogTarget::Stderr, format)).err().unwrap();
        assert_eq!(error.to_string(), "unknown operator `NOPE` at offset 0");
    }

    #[test]
    fn headers_are_captured_from_both_sides() {
        let format = LogFormat::Envoy("%REQ(a)% %RESP(b)%".to_owned());
        let log = start(&config(LogTarget::Stderr, format)).unwrap();
        let of = |name: &str, value: &str| {
            HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
        };
        let request = log.capture_request(&of("a", "1"));
        let response = log.capture_response(&of("b", "2"));
        assert_eq!(
            (request.find(0), response.find(0)),
            (Some(&b"1"[..]), Some(&b"2"[..]))
        );
    }

    #[test]
    fn a_log_that_a_reload_drops_still_writes_its_lines() {
        let directory = Directory::new("drop");
        let path = directory.0.join("access.log");
        let format = LogFormat::Envoy("%ROUTE_NAME%".to_owned());
        let log = start(&config(LogTarget::File(path.clone()), format)).unwrap();
        log.write(
            &record::sample(),
            &Captured::default(),
            &Captured::default(),
        );
        let queue = Arc::clone(&log.queue);
        drop(log);
        assert!(queue.join(Duration::from_secs(20)));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "resnet\n");
    }
}
