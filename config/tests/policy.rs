//! Access, limits, API keys, CORS and sticky splits: what is refused, what is odd, and how it reads.
#![allow(clippy::unwrap_used, reason = "a test")]

mod shipped;

use forebay_config::diagnostic::Diagnostic;
use forebay_config::load::load;
use forebay_config::schema::json_schema;
use forebay_config::{AccessEntry, Bound, Config, Quota, ValueMatch};

fn loaded(text: &str) -> Result<Config, Vec<Diagnostic>> {
    load(&[shipped::source("a.yaml", text)], &|_| None)
        .map(|loaded| loaded.config)
        .map_err(|problems| problems.0)
}

fn findings(text: &str) -> Vec<Diagnostic> {
    match load(&[shipped::source("a.yaml", text)], &|_| None) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems.0,
    }
}

/// A file with these keys in its one route.
fn route(keys: &str) -> String {
    format!("routes:\n- {{name: r, cluster: c, {keys}}}\n{CLUSTERS}")
}

const CLUSTERS: &str =
    "clusters: [{name: c, endpoints: ['127.0.0.1:1']}, {name: d, endpoints: ['127.0.0.1:2']}]\n";
const KEYS: &str = "auth: {api_keys: {file: keys.txt}}\n";

/// Asserts which codes a file is answered with; the cluster that no route names does not count.
#[track_caller]
fn codes(text: &str, expected: &str) {
    let found = findings(text);
    let codes: Vec<&str> = found.iter().map(|one| one.code.as_str()).collect();
    let codes = codes.join(" ").replace("W001", "");
    assert_eq!(codes.trim(), expected, "{text}\n{found:#?}");
}

/// Asserts that one of the findings reads like this, as `line:column code message`, and helps like that.
#[track_caller]
fn says(text: &str, message: &str, help: &str) {
    let found = findings(text);
    let shown = |one: &Diagnostic| {
        let (line, column) = (one.position.line, one.position.column);
        format!("{line}:{column} {} {}", one.code.as_str(), one.message)
    };
    let one = found.iter().find(|one| shown(one) == message);
    let one = one.unwrap_or_else(|| {
        let all: Vec<String> = found.iter().map(shown).collect();
        panic!("{text}\n{all:#?}")
    });
    assert_eq!(one.help.as_deref().unwrap_or_default(), help, "{text}");
}

#[test]
fn access_entries() {
    for (entry, code) in [
        ("10.0.0.0/8", ""),
        ("\"2001:db8::/32\"", ""),
        ("192.0.2.7", ""),
        ("10.0.0.0/33", "E013"),
        ("10.0.0.300", "E013"),
        ("10.0.0/8", "E013"),
        ("office.example.com", "E013"),
        ("\"\"", "E013"),
        ("-1", "E013"),
        ("[10.0.0.0/8]", "E012"),
        ("null", "E012"),
        ("{file: deny.txt}", ""),
        ("{file: ''}", "E013"),
        ("{file: deny.txt, header: {a: b}}", "E016"),
        ("{}", "E016"),
        ("{cidr: 10.0.0.0/8}", "E010"),
        ("{header: {}}", "E013"),
        ("{header: {a: null}}", "E012"),
        ("{header: {a: b, c: null}}", "E012"),
        ("{header: {a: {regex: '('}}}", "E017"),
        ("{header: {a: {regex: '(a{999}){999}'}}}", "E017"),
        ("{header: {a: {regex: x, not: y}}}", "E016"),
        ("{header: {'a b': c}}", "E013"),
        ("{header: {host: c}}", "E019"),
        ("{header: {a: {in: [b, c]}, d: {present: false}}}", ""),
    ] {
        codes(&route(&format!("access: {{deny: [{entry}]}}")), code);
        codes(&route(&format!("access: {{allow: [{entry}]}}")), code);
    }
    says(
        &route("access: {deny: [10.0.0.0/33]}"),
        "2:41 E013 routes[0] (r).access.deny[0]: the string `10.0.0.0/33` is not an address block",
        "the length of an IPv4 block is 0 to 32",
    );
    says(
        &route("access: {deny: [\"fd00::/200\"]}"),
        "2:41 E013 routes[0] (r).access.deny[0]: the string `fd00::/200` is not an address block",
        "the length of an IPv6 block is 0 to 128",
    );
    says(
        &route("access: {deny: [office.example.com]}"),
        "2:41 E013 routes[0] (r).access.deny[0]: the string `office.example.com` is not an address block",
        "for example `10.0.0.0/8`, `fd00::/8` or `192.0.2.7`",
    );
}

#[test]
fn access_lists_by_name() {
    let lists = "access_lists:\n- {name: office, allow: [10.0.0.0/8]}\n- {name: bad, deny: [10.9.0.0/16]}\n";
    says(
        &format!("{lists}{}", route("access: {list: offce}")),
        "5:40 E021 routes[0] (r).access.list: unknown access list `offce`",
        "did you mean `office`?",
    );
    says(
        &route("access: {list: office}"),
        "2:40 E021 routes[0] (r).access.list: unknown access list `office`",
        "there is no access list at all",
    );
    says(
        &format!("{lists}- {{name: bad, deny: []}}\n"),
        "4:3 E020 access_lists: the name `bad` is taken",
        "the first one is at a.yaml:3",
    );
    says(
        &format!("{lists}{}", route("access: {list: bad}")),
        "2:3 W005 access_lists[0] (office): no route names this access list",
        "",
    );
    // Several files put their lists together.
    let files = ["a", "b"].map(|name| {
        let text = format!("access_lists: [{{name: {name}, deny: [10.0.0.0/8]}}]\n");
        shipped::source(&format!("{name}.yaml"), &text)
    });
    assert!(load(&files, &|_| None).is_ok());
}

#[test]
fn access_that_lets_nobody_in_or_everybody() {
    for (access, code) in [
        ("{}", "W005"),
        ("{deny: []}", "W005"),
        ("{allow: []}", "W007"),
        ("{allow: [], deny: [10.0.0.0/8]}", "W007"),
        ("{allow: [], dry_run: true}", ""),
        ("{list: none, allow: []}", "W007"),
        ("{list: some, allow: []}", ""),
        (
            "{allow: [10.1.0.0/16, 10.2.3.4], deny: [10.0.0.0/9, 10.128.0.0/9]}",
            "W007",
        ),
        ("{allow: [10.1.0.0/16, 11.0.0.1], deny: [10.0.0.0/8]}", ""),
        ("{allow: [10.0.0.0/8], deny: [10.1.0.0/16]}", ""),
        (
            "{allow: [10.0.0.0/8, {file: a.txt}], deny: [10.0.0.0/8]}",
            "",
        ),
        ("{deny: [0.0.0.0/0]}", ""),
        ("{deny: [0.0.0.0/0, \"::/0\"]}", "W007"),
    ] {
        let lists = "access_lists: [{name: none, allow: []}, {name: some, allow: [10.0.0.1]}]\n";
        let used = "- {name: use, match: {path: {exact: /u}}, respond: {}, access: {list: none, dry_run: true}}\n\
                    - {name: user, match: {path: {exact: /v}}, respond: {}, access: {list: some}}\n";
        let text = route(&format!("access: {access}"));
        codes(
            &format!(
                "{lists}{}",
                text.replace("clusters:", &format!("{used}clusters:"))
            ),
            code,
        );
    }
    says(
        &route("access: {allow: []}"),
        "2:33 W007 routes[0] (r).access: blocks everything: `allow` is there and empty, so nobody is let in",
        "",
    );
}

#[test]
fn limits() {
    for (limit, code) in [
        ("{rate: 100/s}", ""),
        ("{rate: 0.5/s, burst: 1, per: client_ip}", ""),
        ("{rate: 0/s}", "E013"),
        ("{rate: -5/s}", "E013"),
        ("{rate: 100}", "E013"),
        ("{rate: 1e3/s}", "E013"),
        ("{rate: 100/week}", "E013"),
        ("{rate: [100/s]}", "E012"),
        ("{rate: 10000001/s}", "E014"),
        ("{rate: 600000001/m}", "E014"),
        ("{rate: 0.001/d}", "E014"),
        ("{rate: 1/d, burst: 365}", ""),
        ("{rate: 1/d, burst: 366}", "E014"),
        ("{rate: 1/s, burst: 0}", "E014"),
        ("{rate: 1/s, burst: -1}", "E014"),
        ("{rate: 1/s, burst: 10000001}", "E014"),
        ("{rate: 1/s, burst: 2/s}", "E012"),
        ("{burst: 5}", "E016"),
        ("{}", "E016"),
        ("{rate: 1/s, concurrent: 5}", "E016"),
        ("{concurrent: 0}", "E014"),
        ("{concurrent: 5, burst: 5}", "E016"),
        ("{concurrent: 5/s}", "E012"),
        ("{tokens: 100000/m}", "E011"),
        ("{rate: 1/s, scope: fleet}", "E010"),
        ("{rate: 1/s, per: everybody}", "E013"),
        ("{rate: 1/s, per: header}", "E012"),
        ("{rate: 1/s, per: {}}", "E016"),
        ("{rate: 1/s, per: {header: a, cookie: b}}", "E016"),
        ("{rate: 1/s, per: {header: 'a b'}}", "E013"),
        ("{rate: 1/s, per: {cookie: 'a=b'}}", "E013"),
        ("{rate: 1/s, per: {json: /user}}", ""),
        ("{rate: 1/s, per: {json: user}}", "E013"),
        ("{rate: 1/s, per: {json: ''}}", "E013"),
        ("{rate: 1/s, per: {json: /a~2}}", "E013"),
        ("{rate: 1/s, per: {json: /user, header: a}}", "E016"),
        ("{rate: 1/s, per: json}", "E012"),
        ("{rate: 1/s, per: identity}", "E015"),
        ("{rate: 1/s, per: {header: a}, missing: shared}", ""),
        ("{rate: 1/s, per: {header: a}, missing: ignore}", "E013"),
        ("{rate: 1/s, missing: skip}", "W005"),
        ("{rate: 1/s, overrides: {a: 2/s}}", "W005"),
        (
            "{rate: 1/s, per: {header: a}, overrides: {a: 2/s, b: {rate: 1/m, burst: 9}}}",
            "",
        ),
        ("{rate: 1/s, per: {header: a}, overrides: {a: 2}}", "E012"),
        (
            "{rate: 1/s, per: {header: a}, overrides: {a: null}}",
            "E012",
        ),
        ("{rate: 1/s, per: {header: a}, overrides: {a: 0/s}}", "E013"),
        (
            "{rate: 1/s, per: {header: a}, overrides: {a: {burst: 2}}}",
            "E015",
        ),
        (
            "{concurrent: 1, per: {header: a}, overrides: {a: 2, b: 3}}",
            "",
        ),
        (
            "{concurrent: 1, per: {header: a}, overrides: {a: 2/s}}",
            "E012",
        ),
        (
            "{concurrent: 1, per: {header: a}, overrides: {a: -2}}",
            "E014",
        ),
        (
            "{rate: 1/s, per: client_ip, overrides: {10.0.0.1: 2/s}}",
            "",
        ),
        (
            "{rate: 1/s, per: client_ip, overrides: {10.0.0.0/8: 2/s}}",
            "E013",
        ),
        (
            "{rate: 1/s, per: client_ip, overrides: {acme: 2/s}}",
            "E013",
        ),
        (
            "{rate: 1/s, per: client_ip, overrides: {'2001:db8::1': 2/s, '2001:db8::2': 3/s}}",
            "E002",
        ),
        ("{rate: 1/s, dry_run: perhaps}", "E012"),
    ] {
        codes(&route(&format!("rate_limits: [{limit}]")), code);
    }
    says(
        &route("rate_limits: [{rate: 100}]"),
        "2:46 E013 routes[0] (r).rate_limits[0].rate: the number `100` is not a rate",
        "a rate has a unit: `100/s`?",
    );
    says(
        &route("rate_limits: [{rate: -1/s}]"),
        "2:46 E013 routes[0] (r).rate_limits[0].rate: the string `-1/s` is not a rate",
        "a rate is above 0; `access: {allow: []}` refuses everything",
    );
    says(
        &route("rate_limits: [{rate: 1/s, per: identity}]"),
        "2:56 E015 routes[0] (r).rate_limits[0].per: `identity` is the name of an API key, and none is known",
        "add `auth: {api_keys: {file: keys.txt}}` at the top of the file",
    );
}

#[test]
fn policies_and_names_of_limits() {
    let policy = |keys: &str, limit: &str| {
        let route = route(&format!("rate_limits: [{limit}]"));
        format!("rate_limit_policies:\n- {{name: tenants, {keys}}}\n{route}")
    };
    for (keys, limit, code) in [
        ("rate: 1/s", "{policy: tenants}", ""),
        (
            "concurrent: 1, per: {header: a}",
            "{policy: tenants, name: a, dry_run: true}",
            "",
        ),
        ("rate: 1/s, scope: fleet", "{policy: tenants}", "E011"),
        ("rate: 1/s, scope: world", "{policy: tenants}", "E013"),
        ("rate: -1/s", "{policy: tenants}", "E013"),
        ("burst: 1", "{policy: tenants}", "E016"),
        ("rate: 1/s, per: identity", "{policy: tenants}", "E015"),
        ("rate: 1/s", "{policy: tenants, per: client_ip}", "E016"),
        ("rate: 1/s", "{policy: tenants, rate: 1/s}", "E016"),
        ("rate: 1/s", "{rate: 1/s}", "W005"),
        (
            "rate: 1/s",
            "{policy: tenants}, {rate: 1/s}, {rate: 1/m}, {policy: tenants}",
            "",
        ),
        (
            "rate: 1/s",
            "{policy: tenants, name: a}, {rate: 1/s, name: a}",
            "E020",
        ),
        (
            "rate: 1/s",
            "{policy: tenants, name: rate-1}, {rate: 1/s}",
            "E020",
        ),
    ] {
        codes(&policy(keys, limit), code);
    }
    says(
        &policy("rate: 1/s", "{policy: tennants}"),
        "4:48 E021 routes[0] (r).rate_limits[0].policy: unknown rate limit policy `tennants`",
        "did you mean `tenants`?",
    );
    says(
        "rate_limit_policies: [{name: a, rate: 1/s}, {name: a, rate: 2/s}]",
        "1:45 E020 rate_limit_policies: the name `a` is taken",
        "the first one is at a.yaml:1",
    );
}

#[test]
fn api_keys() {
    for (top, keys, code) in [
        ("", "auth: {required: true}", "E015"),
        ("", "auth: {required: false}", ""),
        ("", "auth: {keep_key: true}", "W005"),
        ("auth: {}\n", "auth: {required: true}", "E015"),
        (KEYS, "auth: {required: true, keep_key: true}", ""),
        (KEYS, "rate_limits: [{rate: 1/s, per: identity}]", ""),
        (KEYS, "auth: {required: 1}", "E012"),
        ("auth: {api_keys: {}}\n", "auth: {required: true}", "E015"),
        (
            "auth: {api_keys: keys.txt}\n",
            "auth: {required: true}",
            "E012",
        ),
        (
            "auth: {api_kyes: {file: keys.txt}}\n",
            "auth: {required: true}",
            "E010",
        ),
        (
            "auht: {api_keys: {file: keys.txt}}\n",
            "auth: {required: true}",
            "E010",
        ),
    ] {
        codes(&format!("{top}{}", route(keys)), code);
    }
    says(
        &route("auth: {required: true}"),
        "2:42 E015 routes[0] (r).auth.required: an API key is required, and none is known",
        "add `auth: {api_keys: {file: keys.txt}}` at the top of the file",
    );
}

#[test]
fn cors() {
    for (cors, code) in [
        ("{origins: ['*']}", ""),
        ("{origins: '*'}", ""),
        (
            "{origins: ['https://a.example.com', 'http://localhost:3000', 'null']}",
            "",
        ),
        ("{}", "E015"),
        ("{origins: []}", "E013"),
        ("{origins: ['*', 'https://a.example.com']}", "E016"),
        ("{origins: [a.example.com]}", "E013"),
        ("{origins: ['https://a.example.com/']}", "E013"),
        ("{origins: ['https://*']}", "E013"),
        ("{origins: ['https://a.*.com']}", "E013"),
        ("{origins: [{regex: x}]}", "E012"),
        ("{origins: ['*'], credentials: true}", "W009"),
        (
            "{origins: ['https://a.example.com'], credentials: true}",
            "",
        ),
        ("{origins: ['*'], methods: [get]}", "E013"),
        (
            "{origins: ['*'], methods: ['*'], headers: ['*'], expose: ['*']}",
            "",
        ),
        ("{origins: ['*'], headers: ['a b']}", "E013"),
        ("{origins: ['*'], expose: []}", ""),
        ("{origins: ['*'], expose: ['*', x-a]}", ""),
        ("{origins: ['*'], max_age: 5}", "E013"),
        ("{origins: ['*'], max_age: 0s}", ""),
        ("{origins: ['*'], max_age: -1s}", "E013"),
    ] {
        codes(&route(&format!("cors: {cors}")), code);
    }
    says(
        &route("cors: {origins: [a.example.com]}"),
        "2:42 E013 routes[0] (r).cors.origins[0]: the string `a.example.com` is not an origin",
        "the scheme is missing: `https://a.example.com`?",
    );
    says(
        &route("cors: {origins: ['https://a.example.com/']}"),
        "2:42 E013 routes[0] (r).cors.origins[0]: the string `https://a.example.com/` is not an origin",
        "leave the path out: `https://a.example.com`?",
    );
}

#[test]
fn sticky() {
    let split = |weights: [u32; 2], sticky: &str| {
        format!(
            "routes:\n- name: r\n  split: [{{cluster: c, weight: {}}}, {{cluster: d, weight: {}}}]\n  sticky: {sticky}\n{CLUSTERS}",
            weights[0], weights[1]
        )
    };
    for (sticky, code) in [
        ("{header: x-user}", ""),
        ("{cookie: fb}", ""),
        ("{cookie: {name: fb, ttl: none}}", ""),
        ("{cookie: {name: fb, ttl: 0s}}", "E014"),
        ("{cookie: {ttl: 1h}}", "E015"),
        ("{cookie: {name: 'a b'}}", "E013"),
        ("{client_ip: true}", ""),
        ("{client_ip: false}", "E016"),
        ("{json: /user}", ""),
        ("{json: user}", "E013"),
        ("{json: ''}", "E013"),
        ("{json: [/user]}", "E012"),
        ("{json: /user, header: a}", "E016"),
        ("{}", "E016"),
        ("{header: a, cookie: b}", "E016"),
        ("header", "E012"),
    ] {
        codes(&split([1, 1], sticky), code);
    }
    codes(&split([9999, 1], "{client_ip: true}"), "");
    codes(&split([1_000_000, 0], "{client_ip: true}"), "");
    codes(&route("sticky: {client_ip: true}"), "W005");
    codes(
        "routes: [{name: r, respond: {}, sticky: {client_ip: true}}]",
        "W005",
    );
    says(
        &split([10_000, 1], "{client_ip: true}"),
        "3:61 W008 routes[0] (r).sticky: a share of 1 in 10001 is below the resolution of a sticky split, 1 in 10000",
        "raise this weight, or lower the others",
    );
}

#[test]
fn tcp_routes_have_no_requests() {
    for (keys, code) in [
        ("access: {deny: [10.0.0.0/8]}", "E024"),
        ("rate_limits: [{rate: 1/s}]", "E024"),
        ("rate_limits: []", ""),
        ("cors: {origins: ['*']}", "E024"),
        ("auth: {required: false}", "E024"),
    ] {
        let listeners = "listeners: [{name: t, address: '127.0.0.1:0', protocol: tcp}]\n";
        codes(
            &format!("{listeners}{}", route(&format!("listeners: [t], {keys}"))),
            code,
        );
    }
}

#[test]
fn bursts_are_those_of_a_second_or_in_proportion() {
    let quota = |limit: &str, key: &str| -> Quota {
        let keys = format!("rate_limits: [{{per: {{header: a}}, {limit}}}]");
        let config = loaded(&route(&keys)).unwrap();
        match &config.routes[0].rate_limits[0].rule().bound {
            Bound::Rate(rates) => *rates.of(key),
            Bound::Concurrent(_) => panic!(),
        }
    };
    for (limit, key, burst) in [
        ("rate: 100/s", "x", 100),
        ("rate: 90/m", "x", 2),
        ("rate: 1/d", "x", 1),
        ("rate: 10/s, burst: 7, overrides: {a: 25/s}", "x", 7),
        ("rate: 10/s, burst: 7, overrides: {a: 25/s}", "a", 18),
        ("rate: 10/s, burst: 7, overrides: {a: 1/m}", "a", 1),
        (
            "rate: 10/s, burst: 7, overrides: {a: {rate: 1/m, burst: 3}}",
            "a",
            3,
        ),
        ("rate: 1/m, overrides: {a: 5/s}", "a", 5),
        (
            "rate: 1/s, burst: 10000000, overrides: {a: 9/s}",
            "a",
            10_000_000,
        ),
    ] {
        assert_eq!(quota(limit, key).burst.get(), burst, "{limit} {key}");
    }
    let slow = quota("rate: 1/m", "x").rate;
    assert_eq!(slow.interval().as_secs(), 60);
    assert!((slow.per_second() * 60.0 - 1.0).abs() < 1e-12);
    assert_eq!(
        quota("rate: 3/s", "x").rate.interval().as_nanos(),
        333_333_333
    );
}

#[test]
fn defaults_reach_every_route() {
    let config = loaded(&format!(
        "{KEYS}defaults: {{route: {{auth: {{required: true}}, sticky: {{client_ip: true}}, access: {{deny: [10.0.0.0/8]}}}}}}\n\
         routes:\n- {{name: a, split: [{{cluster: c}}, {{cluster: d}}], auth: {{keep_key: true}}, sticky: {{header: x}}}}\n\
         - {{name: b, match: {{path: {{exact: /b}}}}, cluster: c, auth: null, access: {{deny: []}}}}\n{CLUSTERS}"
    ))
    .unwrap();
    let [a, b] = &config.routes[..] else { panic!() };
    assert!(a.auth.required && a.auth.keep_key);
    assert!(matches!(a.sticky, Some(forebay_config::Sticky::Header(_))));
    assert_eq!(a.access.as_ref().unwrap().deny.len(), 1);
    assert!(!b.auth.required);
    assert!(b.access.as_ref().unwrap().deny.is_empty());
}

#[test]
fn the_schema_refuses_what_can_be_seen_without_the_rest() {
    let validator = jsonschema::validator_for(&json_schema()).unwrap();
    for keys in [
        "rate_limits: [{rate: 100}]",
        "rate_limits: [{rate: -1/s}]",
        "rate_limits: [{tokens: 1/s}]",
        "rate_limits: [{rate: 1/s, per: all}]",
        "rate_limits: [{rate: 1/s, missing: all}]",
        "access: {deny: [example.com]}",
        "access: {deny: [{cidr: 10.0.0.0/8}]}",
        "cors: {origins: [example.com]}",
        "sticky: {json: user}",
        "auth: {required: maybe}",
    ] {
        let instance: serde_json::Value = serde_saphyr::from_str(&route(keys)).unwrap();
        assert!(!validator.is_valid(&instance), "{keys}");
        assert!(loaded(&route(keys)).is_err(), "{keys}");
    }
}

#[test]
fn long_lists_load_quickly() {
    let nets: Vec<String> = (0..100_000)
        .map(|n| format!("{}.{}.{}.0/25", 1 + (n >> 16), (n >> 8) & 255, n & 255))
        .collect();
    let list = format!("access_lists: [{{name: l, deny: [{}]}}]\n", nets.join(", "));
    let started = std::time::Instant::now();
    let config = loaded(&format!(
        "{list}{}",
        route("access: {list: l, allow: [9.0.0.0/8]}")
    ))
    .unwrap();
    println!("100 000 blocks loaded in {:?}", started.elapsed());
    assert_eq!(
        config.routes[0].access.as_ref().unwrap().deny.len(),
        100_000
    );
}

#[test]
fn an_expression_with_an_anchor_of_its_own_need_not_match_the_whole_value() {
    let matches = |regex: &str, value: &str| {
        let text = format!(
            "access_lists: [{{name: l, deny: [{{header: {{user-agent: {{regex: \"{regex}\"}}}}}}]}}]\n\
             routes: [{{name: r, cluster: c, access: {{list: l}}}}]\n\
             clusters: [{{name: c, endpoints: ['127.0.0.1:1']}}]\n"
        );
        let config = loaded(&text).unwrap();
        let access = config.routes[0].access.clone().unwrap();
        let AccessEntry::Headers(headers) = &access.deny[0] else {
            panic!("{access:?}")
        };
        let ValueMatch::Regex(regex) = &headers[0].1 else {
            panic!("{headers:?}")
        };
        regex.is_match(value)
    };
    assert!(matches("^curl", "curl/8.1") && !matches("^curl", "libcurl"));
    assert!(matches("gold|silver", "gold") && !matches("gold|silver", "golden"));
}

#[test]
fn an_allow_whose_last_entry_was_commented_out_lets_nobody_in_by_accident() {
    let text = "routes:\n- name: r\n  cluster: c\n  access:\n    deny: [10.9.0.0/16]\n    allow:\n    # - 10.0.0.0/8\n\
                clusters: [{name: c, endpoints: ['127.0.0.1:1']}]\n";
    let problems = loaded(text).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].message.contains("everybody"), "{problems:?}");
    assert_eq!(problems[0].position.line, 6);
}
