//! `forebay reload`.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::client::{AdminArgs, Client, ClientError};
use super::table::clean;
use super::{REFUSED, print, print_json};

/// Flags of `forebay reload`.
#[derive(Args, Clone, Debug, Default)]
pub struct ReloadArgs {
    /// Which proxy is told.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Makes a running proxy read its configuration again and waits for the result. A refused configuration exits 1 with
/// its diagnostics.
pub async fn run(args: ReloadArgs) -> ExitCode {
    let client = match Client::new(&args.admin) {
        Ok(client) => client,
        Err(error) => return error.report(),
    };
    match client.post("/api/reload", &json!({})).await {
        Ok(status) if args.json => print_json(&status),
        Ok(status) => {
            let warnings = status["warnings"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            warnings
                .iter()
                .filter_map(Value::as_str)
                .for_each(|warning| eprintln!("{}", clean(warning)));
            print(&format!("ok: generation {} serves\n", status["generation"]))
        }
        Err(ClientError::Refused(_, answer)) if args.json => {
            print_json(&answer);
            ExitCode::from(REFUSED)
        }
        Err(ClientError::Refused(_, answer)) if answer["error"]["diagnostics"].is_array() => {
            eprint!("{}", refused(&answer["error"]));
            ExitCode::from(REFUSED)
        }
        Err(error) => error.report(),
    }
}

fn refused(error: &Value) -> String {
    let mut out = String::new();
    let text = |value: &Value| value.as_str().map(clean).unwrap_or_default();
    let diagnostics = error["diagnostics"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    for diagnostic in diagnostics {
        let at = &diagnostic["position"];
        let place = format!("{}:{}:{}", text(&at["file"]), at["line"], at["column"]);
        let kind = format!(
            "{}[{}]",
            text(&diagnostic["severity"]),
            text(&diagnostic["code"])
        );
        let _ = writeln!(out, "{place}: {kind}: {}", text(&diagnostic["message"]));
        if let Some(help) = diagnostic["help"].as_str() {
            let _ = writeln!(out, "  = help: {}", clean(help));
        }
    }
    if diagnostics.is_empty() {
        let _ = writeln!(out, "{}", text(&error["message"]));
    }
    out.push_str("the new configuration is refused, the last good one serves on\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_shows_every_finding_with_its_place() {
        let position = json!({"file": "a.yaml", "line": 3, "column": 5});
        let finding = json!({"severity": "error", "code": "E010", "message": "unknown key", "help": "`b`?", "position": position});
        assert_eq!(
            refused(&json!({"message": "unknown key", "diagnostics": [finding]})),
            "a.yaml:3:5: error[E010]: unknown key\n  = help: `b`?\n\
             the new configuration is refused, the last good one serves on\n"
        );
        assert!(
            refused(&json!({"message": "cannot bind", "diagnostics": []}))
                .starts_with("cannot bind\n")
        );
    }
}
