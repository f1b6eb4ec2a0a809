//! Slots: admissions to one endpoint each.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::line::Ticket;
use super::sync::{AtomicU32, AtomicU64};
use super::waiting::Room;

/// An endpoint, as far as the room is concerned: `Arc<Endpoint>`.
pub trait Seat: Clone {
    /// Its slots; the same for every clone, and for as long as any of its slots is in use.
    fn seating(&self) -> &Seating;

    /// True when it may be given to one that waits; false while it is drained, unhealthy or gone. Once it becomes
    /// true, or the limit grows, [`Room::opened`] is called.
    fn may_serve(&self) -> bool;
}

/// The slots of one endpoint, over all workers.
#[derive(Debug)]
pub struct Seating {
    used: AtomicU32,
    /// Episode of the line << 32 | requests of the line that may be sent here; written under the line's lock.
    pace: AtomicU64,
}

impl Default for Seating {
    fn default() -> Self {
        Self {
            used: AtomicU32::new(0),
            pace: AtomicU64::new(0),
        }
    }
}

impl Seating {
    /// Slots in use.
    pub fn used(&self) -> u32 {
        self.used.load(Ordering::Acquire)
    }

    /// Takes one of `limit` slots; `None`: there is no limit.
    pub(super) fn take(&self, limit: Option<u32>) -> bool {
        let Some(limit) = limit else {
            self.used.fetch_add(1, Ordering::AcqRel);
            return true;
        };
        let mut used = self.used.load(Ordering::Acquire);
        while used < limit {
            let taken = self.used.compare_exchange_weak(
                used,
                used + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            match taken {
                Ok(_) => return true,
                Err(now) => used = now,
            }
        }
        false
    }

    /// Frees one.
    pub(super) fn free(&self) {
        self.used.fetch_sub(1, Ordering::AcqRel);
    }

    /// How many of the line may still be sent here in this episode; `None`: it was not opened in it.
    pub(super) fn pace(&self, episode: u32) -> Option<u32> {
        let pace = self.pace.load(Ordering::Acquire);
        ((pace >> 32) as u32 == episode).then_some(pace as u32)
    }

    pub(super) fn set_pace(&self, episode: u32, left: u32) {
        let pace = u64::from(episode) << 32 | u64::from(left);
        self.pace.store(pace, Ordering::Release);
    }
}

/// An admission to one endpoint. It ends with the upstream's last byte, when this is dropped: then the next one in the
/// line has it.
#[must_use]
pub struct Slot<S: Seat> {
    room: Arc<Room<S>>,
    /// `None` only while it is dropped.
    seat: Option<S>,
    ticket: Ticket,
    /// It has counted for the pace of its endpoint.
    paced: bool,
}

impl<S: Seat> Slot<S> {
    /// A slot that has been counted already.
    pub(super) fn new(room: &Arc<Room<S>>, seat: S, ticket: Ticket) -> Self {
        Self {
            room: Arc::clone(room),
            seat: Some(seat),
            ticket,
            paced: false,
        }
    }

    /// Where it is.
    pub fn seat(&self) -> &S {
        self.seat
            .as_ref()
            .expect("the seat is there until the slot is dropped")
    }

    /// What a request needs to come back to the head of the line, see [`Room::join_front`].
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// When its request began to wait; `None`: it never did.
    pub fn since(&self) -> Option<Instant> {
        self.ticket.since
    }

    /// The response head came: without a limit, one more of those that wait may follow. Only the first call counts.
    pub fn head_came(&mut self) {
        if !std::mem::replace(&mut self.paced, true) {
            self.room.head_came(self.seat());
        }
    }
}

impl<S: Seat> Drop for Slot<S> {
    fn drop(&mut self) {
        if let Some(seat) = self.seat.take() {
            self.room.release(seat, self.paced);
        }
    }
}

impl<S: Seat> std::fmt::Debug for Slot<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot")
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}
