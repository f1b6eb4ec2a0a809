//! `forebay schema`.

use std::process::ExitCode;

use clap::Args;

use super::print_json;

/// Flags of `forebay schema`.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct SchemaArgs {
    /// The schema is JSON anyway.
    #[arg(long, hide = true)]
    pub json: bool,
}

/// Prints the JSON Schema of the configuration.
pub async fn run(_: SchemaArgs) -> ExitCode {
    print_json(&forebay_config::schema::json_schema())
}
