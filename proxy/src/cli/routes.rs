//! `forebay routes`.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::client::{AdminArgs, Client};
use super::{print, print_json, table};

/// Flags of `forebay routes`.
#[derive(Args, Clone, Debug, Default)]
pub struct RoutesArgs {
    /// Which proxy is asked.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Prints the routes of a running proxy.
pub async fn run(args: RoutesArgs) -> ExitCode {
    let client = match Client::new(&args.admin) {
        Ok(client) => client,
        Err(error) => return error.report(),
    };
    match client.get("/api/routes").await {
        Ok(answer) if args.json => print_json(&answer),
        Ok(answer) => print(&render(&answer)),
        Err(error) => error.report(),
    }
}

fn render(answer: &Value) -> String {
    let routes = answer["routes"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let row = |route: &Value| {
        vec![
            text(&route["name"]),
            list(&route["listeners"])
                .iter()
                .map(text)
                .collect::<Vec<_>>()
                .join(","),
            matches(&route["matches"]),
            action(&route["action"]),
            text(&route["source"]),
        ]
    };
    let rows: Vec<Vec<String>> = routes.iter().map(row).collect();
    table::table(&["ROUTE", "LISTENERS", "MATCH", "ACTION", "SOURCE"], &rows)
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn matches(matches: &Value) -> String {
    if list(matches).is_empty() {
        return "everything".to_owned();
    }
    list(matches)
        .iter()
        .map(condition)
        .collect::<Vec<_>>()
        .join(" | ")
}

fn condition(condition: &Value) -> String {
    let mut parts: Vec<String> = list(&condition["methods"]).iter().map(text).collect();
    parts.extend(list(&condition["hosts"]).iter().map(text));
    let path = &condition["path"];
    parts.extend(path["exact"].as_str().map(str::to_owned));
    parts.extend(
        path["prefix"]
            .as_str()
            .map(|prefix| format!("{}/*", prefix.trim_end_matches('/'))),
    );
    parts.extend(path["regex"].as_str().map(|regex| format!("~{regex}")));
    for (kind, what) in [
        ("headers", "header"),
        ("query", "query"),
        ("cookies", "cookie"),
    ] {
        for (name, value) in condition[kind].as_object().into_iter().flatten() {
            let not = if value["present"] == false { "!" } else { "" };
            parts.push(format!("{not}{what}:{name}"));
        }
    }
    parts.extend(
        condition["model"]
            .as_str()
            .map(|model| format!("model:{model}")),
    );
    if parts.is_empty() {
        "everything".to_owned()
    } else {
        parts.join(" ")
    }
}

fn action(action: &Value) -> String {
    let kind = text(&action["type"]);
    if kind == "by_model" {
        return kind;
    }
    if kind != "forward" {
        return format!("{kind} {}", text(&action["status"]));
    }
    let members = list(&action["members"]);
    if let [only] = members {
        return text(&only["cluster"]);
    }
    let member = |member: &Value| {
        let percent = |share: &Value| share.as_f64().map(|share| format!("{:.1}%", share * 100.0));
        let wanted = percent(&member["effective_share"]).unwrap_or_default();
        let files = match &member["share"] {
            share if *share == member["effective_share"] => String::new(),
            share => format!(" (files {})", percent(share).unwrap_or_default()),
        };
        let observed = percent(&member["observed_share"]).map(|share| format!(" (got {share})"));
        format!(
            "{} {wanted}{files}{}",
            text(&member["cluster"]),
            observed.unwrap_or_default()
        )
    };
    members.iter().map(member).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn routes_read_well() {
        let answer = json!({"routes": [
            {"name": "split", "listeners": ["main"], "matches": [{"path": {"prefix": "/"}, "headers": {"x-a": "1"}}],
             "action": {"type": "forward", "members": [
                {"cluster": "a", "share": 0.2, "effective_share": 0.2, "observed_share": 0.21},
                {"cluster": "b", "share": 0.7, "effective_share": 0.8, "observed_share": null}]},
             "source": "f.yaml:3"},
            {"name": "models", "listeners": ["main"], "matches": [{"path": {"prefix": "/v1"}, "model": "m"}],
             "action": {"type": "by_model"}, "source": "f.yaml:6"},
            {"name": "ping", "listeners": ["main"], "matches": [], "action": {"type": "respond", "status": 200}, "source": "f.yaml:9"},
        ]});
        assert_eq!(
            render(&answer),
            "ROUTE   LISTENERS  MATCH          ACTION                                      SOURCE\n\
             split   main       /* header:x-a  a 20.0% (got 21.0%), b 80.0% (files 70.0%)  f.yaml:3\n\
             models  main       /v1/* model:m  by_model                                    f.yaml:6\n\
             ping    main       everything     respond 200                                 f.yaml:9\n"
        );
    }
}
