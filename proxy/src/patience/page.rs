//! The page that a browser gets while a model starts. It needs nothing but itself and asks again without a script.
//!
//! The answer is `503` with reason `asleep`, or `start_failed` after three failed starts in a row, whose last reason the
//! page shows. The request counts as demand, so that it wakes the cluster and `idle` counts from it, but holds no place:
//! the first reload after a replica is ready is served by that.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::time::Instant;

use super::vigil::weighs;
use crate::answer::Refusal;
use crate::cluster::{ClusterState, Progress};
use crate::error::Reason;
use crate::snapshot::ClusterView;

/// How often the page asks again, seconds, at most and while nothing is known of the start.
const OFTEN: u64 = 2;
/// And at least.
const SELDOM: u64 = 5;

/// True for a page that somebody opens in a browser: GET, `Accept` names HTML, and nothing tells of a program.
pub fn is_browser(method: &Method, headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let wants_html = || {
        let mut ranges = accept.unwrap_or_default().split(',');
        ranges.any(|range| weighs(range, "text/html"))
    };
    let is_fetched = || {
        let mode = headers.get("sec-fetch-mode");
        mode.is_some_and(|mode| mode != "navigate") || headers.contains_key("x-requested-with")
    };
    let is_program = || {
        let bearer = |value: &HeaderValue| {
            let scheme = value.as_bytes().get(..7);
            scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "))
        };
        headers.get(AUTHORIZATION).is_some_and(bearer) || headers.contains_key("x-api-key")
    };
    *method == Method::GET && wants_html() && !is_fetched() && !is_program()
}

/// A browser asks for a cluster where nothing runs: that is demand. Returns why it gets the page.
///
/// * `arrives`: it is not counted as a request of the cluster yet
pub fn call(state: &ClusterState, arrives: bool) -> Reason {
    if arrives {
        state.arrived();
    }
    state.called();
    state.outlook().refusal().unwrap_or(Reason::Asleep)
}

/// Makes the page what a refusal looks like.
pub fn put_on(refusal: &mut Refusal, cluster: &ClusterView) {
    let fields: [(HeaderName, &'static str); 2] = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in fields {
        refusal.fields.push((name, HeaderValue::from_static(value)));
    }
    refusal.page = Some(of(cluster, refusal.reason));
}

fn of(cluster: &ClusterView, reason: Reason) -> Bytes {
    let state = &cluster.state;
    let now = Instant::now();
    let outlook = state.outlook();
    let idle = cluster.config.scale.as_ref().and_then(|scale| scale.idle);
    let left = outlook.expected.map(|at| at.saturating_duration_since(now));
    let news = News {
        name: &cluster.config.name,
        scaled: cluster.config.scale.is_some(),
        failed: matches!(reason, Reason::StartFailed | Reason::NoCapacity),
        left,
        waiting: state.room().demand().waiting,
        refresh: refresh(left, idle),
    };
    Bytes::from(news.page(&state.progress(), now))
}

/// After how many seconds the page asks again: the sooner the replica is expected, the more often, and often enough
/// that the cluster is not idle in between.
fn refresh(left: Option<Duration>, idle: Option<Duration>) -> u64 {
    let by_start = match left {
        Some(left) if !left.is_zero() => (left.as_secs() / 4).clamp(1, SELDOM),
        _ => OFTEN,
    };
    match idle {
        Some(idle) => by_start.min((idle.as_secs() / 2).max(1)),
        None => by_start,
    }
}

/// What the page tells.
struct News<'a> {
    name: &'a str,
    /// Something starts it; else it is only waited for.
    scaled: bool,
    failed: bool,
    /// Until it should be ready, or is tried again.
    left: Option<Duration>,
    waiting: u32,
    refresh: u64,
}

impl News<'_> {
    fn page(&self, progress: &Progress, now: Instant) -> String {
        let name = escaped(self.name);
        let title = match (self.failed, self.scaled) {
            (true, _) => format!("{name} could not be started"),
            (false, true) => format!("{name} is starting"),
            (false, false) => format!("{name} is not there yet"),
        };
        let mut page = format!(
            "<!doctype html>\n<html lang=en><head><meta charset=utf-8>\
             <meta name=viewport content=\"width=device-width, initial-scale=1\">\
             <meta http-equiv=refresh content={}><title>{title}</title><style>{STYLE}</style></head>\n\
             <body><main><h1>{title}</h1>\n",
            self.refresh
        );
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(page, "<p>{name} <b>{value}</b></p>");
        };
        let left = self.left.filter(|left| !left.is_zero()).map(spoken);
        match (self.failed, progress.since) {
            (false, Some(since)) => line("Starting for", &spoken(now.duration_since(since))),
            (true, _) => {
                let why = progress.failure.as_deref().unwrap_or("no reason is known");
                line("The last start failed:", &escaped(why));
            }
            (false, None) => {}
        }
        match (left, self.failed) {
            (Some(left), true) => line("The next try is in", &left),
            (Some(left), false) => line("Expected in", &left),
            (None, _) => {}
        }
        if self.waiting > 0 {
            line("Requests that wait:", &self.waiting.to_string());
        }
        page.push_str("<p class=quiet>This page asks again by itself.</p></main></body></html>\n");
        page
    }
}

const STYLE: &str = ":root{color-scheme:light dark}\
    body{font:16px/1.5 system-ui,sans-serif;margin:0;display:grid;place-items:center;min-height:100vh}\
    main{max-width:36rem;padding:2rem;overflow-wrap:anywhere}h1{font-size:1.4rem;font-weight:600}.quiet{opacity:.6}";

fn spoken(time: Duration) -> String {
    match time.as_secs().max(1) {
        seconds @ ..120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HTML: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

    fn opens(fields: &[(&'static str, &'static str)]) -> bool {
        let fields = fields.iter().map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        is_browser(&Method::GET, &fields.collect())
    }

    #[test]
    fn a_browser_is_told_from_a_program() {
        assert!(opens(&[("accept", HTML)]));
        assert!(opens(&[("accept", HTML), ("sec-fetch-mode", "navigate")]));
        assert!(!opens(&[("accept", "*/*")]));
        assert!(!opens(&[("accept", "application/json")]));
        assert!(!opens(&[("accept", "application/json, text/html;q=0")]));
        assert!(!opens(&[]));
        for (name, value) in [
            ("sec-fetch-mode", "cors"),
            ("x-requested-with", "XMLHttpRequest"),
            ("authorization", "bearer k"),
            ("x-api-key", "k"),
        ] {
            assert!(!opens(&[("accept", HTML), (name, value)]), "{name}");
        }
        let accept = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(HTML))]);
        assert!(!is_browser(&Method::POST, &accept));
        assert!(!is_browser(&Method::HEAD, &accept));
    }

    #[test]
    fn the_page_asks_again_the_sooner_the_nearer_the_start_and_before_it_is_idle() {
        let after = |left: Option<u64>, idle: Option<u64>| {
            let seconds = Duration::from_secs;
            refresh(left.map(seconds), idle.map(seconds))
        };
        assert_eq!(after(None, None), OFTEN);
        assert_eq!(after(Some(0), None), OFTEN);
        assert_eq!(after(Some(3), None), 1);
        assert_eq!(after(Some(12), None), 3);
        assert_eq!(after(Some(600), None), SELDOM);
        assert_eq!(after(Some(600), Some(4)), 2);
        assert_eq!(after(None, Some(0)), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_page_tells_what_is_known_and_lets_nothing_in() {
        let now = Instant::now();
        let mut news = News {
            name: "a<b>",
            scaled: true,
            failed: false,
            left: None,
            waiting: 0,
            refresh: 2,
        };
        let page = news.page(&Progress::default(), now);
        assert!(page.contains("<h1>a&lt;b&gt; is starting</h1>"), "{page}");
        assert!(page.contains("<meta http-equiv=refresh content=2>"));
        for word in [
            "Expected",
            "Requests",
            "failed",
            "Starting for",
            "<script",
            "http://",
        ] {
            assert!(!page.contains(word), "{word}: {page}");
        }
        news.left = Some(Duration::from_secs(40));
        news.waiting = 3;
        let progress = Progress {
            since: Some(now),
            failure: Some("exit 1 <script>alert('x')</script>".into()),
        };
        let page = news.page(&progress, now + Duration::from_secs(121));
        assert!(page.contains("Starting for <b>2 min</b>"), "{page}");
        assert!(page.contains("Expected in <b>40 s</b>"), "{page}");
        assert!(page.contains("Requests that wait: <b>3</b>"), "{page}");
        news.failed = true;
        let page = news.page(&progress, now);
        assert!(page.contains("could not be started"), "{page}");
        assert!(page.contains("exit 1 &lt;script&gt;alert(&#39;x"), "{page}");
        assert!(page.contains("The next try is in <b>40 s</b>"), "{page}");
        news.scaled = false;
        news.failed = false;
        let page = news.page(&Progress::default(), now);
        assert!(page.contains("is not there yet"), "{page}");
    }
}
