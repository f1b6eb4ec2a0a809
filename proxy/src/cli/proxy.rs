//! `forebay proxy --to`: one listener, one cluster, no file.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::run::{failed, serve, start_logging};
use crate::control::Source;
use crate::server::{Options, Server};

/// Flags of `proxy`.
#[derive(Args)]
pub struct ProxyArgs {
    /// Where requests go: [http://|https://]HOST[:PORT].
    #[arg(long, value_name = "URL")]
    to: String,
    /// Where to listen.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9900")]
    listen: String,
    /// Where the admin API listens; the next free port is taken when this one is not.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9901")]
    admin: String,
}

/// Host, port and whether TLS is spoken.
fn target(url: &str) -> Result<(String, u16, bool), String> {
    let wrong = |why: &str| format!("--to `{url}`: {why}; for example http://127.0.0.1:8000");
    let (tls, rest) = match url.split_once("://") {
        None => (false, url),
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        Some((scheme, _)) => return Err(wrong(&format!("`{scheme}` is not http or https"))),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#', '@']) {
        return Err(wrong(
            "a path, query or user is not understood here: use `run` with a route that rewrites",
        ));
    }
    let authority: http::uri::Authority = rest.parse().map_err(|_| wrong("this is no host"))?;
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    Ok((authority.host().to_owned(), port, tls))
}

/// The configuration that the flags stand for.
fn config(args: &ProxyArgs) -> Result<String, String> {
    let (host, port, tls) = target(&args.to)?;
    let standard = if tls { 443 } else { 80 };
    let authority = if port == standard {
        host.clone()
    } else {
        format!("{host}:{port}")
    };
    let mut cluster =
        serde_json::json!({"name": "upstream", "endpoints": [format!("{host}:{port}")]});
    if tls {
        cluster["tls"] = serde_json::json!({});
    }
    let config = serde_json::json!({
        "admin": {"address": args.admin},
        "listeners": [{"name": "default", "address": args.listen}],
        "routes": [{"name": "all", "cluster": "upstream", "rewrite": {"host": authority}}],
        "clusters": [cluster],
    });
    Ok(config.to_string())
}

/// Serves until it is told to stop.
pub async fn run(args: ProxyArgs) -> ExitCode {
    start_logging();
    let text = match config(&args) {
        Ok(text) => text,
        Err(message) => {
            eprintln!("forebay: {message}");
            return ExitCode::from(2);
        }
    };
    let source = Source::Text(Arc::from(text));
    match Server::start(Options {
        source,
        resolve: Vec::new(),
        admin_port_may_move: true,
    })
    .await
    {
        Ok(server) => {
            for (_, address) in server.control().addresses().await {
                println!("proxy  http://{address} -> {}", args.to);
            }
            println!("admin  http://{}/ui/", server.control().admin);
            serve(server).await
        }
        Err(error) => failed(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::target;

    #[test]
    fn a_target_is_a_host_with_the_port_of_its_scheme() {
        assert_eq!(
            target("127.0.0.1:8000").unwrap(),
            ("127.0.0.1".into(), 8000, false)
        );
        assert_eq!(
            target("https://models.example.com/").unwrap(),
            ("models.example.com".into(), 443, true)
        );
        assert_eq!(
            target("http://[::1]:81").unwrap(),
            ("[::1]".into(), 81, false)
        );
        for bad in ["ftp://a", "http://a/path", "", "http://user@a"] {
            assert!(target(bad).unwrap_err().contains("for example"), "{bad}");
        }
    }
}
