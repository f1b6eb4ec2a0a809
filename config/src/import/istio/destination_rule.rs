//! DestinationRule: subsets of services, and how their endpoints are talked to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::destination_rule_fields::FIELDS;
use super::place::covers;
use super::traffic_policy::{self, Sections};
use crate::import::coverage::Kind;
use crate::import::native::{ClientTls, Cluster, Discover};
use crate::import::{Fields, Format, Leaf, Origin, Work};

/// What becomes of its fields.
pub(super) const KIND: Kind = Kind {
    group: "networking.istio.io",
    name: "DestinationRule",
    versions: &["v1", "v1beta1", "v1alpha3"],
    format: Some(Format::Istio),
    proto: true,
    fields: FIELDS,
};

/// What is said of one host.
#[derive(Default)]
struct Rule<'a> {
    policy: Option<Fields<'a>>,
    subsets: BTreeMap<String, Fields<'a>>,
    specs: Vec<Fields<'a>>,
}

/// All DestinationRules by their hosts, which may begin with `*`.
pub(super) struct Rules<'a> {
    hosts: BTreeMap<String, Rule<'a>>,
    /// Those of the hosts that begin with `*`.
    wild: Vec<String>,
    /// Subsets that pins name.
    pinned: BTreeSet<String>,
}

/// Reads which hosts there are rules for.
pub(super) fn collect<'a>(work: &Work<'a>) -> Rules<'a> {
    let mut hosts: BTreeMap<String, Rule<'a>> = BTreeMap::new();
    for document in work.documents(KIND.group, KIND.name) {
        let Some(spec) = document.fields(work.audit).map("spec") else {
            continue;
        };
        let Some(host) = spec.text("host") else {
            spec.lost_here("`host` is missing");
            continue;
        };
        if spec.has("workloadSelector") {
            let note =
                "there are no workloads to choose from, so that the whole rule does not hold";
            spec.lost_security("workloadSelector", note);
            for key in ["trafficPolicy", "subsets"] {
                spec.lost(key, "the rule is for some workloads");
            }
            continue;
        }
        let name = match host.as_str().contains('*') {
            true => host.as_str().to_ascii_lowercase(),
            false => {
                let services = &work.services;
                services.full_name(host.as_str(), document.namespace, work.options)
            }
        };
        let rule = hosts.entry(name).or_default();
        rule.specs.push(spec);
        if let Some(policy) = spec.map("trafficPolicy") {
            let note = "another rule of this host has one";
            match rule.policy {
                None => rule.policy = Some(policy),
                // It may have been about TLS.
                Some(_) => spec.lost_security("trafficPolicy", note),
            }
        }
        for subset in spec.maps("subsets") {
            let Some(name) = subset.text("name") else {
                subset.lost_here("`name` is missing");
                continue;
            };
            match rule.subsets.contains_key(name.as_str()) {
                false => {
                    rule.subsets.insert(name.as_str().to_owned(), subset);
                }
                true => subset.lost_security("name", "there is a subset of this name already"),
            }
        }
    }
    let pins = work.options.pins.iter();
    let pinned = pins.filter_map(|pin| Some(pin.name.rsplit_once('/')?.1.to_owned()));
    let wild = hosts.keys().filter(|name| name.contains('*'));
    Rules {
        wild: wild.cloned().collect(),
        hosts,
        pinned: pinned.collect(),
    }
}

impl<'a> Rules<'a> {
    /// True when the subset is described, or pinned for a trial.
    pub(super) fn has_subset(&self, host: &str, subset: &str) -> bool {
        let rule = self.find(host);
        rule.is_some_and(|(_, rule)| rule.subsets.contains_key(subset))
            || self.pinned.contains(subset)
    }

    /// Finds the rule of a host: its own, or the one of the longest wildcard.
    fn find(&self, host: &str) -> Option<(&str, &Rule<'a>)> {
        let own = self.hosts.get_key_value(host);
        let wide = || {
            let wild = self.wild.iter();
            let fits = wild.filter(|name| name.as_str() == "*" || covers(name, host));
            let longest = fits.max_by_key(|name| name.len())?;
            self.hosts.get_key_value(longest)
        };
        let found = own.or_else(wide);
        found.map(|(name, rule)| (name.as_str(), rule))
    }
}

/// Subsets and ports that there are clusters of, by the hosts of rules.
type Used = BTreeMap<String, BTreeSet<(Option<String>, u16)>>;

/// Hosts and ports of ServiceEntries whose endpoints speak TLS, and where that is said.
type Encrypted<'a> = HashMap<(String, u16), Fields<'a>>;

/// Puts the policies of all DestinationRules into the clusters there are.
pub(super) fn translate(work: &mut Work<'_>) {
    let rules = collect(work);
    let encrypted = encrypted(work);
    let tunnels = tunnels(work);
    let options = work.options;
    let mut used: Used = BTreeMap::new();
    for (origin, cluster) in work.output.clusters_mut() {
        let Some(origin) = origin else { continue };
        let name = cluster.name.as_ref().map_or("", Leaf::as_str).to_owned();
        let mut encrypts = None;
        if let Some((host, rule)) = rules.find(&origin.host) {
            let used = used.entry(host.to_owned()).or_default();
            used.insert((None, origin.port));
            let own = origin.subset.as_ref();
            let subset = own.and_then(|own| Some((own, rule.subsets.get(own)?)));
            if let Some((subset, fields)) = subset {
                used.insert((Some(subset.clone()), origin.port));
                let title = name.rsplit_once(':').map_or("", |(title, _)| title);
                let names = [origin.host.as_str(), title];
                let pinned = options.pin(&names, Some(subset), origin.port).is_some();
                labels(cluster, fields, pinned);
            }
            let policy = subset.and_then(|(_, fields)| fields.map("trafficPolicy"));
            let sections = Sections::new(rule.policy, policy, origin.port);
            encrypts = traffic_policy::apply(cluster, &sections, &origin.host);
        }
        if encrypts.is_none() && !tunnels.contains(&name) {
            originate(cluster, origin, &encrypted);
        }
    }
    for (host, rule) in &rules.hosts {
        unused(host, rule, &used);
    }
}

/// Says of what no route goes to that it has no effect.
fn unused(host: &str, rule: &Rule<'_>, used: &Used) {
    let ports = |subset: Option<&str>| -> BTreeSet<u16> {
        let own = used.get(host).into_iter().flatten();
        let same = own.filter(|(own, _)| subset.is_none() || own.as_deref() == subset);
        same.map(|(_, port)| *port).collect()
    };
    let all = ports(None);
    if all.is_empty() {
        for spec in &rule.specs {
            spec.approximated_here(format!("without effect: no route goes to `{host}`"));
        }
        return;
    }
    if let Some(policy) = rule.policy {
        traffic_policy::unused(&policy, &all);
    }
    for (name, subset) in &rule.subsets {
        let own = ports(Some(name));
        if own.is_empty() {
            subset.approximated_here("without effect: no route goes to it");
        } else if let Some(policy) = subset.map("trafficPolicy") {
            traffic_policy::unused(&policy, &own);
        }
    }
}

/// Restricts a cluster to the endpoints of a subset.
fn labels(cluster: &mut Cluster, fields: &Fields<'_>, pinned: bool) {
    let labels = fields.pairs("labels");
    if pinned || labels.is_empty() {
        return;
    }
    if let Some(Discover::Dns { .. }) = cluster.discover {
        let note = "addresses of a name have no labels, so that all endpoints are used; name them in a ServiceEntry, or pin the subset";
        return fields.lost("labels", note);
    }
    for (key, value) in labels {
        cluster.subset.add(key, value);
    }
}

/// Collects the ports whose endpoints speak TLS.
fn encrypted<'a>(work: &Work<'a>) -> Encrypted<'a> {
    let mut found = HashMap::new();
    for document in work.documents(KIND.group, "ServiceEntry") {
        let Some(spec) = document.fields(work.audit).map("spec") else {
            continue;
        };
        let hosts = spec.texts("hosts");
        let hosts: Vec<String> = hosts
            .iter()
            .map(|host| host.as_str().to_ascii_lowercase())
            .collect();
        for fields in spec.maps("ports") {
            let protocol = fields.text("protocol");
            let protocol = protocol.map(|word| word.as_str().to_ascii_uppercase());
            let number = fields.whole("number", 1..=65_535);
            let number = number.and_then(|number| u16::try_from(number.whole()?).ok());
            if let (Some("HTTPS" | "TLS"), Some(port)) = (protocol.as_deref(), number) {
                let hosts = hosts.iter().cloned();
                found.extend(hosts.map(|host| ((host, port), fields)));
            }
        }
    }
    found
}

/// Returns the clusters that get connections, in which clients may have begun TLS themselves.
fn tunnels(work: &Work<'_>) -> BTreeSet<String> {
    use crate::import::native::Action;
    let routes = work.output.routes.iter();
    let tcp = routes.filter(|route| {
        let mut listeners = route.listeners.iter();
        listeners.any(|name| name.as_str().starts_with("tcp-"))
    });
    let mut names = BTreeSet::new();
    for route in tcp {
        match &route.action {
            Action::Cluster(name) => {
                names.insert(name.as_str().to_owned());
            }
            Action::Split(members) => {
                let clusters = members.iter().filter_map(|member| member.cluster.as_ref());
                names.extend(clusters.map(|name| name.as_str().to_owned()));
            }
            _ => {}
        }
    }
    names
}

/// Begins TLS towards endpoints that speak nothing else.
fn originate(cluster: &mut Cluster, origin: &Origin, encrypted: &Encrypted<'_>) {
    if let Some(own) = encrypted.get(&(origin.host.clone(), origin.port)) {
        let note = "TLS is begun here, with the name of the host";
        own.approximated("protocol", note);
        let at = own.place("protocol");
        cluster.tls = Some(ClientTls {
            at: Some(at.clone()),
            server_name: Some(Leaf::text(at, origin.host.as_str())),
        });
    }
}
