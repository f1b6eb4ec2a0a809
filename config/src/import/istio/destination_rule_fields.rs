//! What becomes of the fields of a DestinationRule.

use crate::import::coverage::Field;

const RING: &str = "endpoints are chosen by a hash of its own";
const FILES: &str = "documents name no files; use `tls` of a native cluster";

/// The fields of a policy, wherever it stands.
macro_rules! fields {
    ($($policy:literal),+) => { &[
        Field::ok("spec.host"),
        Field::harmless("spec.exportTo", "there is one proxy"),
        Field::lost("spec.workloadSelector", "there are no workloads to choose from").secure(),
        Field::ok("spec.subsets[].name"),
        Field::ok("spec.subsets[].labels.*"),
        Field::ok("spec.trafficPolicy.portLevelSettings[].port.number"),
        Field::ok("spec.subsets[].trafficPolicy.portLevelSettings[].port.number"),
        Field::lost("spec.trafficPolicy.tunnel", "upstream proxies are not used"),
        Field::lost("spec.trafficPolicy.proxyProtocol", "it is not spoken to endpoints"),
        Field::lost("spec.trafficPolicy.retryBudget", "use `retry: {budget: …}` of a route"),
        Field::lost("spec.subsets[].trafficPolicy.tunnel", "upstream proxies are not used"),
        Field::lost("spec.subsets[].trafficPolicy.proxyProtocol", "it is not spoken to endpoints"),
        Field::lost("spec.subsets[].trafficPolicy.retryBudget", "use `retry: {budget: …}` of a route"),
        $(
            Field::ok(concat!($policy, ".loadBalancer.simple")),
            Field::ok(concat!($policy, ".loadBalancer.consistentHash.httpHeaderName")),
            Field::ok(concat!($policy, ".loadBalancer.consistentHash.httpCookie.name")),
            Field::approximated(
                concat!($policy, ".loadBalancer.consistentHash.httpCookie.ttl"),
                "clients without the cookie get none",
            ),
            Field::lost(
                concat!($policy, ".loadBalancer.consistentHash.httpCookie.path"),
                "no cookie is set",
            ),
            Field::lost(
                concat!($policy, ".loadBalancer.consistentHash.httpCookie.attributes"),
                "no cookie is set",
            ),
            Field::ok(concat!($policy, ".loadBalancer.consistentHash.useSourceIp")),
            Field::lost(
                concat!($policy, ".loadBalancer.consistentHash.httpQueryParameterName"),
                "use a header or a cookie",
            ),
            Field::harmless(concat!($policy, ".loadBalancer.consistentHash.minimumRingSize"), RING),
            Field::harmless(concat!($policy, ".loadBalancer.consistentHash.ringHash"), RING),
            Field::harmless(concat!($policy, ".loadBalancer.consistentHash.maglev"), RING),
            Field::lost(concat!($policy, ".loadBalancer.localityLbSetting"), "endpoints have no locality"),
            Field::ok(concat!($policy, ".loadBalancer.warmupDurationSecs")),
            Field::ok(concat!($policy, ".loadBalancer.warmup.duration")),
            Field::lost(concat!($policy, ".loadBalancer.warmup.minimumPercent"), "it begins small"),
            Field::lost(concat!($policy, ".loadBalancer.warmup.aggression"), "the share grows evenly"),
            Field::ok(concat!($policy, ".connectionPool.tcp.maxConnections")),
            Field::ok(concat!($policy, ".connectionPool.tcp.connectTimeout")),
            Field::lost(concat!($policy, ".connectionPool.tcp.tcpKeepalive"), "the kernel's settings hold"),
            Field::lost(concat!($policy, ".connectionPool.tcp.maxConnectionDuration"), "it has no bound"),
            Field::lost(concat!($policy, ".connectionPool.tcp.idleTimeout"), "use `timeouts: {tunnel: …}` of a route"),
            Field::lost(
                concat!($policy, ".connectionPool.http.http1MaxPendingRequests"),
                "requests only wait in the `queue` of a cluster",
            ),
            Field::ok(concat!($policy, ".connectionPool.http.http2MaxRequests")),
            Field::ok(concat!($policy, ".connectionPool.http.maxRequestsPerConnection")),
            Field::lost(
                concat!($policy, ".connectionPool.http.maxRetries"),
                "use `retry: {budget: …}` of a route",
            ),
            Field::ok(concat!($policy, ".connectionPool.http.idleTimeout")),
            Field::ok(concat!($policy, ".connectionPool.http.h2UpgradePolicy")),
            Field::approximated(
                concat!($policy, ".connectionPool.http.useClientProtocol"),
                "HTTP/2 is spoken for gRPC only",
            ),
            Field::lost(concat!($policy, ".connectionPool.http.maxConcurrentStreams"), "the server's bound holds"),
            Field::ok(concat!($policy, ".outlierDetection.consecutive5xxErrors")),
            Field::approximated(
                concat!($policy, ".outlierDetection.consecutiveGatewayErrors"),
                "all statuses 5xx count",
            ),
            Field::approximated(
                concat!($policy, ".outlierDetection.consecutiveErrors"),
                "all statuses 5xx count",
            ),
            Field::lost(
                concat!($policy, ".outlierDetection.splitExternalLocalOriginErrors"),
                "no answer counts as a failure",
            ),
            Field::lost(
                concat!($policy, ".outlierDetection.consecutiveLocalOriginFailures"),
                "no answer counts as a failure",
            ),
            Field::approximated(
                concat!($policy, ".outlierDetection.interval"),
                "endpoints come back as soon as their time is over",
            ),
            Field::ok(concat!($policy, ".outlierDetection.baseEjectionTime")),
            Field::ok(concat!($policy, ".outlierDetection.maxEjectionPercent")),
            Field::lost(
                concat!($policy, ".outlierDetection.minHealthPercent"),
                "ejection goes on while one endpoint is left",
            ),
            Field::ok(concat!($policy, ".tls.mode")).secure(),
            Field::ok(concat!($policy, ".tls.sni")).secure(),
            Field::ok(concat!($policy, ".tls.subjectAltNames")).secure(),
            Field::ok(concat!($policy, ".tls.caCertificates")).secure(),
            Field::ok(concat!($policy, ".tls.insecureSkipVerify")),
            Field::lost(concat!($policy, ".tls.clientCertificate"), FILES).secure(),
            Field::lost(concat!($policy, ".tls.privateKey"), FILES).secure(),
            Field::lost(concat!($policy, ".tls.credentialName"), FILES).secure(),
            Field::lost(concat!($policy, ".tls.caCrl"), "lists of revoked certificates are not read").secure(),
        )+
    ] };
}

/// Its fields.
pub(super) const FIELDS: &[Field] = fields!(
    "spec.trafficPolicy",
    "spec.trafficPolicy.portLevelSettings[]",
    "spec.subsets[].trafficPolicy",
    "spec.subsets[].trafficPolicy.portLevelSettings[]"
);
