//! Those who wait, in order: a doubly linked list in a slab, so that coming, going and cancelling are O(1).

use std::task::Waker;

use tokio::time::Instant;

use crate::error::Reason;

/// No place.
const NOWHERE: u32 = u32::MAX;
/// Places that are kept for the next ones when nobody is left.
const KEPT: usize = 1024;

/// When a request came, for one that comes back to wait again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Requests that had waited before it came.
    pub(super) order: u64,
    /// When it began to wait; `None`: it never did.
    pub(super) since: Option<Instant>,
}

/// What became of one that waits.
#[derive(Debug)]
pub(super) enum Fate<S> {
    /// Nothing yet; who is to be woken.
    Waits(Option<Waker>),
    /// It was given a slot here, and is out of the line.
    Has(S),
    /// It waits for nothing, and is out of the line.
    Over(Reason),
    /// The place is free; the next free one is behind it.
    Nobody,
}

#[derive(Debug)]
struct Place<S> {
    before: u32,
    behind: u32,
    order: u64,
    since: Instant,
    fate: Fate<S>,
}

/// The line and the places of those who left it but do not know yet.
#[derive(Debug)]
pub(super) struct Line<S> {
    places: Vec<Place<S>>,
    free: u32,
    taken: u32,
    first: u32,
    last: u32,
    waiting: u32,
    /// Counts the times the line became empty or is paced otherwise, from 1.
    episode: u32,
}

impl<S> Line<S> {
    pub(super) fn new() -> Self {
        Self {
            places: Vec::new(),
            free: NOWHERE,
            taken: 0,
            first: NOWHERE,
            last: NOWHERE,
            waiting: 0,
            episode: 1,
        }
    }

    /// How many stand in it.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting
    }

    /// What the pace of an endpoint refers to.
    pub(super) fn episode(&self) -> u32 {
        self.episode
    }

    /// Order and arrival of the first one.
    pub(super) fn first(&self) -> Option<(u64, Instant)> {
        let first = self.places.get(self.first as usize)?;
        Some((first.order, first.since))
    }

    /// Joins at the end; its place.
    pub(super) fn push_back(&mut self, order: u64, since: Instant) -> u32 {
        self.insert(self.last, order, since)
    }

    /// Joins before all that came later, behind its equals, looking from the front; its place.
    pub(super) fn push_front(&mut self, order: u64, since: Instant) -> u32 {
        let (mut before, mut at) = (NOWHERE, self.first);
        while let Some(place) = self.places.get(at as usize)
            && place.order <= order
        {
            (before, at) = (at, place.behind);
        }
        self.insert(before, order, since)
    }

    fn insert(&mut self, before: u32, order: u64, since: Instant) -> u32 {
        let behind = match self.places.get(before as usize) {
            Some(place) => place.behind,
            None => self.first,
        };
        let place = Place {
            before,
            behind,
            order,
            since,
            fate: Fate::Waits(None),
        };
        let at = match self.places.get_mut(self.free as usize) {
            Some(free) => {
                let at = std::mem::replace(&mut self.free, free.behind);
                *free = place;
                at
            }
            None => {
                self.places.push(place);
                self.places.len() as u32 - 1 // a request is far larger than a place: memory ends long before
            }
        };
        self.tie(before, at);
        self.tie(at, behind);
        self.taken += 1;
        self.waiting += 1;
        at
    }

    /// Makes two places neighbours; nowhere is the end of the line.
    fn tie(&mut self, before: u32, behind: u32) {
        match self.places.get_mut(before as usize) {
            Some(place) => place.behind = behind,
            None => self.first = behind,
        }
        match self.places.get_mut(behind as usize) {
            Some(place) => place.before = before,
            None => self.last = before,
        }
    }

    /// Takes one out of the line; its place stays.
    fn step_out(&mut self, at: u32) {
        let Place { before, behind, .. } = self.places[at as usize];
        self.tie(before, behind);
        self.waiting -= 1;
        if self.waiting == 0 {
            self.begin_episode();
        }
    }

    /// Makes the pace of every endpoint begin anew.
    pub(super) fn begin_episode(&mut self) {
        self.episode = self.episode.wrapping_add(1);
    }

    /// Takes the first one out of the line and tells it its fate; its waker is to be woken once the lock is gone.
    ///
    /// # Errors
    ///
    /// Nobody waits: the fate comes back.
    pub(super) fn call_first(&mut self, fate: Fate<S>) -> Result<Option<Waker>, Fate<S>> {
        let first = self.first;
        if first == NOWHERE {
            return Err(fate);
        }
        self.step_out(first);
        match std::mem::replace(&mut self.places[first as usize].fate, fate) {
            Fate::Waits(waker) => Ok(waker),
            Fate::Has(_) | Fate::Over(_) | Fate::Nobody => unreachable!("it stood in the line"),
        }
    }

    /// What became of the one at `at`; while it waits, it is `waker` that is woken.
    pub(super) fn ask(&mut self, at: u32, waker: &Waker) -> Option<Fate<S>> {
        if let Fate::Waits(known) = &mut self.places[at as usize].fate {
            match known {
                Some(known) => known.clone_from(waker),
                None => *known = Some(waker.clone()),
            }
            return None;
        }
        Some(self.leave(at))
    }

    /// Leaves for good, from wherever it stands; what became of it until then.
    pub(super) fn leave(&mut self, at: u32) -> Fate<S> {
        if matches!(self.places[at as usize].fate, Fate::Waits(_)) {
            self.step_out(at);
        }
        let place = &mut self.places[at as usize];
        let fate = std::mem::replace(&mut place.fate, Fate::Nobody);
        place.behind = std::mem::replace(&mut self.free, at);
        self.taken -= 1;
        if self.taken == 0 && self.places.len() > KEPT {
            self.places = Vec::new();
            self.free = NOWHERE;
        }
        fate
    }
}

/// Bytes of a place.
#[cfg(test)]
pub(super) const fn place_size<S>() -> usize {
    size_of::<Place<S>>()
}
