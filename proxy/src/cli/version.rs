//! `forebay version`.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{print, print_json};

/// Flags of `forebay version`.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct VersionArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Cargo features of this build, beyond what every build has.
const FEATURES: &[&str] = &[];

/// Prints the version; the compiler and the commit only when the build told them, as packages do.
pub async fn run(args: VersionArgs) -> ExitCode {
    let (rustc, commit) = (option_env!("FOREBAY_RUSTC"), option_env!("FOREBAY_COMMIT"));
    if args.json {
        return print_json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "rustc": rustc,
            "commit": commit,
            "features": FEATURES,
            "target": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        }));
    }
    let mut line = format!("forebay {}", env!("CARGO_PKG_VERSION"));
    for known in [commit, rustc].into_iter().flatten() {
        line.push_str(&format!(" ({known})"));
    }
    line.push('\n');
    print(&line)
}
