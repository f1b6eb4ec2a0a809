//! The table for people.

use super::{Errors, Gauges, Reads, SERVERS, Series, Server, Signal, Streaming};

/// What stands for nothing.
const NONE: &str = "–";

/// Returns the table of server kinds as Markdown; `server_kind/README.md` is made from it.
pub fn reference() -> String {
    let mut out = String::from(
        "# Server kinds\n\n\
         What a cluster's `server` stands for. Made from the table in `table.rs`; a test compares them.\n\n\
         | kind | ports: HTTP, gRPC, metrics | live | ready | one model is ready | patience | errors | streams |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    SERVERS
        .iter()
        .for_each(|server| out.push_str(&checks(server)));
    out.push_str(
        "\n`–` under ready: a connection counts. Where a cluster names `models` and has no `health`, its first \
         model is asked for.\n\n\
         | kind | metrics | needs | running | `queue` | `kv_cache` |\n|---|---|---|---|---|---|\n",
    );
    SERVERS
        .iter()
        .for_each(|server| out.push_str(&signals(server)));
    out.push_str(
        "\nAll series are gauges. Of several names the first that a page has counts; the series of one name are added, \
         but of `kv_cache` the mean is taken.\n",
    );
    out
}

fn code(text: impl std::fmt::Display) -> String {
    format!("`{text}`")
}

fn or_none(text: Option<String>) -> String {
    text.unwrap_or_else(|| NONE.to_owned())
}

fn checks(server: &Server) -> String {
    let ports = server.kind.ports();
    let ports = [ports.http, ports.grpc, ports.metrics]
        .map(|port| port.map_or_else(|| NONE.to_owned(), |port| port.to_string()));
    let model = server.model.map(|model| {
        let path = match model.port {
            Some(port) => code(format_args!(":{port}{}", model.path)),
            None => code(model.path),
        };
        match model.reads {
            Reads::Status => path,
            Reads::Available => format!("{path}: a version is `AVAILABLE`"),
            Reads::Workers => format!("{path}: a worker is `READY`"),
        }
    });
    let errors = match server.errors {
        Errors::Object => "`{\"error\": {…}}`",
        Errors::Text => "`{\"error\": \"…\"}`",
    };
    let streams = match server.streaming {
        Streaming::None => NONE,
        Streaming::Events => "SSE",
        Streaming::Lines => "NDJSON",
        Streaming::Chunks => "chunks",
    };
    format!(
        "| `{}` | {} | {} | {} | {} | {} s | {errors} | {streams} |\n",
        server.name,
        ports.join(", "),
        or_none(server.live.map(code)),
        or_none(server.ready.map(code)),
        or_none(model),
        server.patience.as_secs(),
    )
}

fn signals(server: &Server) -> String {
    let [running, queue, kv_cache] = Signal::ALL.map(|signal| names(&server.gauges, signal));
    format!(
        "| `{}` | {} | {} | {running} | {queue} | {kv_cache} |\n",
        server.name,
        or_none(server.metrics.map(code)),
        or_none(server.flag.map(code)),
    )
}

fn names(gauges: &Gauges, signal: Signal) -> String {
    let name = |series: &Series| match series.label {
        None => code(series.name),
        Some((label, value)) => code(format_args!("{}{{{label}=\"{value}\"}}", series.name)),
    };
    match gauges.of(signal) {
        [] => NONE.to_owned(),
        all => all.iter().map(name).collect::<Vec<_>>().join(", else "),
    }
}
