//! ServiceEntry: hosts that Kubernetes does not know.

use super::text::shaped;
use crate::import::core::spoken_over;
use crate::import::coverage::{Field, Kind};
use crate::import::services::{Backing, FixedEndpoint, Port, Service};
use crate::import::{Fields, Format, Work};
use crate::schema::{HostName, HostPort};

/// What becomes of its fields.
pub(super) const KIND: Kind = Kind {
    group: "networking.istio.io",
    name: "ServiceEntry",
    versions: &["v1", "v1beta1", "v1alpha3"],
    format: Some(Format::Istio),
    proto: true,
    fields: &[
        Field::ok("spec.hosts"),
        Field::ok("spec.ports[].number"),
        Field::ok("spec.ports[].name"),
        Field::ok("spec.ports[].protocol"),
        Field::ok("spec.ports[].targetPort"),
        Field::ok("spec.resolution"),
        Field::ok("spec.endpoints[].address"),
        Field::ok("spec.endpoints[].ports.*"),
        Field::ok("spec.endpoints[].labels.*"),
        Field::ok("spec.endpoints[].weight"),
        Field::lost("spec.endpoints[].network", "one network"),
        Field::lost(
            "spec.endpoints[].locality",
            "endpoints are chosen without it",
        ),
        Field::harmless(
            "spec.endpoints[].serviceAccount",
            "for mutual TLS of a mesh",
        ),
        Field::harmless("spec.location", "for mutual TLS of a mesh"),
        Field::harmless("spec.exportTo", "there is one proxy"),
        Field::harmless("spec.addresses", "for TCP in a mesh"),
        Field::lost("spec.workloadSelector", "name the endpoints"),
        Field::lost("spec.subjectAltNames", "set `tls: {server_name: …}`").secure(),
    ],
};

/// Adds the hosts of all ServiceEntries as services.
pub(super) fn translate(work: &mut Work<'_>) {
    for document in work.documents(KIND.group, KIND.name) {
        let Some(spec) = document.fields(work.audit).map("spec") else {
            continue;
        };
        let hosts = spec.texts("hosts");
        let ports: Vec<Port> = spec.maps("ports").into_iter().filter_map(port).collect();
        let endpoints: Vec<FixedEndpoint> = spec
            .maps("endpoints")
            .into_iter()
            .filter_map(endpoint)
            .collect();
        let resolution = spec.text("resolution");
        let resolution = resolution.as_ref().map_or("NONE", |word| word.as_str());
        if resolution == "DNS_ROUND_ROBIN" {
            spec.approximated("resolution", "all addresses are used");
        }
        for host in hosts {
            let name = host.as_str().to_ascii_lowercase();
            if !name.contains('*') && shaped::<HostName>(&host.with(name.as_str())).is_err() {
                spec.lost("hosts", format!("`{host}` is not the name of a host"));
                continue;
            }
            let backing = match (resolution, endpoints.is_empty()) {
                ("STATIC" | "DNS" | "DNS_ROUND_ROBIN", false) => Backing::Fixed(endpoints.clone()),
                ("DNS" | "DNS_ROUND_ROBIN", true) if !name.contains('*') => {
                    Backing::Headless(name.clone())
                }
                ("NONE", true) if !name.contains('*') => {
                    spec.approximated("resolution", "endpoints are found by the name");
                    Backing::Headless(name.clone())
                }
                _ => {
                    spec.lost("resolution", "where the endpoints are is not said");
                    continue;
                }
            };
            if name.contains('*') {
                spec.lost("hosts", "a wildcard is no name to route to");
                continue;
            }
            let service = Service {
                title: name.clone(),
                host: name,
                ports: ports.clone(),
                backing,
                at: host.at().clone(),
            };
            if !work.services.add(service) {
                spec.lost("hosts", format!("`{host}` is described already"));
            }
        }
    }
}

fn port(fields: Fields<'_>) -> Option<Port> {
    let name = fields.text("name");
    let protocol = fields.text("protocol");
    let target = fields.whole("targetPort", 1..=65_535);
    let number = fields.whole("number", 1..=65_535)?;
    let small = |number: i64| u16::try_from(number).ok();
    let number = number.whole().and_then(small)?;
    Some(Port {
        name: name.map_or_else(String::new, |name| name.as_str().to_owned()),
        number,
        target: target.map_or(Some(number), |target| target.whole().and_then(small)),
        protocol: protocol.and_then(|word| spoken_over(word.as_str())),
    })
}

fn endpoint(fields: Fields<'_>) -> Option<FixedEndpoint> {
    let labels = fields.pairs("labels");
    let ports = fields
        .pairs("ports")
        .into_iter()
        .filter_map(|(name, port)| {
            let number = port.whole().and_then(|number| u16::try_from(number).ok())?;
            Some((name.as_str().to_owned(), number))
        });
    let ports = ports.collect();
    let weight = fields.whole("weight", 0..=1_000_000);
    let address = fields.text("address")?;
    if address.as_str().starts_with("unix:") {
        fields.lost("address", "unix sockets are not supported");
        return None;
    }
    let whole = match address.as_str().contains(':') {
        true => address.with(format!("[{address}]:1")),
        false => address.with(format!("{address}:1")),
    };
    if shaped::<HostPort>(&whole).is_err() {
        fields.lost("address", "it is neither an address nor a name");
        return None;
    }
    Some(FixedEndpoint {
        address,
        ports,
        weight: weight.filter(|weight| weight.whole() != Some(0)),
        labels,
    })
}
