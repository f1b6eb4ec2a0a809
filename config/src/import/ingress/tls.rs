//! Certificates and the redirect to them.

use std::collections::HashSet;

use super::collect::Ingress;
use crate::import::native::ServerTls;
use crate::import::{Certificate, Leaf, Work};
use crate::model::Position;

/// What listens, once a host has a certificate: as nginx, on 80 and 443. Without certificates routes are on all
/// listeners of the operator.
pub(super) struct Listeners {
    /// Hosts that have a certificate.
    secure: HashSet<String>,
    /// Names of the listeners without and with TLS.
    names: Option<(Leaf, Leaf)>,
}

impl Listeners {
    /// Makes listeners of the `tls` of all Ingresses.
    pub(super) fn new(work: &mut Work<'_>, ingresses: &[Ingress<'_>]) -> Self {
        let mut secure = HashSet::new();
        let mut certificates: Vec<Certificate> = Vec::new();
        let mut seen: HashSet<(String, String)> = HashSet::new();
        let mut place: Option<Position> = None;
        for ingress in ingresses.iter().filter(|one| !one.canary) {
            let namespace = ingress.document.namespace;
            for entry in ingress.spec.maps("tls") {
                let mut hosts: Vec<String> = Vec::new();
                for host in entry.texts("hosts") {
                    hosts.push(host.as_str().to_ascii_lowercase());
                }
                if hosts.is_empty() {
                    let rules = ingress.spec.maps("rules").into_iter();
                    hosts.extend(
                        rules.filter_map(|rule| {
                            Some(rule.text("host")?.as_str().to_ascii_lowercase())
                        }),
                    );
                }
                let Some(secret) = entry.text("secretName") else {
                    let key = if entry.has("secretName") {
                        "secretName"
                    } else {
                        "hosts"
                    };
                    match entry.has(key) {
                        true => entry.lost_security(key, "no Secret with a certificate is named"),
                        false => ingress
                            .spec
                            .lost_security("tls", "an entry names no Secret"),
                    }
                    continue;
                };
                match work.certificate(namespace, secret.as_str(), secret.at()) {
                    Some(found) => {
                        if seen.insert((namespace.to_owned(), secret.as_str().to_owned())) {
                            certificates.push(found);
                        }
                        place.get_or_insert_with(|| secret.at().clone());
                        secure.extend(hosts);
                    }
                    None => {
                        let note =
                            format!("no files are given for the Secret `{namespace}/{secret}`");
                        entry.lost_security("secretName", note);
                    }
                }
            }
        }
        let names = place.map(|at| {
            let plain = work.listener(80, "http", &at);
            let tls = work.listener(443, "https", &at);
            let listener = work.output.listeners.iter_mut().find(|one| {
                let name = one.name.as_ref();
                name.is_some_and(|name| name.as_str() == tls.as_str())
            });
            match listener {
                Some(listener) if listener.tls.is_none() => {
                    listener.tls = Some(ServerTls::new(certificates));
                }
                _ => {
                    for ingress in ingresses {
                        let note = "another document has the listener on port 443";
                        ingress.spec.lost_security("tls", note);
                    }
                }
            }
            (plain, tls)
        });
        Self { secure, names }
    }

    /// Returns the listeners without and with TLS when requests of a host are sent from the one to the other.
    pub(super) fn redirects(&self, ingress: &Ingress<'_>, host: &str) -> Option<&(Leaf, Leaf)> {
        let forced = ingress.notes.flag("force-ssl-redirect").unwrap_or_default();
        let wanted = ingress.notes.flag("ssl-redirect").unwrap_or(true);
        if forced && self.names.is_none() {
            let note = "no certificate is given, so that nothing listens for TLS";
            ingress.notes.lost_security("force-ssl-redirect", note);
        }
        let names = self.names.as_ref()?;
        (forced || wanted && self.covers(host)).then_some(names)
    }

    fn covers(&self, host: &str) -> bool {
        let wild = || host.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        self.secure.contains(host) || wild().is_some_and(|wild| self.secure.contains(&wild))
    }
}
