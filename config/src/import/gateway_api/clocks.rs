//! Timeouts and retries of rules.

use std::time::Duration;

use crate::import::native::{Methods, Retry, Timeouts};
use crate::import::{Fields, Leaf};
use crate::units;

/// The native clocks that are on unless something is said.
const DEFAULT: Duration = Duration::from_secs(300);
/// The most attempts after the first.
const ATTEMPTS: i64 = 10;

/// Reads `timeouts`. A request that may take longer than the native clocks run gets longer ones.
pub(super) fn timeouts(rule: Fields<'_>) -> Timeouts {
    let Some(written) = rule.map("timeouts") else {
        return Timeouts::default();
    };
    let request = written.duration("request").map(clock);
    let attempt = written.duration("backendRequest").map(clock);
    let longer = |leaf: &Leaf| match leaf.as_str() {
        "none" => true,
        text => units::duration(text).is_some_and(|time| time > DEFAULT),
    };
    let stretched = request.clone().filter(longer);
    Timeouts {
        at: Some(written.at().clone()),
        first_byte: attempt.or_else(|| stretched.clone()),
        idle: stretched,
        total: request,
        ..Timeouts::default()
    }
}

/// Writes a clock that is off as native files do.
fn clock(leaf: Leaf) -> Leaf {
    match units::duration(leaf.as_str()) {
        Some(Duration::ZERO) => leaf.with("none"),
        _ => leaf,
    }
}

/// Reads `retry`.
pub(super) fn retry(rule: Fields<'_>, timeouts: &Timeouts) -> Option<Retry> {
    let written = rule.map("retry")?;
    let codes = written.texts("codes");
    let attempts = written.whole("attempts", 0..=i64::from(u32::MAX));
    let attempts = attempts.map(|leaf| match leaf.whole() {
        Some(number) if number > ATTEMPTS => {
            written.approximated("attempts", "at most 10");
            Leaf::number(leaf.at(), ATTEMPTS)
        }
        _ => leaf,
    });
    let mut when: Vec<Leaf> = Vec::new();
    for word in ["connect", "refused"] {
        when.push(Leaf::text(written.at(), word));
    }
    let mut statuses = false;
    for code in codes {
        match code.whole() {
            Some(400..=599) => {
                when.push(code);
                statuses = true;
            }
            _ => written.lost("codes", "only statuses from 400 to 599 can be tried again"),
        }
    }
    let all = || Methods::Word(Leaf::text(written.place("codes"), "all"));
    Some(Retry {
        at: Some(written.at().clone()),
        attempts,
        when: statuses.then_some(when),
        methods: statuses.then(all),
        per_try: timeouts.first_byte.clone().filter(|_| {
            rule.map("timeouts")
                .is_some_and(|one| one.has("backendRequest"))
        }),
        ..Retry::default()
    })
}
