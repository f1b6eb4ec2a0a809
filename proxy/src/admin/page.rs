//! The dashboard: one page made here, complete without JavaScript; the script only fetches it again.

use std::fmt::{Display, Write};
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use forebay_config::{Action, Match, PathMatch, Route, ValueMatch};
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use http::{HeaderName, HeaderValue};

use super::Desk;
use super::answer::Refusal;
use super::describe;
use super::view::{Share, listeners_of, place, shares};
use crate::control::{Control, Status};
use crate::snapshot::Snapshot;

/// Nothing but our own style and script, and no frame around the page.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Rows of each table; more would only make the page slow.
const ROWS: usize = 500;

/// `/ui/`.
pub(super) async fn dashboard(State(desk): State<Arc<Desk>>) -> Result<Response, Refusal> {
    let control = Arc::clone(&desk.control);
    let page = move || render(&control).into_bytes();
    let mut response = desk.turns.render("text/html; charset=utf-8", page).await?;
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        HeaderName::from_static("x-frame-options"),
        HeaderValue::from_static("DENY"),
    );
    Ok(response)
}

/// `/ui/style.css`.
pub(super) async fn style() -> Response {
    (
        [(CONTENT_TYPE, "text/css; charset=utf-8")],
        include_str!("style.css"),
    )
        .into_response()
}

/// `/ui/refresh.js`.
pub(super) async fn script() -> Response {
    let content_type = "text/javascript; charset=utf-8";
    ([(CONTENT_TYPE, content_type)], include_str!("refresh.js")).into_response()
}

/// Drops what nobody reads of RFC 3339: the fraction and the zone, which is always UTC.
fn short_time(rfc3339: &str) -> String {
    let seconds = rfc3339.split(['.', 'Z']).next().unwrap_or_default();
    seconds.replacen('T', " ", 1)
}

/// Text that is safe between tags and inside quoted attributes.
struct Safe<T>(T);

impl<T: Display> Display for Safe<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.to_string().chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// Writing into a `String` cannot fail.
macro_rules! put {
    ($out:expr, $($argument:tt)*) => {{ let _ = write!($out, $($argument)*); }};
}

mod clusters; // after the macro it writes with

fn render(control: &Control) -> String {
    let snapshot = control.snapshot();
    let mut out = String::with_capacity(32 << 10);
    out.push_str(
        "<!doctype html><html lang=en><head><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width, initial-scale=1\">\
         <meta name=color-scheme content=\"light dark\"><title>Forebay</title>\
         <link rel=icon href=\"data:,\"><link rel=stylesheet href=style.css>\
         <script src=refresh.js defer></script></head><body>\
         <header><h1>Forebay</h1><nav><a href=\"#routes\">Routes</a> <a href=\"#clusters\">Clusters</a> \
         <a href=\"../api/config\">Configuration</a> <a href=\"../metrics\">Metrics</a> \
         <a href=\"../api/openapi.json\">API</a></nav>\
         <label id=live hidden><input type=checkbox checked> live</label></header><main>",
    );
    overview(&mut out, control, &control.status(), &snapshot);
    routes(&mut out, control, &snapshot);
    clusters::clusters(&mut out, &snapshot, &control.scaling.report());
    clusters::devices(&mut out, &control.scaling.gpus());
    out.push_str("</main></body></html>\n");
    out
}

fn overview(out: &mut String, control: &Control, status: &Status, snapshot: &Snapshot) {
    if control.is_draining() {
        out.push_str("<p class=\"banner warn\" role=status>Draining: new work is refused.</p>");
    }
    if let Some(error) = &status.last_error {
        put!(
            out,
            "<p class=\"banner bad\" role=alert><b>The last reload was refused.</b> "
        );
        if let Some(file) = &error.file {
            put!(out, "<code>{}", Safe(file));
            for number in [error.line, error.column].into_iter().flatten() {
                put!(out, ":{number}");
            }
            out.push_str("</code> ");
        }
        put!(
            out,
            "{} <small>{}</small></p>",
            Safe(&error.message),
            Safe(&error.at)
        );
    }
    out.push_str("<dl>");
    let hash = status.hash.get(..12).unwrap_or(&status.hash);
    let state = if control.is_draining() {
        "draining"
    } else {
        "serving"
    };
    let applied = short_time(&status.applied_at);
    let connections = control.shared().connections();
    let in_flight: u32 = snapshot.clusters.values().map(|c| c.state.requests()).sum();
    let facts: [(&str, &dyn Display); 6] = [
        ("State", &state),
        ("Generation", &status.generation),
        ("Connections", &connections),
        ("In flight", &in_flight),
        ("Applied (UTC)", &applied),
        ("Hash", &hash),
    ];
    for (name, value) in facts {
        put!(out, "<div><dt>{name}<dd>{}</div>", Safe(value));
    }
    out.push_str("</dl>");
    shares_notes(out, status);
    let notes: Vec<&String> = status.warnings.iter().take(ROWS).collect();
    if !notes.is_empty() {
        put!(
            out,
            "<details open><summary>{} warnings</summary><ul>",
            notes.len()
        );
        notes
            .iter()
            .for_each(|note| put!(out, "<li>{}", Safe(note)));
        out.push_str("</ul></details>");
    }
    put!(
        out,
        "<p class=quiet>{}</p>",
        Safe(status.sources.join(", "))
    );
}

/// Weights that are not those of the files, and those that wait.
fn shares_notes(out: &mut String, status: &Status) {
    for change in status.overrides.iter().take(ROWS) {
        put!(
            out,
            "<p class=\"banner warn\">The weights of <b>{}</b> are set by API",
            Safe(&change.route)
        );
        match &change.expires_at {
            Some(end) => put!(out, " until {} UTC.</p>", Safe(short_time(end))),
            None => out.push_str(".</p>"),
        }
    }
    for wait in status.pending.iter().take(ROWS) {
        put!(
            out,
            "<p class=\"banner warn\">New weights of <b>{}</b> wait for {}.</p>",
            Safe(&wait.route),
            Safe(wait.waiting_for.join(", "))
        );
    }
}

fn routes(out: &mut String, control: &Control, snapshot: &Snapshot) {
    let all = &snapshot.config.routes;
    put!(
        out,
        "<h2 id=routes>Routes <small>{}</small></h2>",
        all.len()
    );
    out.push_str(
        "<div class=wide><table><thead><tr><th>Route<th>Match<th>Action<th class=n>Wanted\
         <th class=n>Observed<th class=share>Share<th class=n>Answers<th>Source</thead>",
    );
    for (view, route) in snapshot.routes.iter().zip(all).take(ROWS) {
        let shares = shares(view, route, control.metrics());
        let rows = shares.len().max(1);
        put!(
            out,
            "<tbody><tr><th rowspan={rows} scope=rowgroup>{}",
            Safe(&route.name)
        );
        put!(
            out,
            "<small>{}</small>",
            Safe(listeners_of(route, snapshot).join(", "))
        );
        put!(out, "<td rowspan={rows}>{}", Safe(matches(route)));
        if route.priority != 0 {
            put!(out, " <small>priority {}</small>", route.priority);
        }
        let source = Safe(place(&route.position));
        match &route.action {
            Action::Forward(_) => {}
            Action::ByModel => {
                let clusters = snapshot.config.clusters.iter();
                let served = clusters.filter(|cluster| !cluster.models.is_empty());
                let served = served.map(|cluster| cluster.name.as_str());
                answers(out, control, route, served, "by model");
            }
            Action::Redirect(to) => answers(
                out,
                control,
                route,
                [],
                format_args!("redirect {}", to.status.as_u16()),
            ),
            Action::Respond(fixed) => {
                answers(
                    out,
                    control,
                    route,
                    [],
                    format_args!("respond {}", fixed.status.as_u16()),
                );
            }
        }
        for (index, share) in shares.iter().enumerate() {
            if index > 0 {
                out.push_str("<tr>");
            }
            member(out, share);
            if index == 0 {
                put!(out, "<td rowspan={rows} class=quiet>{source}");
            }
        }
        if shares.is_empty() {
            put!(out, "<td class=quiet>{source}");
        }
        out.push_str("</tbody>");
    }
    out.push_str("</table></div>");
    rest(out, all.len(), "api/routes");
}

/// Writes what a route without weights does, and how often.
///
/// * `clusters`: who answers besides the proxy itself
fn answers<'a>(
    out: &mut String,
    control: &Control,
    route: &Route,
    clusters: impl IntoIterator<Item = &'a str>,
    action: impl Display,
) {
    let answers = |cluster| control.metrics().traffic(&route.name, cluster).answers();
    let count = answers("") + clusters.into_iter().map(answers).sum::<u64>();
    put!(
        out,
        "<td class=w>{action}<td class=n>–<td class=n>–<td class=share><td class=n>{count}"
    );
}

fn member(out: &mut String, share: &Share<'_>) {
    let cluster = Safe(&share.member.cluster);
    put!(out, "<td class=w><a href=\"#c-{cluster}\">{cluster}</a>");
    put!(out, "<td class=n>{}", Percent(share.wanted));
    if share.member.weight != share.configured {
        put!(
            out,
            "<small>files: {}</small>",
            Percent(share.configured_share)
        );
    }
    match share.observed {
        Some(observed) => {
            put!(out, "<td class=n>{}<td class=share>", Percent(observed));
            // The bar is what came out, the line what was asked for.
            put!(
                out,
                "<svg viewBox=\"0 0 100 8\" preserveAspectRatio=none aria-hidden=true>\
                 <rect class=bar width={:.2} height=8 /><rect class=mark x={:.2} width=1 height=8 /></svg>",
                observed * 100.0,
                (share.wanted * 100.0).min(99.0),
            );
        }
        None => out.push_str("<td class=n>–<td class=share>"),
    }
    put!(out, "<td class=n>{}", share.requests);
}

/// A share of 0 … 1.
struct Percent(f64);

impl Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} %", self.0 * 100.0)
    }
}

fn rest(out: &mut String, count: usize, path: &str) {
    if count > ROWS {
        put!(
            out,
            "<p class=quiet>The first {ROWS} are shown; <a href=\"../{path}\">all</a>.</p>"
        );
    }
}

/// The conditions of a route, short.
fn matches(route: &Route) -> String {
    if route.matches.is_empty() {
        return "everything".to_owned();
    }
    let shown: Vec<String> = route.matches.iter().take(8).map(condition).collect();
    shown.join(" or ")
        + if route.matches.len() > 8 {
            " or …"
        } else {
            ""
        }
}

/// Values of headers and cookies may be secrets: only their names are shown.
fn condition(condition: &Match) -> String {
    let mut parts: Vec<String> = condition.methods.iter().map(ToString::to_string).collect();
    parts.extend(condition.hosts.iter().map(describe::host));
    parts.extend(condition.path.as_ref().map(|path| match path {
        PathMatch::Exact(path) => path.clone(),
        PathMatch::Prefix(prefix) => format!("{prefix}/…"),
        PathMatch::Regex(regex) => format!("~ {}", describe::unanchored(regex.as_str())),
    }));
    let headers = condition
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value));
    parts.extend(named("header", headers));
    parts.extend(named(
        "query",
        condition
            .query
            .iter()
            .map(|(name, value)| (name.as_str(), value)),
    ));
    parts.extend(named(
        "cookie",
        condition
            .cookies
            .iter()
            .map(|(name, value)| (name.as_str(), value)),
    ));
    if parts.is_empty() {
        "everything".to_owned()
    } else {
        parts.join(" ")
    }
}

fn named<'a>(
    what: &'static str,
    conditions: impl Iterator<Item = (&'a str, &'a ValueMatch)>,
) -> impl Iterator<Item = String> {
    conditions.map(move |(name, value)| match value {
        ValueMatch::Present(false) => format!("[no {what} {name}]"),
        _ => format!("[{what} {name}]"),
    })
}
