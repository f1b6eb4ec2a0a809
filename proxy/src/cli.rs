//! The subcommands of `forebay`, one file each.
//!
//! Exit codes: 0 done, 1 refused (an illegal configuration, or the proxy said no), 2 unreadable, unreachable or
//! misused; `import` has 3 for what is lost.

use std::io::Write;
use std::process::ExitCode;

pub mod client;
pub mod completion;
pub mod demo;
pub mod drain;
pub mod import;
pub mod proxy;
pub mod reload;
pub mod routes;
pub mod run;
pub mod schema;
pub mod status;
pub mod supervise;
mod table;
pub mod validate;
pub mod version;

/// Refused.
pub(crate) const REFUSED: u8 = 1;
/// Unreadable, unreachable or misused.
pub(crate) const UNREACHABLE: u8 = 2;

/// Writes to standard output. A reader that has gone, as in `forebay routes | head -1`, is no error.
fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("forebay: cannot write: {error}");
            ExitCode::from(UNREACHABLE)
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Writes indented JSON to standard output.
fn print_json(value: &serde_json::Value) -> ExitCode {
    print(&format!("{value:#}\n"))
}
