//! Who gets which device, and who goes for it. Pure: no clock, no I/O.
//!
//! Those who want a place are served in turn: clusters of which nothing runs before others, and whoever has waited
//! longest first. A place that is free is given where the least is left over. Where none is, those go that cost least
//! (time to load again × recent demand), never one that is pinned, that starts, or that is younger than its
//! `min_residency`. A replica with work, or for which somebody waits, stays until its queue is worked off, so that
//! A B A B A becomes A A A B B; but somebody who has waited longer than [`TURN`] for a model of which nothing runs ends
//! the turn of one that has had as much.

use std::cmp::Reverse;
use std::time::Duration;

use forebay_config::{Gpu, GpuShare};

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod traces;
mod victims;

use victims::cheapest_device;

/// How long a model that is busy keeps its place at least while others wait, and others wait before they end its turn.
pub const TURN: Duration = Duration::from_secs(30);
/// One that is to go and still has work after this is let be, and as long is not asked again: what it does may take
/// hours. It comes before the end of a drain, which would cut that.
pub const STUCK: Duration = Duration::from_secs(240);

/// A replica that holds a place, from before it is started until nothing of it is left.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Resident {
    pub(super) id: u64,
    /// Whose it is.
    pub(super) tenant: u64,
    /// Index of its device.
    pub(super) device: u32,
    pub(super) share: GpuShare,
    /// How long it has been able to serve; `None`: it starts.
    pub(super) ready_for: Option<Duration>,
    /// It serves no more and will be gone.
    pub(super) leaving: bool,
    /// It was asked to make room, so long ago.
    pub(super) evicted: Option<Duration>,
    /// It has work, or somebody waits for it.
    pub(super) busy: bool,
    /// How long it has not been.
    pub(super) idle_for: Duration,
    /// It never makes room.
    pub(super) pinned: bool,
    /// It is to be replaced by one of the same tenant.
    pub(super) stale: bool,
    /// It was [`STUCK`] not long ago.
    pub(super) spared: bool,
    pub(super) min_residency: Duration,
    /// What it costs to let it go: seconds to load it again × requests per second; finite, ≥ 0.
    pub(super) cost: f64,
}

/// Why somebody wants a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Requests wait, the oldest so long.
    Waiting(Duration),
    /// An operator says so.
    Asked,
    /// It should be there: `min`, `preload`, a successor, more of what is in use. It takes what is free.
    Standing,
}

/// Somebody wants a place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Want {
    pub(super) id: u64,
    pub(super) tenant: u64,
    pub(super) share: GpuShare,
    /// The only device it can use.
    pub(super) only: Option<u32>,
    pub(super) urgency: Urgency,
    /// Others of the tenant have a place, or are served before this one.
    pub(super) runs: bool,
}

/// Why somebody has no place yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// Whoever makes room for it is not gone yet.
    Leaving,
    /// All that could make room have work, have just been loaded, or are needed as much.
    Blocked,
    /// No device is large enough, but for what is pinned.
    Never,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Decision {
    /// Who gets a place, and on which device.
    pub(super) places: Vec<(u64, u32)>,
    /// Who makes room.
    pub(super) evict: Vec<u64>,
    /// Who was to make room and need not.
    pub(super) keep: Vec<u64>,
    /// Who waits, and why.
    pub(super) waits: Vec<(u64, Why)>,
}

/// What is counted of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    memory: u64,
    cores: u64,
}

impl Amount {
    fn of(share: &GpuShare, device: &Gpu) -> Self {
        Self {
            memory: share.memory.of(device),
            cores: share.cores.into(),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            memory: self.memory.saturating_add(other.memory),
            cores: self.cores.saturating_add(other.cores),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            memory: self.memory.saturating_sub(other.memory),
            cores: self.cores.saturating_sub(other.cores),
        }
    }

    fn is_within(self, other: Self) -> bool {
        self.memory <= other.memory && self.cores <= other.cores
    }
}

impl Resident {
    /// It will be gone, and nothing can be meant to come of waiting for it in vain.
    fn goes(&self) -> bool {
        match self.evicted {
            Some(_) => !self.is_stuck(),
            None => self.leaving && !self.busy,
        }
    }

    fn is_stuck(&self) -> bool {
        self.busy && self.evicted.is_some_and(|since| since >= STUCK)
    }

    /// True when it may be asked to make room.
    fn may_go(&self, want: &Want) -> bool {
        if self.leaving || self.evicted.is_some() {
            return false;
        }
        if self.tenant == want.tenant {
            return self.stale;
        }
        let Some(ready_for) = self.ready_for else {
            return false;
        };
        if self.pinned || self.spared || ready_for < self.min_residency {
            return false;
        }
        match want.urgency {
            Urgency::Waiting(waited) if want.runs => !self.busy && waited >= TURN,
            Urgency::Waiting(waited) => !self.busy || waited >= TURN && ready_for >= TURN,
            Urgency::Asked => !self.busy,
            Urgency::Standing => false,
        }
    }
}

impl Want {
    /// Who is served first.
    fn rank(&self) -> (u8, Reverse<Duration>, u64) {
        let (class, waited) = match self.urgency {
            Urgency::Waiting(waited) if !self.runs => (0, waited),
            Urgency::Asked => (1, Duration::ZERO),
            Urgency::Waiting(waited) => (2, waited),
            Urgency::Standing => (3, Duration::ZERO),
        };
        (class, Reverse(waited), self.id)
    }

    fn may_use(&self, device: &Gpu) -> bool {
        self.only.is_none_or(|only| only == device.index)
    }

    /// True when it has waited so long that others may not take what it could use.
    fn insists(&self) -> bool {
        !self.runs && matches!(self.urgency, Urgency::Waiting(waited) if waited >= TURN)
    }
}

/// A device and what of it is taken.
#[derive(Clone, Debug)]
struct Shelf {
    device: Gpu,
    budget: Amount,
    /// Taken now, by those who go too.
    now: Amount,
    /// Taken once they are gone, by what was promised to others too.
    later: Amount,
    /// Kept for one who could not be served yet.
    reserved: bool,
}

impl Shelf {
    fn new(device: &Gpu, residents: &[Resident]) -> Self {
        let here = residents.iter().filter(|r| r.device == device.index);
        let mut shelf = Self {
            device: *device,
            budget: Amount {
                memory: device.memory,
                cores: device.cores.into(),
            },
            now: Amount::default(),
            later: Amount::default(),
            reserved: false,
        };
        for resident in here {
            let amount = shelf.amount(&resident.share);
            shelf.now = shelf.now.plus(amount);
            if !resident.goes() {
                shelf.later = shelf.later.plus(amount);
            }
        }
        shelf
    }

    fn amount(&self, share: &GpuShare) -> Amount {
        Amount::of(share, &self.device)
    }

    fn fits_now(&self, amount: Amount) -> bool {
        self.now.plus(amount).is_within(self.budget) && self.fits_later(amount)
    }

    fn fits_later(&self, amount: Amount) -> bool {
        !self.reserved && self.later.plus(amount).is_within(self.budget)
    }

    /// What would be left over: the least is best, and of equals the smallest device.
    fn left(&self, amount: Amount) -> (u64, u64, u64, u32) {
        let left = self.budget.minus(self.later.plus(amount));
        (
            left.memory,
            left.cores,
            self.budget.memory,
            self.device.index,
        )
    }
}

/// Decides who gets a place and who goes. The budget of a device that is listed is never exceeded, but for what is
/// there already.
///
/// * `devices`: indices unique; residents of others are taken for nothing
/// * `wants`: those without urgency left out
pub(super) fn decide(devices: &[Gpu], residents: &[Resident], wants: &[Want]) -> Decision {
    let mut shelves: Vec<Shelf> = devices
        .iter()
        .map(|device| Shelf::new(device, residents))
        .collect();
    let mut decision = Decision::default();
    let mut sorted: Vec<&Want> = wants.iter().collect();
    sorted.sort_by_key(|want| want.rank());
    for want in sorted {
        let why = serve(want, &mut shelves, residents, &mut decision);
        decision.waits.extend(why.map(|why| (want.id, why)));
    }
    decision.keep = spare(&mut shelves, residents);
    decision
}

/// Gives a place, promises one, or says why not.
fn serve(
    want: &Want,
    shelves: &mut [Shelf],
    residents: &[Resident],
    decision: &mut Decision,
) -> Option<Why> {
    let best = |shelves: &[Shelf], fits: &dyn Fn(&Shelf, Amount) -> bool| {
        let usable = shelves.iter().enumerate();
        let usable = usable.map(|(at, shelf)| (at, shelf, shelf.amount(&want.share)));
        let usable =
            usable.filter(|(_, shelf, amount)| want.may_use(&shelf.device) && fits(shelf, *amount));
        let chosen = usable.min_by_key(|(_, shelf, amount)| shelf.left(*amount));
        chosen.map(|(at, _, amount)| (at, amount))
    };
    if let Some((at, amount)) = best(shelves, &Shelf::fits_now) {
        let shelf = &mut shelves[at];
        shelf.now = shelf.now.plus(amount);
        shelf.later = shelf.later.plus(amount);
        decision.places.push((want.id, shelf.device.index));
        return None;
    }
    if let Some((at, amount)) = best(shelves, &Shelf::fits_later) {
        shelves[at].later = shelves[at].later.plus(amount);
        return Some(Why::Leaving);
    }
    if let Some((at, victims)) = cheapest_device(want, shelves, residents, &decision.evict) {
        let shelf = &mut shelves[at];
        shelf.later = shelf.later.plus(shelf.amount(&want.share));
        for victim in victims {
            shelf.later = shelf.later.minus(shelf.amount(&victim.share));
            decision.evict.push(victim.id);
        }
        return Some(Why::Leaving);
    }
    let devices = shelves.iter().map(|shelf| &shelf.device);
    if !could_ever(devices, residents, want.tenant, &want.share, want.only) {
        return Some(Why::Never);
    }
    if want.insists() {
        let open = shelves.iter_mut().filter(|shelf| {
            let one = std::iter::once(&shelf.device);
            !shelf.reserved && could_ever(one, residents, want.tenant, &want.share, want.only)
        });
        let nearest = open.min_by_key(|shelf| (shelf.later.memory, shelf.device.index));
        if let Some(shelf) = nearest {
            shelf.reserved = true;
        }
    }
    Some(Why::Blocked)
}

/// True when a place could be had if all went that can be asked to.
///
/// * `tenant`: whose residents make room for their own successors
pub(super) fn could_ever<'a>(
    devices: impl IntoIterator<Item = &'a Gpu>,
    residents: &[Resident],
    tenant: u64,
    share: &GpuShare,
    only: Option<u32>,
) -> bool {
    devices.into_iter().any(|device| {
        let stays = |r: &&Resident| {
            r.device == device.index && r.pinned && !r.leaving && r.tenant != tenant
        };
        let pinned = residents.iter().filter(stays);
        let pinned = pinned.fold(Amount::default(), |sum, r| {
            sum.plus(Amount::of(&r.share, device))
        });
        let budget = Amount {
            memory: device.memory,
            cores: device.cores.into(),
        };
        let usable = only.is_none_or(|only| only == device.index);
        usable && pinned.plus(Amount::of(share, device)).is_within(budget)
    })
}

/// Returns who was asked to make room and may stay: nobody was promised that room, or it cannot be had in time. Those
/// that cost most stay first.
fn spare(shelves: &mut [Shelf], residents: &[Resident]) -> Vec<u64> {
    let mut asked: Vec<&Resident> = residents.iter().filter(|r| r.evicted.is_some()).collect();
    asked.sort_by(|a, b| b.cost.total_cmp(&a.cost).then_with(|| a.id.cmp(&b.id)));
    let mut kept = Vec::new();
    for resident in asked {
        let shelf = shelves
            .iter_mut()
            .find(|shelf| shelf.device.index == resident.device);
        let Some(shelf) = shelf else { continue };
        let amount = shelf.amount(&resident.share);
        if resident.is_stuck() {
            kept.push(resident.id);
        } else if !resident.stale && shelf.fits_later(amount) {
            shelf.later = shelf.later.plus(amount);
            kept.push(resident.id);
        }
    }
    kept
}
