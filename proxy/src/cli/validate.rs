//! `forebay validate`: every problem at once, without binding a socket.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use clap::Args;
use forebay_config::diagnostic::{Code, Diagnostic, Severity, render_all};
use forebay_config::load::SourceFile;
use forebay_config::{Auth, ClientTls, Cluster, Config, LogFormat, Position, ServerTls, node};
use serde_json::{Value, json};

use super::{REFUSED, UNREACHABLE, print, print_json};
use crate::access_log::Format;
use crate::filter::{Compiler, FilterError};
use crate::load::{LoadError, load};
use crate::tls::{self, ServerTlsState, TlsError};

/// Flags of `forebay validate`.
#[derive(Args, Clone, Debug, Default)]
pub struct ValidateArgs {
    /// Files or directories (`*.yaml *.yml *.json`, merged); `-` is standard input. Default: ./forebay.yaml, else
    /// /etc/forebay/.
    #[arg(short = 'c', long = "config", value_name = "PATH")]
    pub config: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

impl ValidateArgs {
    /// The flags that `forebay -t -c PATH…` stands for.
    pub fn of(config: Vec<PathBuf>) -> Self {
        Self {
            config,
            json: false,
        }
    }
}

/// Prints every problem of a configuration. Exits 0 when it is legal (warnings allowed), 1 when not, 2 when it cannot
/// be read.
pub async fn run(args: ValidateArgs) -> ExitCode {
    let paths = args.config.clone();
    let verdict = match tokio::task::spawn_blocking(move || Verdict::of(&paths)).await {
        Ok(verdict) => verdict,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    };
    verdict.tell(args.json)
}

/// What there is to say about a configuration.
struct Verdict {
    /// Listeners, routes and clusters; `None` when it did not come that far.
    counts: Option<[usize; 3]>,
    findings: Vec<Diagnostic>,
    sources: Vec<SourceFile>,
    /// Why it could not be read.
    unreadable: Option<String>,
}

impl Verdict {
    fn of(paths: &[PathBuf]) -> Self {
        let (loaded, sources) = match load(paths) {
            Ok(loaded) => loaded,
            Err(LoadError::Read(error)) => {
                let unreadable = Some(error.to_string());
                return Self {
                    counts: None,
                    findings: Vec::new(),
                    sources: Vec::new(),
                    unreadable,
                };
            }
            Err(LoadError::Invalid {
                diagnostics,
                sources,
            }) => {
                return Self {
                    counts: None,
                    findings: diagnostics.0,
                    sources,
                    unreadable: None,
                };
            }
        };
        let config = &loaded.config;
        let counts = Some([
            config.listeners.len(),
            config.routes.len(),
            config.clusters.len(),
        ]);
        let mut findings = loaded.warnings;
        findings.extend(check(config, &sources));
        findings.sort_by_key(|finding| {
            let Position { file, line, column } = &finding.position;
            (
                sources.iter().position(|source| source.name == *file),
                *line,
                *column,
            )
        });
        Self {
            counts,
            findings,
            sources,
            unreadable: None,
        }
    }

    fn is_legal(&self) -> bool {
        let errors = self
            .findings
            .iter()
            .any(|finding| finding.severity == Severity::Error);
        self.unreadable.is_none() && !errors
    }

    fn tell(&self, as_json: bool) -> ExitCode {
        if as_json {
            print_json(&self.json());
        } else {
            if let Some(error) = &self.unreadable {
                eprintln!("forebay: {error}");
            }
            if !self.findings.is_empty() {
                eprintln!("{}", render_all(&self.findings, &self.sources));
            }
            if let Some(line) = self.summary() {
                return print(&line);
            }
        }
        ExitCode::from(match (&self.unreadable, self.is_legal()) {
            (Some(_), _) => UNREACHABLE,
            (None, false) => REFUSED,
            (None, true) => 0,
        })
    }

    /// The line that says that all is well.
    fn summary(&self) -> Option<String> {
        let [listeners, routes, clusters] = self.counts.filter(|_| self.is_legal())?;
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let counts = [
            count(listeners, "listener"),
            count(routes, "route"),
            count(clusters, "cluster"),
        ];
        Some(format!("ok: {}\n", counts.join(", ")))
    }

    fn json(&self) -> Value {
        let mut value = json!({ "ok": self.is_legal(), "diagnostics": self.findings });
        if let Some([listeners, routes, clusters]) = self.counts {
            value["listeners"] = json!(listeners);
            value["routes"] = json!(routes);
            value["clusters"] = json!(clusters);
        }
        if let Some(error) = &self.unreadable {
            value["error"] =
                json!({ "message": error, "type": "invalid_request_error", "code": "unreadable" });
        }
        value
    }
}

/// Finds what only the proxy can: certificates, keys, CA bundles, address lists and API key files that cannot be used,
/// and access log formats that mean nothing. Reads files, binds nothing.
pub fn check(config: &Config, sources: &[SourceFile]) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    if let Some(wanted) = &config.admin.tls {
        let position = place_of(sources, &["admin", "tls"]);
        server_tls(wanted, "`admin`", &position, &mut findings);
    }
    for listener in &config.listeners {
        if let Some(wanted) = &listener.tls {
            let owner = format!("listener `{}`", listener.name);
            server_tls(wanted, &owner, &listener.position, &mut findings);
        }
    }
    for cluster in &config.clusters {
        if let Some(Err(error)) = cluster
            .tls
            .as_ref()
            .map(|wanted| client_tls(wanted, cluster))
        {
            let message = format!("cluster `{}`: {error}", cluster.name);
            findings.push(Diagnostic::new(
                Code::UnusableFile,
                &cluster.position,
                message,
            ));
        }
    }
    filters(config, &mut findings);
    if let Some(log) = &config.access_log
        && let LogFormat::Envoy(format) = &log.format
        && let Err(error) = Format::parse(format)
    {
        let position = place_of(sources, &["access_log", "format"]);
        let message = format!("`access_log.format`: {error}");
        findings.push(Diagnostic::new(Code::BadValue, &position, message));
    }
    findings
}

/// Opens list and key files as loading does; of each route the first one that cannot be used is told.
fn filters(config: &Config, findings: &mut Vec<Diagnostic>) {
    let mut tell = |FilterError { position, message }: FilterError| {
        findings.push(Diagnostic::new(Code::UnusableFile, &position, message));
    };
    let mut compiler = match Compiler::new(config, None) {
        Ok(compiler) => Some(compiler),
        Err(error) => {
            tell(error);
            let mut keyless = config.clone();
            keyless.auth = Auth::default();
            Compiler::new(&keyless, None).ok() // lists are looked at all the same
        }
    };
    for route in &config.routes {
        let compiled = compiler.as_mut().map(|compiler| compiler.route(route));
        if let Some(Err(error)) = compiled {
            tell(error);
        }
    }
}

fn server_tls(wanted: &ServerTls, owner: &str, at: &Position, findings: &mut Vec<Diagnostic>) {
    match ServerTlsState::load(wanted, tls::ALPN_HTTP) {
        Ok(state) => {
            let warnings = state.current().warnings(SystemTime::now()).into_iter();
            findings.extend(warnings.map(|warning| {
                Diagnostic::new(Code::CertificateDates, at, format!("{owner}: {warning}"))
            }));
        }
        Err(error) => {
            findings.push(Diagnostic::new(
                Code::UnusableFile,
                at,
                format!("{owner}: {error}"),
            ));
        }
    }
}

fn client_tls(wanted: &ClientTls, cluster: &Cluster) -> Result<(), TlsError> {
    tls::client::client_config(wanted, tls::ALPN_NONE)?;
    let hosts = cluster.endpoints.iter().map(|endpoint| &endpoint.host);
    for host in wanted.server_name.iter().chain(hosts) {
        tls::client::server_name(wanted, host)?;
    }
    Ok(())
}

/// Returns where the value under these keys is written, or as much of the way there as any file has.
fn place_of(sources: &[SourceFile], keys: &[&str]) -> Position {
    let mut best = (
        0,
        sources
            .first()
            .map_or_else(|| Arc::from("configuration"), |s| Arc::clone(&s.name)),
        1,
        1,
    );
    for source in sources {
        let (tree, _) = node::parse(source);
        let mut at = tree.as_ref();
        for (depth, key) in keys.iter().enumerate() {
            at = at.and_then(|node| node.get(key));
            if let Some(node) = at
                && depth + 1 > best.0
            {
                let Position { file, line, column } = node.position.clone();
                best = (depth + 1, file, line, column);
            }
        }
    }
    let (_, file, line, column) = best;
    Position { file, line, column }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str) -> (Verdict, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.yaml");
        std::fs::write(&path, text).unwrap();
        (Verdict::of(&[path]), directory)
    }

    fn rendered(verdict: &Verdict, directory: &tempfile::TempDir) -> String {
        let prefix = format!("{}/", directory.path().display());
        render_all(&verdict.findings, &verdict.sources).replace(&prefix, "")
    }

    #[test]
    fn a_legal_file_is_counted() {
        let (verdict, _directory) = verdict(
            "routes: [{name: r, cluster: c}]\nclusters: [{name: c, endpoints: ['127.0.0.1:1']}]\n",
        );
        assert_eq!(
            verdict.summary().unwrap(),
            "ok: 1 listener, 1 route, 1 cluster\n"
        );
        assert_eq!(verdict.tell(false), ExitCode::SUCCESS);
    }

    #[test]
    fn what_only_the_proxy_can_see_is_told_with_its_place() {
        let (verdict, directory) = verdict(
            "listeners:\n- {name: l, address: '127.0.0.1:0', tls: {certificate: no.crt, key: no.key}}\n\
             routes: [{name: r, cluster: c}]\n\
             clusters:\n- {name: c, endpoints: ['127.0.0.1:1'], tls: {ca: no-ca.crt}}\n\
             access_log:\n  format: '%NONSENSE%'\n",
        );
        let text = rendered(&verdict, &directory);
        assert!(
            text.contains("a.yaml:2:3: error[E030]: listener `l`: no.crt: no such file\n"),
            "{text}"
        );
        assert!(
            text.contains("a.yaml:5:3: error[E030]: cluster `c`: no-ca.crt: no such file\n"),
            "{text}"
        );
        assert!(
            text.contains("a.yaml:7:11: error[E013]: `access_log.format`: "),
            "{text}"
        );
        assert_eq!(verdict.findings.len(), 3);
        assert_eq!(verdict.summary(), None);
        assert_eq!(verdict.tell(true), ExitCode::from(1));
    }

    #[test]
    fn list_and_key_files_are_opened_as_when_loading() {
        let text = "auth: {api_keys: {file: keys.txt}}\n\
                    routes:\n- {name: r, cluster: c, access: {deny: [{file: list.txt}]}}\n\
                    clusters: [{name: c, endpoints: ['127.0.0.1:1']}]\n";
        let (mut verdict, directory) = verdict(text);
        let shown = rendered(&verdict, &directory);
        for start in [
            "a.yaml:1:18: error[E030]: auth.api_keys: cannot read keys.txt: ",
            "a.yaml:3:33: error[E030]: route `r`: access: cannot read list.txt: ",
        ] {
            assert!(shown.contains(start), "{shown}");
        }
        assert_eq!(verdict.tell(true), ExitCode::from(1));

        let of = |name: &str| directory.path().join(name);
        std::fs::write(of("keys.txt"), "ci hunter2\n").unwrap();
        std::fs::write(of("list.txt"), "192.0.2.0/24\nnobody\n").unwrap();
        verdict = Verdict::of(&[of("a.yaml")]);
        let shown = rendered(&verdict, &directory);
        assert!(
            shown.contains("keys.txt:1: the hash of a key is"),
            "{shown}"
        );
        assert!(
            shown.contains("list.txt:2: `nobody` is no address"),
            "{shown}"
        );
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(verdict.findings.len(), 2);

        let hash = "0".repeat(64);
        std::fs::write(of("keys.txt"), format!("ci sha256:{hash}\n")).unwrap();
        std::fs::write(of("list.txt"), "192.0.2.0/24\n").unwrap();
        verdict = Verdict::of(&[of("a.yaml")]);
        assert!(verdict.findings.is_empty() && verdict.is_legal());
    }

    #[test]
    fn every_problem_is_shown_with_a_caret() {
        let (verdict, directory) = verdict("ruotes: []\nworkers: many\n");
        let text = rendered(&verdict, &directory);
        assert!(text.starts_with("a.yaml:1:1: error[E010]: "), "{text}");
        assert!(text.contains("1 | ruotes: []\n  | ^^^^^^"), "{text}");
        assert!(text.contains("a.yaml:2:10: "), "{text}");
        assert_eq!(verdict.json()["diagnostics"].as_array().unwrap().len(), 2);
        assert_eq!(verdict.tell(false), ExitCode::from(1));
    }

    #[test]
    fn what_cannot_be_read_exits_2() {
        let verdict = Verdict::of(&[PathBuf::from("/nonexistent/forebay.yaml")]);
        assert_eq!(verdict.tell(true), ExitCode::from(2));
        assert_eq!(verdict.json()["error"]["code"], "unreadable");
    }
}
