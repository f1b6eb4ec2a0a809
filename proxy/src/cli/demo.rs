//! `forebay demo`: the whole thing on one machine, without a file.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::run::{failed, serve, start_logging};
use crate::control::Source;
use crate::demo::{self, Version};
use crate::driver::supervise::executable;
use crate::server::{Options, Server};

/// How long a model server of the demo claims to load: long enough to see a request wait.
const LOAD: Duration = Duration::from_secs(2);

/// Flags of `demo`.
#[derive(Args)]
pub struct DemoArgs {
    /// Where to listen.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9900")]
    listen: String,
    /// Where the admin API listens; the next free port is taken when this one is not.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9901")]
    admin: String,
    /// Be one of the demo's model servers instead; the demo starts them so.
    #[arg(long, value_name = "VERSION", hide = true, requires = "port", value_parser = version)]
    model: Option<Version>,
    /// With `--model`: the port on 127.0.0.1.
    #[arg(long, hide = true, requires = "model")]
    port: Option<u16>,
}

fn version(text: &str) -> Result<Version, String> {
    let both = [Version::V1, Version::V2];
    let found = both.into_iter().find(|version| version.as_str() == text);
    found.ok_or_else(|| format!("`{text}` is not v1 or v2"))
}

/// Serves until it is told to stop.
pub async fn run(args: DemoArgs) -> ExitCode {
    if let (Some(version), Some(port)) = (args.model, args.port) {
        return match serve_model(version, port).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("iris {}: {error}", version.as_str());
                ExitCode::FAILURE
            }
        };
    }
    start_logging();
    let program = match executable() {
        Ok(program) => program.to_string_lossy().into_owned(),
        Err(error) => {
            eprintln!("forebay: cannot find itself to start model servers: {error}");
            return ExitCode::FAILURE;
        }
    };
    let source = Source::Text(Arc::from(demo::config(&program, &args.listen, &args.admin)));
    match Server::start(Options {
        source,
        resolve: Vec::new(),
        admin_port_may_move: true,
    })
    .await
    {
        Ok(server) => {
            let addresses = server.control().addresses().await;
            let listen = addresses
                .first()
                .map_or(args.listen, |(_, address)| address.to_string());
            println!(
                "{}",
                demo::banner(&listen, &server.control().admin.to_string())
            );
            serve(server).await
        }
        Err(error) => failed(&error),
    }
}

/// One model server of the demo, until SIGTERM.
async fn serve_model(version: Version, port: u16) -> std::io::Result<()> {
    let name = version.as_str();
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!(
        "iris {name}: loading for {LOAD:?}, an artificial delay: a larger model would need it"
    );
    let serving = demo::serve(listener, version, LOAD, async move {
        terminate.recv().await;
        println!("iris {name}: stopping");
    });
    let loaded = async {
        tokio::time::sleep(LOAD).await;
        println!("iris {name}: ready on 127.0.0.1:{port}");
        std::future::pending().await
    };
    tokio::select! {
        served = serving => served,
        never = loaded => never,
    }
}
