//! What the caller of a translation says.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;

/// A format of `forebay import`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// VirtualService, DestinationRule, ServiceEntry, Gateway.
    Istio,
    /// Gateway, HTTPRoute, GRPCRoute.
    GatewayApi,
    /// Ingress with annotations.
    Ingress,
    /// InferenceService.
    Kserve,
    /// The configuration of llama-swap.
    LlamaSwap,
}

impl Format {
    /// All formats.
    pub const ALL: &[Self] = &[
        Self::Istio,
        Self::GatewayApi,
        Self::Ingress,
        Self::Kserve,
        Self::LlamaSwap,
    ];

    /// Returns its name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Istio => "istio",
            Self::GatewayApi => "gateway-api",
            Self::Ingress => "ingress",
            Self::Kserve => "kserve",
            Self::LlamaSwap => "llama-swap",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|format| format.as_str() == text);
        let names = || {
            let names: Vec<&str> = Self::ALL.iter().map(|format| format.as_str()).collect();
            names.join(", ")
        };
        found
            .copied()
            .ok_or_else(|| format!("`{text}` is no format; one of {}", names()))
    }
}

/// `--resolve NAME:PORT=ADDR`: where a service is, for trials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// `name.namespace`, `name.namespace.svc…`, `namespace/name` or any host; `/subset` behind it for one subset.
    pub name: String,
    /// The port as clients use it.
    pub port: u16,
    /// `host:port`.
    pub address: String,
}

impl FromStr for Pin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("`{text}` is not NAME:PORT=ADDRESS:PORT");
        let (place, address) = text.split_once('=').ok_or_else(form)?;
        let (name, port) = place.rsplit_once(':').ok_or_else(form)?;
        let (host, number) = address.rsplit_once(':').ok_or_else(form)?;
        let port = port.parse().map_err(|_| form())?;
        if name.is_empty() || host.is_empty() || number.parse::<u16>().is_err() {
            return Err(form());
        }
        Ok(Self {
            name: name.to_ascii_lowercase(),
            port,
            address: address.to_owned(),
        })
    }
}

/// Files of a certificate and its key, as they are to stand in the native tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Certificate chain in PEM.
    pub certificate: String,
    /// Private key in PEM.
    pub key: String,
}

/// What the caller says besides the documents.
#[derive(Clone, Debug)]
pub struct Options {
    /// The format that the command line names: documents of others are lost. `None`: all formats of Kubernetes, as in
    /// a configuration directory.
    pub format: Option<Format>,
    /// Namespace of documents that name none.
    pub namespace: String,
    /// The domain of the cluster's DNS.
    pub cluster_domain: String,
    /// Where services are, for trials.
    pub pins: Vec<Pin>,
    /// Certificates of Secrets, by `namespace/name`.
    pub certificates: HashMap<String, CertificateFiles>,
    /// Names of clusters that native routes name: those of known services are made. `None`: there are no native files,
    /// and clusters of all external services are made.
    pub wanted: Option<BTreeSet<String>>,
    /// What is `ok` is a finding too.
    pub verbose: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            format: None,
            namespace: "default".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            pins: Vec::new(),
            certificates: HashMap::new(),
            wanted: None,
            verbose: false,
        }
    }
}

impl Options {
    /// Returns the address that a service is pinned to; a pin of the subset comes before one without.
    ///
    /// * `names`: full names of the service, any of which a pin may use
    pub(super) fn pin(&self, names: &[&str], subset: Option<&str>, port: u16) -> Option<&str> {
        let suffix = format!(".{}", self.cluster_domain);
        let same = |pin: &Pin, subset: Option<&str>| {
            let name = match subset {
                Some(subset) => match pin.name.strip_suffix(&format!("/{subset}")) {
                    Some(name) => name,
                    None => return false,
                },
                None => &pin.name,
            };
            let short = |full: &str| {
                let shorter = full.strip_suffix(&suffix).unwrap_or(full);
                name == full || name == shorter || shorter.strip_suffix(".svc") == Some(name)
            };
            pin.port == port && names.iter().any(|full| short(full))
        };
        let exact = subset.and_then(|subset| {
            let mut pins = self.pins.iter();
            pins.find(|pin| same(pin, Some(subset)))
        });
        let pin = exact.or_else(|| self.pins.iter().find(|pin| same(pin, None)));
        pin.map(|pin| pin.address.as_str())
    }
}
