//! What the processes of a cluster print, as it comes.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{Stream, unfold};
use http::{HeaderMap, HeaderName};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::Desk;
use super::answer::Refusal;
use super::scale::cluster_of;
use crate::control::{Control, rfc3339};
use crate::driver::log::{Follower, Line, Log};

/// Lines of before that are given when nothing else is asked for.
const TAIL: usize = 100;
/// A comment is sent this often while nothing is printed, so that nobody on the way takes the stream for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Where a browser that reconnects says what it had last.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// `?since=SEQ&tail=N&follow=false`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogsQuery {
    since: Option<u64>,
    tail: Option<usize>,
    follow: Option<bool>,
}

/// Follows the lines of all processes of a cluster, or gives those that are kept.
pub(super) async fn logs(
    State(desk): State<Arc<Desk>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<LogsQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Path(name) = path.map_err(|error| Refusal::bad_request(error.body_text()))?;
    let Query(query) = query.map_err(|error| Refusal::bad_request(error.body_text()))?;
    cluster_of(&desk.control.snapshot(), &name)?;
    let Some(log) = desk.control.scaling.log(&name) else {
        let message = format!("cluster `{name}` has no process whose lines could be shown");
        return Err(Refusal::not_found(message));
    };
    let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    let after = last.and_then(|id| id.parse::<u64>().ok()?.checked_add(1));
    let first = first(&log, after.or(query.since), query.tail);
    if query.follow == Some(false) {
        let text = move || {
            let lines = log.since(first).into_iter();
            let lines = lines.map(|line| format!("{}\n", line.text));
            lines.collect::<String>().into_bytes()
        };
        return desk.turns.render("text/plain; charset=utf-8", text).await;
    }
    let Ok(place) = Arc::clone(&desk.followers).try_acquire_owned() else {
        return Err(Refusal::overloaded(
            "too many follow the lines of processes",
        ));
    };
    let following = Following {
        lines: VecDeque::new(),
        follower: log.follow(first),
        heartbeat: heartbeat(),
        cluster: name,
        control: Arc::clone(&desk.control),
        _place: place,
    };
    Ok(Sse::new(following.events()).into_response())
}

/// Returns the number of the first line that is wanted.
///
/// * `since`: the first by number; one beyond the end is from before the proxy started anew, and counts for nothing
/// * `tail`: at most so many of those there are; default: all from `since` on, without it 100
fn first(log: &Log, since: Option<u64>, tail: Option<usize>) -> u64 {
    let next = log.last(1).last().map_or(0, |line| line.seq + 1);
    let since = since.filter(|since| *since <= next);
    let tail = tail.or(since.is_none().then_some(TAIL));
    let kept = tail.map(|count| {
        let last = log.last(count);
        last.first().map_or(next, |line| line.seq)
    });
    since.unwrap_or(0).max(kept.unwrap_or(0))
}

fn heartbeat() -> Interval {
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.reset(); // the first is not due at once
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat
}

/// One who follows. It ends when the proxy has drained, or the cluster has no process any more.
struct Following {
    lines: VecDeque<Line>,
    follower: Follower,
    heartbeat: Interval,
    cluster: String,
    control: Arc<Control>,
    _place: OwnedSemaphorePermit,
}

impl Following {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        unfold(self, |mut following| async move {
            let event = following.next().await?;
            Some((Ok(event), following))
        })
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(event(&line));
            }
            tokio::select! {
                biased;
                () = self.control.drained() => return None,
                lines = self.follower.next() => {
                    self.lines = lines.into();
                    self.heartbeat.reset();
                }
                _ = self.heartbeat.tick() => {
                    self.control.scaling.log(&self.cluster)?;
                    return Some(Event::default().comment(""));
                }
            }
        }
    }
}

fn event(line: &Line) -> Event {
    let data =
        json!({ "replica": line.replica, "at": rfc3339(line.at), "line": line.text.as_ref() });
    Event::default()
        .id(line.seq.to_string())
        .data(data.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_by_number_by_count_or_by_both() {
        let log = Log::default();
        assert_eq!(first(&log, None, None), 0);
        (0..300).for_each(|n| log.push(1, &n.to_string()));
        assert_eq!(first(&log, None, None), 200);
        assert_eq!(first(&log, None, Some(0)), 300);
        assert_eq!(first(&log, None, Some(5000)), 0);
        assert_eq!(first(&log, Some(7), None), 7);
        assert_eq!(first(&log, Some(7), Some(10)), 290);
        assert_eq!(first(&log, Some(295), Some(10)), 295);
        assert_eq!(first(&log, Some(300), None), 300);
        assert_eq!(first(&log, Some(301), None), 200);
    }
}
