use std::num::NonZeroU32;

use forebay_config::peek::Found;
use forebay_config::units;
use forebay_config::{LimitRule, LimitSource, Position};
use http::{HeaderMap, HeaderValue};

use super::*;

fn position() -> Position {
    Position {
        file: "t".into(),
        line: 1,
        column: 1,
    }
}

fn quota(rate: &str, burst: u32) -> Quota {
    Quota {
        rate: units::rate(rate).unwrap(),
        burst: NonZeroU32::new(burst).unwrap(),
    }
}

fn limit(bound: Bound, per: LimitKey, missing: MissingKey) -> RateLimit {
    RateLimit {
        name: "l".into(),
        source: LimitSource::Own(LimitRule {
            bound,
            per,
            missing,
        }),
        dry_run: false,
        position: position(),
    }
}

fn rate(rate: &str, burst: u32, per: LimitKey) -> RateLimit {
    let general = quota(rate, burst);
    let overrides = BTreeMap::new();
    limit(
        Bound::Rate(PerKey { general, overrides }),
        per,
        MissingKey::Shared,
    )
}

fn concurrent(most: u32, per: LimitKey) -> RateLimit {
    let general = NonZeroU32::new(most).unwrap();
    let overrides = BTreeMap::new();
    limit(
        Bound::Concurrent(PerKey { general, overrides }),
        per,
        MissingKey::Shared,
    )
}

fn compiled(configs: &[RateLimit]) -> (Limits, Vec<State>, Arc<AtomicU64>) {
    let (mut limits, refused) = (Limits::default(), Arc::default());
    let mut states = Vec::new();
    for config in configs {
        let state = State::default();
        limits.push(config, &state, Arc::clone(&refused));
        states.push(state);
    }
    (limits, states, refused)
}

fn asks(limits: &Limits, client: &str, headers: &HeaderMap) -> Result<Vec<Permit>, Refusal> {
    let asked = Asked {
        headers,
        client: client.parse().unwrap(),
        identity: None,
        fields: &Found::default(),
        now: Ticks::at(Instant::now()),
    };
    let mut permits = Vec::new();
    limits.admit(&asked, &mut permits).map(|()| permits)
}

fn field<'r>(refusal: &'r Refusal, name: &str) -> &'r str {
    let found = refusal.fields.iter().find(|(key, _)| key == name);
    found.unwrap().1.to_str().unwrap()
}

fn tenant(name: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(
        HeaderName::from_static("x-tenant"),
        HeaderValue::from_static(name),
    )])
}

fn none() -> HeaderMap {
    HeaderMap::new()
}

#[test]
fn a_refusal_says_what_the_limit_is_and_when_to_come_back() {
    let (limits, _, refused) = compiled(&[rate("10/h", 1, LimitKey::Route)]);
    assert!(asks(&limits, "10.0.0.1", &none()).is_ok());
    let refusal = asks(&limits, "10.0.0.2", &none()).unwrap_err();
    assert_eq!(refusal.reason, Reason::RateLimited);
    assert_eq!(field(&refusal, "retry-after"), "60");
    assert_eq!(field(&refusal, "ratelimit"), "\"l\";r=0;t=360");
    assert_eq!(field(&refusal, "ratelimit-policy"), "\"l\";q=10;w=3600");
    assert_eq!(refused.load(Ordering::Relaxed), 1);
    let (limits, ..) = compiled(&[rate("0.5/s", 1, LimitKey::Route)]);
    assert!(asks(&limits, "10.0.0.1", &none()).is_ok());
    let refusal = asks(&limits, "10.0.0.1", &none()).unwrap_err();
    assert_eq!(field(&refusal, "ratelimit-policy"), "\"l\";q=1;w=2");
    assert_eq!(field(&refusal, "retry-after"), "2");
}

#[test]
fn ipv6_clients_are_told_apart_by_their_network() {
    let (limits, ..) = compiled(&[rate("1/h", 1, LimitKey::ClientIp)]);
    for (client, admitted) in [
        ("2001:db8::1", true),
        ("2001:db8::ffff:2", false),
        ("2001:db8:0:1::1", true),
        ("192.0.2.1", true),
        ("::ffff:192.0.2.1", false),
        ("192.0.2.2", true),
    ] {
        assert_eq!(asks(&limits, client, &none()).is_ok(), admitted, "{client}");
    }
}

#[test]
fn a_missing_key_is_shared_refused_or_no_matter() {
    let by = || LimitKey::Header(HeaderName::from_static("x-tenant"));
    let of = |missing| {
        let mut config = rate("1/h", 1, by());
        if let LimitSource::Own(rule) = &mut config.source {
            rule.missing = missing;
        }
        compiled(&[config]).0
    };
    let counts = [MissingKey::Shared, MissingKey::Refuse, MissingKey::Skip].map(|missing| {
        let limits = of(missing);
        let admitted = (0..5).filter(|_| asks(&limits, "10.0.0.1", &none()).is_ok());
        admitted.count()
    });
    assert_eq!(counts, [1, 0, 5]);
}

#[test]
fn some_keys_have_more() {
    let mut config = rate(
        "1/h",
        1,
        LimitKey::Header(HeaderName::from_static("x-tenant")),
    );
    if let LimitSource::Own(rule) = &mut config.source
        && let Bound::Rate(quotas) = &mut rule.bound
    {
        quotas.overrides.insert("acme".into(), quota("1/h", 5));
    }
    let (limits, ..) = compiled(&[config]);
    let admitted = |name| {
        (0..9)
            .filter(|_| asks(&limits, "10.0.0.1", &tenant(name)).is_ok())
            .count()
    };
    assert_eq!((admitted("acme"), admitted("other")), (5, 1));
}

#[test]
fn a_dry_run_counts_and_lets_pass() {
    let mut config = rate("1/h", 1, LimitKey::Route);
    config.dry_run = true;
    let (limits, _, refused) = compiled(&[config]);
    assert!((0..5).all(|_| asks(&limits, "10.0.0.1", &none()).is_ok()));
    assert_eq!(refused.load(Ordering::Relaxed), 4);
}

#[test]
fn who_is_refused_by_one_limit_is_charged_by_none() {
    let (limits, states, _) = compiled(&[
        rate("1/h", 5, LimitKey::Route),
        rate("1/h", 1, LimitKey::ClientIp),
        concurrent(1, LimitKey::Route),
    ]);
    let held = asks(&limits, "10.0.0.1", &none()).unwrap();
    for _ in 0..10 {
        let refusal = asks(&limits, "10.0.0.1", &none()).unwrap_err();
        assert_eq!(refusal.reason, Reason::RateLimited);
        let refusal = asks(&limits, "10.0.0.2", &none()).unwrap_err();
        assert_eq!(refusal.reason, Reason::ConcurrencyLimited);
        assert_eq!(
            field(&refusal, "ratelimit-policy"),
            "\"l\";q=1;qu=\"concurrent-requests\""
        );
    }
    drop(held);
    assert_eq!(states[2].slots.in_progress(), 0);
    let clients = ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"];
    let admitted = clients
        .iter()
        .filter(|client| asks(&limits, client, &none()).is_ok());
    assert_eq!(admitted.count(), 4);
}

#[test]
fn names_become_strings_of_structured_fields() {
    assert_eq!(quoted(r#"a"b\c é"#), r#""a\"b\\c ?""#);
}
