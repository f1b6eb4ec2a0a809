//! The binary `forebay`: flags, logging, signals. No logic to test.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use forebay::cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The pool in front of the turbine: a data-plane proxy for people who serve models.
#[derive(Parser)]
#[command(
    name = "forebay",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
struct Flags {
    #[command(subcommand)]
    command: Option<Command>,
    /// The same as `validate`, for scripts that know nginx.
    #[arg(short = 't', hide = true)]
    test: bool,
    /// With `-t`: files or directories.
    #[arg(short = 'c', long = "config", hide = true)]
    config: Vec<std::path::PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a configuration.
    Run(cli::run::RunArgs),
    /// Proxy to one address, or to a command started on demand, without a file.
    Proxy(cli::proxy::ProxyArgs),
    /// Serve two versions of a bundled small model, started from zero, with a split between them.
    Demo(cli::demo::DemoArgs),
    /// Check a configuration and print every problem at once.
    Validate(cli::validate::ValidateArgs),
    /// Turn documents of Istio, Gateway API, Ingress, KServe or llama-swap into a configuration.
    Import(cli::import::ImportArgs),
    /// Make a running proxy read its configuration again, and wait for the result.
    Reload(cli::reload::ReloadArgs),
    /// Make a running proxy finish its work and stop.
    Drain(cli::drain::DrainArgs),
    /// Print the state of a running proxy.
    Status(cli::status::StatusArgs),
    /// Print the routes of a running proxy.
    Routes(cli::routes::RoutesArgs),
    /// Print the JSON Schema of the configuration.
    Schema(cli::schema::SchemaArgs),
    /// Print a completion script for a shell.
    Completion(cli::completion::CompletionArgs),
    /// Watch one model server; the proxy starts it.
    #[command(hide = true)]
    Supervise(cli::supervise::SuperviseArgs),
    /// Print the version.
    Version(cli::version::VersionArgs),
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let Some(command) = flags.command else {
        if flags.test {
            return block_on(cli::validate::run(cli::validate::ValidateArgs::of(
                flags.config,
            )));
        }
        let _ = <Flags as clap::CommandFactory>::command().print_help();
        return ExitCode::from(2);
    };
    match command {
        Command::Run(args) => block_on(cli::run::run(args)),
        Command::Proxy(args) => block_on(cli::proxy::run(args)),
        Command::Demo(args) => block_on(cli::demo::run(args)),
        Command::Validate(args) => block_on(cli::validate::run(args)),
        Command::Import(args) => block_on(cli::import::run(args)),
        Command::Reload(args) => block_on(cli::reload::run(args)),
        Command::Drain(args) => block_on(cli::drain::run(args)),
        Command::Status(args) => block_on(cli::status::run(args)),
        Command::Routes(args) => block_on(cli::routes::run(args)),
        Command::Schema(args) => block_on(cli::schema::run(args)),
        Command::Completion(args) => block_on(cli::completion::run(
            args,
            <Flags as clap::CommandFactory>::command(),
        )),
        Command::Supervise(args) => cli::supervise::run(args),
        Command::Version(args) => block_on(cli::version::run(args)),
    }
}

/// Runs a command on the control runtime. The data plane has threads of its own.
fn block_on(command: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(command);
            runtime.shutdown_timeout(std::time::Duration::from_millis(100));
            code
        }
        Err(error) => {
            eprintln!("forebay: cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}
