//! What becomes of each key, as data.

use crate::import::coverage::Field;

const ROOM: &str =
    "its models share one pretended device of `gpus`; the idlest makes room, never a busy one";
const UNEDITED: &str = "bodies of requests are not edited, but for the name of the model";
const UNLISTED: &str = "`/v1/models` lists every name, and nothing else of a model";
const PAGES: &str = "for its own log and pages";
const RANK: &str = "requests are served in the order they came";

/// Every key.
pub(super) const FIELDS: &[Field] = &[
    Field::ok("healthCheckTimeout"),
    Field::ok("globalTTL"),
    Field::ok("unloadTimeout"),
    Field::approximated("startPort", "each start gets any free port"),
    Field::approximated(
        "sendLoadingState",
        "comments between events, no text of the model's",
    ),
    Field::ok("includeAliasesInList"),
    Field::ok("macros.*"),
    Field::ok("apiKeys").secure(),
    Field::ok("models.*.macros.*"),
    Field::ok("models.*.cmd"),
    Field::ok("models.*.cmdStop"),
    Field::ok("models.*.proxy"),
    Field::ok("models.*.checkEndpoint"),
    Field::ok("models.*.ttl"),
    Field::ok("models.*.unloadTimeout"),
    Field::ok("models.*.env"),
    Field::approximated(
        "models.*.aliases",
        "the server is told the model's own name instead",
    ),
    Field::approximated("models.*.useModelName", "requests may use this name too"),
    Field::approximated(
        "models.*.concurrencyLimit",
        "what is beyond it waits, up to `queue`, before it is refused",
    ),
    Field::approximated(
        "models.*.sendLoadingState",
        "comments between events, no text of the model's",
    ),
    Field::lost("models.*.name", UNLISTED),
    Field::lost("models.*.description", UNLISTED),
    Field::lost("models.*.metadata", UNLISTED),
    Field::lost("models.*.capabilities", UNLISTED),
    Field::lost("models.*.unlisted", UNLISTED),
    Field::lost("models.*.filters.stripParams", UNEDITED),
    Field::lost("models.*.filters.strip_params", UNEDITED),
    Field::lost("models.*.filters.setParams", UNEDITED),
    Field::lost(
        "models.*.filters.setParamsByID",
        "bodies of requests are not edited, and its keys are no aliases",
    ),
    Field::approximated("models.*.timeouts.connect", "TCP and TLS together"),
    Field::ok("models.*.timeouts.responseHeader"),
    Field::ok("models.*.timeouts.idleConn"),
    Field::lost(
        "models.*.timeouts.tlsHandshake",
        "a part of `connect_timeout`",
    ),
    Field::lost("models.*.timeouts.keepalive", "the system decides"),
    Field::lost(
        "models.*.timeouts.expectContinue",
        "bodies are sent at once",
    ),
    Field::ok("groups.*.members"),
    Field::approximated("groups.*.swap", ROOM),
    Field::approximated("groups.*.exclusive", ROOM),
    Field::approximated(
        "groups.*.persistent",
        "its models take no room on that device",
    ),
    Field::ok("matrix.vars.*"),
    Field::approximated("matrix.sets.*", ROOM),
    Field::lost("matrix.evict_costs", "the idlest is stopped first"),
    Field::ok("routing.router.use"),
    Field::ok("routing.router.settings.groups.*.members"),
    Field::approximated("routing.router.settings.groups.*.swap", ROOM),
    Field::approximated("routing.router.settings.groups.*.exclusive", ROOM),
    Field::approximated(
        "routing.router.settings.groups.*.persistent",
        "its models take no room on that device",
    ),
    Field::ok("routing.router.settings.matrix.vars.*"),
    Field::approximated("routing.router.settings.matrix.sets.*", ROOM),
    Field::lost(
        "routing.router.settings.matrix.evict_costs",
        "the idlest is stopped first",
    ),
    Field::lost("routing.scheduler", RANK),
    Field::ok("hooks.on_startup.preload"),
    Field::lost("profiles", "names of models are fixed"),
    Field::ok("peers.*.proxy"),
    Field::approximated("peers.*.models", "`/v1/models` does not list them"),
    Field::ok("peers.*.apiKey"),
    Field::lost("peers.*.filters.stripParams", UNEDITED),
    Field::lost("peers.*.filters.setParams", UNEDITED),
    Field::approximated("peers.*.timeouts.connect", "TCP and TLS together"),
    Field::ok("peers.*.timeouts.responseHeader"),
    Field::ok("peers.*.timeouts.idleConn"),
    Field::lost(
        "peers.*.timeouts.tlsHandshake",
        "a part of `connect_timeout`",
    ),
    Field::lost("peers.*.timeouts.keepalive", "the system decides"),
    Field::lost("peers.*.timeouts.expectContinue", "bodies are sent at once"),
    Field::lost("upstream", "there is no `/upstream`"),
    Field::harmless("logLevel", PAGES),
    Field::harmless("logTimeFormat", PAGES),
    Field::harmless("logToStdout", PAGES),
    Field::harmless("metricsMaxInMemory", PAGES),
    Field::harmless("captureBuffer", PAGES),
    Field::harmless("store", PAGES),
    Field::harmless("ui", PAGES),
    Field::harmless("performance", PAGES),
];
