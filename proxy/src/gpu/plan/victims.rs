//! Who goes: those that cost least and are enough.

use std::cmp::Ordering;
use std::time::Duration;

use forebay_config::Gpu;

use super::{Amount, Resident, Shelf, Want};

/// Of so many on one device every choice of victims is compared.
const COMPARED: usize = 12;

/// Victims and how bad it is to choose them: cost, number, and how recently they were in use.
struct Victims<'a> {
    cost: f64,
    idle_for: Duration,
    who: Vec<&'a Resident>,
}

impl Victims<'_> {
    fn compare(&self, other: &Self) -> Ordering {
        let by_count = || self.who.len().cmp(&other.who.len());
        let by_age = || other.idle_for.cmp(&self.idle_for);
        self.cost
            .total_cmp(&other.cost)
            .then_with(by_count)
            .then_with(by_age)
    }
}

/// Returns the device where it costs least to make room, and who goes there; `None`: there is none.
pub(super) fn cheapest_device<'a>(
    want: &Want,
    shelves: &[Shelf],
    residents: &'a [Resident],
    evicted: &[u64],
) -> Option<(usize, Vec<&'a Resident>)> {
    let usable = shelves.iter().enumerate();
    let usable = usable.filter(|(_, shelf)| !shelf.reserved && want.may_use(&shelf.device));
    let sets = usable.filter_map(|(at, shelf)| {
        let here = residents.iter().filter(|r| {
            r.device == shelf.device.index && r.may_go(want) && !evicted.contains(&r.id)
        });
        let needed = shelf.later.plus(shelf.amount(&want.share));
        let lacking = needed.minus(shelf.budget);
        let victims = cheapest(here.collect(), lacking, want.tenant, &shelf.device)?;
        Some((at, shelf.left(shelf.amount(&want.share)), victims))
    });
    let best = sets.min_by(|(_, left, one), (_, other_left, other)| {
        one.compare(other).then_with(|| left.cmp(other_left))
    });
    best.map(|(at, _, victims)| (at, victims.who))
}

/// Returns those whose going frees enough and costs least.
fn cheapest<'a>(
    mut candidates: Vec<&'a Resident>,
    lacking: Amount,
    tenant: u64,
    device: &Gpu,
) -> Option<Victims<'a>> {
    // What is to be replaced goes anyway.
    let cost = |r: &Resident| if r.tenant == tenant { 0.0 } else { r.cost };
    let freed = |who: &[&Resident]| {
        who.iter().fold(Amount::default(), |sum, r| {
            sum.plus(Amount::of(&r.share, device))
        })
    };
    if !lacking.is_within(freed(&candidates)) {
        return None;
    }
    let rated = |who: Vec<&'a Resident>| Victims {
        cost: who.iter().map(|r| cost(r)).sum(),
        idle_for: who.iter().map(|r| r.idle_for).sum(),
        who,
    };
    if candidates.len() <= COMPARED {
        let sets = (1_u32..1 << candidates.len()).map(|set| {
            let chosen = candidates.iter().enumerate();
            let chosen = chosen.filter(|(at, _)| set >> at & 1 == 1);
            chosen.map(|(_, r)| *r).collect::<Vec<_>>()
        });
        let enough = sets.filter(|set| lacking.is_within(freed(set)));
        return enough.map(rated).min_by(Victims::compare);
    }
    // Too many to compare: without those that cost most, as long as it is enough.
    candidates.sort_by(|a, b| {
        let by_cost = cost(b).total_cmp(&cost(a));
        by_cost.then_with(|| a.idle_for.cmp(&b.idle_for))
    });
    let mut at = 0;
    while at < candidates.len() {
        let without = candidates.remove(at);
        if !lacking.is_within(freed(&candidates)) {
            candidates.insert(at, without);
            at += 1;
        }
    }
    Some(rated(candidates))
}
