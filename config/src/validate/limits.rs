//! How many requests.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::cross::known;
use crate::diagnostic::{Code, Diagnostic, quoted};
use crate::model::{
    Bound, LimitKey, LimitRule, LimitSource, PerKey, Position, Quota, RateLimit, RateLimitPolicy,
};
use crate::schema::keys::{Burst, Places, RateLimitKeys, RateLimitPolicyKeys};
use crate::schema::{
    At, Dictionary, List, OverrideShape, OverrideValue, Path, PerShape, RateText, Reader,
};
use crate::units::{Rate, show_duration};

/// The longest time in which an empty bucket becomes full.
const FILL_MAX: Duration = Duration::from_secs(365 * 86_400);
/// The largest burst.
const BURST_MAX: u32 = 10_000_000;

/// What limits refer to.
pub(super) struct Policies<'a> {
    /// Those that could be read, by name.
    pub(super) policies: HashMap<String, Arc<RateLimitPolicy>>,
    /// All names; `None`: not all of them could be read.
    pub(super) names: Option<HashSet<&'a str>>,
    /// API keys are there, or may be: requests have an identity.
    pub(super) identity: bool,
}

/// The keys that make a rule, of a route's limit or of a policy.
struct RuleKeys<'a> {
    rate: Option<&'a At<RateText>>,
    burst: Option<&'a At<Burst>>,
    concurrent: Option<&'a At<Places>>,
    per: Option<&'a At<PerShape>>,
    overrides: Option<&'a At<Dictionary<String, OverrideShape>>>,
    missing: Option<&'a At<crate::model::MissingKey>>,
    position: &'a Position,
    broken: bool,
    /// What there has to be one of.
    one_of: &'static str,
}

macro_rules! rule_keys {
    ($keys:expr, $one_of:literal) => {
        RuleKeys {
            rate: $keys.rate.as_ref(),
            burst: $keys.burst.as_ref(),
            concurrent: $keys.concurrent.as_ref(),
            per: $keys.per.as_ref(),
            overrides: $keys.overrides.as_ref(),
            missing: $keys.missing.as_ref(),
            position: &$keys.position,
            broken: $keys.broken,
            one_of: $one_of,
        }
    };
}

/// Reads one entry of `rate_limit_policies`.
pub(super) fn policy(
    keys: &RateLimitPolicyKeys,
    identity: bool,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Option<RateLimitPolicy> {
    let rule = rule(
        &rule_keys!(keys, "`rate` and `concurrent`"),
        identity,
        path,
        reader,
    );
    Some(RateLimitPolicy {
        name: keys.name.as_ref()?.value.0.clone(),
        rule: rule?,
        dry_run: keys.dry_run.as_ref().is_some_and(|at| at.value),
        position: keys.position.clone(),
    })
}

/// Reads the limits of a route, which get their names here.
pub(super) fn limits(
    list: &List<RateLimitKeys>,
    policies: &Policies<'_>,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Vec<RateLimit> {
    let mut limits: Vec<RateLimit> = Vec::new();
    let mut of_kind: HashMap<&str, u32> = HashMap::new();
    for (index, at) in list.items.iter().enumerate() {
        let written = at.value.name.as_ref();
        let path = path.item(index, written.map(|at| &*at.value.0));
        let Some((kind, source)) = source(&at.value, policies, path, reader) else {
            continue;
        };
        let number = of_kind.entry(kind).or_default();
        *number += 1;
        let name = written.map_or_else(|| format!("{kind}-{number}"), |at| at.value.0.clone());
        if let Some(first) = limits.iter().find(|limit| limit.name == name) {
            let message = format!("the name {} is taken", quoted(&name));
            let help = format!(
                "the first one is at {}:{}",
                first.position.file, first.position.line
            );
            reader.refuse(Code::DuplicateName, &at.position, path, message, &help);
        }
        let by_policy = matches!(&source, LimitSource::Policy(policy) if policy.dry_run);
        limits.push(RateLimit {
            name,
            source,
            dry_run: by_policy || at.value.dry_run.as_ref().is_some_and(|at| at.value),
            position: at.position.clone(),
        });
    }
    limits
}

/// Reads whose buckets a limit uses, and what kind that makes it.
fn source(
    keys: &RateLimitKeys,
    policies: &Policies<'_>,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Option<(&'static str, LimitSource)> {
    let Some(named) = &keys.policy else {
        let keys = rule_keys!(keys, "`rate`, `concurrent` and `policy`");
        let rule = rule(&keys, policies.identity, path, reader)?;
        let kind = match rule.bound {
            Bound::Rate(_) => "rate",
            Bound::Concurrent(_) => "concurrent",
        };
        return Some((kind, LimitSource::Own(rule)));
    };
    let own = [
        ("rate", keys.rate.as_ref().map(|at| &at.position)),
        ("burst", keys.burst.as_ref().map(|at| &at.position)),
        (
            "concurrent",
            keys.concurrent.as_ref().map(|at| &at.position),
        ),
        ("per", keys.per.as_ref().map(|at| &at.position)),
        ("overrides", keys.overrides.as_ref().map(|at| &at.position)),
        ("missing", keys.missing.as_ref().map(|at| &at.position)),
    ];
    if let Some((key, position)) = own.into_iter().find_map(|(key, at)| Some((key, at?))) {
        let message = format!("`{key}` is what the policy says, and all its routes share it");
        let help = format!("remove `{key}`, or remove `policy`");
        reader.refuse(Code::Conflict, position, path, message, &help);
    }
    let at = At {
        value: named.value.0.clone(),
        position: named.position.clone(),
    };
    let names = policies.names.as_ref();
    known("rate limit policy", &at, names, path.key("policy"), reader);
    let policy = policies.policies.get(&at.value)?;
    Some(("policy", LimitSource::Policy(Arc::clone(policy))))
}

fn rule(
    keys: &RuleKeys<'_>,
    identity: bool,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Option<LimitRule> {
    let per = keys.per.map(|at| at.value.0.clone()).unwrap_or_default();
    if let (Some(at), LimitKey::Identity, false) = (keys.per, &per, identity) {
        let message = "`identity` is the name of an API key, and none is known";
        needs_api_keys(message, &at.position, path.key("per"), reader);
    }
    let keyless = matches!(per, LimitKey::Route | LimitKey::ClientIp);
    if let (Some(at), true, false) = (keys.missing, keyless, keys.broken) {
        let message =
            format!("{path}.missing: has no effect, because no request is without the key");
        reader.report(Diagnostic::new(Code::NoEffect, &at.position, message));
    }
    if let (Some(at), LimitKey::Route, false) = (keys.overrides, &per, keys.broken) {
        let message = format!("{path}.overrides: has no effect, because the limit has no key");
        let help = "say what the key is, as in `per: identity`";
        reader.report(Diagnostic::new(Code::NoEffect, &at.position, message).help(help));
    }
    let bound = bound(keys, &per, path, reader)?;
    Some(LimitRule {
        bound,
        per,
        missing: keys.missing.map(|at| at.value).unwrap_or_default(),
    })
}

/// Reports that something is asked of API keys and there are none.
pub(super) fn needs_api_keys(
    message: &str,
    position: &Position,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) {
    let help = "add `auth: {api_keys: {file: keys.txt}}` at the top of the file";
    reader.refuse(Code::MissingKey, position, path, message, help);
}

fn bound(
    keys: &RuleKeys<'_>,
    per: &LimitKey,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Option<Bound> {
    match (keys.rate, keys.concurrent) {
        (Some(rate), None) => {
            let general = quota(rate, keys.burst, path, reader)?;
            let one = |shape: &OverrideShape, path: Path<'_>, reader: &mut Reader<'_>| {
                override_quota(shape, general, keys.burst.is_some(), path, reader)
            };
            let overrides = overrides(keys.overrides, per, path, reader, one);
            Some(Bound::Rate(PerKey { general, overrides }))
        }
        (None, Some(places)) => {
            if let Some(burst) = keys.burst {
                let message = "`burst` belongs to `rate`";
                reader.refuse(
                    Code::Conflict,
                    &burst.position,
                    path,
                    message,
                    "remove `burst`",
                );
            }
            let general = NonZeroU32::new(places.value.narrow())?;
            let overrides = overrides(keys.overrides, per, path, reader, override_places);
            Some(Bound::Concurrent(PerKey { general, overrides }))
        }
        (None, None) if keys.broken => None,
        (Some(_), Some(_)) | (None, None) => {
            let message = format!("expected exactly one of {}", keys.one_of);
            let help = "for example `rate: 100/s`";
            reader.refuse(Code::Conflict, keys.position, path, message, help);
            None
        }
    }
}

fn quota(
    rate: &At<RateText>,
    burst: Option<&At<Burst>>,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Option<Quota> {
    let written = burst.map(|at| at.value.narrow());
    let position = burst.map_or(&rate.position, |at| &at.position);
    let rate = rate.value.0;
    full_in_time(
        rate,
        written.unwrap_or(one_second(rate)),
        position,
        path,
        reader,
    )
}

/// Makes a quota whose bucket is full within a year.
fn full_in_time(
    rate: Rate,
    burst: u32,
    position: &Position,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Option<Quota> {
    let burst = NonZeroU32::new(burst)?;
    let filled = rate.interval().checked_mul(burst.get());
    if filled.is_none_or(|time| time > FILL_MAX) {
        let message = format!(
            "{burst} at once take {} at this rate: at most {}",
            filled.map_or("ages".to_owned(), show_duration),
            show_duration(FILL_MAX)
        );
        let help = "raise the rate, or lower `burst`";
        reader.refuse(Code::OutOfRange, position, path, message, help);
        return None;
    }
    Some(Quota { rate, burst })
}

/// Returns the requests of one second, rounded up.
fn one_second(rate: Rate) -> u32 {
    let burst = rate.thousandths.div_ceil(1000 * rate.period.as_secs());
    u32::try_from(burst).unwrap_or(BURST_MAX).min(BURST_MAX)
}

/// Returns the burst that is to `rate` as the general burst is to the general rate, rounded up.
fn in_proportion(general: Quota, rate: Rate) -> u32 {
    let [own, other] = [rate, general.rate].map(|rate| u128::from(rate.thousandths));
    let [own_time, other_time] = [rate, general.rate].map(|rate| u128::from(rate.period.as_secs()));
    let burst = u128::from(general.burst.get()) * own * other_time;
    u32::try_from(burst.div_ceil(own_time * other))
        .unwrap_or(BURST_MAX)
        .min(BURST_MAX)
}

fn override_quota(
    shape: &OverrideShape,
    general: Quota,
    with_burst: bool,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Option<Quota> {
    let (rate, burst) = match &shape.value {
        OverrideValue::Rate(rate) => (*rate, None),
        OverrideValue::Quota(keys) => (keys.rate.as_ref()?.value.0, keys.burst.as_ref()),
        OverrideValue::Places(places) => {
            let message = "expected a rate, found a number";
            let help = format!("a rate has a unit: `{}/s`?", places.0);
            reader.refuse(Code::WrongType, &shape.position, path, message, &help);
            return None;
        }
    };
    let burst = match burst {
        Some(at) => at.value.narrow(),
        None if with_burst => in_proportion(general, rate),
        None => one_second(rate),
    };
    full_in_time(rate, burst, &shape.position, path, reader)
}

fn override_places(
    shape: &OverrideShape,
    path: Path<'_>,
    reader: &mut Reader<'_>,
) -> Option<NonZeroU32> {
    match &shape.value {
        OverrideValue::Places(places) => NonZeroU32::new(places.narrow()),
        OverrideValue::Rate(_) | OverrideValue::Quota(_) => {
            let message = "expected a number of requests, found a rate";
            let help = "the limit is `concurrent`, so its overrides are numbers too";
            reader.refuse(Code::WrongType, &shape.position, path, message, help);
            None
        }
    }
}

/// Reads the keys that have a limit of their own.
fn overrides<T>(
    written: Option<&At<Dictionary<String, OverrideShape>>>,
    per: &LimitKey,
    path: Path<'_>,
    reader: &mut Reader<'_>,
    read: impl Fn(&OverrideShape, Path<'_>, &mut Reader<'_>) -> Option<T>,
) -> BTreeMap<String, T> {
    let mut found = BTreeMap::new();
    let path = path.key("overrides");
    for (key, shape) in written.iter().flat_map(|at| &at.value.0) {
        let name = match per {
            LimitKey::ClientIp => address(key),
            _ => Some(key.clone()),
        };
        let value = read(shape, path.key(key), reader);
        let Some(name) = name else {
            let message = format!("{} is not the address of a client", quoted(key));
            let help = "one address, as in `192.0.2.7` or `2001:db8::7`, which stands for its /64";
            reader.refuse(Code::BadValue, &shape.position, path, message, help);
            continue;
        };
        if found.contains_key(&name) {
            let message = format!("{} is the same key as another one", quoted(key));
            let help = "an IPv6 address stands for its /64";
            reader.refuse(Code::DuplicateKey, &shape.position, path, message, help);
        }
        if let Some(value) = value {
            found.insert(name, value);
        }
    }
    match per {
        LimitKey::Route => BTreeMap::new(),
        _ => found,
    }
}

/// Returns an address as the key of a client; IPv6 stands for its /64.
fn address(text: &str) -> Option<String> {
    let address: IpAddr = text.parse().ok()?;
    Some(match address.to_canonical() {
        IpAddr::V4(four) => four.to_string(),
        IpAddr::V6(six) => Ipv6Addr::from_bits(six.to_bits() >> 64 << 64).to_string(),
    })
}
