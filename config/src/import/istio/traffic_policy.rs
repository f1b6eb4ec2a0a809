//! TrafficPolicy: balancing, connections, outliers and TLS of a cluster.

use std::collections::BTreeSet;

use crate::import::native::{Balance, ClientTls, Cluster, Key, Outlier};
use crate::import::{Fields, Leaf};
use crate::schema::{CookieName, EditableHeader, HostName};

use super::text::shaped;

/// The largest bound there is.
const MOST: i64 = 1_000_000;

/// The parts of policies that hold for one cluster: a port's own policy replaces that around it as a whole, a
/// subset's replaces that of the host part by part.
pub(super) struct Sections<'a> {
    subset: Option<Fields<'a>>,
    host: Option<Fields<'a>>,
    subset_port: Option<Fields<'a>>,
    host_port: Option<Fields<'a>>,
}

impl<'a> Sections<'a> {
    pub(super) fn new(host: Option<Fields<'a>>, subset: Option<Fields<'a>>, port: u16) -> Self {
        let own = |policy: Option<Fields<'a>>| {
            let mut ports = policy?.maps("portLevelSettings").into_iter();
            let of = |one: &Fields<'a>| {
                let number = one
                    .map("port")
                    .and_then(|one| one.whole("number", 1..=65_535));
                number.and_then(|number| number.whole()) == Some(i64::from(port))
            };
            ports.find(of)
        };
        Self {
            subset_port: own(subset),
            host_port: own(host),
            subset,
            host,
        }
    }

    fn find(&self, key: &str) -> Option<Fields<'a>> {
        if let Some(port) = &self.subset_port {
            return port.map(key);
        }
        let own = self.subset.and_then(|policy| policy.map(key));
        own.or_else(|| match &self.host_port {
            Some(port) => port.map(key),
            None => self.host.and_then(|policy| policy.map(key)),
        })
    }
}

/// Says of the settings of other ports that they have no effect.
pub(super) fn unused(policy: &Fields<'_>, ports: &BTreeSet<u16>) {
    for one in policy.maps("portLevelSettings") {
        let number = one
            .map("port")
            .and_then(|port| port.whole("number", 1..=65_535));
        let number = number.and_then(|number| u16::try_from(number.whole()?).ok());
        match number {
            Some(number) if ports.contains(&number) => {}
            Some(_) => one.approximated_here("without effect: no route goes to this port"),
            None => one.lost_here("`port.number` is missing"),
        }
    }
}

/// Puts a policy into a cluster. Returns whether it has TLS; `None`: nothing is said about it.
pub(super) fn apply(cluster: &mut Cluster, sections: &Sections<'_>, host: &str) -> Option<bool> {
    if let Some(fields) = sections.find("connectionPool") {
        connections(cluster, &fields);
    }
    if let Some(fields) = sections.find("outlierDetection") {
        cluster.outlier = Some(outlier(
            &fields,
            cluster.endpoints.len(),
            cluster.discover.is_none(),
        ));
    }
    if let Some(fields) = sections.find("loadBalancer") {
        balance(cluster, &fields);
    }
    let fields = sections.find("tls")?;
    cluster.tls = tls(&fields, host);
    Some(cluster.tls.is_some())
}

fn balance(cluster: &mut Cluster, fields: &Fields<'_>) {
    if let Some(simple) = fields.text("simple") {
        let word = match simple.as_str() {
            "ROUND_ROBIN" => Some("round_robin"),
            "LEAST_CONN" | "LEAST_REQUEST" | "UNSPECIFIED" => Some("least_requests"),
            "RANDOM" => Some("random"),
            _ => None,
        };
        match word {
            Some(word) => cluster.balance = Some(Balance::Word(simple.with(word))),
            None => fields.lost("simple", "least requests are chosen"),
        }
    }
    if let Some(hash) = fields.map("consistentHash") {
        match key(&hash) {
            Ok(key) => cluster.balance = Some(Balance::Hash(key)),
            Err(note) => hash.lost_here(note),
        }
    }
    let warmup = fields
        .map("warmup")
        .and_then(|warmup| warmup.duration("duration"));
    if let Some(time) = warmup.or_else(|| fields.duration("warmupDurationSecs")) {
        // Without a policy for outliers nothing is to be ejected.
        let outlier = cluster.outlier.get_or_insert_with(|| Outlier {
            at: Some(time.at().clone()),
            consecutive_5xx: Some(Leaf::number(time.at(), MOST)),
            ..Outlier::default()
        });
        outlier.slow_start = Some(time);
    }
}

/// Reads what a hash is made of. `Err` says why it cannot be.
fn key(fields: &Fields<'_>) -> Result<Key, String> {
    if let Some(header) = fields.text("httpHeaderName") {
        use crate::schema::Key as _;
        let lower = header.with(header.as_str().to_ascii_lowercase());
        let legal = EditableHeader::parse(lower.as_str());
        return legal
            .map(|_| Key::Header(lower))
            .map_err(|(_, message, _)| message);
    }
    if let Some(cookie) = fields.map("httpCookie") {
        let name = cookie.text("name").ok_or("`httpCookie.name` is missing")?;
        shaped::<CookieName>(&name)?;
        if cookie.duration("ttl").is_some() {
            let note = "clients without the cookie get none, and least requests are chosen";
            cookie.approximated("ttl", note);
        }
        return Ok(Key::Cookie(name));
    }
    if fields.flag("useSourceIp") == Some(true) {
        let at = fields.place("useSourceIp");
        return Ok(Key::Word(Leaf::text(at, "client_ip")));
    }
    Err("it names neither a header, a cookie nor the client's address".to_owned())
}

fn connections(cluster: &mut Cluster, fields: &Fields<'_>) {
    if let Some(tcp) = fields.map("tcp") {
        cluster.breaker.connections = bound(&tcp, "maxConnections");
        if let Some(time) = tcp.duration("connectTimeout") {
            match within_an_hour(&time) {
                true => cluster.connect_timeout = Some(time),
                false => tcp.lost("connectTimeout", "it is from 1 ms to 1 h"),
            }
        }
    }
    let Some(http) = fields.map("http") else {
        return;
    };
    cluster.breaker.requests = bound(&http, "http2MaxRequests");
    if let Some(time) = http.duration("idleTimeout") {
        cluster.keepalive.idle = Some(match within_an_hour(&time) {
            true => time,
            false => {
                http.approximated("idleTimeout", "an idle connection is closed after 1 h");
                time.with("1h")
            }
        });
    }
    match http.whole("maxRequestsPerConnection", 0..=i64::from(u32::MAX)) {
        Some(one) if one.whole() == Some(1) => {
            cluster.keepalive.max_idle = Some(Leaf::number(one.at(), 0));
        }
        Some(many) if many.whole() != Some(0) => {
            let note = "connections are used for any number of requests, unless it is 1";
            http.lost("maxRequestsPerConnection", note);
        }
        _ => {}
    }
    if let Some(policy) = http.text("h2UpgradePolicy")
        && policy.as_str() == "UPGRADE"
    {
        cluster.protocol = Some(policy.with("http2"));
    }
    if http.flag("useClientProtocol") == Some(true) {
        http.approximated("useClientProtocol", "HTTP/2 is spoken for gRPC only");
    }
}

/// Reads a bound; one that is larger than any is none.
fn bound(fields: &Fields<'_>, key: &str) -> Option<Leaf> {
    let bound = fields.whole(key, 0..=i64::from(u32::MAX))?;
    Some(match bound.whole() {
        Some(0) => {
            fields.approximated(key, "0 stands for no bound");
            bound.with("none")
        }
        Some(number) if number > MOST => bound.with("none"),
        _ => bound,
    })
}

fn within_an_hour(time: &Leaf) -> bool {
    let time = crate::units::duration(time.as_str());
    let hour = std::time::Duration::from_secs(3600);
    time.is_some_and(|time| !time.is_zero() && time <= hour)
}

/// * `fixed`: how many endpoints are known, and whether these are all
fn outlier(fields: &Fields<'_>, fixed: usize, all: bool) -> Outlier {
    let mut outlier = Outlier {
        at: Some(fields.at().clone()),
        ..Outlier::default()
    };
    let mut failures = fields.whole("consecutive5xxErrors", 0..=MOST);
    for key in ["consecutiveGatewayErrors", "consecutiveErrors"] {
        if let Some(gateway) = fields.whole(key, 0..=MOST) {
            match &failures {
                None => {
                    fields.approximated(key, "all statuses 5xx count");
                    failures = Some(gateway);
                }
                Some(_) => fields.lost(key, "`consecutive5xxErrors` counts"),
            }
        }
    }
    outlier.consecutive_5xx = failures.map(|failures| match failures.whole() {
        Some(0) => Leaf::number(failures.at(), MOST),
        _ => failures,
    });
    if let Some(time) = fields.duration("baseEjectionTime") {
        match time.as_str() {
            "0s" => fields.lost("baseEjectionTime", "it is at least 1 ms"),
            _ => outlier.base = Some(time),
        }
    }
    fields.accept("interval");
    if let Some(most) = fields.whole("maxEjectionPercent", 0..=100) {
        let percent = most.whole().unwrap_or(100);
        let count = i64::try_from(fixed).unwrap_or(i64::MAX);
        match (percent, all && fixed > 0) {
            (100, _) => outlier.keep_at_least = Some(Leaf::number(most.at(), 0)),
            (_, true) => {
                // One may always be ejected there.
                let ejected = (count.saturating_mul(percent) / 100).max(1);
                outlier.keep_at_least = Some(Leaf::number(most.at(), (count - ejected).max(0)));
            }
            (_, false) => {
                let note = "how many endpoints there are is not known: one is always left";
                fields.approximated("maxEjectionPercent", note);
            }
        }
    }
    outlier
}

/// Reads TLS towards a host; says what nobody may do without.
fn tls(fields: &Fields<'_>, host: &str) -> Option<ClientTls> {
    let mode = fields.text("mode");
    let mode = mode.as_ref().map_or("DISABLE", Leaf::as_str);
    let sni = fields.text("sni").filter(|sni| !sni.as_str().is_empty());
    let names = fields.texts("subjectAltNames");
    if fields.flag("insecureSkipVerify") == Some(true) {
        fields.lost("insecureSkipVerify", "certificates are always verified");
    }
    if let Some(ca) = fields.text("caCertificates") {
        match ca.as_str() {
            "system" => {}
            _ => fields.lost_security(
                "caCertificates",
                "documents name no files; use `tls: {ca: …}` of a native cluster",
            ),
        }
    }
    match mode {
        "DISABLE" => return None,
        "SIMPLE" => {}
        "MUTUAL" => fields.lost_security(
            "mode",
            "no certificate is shown; use `tls: {certificate: …, key: …}` of a native cluster",
        ),
        "ISTIO_MUTUAL" => {
            fields.lost_security("mode", "the certificates of a mesh are not used");
            return None;
        }
        _ => {
            fields.lost_security("mode", "the mode is not known");
            return None;
        }
    }
    let own = Leaf::text(fields.place("mode"), host);
    let mut name = sni.clone().unwrap_or(own);
    let same = |one: &Leaf| one.as_str().eq_ignore_ascii_case(name.as_str());
    if !names.is_empty() && !names.iter().any(same) {
        match (&names[..], &sni) {
            ([only], None) if shaped::<HostName>(only).is_ok() => {
                fields.approximated("subjectAltNames", "the name is told the server as well");
                name = only.clone();
            }
            _ => fields.lost_security(
                "subjectAltNames",
                "the certificate is verified for the name that the server is told",
            ),
        }
    }
    if let Err(note) = shaped::<HostName>(&name) {
        fields.lost_security("sni", note);
        return Some(ClientTls::default());
    }
    Some(ClientTls {
        at: Some(fields.at().clone()),
        server_name: Some(name),
    })
}
