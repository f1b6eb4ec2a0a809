//! `forebay proxy`: one listener, one cluster that is given or started on demand, no file.

use std::process::ExitCode;
use std::sync::Arc;

use clap::builder::PossibleValuesParser;
use clap::{ArgGroup, Args};
use serde_json::{Value, json};

use super::run::{failed, serve, start_logging};
use crate::control::Source;
use crate::server::{Options, Server};
use crate::server_kind::SERVERS;

/// What the server's port is written as in `--run`.
const PORT: &str = "${PORT}";

/// Flags of `proxy`.
#[derive(Args)]
#[command(group = ArgGroup::new("upstream").args(["to", "run"]).required(true))]
pub struct ProxyArgs {
    /// Where requests go: [http://|https://]HOST[:PORT].
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// The command of a server on a port of 127.0.0.1, which the first request starts: 'llama-server --port ${PORT}
    /// -m m.gguf'. Split as a shell splits, run without one.
    #[arg(long, value_name = "CMD")]
    run: Option<String>,
    /// With `--run`: after this long without a request the server is stopped; `none`: never.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = idle, conflicts_with = "to")]
    idle: String,
    /// With `--run`: what kind of server it is, which says how it tells that it is ready. Of a generic one that accepts
    /// connections, it is believed.
    #[arg(long, value_name = "KIND", default_value = "generic", value_parser = kinds(), conflicts_with = "to")]
    server: String,
    /// Where to listen.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9900")]
    listen: String,
    /// Where the admin API listens; the next free port is taken when this one is not.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9901")]
    admin: String,
}

fn kinds() -> PossibleValuesParser {
    PossibleValuesParser::new(SERVERS.iter().map(|server| server.name))
}

fn idle(text: &str) -> Result<String, String> {
    let legal = text == "none" || forebay_config::units::duration(text).is_some();
    let wrong = || format!("`{text}` is no time, for example 5m, 90s or none");
    legal.then(|| text.to_owned()).ok_or_else(wrong)
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

/// A cluster at one address, and the Host its requests get.
fn given(url: &str) -> Result<(Value, String), String> {
    let (host, port, tls) = target(url)?;
    let standard = if tls { 443 } else { 80 };
    let authority = if port == standard {
        host.clone()
    } else {
        format!("{host}:{port}")
    };
    let mut cluster = json!({"name": "upstream", "endpoints": [format!("{host}:{port}")]});
    if tls {
        cluster["tls"] = json!({});
    }
    Ok((cluster, authority))
}

/// A cluster of one server that is started on demand.
fn started(command: &str, idle: &str, server: &str) -> Result<Value, String> {
    if !command.contains(PORT) {
        return Err(format!(
            "--run `{command}`: {PORT} is missing, the port that the server is to listen on; \
             for example --run 'llama-server --port {PORT} -m m.gguf', in single quotes, or the shell takes it"
        ));
    }
    let command = command.replace("${env:", "$${env:"); // the shell has replaced what it should
    let scale = json!({"idle": idle, "process": {"command": command}});
    Ok(json!({"name": "upstream", "server": server, "scale": scale}))
}

/// The configuration that the flags stand for, and what to call the upstream.
fn config(args: &ProxyArgs) -> Result<(String, String), String> {
    let mut route = json!({"name": "all", "cluster": "upstream"});
    let (cluster, shown) = match (&args.to, &args.run) {
        (Some(url), None) => {
            let (cluster, host) = given(url)?;
            route["rewrite"] = json!({"host": host});
            (cluster, url.clone())
        }
        (None, Some(command)) => {
            let cluster = started(command, &args.idle, &args.server)?;
            (cluster, format!("{command}, started by the first request"))
        }
        _ => return Err("exactly one of --to and --run says where requests go".to_owned()),
    };
    let config = json!({
        "admin": {"address": args.admin},
        "listeners": [{"name": "default", "address": args.listen}],
        "routes": [route],
        "clusters": [cluster],
    });
    Ok((config.to_string(), shown))
}

/// Serves until it is told to stop.
pub async fn run(args: ProxyArgs) -> ExitCode {
    start_logging();
    let (text, upstream) = match config(&args) {
        Ok(both) => both,
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
                println!("proxy  http://{address} -> {upstream}");
            }
            println!("admin  http://{}/ui/", server.control().admin);
            serve(server).await
        }
        Err(error) => failed(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::{ProxyArgs, config, started, target};

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

    #[test]
    fn a_command_without_its_port_is_refused() {
        let refused = started("llama-server --port  -m m.gguf", "5m", "llama.cpp").unwrap_err();
        assert!(refused.contains("${PORT} is missing"), "{refused}");
    }

    #[test]
    fn nothing_but_the_port_is_replaced() {
        let cluster = started("a ${PORT} ${env:HOME}", "none", "generic").unwrap();
        let process = &cluster["scale"]["process"];
        assert_eq!(process["command"], "a ${PORT} $${env:HOME}");
    }

    #[test]
    fn the_host_is_rewritten_only_for_what_is_somewhere_else() {
        let args = |to: Option<&str>, run: Option<&str>| ProxyArgs {
            to: to.map(str::to_owned),
            run: run.map(str::to_owned),
            idle: "5m".into(),
            server: "generic".into(),
            listen: "127.0.0.1:0".into(),
            admin: "127.0.0.1:0".into(),
        };
        let route = |args: &ProxyArgs| {
            let (text, _) = config(args).unwrap();
            let config: serde_json::Value = serde_json::from_str(&text).unwrap();
            config["routes"][0].clone()
        };
        let given = route(&args(Some("https://models.example.com"), None));
        assert_eq!(given["rewrite"]["host"], "models.example.com");
        let started = route(&args(None, Some("a ${PORT}")));
        assert!(started["rewrite"].is_null(), "{started}");
    }
}
