//! `forebay demo`: the whole thing on one machine, without a file.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use tokio::net::TcpListener;

use super::run::{failed, serve, start_logging};
use crate::control::Source;
use crate::demo::{self, Version};
use crate::server::{Options, Server};

/// Flags of `demo`.
#[derive(Args)]
pub struct DemoArgs {
    /// Where to listen.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9900")]
    listen: String,
    /// Where the admin API listens; the next free port is taken when this one is not.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9901")]
    admin: String,
}

async fn start_model(version: Version) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(demo::serve(listener, version, std::future::pending()));
    Ok(address)
}

/// Serves until it is told to stop.
pub async fn run(args: DemoArgs) -> ExitCode {
    start_logging();
    let models = (
        start_model(Version::V1).await,
        start_model(Version::V2).await,
    );
    let (Ok(v1), Ok(v2)) = models else {
        eprintln!("forebay: the demo's model servers cannot listen on 127.0.0.1");
        return ExitCode::FAILURE;
    };
    let source = Source::Text(Arc::from(demo::config(v1, v2, &args.listen, &args.admin)));
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
