//! `forebay import`: documents of other programs as native configuration.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use forebay_config::diagnostic::{Severity, render_all};
use forebay_config::import::{
    self, CertificateFiles, Finding, Format, Level, Options, Pin, Translation,
};
use forebay_config::load::{self, SourceFile};
use forebay_config::node;
use serde_json::json;

use super::{REFUSED, UNREACHABLE, print, print_json};
use crate::load::read;

/// Something is lost.
const LOST: u8 = 3;
/// What the result is called in messages about it.
const RESULT: &str = "(result)";

/// Flags of `forebay import`.
#[derive(Args, Clone, Debug)]
pub struct ImportArgs {
    /// What the documents are: istio, gateway-api, ingress, kserve or llama-swap.
    pub format: Format,
    /// Files or directories; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Namespace of documents that name none.
    #[arg(long, default_value = "default")]
    pub namespace: String,
    /// Where a service is, for trials: `resnet.ml:8501=127.0.0.1:8501`. May be repeated.
    #[arg(long, value_name = "NAME:PORT=ADDRESS:PORT")]
    pub resolve: Vec<Pin>,
    /// Files of a Secret's certificate: `ml/tls=tls.crt,tls.key`. May be repeated.
    #[arg(long, value_name = "SECRET=CERTIFICATE,KEY", value_parser = secret)]
    pub certificate: Vec<(String, CertificateFiles)>,
    /// Print the configuration and the findings as JSON.
    #[arg(long)]
    pub json: bool,
    /// Also say what is translated as it is.
    #[arg(short, long)]
    pub verbose: bool,
}

fn secret(text: &str) -> Result<(String, CertificateFiles), String> {
    let form = "expected NAMESPACE/NAME=CERTIFICATE,KEY";
    let (name, files) = text.split_once('=').ok_or(form)?;
    let (certificate, key) = files.split_once(',').ok_or(form)?;
    if !name.contains('/') || certificate.is_empty() || key.is_empty() {
        return Err(form.to_owned());
    }
    let files = CertificateFiles {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
    };
    Ok((name.to_owned(), files))
}

/// Prints the native configuration on standard output and what became of the documents' fields on standard error. Exits
/// 0 when nothing is lost, 3 when something is, 1 when the documents are no YAML or the result is not legal, 2 when a
/// file cannot be read.
pub async fn run(args: ImportArgs) -> ExitCode {
    match tokio::task::spawn_blocking(move || import(&args)).await {
        Ok(code) => code,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

fn import(args: &ImportArgs) -> ExitCode {
    let sources = match read(&args.files) {
        Ok(sources) => sources,
        Err(error) => {
            eprintln!("forebay: {error}");
            return ExitCode::from(UNREACHABLE);
        }
    };
    let (mut documents, mut problems) = (Vec::new(), Vec::new());
    for source in &sources {
        let (parsed, found) = node::parse_documents(source);
        documents.extend(parsed.into_iter().flatten());
        problems.extend(found);
    }
    if problems.iter().any(|p| p.severity == Severity::Error) {
        eprintln!("{}", render_all(&problems, &sources));
        return ExitCode::from(REFUSED);
    }
    let options = Options {
        format: Some(args.format),
        namespace: args.namespace.clone(),
        pins: args.resolve.clone(),
        certificates: args.certificate.iter().cloned().collect::<HashMap<_, _>>(),
        verbose: args.verbose,
        ..Options::default()
    };
    let translation = import::translate(&documents, &options);
    let yaml = import::to_yaml(&translation.root);
    let printed = tell(args, &translation, &yaml);
    if printed != ExitCode::SUCCESS {
        return printed;
    }
    if let Some(errors) = illegal(&yaml) {
        eprintln!("{errors}");
        return ExitCode::from(REFUSED);
    }
    match translation.worst() {
        Level::Lost => ExitCode::from(LOST),
        Level::Ok | Level::Approximated => ExitCode::SUCCESS,
    }
}

fn tell(args: &ImportArgs, translation: &Translation, yaml: &str) -> ExitCode {
    if args.json {
        return print_json(&json!({ "yaml": yaml, "findings": translation.findings }));
    }
    for finding in &translation.findings {
        eprintln!("{}", line(finding));
    }
    let count = |level| {
        let findings = translation.findings.iter();
        findings.filter(|finding| finding.level == level).count()
    };
    let (approximated, lost) = (count(Level::Approximated), count(Level::Lost));
    if approximated + lost > 0 {
        eprintln!("{lost} lost, {approximated} approximated");
    }
    print(yaml)
}

/// `file:line:col: lost: VirtualService ml/resnet spec.http[0].fault: faults are not injected`
fn line(finding: &Finding) -> String {
    let at = &finding.position;
    let weight = if finding.security { " (security)" } else { "" };
    let (file, level, what) = (&at.file, finding.level, finding.what());
    format!("{file}:{}:{}: {level}{weight}: {what}", at.line, at.column)
}

/// What is wrong with the result; `None`: it loads.
fn illegal(yaml: &str) -> Option<String> {
    let source = SourceFile {
        name: Arc::from(RESULT),
        directory: PathBuf::from("."),
        text: yaml.to_owned(),
    };
    let sources = [source];
    let failed = load::load(&sources, &|name| std::env::var(name).ok()).err()?;
    Some(failed.render(&sources))
}
