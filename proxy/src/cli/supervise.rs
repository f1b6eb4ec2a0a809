//! `forebay supervise`: the child that watches one model server. Hidden: the proxy starts it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::driver::supervise::{self, Ending, Task};

/// Flags of `forebay supervise`.
#[derive(Args, Clone, Debug)]
pub struct SuperviseArgs {
    /// Milliseconds between the request to stop and SIGKILL.
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    stop_timeout: u64,
    /// Where the program runs.
    #[arg(long, value_name = "PATH")]
    directory: Option<PathBuf>,
    /// One word of the command that stops the program instead of SIGTERM; repeated for each; `${PID}` is replaced.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// The second stage: become the program, and die with this parent.
    #[arg(long, value_name = "PID", hide = true)]
    child_of: Option<i32>,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs the program until it exits or standard input ends. Returns its exit code, 128 + signal when one ended it.
pub fn run(args: SuperviseArgs) -> ExitCode {
    if let Some(parent) = args.child_of {
        return supervise::become_program(parent, &args.command);
    }
    supervise::run(Task {
        command: args.command,
        directory: args.directory,
        ending: Ending {
            stop: (!args.stop.is_empty()).then_some(args.stop),
            timeout: Duration::from_millis(args.stop_timeout),
        },
    })
}
