//! What becomes of the fields of an Ingress and of each annotation.

use crate::import::Format;
use crate::import::coverage::{Field, Kind};

/// Writes the path of an annotation.
macro_rules! note {
    ($name:literal) => {
        concat!("metadata.annotations.nginx.ingress.kubernetes.io/", $name)
    };
}

/// What becomes of its fields.
pub(super) const KIND: Kind = Kind {
    group: "networking.k8s.io",
    name: "Ingress",
    versions: &["v1"],
    format: Some(Format::Ingress),
    proto: false,
    fields: &[
        Field::ok("spec.ingressClassName"),
        Field::ok("spec.rules[].host"),
        Field::ok("spec.rules[].http.paths[].path"),
        Field::ok("spec.rules[].http.paths[].pathType"),
        Field::ok("spec.rules[].http.paths[].backend.service.name"),
        Field::ok("spec.rules[].http.paths[].backend.service.port.number"),
        Field::ok("spec.rules[].http.paths[].backend.service.port.name"),
        Field::lost(
            "spec.rules[].http.paths[].backend.resource",
            "name a service",
        ),
        Field::ok("spec.defaultBackend.service.name"),
        Field::ok("spec.defaultBackend.service.port.number"),
        Field::ok("spec.defaultBackend.service.port.name"),
        Field::lost("spec.defaultBackend.resource", "name a service"),
        Field::ok("spec.tls[].hosts").secure(),
        Field::ok("spec.tls[].secretName").secure(),
        // Ways
        Field::approximated(note!("app-root"), "a query is kept"),
        Field::approximated(
            note!("permanent-redirect"),
            "a query is kept; `$request_uri` and no other variable",
        ),
        Field::ok(note!("permanent-redirect-code")),
        Field::approximated(
            note!("temporal-redirect"),
            "a query is kept; `$request_uri` and no other variable",
        ),
        Field::ok(note!("temporal-redirect-code")),
        Field::ok(note!("from-to-www-redirect")),
        Field::ok(note!("ssl-redirect")).secure(),
        Field::ok(note!("force-ssl-redirect")).secure(),
        Field::harmless(note!("preserve-trailing-slash"), "it always is"),
        Field::ok(note!("use-regex")),
        Field::ok(note!("rewrite-target")),
        Field::ok(note!("x-forwarded-prefix")),
        Field::ok(note!("server-alias")),
        Field::ok(note!("upstream-vhost")),
        Field::lost(
            note!("default-backend"),
            "without an endpoint the answer is 503",
        ),
        Field::lost(
            note!("custom-http-errors"),
            "answers of servers are passed on",
        ),
        Field::lost(
            note!("disable-proxy-intercept-errors"),
            "answers of servers are passed on",
        ),
        // Canary
        Field::ok(note!("canary")),
        Field::ok(note!("canary-by-header")),
        Field::ok(note!("canary-by-header-value")),
        Field::ok(note!("canary-by-header-pattern")),
        Field::ok(note!("canary-by-cookie")),
        Field::ok(note!("canary-weight")),
        Field::ok(note!("canary-weight-total")),
        // Who and how much
        Field::ok(note!("whitelist-source-range")).secure(),
        Field::ok(note!("allowlist-source-range")).secure(),
        Field::ok(note!("denylist-source-range")).secure(),
        Field::approximated(note!("limit-rps"), "refused with 429, not 503"),
        Field::approximated(note!("limit-rpm"), "refused with 429, not 503"),
        Field::approximated(
            note!("limit-connections"),
            "requests at the same time; refused with 429, not 503",
        ),
        Field::ok(note!("limit-burst-multiplier")),
        Field::lost(note!("limit-whitelist"), "limits hold for all clients"),
        Field::lost(note!("limit-rate"), "bandwidth is not limited"),
        Field::lost(note!("limit-rate-after"), "bandwidth is not limited"),
        Field::lost(note!("global-rate-limit"), "use `rate_limits`"),
        Field::lost(note!("global-rate-limit-window"), "use `rate_limits`"),
        Field::lost(note!("global-rate-limit-key"), "use `rate_limits`"),
        Field::lost(
            note!("global-rate-limit-ignored-cidrs"),
            "use `rate_limits`",
        ),
        Field::lost(note!("satisfy"), "all conditions must hold"),
        Field::lost(note!("auth-type"), "use `auth` of a route").secure(),
        Field::lost(note!("auth-secret"), "use `auth` of a route").secure(),
        Field::lost(note!("auth-secret-type"), "use `auth` of a route").secure(),
        Field::lost(note!("auth-realm"), "use `auth` of a route").secure(),
        Field::lost(note!("auth-url"), "nobody else is asked").secure(),
        Field::lost(note!("auth-signin"), "nobody else is asked").secure(),
        Field::lost(note!("auth-method"), "nobody else is asked").secure(),
        Field::lost(note!("auth-response-headers"), "nobody else is asked").secure(),
        Field::lost(note!("auth-snippet"), "nobody else is asked").secure(),
        Field::lost(note!("enable-global-auth"), "nobody else is asked").secure(),
        Field::lost(
            note!("auth-tls-secret"),
            "use `tls: {client_ca: …}` of a listener",
        )
        .secure(),
        Field::lost(
            note!("auth-tls-verify-client"),
            "use `tls: {client_ca: …}` of a listener",
        )
        .secure(),
        Field::lost(
            note!("auth-tls-verify-depth"),
            "use `tls: {client_ca: …}` of a listener",
        )
        .secure(),
        Field::lost(note!("enable-modsecurity"), "requests are not inspected").secure(),
        Field::lost(
            note!("enable-owasp-core-rules"),
            "requests are not inspected",
        )
        .secure(),
        Field::lost(note!("modsecurity-snippet"), "requests are not inspected").secure(),
        Field::lost(note!("ssl-passthrough"), "use a listener of protocol `tcp`").secure(),
        Field::lost(note!("ssl-ciphers"), "safe ones are used").secure(),
        Field::harmless(note!("ssl-prefer-server-ciphers"), "all are safe"),
        // Clocks and bodies
        Field::ok(note!("proxy-connect-timeout")),
        Field::approximated(
            note!("proxy-read-timeout"),
            "becomes `first_byte`, and `idle`, which counts both directions",
        ),
        Field::approximated(
            note!("proxy-send-timeout"),
            "becomes `idle`, which counts both directions",
        ),
        Field::ok(note!("proxy-body-size")),
        Field::lost(note!("proxy-next-upstream"), "use `retry` of a route"),
        Field::lost(
            note!("proxy-next-upstream-timeout"),
            "use `retry` of a route",
        ),
        Field::lost(note!("proxy-next-upstream-tries"), "use `retry` of a route"),
        Field::harmless(note!("proxy-buffering"), "bodies are streamed"),
        Field::harmless(note!("proxy-request-buffering"), "bodies are streamed"),
        Field::harmless(note!("proxy-buffers-number"), "bodies are streamed"),
        Field::harmless(note!("proxy-buffer-size"), "bodies are streamed"),
        Field::harmless(note!("proxy-busy-buffers-size"), "bodies are streamed"),
        Field::harmless(note!("proxy-max-temp-file-size"), "bodies are streamed"),
        Field::harmless(note!("client-body-buffer-size"), "bodies are streamed"),
        Field::lost(
            note!("proxy-cookie-domain"),
            "cookies are passed on as they are",
        ),
        Field::lost(
            note!("proxy-cookie-path"),
            "cookies are passed on as they are",
        ),
        Field::lost(
            note!("proxy-redirect-from"),
            "locations are passed on as they are",
        ),
        Field::lost(
            note!("proxy-redirect-to"),
            "locations are passed on as they are",
        ),
        Field::lost(
            note!("connection-proxy-header"),
            "the proxy writes it itself",
        ),
        // Upstream
        Field::approximated(
            note!("backend-protocol"),
            "certificates are verified, by the system's roots",
        ),
        Field::lost(
            note!("proxy-http-version"),
            "HTTP/1.1 and HTTP/2 are spoken",
        ),
        Field::ok(note!("proxy-ssl-name")),
        Field::ok(note!("proxy-ssl-verify")).secure(),
        Field::lost(
            note!("proxy-ssl-secret"),
            "use `tls: {ca: …, certificate: …, key: …}` of a cluster",
        )
        .secure(),
        Field::lost(note!("proxy-ssl-verify-depth"), "chains have any length").secure(),
        Field::lost(note!("proxy-ssl-ciphers"), "safe ones are used").secure(),
        Field::lost(note!("proxy-ssl-protocols"), "TLS 1.2 and 1.3 are spoken").secure(),
        Field::harmless(note!("proxy-ssl-server-name"), "the name is always sent"),
        Field::approximated(
            note!("affinity"),
            "the cookie holds a random key that endpoints are chosen by",
        ),
        Field::approximated(
            note!("affinity-mode"),
            "few clients move when endpoints change",
        ),
        Field::approximated(
            note!("affinity-canary-behavior"),
            "a changed weight moves the fewest clients",
        ),
        Field::ok(note!("session-cookie-name")),
        Field::ok(note!("session-cookie-expires")),
        Field::ok(note!("session-cookie-max-age")),
        Field::lost(note!("session-cookie-path"), "the cookie is for `/`"),
        Field::lost(note!("session-cookie-domain"), "the cookie is for its host"),
        Field::lost(note!("session-cookie-samesite"), "the proxy decides"),
        Field::lost(
            note!("session-cookie-conditional-samesite-none"),
            "the proxy decides",
        ),
        Field::lost(
            note!("session-cookie-secure"),
            "it is for TLS only when issued over TLS",
        ),
        Field::lost(
            note!("session-cookie-change-on-failure"),
            "the key stays, the next endpoint is used",
        ),
        Field::approximated(
            note!("upstream-hash-by"),
            "one header, one cookie or the client's address; loads are kept even",
        ),
        Field::lost(
            note!("upstream-hash-by-subset"),
            "a key belongs to one endpoint",
        ),
        Field::lost(
            note!("upstream-hash-by-subset-size"),
            "a key belongs to one endpoint",
        ),
        Field::approximated(note!("load-balance"), "`ewma` becomes `least_requests`"),
        Field::harmless(note!("service-upstream"), "services are asked by name"),
        Field::approximated(
            note!("mirror-target"),
            "copies keep the `Host` of the request, and never delay it",
        ),
        Field::lost(note!("mirror-request-body"), "bodies are copied"),
        Field::lost(
            note!("mirror-host"),
            "copies keep the `Host` of the request",
        ),
        // Browsers
        Field::approximated(
            note!("enable-cors"),
            "only preflights are answered, other OPTIONS requests are forwarded",
        ),
        Field::ok(note!("cors-allow-methods")),
        Field::ok(note!("cors-allow-headers")),
        Field::ok(note!("cors-expose-headers")),
        Field::ok(note!("cors-allow-origin")),
        Field::ok(note!("cors-allow-credentials")),
        Field::ok(note!("cors-max-age")),
        // Snippets
        Field::ok(note!("configuration-snippet")),
        Field::lost(note!("server-snippet"), "this is no nginx"),
        Field::lost(note!("stream-snippet"), "this is no nginx"),
        // No traffic
        Field::harmless(note!("enable-access-log"), "set `access_log`"),
        Field::harmless(note!("enable-rewrite-log"), "ask `explain`"),
        Field::harmless(note!("enable-opentracing"), "set `tracing`"),
        Field::harmless(note!("enable-opentelemetry"), "set `tracing`"),
        Field::harmless(note!("opentracing-trust-incoming-span"), "set `tracing`"),
        Field::harmless(note!("opentelemetry-trust-incoming-span"), "set `tracing`"),
        Field::harmless(note!("http2-push-preload"), "browsers have dropped it"),
        Field::lost(note!("*"), "nobody knows it here"),
    ],
};
