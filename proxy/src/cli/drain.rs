//! `forebay drain`.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value, json};

use super::client::{AdminArgs, Client, ClientError};
use super::{print, print_json};

/// Flags of `forebay drain`.
#[derive(Args, Clone, Debug, Default)]
pub struct DrainArgs {
    /// Which proxy is told.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Return only when the drain has ended.
    #[arg(long)]
    pub wait: bool,
    /// How long answers only announce the end, as in `5s`; default: as configured.
    #[arg(long, value_name = "DURATION")]
    pub delay: Option<String>,
    /// How long work in progress may take after that; default: as configured.
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Makes a running proxy finish its work and stop.
pub async fn run(args: DrainArgs) -> ExitCode {
    let client = match Client::new(&args.admin) {
        Ok(client) => client,
        Err(error) => return error.report(),
    };
    let fields = [("delay", args.delay), ("timeout", args.timeout)];
    let given = fields
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), json!(value?))));
    let body = Value::Object(given.collect::<Map<_, _>>());
    let path = if args.wait {
        "/api/drain?wait=true"
    } else {
        "/api/drain"
    };
    let answer = match client.post(path, &body).await {
        // The process may end before its last answer is written: it has ended all the same.
        Err(ClientError::Cut(_)) if args.wait && has_gone(&client).await => {
            json!({ "draining": true, "drained": true })
        }
        Ok(answer) => answer,
        Err(error) => return error.report(),
    };
    match (args.json, args.wait) {
        (true, _) => print_json(&answer),
        (false, true) => print("drained\n"),
        (false, false) => print("draining\n"),
    }
}

/// Nobody listens there any more.
async fn has_gone(client: &Client) -> bool {
    matches!(
        client.get("/api/config/status").await,
        Err(ClientError::Unreachable(_))
    )
}
