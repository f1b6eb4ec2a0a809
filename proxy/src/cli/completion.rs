//! `forebay completion SHELL`.

use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

use super::print;

/// Flags of `forebay completion`.
#[derive(Args, Clone, Copy, Debug)]
pub struct CompletionArgs {
    /// Which shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Prints a completion script for `command`.
pub async fn run(args: CompletionArgs, mut command: Command) -> ExitCode {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    print(&String::from_utf8_lossy(&script))
}
