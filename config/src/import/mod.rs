//! Documents of other programs become native configuration: Istio, Gateway API, Ingress, KServe, llama-swap.
//!
//! [`translate`] turns documents into the native [`Node`] tree, the same that native files are parsed to, each node
//! with the place in the *imported* document; [`load`](crate::load::load) merges it with native files and goes on as
//! ever, and `forebay import` prints it with [`to_yaml`]. Nothing else reads documents of other programs.
//!
//! # How a translator is written
//!
//! A translator is a directory here with a `TRANSLATOR`: its [`Kind`]s, and two functions that get [`Work`]. First the
//! `services` functions of all translators run: they add what documents describe to [`Work::services`]. Then the
//! `routes` functions: they make routes and clusters.
//!
//! ```text
//! const KIND: Kind = Kind { group: "networking.istio.io", name: "VirtualService", versions: &["v1", "v1beta1"],
//!     format: Some(Format::Istio), proto: true, fields: &[
//!         Field::ok("spec.http[].timeout"),
//!         Field::approximated("spec.http[].retries.attempts", "at most 10"),
//!         Field::lost("spec.http[].fault", "faults are not injected"),
//! ] };
//!
//! fn routes(work: &mut Work<'_>) {
//!     for document in work.documents("networking.istio.io", "VirtualService") {
//!         let Some(spec) = document.fields(work.audit).map("spec") else { continue };
//!         for (index, rule) in spec.maps("http").into_iter().enumerate() {
//!             let target = Target { host, namespace: document.namespace, port: PortRef::Only, subset: None, at };
//!             let Ok(cluster) = work.cluster(&target) else { … };
//!             let name = work.name(&document, index, rule.at());
//!             let mut route = native::Route::new(rule.at(), name, Action::Cluster(cluster));
//!             route.order = Order::FirstMatch;
//!             route.timeouts.total = rule.duration("timeout");
//!             work.output.routes.push(route);
//!         }
//!     }
//! }
//! ```
//!
//! * **Reading** ([`Fields`]): every method that returns a value marks it as read, and finds a value of a wrong type to
//!   be lost. After the translators the documents are walked: what the table ([`Field`]) calls `ok` or `approximated`
//!   *and* somebody read, is that; all else is lost, unless the table calls it harmless. So nothing is dropped silently,
//!   and a field that is read without being in the table is lost as well, which tests notice.
//! * **Worse than the table** in one document: [`Fields::approximated`], [`Fields::lost`], [`Fields::lost_security`],
//!   and `…_here` for a whole map such as an item of a list. What refers to nothing is `lost` with the `Err` of
//!   [`Work::cluster`] as its note.
//! * **A condition that cannot be expressed drops its whole match**, never just itself, and a route without any match
//!   left is dropped: the rest would take requests that were not meant.
//! * **Security**: `.secure()` in the table, or `lost_security`, for what protects somebody. Such a loss refuses the
//!   load of a configuration directory; other losses are warnings.
//! * **Saying** ([`native`]): typed parts whose fields are the native keys; values are [`Leaf`]s, which carry their
//!   place, `leaf.with("5s")` is another value of the same place. Nothing there can name a process, a file or an admin
//!   key, but with the proof of [`Work::asked`] and the files of [`Work::certificate`].
//! * **Order** ([`native::Order`]): `FirstMatch` keeps the order in which routes are added, by `priority`, where the
//!   native rules would decide otherwise; hosts still go by specificity. `Native` leaves it to DESIGN §3, with the order
//!   of adding as the last tie-break: Gateway API routes are added oldest first, then by `namespace/name`.
//! * **Names**: routes [`Work::name`], `namespace/name/INDEX`; clusters [`Work::cluster`], `namespace/name:port` or
//!   `host:port`, and `/subset`. The latter decides alone where endpoints are found. Policies that come later find
//!   clusters with [`Output::clusters_mut`] by the service they were made for.
//! * Each field of a `KIND` needs a document in `config/tests/import/corpus/` that has it.

mod core;
pub mod coverage;
mod document;
mod duration;
mod fields;
mod finding;
mod gateway_api;
mod ingress;
mod istio;
mod kserve;
mod leaf;
mod llama_swap;
pub mod native;
mod options;
mod order;
mod other;
mod output;
mod print;
mod report;
pub mod services;
mod work;

pub use self::coverage::{Field, Kind};
pub use self::document::{Document, is_kubernetes};
pub use self::duration::duration;
pub use self::fields::{Audit, Fields};
pub use self::finding::{Finding, Level};
pub use self::leaf::Leaf;
pub use self::options::{CertificateFiles, Format, Options, Pin};
pub use self::output::{Origin, Output};
pub use self::print::to_yaml;
pub use self::services::{PortRef, Target};
pub use self::work::{Asked, Certificate, Work};

use std::collections::HashSet;

use self::report::Report;
use self::services::Services;
use crate::model::Position;
use crate::node::Node;

/// Kinds and how they are translated.
struct Translator {
    kinds: &'static [Kind],
    services: fn(&mut Work<'_>),
    routes: fn(&mut Work<'_>),
}

const TRANSLATORS: &[Translator] = &[
    core::TRANSLATOR,
    istio::TRANSLATOR,
    gateway_api::TRANSLATOR,
    ingress::TRANSLATOR,
    kserve::TRANSLATOR,
    llama_swap::TRANSLATOR,
];

/// What documents mean.
#[derive(Clone, Debug, PartialEq)]
pub struct Translation {
    /// The native tree, with lists such as `listeners`, `routes` and `clusters` as far as they have entries. It is read
    /// and validated as a native file is.
    pub root: Node,
    /// What became of each field, in the order of the documents and their fields.
    pub findings: Vec<Finding>,
}

impl Translation {
    /// Returns the worst that became of a field.
    pub fn worst(&self) -> Level {
        let levels = self.findings.iter().map(|finding| finding.level);
        levels.max().unwrap_or(Level::Ok)
    }
}

/// Returns every kind that is translated and its fields.
pub fn kinds() -> Vec<Kind> {
    let kinds = TRANSLATORS.iter().flat_map(|one| one.kinds);
    kinds.copied().collect()
}

/// Translates documents, all of them together: they refer to each other.
///
/// * `documents`: objects of Kubernetes and lists of them; with [`Format::LlamaSwap`] its configuration
pub fn translate(documents: &[Node], options: &Options) -> Translation {
    let mut found = Vec::new();
    for node in documents {
        match options.format {
            Some(Format::LlamaSwap) => found.push(llama_swap(node, options)),
            _ => document::objects(node, &options.namespace, &table, &mut found),
        }
    }
    let audit = Audit::default();
    let mut report = Report::new(&audit, options.verbose);
    let usable = usable(&found, options, &mut report);
    let mut work = Work {
        options,
        audit: &audit,
        output: Output::default(),
        services: Services::default(),
        documents: &usable,
    };
    for translator in TRANSLATORS {
        (translator.services)(&mut work);
    }
    for translator in TRANSLATORS {
        (translator.routes)(&mut work);
    }
    work.complete();
    istio::policies(&mut work);
    let root = work.output.tree();
    for document in &usable {
        accept(&audit, document);
        report.fields(document);
    }
    Translation {
        root,
        findings: report.finish(),
    }
}

/// Finds the fields of a kind.
fn table(group: &str, name: &str) -> Option<&'static Kind> {
    let mut kinds = TRANSLATORS.iter().flat_map(|one| one.kinds);
    kinds.find(|kind| {
        kind.format != Some(Format::LlamaSwap) && (kind.group, kind.name) == (group, name)
    })
}

fn llama_swap<'a>(node: &'a Node, options: &'a Options) -> Document<'a> {
    let kind = &llama_swap::TRANSLATOR.kinds[0];
    Document {
        group: kind.group,
        version: kind.versions[0],
        kind: kind.name,
        namespace: &options.namespace,
        name: "",
        node,
        table: Some(kind),
    }
}

/// Returns the documents that translators get, and tells of the others.
fn usable<'a>(
    found: &[Document<'a>],
    options: &Options,
    report: &mut Report<'a>,
) -> Vec<Document<'a>> {
    let mut seen: HashSet<(&str, &str, &str, &str)> = HashSet::new();
    let mut usable = Vec::new();
    for document in found {
        let Some(kind) = document.table else {
            let verdict = other::verdict(document);
            report.whole(document, verdict.level, verdict.security, &verdict.note);
            continue;
        };
        let foreign = kind
            .format
            .filter(|own| options.format.is_some_and(|asked| asked != *own));
        let note = if let Some(own) = foreign {
            format!("import it with the format `{own}`")
        } else if !kind.versions.contains(&document.version) {
            let known = kind.versions.join(", ");
            format!(
                "the version `{}` is not known; known are {known}",
                document.version
            )
        } else if document.name.is_empty() && options.format != Some(Format::LlamaSwap) {
            "`metadata.name` is missing".to_owned()
        } else if !seen.insert((
            document.group,
            document.kind,
            document.namespace,
            document.name,
        )) {
            "the object is written twice; the first counts".to_owned()
        } else {
            usable.push(*document);
            continue;
        };
        report.whole(document, Level::Lost, false, &note);
    }
    usable
}

/// Marks what was read to find the document.
fn accept(audit: &Audit, document: &Document<'_>) {
    let fields = document.fields(audit);
    fields.accept("apiVersion");
    fields.accept("kind");
    if let Some(metadata) = fields.map("metadata") {
        metadata.accept("name");
        metadata.accept("namespace");
        for key in ["annotations", "labels"] {
            if metadata.has(key) {
                let _marked = metadata.map(key);
            }
        }
    }
}

/// The place of what no document says.
fn nowhere() -> Position {
    Position {
        file: "import".into(),
        line: 1,
        column: 1,
    }
}
