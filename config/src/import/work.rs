//! What a translator works with.

use super::native::Listener;
use super::services::{self, Services, Target};
use super::{Audit, Document, Format, Leaf, Options, Output};
use crate::model::Position;

/// Proof that the user named, on the command line, a format whose documents may name processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked(());

/// A certificate and its key, in files that the operator named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    at: Position,
    certificate: String,
    key: String,
}

impl Certificate {
    pub(super) fn parts(self) -> (Position, String, String) {
        (self.at, self.certificate, self.key)
    }
}

/// Documents in, parts of the native tree out.
#[derive(Debug)]
pub struct Work<'a> {
    /// What the caller said.
    pub options: &'a Options,
    /// What was read of the documents; for [`Document::fields`].
    pub audit: &'a Audit,
    /// What was made so far.
    pub output: Output,
    /// Services, those of all formats; they are added before any route is translated.
    pub services: Services,
    pub(super) documents: &'a [Document<'a>],
}

impl<'a> Work<'a> {
    /// Returns the documents of a kind in their order: of a known version, with a name, none twice.
    pub fn documents(
        &self,
        group: &'static str,
        kind: &'static str,
    ) -> impl Iterator<Item = Document<'a>> + use<'a> {
        let documents = self.documents.iter().copied();
        documents.filter(move |one| one.group == group && one.kind == kind)
    }

    /// Makes the name of the route that a document's rule `index` becomes: `namespace/name/index`.
    pub fn name(&self, document: &Document<'_>, index: usize, at: &Position) -> Leaf {
        let legal = |c: char| match c {
            c if c.is_ascii_alphanumeric() || "-_./:".contains(c) => c,
            _ => '_',
        };
        let Document {
            namespace, name, ..
        } = document;
        let whole: String = format!("{namespace}/{name}").chars().map(legal).collect();
        let short: String = whole.chars().take(230).collect();
        Leaf::text(at, format!("{short}/{index}"))
    }

    /// Finds or makes the cluster of a service and returns its name.
    ///
    /// # Errors
    ///
    /// Why it refers to nothing, for a finding.
    pub fn cluster(&mut self, target: &Target<'_>) -> Result<Leaf, String> {
        services::cluster(&self.services, self.options, &mut self.output, target)
    }

    /// Returns the name of a listener on a port, which is made the first time: on all addresses, called `PROTOCOL-PORT`.
    pub fn listener(&mut self, port: u16, protocol: &str, at: &Position) -> Leaf {
        let name = format!("{protocol}-{port}");
        let mut known = self.output.listeners.iter();
        if !known.any(|one| one.name.as_ref().is_some_and(|own| own.as_str() == name)) {
            self.output.listeners.push(Listener {
                at: Some(at.clone()),
                name: Some(Leaf::text(at, name.as_str())),
                address: Some(Leaf::text(at, format!("0.0.0.0:{port}"))),
                protocol: (protocol == "tcp").then(|| Leaf::text(at, protocol)),
                tls: None,
            });
        }
        Leaf::text(at, name)
    }

    /// Returns the certificate that the operator gave for a Secret; `None`: say so with
    /// [`lost_security`](super::Fields::lost_security).
    pub fn certificate(&self, namespace: &str, secret: &str, at: &Position) -> Option<Certificate> {
        let files = self
            .options
            .certificates
            .get(&format!("{namespace}/{secret}"))?;
        Some(Certificate {
            at: at.clone(),
            certificate: files.certificate.clone(),
            key: files.key.clone(),
        })
    }

    /// Returns the proof that processes may be named, if they may.
    pub fn asked(&self) -> Option<Asked> {
        (self.options.format == Some(Format::LlamaSwap)).then_some(Asked(()))
    }

    /// Makes the clusters that nobody but native routes name, and with the command line every external service.
    pub(super) fn complete(&mut self) {
        let suffix = format!(".svc.{}", self.options.cluster_domain);
        let targets: Vec<(String, u16)> = match &self.options.wanted {
            Some(wanted) => {
                let parts = wanted.iter().filter_map(|name| {
                    let (title, port) = name.rsplit_once(':')?;
                    let host = self.services.titled(title)?.to_owned();
                    Some((host, port.parse().ok()?))
                });
                parts.collect()
            }
            None => {
                let hosts = self.services.hosts().into_iter();
                let outside = hosts.filter(|host| !host.ends_with(&suffix));
                let services = outside.filter_map(|host| self.services.find(&host));
                let ports = services.flat_map(|one| {
                    let ports = one.ports.iter();
                    ports.map(|port| (one.host.clone(), port.number))
                });
                ports.collect()
            }
        };
        for (host, port) in targets {
            let Some(at) = self.services.find(&host).map(|one| one.at.clone()) else {
                continue;
            };
            let target = Target {
                host: &host,
                namespace: &self.options.namespace,
                port: services::PortRef::Number(port),
                subset: None,
                at: &at,
            };
            // A port that is unknown here was a finding of its document; a native route that names it is refused.
            let _unknown = self.cluster(&target);
        }
    }
}
