//! `forebay run`: serves until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::control::{Control, ReloadError, Source};
use crate::load::{self, LoadError};
use crate::server::{Options, Server, StartError};

/// What SIGINT leaves to work in progress: somebody sits at a terminal.
const INTERRUPTED: Duration = Duration::from_secs(5);

/// Flags of `run`.
#[derive(Args)]
pub struct RunArgs {
    /// Files or directories (`*.yaml *.yml *.json`, merged); `-` is standard input. Default: ./forebay.yaml, else
    /// /etc/forebay/.
    #[arg(short = 'c', long = "config", value_name = "PATH")]
    config: Vec<PathBuf>,
    /// Pin a name for a trial: NAME:PORT=ADDRESS[:PORT].
    #[arg(long, value_name = "NAME:PORT=ADDR", value_parser = pinned)]
    resolve: Vec<((String, u16), SocketAddr)>,
}

fn pinned(text: &str) -> Result<((String, u16), SocketAddr), String> {
    let wrong = || {
        format!(
            "`{text}` is not NAME:PORT=ADDRESS, for example models.internal:8080=127.0.0.1:8080"
        )
    };
    let (name, address) = text.split_once('=').ok_or_else(wrong)?;
    let (name, port) = name.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let address = address
        .parse::<SocketAddr>()
        .or_else(|_| {
            address
                .parse::<std::net::IpAddr>()
                .map(|ip| (ip, port).into())
        })
        .map_err(|_| wrong())?;
    Ok(((name.to_owned(), port), address))
}

/// Serves the configuration.
pub async fn run(args: RunArgs) -> ExitCode {
    start_logging();
    let paths = match load::resolve(&args.config) {
        Ok(paths) => paths,
        Err(error) => {
            eprintln!("forebay: {error}");
            return ExitCode::from(2);
        }
    };
    let options = Options {
        source: Source::Paths(paths),
        resolve: args.resolve,
        admin_port_may_move: false,
    };
    match Server::start(options).await {
        Ok(server) => {
            announce(server.control()).await;
            serve(server).await
        }
        Err(error) => failed(&error),
    }
}

/// Prints why nothing was started and returns the exit code: 2 when the configuration could not be read, else 1.
pub fn failed(error: &StartError) -> ExitCode {
    match error {
        StartError::Config(ReloadError::Load(LoadError::Invalid { .. })) => eprintln!("{error}"),
        _ => eprintln!("forebay: {error}"),
    }
    match error {
        StartError::Config(ReloadError::Load(load)) => ExitCode::from(load.exit_code()),
        _ => ExitCode::FAILURE,
    }
}

async fn announce(control: &Control) {
    for (name, address) in control.addresses().await {
        tracing::info!(listener = name, %address, "listening");
    }
    tracing::info!(address = %control.admin, "admin");
    for warning in control.status().warnings {
        tracing::warn!("{warning}");
    }
}

/// Serves until a signal or the admin API ends it. SIGHUP reloads, SIGTERM drains, SIGINT drains in 5 s, a second
/// SIGINT or SIGTERM ends at once.
pub async fn serve(server: Server) -> ExitCode {
    let control = Arc::clone(server.control());
    let signals = (
        signal(SignalKind::hangup()),
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    let (Ok(hangup), Ok(terminate), Ok(interrupt)) = signals else {
        eprintln!("forebay: signals cannot be handled here");
        return ExitCode::FAILURE;
    };
    let listening = tokio::spawn(obey(control, hangup, terminate, interrupt));
    server.ended().await;
    listening.abort();
    tracing::info!("stopped");
    ExitCode::SUCCESS
}

async fn obey(
    control: Arc<Control>,
    mut hangup: Signal,
    mut terminate: Signal,
    mut interrupt: Signal,
) {
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                control.reopen_logs();
                let _ = control.reload().await; // counted, logged and in the status
            }
            _ = terminate.recv() => {
                if control.is_draining() {
                    control.end();
                }
                control.drain(None, None);
            }
            _ = interrupt.recv() => {
                if control.is_draining() {
                    control.end();
                }
                control.drain(Some(Duration::ZERO), Some(INTERRUPTED));
            }
        }
    }
}

/// Writes the proxy's own log to standard error; `FOREBAY_LOG` sets levels, for example `debug`.
pub fn start_logging() {
    use std::io::IsTerminal;
    let filter = tracing_subscriber::EnvFilter::try_from_env("FOREBAY_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
}

#[cfg(test)]
mod tests {
    use super::pinned;

    #[test]
    fn a_pinned_name_takes_the_port_it_stands_for_unless_it_names_one() {
        assert_eq!(
            pinned("m.x:80=10.0.0.1").unwrap(),
            (("m.x".into(), 80), "10.0.0.1:80".parse().unwrap())
        );
        assert_eq!(
            pinned("m.x:80=[::1]:81").unwrap(),
            (("m.x".into(), 80), "[::1]:81".parse().unwrap())
        );
        assert!(
            pinned("m.x=10.0.0.1")
                .unwrap_err()
                .contains("NAME:PORT=ADDRESS")
        );
    }
}
